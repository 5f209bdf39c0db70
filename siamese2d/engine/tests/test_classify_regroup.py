"""Grouping of fine classes against transformations and distances written out."""

import numpy as np
import pytest
import torch

from siamese2d_engine.batches import Room
from siamese2d_engine.classify.averages import Spectra
from siamese2d_engine.classify.passes import PolarImages
from siamese2d_engine.classify.polar import PolarGrid
from siamese2d_engine.classify.prepare import resolution
from siamese2d_engine.classify.regroup import (Alike, grouping_curve, groups_of, joined, joined_scores, leaders_of,
                                               nearest_groups, tree_of)
from siamese2d_engine.classify.search import Poses

BOX = 24
GRID = PolarGrid(box=BOX, step=1 / BOX, rings=7, half_angles=40)
PIXELS = torch.tensor([6.0, 12, 18, 24, 30, 36, 42])
NOISE = torch.tensor([2.0, 2, 1, 1, 1, 0.5, 0.5])


def matrix(psi, flip):
    turn = np.array([[np.cos(psi), -np.sin(psi)], [np.sin(psi), np.cos(psi)]])
    return np.diag([-1 if flip else 1, 1]) @ turn


def moved(points, psi, shift, flip):
    """Where the pose (psi, shift, flip) moves points (p, 2): R (x + shift), then mirrored in x."""
    return (points + shift) @ matrix(psi, flip).T


