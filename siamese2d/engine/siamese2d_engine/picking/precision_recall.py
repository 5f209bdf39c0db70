"""Precision and recall when only some of the particles are labelled.

Labels are taken for a random sample of the particles. Then the share of labels found above a threshold estimates
recall, ``R``. With an expected number of particles ``M`` in the same micrographs, ``R M`` of the ``n`` candidates above
the threshold are particles, and ``R M / n`` estimates precision (bounded by 1).
"""

from dataclasses import dataclass

import numpy as np

from siamese2d_engine.evaluate.matching import match_by_score


@dataclass(frozen=True)
class Ranking:
    """Candidates of some micrographs, best first.

    Attributes
    ----------
    scores : ndarray, shape `(n,)`
    hits : ndarray of bool, shape `(n,)`
        Whether the candidate lies on a label (one to one).
    labels : int
        Number of labels, found or not.
    """

    scores: np.ndarray
    hits: np.ndarray
    labels: int


def rank(candidates: list[np.ndarray], labels: list[np.ndarray], radius: float) -> Ranking:
    """Pool candidates `(n, 3)` (x, y, score) of several micrographs, matched to labels `(m, 2)` within `radius`."""
    hits = [match_by_score(c[:, :2], c[:, 2], l, radius) >= 0 for c, l in zip(candidates, labels)]
    scores = np.concatenate([c[:, 2] for c in candidates])
    order = np.argsort(-scores, kind="stable")
    return Ranking(scores[order], np.concatenate(hits)[order], sum(len(l) for l in labels))


def estimated_curve(ranking: Ranking, expected: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimated precision and recall at the score of each candidate, where `expected` particles are there in all."""
    recall = np.cumsum(ranking.hits) / max(1, ranking.labels)
    precision = np.minimum(1.0, recall * expected / np.arange(1, len(recall) + 1))
    return _monotone(precision), recall


def _monotone(precision: np.ndarray) -> np.ndarray:
    """Where the estimate falls and recovers it is noise of few labels: take the best that reaches as far a recall."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def average_precision(found_at: list[int], labels: int, expected: float) -> float:
    """Estimated precision averaged over the labels; 0 for those that no candidate found.

    Parameters
    ----------
    found_at : list of int
        Ranks, from 1, of the candidates that lie on labels, in rising order.
    labels : int
        Number of labels, found or not.
    expected : float
        Particles in the same micrographs, labelled or not.
    """
    if not found_at:
        return 0.0
    recall = np.arange(1, len(found_at) + 1) / labels
    return float(_monotone(np.minimum(1.0, recall * expected / np.array(found_at))).sum() / labels)


def best_threshold(ranking: Ranking, expected: float) -> float:
    """Score at which the estimated F1 is largest; without labels to go by, where `expected` candidates are above."""
    if not len(ranking.scores):
        return 0.0
    if not ranking.hits.any():
        return float(ranking.scores[min(len(ranking.scores), max(1, round(expected))) - 1])
    precision, recall = estimated_curve(ranking, expected)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(ranking.scores[int(f1.argmax())])


def curve_points(ranking: Ranking, expected: float, number: int = 50) -> list[dict]:
    """The curve at `number` scores or fewer, for a plot: threshold, precision, recall."""
    if not len(ranking.scores):
        return []
    precision, recall = estimated_curve(ranking, expected)
    rows = np.unique(np.linspace(0, len(recall) - 1, number).astype(int))
    return [{"threshold": float(ranking.scores[i]), "precision": float(precision[i]), "recall": float(recall[i])}
            for i in rows]
