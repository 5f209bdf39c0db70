#!/usr/bin/env python
"""What an embedding brings: each mode and network of ``siamese2d-engine train``, and features without training, on a
known truth.

Run it with the engine's Python on simulated particles. It prints a table and writes the same as JSON::

    siamese2d-engine simulate particles --out SET ...
    python benchmarks/embedding.py --set SET --unseen OTHER_SET --out embedding.json

A set is a folder with ``particles.star`` and ``truth.star`` (``rlnAngleRot rlnAngleTilt siamese2dSpecies``), or
``truth.npz`` (``R`` with the viewing direction as third row, ``species``, ``junk_type``). ``--unseen`` is a set that no
training sees, embedded by the trained model.

``kNN`` is the mean angle in degrees between a particle's viewing direction and those of its 20 nearest neighbours, a
view and its mirror image being one; 57 at random. ``spread`` is the mean angle to the class's mean direction after
k-means to K classes; ``purity`` the share of particles in a class of their species, junk being one. CPU seconds are
those of the whole command, on one thread. Triplet mode learns from classes made of the **true** directions and species
(K-means on them): what labels as good as possible would bring.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from siamese2d_engine.embedding.centring import find_shifts, fit_profile, shift_spectra
from siamese2d_engine.embedding.features import invariant_features, pca_features
from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.embedding.prepare import Preparation, read_spectra, soft_mask, to_images
from siamese2d_engine.evaluate.classes import angular_spread, species_scores
from siamese2d_engine.io.particles import ParticleSet, read_particles, write_particles
from siamese2d_engine.io.star import read_star

NEIGHBOURS = 20
QUERIES = 1500
WORKING_BOX = 32
RUNS = (
    ("self-supervised", "steerable"), ("self-supervised", "original"), ("contrastive", "steerable"),
    ("contrastive", "original"), ("triplet", "steerable"), ("triplet", "original"),
)


@dataclass
class TestSet:
    """Particles with their truth: directions ``(n, 3)``, species ``(n,)`` with 0 for junk."""

    star: Path
    particles: ParticleSet
    directions: np.ndarray
    species: np.ndarray


def read_set(folder: Path) -> TestSet:
    """Read a folder of particles and truth."""
    particles = read_particles(folder / "particles.star")
    if (folder / "truth.npz").exists():
        truth = np.load(folder / "truth.npz")
        junk = truth["junk_type"] >= 0 if "junk_type" in truth else np.zeros(len(particles), bool)
        return TestSet(folder / "particles.star", particles, truth["R"][:, 2], np.where(junk, 0, truth["species"] + 1))
    table = next(block for block in read_star(folder / "truth.star").values() if "rlnAngleRot" in block)
    rot, tilt = (np.radians(table[name].to_numpy(float)) for name in ("rlnAngleRot", "rlnAngleTilt"))
    directions = np.stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)], axis=1)
    return TestSet(folder / "particles.star", particles, directions, table["siamese2dSpecies"].to_numpy(int))


def neighbour_angle(vectors: np.ndarray, truth: TestSet) -> float:
    """Mean angle to the nearest neighbours modulo mirror, degrees, over the first particles that are no junk."""
    good = truth.species > 0
    vectors, directions = vectors[good], truth.directions[good]
    model = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(vectors)
    queries = directions[:QUERIES]
    # The nearest one is the particle itself.
    near = model.kneighbors(vectors[:QUERIES], return_distance=False)[:, 1:]
    cosines = np.abs(np.einsum("na,nka->nk", queries, directions[near]))
    return float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).mean())


def scores(vectors: np.ndarray, truth: TestSet, classes: int) -> dict:
    """kNN angle, spread and purity of an embedding."""
    labels = KMeans(classes, n_init=1, random_state=0).fit(vectors).labels_ + 1
    good = truth.species > 0
    return {"knn": neighbour_angle(vectors, truth),
            "spread": angular_spread(np.where(good, labels, 0), truth.directions, mirror=True),
            "purity": species_scores(labels, truth.species)["purity"]}


def true_classes(truth: TestSet, classes: int) -> np.ndarray:
    """Classes from 1 by k-means on ``v v^T`` (a view and its mirror image are one) and species."""
    products = np.einsum("na,nb->nab", truth.directions, truth.directions).reshape(-1, 9)
    species = 4.0 * np.eye(truth.species.max() + 1)[truth.species]
    features = np.concatenate([products * (truth.species > 0)[:, None], species], axis=1)
    labels = KMeans(classes, n_init=1, random_state=0).fit(features).labels_
    # Triplets need at least two members of a class.
    sizes = np.bincount(labels)
    return np.unique(np.where(sizes[labels] > 2, labels, sizes.argmax()), return_inverse=True)[1] + 1


def feature_rows(truth: TestSet, classes: int) -> list[dict]:
    """Features without training, before and after centring."""
    preparation = Preparation.for_particles(truth.particles, WORKING_BOX, True, None)
    started = time.process_time()
    raw = read_spectra(truth.particles, preparation, print)
    centred = shift_spectra(raw, find_shifts(raw, fit_profile(raw)))
    prepared = time.process_time() - started
    mask = soft_mask(preparation.working_box, preparation.mask_radius)
    rows = []
    for name, spectra, make in (
        ("pixels, 20 PCs", centred, lambda x: pca_features(x, 20)),
        ("invariants, not centred", raw, invariant_features),
        ("invariants", centred, invariant_features),
    ):
        started = time.process_time()
        vectors = make(to_images(spectra) * mask).numpy()
        cpu = time.process_time() - started + prepared
        rows.append({"mode": "none", "network": name, "cpu_seconds": cpu, **scores(vectors, truth, classes)})
    return rows


def train(star: Path, mode: str, network: str, out: Path, extra: list[str]) -> float:
    """Train on one thread; CPU seconds of the command."""
    return run_engine(["train", "--particles", str(star), "--mode", mode, "--network", network, "--out", str(out),
                       *extra])


def run_engine(arguments: list[str]) -> float:
    """Run a command of the engine on one thread; its CPU seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "siamese2d_engine", *arguments, "--threads", "1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with code {process.returncode}:\n{message}")
    return usage.ru_utime + usage.ru_stime


