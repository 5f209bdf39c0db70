"""Peaks of a score map: non-maximum suppression by radius and sub-pixel centres."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from siamese2d_engine.picking.labels import disc


def find_peaks(scores: np.ndarray, radius: float, floor: float) -> np.ndarray:
    """Local maxima of `scores` `(h, w)` above `floor`, none closer than `radius` to a better one.

    Returns
    -------
    ndarray, shape `(n, 3)`
        x, y (sub-pixel) and score, best first. Ties are taken in order of row, then column.
    """
    highest = ndimage.maximum_filter(scores, footprint=disc(min(radius, 3.0)), mode="nearest")
    rows, columns = np.nonzero((scores == highest) & (scores > floor))
    order = np.argsort(-scores[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    centres = refine(scores, rows, columns)
    kept = suppress(centres, radius)
    return np.column_stack([centres[kept], scores[rows[kept], columns[kept]]])


def suppress(points: np.ndarray, radius: float) -> np.ndarray:
    """Indices of `points` `(n, 2)`, given best first, that survive when each one removes those closer than `radius`."""
    if len(points) == 0:
        return np.zeros(0, dtype=int)
    alive = np.ones(len(points), dtype=bool)
    neighbours = cKDTree(points).query_ball_point(points, np.nextafter(radius, 0))
    for i, near in enumerate(neighbours):
        if alive[i]:
            alive[[j for j in near if j > i]] = False
    return np.nonzero(alive)[0]


def refine(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sub-pixel (x, y) of maxima at integer `rows`, `columns`: vertices of parabolas through three points each way."""
    padded = np.pad(scores, 1, mode="reflect")
    middle = scores[rows, columns]
    x = columns + _vertex(padded[rows + 1, columns], middle, padded[rows + 1, columns + 2])
    y = rows + _vertex(padded[rows, columns + 1], middle, padded[rows + 2, columns + 1])
    return np.column_stack([x, y])


def _vertex(before: np.ndarray, middle: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Offset, within half a pixel, of the maximum of the parabola through values at -1, 0, 1."""
    curvature = 2.0 * middle - before - after
    return np.clip((after - before) / (2 * np.maximum(curvature, 1e-12)), -0.5, 0.5)
