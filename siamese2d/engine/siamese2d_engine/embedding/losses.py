"""The three losses. Miners and losses of pytorch-metric-learning where it has them."""

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor


def contrastive_loss(first: Tensor, second: Tensor, different: Tensor, margin: float) -> Tensor:
    """Contrastive loss of N pairs.

    ``1 / (2 N) sum (1 - y) d^2 + y max(margin - d, 0)^2`` with d the Euclidean distance and y = 1 for pairs of
    different classes (Hadsell, Chopra & LeCun 2006, CVPR, eq. 4). pytorch-metric-learning's version has no squares.

    Parameters
    ----------
    first, second
        Vectors ``(N, d)``.
    different
        ``(N,)`` bool.
    margin
        Distance beyond which different pairs are at rest.
    """
    squared = (first - second).square().sum(dim=1)
    # The square root has no gradient at 0; identical vectors of different classes still get a finite one.
    hinge = (margin - (squared + 1e-12).sqrt()).clamp_min(0).square()
    return torch.where(different, hinge, squared).mean() / 2


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross entropy of two views (Chen et al. 2020, SimCLR, eq. 1).

    With one positive for each vector it is the supervised contrastive loss, which pytorch-metric-learning computes from
    one matrix; its ``NTXentLoss`` gives the same from a list of all pairs, too large for batches of hundreds.
    """
    labels = torch.arange(len(first), device=first.device).repeat(2)
    return losses.SupConLoss(temperature=temperature)(torch.cat([first, second]), labels)


class TripletLoss:
    """``mean max(|f(A) - f(P)|^2 - |f(A) - f(N)|^2 + margin, 0)`` of vectors scaled to length 1.

    In training the mean is over the triplets of the batch that violate the margin. The single hardest triplet of each
    anchor (Hermans, Beyer & Leibe 2017) is no option here: with this much noise it is an outlier, and all vectors
    collapse to one point, where the loss equals the margin. For validation the mean is over all triplets.
    """

    def __init__(self, margin: float):
        distance = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
        self._miner = miners.TripletMarginMiner(margin=margin, distance=distance, type_of_triplets="all")
        self._loss = losses.TripletMarginLoss(margin=margin, distance=distance, reducer=reducers.MeanReducer())

    def __call__(self, vectors: Tensor, labels: Tensor, mine: bool = True) -> Tensor:
        """Loss of vectors ``(n, d)`` with class `labels` ``(n,)``; 0 where there is no triplet."""
        return self._loss(vectors, labels, self._miner(vectors, labels) if mine else None)