def training_row(truth: TestSet, unseen: TestSet | None, mode: str, network: str, args: argparse.Namespace,
                 folder: Path) -> dict:
    """Train, and score on the particles trained on and on others."""
    star = truth.star.resolve()
    if mode == "triplet":
        star = folder / "with_classes.star"
        table = truth.particles.table.assign(rlnClassNumber=true_classes(truth, args.classes))
        table["rlnImageName"] = [_absolute(name, truth.star.parent) for name in table["rlnImageName"]]
        write_particles(star, table, truth.particles.optics)
    out = folder / f"{mode}-{network}"
    options = ["--seed", str(args.seed), "--classes", str(args.classes)]
    cpu = train(star, mode, network, out, options + (["--epochs", str(args.epochs)] if args.epochs else []))
    row = {"mode": mode, "network": network, "cpu_seconds": cpu,
           **scores(np.load(out / "embeddings.npy"), truth, args.classes)}
    if unseen is not None:
        started = time.process_time()
        vectors = embed(out / "embedding.safetensors", unseen.particles, report=lambda message: None)
        rate = len(vectors) / (time.process_time() - started)
        row |= {f"unseen_{name}": value for name, value in scores(vectors, unseen, args.classes).items()}
        row["embedded_per_cpu_second"] = rate
    return row


def _absolute(image_name: str, folder: Path) -> str:
    number, _, name = image_name.rpartition("@")
    path = Path(name) if Path(name).exists() else folder / name
    return f"{number}@{path.resolve()}"


def print_table(rows: list[dict]) -> None:
    """Print rows under the union of their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[_text(row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts)]
    for line in (columns, *texts):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip(), flush=True)


def _text(value) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder of particles to train on")
    parser.add_argument("--unseen", type=Path, help="folder of particles to embed only")
    parser.add_argument("--classes", type=int, default=50, help="K of all k-means")
    parser.add_argument("--epochs", type=int, help="of every training; by default the command's own")
    parser.add_argument("--only", nargs="+", default=None, metavar="MODE/NETWORK", help="trainings to run, by default "
                                                                                        "all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, unseen = read_set(args.set), read_set(args.unseen) if args.unseen else None
    rows = feature_rows(truth, args.classes)
    with tempfile.TemporaryDirectory() as folder:
        for mode, network in RUNS:
            if args.only is None or f"{mode}/{network}" in args.only:
                rows.append(training_row(truth, unseen, mode, network, args, Path(folder)))
    print_table(rows)
    content = {"set": str(args.set), "classes": args.classes, "seed": args.seed, "rows": rows}
    args.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
