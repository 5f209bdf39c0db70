"""How many particles there are, when the user does not know."""

import numpy as np

from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.precision_recall import Ranking

FEWEST_LABELS = 5
# With fewer labels the smallest ratio is a matter of luck.
MANY_LABELS = 20
# Recalls at which few labels are looked at.
FEW_LABELS_RECALL = (0.4, 0.8)
# Below this recall the ratio rests on too few labels.
LOWEST_RECALL = 0.3


def estimate_particles(ranking: Ranking) -> float | None:
    """Number of particles in the ranking's micrographs, from the share of labels found among the best candidates.

    Where only particles score high, ``n(t)`` candidates above t and a share ``R(t)`` of the labels give ``M = n(t) /
    R(t)``; false candidates only add to it, so the smallest value is the estimate. This is the estimate of a mixture
    proportion by the lower envelope of likelihood ratios (Blanchard, Lee & Scott 2010). With few labels R is noisy: it
    is lowered by half a standard error before the smallest value is sought, which makes up for the choice of the
    luckiest threshold. With fewer than 20 labels the median of the ratios at middling recalls is taken instead.

    Returns
    -------
    float or None
        None if there are fewer than 5 labels, or few of them were found.
    """
    found = np.cumsum(ranking.hits)
    if ranking.labels < FEWEST_LABELS or not found[-1:].any():
        return None
    recall = found / ranking.labels
    if ranking.labels < MANY_LABELS:
        middling = ranking.hits & (recall >= FEW_LABELS_RECALL[0] - 1e-9) & (recall <= FEW_LABELS_RECALL[1] + 1e-9)
        return float(np.median((np.arange(len(recall)) + 1)[middling] / recall[middling])) if middling.any() else None
    error = np.sqrt(recall * (1 - recall) / ranking.labels)
    usable = ranking.hits & (recall >= LOWEST_RECALL)
    if not usable.any():
        return None
    ratio = np.arange(1, len(recall) + 1) / np.maximum(recall - 0.5 * error, 1e-9)
    return float(ratio[usable].min())


def starting_guess(labels: list[int], pixels: list[int]) -> float:
    """Particles per working pixel before anything is learnt.

    Three times the labels of the labelled micrographs, or one particle in a square of four diameters if that is more.

    Parameters
    ----------
    labels, pixels : list of int
        Labels and size of each micrograph.
    """
    labelled = [n / size for n, size in zip(labels, pixels) if n]
    return max(3 * float(np.median(labelled)), 1 / (4 * WORKING_DIAMETER) ** 2)
