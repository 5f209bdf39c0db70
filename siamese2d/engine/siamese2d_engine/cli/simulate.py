"""``siamese2d-engine simulate micrographs|particles``: made-up data with a known truth."""

import argparse
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.simulate.stage import simulate_micrographs_to, simulate_particles_to

NAME = "simulate"
HELP = "Make micrographs or particle stacks of made-up proteins, with the truth beside them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="kinds", dest="kind", metavar="KIND", required=True)
    for name, text, add in (
        ("micrographs", "Whole micrographs with particles, ice, carbon edges and noise.", _add_micrographs),
        ("particles", "A stack of particle images, with junk among them.", _add_particles),
    ):
        kind = kinds.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
        common.add_run_arguments(kind, device=False)
        add(kind)


def run(args: argparse.Namespace) -> None:
    common.prepare(args)
    shared = {
        "pixel_size": args.pixel_size,
        "species": args.species,
        "snr": args.snr,
        "volume_paths": args.volume or [],
        "seed": args.seed,
        "overwrite": args.overwrite,
    }
    if args.kind == "micrographs":
        simulate_micrographs_to(
            args.out,
            micrographs=args.micrographs,
            size=args.size,
            particles_per_micrograph=args.particles_per_micrograph,
            diameter=args.diameter,
            labels=args.labels,
            **shared,
        )
    else:
        simulate_particles_to(
            args.out,
            particles=args.particles,
            box=args.box,
            max_shift=args.max_shift,
            ctf=not args.no_ctf,
            junk=args.junk,
            coloured=args.noise == "coloured",
            **shared,
        )


def _add_micrographs(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group("micrographs")
    images.add_argument(
        "--micrographs",
        type=common.positive_int,
        default=14,
        metavar="N",
        help="how many; the first two thirds are for training, the rest for testing",
    )
    images.add_argument(
        "--size", type=common.positive_int, default=1024, metavar="PX", help="side of the square images"
    )
    images.add_argument(
        "--pixel-size", type=common.positive_float, default=4.0, metavar="A", help="angstroms per pixel"
    )
    images.add_argument(
        "--snr",
        type=common.positive_float,
        default=0.1,
        help="variance of the signal in the particles' boxes over the variance of the noise; lower is harder",
    )
    particles = _add_volumes(parser)
    particles.add_argument(
        "--particles-per-micrograph",
        type=common.positive_int,
        default=120,
        metavar="N",
        help="fewer where there is no room",
    )
    particles.add_argument(
        "--diameter", type=common.positive_float, default=180.0, metavar="A", help="of the largest made-up protein"
    )
    particles.add_argument(
        "--labels",
        type=common.positive_int,
        default=100,
        metavar="N",
        help="coordinates to train a picker with, drawn from the training micrographs",
    )


def _add_particles(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group("images")
    images.add_argument("--particles", type=common.positive_int, default=5000, metavar="N", help="number of images")
    images.add_argument(
        "--box", type=common.positive_int, default=64, metavar="PX", help="side of the images, 16 or more"
    )
    images.add_argument(
        "--pixel-size", type=common.positive_float, default=4.0, metavar="A", help="angstroms per pixel"
    )
    images.add_argument(
        "--snr",
        type=common.positive_float,
        default=0.1,
        help="variance of the signal over the box over the variance of the noise; lower is harder",
    )
    images.add_argument(
        "--noise",
        choices=("coloured", "white"),
        default="coloured",
        help="coloured: with more power at low frequencies and Thon rings, as in real images",
    )
    images.add_argument("--no-ctf", action="store_true", help="plain projections, and no CTF columns")
    particles = _add_volumes(parser)
    particles.add_argument(
        "--max-shift",
        type=common.non_negative_float,
        default=10.0,
        metavar="A",
        help="largest shift from the centre of the box along x and y",
    )
    particles.add_argument(
        "--junk",
        type=common.fraction,
        default=0.0,
        metavar="FRACTION",
        help="part of the images that shows ice, an edge, two particles or nothing",
    )


def _add_volumes(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("particles")
    group.add_argument("--species", type=common.positive_int, default=3, metavar="S", help="number of made-up proteins")
    group.add_argument(
        "--volume",
        type=Path,
        action="append",
        metavar="MAP.mrc",
        help="project this density map instead of made-up proteins; give the option again for each further species",
    )
    return group
