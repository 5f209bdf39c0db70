"""Losses against their formulas in float64, batches and pairs, the schedule."""

import numpy as np
import pytest
import torch

from siamese2d_engine.embedding.batches import class_balanced, random_pairs, shuffled
from siamese2d_engine.embedding.losses import TripletLoss, contrastive_loss, nt_xent_loss
from siamese2d_engine.embedding.split import random_split, stratified_split
from siamese2d_engine.embedding.training import learning_rate


def vectors(n, d=5, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, d)))


def test_contrastive_loss_is_the_formula():
    first, second = vectors(40), vectors(40, seed=1)
    different = torch.tensor(np.random.default_rng(2).random(40) < 0.5)
    total = 0.0
    for a, b, y in zip(first.numpy(), second.numpy(), different.numpy()):
        distance = np.linalg.norm(a - b)
        total += max(2.5 - distance, 0) ** 2 if y else distance**2
    assert float(contrastive_loss(first, second, different, 2.5)) == pytest.approx(total / (2 * 40), rel=1e-9)


def test_contrastive_loss_at_hand_picked_distances():
    first = torch.zeros(4, 2)
    second = torch.tensor([[3.0, 4.0], [0.0, 1.5], [3.0, 4.0], [0.0, 0.5]])
    different = torch.tensor([False, True, True, False])
    # 25 + (2 - 1.5)^2 + 0 + 0.25, over 2 N = 8
    assert float(contrastive_loss(first, second, different, 2.0)) == pytest.approx(25.5 / 8)


def test_contrastive_loss_has_a_gradient_at_distance_zero():
    same = torch.zeros(2, 3, requires_grad=True)
    contrastive_loss(same, torch.zeros(2, 3), torch.tensor([True, False]), 2.0).backward()
    assert torch.isfinite(same.grad).all()


def test_nt_xent_is_the_formula():
    first, second = vectors(12), vectors(12, seed=1)
    z = np.concatenate([first.numpy(), second.numpy()])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similarity = np.exp(z @ z.T / 0.3)
    total = 0.0
    for i in range(24):
        partner = (i + 12) % 24
        total -= np.log(similarity[i, partner] / (similarity[i].sum() - similarity[i, i]))
    assert float(nt_xent_loss(first, second, 0.3)) == pytest.approx(total / 24, rel=1e-6)


@pytest.mark.parametrize("mine", [True, False])
def test_triplet_loss_is_the_formula(mine):
    z = vectors(16)
    labels = torch.tensor([0, 1, 2, 3] * 4)
    unit = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    squared = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    losses = np.array([
        max(squared[a, p] - squared[a, n] + 0.5, 0)
        for a in range(16) for p in range(16) for n in range(16)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ])
    assert len(losses) == 16 * 3 * 12 and 0 < (losses > 0).sum() < len(losses)
    expected = losses[losses > 0].mean() if mine else losses.mean()
    assert float(TripletLoss(0.5)(z, labels, mine)) == pytest.approx(expected, rel=1e-6)


def test_triplet_loss_is_zero_at_rest():
    z = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    assert float(TripletLoss(0.5)(z, torch.tensor([0, 0, 1, 1]))) == 0


def test_half_of_the_pairs_are_forced_to_be_of_one_class():
    labels = torch.tensor(np.random.default_rng(0).integers(0, 8, 400))
    first, second, different = random_pairs(labels, 4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(different, labels[first] != labels[second])
    forced = torch.arange(4000) % 2 == 0
    assert not different[forced].any()
    assert different[~forced].float().mean() == pytest.approx(7 / 8, abs=0.03)
    assert (first[forced] != second[forced]).all()
    # Every member of a class is drawn as a partner.
    assert len(second[forced].unique()) > 390


def test_pairs_of_a_class_with_one_member():
    labels = torch.tensor([3, 3, 0])
    first, second, different = random_pairs(labels, 60, torch.Generator().manual_seed(0))
    alone = (first == 2) & (torch.arange(60) % 2 == 0)
    assert alone.any() and (second[alone] == 2).all() and not different[alone].any()


def test_batches_hold_every_position_once():
    positions = torch.arange(100, 203)
    batches = shuffled(positions, 25, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [26, 26, 26, 25]
    torch.testing.assert_close(torch.cat(batches).sort().values, positions)


def test_class_balanced_batches():
    labels = torch.tensor(np.random.default_rng(0).integers(0, 10, 333))
    batches = list(class_balanced(labels, 32, seed=5))
    for batch in batches:
        values, counts = labels[batch].unique(return_counts=True)
        assert len(values) == 8 and (counts == 4).all()
    assert 300 <= sum(map(len, batches)) <= 370
    again = list(class_balanced(labels, 32, seed=5))
    assert all((a == b).all() for a, b in zip(batches, again))
    assert any((a != b).any() for a, b in zip(batches, class_balanced(labels, 32, seed=6)))


def test_splits_are_complete_and_stratified():
    training, held_out = random_split(50, 5, seed=1)
    assert sorted(training.tolist() + held_out.tolist()) == list(range(50)) and len(held_out) == 5
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    training, held_out = stratified_split(labels, 0.2, seed=0)
    assert sorted(training.tolist() + held_out.tolist()) == list(range(62))
    assert np.bincount(labels[held_out], minlength=3).tolist() == [10, 2, 0]


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(step, 100, 1e-3) for step in range(100)]
    assert np.argmax(rates) == 20 and rates[20] == pytest.approx(1e-3)
    assert (np.diff(rates[:21]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert 0 < rates[-1] < 2e-5
