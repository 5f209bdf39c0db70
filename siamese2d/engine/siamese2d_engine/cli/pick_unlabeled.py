"""``siamese2d-engine pick-unlabeled``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.picking.unlabeled_stage import Settings, check_settings, pick_unlabeled
from siamese2d_engine.picking.unlabeled_view import CONTRASTS
from siamese2d_engine.runs import Run

NAME = "pick-unlabeled"
HELP = "Pick particles by their size or by templates, without labels and without a trained picker."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_micrographs(parser.add_argument_group("input"))
    particle = parser.add_argument_group("particle")
    particle.add_argument("--diameter", type=common.positive_float, nargs="+", required=True, metavar="A",
                          help="particle diameter in angstroms; two numbers, the smallest and the largest, for "
                          "particles of several sizes")
    particle.add_argument("--contrast", choices=CONTRASTS, default=Settings.contrast,
                          help="dark particles, as in cryo-EM micrographs, or bright ones, as in negative stain or "
                          "inverted images")
    templates = parser.add_argument_group("templates")
    templates.add_argument("--templates", type=Path, default=None, metavar="FILE",
                           help="class averages to look for, bright on dark: classes.star of classify, or an MRC "
                           "stack; without them, blobs of the diameter are picked, and then what the best of them "
                           "look like")
    templates.add_argument("--template-pixel-size", type=common.positive_float, default=None, metavar="A",
                           help="angstroms per pixel, for templates whose header does not say")
    selection = parser.add_argument_group("selection")
    selection.add_argument("--threshold", type=common.non_negative_float, default=None, metavar="Z",
                           help="score from which a candidate is picked, in standard deviations of the noise; by "
                           "default the one that separates the candidates best (picking.json says it). Raise it for "
                           "fewer, surer picks. The same command with another threshold does not score again")
    common.add_run_arguments(parser, seed=False, device=False)


def run(args: argparse.Namespace) -> None:
    if len(args.diameter) > 2:
        raise InputError("--diameter: give one number, or two: the smallest and the largest.")
    settings = Settings(smallest=args.diameter[0], largest=args.diameter[-1], contrast=args.contrast,
                        templates=str(args.templates) if args.templates else None,
                        template_pixel_size=args.template_pixel_size)
    check_settings(settings)
    # The threshold is no parameter of the run: scores do not depend on it, and the folder is filtered anew when it
    # changes.
    inputs = [*args.micrographs, *([args.templates] if args.templates else [])]
    with Run(args.out, NAME, {**asdict(settings), "pixel_size": args.pixel_size}, inputs, args.overwrite) as stage_run:
        results = stage_run.results
        if stage_run.finished and results["threshold_given"] == args.threshold and not results["failed"]:
            return
        stage_run.finished = False
        micrographs = read_micrographs(args.micrographs, args.pixel_size)
        pick_unlabeled(stage_run, micrographs, settings, args.threshold, args.threads)
