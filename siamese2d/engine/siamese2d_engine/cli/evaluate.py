"""``siamese2d-engine evaluate picks|classes|embedding``: results against a known truth."""

import argparse
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.evaluate.stage import evaluate_classes_to, evaluate_embedding_to, evaluate_picks_to
from siamese2d_engine.evaluate.tables import SPECIES

NAME = "evaluate"
HELP = "Score picks, classes or embeddings against a truth."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="kinds", dest="kind", metavar="KIND", required=True)
    for name, text, add in (
        ("picks", "Average precision, F1 and centre errors of coordinates.", _add_picks),
        ("classes", "Purity, angular spread and junk of 2D classes.", _add_classes),
        ("embedding", "How well vectors of particles keep known classes apart, and k-means on them.", _add_embedding),
    ):
        kind = kinds.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
        common.add_run_arguments(kind, seed=name == "embedding", device=False)
        add(kind)


def run(args: argparse.Namespace) -> None:
    common.prepare(args)
    shared = {
        "truth": args.truth,
        "radius": args.radius,
        "where": dict(args.where or []),
        "truth_scale": args.truth_scale,
        "overwrite": args.overwrite,
    }
    if args.kind == "picks":
        evaluate_picks_to(args.out, coordinates=args.coordinates, micrographs=args.micrographs, **shared)
    elif args.kind == "classes":
        evaluate_classes_to(args.out, particles=args.particles, **shared)
    else:
        evaluate_embedding_to(
            args.out,
            particles=args.particles,
            embeddings=args.embeddings,
            label=args.label,
            classes=args.classes,
            centres=args.centres,
            seed=args.seed,
            **shared,
        )


def _add_picks(parser: argparse.ArgumentParser) -> None:
    found = parser.add_argument_group("what was found")
    found.add_argument("--coordinates", type=Path, required=True, metavar="FILE", help="picks, STAR or CSV")
    found.add_argument(
        "--micrographs",
        type=Path,
        metavar="STAR",
        help="score only these, for instance those not trained on; by default those that the truth knows",
    )
    truth = _add_truth(parser)
    truth.add_argument(
        "--radius",
        type=common.positive_float,
        required=True,
        metavar="PX",
        help="farthest that a pick may lie from its particle; about half a particle's radius to a whole one",
    )


def _add_classes(parser: argparse.ArgumentParser) -> None:
    found = parser.add_argument_group("what was found")
    found.add_argument("--particles", type=Path, required=True, metavar="STAR", help="particles with class numbers")
    _add_particle_truth(parser)


def _add_embedding(parser: argparse.ArgumentParser) -> None:
    found = parser.add_argument_group("what was found")
    found.add_argument("--particles", type=Path, required=True, metavar="STAR", help="the particles, in their order")
    found.add_argument("--embeddings", type=Path, required=True, metavar="NPY", help="their vectors, written by train")
    found.add_argument("--classes", type=common.positive_int, metavar="K",
                       help="of k-means; by default those of the truth")
    found.add_argument(
        "--centres",
        type=common.positive_int,
        metavar="N",
        help="over-cluster: k-means to N centres, and these to K classes by spectral clustering, for clusters that are "
        "no round clouds (MiLoPYP: 256)",
    )
    truth = _add_particle_truth(parser)
    truth.add_argument("--label", default=SPECIES, metavar="COLUMN", help="column of the truth with the classes")


def _add_particle_truth(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    truth = _add_truth(parser)
    truth.add_argument(
        "--radius",
        type=common.positive_float,
        metavar="PX",
        help="farthest that a particle may lie from "
        "its true place; needed where the truth is of coordinates, not of these images",
    )
    return truth


def _add_truth(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("what is true")
    group.add_argument("--truth", type=Path, required=True, metavar="FILE", help="STAR, or for picks CSV")
    group.add_argument(
        "--where",
        type=_condition,
        action="append",
        metavar="COLUMN=VALUE",
        help="use only these rows of the truth, for instance one annotator's",
    )
    group.add_argument(
        "--truth-scale",
        type=common.positive_float,
        default=1.0,
        metavar="FACTOR",
        help="from the truth's pixels to those that were worked on, for instance 0.5 after downsampling by 2",
    )
    return group


def _condition(text: str) -> tuple[str, str]:
    column, separator, value = text.partition("=")
    if not (column and separator):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form COLUMN=VALUE")
    return column, value
