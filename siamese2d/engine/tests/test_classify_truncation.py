"""Harmonics left out of comparisons."""

import pytest
import torch

from siamese2d_engine.classify.passes import Resolution
from siamese2d_engine.classify.truncation import power_by_order, sufficient_harmonics, truncated


def test_power_by_order():
    """Powers 1, 8, 2 at m = 0, 1, 2: all orders but 0 count for m and -m."""
    orders = torch.tensor([0, 2, 4, 1, 3])
    averages = torch.zeros(5, 1, 1, dtype=torch.complex64)
    averages[0], averages[1], averages[3] = 1, 1j, 2
    assert power_by_order(averages, orders, torch.ones(1)).tolist() == [1, 8, 2, 0, 0]
    rings = torch.ones(5, 3, 2, dtype=torch.complex64)
    assert power_by_order(rings, orders, torch.tensor([1.0, 2.0, 0.5])).tolist() == [7, 14, 14, 14, 14]


@pytest.mark.parametrize("neglected, count", [(11.0, 2), (2.1, 2), (1.9, 3), (0.0, 3)])
def test_harmonics_that_suffice(neglected, count):
    assert sufficient_harmonics(torch.tensor([1.0, 8, 2, 0, 0]), neglected) == count


@pytest.mark.parametrize("half_angles, present, wanted", [(56, 33, 13), (56, 33, 24), (24, 20, 20), (56, 12, 2)])
def test_coarser_angles_do_not_mix_harmonics(half_angles, present, wanted):
    """On a full circle of M samples, order m is taken for m - M."""
    found = truncated(Resolution(10, 1, present), half_angles, wanted)
    assert (found.rings, found.count) == (10, wanted)
    samples = 2 * half_angles // found.stride
    assert found.stride == 1 or all(abs(m - samples) >= wanted for m in range(present))
