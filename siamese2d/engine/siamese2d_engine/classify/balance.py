"""Class sizes kept from drifting: an offset for each class, so that good averages do not attract everything."""

import torch
from torch import Tensor

ITERATIONS = 100
# Classes count as at least this part of the mean size. An empty one, favoured as its size of zero would ask for, takes a
# few images at first and then, with their average but still with that favour, all of them.
SMALLEST = 0.1
# Of the offsets, as a fraction of the strength.
TOLERANCE = 1e-5


def balanced_offsets(scores: Tensor, offsets: Tensor, strength: float) -> Tensor:
    """Offsets that make large classes less likely and small ones more.

    The offset of a class with the soft size s is ``-strength log(s / mean size)``, s being at least `SMALLEST` of the
    mean. It stays finite, unlike Sinkhorn's iteration to equal sizes: a class of a few odd images that others can't be
    drawn to must not be favoured more and more until it takes everything. It is found by Newton's method with the
    Jacobian's diagonal alone; as others gain what a class loses, the diagonal is larger than the rest of its row.

    Parameters
    ----------
    scores
        Log-likelihood of each image in each class, ``(n, K)``; minus infinity where not compared.
    offsets
        To start from, ``(K,)``.
    strength
        In the units of the scores.

    Returns
    -------
    Tensor
        ``(K,)`` with mean 0.
    """
    n, classes = scores.shape
    least = SMALLEST * n / classes
    # Where images are compared with a few of many classes, the others need not be looked at.
    compared, columns = scores.topk(int(scores.isfinite().sum(1).max()), dim=1)
    for _ in range(ITERATIONS):
        posterior = torch.softmax(compared + offsets[columns], dim=1)
        found = _summed(posterior, columns, classes)
        sizes = found.clamp_min(least)
        excess = offsets + strength * torch.log(sizes / (n / classes))
        if float(excess.abs().max()) <= TOLERANCE * strength:
            break
        response = _summed(posterior * (1 - posterior), columns, classes) * (found > least)
        offsets = offsets - excess / (1 + strength * response / sizes)
    return offsets - offsets.mean()


def _summed(values: Tensor, columns: Tensor, classes: int) -> Tensor:
    return values.new_zeros(classes).index_add_(0, columns.flatten(), values.flatten())
