"""``siamese2d-engine assign``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.classify.assign_stage import Settings, assign_particles
from siamese2d_engine.cli import common
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.runs import Run

NAME = "assign"
HELP = "Put new particle images into the 2D classes of others, without classifying again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    inputs.add_argument("--particles", type=Path, required=True, metavar="STAR",
                        help="RELION STAR file; bright particles")
    inputs.add_argument("--pixel-size", type=common.positive_float, metavar="A", help="angstroms per pixel, for STAR "
                        "files and stacks that do not say")
    inputs.add_argument("--classes", type=Path, required=True, metavar="PATH", help="class averages, bright on dark: "
                        "classes.star of classify, another STAR file that names them, or an MRC stack")
    inputs.add_argument("--classes-pixel-size", type=common.positive_float, metavar="A", help="angstroms per pixel of "
                        "the averages; by default what their stack says. Averages of another pixel size or box are "
                        "resampled")
    inputs.add_argument("--calibration", type=Path, metavar="FILE", help="calibration.safetensors of an earlier run "
                        "with these classes: its noise and scale are taken, so that particles that come in parts are "
                        "treated alike")
    classes = parser.add_argument_group("classes")
    classes.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=Settings.mirror,
                         help="a particle may be mirrored to fit a class; turn off for classes that were made so")
    classes.add_argument("--set-apart", action=argparse.BooleanOptionalAction, default=Settings.set_apart,
                         help="put particles that fit nowhere into no class; turn off to put every particle into one")
    classes.add_argument("--new-averages", action="store_true", help="write averages of the new members instead of the "
                         "given ones, with their resolution; takes about twice as long")
    common.add_image_arguments(parser, "Take that of the classification",
                               "0.08 of the box. Enlarge it for imprecise coordinates; less is faster")
    common.add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    device = common.prepare(args)
    settings = Settings(
        classes_pixel_size=args.classes_pixel_size, mirror=args.mirror, mask_diameter=args.mask_diameter,
        max_shift=args.max_shift, max_resolution=args.max_resolution, ignore_ctf=args.ignore_ctf,
        set_apart=args.set_apart, new_averages=args.new_averages, seed=args.seed,
    )
    parameters = asdict(settings) | {"pixel_size": args.pixel_size, "device": device.type}
    inputs = [args.particles, args.classes, *([args.calibration] if args.calibration else [])]
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as run:
        if run.finished:
            return
        particles = read_particles(args.particles, args.pixel_size)
        assign_particles(run, args.particles, particles, args.classes, args.calibration, settings, device)
