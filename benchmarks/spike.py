#!/usr/bin/env python
"""Four views of the SARS-CoV-2 spike protein: which way of grouping particles finds them, on clear and on noisy images,
and does what was learnt carry over to a protein never seen?

Run it with the engine's Python and a folder of atomic models (``6vxx.pdb.gz``, ``1WCM.pdb.gz``). It prints a table and
writes the same as JSON, and two figures where matplotlib is installed::

    python benchmarks/spike.py --models FOLDER --out spike.json [--sets clear noisy] [--figures docs/images]

Images are projections of the CA atoms (Gaussians of 4 A) in 128 pixels of 2 A: four directions of the spike, each
scattered by 4 degrees, any rotation in the plane, shifts of up to 8 A along x and y, no CTF, white noise. SNR is the
variance of the signal over that of the noise over the whole box. Trainings see 400 of them; 300 others measure them,
and 300 of four views of another protein (RNA polymerase II) at the same SNR, embedded by what was trained on the spike.
Triplet training sees the true classes, ``aligned-classes`` those that ``classify`` found, the others none.

``accuracy`` is the share of particles in the cluster that stands for their view, after k-means to 4 clusters and
matching one to one (0.25 and a little more by chance); ``regrouped`` the same after 60 clusters joined to 4 by spectral
clustering; ``silhouette`` that of the true views; ``dominance`` the mean cosine within a view less the largest with
another. CPU seconds are those of the whole command, training and embedding included, on one thread.
"""

import argparse
import gzip
import json
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import torch
from embedding import print_table, run_engine

from siamese2d_engine.embedding.centring import find_shifts, fit_profile, shift_spectra
from siamese2d_engine.embedding.features import invariant_features, pca_features
from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.embedding.prepare import Preparation, read_spectra, soft_mask, to_images
from siamese2d_engine.evaluate.embeddings import cluster, embedding_scores, matched_accuracy
from siamese2d_engine.io.particles import read_particles, write_particles
from siamese2d_engine.io.star import read_star
from siamese2d_engine.simulate.particles import ParticleRenderer, ParticleTruth
from siamese2d_engine.simulate.volumes import PseudoProtein, Volume, sample_density

BOX, PIXEL = 128, 2.0
TRAINED, HELD_OUT = 400, 300
ATOM_WIDTH = 4.0
# rot, tilt in degrees: from above, from the side on an edge and on a face of the trimer, and oblique.
VIEWS = ((0, 0), (0, 90), (30, 90), (0, 45))
SCATTER, SHIFT = 4.0, 8.0
SNR = {"clear": 10.0, "noisy": 0.02}
PROTEINS = {"spike": "6vxx", "unseen": "1WCM"}
CENTRES = 60
# Options beside the preset or the mode, to keep the time down: smaller images, fewer rounds, and few epochs for
# milopyp, whose 450 steps by default would take 40 minutes.
TRAININGS = {
    "contrastive-original": ["--preset", "contrastive-original", "--working-box", "32", "--rounds", "2"],
    "triplet-original": ["--preset", "triplet-original", "--working-box", "64"],
    "triplet-original-noise": ["--preset", "triplet-original-noise", "--working-box", "64"],
    "milopyp": ["--preset", "milopyp", "--epochs", "3"],
    "self-supervised": [],
    "contrastive": ["--mode", "contrastive", "--classes", "4"],
    "triplet": ["--mode", "triplet"],
    "supervised-contrastive": ["--mode", "triplet", "--loss", "supervised-contrastive"],
    # On what the classification found.
    "aligned-classes": ["--preset", "aligned-classes"],
}


@dataclass
class Images:
    """A STAR file of particles and the true view ``(n,)`` of each, from 1."""

    star: Path
    views: np.ndarray

    @property
    def held_out(self) -> slice:
        """Rows that no training sees."""
        return slice(len(self.views) - HELD_OUT, None)


