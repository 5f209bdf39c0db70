"""``siamese2d-engine pick``."""

import argparse
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.picking.model import load_picker
from siamese2d_engine.picking.stage import pick
from siamese2d_engine.runs import Run

NAME = "pick"
HELP = "Pick particles with a trained picker."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    common.add_micrographs(inputs)
    inputs.add_argument("--model", type=Path, required=True, metavar="FILE", help="picker.safetensors of train-picker")
    selection = parser.add_argument_group("selection")
    selection.add_argument("--threshold", type=common.fraction, default=None, metavar="T",
                           help="probability from which a candidate is picked; by default the model's: 0.5 where "
                           "particles' scores stand apart from the others, else where the F1 of the held-out labels is "
                           "best. The same command with another threshold does not score again")
    common.add_run_arguments(parser, seed=False)


def run(args: argparse.Namespace) -> None:
    device = common.prepare(args)
    picker = load_picker(args.model, device)
    threshold = picker.threshold if args.threshold is None else args.threshold
    # The threshold is no parameter of the run: scores do not depend on it, and the folder is filtered anew when it
    # changes.
    inputs = [*args.micrographs, args.model]
    with Run(args.out, NAME, {"pixel_size": args.pixel_size}, inputs, args.overwrite) as stage_run:
        if stage_run.finished and stage_run.results["threshold"] == threshold and not stage_run.results["failed"]:
            return
        stage_run.finished = False
        pick(stage_run, read_micrographs(args.micrographs, args.pixel_size), picker, threshold)
