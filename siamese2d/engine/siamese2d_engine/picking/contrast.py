"""Whether labelled particles are darker or brighter than what surrounds them."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from siamese2d_engine.picking.inputs import WORKING_DIAMETER

# Radii over the diameter: a particle, and what surrounds it.
INSIDE = 0.4
AROUND = (0.7, 1.1)
# Standard errors from which particles are taken for bright; a micrograph as recorded has dark ones.
CERTAIN = 3.0


def are_bright(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> bool:
    """Whether particles at `labels` of prepared micrographs are surely brighter than their surroundings.

    Parameters
    ----------
    images : sequence of ndarray, shape `(h, w)`
    labels : sequence of ndarray, shape `(n, 2)`
        x, y in pixels.
    """
    values = np.array([_contrast(image, x, y) for image, xy in zip(images, labels) for x, y in xy])
    return bool(values.mean() > CERTAIN * values.std() / np.sqrt(len(values)) and len(values) > 1)


def _contrast(image: np.ndarray, x: float, y: float) -> float:
    kernel = _kernel()
    reach = len(kernel) // 2
    rows, columns = (np.clip(np.arange(-reach, reach + 1) + int(np.floor(at + 0.5)), 0, size - 1)
                     for at, size in ((y, image.shape[0]), (x, image.shape[1])))
    return float((kernel * image[np.ix_(rows, columns)]).sum())


@cache
def _kernel() -> np.ndarray:
    """Mean of a disc less the mean of a ring around it."""
    reach = int(AROUND[1] * WORKING_DIAMETER)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    radius = np.hypot(x, y) / WORKING_DIAMETER
    disc, ring = radius <= INSIDE, (radius >= AROUND[0]) & (radius <= AROUND[1])
    return (disc / disc.sum() - ring / ring.sum()).astype(np.float32)

