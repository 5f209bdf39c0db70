"""Which found thing is which true thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from siamese2d_engine.io.images import IMAGE_ENDINGS


def micrograph_key(name: str) -> str:
    """What identifies a micrograph across tables: its file name without folder and image ending."""
    path = Path(str(name))
    return path.stem if path.suffix.lower() in IMAGE_ENDINGS else path.name


def match_by_score(picks: np.ndarray, scores: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """Give each pick, best score first, the nearest true particle that is not taken yet.

    Parameters
    ----------
    picks, scores
        ``(n, 2)`` and ``(n,)``; equal scores keep their order.
    truth
        ``(m, 2)``.
    radius
        Farthest that a pick may lie from its particle, in the units of the coordinates.

    Returns
    -------
    ndarray
        ``(n,)`` row of the matched true particle; -1 for false picks.
    """
    matched = np.full(len(picks), -1)
    if not len(picks) or not len(truth):
        return matched
    near = cKDTree(truth).query_ball_point(picks, radius)
    taken = np.zeros(len(truth), dtype=bool)
    for pick in np.argsort(-scores, kind="stable"):
        free = [row for row in near[pick] if not taken[row]]
        if free:
            distances = np.linalg.norm(truth[free] - picks[pick], axis=1)
            matched[pick] = free[int(distances.argmin())]
            taken[matched[pick]] = True
    return matched


def match_by_distance(found: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """Pair points one to one, closest pair first.

    Parameters
    ----------
    found, truth
        ``(n, 2)`` and ``(m, 2)``.
    radius
        Farthest that the points of a pair may lie apart.

    Returns
    -------
    ndarray
        ``(n,)`` row in `truth`; -1 without a partner.
    """
    matched = np.full(len(found), -1)
    if not len(found) or not len(truth):
        return matched
    near = cKDTree(truth).query_ball_point(found, radius)
    pairs = [(float(np.linalg.norm(found[i] - truth[j])), i, j) for i, rows in enumerate(near) for j in rows]
    taken = np.zeros(len(truth), dtype=bool)
    for _, i, j in sorted(pairs):
        if matched[i] < 0 and not taken[j]:
            matched[i] = j
            taken[j] = True
    return matched
