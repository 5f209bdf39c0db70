#!/usr/bin/env python3
"""How well could a classification do? Started from noise-free classes and true poses, what does the noise leave of
them?

Each SET is a folder as for ``classify2d.py`` with ``clean.npy`` besides, the centred images without CTF and noise, and
the shifts in ``truth.npz``. The clean images of each species are classified first; their poses start passes that search
all classes and shifts with the noisy images. Prints spread, and for mixtures purity, after each pass.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from siamese2d_engine.classify.engine import Classifier, State
from siamese2d_engine.classify.inputs import circular_mask
from siamese2d_engine.classify.prepare import resolution, transform
from siamese2d_engine.classify.schedule import Recipe, Schedule, Search, Step, schedule
from siamese2d_engine.classify.search import Poses
from siamese2d_engine.classify.stage import LARGEST_SHIFT
from siamese2d_engine.evaluate.classes import angular_spread, majority_species
from siamese2d_engine.io.particles import ParticleImages, ctf_parameters, read_particles

DEVICE = torch.device("cpu")
# Noise of the clean images, so that their spectrum has no zeros.
LITTLE_NOISE = 0.02


class Images(ParticleImages):
    """Images in memory, read in chunks as those of a file."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, positions) -> np.ndarray:
        return self.images[positions]


def noise_free_poses(clean: np.ndarray, species: np.ndarray, numbers: list[int], to_polar) -> Poses:
    """Poses of the clean images, each species classified on its own into the given number of classes."""
    poses, first = Poses.empty(len(clean), 1), 0
    for kind, classes in enumerate(numbers):
        index = np.flatnonzero(species == kind)
        images = to_polar(Images(clean[index]), None)
        classifier = Classifier(images, schedule(classes, classes, Recipe.last, True, Recipe()), 3.0, 0, DEVICE)
        found = classifier.run(classifier.start(), lambda state: None).poses
        poses.put(torch.as_tensor(index), found.relabelled(found.classes[:, 0] + first))
        first += classes
    return poses


def report(state: State, directions: np.ndarray, species: np.ndarray, real: np.ndarray) -> None:
    """One line about a state."""
    labels = state.poses.classes[:, 0].numpy() + 1
    line = f"spread modulo mirror {angular_spread(labels[real], directions[real], mirror=True):5.2f}"
    if len(np.unique(species)) > 1:
        named = np.where(real, species + 1, 0)
        line += f" purity {(majority_species(labels, named) == named).mean():.3f}"
    print(f"pass {state.step}: {line}, log-likelihood {state.history[-1]['log_likelihood']:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, metavar="SET")
    parser.add_argument("--classes", type=int, nargs="+", default=[50], help="for each species, in their order")
    parser.add_argument("--junk", action="store_true", help="the highest species number is junk")
    parser.add_argument("--rings", type=int, default=13, help="that are compared")
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, particles = dict(np.load(args.set / "truth.npz")), read_particles(args.set / "particles.star")
    species = truth.get("species", np.zeros(len(particles), int))
    mask = circular_mask(particles.box, particles.pixel_size, None)

    def to_polar(images, ctf):
        return transform(images, ctf, mask, Recipe.last, particles.pixel_size, DEVICE, None)

    clean = np.load(args.set / "clean.npy")
    clean = clean + LITTLE_NOISE * np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    poses = noise_free_poses(clean, species, args.classes, to_polar)
    # The images' content was moved by these shifts.
    poses.shifts[:, 0] -= torch.as_tensor(truth["shift"]).float()

    images = to_polar(particles.images, ctf_parameters(particles))
    classes = sum(args.classes)
    steps = [Step(classes, args.rings, args.rings, True, Search.ALL)] * args.passes
    classifier = Classifier(images, Schedule(steps, [], []), LARGEST_SHIFT * particles.box, 0, DEVICE)
    state = classifier._from_poses(0, poses, classes, resolution(images, args.rings), None, [])
    real = species < species.max() if args.junk else np.ones(len(species), bool)
    classifier.run(state, lambda done: report(done, truth["R"][:, 2], species, real))


if __name__ == "__main__":
    main()
