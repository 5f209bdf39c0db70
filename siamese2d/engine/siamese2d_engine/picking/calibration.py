"""Scores as probabilities, from labels of some of the particles and their expected number."""

import math

import numpy as np

from siamese2d_engine.picking.precision_recall import Ranking


def fit_calibration(ranking: Ranking, expected: float, weight: float = 2.0) -> tuple[float, float]:
    """Slope and offset so that ``sigmoid(slope * logit + offset)`` is the probability that a candidate is a particle.

    Logistic regression of particle against background needs the background's labels only through sums over all
    candidates: with every label standing for ``expected / labels`` particles (as in du Plessis et al. 2014, for the
    logistic loss), minimise ``sum_all softplus(a s + b) - (expected / labels) sum_hits (a s + b)``. It is convex. A
    Gaussian prior of `weight` on the slope, around the network's own slope of 1, keeps few labels from ruling.

    Parameters
    ----------
    ranking : Ranking
        Scores are logits; held-out labels, else slopes come out too steep.
    expected : float
        Particles in the ranking's micrographs.
    weight : float
        Strength of the prior, in labels.
    """
    scores = ranking.scores.astype(float)
    hits = scores[ranking.hits]
    if not len(hits):
        return 1.0, 0.0
    share = min(expected, 0.9 * len(scores)) / ranking.labels
    slope, offset = 1.0, 0.0
    strength = weight * share
    for _ in range(100):
        gradient, hessian = _derivatives(scores, hits, share, slope, offset, strength)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 0.5 / max(abs(step[0]) / slope, abs(step[1]) / 4, 1e-12))
        slope, offset = max(0.05, slope - step[0]), offset - step[1]
        if np.abs(step).max() < 1e-9:
            break
    return float(slope), float(offset)


def _derivatives(scores: np.ndarray, hits: np.ndarray, share: float, slope: float, offset: float,
                 strength: float) -> tuple[np.ndarray, np.ndarray]:
    p = 1 / (1 + np.exp(-np.clip(slope * scores + offset, -50, 50)))
    q = p * (1 - p)
    gradient = np.array([(p * scores).sum() - share * hits.sum() + strength * (slope - 1), p.sum() - share * len(hits)])
    cross = (q * scores).sum()
    hessian = np.array([[(q * scores ** 2).sum() + strength, cross], [cross, q.sum() + 1e-6]])
    return gradient, hessian


def probability(logits: np.ndarray, calibration: tuple[float, float]) -> np.ndarray:
    """``sigmoid(slope * logit + offset)``."""
    slope, offset = calibration
    return 1 / (1 + np.exp(-np.clip(slope * np.asarray(logits, dtype=float) + offset, -50, 50)))


def logit(value: float, calibration: tuple[float, float]) -> float:
    """The network's logit whose probability is `value`, the inverse of `probability`."""
    slope, offset = calibration
    bounded = min(max(value, 1e-12), 1 - 1e-12)
    return (math.log(bounded / (1 - bounded)) - offset) / slope
