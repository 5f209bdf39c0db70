"""Which particles and which pairs make a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions
from torch import Tensor

MEMBERS_PER_CLASS = 4


def shuffled(positions: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Batches of nearly equal size, each position once; at least two in each, which batch statistics need."""
    order = positions[torch.randperm(len(positions), generator=generator)]
    return list(order.tensor_split(max(1, round(len(order) / batch_size))))


def random_pairs(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of positions in `labels`: half drawn from one class, half at random.

    The first of a pair is drawn from all particles. A class of one member has no other: it is paired with itself.

    Returns
    -------
    tuple of Tensor
        ``first (count,)``, ``second (count,)``, ``different (count,)`` bool.
    """
    first = torch.randint(len(labels), (count,), generator=generator)
    same = _others_of_class(labels, first, generator)
    anyone = torch.randint(len(labels), (count,), generator=generator)
    second = torch.where(torch.arange(count) % 2 == 0, same, anyone)
    return first, second, labels[first] != labels[second]


def random_triplets(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Positions ``(count,)`` of anchors (any particle), positives (others of its class) and negatives (of any other
    class); there must be two classes. A class of one member is its own positive."""
    anchor = torch.randint(len(labels), (count,), generator=generator)
    positive = _others_of_class(labels, anchor, generator)
    order = labels.argsort(stable=True)
    starts = torch.searchsorted(labels[order], labels[anchor])
    sizes = torch.bincount(labels)[labels[anchor]]
    # A rank among those of other classes, moved past the anchor's class.
    draw = (torch.rand(count, generator=generator, dtype=torch.float64) * (len(labels) - sizes)).long()
    return anchor, positive, order[torch.where(draw < starts, draw, draw + sizes)]


def _others_of_class(labels: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """For each chosen position a random other one of its class; itself in a class of one."""
    order = labels.argsort(stable=True)
    starts = torch.searchsorted(labels[order], labels[chosen])
    sizes = torch.bincount(labels)[labels[chosen]]
    # A rank below size - 1, moved past the chosen one's own rank.
    rank_of = torch.empty_like(order)
    rank_of[order] = torch.arange(len(order))
    own = rank_of[chosen] - starts
    draw = (torch.rand(len(chosen), generator=generator, dtype=torch.float64) * (sizes - 1)).long()
    return order[starts + torch.where(sizes > 1, draw + (draw >= own), own)]


def class_balanced(labels: Tensor, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Batches of positions with `MEMBERS_PER_CLASS` of each of several classes, about one pass over the particles."""
    per_batch = min(batch_size // MEMBERS_PER_CLASS, len(labels.unique())) * MEMBERS_PER_CLASS
    steps = max(1, round(len(labels) / per_batch))
    with _numpy_seed(seed):
        sampler = MPerClassSampler(labels, MEMBERS_PER_CLASS, batch_size=per_batch,
                                   length_before_new_iter=steps * per_batch)
        order = torch.tensor(list(sampler))
    yield from order.split(per_batch)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Give the samplers of pytorch-metric-learning their own seeded generator, its documented way."""
    before = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed % 2**32)
    try:
        yield
    finally:
        common_functions.NUMPY_RANDOM = before
