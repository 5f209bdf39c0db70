"""Labelled pixels, and the share of particle pixels that a number of particles makes."""

import numpy as np

LABEL_RADIUS = 3


def disc(radius: float) -> np.ndarray:
    """Boolean square with a disc: pixels within `radius` of the middle one; 29 are true for radius 3."""
    reach = int(np.floor(radius))
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    return y ** 2 + x ** 2 <= radius ** 2


def label_mask(shape: tuple[int, int], centres: np.ndarray, radius: float = LABEL_RADIUS) -> np.ndarray:
    """Boolean map `shape`, true within `radius` pixels of the pixels nearest to `centres` `(n, 2)` given as x, y."""
    reach = int(np.floor(radius))
    mask = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=bool)
    stamp = disc(radius)
    for x, y in np.floor(np.asarray(centres).reshape(-1, 2) + 0.5).astype(int):
        if 0 <= x < shape[1] and 0 <= y < shape[0]:
            mask[y:y + 2 * reach + 1, x:x + 2 * reach + 1] |= stamp
    return mask[reach:reach + shape[0], reach:reach + shape[1]]


def class_prior(particles: float, pixels: float, radius: float = LABEL_RADIUS) -> float:
    """Share of `pixels` of a micrograph that lie in the discs of `particles` particles; at most one half."""
    return min(0.5, particles * int(disc(radius).sum()) / pixels)


def unlabeled_prior(prior: float, labelled: float) -> float:
    """Share of particle pixels among those without a label, where `labelled` is the labelled pixels' share of all.

    ``(prior - labelled) / (1 - labelled)``, kept above a tenth of `prior` for labels that are (almost) complete.
    """
    return max(0.1 * prior, (prior - labelled) / (1 - labelled))
