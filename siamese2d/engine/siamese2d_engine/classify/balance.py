"""Class sizes kept from drifting: an offset for each class, so that good averages do not attract everything."""

import torch
from torch import Tensor

ITERATIONS = 30


def balanced_offsets(scores: Tensor, offsets: Tensor) -> Tensor:
    """Offsets with which the classes' soft sizes become equal.

    Sinkhorn's iteration (Cuturi 2013, Advances in Neural Information Processing Systems 26) with half steps: each
    class's offset is lowered by half the logarithm of its size over the mean size.

    Parameters
    ----------
    scores
        Log-likelihood of each image in each class, ``(n, K)``; minus infinity where not compared.
    offsets
        To start from, ``(K,)``.

    Returns
    -------
    Tensor
        ``(K,)`` with mean 0.
    """
    n, classes = scores.shape
    for _ in range(ITERATIONS):
        sizes = torch.softmax(scores + offsets, dim=1).sum(0)
        offsets = offsets - 0.5 * torch.log((sizes + 0.5) / (n / classes))
    return offsets - offsets.mean()
