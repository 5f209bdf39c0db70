"""Objectives of positive-unlabeled learning, each one function of the logits.

All take the logits of pixels labelled as particles and of unlabeled pixels, and the prior: the share of unlabeled
pixels that lie on particles; the generalized-expectation ones also a weight. All return one scalar to be minimised.
Equations are cited as in

* Elkan & Noto 2008, "Learning classifiers from only positive and unlabeled data";
* du Plessis, Niu & Sugiyama 2014, "Analysis of learning from positive and unlabeled data";
* Kiryo et al. 2017, "Positive-unlabeled learning with non-negative risk estimator";
* Mann & McCallum 2010, "Generalized expectation criteria";
* Bepler et al. 2019, "Positive-unlabeled convolutional neural networks for particle picking" (Methods).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Objective = Callable[..., Tensor]


def positive_risk(logits: Tensor) -> Tensor:
    """Mean cross entropy of `logits`, any shape, against *particle*: ``-log sigmoid(logit)``; 0 if empty."""
    return softplus(-logits).mean() if logits.numel() else logits.sum()


def negative_risk(logits: Tensor) -> Tensor:
    """Mean cross entropy of `logits`, any shape, against *background*: ``-log(1 - sigmoid(logit))``; 0 if empty."""
    return softplus(logits).mean() if logits.numel() else logits.sum()


def pn(positive: Tensor, unlabeled: Tensor, prior: float) -> Tensor:
    """Positive-negative risk: unlabeled pixels taken for background, classes weighted by the prior.

    ``pi E_P[l(f, 1)] + (1 - pi) E_U[l(f, 0)]``.
    """
    return prior * positive_risk(positive) + (1 - prior) * negative_risk(unlabeled)


def pu(positive: Tensor, unlabeled: Tensor, prior: float) -> Tensor:
    """Unbiased positive-unlabeled risk (du Plessis et al. 2014, eq. 3; the weighting idea is Elkan & Noto's).

    ``pi E_P[l(f, 1)] + E_U[l(f, 0)] - pi E_P[l(f, 0)]``; may become negative.
    """
    background = negative_risk(unlabeled) - prior * negative_risk(positive)
    return prior * positive_risk(positive) + background


def nnpu(positive: Tensor, unlabeled: Tensor, prior: float) -> Tensor:
    """Non-negative positive-unlabeled risk (Kiryo et al. 2017, eq. 6 and algorithm 1 with beta 0, gamma 1).

    ``pi E_P[l(f, 1)] + max(0, B)`` with ``B = E_U[l(f, 0)] - pi E_P[l(f, 0)]``. The returned value is that risk; where
    B is negative its gradient is that of ``-B`` alone, which undoes the overfitting.
    """
    background = negative_risk(unlabeled) - prior * negative_risk(positive)
    risk = prior * positive_risk(positive) + background.clamp(min=0)
    if background.item() >= 0:
        return risk
    return risk.detach() + (background.detach() - background)


def ge_kl(positive: Tensor, unlabeled: Tensor, prior: float, weight: float = 10.0,
          share: float | None = None) -> Tensor:
    """Labelled pixels' risk plus `weight` times `ge_kl_penalty` (Mann & McCallum 2010, eq. 4; Bepler et al. 2019)."""
    return positive_risk(positive) + weight * ge_kl_penalty(unlabeled, prior, share)


def ge_binomial(positive: Tensor, unlabeled: Tensor, prior: float, weight: float = 1.0,
                share: float | None = None) -> Tensor:
    """Labelled pixels' risk plus `weight` times `ge_binomial_penalty` (Bepler et al. 2019, the default)."""
    return positive_risk(positive) + weight * ge_binomial_penalty(unlabeled, prior, share)


def ge_kl_penalty(unlabeled: Tensor, prior: float, share: float | None = None) -> Tensor:
    """KL divergence between Bernoulli(prior) and Bernoulli(p), ``p = mean sigmoid(unlabeled)``, any shape.

    ``pi log(pi / p) + (1 - pi) log((1 - pi) / (1 - p))``. For `share` see `ge_binomial_penalty`.
    """
    mean = _valued(torch.sigmoid(unlabeled).mean(), share).clamp(1e-6, 1 - 1e-6)
    target = unlabeled.new_tensor(prior)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()


def ge_binomial_penalty(unlabeled: Tensor, prior: float, share: float | None = None) -> Tensor:
    """Cross entropy from the classifier's count of particle pixels to ``Binomial(N, prior)``.

    The count's mean is ``sum g`` and its variance ``sum g (1 - g)`` over the probabilities g; it is approximated by a
    Gaussian q on k = 0..N, normalised there. The penalty is ``- sum_k q(k) log Binomial(k; N, prior)``.

    Parameters
    ----------
    unlabeled : Tensor, shape `(..., n)`
        Logits; every row of n pixels is one sample with its own count, and the mean over rows is returned.
    prior : float
        Expected share of particle pixels, between 0 and 1.
    share : float, optional
        Mean probability over the whole data. The formula is for pixels drawn independently from all micrographs; pixels
        of a few crops are not, and a crop that holds only carbon would be asked for its share of particles. With
        `share`, the count's mean takes the value ``n share`` that independent pixels have, and keeps the gradient of
        ``sum g``.
    """
    g = torch.sigmoid(unlabeled)
    n = unlabeled.shape[-1]
    mean = _valued(g.sum(-1, keepdim=True), None if share is None else n * share)
    # A classifier that is sure everywhere has no variance; a tenth of a pixel keeps q defined on the integers.
    variance = (g * (1 - g)).sum(-1, keepdim=True).clamp(min=0.1)
    k = torch.arange(n + 1, device=unlabeled.device, dtype=unlabeled.dtype)
    q = torch.softmax(-(k - mean) ** 2 / (2 * variance), dim=-1)
    return -(q * log_binomial(n, prior, like=unlabeled)).sum(-1).mean()


def _valued(x: Tensor, value: float | None) -> Tensor:
    """`x`, or a tensor with `value` and the gradient of `x`."""
    return x if value is None else x - x.detach() + value


def log_binomial(n: int, prior: float, like: Tensor) -> Tensor:
    """``log Binomial(k; n, prior)`` for k = 0..n, shape `(n + 1,)`, on the device and in the type of `like`."""
    k = torch.arange(n + 1, dtype=torch.float64)
    total = torch.tensor(float(n), dtype=torch.float64)
    p = torch.tensor(prior, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    log_choices = torch.lgamma(total + 1) - torch.lgamma(k + 1) - torch.lgamma(total - k + 1)
    return (log_choices + k * p.log() + (total - k) * (1 - p).log()).to(like)


OBJECTIVES: dict[str, Objective] = {"pn": pn, "ge-binomial": ge_binomial, "ge-kl": ge_kl, "nnpu": nnpu, "pu": pu}
DEFAULT_WEIGHTS = {"ge-binomial": 1.0, "ge-kl": 10.0}


def is_expectation(name: str) -> bool:
    """Whether the objective compares the predicted share of particle pixels with the prior (and takes `share`)."""
    return name in DEFAULT_WEIGHTS
