"""How far out images lie, and averages put in the middle of their members."""

import cmath

import numpy as np
import pytest
import torch

from siamese2d_engine.classify.search import Poses, shift_after_rotation, shift_before_rotation
from siamese2d_engine.classify.shifts import centred, likely_shifts, spread_of_shifts


def random_poses(n, best, classes, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(best), n)
    return Poses(torch.as_tensor(rng.integers(classes, size=(n, best))), torch.as_tensor(rng.random((n, best)) < 0.5),
                 torch.as_tensor(rng.uniform(-np.pi, np.pi, (n, best))).float(),
                 torch.as_tensor(rng.normal(scale=2, size=(n, best, 2))).float(), torch.as_tensor(weights).float(),
                 torch.zeros(n))


def in_the_averages_frame(poses):
    """Shifts as complex numbers, one by one: turned by psi, then mirrored in x."""
    def moved(shift, psi, flip):
        turned = complex(*shift) * cmath.exp(1j * psi)
        return -turned.conjugate() if flip else turned

    rows = zip(poses.shifts.tolist(), poses.psi.tolist(), poses.flips.tolist())
    return np.array([[moved(*one) for one in zip(*row)] for row in rows])


def test_spread_of_shifts_is_that_along_one_axis():
    rng = np.random.default_rng(0)
    poses = Poses.empty(20000, 2)
    poses.shifts[:, 0] = torch.as_tensor(rng.normal(scale=1.7, size=(20000, 2)))
    poses.shifts[:, 1] = 100.0                                  # without weight
    poses.weights[:, 0] = 1.0
    assert spread_of_shifts(poses) == pytest.approx(1.7, rel=0.02)


def test_no_farther_is_searched_than_images_lie():
    poses = random_poses(4000, 1, 1)
    found = likely_shifts(poses, 20.0, 0.5)
    assert found.points.norm(dim=1).max() == pytest.approx(6.0, abs=0.5)
    density = np.exp(-(found.points.double().numpy() ** 2).sum(1) / (2 * spread_of_shifts(poses) ** 2))
    np.testing.assert_allclose(found.log_prior.exp().numpy(), density / density.mean(), rtol=1e-5)
    assert likely_shifts(poses, 4.0, 0.5).points.norm(dim=1).max() <= 4.0
    # Images that all lie in the middle may still move to the neighbouring points.
    poses.shifts[:] = 0
    assert len(likely_shifts(poses, 20.0, 0.5).points) == 9


def test_turning_a_shift_forth_and_back_changes_nothing():
    poses = random_poses(50, 3, 4)
    after = shift_after_rotation(poses.shifts, poses.psi, poses.flips)
    torch.testing.assert_close(shift_before_rotation(after, poses.psi, poses.flips), poses.shifts)
    np.testing.assert_allclose(torch.view_as_complex(after).numpy(), in_the_averages_frame(poses), atol=1e-5)


def test_members_of_a_centred_average_have_no_mean_shift_and_keep_their_distances():
    poses = random_poses(60, 2, 4)                              # the last of five classes is empty
    before, after = in_the_averages_frame(poses), in_the_averages_frame(centred(poses, 5))
    for number in range(4):
        mine, weights = (poses.classes == number).numpy(), poses.weights.numpy()
        mean = (before * weights)[mine].sum() / weights[mine].sum()
        assert abs(mean) > 0.1
        np.testing.assert_allclose(after[mine], before[mine] - mean, atol=1e-5)
