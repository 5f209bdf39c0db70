#!/usr/bin/env python
"""Picking: ours, and Topaz where `topaz` is on the path, on micrographs with known particles.

The folder holds ``mics/*.mrc`` and the tab-separated lists (``image_name x_coord y_coord``, pixels)
``train_labels.txt``, ``train_truth.txt`` and ``test_truth.txt``. Training sees the micrographs of ``train_truth.txt``,
the test those of ``test_truth.txt``. Up to as many labels as ``train_labels.txt`` has are drawn from it, more from
``train_truth.txt``. Average precision, F1 and centre errors are by one-to-one matching within the radius; "F1 chosen"
is that of the picks above the threshold that training chose, "best F1" that of the best threshold in hindsight. CPU
seconds and peak memory are those of the commands' processes, in this order: normalize, train, pick. ``N`` is the
estimated number of particles per micrograph over the true one.

Ours runs with each objective, from the shipped weights or from random ones, and with each weight of the autoencoder.

Topaz runs in three ways: ``untrained`` is its pretrained network as it comes, ``shipped`` the same fine-tuned on the
labels, and ``mended`` fine-tuned with a number of particles that makes its prior right (it counts the pixels of a ball
where it labels a disc). It has no seed: its runs differ even with the same labels.

    benchmarks/picking.py FOLDER --diameter 160 --radius 20 --labels 10 30 100 300 --objectives all
    benchmarks/picking.py FOLDER --labels 10 100 --starts shipped scratch --autoencoder 0 0.1
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

ENGINE = Path(__file__).resolve().parents[1] / "siamese2d" / "engine"
sys.path.insert(0, str(ENGINE))

from siamese2d_engine.evaluate.picks import score_picks  # noqa: E402
from siamese2d_engine.io.star import read_star  # noqa: E402
from siamese2d_engine.picking.objectives import OBJECTIVES  # noqa: E402

TOPAZ_EXPECTED = 60
TOPAZ_RADIUS = 3
COLUMNS = ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]


def main() -> None:
    args = parse_arguments()
    data = read_folder(args.folder)
    ways = args.topaz if shutil.which("topaz") else []
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        small = Path(folder) / "topaz"
        preprocessing = preprocess(args, data, small) if ways else None
        if "untrained" in ways:
            rows.append(topaz_untrained(args, data, small, preprocessing))
            print_row(rows[-1])
        for number in args.labels:
            for seed in args.seeds:
                labels = Path(folder) / f"labels-{number}-{seed}.tsv"
                draw_labels(data, number, seed).to_csv(labels, sep="\t", index=False)
                for i, way in enumerate(product(objectives(args.objectives), args.starts, args.autoencoder)):
                    out = Path(folder) / f"ours-{number}-{i}-{seed}"
                    rows.append(run_ours(args, data, labels, *way, seed, out) | {"labels": number})
                    print_row(rows[-1])
                for way in (w for w in ways if w != "untrained"):
                    out = Path(folder) / f"topaz-{way}-{number}-{seed}"
                    rows.append(topaz_trained(args, data, labels, seed, small, out, way, preprocessing)
                                | {"labels": number})
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
    parser.add_argument("--objectives", nargs="*", choices=(*OBJECTIVES, "all"), default=["pn"],
                        help="none for Topaz alone")
    parser.add_argument("--starts", nargs="+", choices=("shipped", "scratch"), default=["shipped"],
                        help="from the shipped weights, from random ones")
    parser.add_argument("--autoencoder", type=float, nargs="+", default=[0.0], help="weights of the reconstruction")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--expected-particles", type=float, default=None,
                        help="default: estimated by ours, 60 for Topaz")
    parser.add_argument("--options", default="", help="more options for train-picker, as one string")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--topaz-scale", type=int, default=2)
    parser.add_argument("--topaz-updates", type=int, default=100)
    parser.add_argument("--topaz", nargs="*", choices=("untrained", "shipped", "mended"),
                        default=["untrained", "shipped", "mended"],
                        help="ways to run Topaz where it is on the path; none for ours alone")
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


def objectives(chosen: list[str]) -> list[str]:
    return list(OBJECTIVES) if "all" in chosen else chosen


def run_ours(args: argparse.Namespace, data: dict, labels: Path, objective: str, start: str, autoencoder: float,
             seed: int, out: Path) -> dict:
    """Normalize all micrographs, train on some, pick the others."""
    engine = [sys.executable, "-m", "siamese2d_engine"]
    threads = ["--threads", str(args.threads)]
    expected = ["--expected-particles", args.expected_particles] if args.expected_particles else []
    scratch = ["--from-scratch"] if start == "scratch" else []
    name = f"ours {objective}" + (" scratch" if scratch else "") + (f" AE {autoencoder:g}" if autoencoder else "")
    normalized = [out / "normalize" / "micrographs" / p.name for p in (*data["train"], *data["test"])]
    train, test = normalized[:len(data["train"])], normalized[len(data["train"]):]
    costs = [measured(args, [*engine, "normalize", "--micrographs", *data["train"], *data["test"],
                             "--out", out / "normalize", *threads]),
             measured(args, [*engine, "train-picker", "--micrographs", *train, "--coordinates", labels,
                             "--diameter", args.diameter, "--objective", objective, "--autoencoder", autoencoder,
                             "--seed", seed, "--out", out / "train", *scratch, *expected, *args.options.split(),
                             *threads]),
             measured(args, [*engine, "pick", "--micrographs", *test, "--model", out / "train" / "picker.safetensors",
                             "--out", out / "pick", *threads])]
    table = next(iter(read_star(out / "pick" / "candidates.star").values()))
    table["stem"] = [Path(name).stem for name in table["rlnMicrographName"]]
    record = json.loads((out / "train" / "training.json").read_text())
    found = result(name, seed, table, data["test_truth"], args.radius, costs, record["threshold"])
    truth = len(data["train_truth"]) / len(data["train"])
    return found | {"count": record["expected_particles"] / truth}


def preprocess(args: argparse.Namespace, data: dict, small: Path) -> dict:
    """Topaz's normalized and downsampled micrographs in the folder `small`; what they cost."""
    return measured(args, ["topaz", "preprocess", "-s", args.topaz_scale, "-o", f"{small}/",
                           *data["train"], *data["test"]])


