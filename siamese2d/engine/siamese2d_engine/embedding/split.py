"""Which particles train and which are held out."""

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.devices import seeded_generator


def random_split(count: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions ``(training, held out)`` of `count` particles, each in increasing order."""
    order = torch.randperm(count, generator=seeded_generator(seed, count))
    return order[held_out:].sort().values, order[:held_out].sort().values


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions ``(training, held out)``, with `share` of every class held out, rounded, and two members left to
    train."""
    training, held_out = [], []
    for label in np.unique(labels):
        members = torch.as_tensor(np.flatnonzero(labels == label))
        order = members[torch.randperm(len(members), generator=seeded_generator(seed, int(label)))]
        count = min(round(share * len(members)), len(members) - 2)
        held_out.append(order[:count])
        training.append(order[count:])
    return torch.cat(training).sort().values, torch.cat(held_out).sort().values
