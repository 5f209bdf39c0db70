"""Arguments that all sub-commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from siamese2d_engine.devices import available_threads, resolve_device, set_threads

if TYPE_CHECKING:
    import torch


def positive_int(text: str) -> int:
    """Argument type: an integer of 1 or more."""
    return _number(text, int, lambda value: value >= 1, "a whole number of 1 or more")


def non_negative_int(text: str) -> int:
    """Argument type: an integer of 0 or more."""
    return _number(text, int, lambda value: value >= 0, "a whole number of 0 or more")


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def non_negative_float(text: str) -> float:
    """Argument type: a finite number of 0 or more."""
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number of 0 or more")


def fraction(text: str) -> float:
    """Argument type: a number from 0 to 1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _number(text: str, kind: type, accept: Callable[[float], bool], expected: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {expected}")
    return value


def add_run_arguments(parser: argparse.ArgumentParser, seed: bool = True, device: bool = True) -> None:
    """Add the groups 'output' and 'computing': ``--out --overwrite --seed --threads --device``."""
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this run; the same command "
                        "started again continues there")
    output.add_argument("--overwrite", action="store_true", help="replace a run with other parameters in that folder")
    computing = parser.add_argument_group("computing")
    if seed:
        computing.add_argument("--seed", type=non_negative_int, default=0, help="the same seed gives the same result")
    computing.add_argument("--threads", type=positive_int, default=available_threads(), help="processor threads")
    if device:
        computing.add_argument("--device", default="cpu", help="cpu, cuda (the first GPU) or cuda:N; cuda:0,1 for two "
                               "processes of torchrun. A GPU that is not there is an error")


def add_micrographs(group: argparse._ArgumentGroup) -> None:
    """Add ``--micrographs`` and ``--pixel-size``."""
    group.add_argument("--micrographs", type=Path, nargs="+", required=True, metavar="PATH",
                       help="a RELION STAR file, a folder, or image files (MRC, TIFF, PNG)")
    group.add_argument("--pixel-size", type=positive_float, metavar="A", default=None,
                       help="angstroms per pixel, for images whose STAR file or header does not say")


def add_image_arguments(parser: argparse.ArgumentParser, mask_advice: str, shift_help: str) -> None:
    """Add the group 'images' of the stages that align particles; `mask_advice` says when to change the mask."""
    images = parser.add_argument_group("images")
    images.add_argument("--mask-diameter", type=positive_float, metavar="A", help="diameter of the particle with some "
                        f"margin for its shift; by default 0.8 of the box. {mask_advice}")
    images.add_argument("--max-shift", type=positive_float, metavar="A", help="how far particles may lie from the "
                        f"centre of the box; by default {shift_help}")
    images.add_argument("--max-resolution", type=positive_float, metavar="A", help="finest detail compared; by default "
                        "what the particle's size and the pixel size allow")
    images.add_argument("--ignore-ctf", action="store_true", help="do not correct for the CTF, for instance when the "
                        "images were corrected before")


def prepare(args: argparse.Namespace) -> torch.device:
    """Set PyTorch's threads and return the device; the CPU where a sub-command has no ``--device``."""
    set_threads(args.threads)
    return resolve_device(getattr(args, "device", "cpu"))