def topaz_untrained(args: argparse.Namespace, data: dict, small: Path, preprocessing: dict) -> dict:
    """Topaz with its pretrained network as it comes."""
    table, cost = topaz_extract(args, data, small, "resnet8", small / "picks.txt")
    costs = [preprocessing, {"cpu": 0.0, "memory": 0.0}, cost]
    return result("topaz untrained", 0, table, data["test_truth"], args.radius, costs) | {"labels": 0}


def topaz_trained(args: argparse.Namespace, data: dict, labels: Path, seed: int, small: Path, out: Path, way: str,
                  preprocessing: dict) -> dict:
    """Topaz with its pretrained network, fine-tuned."""
    scale = args.topaz_scale
    out.mkdir(parents=True)
    moved = pd.read_csv(labels, sep="\t")
    moved[["x_coord", "y_coord"]] = (moved[["x_coord", "y_coord"]] / scale).round().astype(int)
    moved.to_csv(out / "labels.txt", sep="\t", index=False)
    paths = [small / path.name for path in data["train"]]
    images = pd.DataFrame({"image_name": [path.stem for path in paths], "path": paths})
    images.to_csv(out / "images.txt", sep="\t", index=False)
    expected = args.expected_particles or TOPAZ_EXPECTED
    if way == "mended":
        expected *= disc_pixels(TOPAZ_RADIUS) / ball_pixels(TOPAZ_RADIUS)
    training = measured(args, ["topaz", "train", "-d", -1, "-n", expected, "--radius", TOPAZ_RADIUS,
                               "--train-images", out / "images.txt", "--train-targets", out / "labels.txt",
                               "--num-workers", 0, "--epoch-size", args.topaz_updates, "--num-epochs", 1,
                               "--minibatch-size", 256, "--save-prefix", out / "model", "-o", out / "log.txt"])
    table, cost = topaz_extract(args, data, small, out / "model_epoch1.sav", out / "picks.txt")
    return result(f"topaz {way}", seed, table, data["test_truth"], args.radius, [preprocessing, training, cost])


