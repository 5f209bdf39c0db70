#!/usr/bin/env python
"""Makes the weights that the picker starts from: trained on the project's own simulator, on many made-up proteins.

Simulates micrographs of different proteins at different pixel sizes, defocus and noise, each with all its particles known,
brings them to one nominal scale, and trains a picker on them with ``train-picker``. The result is copied into the engine.

    benchmarks/pretrain_picker.py --work FOLDER [--sets 24] [--epochs 40]

Started again in the same folder it continues.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ENGINE = Path(__file__).resolve().parents[1] / "siamese2d" / "engine"
sys.path.insert(0, str(ENGINE))

from siamese2d_engine.io.star import read_star, write_star  # noqa: E402

SIZE, DIAMETER_PIXELS = 512, 20
NOMINAL_PIXEL_SIZE = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=24, help="simulations, each with its own proteins")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=75)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path,
                        default=ENGINE / "siamese2d_engine" / "picking" / "pretrained.safetensors")
    args = parser.parse_args()
    for number in range(args.sets):
        simulate(args.work / f"set{number:02d}", number, args.threads)
    micrographs, truth = collect(args.work, args.sets)
    engine("train-picker", "--micrographs", micrographs, "--coordinates", truth, "--diameter",
           DIAMETER_PIXELS * NOMINAL_PIXEL_SIZE, "--objective", "pn", "--epochs", args.epochs, "--steps", args.steps,
           "--patience", args.epochs, "--held-out", 0.1, "--from-scratch", "--out", args.work / "train", "--threads",
           args.threads)
    shutil.copy(args.work / "train" / "picker.safetensors", args.output)


def simulate(out: Path, number: int, threads: int) -> None:
    """One set of micrographs: particles of 20 pixels, of a size in angstroms that sets how strong the CTF's rings are."""
    rng = np.random.default_rng(number)
    pixel_size = float(rng.uniform(4.5, 11))
    engine("simulate", "micrographs", "--micrographs", 3, "--size", SIZE, "--pixel-size", round(pixel_size, 3), "--diameter",
           round(pixel_size * DIAMETER_PIXELS, 1), "--species", int(rng.integers(1, 3)), "--snr",
           round(float(np.exp(rng.uniform(np.log(0.012), np.log(0.15)))), 4), "--particles-per-micrograph",
           int(rng.integers(20, 120)), "--labels", 1, "--seed", number, "--out", out, "--threads", threads)


def collect(work: Path, sets: int) -> tuple[Path, Path]:
    """STAR files of all micrographs, at the nominal pixel size, and of all their particles."""
    images, particles = [], []
    for number in range(sets):
        folder = work / f"set{number:02d}"
        for path in sorted((folder / "micrographs").glob("*.mrc")):
            target = work / "all" / f"set{number:02d}_{path.name}"
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                target.symlink_to(path.resolve())
            images.append(str(target))
        truth = next(table for table in read_star(folder / "truth.star").values() if "rlnCoordinateX" in table)
        names = [str(work / "all" / f"set{number:02d}_{Path(name).name}") for name in truth["rlnMicrographName"]]
        particles.append(truth[["rlnCoordinateX", "rlnCoordinateY"]].assign(rlnMicrographName=names))
    write_star(work / "micrographs.star", {"micrographs": pd.DataFrame(
        {"rlnMicrographName": images, "rlnMicrographPixelSize": NOMINAL_PIXEL_SIZE})})
    write_star(work / "truth.star", {"coordinates": pd.concat(particles, ignore_index=True)})
    return work / "micrographs.star", work / "truth.star"


def engine(*arguments) -> None:
    command = [sys.executable, "-m", "siamese2d_engine", *map(str, arguments)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ENGINE), "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
