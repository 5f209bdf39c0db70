"""``siamese2d-engine normalize``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.normalize.stage import METHODS, Settings, check_settings, normalize_micrographs
from siamese2d_engine.runs import Run

NAME = "normalize"
HELP = "Scale micrographs to one grey scale by a two-Gaussian mixture, and downsample them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_micrographs(parser.add_argument_group("input"))
    model = parser.add_argument_group("normalization")
    model.add_argument("--method", choices=METHODS, default="joint",
                       help="joint: one mixture for the whole set and a gain for each micrograph; each: a mixture for "
                       "each micrograph, for streams and for images with unlike offsets; affine: mean and standard "
                       "deviation")
    model.add_argument("--shared", type=Path, default=None, metavar="FILE",
                       help="normalization.json of an earlier joint run: its mixture is taken instead of fitting one, "
                       "and each micrograph only gets its gain. For micrographs that come later, to get the same grey "
                       "scale")
    model.add_argument("--fit-pixels", type=common.positive_int, default=Settings.fit_pixels, metavar="N",
                       help="pixels of each micrograph to fit; all pixels are scaled. Seldom to be changed")
    size = parser.add_argument_group("size")
    size.add_argument("--downsample", type=common.positive_float, default=Settings.factor, metavar="F",
                      help="new pixel size / old pixel size, by cropping in Fourier space; picking is fast and "
                      "accurate at 4 to 8 angstroms per pixel")
    common.add_run_arguments(parser, device=False)


def run(args: argparse.Namespace) -> None:
    settings = Settings(method=args.method, factor=args.downsample, fit_pixels=args.fit_pixels, seed=args.seed,
                        shared=str(args.shared) if args.shared else None)
    check_settings(settings)
    parameters = {**asdict(settings), "pixel_size": args.pixel_size}
    inputs = [*args.micrographs, *([args.shared] if args.shared else [])]
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as run:
        if run.finished and not run.results["failed"]:
            return
        # Micrographs that failed are tried again, also by a run that had come to its end.
        run.finished = False
        normalize_micrographs(run, read_micrographs(args.micrographs, args.pixel_size), settings, args.threads)
