"""The gap between the scores of particles and background, and what is counted above it."""

import numpy as np
import pytest
import torch

from siamese2d_engine.picking.calibration import probability
from siamese2d_engine.picking.gap import Gap, find_gap, gap_at
from siamese2d_engine.picking.judge import Judge
from siamese2d_engine.picking.network import Architecture, PickerNetwork
from siamese2d_engine.picking.precision_recall import Ranking
from siamese2d_engine.picking.sampling import LabelledMicrograph

NONE = np.zeros((0, 2))


def _ranking(particles=400, background=4000, middle=-30.0, width=5.0, labels=20, seed=0):
    """Logits as a network gives them: particles crowd below a ceiling at 0, background lies far down."""
    rng = np.random.default_rng(seed)
    good = -rng.gamma(2.0, 0.5, particles)
    scores = np.concatenate([good, rng.normal(middle, width, background)])
    hits = np.zeros(len(scores), dtype=bool)
    hits[:labels] = True
    order = np.argsort(-scores)
    return Ranking(scores[order], hits[order], labels)


@pytest.mark.parametrize("labels", [3, 100])
@pytest.mark.parametrize("particles", [100, 1000])
def test_particles_above_the_gap_are_counted(labels, particles):
    ranking = _ranking(particles, labels=labels)
    gap = find_gap(ranking).score
    assert -15 < gap < -3
    assert (ranking.scores >= gap).sum() == pytest.approx(particles, rel=0.05)


def test_the_gap_moves_with_the_scores():
    ranking = _ranking()
    moved = Ranking(3 * ranking.scores + 7, ranking.hits, ranking.labels)
    assert find_gap(moved).score == pytest.approx(3 * find_gap(ranking).score + 7)


def test_the_gap_lies_where_candidates_are_rarest():
    scores = -np.concatenate([np.linspace(0.5, 1.5, 300), [4.0, 5.0], np.linspace(14, 25, 3000)])
    assert -14 < find_gap(Ranking(scores, np.arange(len(scores)) < 300, 300)).score < -1.5


def test_no_gap_where_particles_do_not_stand_apart():
    assert find_gap(_ranking(particles=200, background=4000, middle=-3.0, width=1.5)) is None


def test_no_gap_in_background_alone_without_labels_or_with_few_candidates():
    assert find_gap(_ranking(particles=0, labels=0)) is None
    scores = -np.arange(30.0)
    assert find_gap(Ranking(scores, scores > -3, 3)) is None
    assert find_gap(Ranking(np.zeros(100), np.arange(100) < 5, 5)) is None


def _judge(ranking, monkeypatch):
    """A judge whose candidates are `ranking`, in one micrograph of 100 x 200."""
    monkeypatch.setattr("siamese2d_engine.picking.judge.Judge._ranking", lambda *args, **kwargs: ranking)
    micrograph = LabelledMicrograph(np.zeros((100, 200), np.float32), NONE, np.zeros((ranking.labels, 2)))
    network = PickerNetwork(Architecture((4,), (3,), (1,), (1,)))
    network.initialise(torch.Generator().manual_seed(0))
    return Judge([micrograph], False, 0.5, [micrograph]), network


def test_survey_counts_above_the_gap_even_with_three_labels(monkeypatch):
    judge, network = _judge(_ranking(labels=3), monkeypatch)
    survey = judge.survey(network)
    assert survey.gap is not None and survey.density == pytest.approx(400 / 20_000, rel=0.05)


def test_survey_without_gap_goes_by_labels_or_by_the_guess(monkeypatch):
    overlapping = {"particles": 200, "background": 4000, "middle": -3.0, "width": 1.5}
    judge, network = _judge(_ranking(**overlapping, labels=100), monkeypatch)
    survey = judge.survey(network)
    assert survey.gap is None and survey.density * 20_000 > 200
    judge, network = _judge(_ranking(**overlapping, labels=4), monkeypatch)
    assert judge.survey(network).density == 0.5


def test_probability_is_one_half_in_the_gap_and_sure_at_the_labels():
    ranking = _ranking()
    gap = find_gap(ranking)
    middle = np.median(ranking.scores[ranking.hits])
    assert gap.particles == middle
    found = probability(np.array([gap.score, middle]), gap.calibration())
    assert found.tolist() == pytest.approx([0.5, 0.98201], abs=1e-5)
    assert Gap(-1.0, -0.5).calibration() == (2.0, 2.0)


def test_boundary_by_the_number_of_particles():
    ranking = Ranking(np.arange(10.0)[::-1], np.array([1, 0, 1, 0, 1, 0, 0, 0, 0, 0], dtype=bool), 3)
    assert gap_at(ranking, 4.2) == Gap(6.0, 7.0)
    above = probability(ranking.scores, gap_at(ranking, 4.2).calibration()) >= 0.5
    assert above.sum() == 4
    assert gap_at(ranking, 99) == Gap(0.0, 7.0)
    assert gap_at(Ranking(np.zeros(0), np.zeros(0, bool), 2), 3) == Gap(0.0, 0.0)
    assert np.isfinite(gap_at(ranking, 1).calibration()).all()