def disc_pixels(radius: int) -> int:
    """Pixels that Topaz labels around a particle."""
    return sum(x * x + y * y <= radius ** 2 for x in range(-radius, radius + 1) for y in range(-radius, radius + 1))


def ball_pixels(radius: int) -> int:
    """Pixels that Topaz counts for them in its prior: the (2r + 1) layers of a volume's label."""
    return disc_pixels(radius) * (2 * radius + 1)


def topaz_extract(args: argparse.Namespace, data: dict, small: Path, model: str | Path,
                  picks: Path) -> tuple[pd.DataFrame, dict]:
    """Topaz's picks in the test micrographs, in their pixels, and what they cost."""
    radius = int(0.7 * args.radius / args.topaz_scale)
    cost = measured(args, ["topaz", "extract", "-d", -1, "-r", radius, "-m", model, "-x", args.topaz_scale, "-o", picks,
                           *[small / path.name for path in data["test"]]])
    table = pd.read_csv(picks, sep="\t")
    return table.rename(columns=dict(zip(("image_name", "x_coord", "y_coord", "score"), ("stem", *COLUMNS)))), cost


def measured(args: argparse.Namespace, command: list) -> dict:
    """Run a command; its CPU seconds and peak memory in MB."""
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": f"{ENGINE}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command[:4]))} ... failed:\n{output[-3000:]}")
    return {"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}


def result(method: str, seed: int, table: pd.DataFrame, truth: pd.DataFrame, radius: float, costs: list[dict],
           threshold: float | None = None) -> dict:
    """Scores of the picks in `table`, and what they cost; `threshold` is the one chosen by training."""
    picks, scores, truths = [], [], []
    for stem, rows in truth.groupby("image_name"):
        mine = table[table["stem"] == stem]
        picks.append(mine[COLUMNS[:2]].to_numpy(float))
        scores.append(mine[COLUMNS[2]].to_numpy(float))
        truths.append(rows[["x_coord", "y_coord"]].to_numpy(float))
    score = score_picks(picks, scores, truths, radius)
    chosen = None
    if threshold is not None:
        above = [values >= threshold for values in scores]
        kept = [[values[a] for values, a in zip(part, above)] for part in (picks, scores)]
        chosen = score_picks(*kept, truths, radius).f1
    return {"method": method, "seed": seed, "average_precision": score.average_precision, "best_f1": score.best_f1,
            "chosen_f1": chosen, "median_error": score.median_error, "rms_error": score.rms_error,
            "count": None, "cpu_seconds": [round(c["cpu"], 1) for c in costs],
            "peak_mb": round(max(c["memory"] for c in costs))}


def print_row(row: dict) -> None:
    print(f"{row['method']:24s} labels {row['labels']:4d} seed {row['seed']}: average precision "
          f"{row['average_precision']:.4f}, CPU s {row['cpu_seconds']}", flush=True)


def print_table(rows: list[dict]) -> None:
    """Means over seeds, and the spread of the average precision (standard deviation over runs)."""
    print(f"\n{'method':24s} {'labels':>6s} {'runs':>4s} {'AP':>6s} {'+-':>5s} {'best F1':>7s} {'F1 chosen':>9s} "
          f"{'N':>5s} {'error px':>8s} {'rms':>5s} {'CPU s':>6s} {'peak MB':>7s}")
    for method, labels in dict.fromkeys((r["method"], r["labels"]) for r in rows):
        group = [r for r in rows if (r["method"], r["labels"]) == (method, labels)]
        precisions = [r["average_precision"] for r in group]
        mean = {key: np.mean([r[key] for r in group if r[key] is not None] or [np.nan])
                for key in ("best_f1", "chosen_f1", "count", "median_error", "rms_error", "peak_mb")}
        spread = statistics.stdev(precisions) if len(precisions) > 1 else float("nan")
        print(f"{method:24s} {labels:6d} {len(group):4d} {np.mean(precisions):6.3f} {spread:5.3f} "
              f"{mean['best_f1']:7.3f} {mean['chosen_f1']:9.3f} {mean['count']:5.2f} {mean['median_error']:8.2f} "
              f"{mean['rms_error']:5.2f} {np.mean([sum(r['cpu_seconds']) for r in group]):6.0f} "
              f"{mean['peak_mb']:7.0f}")


if __name__ == "__main__":
    main()