def read_model(path: Path) -> Volume:
    """Density of the CA atoms of a gzipped PDB file."""
    with gzip.open(path, "rt") as file:
        lines = [line for line in file if line.startswith("ATOM") and line[12:16].strip() == "CA"]
    positions = np.array([[float(line[start: start + 8]) for start in (30, 38, 46)] for line in lines])
    positions -= positions.mean(axis=0)
    diameter = 2 * np.linalg.norm(positions, axis=1).max() + 4 * ATOM_WIDTH
    protein = PseudoProtein(path.stem, positions, np.ones(len(positions)), ATOM_WIDTH, diameter)
    return sample_density(protein, PIXEL)


def plan(count: int, seed: int) -> tuple[ParticleTruth, np.ndarray]:
    """What each image shows, and its view from 1."""
    rng = np.random.default_rng([seed, count])
    views = rng.permutation(np.arange(count) % len(VIEWS))
    angles = np.radians(np.array(VIEWS, float)[views])
    directions = np.stack([np.sin(angles[:, 1]) * np.cos(angles[:, 0]), np.sin(angles[:, 1]) * np.sin(angles[:, 0]),
                           np.cos(angles[:, 1])], axis=1)
    directions += np.radians(SCATTER) * rng.normal(size=directions.shape) / np.sqrt(2)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rot, tilt = np.arctan2(directions[:, 1], directions[:, 0]), np.arccos(np.clip(directions[:, 2], -1, 1))
    psi = rng.uniform(-np.pi, np.pi, count)
    truth = ParticleTruth(
        species=np.ones(count, int), junk=np.full(count, -1), angles=np.stack([rot, tilt, psi], axis=1),
        shifts=rng.uniform(-SHIFT / PIXEL, SHIFT / PIXEL, (count, 2)), amplitudes=np.ones(count),
        micrographs=np.zeros(count, int), ctf=None)
    return truth, views + 1


def simulate(folder: Path, volume: Volume, count: int, snr: float, seed: int) -> Images:
    """Write a stack and its STAR file, with the true views as ``siamese2dSpecies``."""
    truth, views = plan(count, seed)
    renderer = ParticleRenderer(truth, [volume], BOX, PIXEL, snr, coloured=False, seed=seed)
    stack = folder / "particles.mrcs"
    found = Images(folder / "particles.star", views)
    if found.star.exists():
        return found
    with mrcfile.new(stack, overwrite=True) as file:
        file.set_data(np.concatenate([images for _, images in renderer.chunks()]))
        file.set_image_stack()
        file.voxel_size = PIXEL
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["o"], "rlnImagePixelSize": [PIXEL],
                           "rlnImageSize": [BOX], "rlnImageDimensionality": [2]})
    table = pd.DataFrame({"rlnImageName": [f"{i:06d}@{stack}" for i in range(1, count + 1)], "rlnOpticsGroup": 1,
                          "siamese2dSpecies": views})
    training = table[:TRAINED].assign(rlnClassNumber=views[:TRAINED])
    write_particles(folder / "training.star", training, optics)
    write_particles(found.star, table, optics)
    return found


def score(vectors: np.ndarray, views: np.ndarray) -> dict:
    """The columns of the table."""
    full = embedding_scores(vectors, views, cluster(vectors, len(VIEWS), 0))
    with warnings.catch_warnings():
        # Groups of centres without a path between them are no fault.
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        labels = cluster(vectors, len(VIEWS), 0, CENTRES)
    regrouped = matched_accuracy(labels, views)
    return {"accuracy": full["accuracy"], "ari": full["ari"], "regrouped": regrouped,
            "silhouette": full["silhouette"], "dominance": full["diagonal_dominance"]}


