#!/usr/bin/env python
"""Does a network learn what alignment found? Trainings on the classes of an aligned classification of some particles,
measured on the others of the set.

Run it with the engine's Python; the classification may be of any part of the set::

    siamese2d-engine classify --particles SOME --classes 50 --out classes
    python benchmarks/aligned_classes.py --set SET --classified classes/particles.star --out aligned.json

``SET`` is as for ``benchmarks/embedding.py``. ``k-means`` is the mean angle in degrees between a held-out particle's
view and the mean of its cluster, a view and its mirror image being one, after k-means on the embeddings to as many
clusters as there are classes; ``nearest`` the same after giving each held-out particle to the class whose members have
the nearest mean embedding; ``trained on`` that of the classification itself. Held-out particles have no alignment.
``embed / s`` counts particles per CPU second from the stack to the vectors, on one thread.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from embedding import print_table, read_set, run_engine
from sklearn.cluster import KMeans

from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.evaluate.classes import angular_spread
from siamese2d_engine.io.particles import ParticleSet, read_particles

ROWS = {
    "steerable, triplet": ["--mode", "triplet"],
    "steerable, supervised contrast": ["--mode", "triplet", "--loss", "supervised-contrastive", "--batch-size", "256"],
    "aligned-classes": ["--preset", "aligned-classes"],
    "convolutional, supervised contrast": ["--mode", "triplet", "--loss", "supervised-contrastive", "--batch-size",
                                           "256", "--network", "original"],
}


def numbers(particles: ParticleSet) -> np.ndarray:
    """Places in the stack, which identify particles of one set."""
    return np.array([int(str(name).split("@")[0]) for name in particles.table["rlnImageName"]])


def nearest_class(vectors: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each vector the class (of `labels`) whose members among `known` have the nearest mean."""
    classes = np.unique(labels)
    means = np.stack([known[labels == label].mean(axis=0) for label in classes])
    return classes[np.square(vectors[:, None] - means).sum(axis=2).argmin(axis=1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder of particles and truth")
    parser.add_argument("--classified", type=Path, required=True,
                        help="particles.star of classify, of a part of the set")
    parser.add_argument("--only", nargs="+", default=list(ROWS), help="rows")
    parser.add_argument("--work", type=Path,
                        help="folder for the trainings; those that finished there are not done again")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, classified = read_set(args.set), read_particles(args.classified)
    places = {number: row for row, number in enumerate(numbers(truth.particles))}
    trained = np.array([places[number] for number in numbers(classified)])
    others = np.setdiff1d(np.arange(len(truth.particles)), trained)
    labels = classified.table["rlnClassNumber"].to_numpy(int)
    bound = angular_spread(labels, truth.directions[trained], mirror=True)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.only:
            out = (args.work or Path(temporary)) / name.replace(", ", "-").replace(" ", "-")
            run_engine(["train", "--particles", str(args.classified.resolve()), *ROWS[name], "--out", str(out)])
            started = time.process_time()
            vectors = embed(out / "embedding.safetensors", truth.particles.subset(others), report=lambda message: None)
            rate = len(vectors) / (time.process_time() - started)
            clusters = KMeans(len(np.unique(labels)), n_init=1, random_state=0).fit(vectors).labels_ + 1
            assigned = nearest_class(vectors, np.load(out / "embeddings.npy"), labels)
            views = truth.directions[others]
            rows.append({"method": name, "k-means": angular_spread(clusters, views, mirror=True),
                         "nearest": angular_spread(assigned, views, mirror=True), "trained on": bound,
                         "embed / s": rate, "CPU s": json.loads((out / "run.json").read_text())["cpu_seconds"]})
            print_table(rows[-1:])
    print_table(rows)
    args.out.write_text(json.dumps({"set": str(args.set), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