def draw(points, weights):
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    squared = (x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2
    return (weights[:, None, None] * np.exp(-squared / 6)).sum(0)


def comparison(pictures, mirror=True):
    samples = GRID.sample(torch.as_tensor(np.stack(pictures), dtype=torch.float32))
    images = PolarImages(GRID, samples, torch.ones(len(samples), 7), samples.abs().square().mean(2), PIXELS, support=10.0)
    at = resolution(images, 7)
    harmonics = at.harmonics(GRID, "cpu")
    averages = harmonics.join(*harmonics.analyse(at.of(samples))).permute(0, 2, 1).contiguous()
    return Alike(averages, Spectra(torch.ones(7), NOISE), images, at, mirror, Room(10**6)), samples


@pytest.fixture
def chiral():
    rng = np.random.default_rng(4)
    return rng.uniform(-4, 4, (5, 2)), rng.uniform(0.5, 1.5, 5)


def test_losses_are_weighted_squared_distances(chiral):
    points, weights = chiral
    # At their best pose the two differ by the strength of one blob at the centre alone.
    alike, samples = comparison([draw(points, weights), draw(points, weights) + 0.3 * draw(np.zeros((1, 2)), np.ones(1))])
    losses = alike.losses(torch.tensor([30, 10]))
    squared = ((samples[0] - samples[1]).abs().double() ** 2).mean(1)
    expected = 0.5 * 30 * 10 / 40 * float((PIXELS / NOISE * squared).sum())
    assert losses[0, 1] == losses[1, 0] == pytest.approx(expected, rel=0.03)
    assert losses[0, 0] == losses[1, 1] == 0


@pytest.mark.parametrize("mirror", [True, False])
def test_turned_shifted_and_mirrored_averages_are_alike(chiral, mirror):
    points, weights = chiral
    other = moved(points, 2.1, (0.8, -0.5), mirror)
    pictures = [draw(points, weights), draw(other, weights), draw(-points[:, ::-1] * [1, 0.3], weights)]
    losses = comparison(pictures, mirror)[0].losses(torch.tensor([10, 10, 10]))
    # The steps of rotation and shift leave a part.
    assert losses[0, 1] < 0.15 * losses[0, 2]


def test_mirrored_averages_differ_where_mirrors_are_kept_apart(chiral):
    points, weights = chiral
    alike, _ = comparison([draw(points, weights), draw(moved(points, 0.4, (0, 0), True), weights)], mirror=False)
    folded, _ = comparison([draw(points, weights), draw(moved(points, 0.4, (0, 0), True), weights)], mirror=True)
    sizes = torch.tensor([10, 10])
    assert folded.losses(sizes)[0, 1] < 0.2 * alike.losses(sizes)[0, 1]


def test_frames_move_averages_onto_their_leader(chiral):
    points, weights = chiral
    alike, _ = comparison([draw(points, weights), draw(moved(points, 2.1, (0.8, -0.5), True), weights)])
    frames = alike.frames(torch.tensor([0, 0]), alike.averages[:, :, :1])
    back = moved(moved(points, 2.1, (0.8, -0.5), True), float(frames.psi[1]), frames.shifts[1, 0].numpy(),
                 bool(frames.flips[1]))
    np.testing.assert_allclose(back, points, atol=0.25)
    assert abs(float(frames.psi[0])) < 0.02 and frames.shifts[0].abs().max() < 0.05 and not frames.flips[0]


def test_settling_mends_groups_that_joined_too_early(chiral):
    points, weights = chiral
    strange = draw(-points[:, ::-1] * [1, 0.3], weights)
    pictures = [draw(points, weights), strange, strange, draw(moved(points, 2.1, (0.8, -0.5), True), weights)]
    alike, _ = comparison(pictures)
    groups, frames = alike.settled(torch.tensor([0, 1, 0, 0]), torch.tensor([9, 9, 4, 5]))
    assert groups.tolist() == [0, 1, 1, 0] and frames.classes[:, 0].tolist() == [0, 1, 1, 0]


def test_a_class_goes_where_joining_costs_least():
    # Places and sizes on a line in two groups; by hand: what a class adds to the sum of squares of a group without it.
    places, sizes = np.array([0.0, 1.0, 6.2, 10.0, 12.0]), np.array([4.0, 3.0, 2.0, 3.0, 4.0])
    groups = torch.tensor([0, 0, 0, 1, 1])
    means = np.array([np.average(places[groups == g], weights=sizes[groups == g]) for g in (0, 1)])
    expected = []
    for index, (place, size) in enumerate(zip(places, sizes)):
        added = []
        for group in (0, 1):
            others = (groups.numpy() == group) & (np.arange(5) != index)
            mean, total = np.average(places[others], weights=sizes[others]), sizes[others].sum()
            added.append((place - mean) ** 2 * total * size / (total + size))
        expected.append(int(np.argmin(added)))
    found = nearest_groups(torch.as_tensor((places[:, None] - means) ** 2), groups, torch.as_tensor(sizes))
    assert found.tolist() == expected == [0, 0, 1, 1, 1]


def test_no_group_is_left_empty():
    distances = torch.tensor([[9.0, 1.0], [9.0, 1.0], [1.0, 1.0]])
    found = nearest_groups(distances, torch.tensor([0, 0, 1]), torch.tensor([3, 5, 4]))
    assert found.tolist() == [1, 0, 1]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_joined_poses_are_one_pose_after_the_other(first, second):
    points = np.random.default_rng(5).uniform(-8, 8, (6, 2))
    pose = Poses(torch.tensor([[1]]), torch.tensor([[first]]), torch.tensor([[0.7]]), torch.tensor([[[1.5, -0.4]]]),
                 torch.ones(1, 1), torch.zeros(1))
    frames = Poses(torch.tensor([[0], [0]]), torch.tensor([[False], [second]]), torch.tensor([[0.0], [-1.9]]),
                   torch.tensor([[[0.0, 0.0]], [[-0.6, 2.2]]]), torch.ones(2, 1), torch.zeros(2))
    found = joined(pose, torch.tensor([3, 3]), frames)
    expected = moved(moved(points, 0.7, (1.5, -0.4), first), -1.9, (-0.6, 2.2), second)
    at_once = moved(points, float(found.psi), found.shifts[0, 0].numpy(), bool(found.flips))
    np.testing.assert_allclose(at_once, expected, atol=1e-5)
    assert found.classes.tolist() == [[3]]


def test_groups_join_what_loses_least():
    # Points on a line; with a weight of one each, joining two loses a quarter of the squared distance.
    places = np.array([0.0, 1.0, 10.0, 11.5, 30.0])
    losses = (places[:, None] - places) ** 2 / 4
    tree = tree_of(losses)
    groups = groups_of(tree, 3).tolist()
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 3
    assert sorted(set(groups)) == [0, 1, 2]
    two = groups_of(tree, 2)
    assert len(set(two.tolist())) == 2 and two[4] not in two[:4]


def test_grouping_curve_is_what_each_number_of_groups_loses():
    places = np.array([0.0, 1.0, 10.0, 11.5])
    losses = (places[:, None] - places) ** 2 / 4
    rows = grouping_curve(tree_of(losses), losses, images=8)
    # Half the sum of the squared distances to the groups' means, for each image.
    inner = {4: 0.0, 3: 0.5, 2: 0.5 + 1.125, 1: ((places - places.mean()) ** 2).sum()}
    assert [row["k"] for row in rows] == [1, 2, 3, 4]
    np.testing.assert_allclose([row["loss"] for row in rows], [inner[k] / 2 / 8 for k in (1, 2, 3, 4)])
    # By hand for two groups: (b - a) / b of each, with a the mean distance inside and b that to the other group.
    own, other = np.array([1, 1, 1.5, 1.5]), np.array([10.75, 9.75, 9.5, 11.0])
    assert rows[1]["silhouette"] == pytest.approx(((other - own) / other).mean())
    assert rows[0]["silhouette"] is None and rows[3]["silhouette"] is None


def test_grouping_curve_leaves_out_some_of_many_numbers():
    places = np.arange(100.0)
    losses = (places[:, None] - places) ** 2 / 4
    numbers = [row["k"] for row in grouping_curve(tree_of(losses), losses, images=100)]
    assert numbers[:20] == list(range(1, 21)) and numbers[-1] == 100
    assert all(1 <= after - before <= 5 for before, after in zip(numbers, numbers[1:]))
    assert len(numbers) < 60


def test_a_group_is_led_by_its_largest_class():
    assert leaders_of(torch.tensor([0, 1, 0, 1]), torch.tensor([3, 9, 5, 2])).tolist() == [2, 1]


def test_joined_scores_add_likelihoods():
    scores = torch.tensor([[0.0, 1.0, -torch.inf], [-torch.inf, 2.0, 3.0]])
    found = joined_scores(scores, torch.tensor([0, 0, 1])).double().numpy()
    np.testing.assert_allclose(found, [[np.log(1 + np.e), -np.inf], [2.0, 3.0]], rtol=1e-6)
