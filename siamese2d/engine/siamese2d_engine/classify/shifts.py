"""How far out images lie, and where averages do.

Shifts of images and of their average can't be told apart: averages drift, each with its members. Particles are boxed
around their centres, so an average belongs where the mean shift of its members is zero. What is left are the shifts of
the particles in their boxes, and no others need be searched.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from siamese2d_engine.classify.cells import ShiftGrid, shift_grid
from siamese2d_engine.classify.search import Poses, shift_after_rotation, shift_before_rotation

# Shifts are searched up to this many times their standard deviation along an axis: beyond, there are 1.1 % of them
# where they are normally distributed, and none where they are equally likely within a square.
FARTHEST = 3.0


def spread_of_shifts(poses: Poses) -> float:
    """Standard deviation of shifts along an axis, pixels."""
    weights = poses.weights.double()
    square = (poses.shifts.double().square().sum(2) * weights).sum() / weights.sum() / 2
    return math.sqrt(float(square))


def likely_shifts(poses: Poses, largest: float, step: float) -> ShiftGrid:
    """Shifts that images may have, by those of their present `poses`, on a grid of `step` pixels.

    None is farther out than `largest` pixels.
    """
    spread = max(spread_of_shifts(poses), step / 2)
    return shift_grid(min(largest, FARTHEST * spread), step, spread)


def centred(poses: Poses, classes: int) -> Poses:
    """Poses that move the averages of all `classes` to where the mean shift of their members is zero."""
    moved = shift_after_rotation(poses.shifts, poses.psi, poses.flips)
    weights, labels = poses.weights.flatten(), poses.classes.flatten()
    sums = torch.zeros(classes, 2).index_add_(0, labels, moved.flatten(0, 1) * weights[:, None])
    total = torch.zeros(classes).index_add_(0, labels, weights)
    means = sums / total.clamp_min(torch.finfo(total.dtype).tiny)[:, None]
    return replace(poses, shifts=poses.shifts - shift_before_rotation(means[poses.classes], poses.psi, poses.flips))
