"""Precision from few labels, calibration, the estimated number of particles, the best epoch."""

import math

import numpy as np
import pytest

from siamese2d_engine.picking.calibration import fit_calibration, logit, probability
from siamese2d_engine.picking.precision_recall import (
    Ranking,
    average_precision,
    best_threshold,
    curve_points,
    estimated_curve,
    rank,
)
from siamese2d_engine.picking.prior import estimate_particles, starting_guess


def _sample(particles=400, background=2000, labelled=0.25, shift=3.0, seed=0):
    """Scores that are logits of the true posterior: two Gaussians of unit width, `shift` apart."""
    rng = np.random.default_rng(seed)
    raw = np.concatenate([rng.normal(shift, 1, particles), rng.normal(0, 1, background)])
    scores = shift * raw - shift ** 2 / 2 + math.log(particles / background)
    true = np.arange(len(raw)) < particles
    hits = true & (rng.random(len(raw)) < labelled)
    order = np.argsort(-scores)
    return Ranking(scores[order], hits[order], int(hits.sum())), true[order]


def test_estimated_curve_written_out():
    ranking = Ranking(np.array([5.0, 4, 3, 2, 1]), np.array([1, 0, 1, 0, 0], dtype=bool), labels=4)
    precision, recall = estimated_curve(ranking, expected=8)
    assert recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5]
    # recall * 8 / n = 2, 1, 1.33, 1, 0.8, bounded by 1
    assert precision.tolist() == pytest.approx([1, 1, 1, 1, 0.8])


def test_estimated_precision_is_near_the_truth():
    ranking, true = _sample()
    precision, recall = estimated_curve(ranking, 400)
    real = np.cumsum(true) / np.arange(1, len(true) + 1)
    assert np.abs(precision - real)[recall > 0.3].max() < 0.1


def test_average_precision_of_ranks():
    # Two of four labels found at ranks 1 and 8 of candidates with 4 particles: (1 + min(1, 2/4 * 4/8)) / 4.
    assert average_precision([1, 8], labels=4, expected=4) == pytest.approx((1 + 0.25) / 4)
    assert average_precision([], labels=4, expected=4) == 0


def test_best_threshold_has_the_best_f1():
    ranking, true = _sample(seed=2)
    found = ranking.scores >= best_threshold(ranking, 400)
    def f1(chosen):
        return 2 * (chosen & true).sum() / (chosen.sum() + true.sum())
    best = max(f1(ranking.scores >= t) for t in ranking.scores)
    assert f1(found) > best - 0.03


def test_threshold_without_found_labels_lets_the_expected_number_pass():
    ranking = Ranking(np.array([5.0, 4, 3, 2]), np.zeros(4, dtype=bool), labels=3)
    assert best_threshold(ranking, 2.0) == 4.0


def test_curve_points_fall_in_threshold_and_rise_in_recall():
    points = curve_points(_sample()[0], 400)
    assert len(points) <= 50
    assert all(a["threshold"] >= b["threshold"] and a["recall"] <= b["recall"] for a, b in zip(points, points[1:]))


def test_rank_pools_micrographs_one_to_one():
    a = np.array([[10.0, 10, 3], [12, 10, 2], [50, 50, 1]])
    b = np.array([[30.0, 30, 2.5]])
    ranking = rank([a, b], [np.array([[11.0, 10]]), np.array([[31.0, 30], [80, 80]])], radius=5)
    assert ranking.scores.tolist() == [3, 2.5, 2, 1]
    assert ranking.hits.tolist() == [True, True, False, False] and ranking.labels == 3


@pytest.mark.parametrize("slope, offset", [(1.0, 0.0), (2.5, -1.0), (0.4, 2.0)])
def test_calibration_recovers_probabilities(slope, offset):
    ranking, _ = _sample(particles=2000, background=10_000, labelled=0.5)
    distorted = Ranking((ranking.scores - offset) / slope, ranking.hits, ranking.labels)
    fitted = fit_calibration(distorted, 2000)
    assert fitted[0] == pytest.approx(slope, rel=0.15)
    assert fitted[1] == pytest.approx(offset, abs=0.4)


def test_calibrated_probabilities_match_the_share_of_particles():
    ranking, true = _sample(particles=6000, background=30_000, labelled=0.2, seed=5)
    p = probability(ranking.scores, fit_calibration(ranking, 6000))
    for low, high in [(0.1, 0.5), (0.5, 0.9), (0.9, 1.0)]:
        inside = (p >= low) & (p < high)
        assert true[inside].mean() == pytest.approx(p[inside].mean(), abs=0.08)


def test_calibration_with_separated_labels_stays_finite():
    scores = np.concatenate([np.full(5, 8.0), np.linspace(-8, -4, 100)])
    slope, offset = fit_calibration(Ranking(scores, scores > 0, 5), 6)
    assert 0.05 <= slope < 20 and math.isfinite(offset)


def test_logit_inverts_probability():
    calibration = (0.7, -1.3)
    assert probability(np.array([logit(0.37, calibration)]), calibration)[0] == pytest.approx(0.37)


@pytest.mark.parametrize("shift, tolerance", [(4.0, 0.1), (3.0, 0.2)])
def test_number_of_particles_is_estimated(shift, tolerance):
    estimates = [estimate_particles(_sample(shift=shift, labelled=0.15, seed=seed)[0]) for seed in range(10)]
    assert np.median(estimates) == pytest.approx(400, rel=tolerance)


@pytest.mark.parametrize("found, labels", [(0, 30), (0, 10), (4, 4)])
def test_number_of_particles_is_unknown_from_few_labels(found, labels):
    assert estimate_particles(Ranking(np.arange(50.0)[::-1], np.arange(50) < found, labels)) is None


def test_number_of_particles_from_few_labels_is_a_median():
    hits = np.isin(np.arange(100), [0, 19, 29, 49, 59, 99])
    ratios = [20 / (2 / 5), 30 / (3 / 5), 50 / (4 / 5)]
    assert estimate_particles(Ranking(np.arange(100.0)[::-1], hits & (np.arange(100) != 99), 5)) == \
        pytest.approx(np.median(ratios))


def test_starting_guess_looks_at_labelled_micrographs_only():
    assert starting_guess([0, 100, 0, 200, 120], [10_000] * 5) == pytest.approx(360 / 10_000)
    assert starting_guess([1, 0], [640_000, 640_000]) == pytest.approx(100 / 640_000)
