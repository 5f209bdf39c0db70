"""``siamese2d-engine classify``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.classify.stage import Settings, classify_particles
from siamese2d_engine.cli import common
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.runs import Run

NAME = "classify"
HELP = "Put particle images into aligned 2D classes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    inputs.add_argument("--particles", type=Path, required=True, metavar="STAR",
                        help="RELION STAR file; bright particles")
    inputs.add_argument("--pixel-size", type=common.positive_float, metavar="A", help="angstroms per pixel, for STAR "
                        "files and stacks that do not say")
    inputs.add_argument("--model", type=Path, metavar="FILE", help="embedding.safetensors of train: its clusters are "
                        "the starting classes, instead of random ones")
    classes = parser.add_argument_group("classes")
    classes.add_argument("--classes", type=common.positive_int, metavar="K", help="number of classes; by default one "
                         "for every 100 particles, from 10 to 100")
    classes.add_argument("--fine-classes", type=common.non_negative_int, metavar="N", help="so many classes are made "
                         "first and then grouped by likeness into K: this keeps species and conformations apart and "
                         "finds particles that went astray; no more than 3 K where poses are unsure; 0 for none; by "
                         "default 5 K, if that leaves 12 particles in each")
    classes.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=Settings.mirror,
                         help="put a view and its mirror image into one class and mark the mirrored members; turn off "
                         "to keep opposite views apart, as RELION does")
    classes.add_argument("--set-apart", action=argparse.BooleanOptionalAction, default=Settings.set_apart,
                         help="take particles that fit nowhere out of the classes; turn off to keep every particle in "
                         "one")
    common.add_image_arguments(parser, "Reduce it when neighbours show in the averages",
                               "0.12 of the box, and no farther than particles are found to lie. Reduce it when "
                               "particles are drawn to their neighbours")
    expert = parser.add_argument_group("expert")
    expert.add_argument("--passes", type=common.positive_int, default=Settings.passes, help="passes at the last "
                        "resolution; more when the last ones still change many classes")
    expert.add_argument("--memory", type=common.positive_float, default=Settings.memory, metavar="GB",
                        help="memory for the transformed images; beyond it they are kept in a file of the run's folder")
    common.add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    device = common.prepare(args)
    settings = Settings(
        classes=args.classes, fine_classes=args.fine_classes, mirror=args.mirror, mask_diameter=args.mask_diameter,
        max_shift=args.max_shift, max_resolution=args.max_resolution, ignore_ctf=args.ignore_ctf,
        set_apart=args.set_apart, passes=args.passes, memory=args.memory, seed=args.seed,
    )
    # How much memory may be used does not change the result.
    parameters = {key: value for key, value in asdict(settings).items() if key != "memory"}
    parameters |= {"pixel_size": args.pixel_size, "device": device.type}
    inputs = [args.particles, *([args.model] if args.model else [])]
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as run:
        if run.finished:
            return
        particles = read_particles(args.particles, args.pixel_size)
        classify_particles(run, args.particles, particles, settings, args.model, device)
