"""How many angular harmonics a comparison with given averages needs: smooth averages have few.

An image's harmonics that the averages lack add nothing to their correlation, so leaving them out saves work at no loss.
"""

import torch
from torch import Tensor

from siamese2d_engine.classify.passes import Resolution


def power_by_order(averages: Tensor, orders: Tensor, weights: Tensor) -> Tensor:
    """Weighted power of all averages together in each order, m = 0 .. count - 1, ``(count,)``.

    Parameters
    ----------
    averages
        ``(count, rings, K)``.
    orders
        Of the harmonics, ``(count,)``.
    weights
        Of the rings.
    """
    power = torch.zeros(len(orders), device=averages.device)
    power[orders] = ((averages.abs() ** 2).sum(2) * weights).sum(1) * torch.where(orders == 0, 1.0, 2.0)
    return power


def sufficient_harmonics(power: Tensor, neglected: float) -> int:
    """The fewest harmonics, m = 0 .. count - 1, outside of which there is no more than `neglected` power."""
    outside = power.sum() - power.cumsum(0)
    # One is too few for even and odd ones.
    return min(len(power), max(2, int((outside > neglected).sum()) + 1))


def truncated(at: Resolution, half_angles: int, count: int) -> Resolution:
    """The same rings with the first `count` harmonics, on as few `half_angles` as leave these unspoilt by the others."""
    stride = max(s for s in (1, 2, 4) if half_angles % s == 0 and 2 * half_angles // s - count >= at.count or s == 1)
    return Resolution(at.rings, stride, count)
