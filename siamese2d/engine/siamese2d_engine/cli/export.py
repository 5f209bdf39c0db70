"""``siamese2d-engine export``."""

import argparse
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.errors import InputError
from siamese2d_engine.export.stage import FORMATS, export_coordinates, export_micrographs, export_particles
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.runs import Run

NAME = "export"
HELP = "Write particles, classes, 2D alignments, micrographs or coordinates for RELION or cryoSPARC."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    what = inputs.add_mutually_exclusive_group(required=True)
    what.add_argument("--particles", type=Path, metavar="FILE", help="STAR or .cs file; particles.star of classify has "
                      "classes and alignments")
    what.add_argument("--micrographs", type=Path, nargs="+", metavar="PATH", help="a STAR or .cs file, a folder, or "
                      "image files")
    inputs.add_argument("--classes", type=Path, metavar="PATH", help="averages of the particles' classes; by default "
                        "classes.star beside --particles, where there is one")
    inputs.add_argument("--coordinates", type=Path, metavar="FILE", help="write these positions on --micrographs "
                        "instead of the micrographs")
    inputs.add_argument("--pixel-size", type=common.positive_float, metavar="A", help="angstroms per pixel, for files "
                        "that do not say")
    output = parser.add_argument_group("format")
    output.add_argument("--format", choices=FORMATS, required=True, help="relion: STAR; cryosparc: .cs, and .csg for "
                        "its job Import Result Group")
    common.add_run_arguments(parser, seed=False, device=False)


def run(args: argparse.Namespace) -> None:
    if args.coordinates and args.particles:
        raise InputError("--coordinates: positions are written for --micrographs, not for --particles. Give the "
                         "micrographs.")
    if args.classes and not args.particles:
        raise InputError("--classes: averages belong to --particles. Give these too.")
    classes = args.classes or (_beside(args.particles) if args.particles else None)
    inputs = [path for path in (args.particles, classes, *(args.micrographs or ()), args.coordinates) if path]
    parameters = {"format": args.format, "pixel_size": args.pixel_size}
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as stage_run:
        if stage_run.finished:
            return
        if args.particles:
            particles = read_particles(args.particles, args.pixel_size)
            export_particles(stage_run, args.particles, particles, classes, args.format)
            return
        micrographs = read_micrographs(args.micrographs, args.pixel_size)
        if args.coordinates:
            export_coordinates(stage_run, read_coordinates(args.coordinates), micrographs, args.format)
        else:
            export_micrographs(stage_run, micrographs, args.format)


def _beside(particles: Path) -> Path | None:
    path = particles.parent / "classes.star"
    return path if path.exists() else None
