"""The losses. Miners and losses of pytorch-metric-learning where it has them."""

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize


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


def simsiam_loss(projections: tuple[Tensor, Tensor], predictions: tuple[Tensor, Tensor]) -> Tensor:
    """``-1/2 [cos(p1, sg z2) + cos(p2, sg z1)]``, sg stopping the gradient (Chen & He 2021, CVPR, eq. 1 to 4).

    Parameters
    ----------
    projections, predictions
        ``z`` and ``p`` of the two views, ``(n, d)`` each.
    """
    (z1, z2), (p1, p2) = projections, predictions
    return -(cosine_similarity(p1, z2.detach()).mean() + cosine_similarity(p2, z1.detach()).mean()) / 2


def drawn_triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """``mean max(|f(A) - f(P)|^2 - |f(A) - f(N)|^2 + margin, 0)`` of given triplets, vectors scaled to length 1."""
    anchor, positive, negative = (normalize(vectors) for vectors in (anchor, positive, negative))
    near, far = (anchor - positive).square().sum(dim=1), (anchor - negative).square().sum(dim=1)
    return (near - far + margin).clamp_min(0).mean()


class SupervisedContrastiveLoss:
    """``mean over anchors of -mean over positives of log(exp(s_ap / T) / sum_k exp(s_ak / T))``, s the cosine.

    Khosla et al. 2020, NeurIPS, eq. 2. All members of a class in the batch are positives of each other.
    """

    def __init__(self, temperature: float):
        self._loss = losses.SupConLoss(temperature=temperature)

    def __call__(self, vectors: Tensor, labels: Tensor, mine: bool = True) -> Tensor:
        """Loss of vectors ``(n, d)`` with class `labels` ``(n,)``; there is nothing to mine."""
        return self._loss(vectors, labels)


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
