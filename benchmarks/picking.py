#!/usr/bin/env python
"""Picking: ours, and Topaz where `topaz` is on the path, on micrographs with known particles.

The folder holds ``mics/*.mrc`` and the tab-separated lists (``image_name x_coord y_coord``, pixels)
``train_labels.txt``, ``train_truth.txt`` and ``test_truth.txt``. Training sees the micrographs of ``train_truth.txt``,
the test those of ``test_truth.txt``. Up to as many labels as ``train_labels.txt`` has are drawn from it, more from
``train_truth.txt``. Average precision, F1 and centre errors are by one-to-one matching within the radius. CPU seconds
and peak memory are those of the commands' processes.

    benchmarks/picking.py FOLDER --diameter 160 --radius 20 --labels 10 30 100 --objectives ge-binomial pn
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ENGINE = Path(__file__).resolve().parents[1] / "siamese2d" / "engine"
sys.path.insert(0, str(ENGINE))

from siamese2d_engine.evaluate.picks import score_picks  # noqa: E402
from siamese2d_engine.io.star import read_star  # noqa: E402

COLUMNS = ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]


def main() -> None:
    args = parse_arguments()
    data = read_folder(args.folder)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for number in args.labels:
            for seed in args.seeds:
                labels = Path(folder) / f"labels-{number}-{seed}.tsv"
                draw_labels(data, number, seed).to_csv(labels, sep="\t", index=False)
                for objective in args.objectives:
                    out = Path(folder) / f"ours-{number}-{objective}-{seed}"
                    rows.append(run_ours(args, data, labels, objective, seed, out) | {"labels": number})
                    print_row(rows[-1])
                if shutil.which("topaz") and not args.skip_topaz:
                    out = Path(folder) / f"topaz-{number}-{seed}"
                    rows.append(run_topaz(args, data, labels, seed, out) | {"labels": number})
                    print_row(rows[-1])
    print_table(rows)
    if args.json:
        args.json.write_text(json.dumps({"folder": str(args.folder), "runs": rows}, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--diameter", type=float, default=160, help="of the particle, angstroms (default 160)")
    parser.add_argument("--radius", type=float, default=20, help="of matching, pixels (default 20)")
    parser.add_argument("--labels", type=int, nargs="+", default=[100])
    parser.add_argument("--objectives", nargs="+", default=["ge-binomial"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--expected-particles", type=float, default=None,
                        help="default: estimated by ours, 60 for Topaz")
    parser.add_argument("--options", default="", help="more options for train-picker, as one string")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--topaz-scale", type=int, default=2)
    parser.add_argument("--topaz-updates", type=int, default=100)
    parser.add_argument("--skip-topaz", action="store_true")
    parser.add_argument("--work", type=Path, default=None, help="folder for temporary files")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def read_folder(folder: Path) -> dict:
    """Lists and micrographs of the folder."""
    names = ("train_labels", "train_truth", "test_truth")
    lists = {name: pd.read_csv(folder / f"{name}.txt", sep="\t") for name in names}
    stems = {part: set(lists[f"{part}_truth"]["image_name"].astype(str)) for part in ("train", "test")}
    paths = sorted((folder / "mics").glob("*.mrc"))
    return {**lists, **{part: [p for p in paths if p.stem in stems[part]] for part in stems}}


def draw_labels(data: dict, number: int, seed: int) -> pd.DataFrame:
    """`number` labels at random."""
    source = data["train_labels"] if number <= len(data["train_labels"]) else data["train_truth"]
    return source.sample(min(number, len(source)), random_state=seed)


def run_ours(args: argparse.Namespace, data: dict, labels: Path, objective: str, seed: int, out: Path) -> dict:
    """Normalize all micrographs, train on some, pick the others."""
    engine = [sys.executable, "-m", "siamese2d_engine"]
    threads = ["--threads", str(args.threads)]
    expected = ["--expected-particles", str(args.expected_particles)] if args.expected_particles else []
    normalized = [out / "normalize" / "micrographs" / p.name for p in (*data["train"], *data["test"])]
    train, test = normalized[:len(data["train"])], normalized[len(data["train"]):]
    costs = [measured([*engine, "normalize", "--micrographs", *data["train"], *data["test"], "--out", out / "normalize",
                       *threads]),
             measured([*engine, "train-picker", "--micrographs", *train, "--coordinates", labels, "--diameter",
                       args.diameter, "--objective", objective, "--seed", seed, "--out", out / "train", *expected,
                       *args.options.split(), *threads]),
             measured([*engine, "pick", "--micrographs", *test, "--model", out / "train" / "picker.safetensors",
                       "--out", out / "pick", *threads])]
    table = next(iter(read_star(out / "pick" / "candidates.star").values()))
    table["stem"] = [Path(name).stem for name in table["rlnMicrographName"]]
    record = json.loads((out / "train" / "training.json").read_text())
    return result(f"ours {objective}", seed, table, data["test_truth"], args.radius, costs) | {
        "expected_particles": record["expected_particles"]}


def run_topaz(args: argparse.Namespace, data: dict, labels: Path, seed: int, out: Path) -> dict:
    """Topaz with its pretrained network, fine-tuned."""
    small, scale = out / "small", args.topaz_scale
    small.mkdir(parents=True)
    moved = pd.read_csv(labels, sep="\t")
    moved[["x_coord", "y_coord"]] = (moved[["x_coord", "y_coord"]] / scale).round().astype(int)
    moved.to_csv(out / "labels.txt", sep="\t", index=False)
    paths = [small / path.name for path in data["train"]]
    images = pd.DataFrame({"image_name": [path.stem for path in paths], "path": paths})
    images.to_csv(out / "images.txt", sep="\t", index=False)
    radius = int(0.7 * args.radius / scale)
    costs = [measured(["topaz", "preprocess", "-s", scale, "-o", small, *data["train"], *data["test"]]),
             measured(["topaz", "train", "-n", args.expected_particles or 60, "--train-images", out / "images.txt",
                       "--train-targets", out / "labels.txt", "--num-workers", 0, "--epoch-size", args.topaz_updates,
                       "--num-epochs", 1, "--minibatch-size", 256, "--save-prefix", out / "model",
                       "-o", out / "log.txt"]),
             measured(["topaz", "extract", "-r", radius, "-m", out / "model_epoch1.sav", "-x", scale,
                       "-o", out / "picks.txt", *[small / path.name for path in data["test"]]])]
    table = pd.read_csv(out / "picks.txt", sep="\t")
    table = table.rename(columns=dict(zip(("image_name", "x_coord", "y_coord", "score"), ("stem", *COLUMNS))))
    return result("topaz", seed, table, data["test_truth"], args.radius, costs)


def measured(command: list) -> dict:
    """Run a command; its CPU seconds and peak memory in MB."""
    environment = {**os.environ, "PYTHONPATH": f"{ENGINE}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command[:4]))} ... failed:\n{output[-3000:]}")
    return {"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}


def result(method: str, seed: int, table: pd.DataFrame, truth: pd.DataFrame, radius: float, costs: list[dict]) -> dict:
    """Scores of the picks in `table`, and what they cost."""
    picks, scores, truths = [], [], []
    for stem, rows in truth.groupby("image_name"):
        mine = table[table["stem"] == stem]
        picks.append(mine[COLUMNS[:2]].to_numpy(float))
        scores.append(mine[COLUMNS[2]].to_numpy(float))
        truths.append(rows[["x_coord", "y_coord"]].to_numpy(float))
    score = score_picks(picks, scores, truths, radius)
    return {"method": method, "seed": seed, "average_precision": score.average_precision, "best_f1": score.best_f1,
            "median_error": score.median_error, "rms_error": score.rms_error,
            "cpu_seconds": [round(c["cpu"], 1) for c in costs], "peak_mb": round(max(c["memory"] for c in costs))}


def print_row(row: dict) -> None:
    print(f"{row['method']:18s} labels {row['labels']:4d} seed {row['seed']}: average precision "
          f"{row['average_precision']:.4f}, CPU s {row['cpu_seconds']}", flush=True)


def print_table(rows: list[dict]) -> None:
    """Means over seeds."""
    print(f"\n{'method':18s} {'labels':>6s} {'runs':>4s} {'AP':>6s} {'+-':>5s} {'best F1':>7s} {'error px':>8s} "
          f"{'CPU s':>6s} {'peak MB':>7s}")
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in rows):
        group = [r for r in rows if (r["method"], r["labels"]) == (method, labels)]
        precisions = [r["average_precision"] for r in group]
        mean = {key: np.mean([r[key] for r in group if r[key] is not None] or [np.nan])
                for key in ("best_f1", "median_error", "peak_mb")}
        print(f"{method:18s} {labels:6d} {len(group):4d} {np.mean(precisions):6.3f} "
              f"{statistics.pstdev(precisions):5.3f} {mean['best_f1']:7.3f} {mean['median_error']:8.2f} "
              f"{np.mean([sum(r['cpu_seconds']) for r in group]):6.0f} {mean['peak_mb']:7.0f}")


if __name__ == "__main__":
    main()
