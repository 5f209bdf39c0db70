"""How good picked coordinates are against the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from siamese2d_engine.evaluate.matching import match_by_score


@dataclass
class PickScores:
    """Scores of a set of picks; lengths in pixels.

    Parameters
    ----------
    picks, particles
        Numbers of picks and of true particles.
    average_precision
        Area under the precision-recall curve: mean over all true particles of the precision at the pick that found it,
        0 for those that no pick found.
    best_f1, best_precision, best_recall, best_threshold
        At the score where F1 is largest.
    precision, recall, f1
        With all picks; this recall is the largest that can be reached.
    median_error, rms_error
        Distance of matched picks from the true centres; None without matches.
    """

    picks: int
    particles: int
    average_precision: float
    best_f1: float
    best_precision: float
    best_recall: float
    best_threshold: float | None
    precision: float
    recall: float
    f1: float
    median_error: float | None
    rms_error: float | None

    def as_dict(self) -> dict:
        return asdict(self)


def score_picks(
    picks: list[np.ndarray], scores: list[np.ndarray], truths: list[np.ndarray], radius: float
) -> PickScores:
    """Match picks to true particles in each micrograph, then rank all picks together.

    Parameters
    ----------
    picks, scores, truths
        One entry for each micrograph: ``(n, 2)`` and ``(n,)``; ``(m, 2)``.
    radius
        Farthest that a pick may lie from its particle, pixels.
    """
    matches = [match_by_score(p, s, t, radius) for p, s, t in zip(picks, scores, truths)]
    errors = np.concatenate(
        [np.linalg.norm(p[m >= 0] - t[m[m >= 0]], axis=1) for p, t, m in zip(picks, truths, matches)]
    )
    particles = sum(len(truth) for truth in truths)
    ranking = np.concatenate(scores)
    order = np.argsort(-ranking, kind="stable")
    hits = np.concatenate(matches)[order] >= 0
    precision, recall = precision_recall(hits, particles)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    if not len(hits):
        return PickScores(0, particles, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, 0.0, None, None)
    best = int(f1.argmax())
    return PickScores(
        picks=len(hits),
        particles=particles,
        average_precision=float(precision[hits].sum() / particles),
        best_f1=float(f1[best]),
        best_precision=float(precision[best]),
        best_recall=float(recall[best]),
        best_threshold=float(ranking[order][best]),
        precision=float(precision[-1]),
        recall=float(recall[-1]),
        f1=float(f1[-1]),
        median_error=float(np.median(errors)) if len(errors) else None,
        rms_error=float(np.sqrt(np.mean(errors**2))) if len(errors) else None,
    )


def precision_recall(hits: np.ndarray, particles: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall ``(n,)`` of the first 1, 2, ... n picks of a ranking, from whether each is a hit."""
    found = np.cumsum(hits)
    return found / np.arange(1, len(hits) + 1), found / particles
