#!/usr/bin/env python
"""CPU time and memory of ``siamese2d-engine normalize``, beside ``topaz preprocess`` where that is on the path.

Run it with the engine's Python. It prints a table and writes the same as JSON::

    python benchmarks/normalize.py --micrographs FOLDER --pixel-size 1.5 --downsample 2 --out normalize.json

CPU seconds are those of the whole command with its children, user and system. ``per micrograph`` leaves out the start
of the program, the least of three measurements of ``--help``. ``width`` is the mean over the micrographs of the
standard deviation of the normalized pixels, and ``varies by`` its coefficient of variation.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from siamese2d_engine.io.images import IMAGE_ENDINGS, image_shape, read_image

METHODS = ("joint", "each", "affine")
# The start of the program varies with what else the machine does; the least of so many is taken.
STARTS = 3


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command on one thread; its CPU seconds and peak memory in MB."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with code {process.returncode}:\n{message}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def widths(folder: Path) -> np.ndarray:
    """Standard deviation of every image in a folder."""
    return np.array([read_image(path).std() for path in sorted(folder.glob("*.mrc"))])


def row(name: str, command: list[str], help_command: list[str], images: Path, number: int) -> dict:
    """One line of the table."""
    cpu, memory = measure(command)
    start = min(measure(help_command)[0] for _ in range(STARTS))
    width = widths(images)
    return {"program": name, "cpu_seconds": cpu, "cpu_seconds_per_micrograph": (cpu - start) / number,
            "peak_memory_mb": memory, "width": float(width.mean()), "varies_by": float(width.std() / width.mean())}


def ours(method: str, args: argparse.Namespace, out: Path, number: int) -> dict:
    program = [sys.executable, "-m", "siamese2d_engine", "normalize"]
    options = ["--micrographs", str(args.micrographs), "--method", method, "--downsample", str(args.downsample),
               "--threads", "1", "--out", str(out)]
    size = ["--pixel-size", str(args.pixel_size)] if args.pixel_size else []
    return row(f"siamese2d {method}", [*program, *options, *size], [*program, "--help"], out / "micrographs", number)


def topaz(paths: list[Path], args: argparse.Namespace, out: Path) -> dict:
    command = ["topaz", "preprocess", "-s", str(round(args.downsample)), "-d", "-1", "-t", "0", "-o", str(out)]
    out.mkdir()
    return row("topaz preprocess", [*command, *map(str, paths)], ["topaz", "preprocess", "--help"], out, len(paths))


def print_table(rows: list[dict]) -> None:
    print(f"{'program':20} {'CPU s':>8} {'per micrograph':>15} {'peak MB':>8} {'width':>7} {'varies by':>10}")
    for r in rows:
        print(f"{r['program']:20} {r['cpu_seconds']:8.2f} {r['cpu_seconds_per_micrograph']:15.3f} "
              f"{r['peak_memory_mb']:8.0f} {r['width']:7.3f} {r['varies_by']:10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--micrographs", type=Path, required=True, help="folder of images")
    parser.add_argument("--pixel-size", type=float, help="angstroms, where the images do not say")
    parser.add_argument("--downsample", type=float, default=1.0, help="the same for all programs")
    parser.add_argument("--out", type=Path, default=Path("normalize.json"), help="JSON file to write")
    args = parser.parse_args()
    paths = sorted(path for path in args.micrographs.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if not paths:
        raise SystemExit(f"{args.micrographs}: no images ({', '.join(IMAGE_ENDINGS)}).")
    with tempfile.TemporaryDirectory() as folder:
        rows = [ours(method, args, Path(folder, method), len(paths)) for method in METHODS]
        if shutil.which("topaz"):
            rows.append(topaz(paths, args, Path(folder, "topaz")))
    height, width = image_shape(paths[0])
    print(f"{len(paths)} micrographs, the first of {width} x {height} pixels, downsampling {args.downsample:g}, "
          "one thread")
    print_table(rows)
    args.out.write_text(json.dumps({"micrographs": len(paths), "shape": [height, width], "downsample": args.downsample,
                                    "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
