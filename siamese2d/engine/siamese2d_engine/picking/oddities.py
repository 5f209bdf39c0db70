"""Candidates unlike the others: on carbon, on ice, on dots of gold or salt."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from siamese2d_engine.picking.blobs import MAD_TO_SIGMA, difference_of_gaussians, smooth
from siamese2d_engine.picking.unlabeled_threshold import separating_score

# Widths from the median beyond which a candidate is odd.
LIMIT = 2.5
# The level may differ more, since the thickness of the ice does.
LEVEL_LIMIT = 6.0
# Gaussian windows in diameters: surroundings, the particle itself.
SURROUNDINGS, PARTICLE = 1.0, 0.25
# Diameter, in those of the particle, of a dot that is no particle.
DOT = 0.4
FEWEST = 30
# Contrasts below this, in widths of the micrograph's noise, are all the same.
LEAST = 0.2
# Least widths of the features: what differs by less is never odd.
NARROWEST = np.array([0.15, 0.1, 0.25, 0.25])


@dataclass(frozen=True)
class Usual:
    """Median and robust width of each of the four features of `features`."""

    median: np.ndarray
    width: np.ndarray

    def is_odd(self, values: np.ndarray) -> np.ndarray:
        """Which rows of features ``(n, 4)`` are odd, ``(n,)``: too strong in contrast, or off in level."""
        distance = (values - self.median) / self.width
        return (distance[:, :3] > LIMIT).any(axis=1) | (np.abs(distance[:, 3]) > LEVEL_LIMIT)


def feature_maps(flat: np.ndarray, strength: np.ndarray, diameter: float) -> np.ndarray:
    """What tells contamination from particles, for every pixel.

    Parameters
    ----------
    flat : ndarray
        Micrograph without its background, ``(h, w)``.
    strength : ndarray
        The same with its background and its extremes, ``(h, w)``.
    diameter : float
        Pixels.

    Returns
    -------
    ndarray
        float32, ``(4, h, w)``: logarithms of the contrast of the surroundings, of that of the particle, and of the
        response to a dot at its centre; level.
    """
    dots = ndimage.maximum_filter(difference_of_gaussians(strength, DOT * diameter), 2 * int(diameter / 8) + 1)
    contrasts = (_contrast(flat, SURROUNDINGS * diameter), _contrast(strength, PARTICLE * diameter), dots)
    return np.stack([*(np.log(np.maximum(c, LEAST)) for c in contrasts), smooth(strength, PARTICLE * diameter)])


def features(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Features ``(n, 4)`` at `points` `(n, 2)` given as x, y, from `maps` of `feature_maps`."""
    rows, columns = (np.clip(np.floor(points[:, i] + 0.5).astype(int), 0, n - 1)
                     for i, n in ((1, maps.shape[1]), (0, maps.shape[2])))
    return maps[:, rows, columns].T.astype(float)


def usual(values: np.ndarray, scores: np.ndarray) -> Usual:
    """What is usual among the better candidates, with features ``(n, 4)`` and scores ``(n,)``."""
    number = max(FEWEST, int((scores >= separating_score(scores)).sum()))
    best = values[np.argsort(-scores, kind="stable")[:number]]
    median = np.median(best, axis=0)
    width = MAD_TO_SIGMA * np.median(np.abs(best - median), axis=0)
    return Usual(median, np.maximum(width, NARROWEST))


def _contrast(image: np.ndarray, window: float) -> np.ndarray:
    mean = smooth(image, window)
    return np.sqrt(np.maximum(smooth(image * image, window) - mean * mean, 0))
