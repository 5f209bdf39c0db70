"""``siamese2d-engine extract``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.extraction.stage import EDGES, Settings, check_settings, extract_particles
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.runs import Run

NAME = "extract"
HELP = "Cut particle images out of micrographs around coordinates."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    common.add_micrographs(inputs)
    inputs.add_argument("--coordinates", type=Path, required=True, metavar="FILE",
                        help="centres in pixels of these micrographs: STAR, CSV or TSV")
    size = parser.add_argument_group("size")
    size.add_argument("--box", type=common.positive_int, required=True, metavar="PX",
                      help="width of the box in micrograph pixels, better even; 1.5 to 2 times the particle's diameter")
    size.add_argument("--downsample", type=common.positive_float, default=Settings.factor, metavar="F",
                      help="new pixel size / old pixel size, by cropping in Fourier space; classification is fast at 4 "
                      "to 6 angstroms per pixel")
    size.add_argument("--edge", choices=EDGES, default=Settings.edge,
                      help="boxes that reach over the edge of the micrograph: leave them out, or pad them with the "
                      "mean of their background")
    contrast = parser.add_argument_group("contrast")
    contrast.add_argument("--invert", action=argparse.BooleanOptionalAction, default=Settings.invert,
                          help="multiply by -1: for micrographs as recorded, where particles are dark; training and "
                          "classification want bright particles")
    contrast.add_argument("--normalize", action=argparse.BooleanOptionalAction, default=Settings.normalize,
                          help="scale each image so that its background has mean 0 and standard deviation 1")
    contrast.add_argument("--background-radius", type=common.positive_float, default=Settings.background_radius,
                          metavar="R",
                          help="background is what lies further from the centre: a fraction of half the box up to 1, "
                          "micrograph pixels above; enlarge it when particles fill the box")
    contrast.add_argument("--ramp", action=argparse.BooleanOptionalAction, default=Settings.ramp,
                          help="subtract the plane that fits the background when normalizing")
    common.add_run_arguments(parser, seed=False, device=False)


def run(args: argparse.Namespace) -> None:
    settings = Settings(box=args.box, factor=args.downsample, invert=args.invert, normalize=args.normalize,
                        background_radius=args.background_radius, ramp=args.ramp, edge=args.edge)
    check_settings(settings)
    parameters = {**asdict(settings), "pixel_size": args.pixel_size}
    with Run(args.out, NAME, parameters, [*args.micrographs, args.coordinates], args.overwrite) as run:
        if run.finished and not run.results["failed"]:
            return
        # Micrographs that failed are tried again, also by a run that had come to its end.
        run.finished = False
        extract_particles(run, read_micrographs(args.micrographs, args.pixel_size), read_coordinates(args.coordinates),
                          settings, args.threads)
