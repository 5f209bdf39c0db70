#!/usr/bin/env python3
"""How well could a classification do? Started from the truth, what do the images leave of it?

Each SET is a folder as for ``classify2d.py`` with rotations ``R`` and shifts ``shift`` in ``truth.npz``. The true
viewing directions of each species are grouped by k-means, and the images start in these classes at their true in-plane
angles and shifts, the best that there could be. Passes follow that search all classes and shifts. Prints the spread of
the start (what so many classes allow), and spread, and for mixtures purity, after each pass.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans

from siamese2d_engine.classify.engine import Classifier, State
from siamese2d_engine.classify.inputs import circular_mask
from siamese2d_engine.classify.prepare import resolution, transform
from siamese2d_engine.classify.schedule import Recipe, Schedule, Search, Step
from siamese2d_engine.classify.search import Poses
from siamese2d_engine.classify.stage import LARGEST_SHIFT
from siamese2d_engine.evaluate.classes import angular_spread, majority_species
from siamese2d_engine.io.particles import ctf_parameters, read_particles

DEVICE = torch.device("cpu")


def direction_classes(directions: np.ndarray, classes: int, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """Classes of viewing directions by k-means, ``(n,)``, and the mean direction of each, ``(classes, 3)``.

    With `mirror` a direction and its opposite are alike: the squares and products of their parts are grouped.
    """
    products = directions[:, :, None] * directions[:, None]
    labels = KMeans(classes, n_init=4, random_state=0).fit_predict(products.reshape(-1, 9) if mirror else directions)
    own = [labels == number for number in range(classes)]
    if mirror:
        return labels, np.stack([np.linalg.eigh(products[members].mean(0))[1][:, -1] for members in own])
    means = np.stack([directions[members].mean(0) for members in own])
    return labels, means / np.linalg.norm(means, axis=1, keepdims=True)


def true_poses(rotations: np.ndarray, shifts: np.ndarray, classes: int, mirror: bool) -> Poses:
    """Classes by direction, and the poses that move the images into a common frame of their class.

    Parameters
    ----------
    rotations
        Rows are the image's x and y axis and its viewing direction, ``(n, 3, 3)``.
    shifts
        By which the images' content was moved, pixels, ``(n, 2)``.
    """
    x, y, direction = rotations.transpose(1, 0, 2)
    labels, means = direction_classes(direction, classes, mirror)
    mean = means[labels]
    # The mirror image shows the particle from the opposite direction.
    flips = mirror & ((direction * mean).sum(1) < 0)
    direction = np.where(flips[:, None], -direction, direction)
    # An axis across the mean direction, turned with it into each image's direction on the shortest way.
    across = np.linalg.svd(means[:, None])[2][:, 1][labels]
    tilted = across - ((across * direction).sum(1) / (1 + (mean * direction).sum(1)))[:, None] * (mean + direction)
    angle = np.arctan2((y * tilted).sum(1), (x * tilted).sum(1))
    poses = Poses.empty(len(labels), 1).relabelled(torch.as_tensor(labels).long())
    poses.flips[:, 0] = torch.as_tensor(flips)
    poses.psi[:, 0] = torch.as_tensor(np.where(flips, np.pi - angle, -angle)).float()
    poses.shifts[:, 0] = -torch.as_tensor(shifts).float()
    return poses


def report(name: str, poses: Poses, truth: dict, species: np.ndarray, real: np.ndarray) -> None:
    """One line about the classes of poses."""
    labels, directions = poses.classes[:, 0].numpy() + 1, truth["R"][:, 2]
    apart, folded = (angular_spread(labels[real], directions[real], mirror=mirror) for mirror in (False, True))
    line = f"{name}: spread {apart:5.2f}, modulo mirror {folded:5.2f}"
    if len(np.unique(species)) > 1:
        named = np.where(real, species + 1, 0)
        line += f", purity {(majority_species(labels, named) == named).mean():.3f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, metavar="SET")
    parser.add_argument("--classes", type=int, nargs="+", default=[50], help="for each species, in their order")
    parser.add_argument("--junk", action="store_true", help="the highest species number is junk")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rings", type=int, default=15, help="that are compared")
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, particles = dict(np.load(args.set / "truth.npz")), read_particles(args.set / "particles.star")
    species = truth.get("species", np.zeros(len(particles), int))
    real = species < species.max() if args.junk else np.ones(len(species), bool)

    poses, first = Poses.empty(len(particles), 1), 0
    for kind, classes in enumerate(args.classes):
        index = np.flatnonzero(species == kind)
        found = true_poses(truth["R"][index], truth["shift"][index], classes, args.mirror)
        poses.put(torch.as_tensor(index), found.relabelled(found.classes[:, 0] + first))
        first += classes
    report("start", poses, truth, species, real)

    mask = circular_mask(particles.box, particles.pixel_size, None)
    images = transform(particles.images, ctf_parameters(particles), mask, Recipe.last, particles.pixel_size, DEVICE,
                       None)
    steps = [Step(first, args.rings, args.rings, args.mirror, Search.ALL)] * args.passes
    classifier = Classifier(images, Schedule(steps, [], []), LARGEST_SHIFT * particles.box, 0, DEVICE)
    state = classifier._from_poses(0, poses, first, resolution(images, args.rings), None, [])

    def after_pass(done: State) -> str:
        report(f"pass {done.step}", done.poses, truth, species, real)
        return f"log-likelihood {done.history[-1]['log_likelihood']:.2f}"

    classifier.run(state, after_pass)


if __name__ == "__main__":
    main()
