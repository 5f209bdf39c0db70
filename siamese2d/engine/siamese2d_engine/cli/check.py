"""``siamese2d-engine check``: say what this installation is, for the plugin's handshake."""

import argparse
import json
import platform

import torch

from siamese2d_engine import __version__
from siamese2d_engine.devices import available_devices, resolve_device

NAME = "check"
HELP = "Print one JSON line: versions and devices."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="also fail if this device is not there")


def run(args: argparse.Namespace) -> None:
    resolve_device(args.device)
    print(json.dumps({"version": __version__, "torch": torch.__version__, "python": platform.python_version(),
                      "devices": available_devices()}))