def feature_rows(sets: dict[str, Images], maps: dict) -> list[dict]:
    """Features without training, of all images of a set."""
    rows = []
    images, seconds = {}, {}
    for name, found in sets.items():
        particles = read_particles(found.star)
        started = time.process_time()
        spectra = read_spectra(particles, Preparation.for_particles(particles, 32, True, None), lambda message: None)
        centred = shift_spectra(spectra, find_shifts(spectra, fit_profile(spectra)))
        images[name] = to_images(centred) * soft_mask(32, 15)
        seconds[name] = time.process_time() - started
    for name, make in (("pixels", lambda x: x.flatten(1)), ("20 principal components", lambda x: pca_features(x, 20)),
                       ("rotation-invariant features", invariant_features)):
        started = time.process_time()
        vectors = {which: make(stack).numpy()[sets[which].held_out] for which, stack in images.items()}
        cpu = (time.process_time() - started) + sum(seconds.values())
        rows.append(row_of(name, cpu, vectors, sets))
        maps[name] = vectors["spike"]
    return rows


def run_recorded(out: Path, arguments: list[str]) -> float:
    """Run a command, unless it has finished in this folder before; the CPU seconds that it recorded."""
    run_engine([*arguments, "--out", str(out)])
    return json.loads((out / "run.json").read_text())["cpu_seconds"]


def row_of(name: str, cpu: float, vectors: dict[str, np.ndarray], sets: dict[str, Images]) -> dict:
    """Scores of held-out images of the spike, and accuracy and dominance on the unseen protein."""
    known, unseen = (score(vectors[which], sets[which].views[sets[which].held_out]) for which in ("spike", "unseen"))
    return {"method": name, **known, "unseen": unseen["accuracy"], "unseen dominance": unseen["dominance"],
            "CPU s": cpu}


def training_row(name: str, sets: dict[str, Images], folder: Path, maps: dict) -> dict:
    """Train on the first images of the spike, and score on others."""
    out = folder / name
    star = sets["spike"].star.with_name("training.star")
    if name == "aligned-classes":
        star = write_classified(folder)
    cpu = run_recorded(out, ["train", "--particles", str(star), *TRAININGS[name]])
    started = time.process_time()
    vectors = {}
    for which, found in sets.items():
        rows = np.arange(len(found.views))[found.held_out]
        vectors[which] = embed(out / "embedding.safetensors", read_particles(found.star).subset(rows),
                               report=lambda message: None)
    maps[name] = vectors["spike"]
    return row_of(name, cpu + time.process_time() - started, vectors, sets)


def write_classified(folder: Path) -> Path:
    """The particles of the trainings as the classification of the spike's images has them."""
    particles = read_particles(folder / "classify-spike" / "particles.star")
    path = folder / "classified.star"
    if not path.exists():
        rows = np.flatnonzero(stack_numbers(particles.table) <= TRAINED)
        write_particles(path, particles.table.iloc[rows].reset_index(drop=True), particles.optics)
    return path


def stack_numbers(table: pd.DataFrame) -> np.ndarray:
    """Places ``(n,)`` in the stack, from 1."""
    return np.array([int(name.split("@")[0]) for name in table["rlnImageName"]])


def classify_row(sets: dict[str, Images], folder: Path) -> dict:
    """Aligned classification to four classes of all images of a set; nothing to train, no truth."""
    scores, cpu = {}, 0.0
    for which, found in sets.items():
        out = folder / f"classify-{which}"
        cpu += run_recorded(out, ["classify", "--particles", str(found.star), "--classes", str(len(VIEWS))])
        table = next(block for block in read_star(out / "particles.star").values() if "rlnClassNumber" in block)
        labels, views = table["rlnClassNumber"].to_numpy(int), table["siamese2dSpecies"].to_numpy(int)
        order = np.argsort(stack_numbers(table))[found.held_out]
        scores[which] = (labels[order], views[order])
    from sklearn.metrics import adjusted_rand_score

    return {"method": "classify (aligned)", "accuracy": matched_accuracy(*scores["spike"]),
            "ari": float(adjusted_rand_score(*scores["spike"])), "unseen": matched_accuracy(*scores["unseen"]),
            "CPU s": cpu}


