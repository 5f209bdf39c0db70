"""Dividing classes that are too large to be looked at as a whole."""

import pytest
import torch

from siamese2d_engine.batches import Room
from siamese2d_engine.classify import split
from siamese2d_engine.classify.averages import Spectra, estimate_spectra, wiener
from siamese2d_engine.classify.passes import PolarImages, Resolution, sum_poses
from siamese2d_engine.classify.polar import PolarGrid
from siamese2d_engine.classify.search import Poses

N, RINGS, ANGLES = 90, 4, 16


@pytest.fixture
def two_kinds():
    """Aligned images of two kinds in one class, in a random order, and which are of the first kind."""
    generator = torch.Generator().manual_seed(3)
    patterns = torch.randn(2, RINGS, ANGLES, dtype=torch.complex64, generator=generator)
    kinds = torch.randint(2, (N,), generator=generator)
    noise = torch.randn(N, RINGS, ANGLES, dtype=torch.complex64, generator=generator)
    samples = patterns[kinds] + 0.2 * noise
    images = PolarImages(PolarGrid(32, 1 / 32, RINGS, ANGLES), samples, torch.ones(N, RINGS),
                         samples.abs().square().mean(-1), torch.full((RINGS,), 10.0), 12.0)
    return images, kinds == 0


def divided(images):
    at = Resolution(RINGS, 1, ANGLES - 1)
    poses = Poses.empty(N, 1).relabelled(torch.zeros(N, dtype=torch.long))
    sums = sum_poses(images, poses, 1, at, Room(2**20), torch.device("cpu"))
    spectra = Spectra(torch.ones(RINGS), torch.ones(RINGS))
    averages, _ = wiener(sums, spectra)
    spectra = estimate_spectra(sums, averages, images.power.sum(0), at.harmonics(images.grid, "cpu"))
    return split.divisions(images, poses, averages, spectra, at, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("most", [1000, 45, 20])
def test_a_part_of_the_members_divides_all(two_kinds, monkeypatch, most):
    images, first = two_kinds
    whole = divided(images)
    monkeypatch.setattr(split, "MOST_MEMBERS", most)
    found = divided(images)
    assert torch.equal(found.upper, first) or torch.equal(found.upper, ~first)
    # What a part gains, counted for all; a smaller part is a little further from its averages.
    assert float(found.gains[0]) == pytest.approx(float(whole.gains[0]), rel=0.2)


@pytest.mark.parametrize("count, most", [(5, 10), (10, 10), (11, 10), (47, 10)])
def test_parts_hold_each_member_once_and_are_spread(monkeypatch, count, most):
    monkeypatch.setattr(split, "MOST_MEMBERS", most)
    order = split._spread(count)
    assert sorted(order.tolist()) == list(range(count))
    assert int(order[:most].max()) >= count - -(-count // most)
