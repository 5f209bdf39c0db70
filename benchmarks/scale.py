#!/usr/bin/env python
"""Time and memory of the stages that see all particles, on sets of growing size.

Run it with the engine's Python; sets that ``siamese2d-engine simulate particles`` has left in the folder are taken,
others are simulated::

    python benchmarks/scale.py --particles 2000 20000 200000 --classes 20 --work FOLDER --out scale.json

Each stage runs in a process of its own, on one thread. ``seconds`` are CPU seconds, ``peak MB`` is the memory that the
process holds for itself, and ``files MB`` what it maps from files, which the system takes back when memory gets short;
both are looked at ten times a second. ``read`` reads the table and all images in chunks as every stage does, ``embed``
and ``assign`` use the model and the classes of the smallest set.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.io.particles import read_particles

STAGES = ("read", "train", "embed", "assign", "classify")
SECONDS_BETWEEN_LOOKS = 0.1
CHUNK = 256


def measure(command: list[str], log: Path) -> dict:
    """Run a command on one thread: CPU and wall seconds, and peaks of its own memory and of what it maps, in MB."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    started, own, mapped = time.monotonic(), 0.0, 0.0
    with open(log, "w") as stream:
        process = subprocess.Popen(command, env={**os.environ, **threads}, stdout=stream, stderr=subprocess.STDOUT)
        while not (finished := os.wait4(process.pid, os.WNOHANG))[0]:
            memory = resident(process.pid)
            own, mapped = max(own, memory["RssAnon"]), max(mapped, memory["RssFile"])
            time.sleep(SECONDS_BETWEEN_LOOKS)
    _, status, usage = finished
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with code {process.returncode}:\n{log.read_text()[-2000:]}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": time.monotonic() - started,
            "peak_mb": own, "files_mb": mapped}


def resident(process: int) -> dict[str, float]:
    """Memory of a process in MB: ``RssAnon`` of its own, ``RssFile`` mapped; zero once it has ended."""
    found = {"RssAnon": 0.0, "RssFile": 0.0}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found


def command(stage: str, star: Path, first: Path, classes: int, out: Path) -> list[str]:
    """What runs a stage; `first` is the folder of the smallest set's results."""
    engine = [sys.executable, "-m", "siamese2d_engine", stage, "--particles", str(star), "--out", str(out),
              "--threads", "1",
              "--overwrite"]
    return {
        "read": [sys.executable, __file__, "--read", str(star)],
        "train": engine,
        "embed": [sys.executable, __file__, "--read", str(star),
                  "--model", str(first / "train" / "embedding.safetensors")],
        "assign": [*engine, "--classes", str(first / "classify" / "classes.star")],
        "classify": [*engine, "--classes", str(classes)],
    }[stage]


def particles(work: Path, number: int) -> Path:
    """STAR file of a simulated set, made if it is not there."""
    folder = work / f"n{number}"
    if not (folder / "run.json").exists() or read_json(folder / "run.json")["status"] != "finished":
        measure([sys.executable, "-m", "siamese2d_engine", "simulate", "particles", "--out", str(folder), "--particles",
                 str(number), "--threads", "1"], work / f"simulate-{number}.log")
    return folder / "particles.star"


def order(stages: list[str], smallest: bool) -> list[str]:
    """The stages in turn; of the smallest set those first whose results the others use."""
    needed = [stage for stage, uses in (("train", "embed"), ("classify", "assign")) if smallest and uses in stages]
    return list(dict.fromkeys([*needed, *stages]))


def print_row(row: dict) -> None:
    print(f"{row['particles']:>9,} {row['stage']:9} {row['seconds']:9.1f} "
          f"{row['seconds'] / row['particles'] * 1000:13.2f} {row['wall_seconds']:9.1f} "
          f"{row['peak_mb']:8.0f} {row['files_mb']:9.0f}", flush=True)


def use(star: Path, model: Path | None) -> None:
    """Read all images in chunks, or embed them."""
    found = read_particles(star)
    if model is not None:
        embed(model, found)
        return
    for _, images in found.images.chunks(CHUNK):
        images.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, nargs="+", default=[2000, 20000],
                        help="sizes of the sets, smallest first")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--work", type=Path, help="folder for the sets and the results")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    parser.add_argument("--read", type=Path, metavar="STAR", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        use(args.read, args.model)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    rows, first = [], args.work / f"results-{args.particles[0]}"
    print("particles stage       seconds  ms/particle      wall   peak MB  files MB")
    for number in args.particles:
        star, results = particles(args.work, number), args.work / f"results-{number}"
        results.mkdir(exist_ok=True)
        for stage in order(args.stages, number == args.particles[0]):
            measured = measure(command(stage, star, first, args.classes, results / stage), results / f"{stage}.log")
            rows.append({"particles": number, "stage": stage, **measured})
            print_row(rows[-1])
            write_json(args.out, {"classes": args.classes, "rows": rows})


if __name__ == "__main__":
    main()