def draw_examples(path: Path, examples: dict) -> None:
    """One image of each view, and the classes' averages, for each set."""
    import matplotlib.pyplot as plt

    rows = [(label, stack) for label, stack in examples.items()]
    figure, axes = plt.subplots(len(rows), len(VIEWS), figsize=(1.5 * len(VIEWS), 1.55 * len(rows)), squeeze=False)
    for line, (label, stack) in zip(axes, rows):
        for axis, image in zip(line, stack):
            axis.imshow(image, cmap="gray")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_maps(path: Path, maps: dict, views: dict) -> None:
    """Held-out images in the plane of PCA and t-SNE, coloured by their view, for each set and some methods."""
    import matplotlib.pyplot as plt

    from siamese2d_engine.embedding.map import two_step_map

    wanted = ("contrastive-original", "triplet-original-noise", "milopyp", "self-supervised", "aligned-classes")
    columns = [name for name in wanted if any(name in vectors for vectors in maps.values())]
    figure, axes = plt.subplots(len(maps), len(columns), figsize=(1.8 * len(columns), 1.9 * len(maps)), squeeze=False)
    for line, (label, vectors) in zip(axes, maps.items()):
        for axis, name in zip(line, columns):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(name, fontsize=7)
            if name in vectors:
                plane = two_step_map(vectors[name], 0)
                axis.scatter(plane["x"], plane["y"], c=views[label][plane["rows"]], cmap="tab10", vmin=1, vmax=10, s=2)
        line[0].set_ylabel(label, fontsize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with the atomic models")
    parser.add_argument("--sets", nargs="+", choices=tuple(SNR), default=list(SNR), help="which images")
    parser.add_argument("--only", nargs="+", default=None, metavar="METHOD", help="trainings to run; all by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; rows of sets that are in it and not asked "
                                                               "for stay")
    parser.add_argument("--work", type=Path, help="folder for images and runs; runs that finished there are not done "
                                                  "again. By default a temporary one")
    parser.add_argument("--figures", type=Path, help="folder for the figures, of the sets of this call")
    args = parser.parse_args()
    torch.set_num_threads(1)
    volumes = {which: read_model(args.models / f"{name}.pdb.gz") for which, name in PROTEINS.items()}
    content = json.loads(args.out.read_text()) if args.out.exists() else {}
    examples, maps, views = {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        for label in args.sets:
            sets = {}
            for which, volume in volumes.items():
                place = folder / label / which
                place.mkdir(parents=True, exist_ok=True)
                count = HELD_OUT + (TRAINED if which == "spike" else 0)
                sets[which] = simulate(place, volume, count, SNR[label], 0)
            maps[label], views[label] = {}, sets["spike"].views[sets["spike"].held_out]
            rows = feature_rows(sets, maps[label])
            rows.append(classify_row(sets, folder / label))
            rows += [training_row(name, sets, folder / label, maps[label]) for name in TRAININGS
                     if args.only is None or name in args.only]
            print(f"{label}, SNR {SNR[label]:g}", flush=True)
            print_table(rows)
            content[label] = {"snr": SNR[label], "rows": rows}
            args.out.write_text(json.dumps(content, indent=1))
            for which, found in sets.items():
                with mrcfile.mmap(found.star.with_name("particles.mrcs")) as stack:
                    first = [int(np.flatnonzero(found.views == view)[0]) for view in range(1, len(VIEWS) + 1)]
                    examples[f"{which}, {label}"] = np.array(stack.data[first])
            with mrcfile.open(folder / label / "classify-spike" / "classes.mrcs") as file:
                examples[f"averages, {label}"] = np.array(file.data)
        if args.figures:
            draw_examples(args.figures / "spike_images.png", examples)
            draw_maps(args.figures / "spike_maps.png", maps, views)


if __name__ == "__main__":
    main()
