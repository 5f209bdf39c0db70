"""How many particles there are, when the user does not know."""

import numpy as np

from siamese2d_engine.picking.precision_recall import Ranking

# Below this recall the ratio rests on too few labels.
LOWEST_RECALL = 0.3


def estimate_particles(ranking: Ranking) -> float | None:
    """Number of particles in the ranking's micrographs, from the share of labels found among the best candidates.

    Where only particles score high, ``n(t)`` candidates above t and a share ``R(t)`` of the labels give ``M = n(t) / R(t)``;
    false candidates only add to it, so the smallest value is the estimate. This is the estimate of a mixture proportion
    by the lower envelope of likelihood ratios (Blanchard, Lee & Scott 2010). With few labels R is noisy: it is lowered by
    one standard error before the smallest value is sought, which makes up for the choice of the luckiest threshold.

    Returns
    -------
    float or None
        None if fewer than three labels were found.
    """
    found = np.cumsum(ranking.hits)
    if not len(found) or found[-1] < 3:
        return None
    recall = found / ranking.labels
    error = np.sqrt(recall * (1 - recall) / ranking.labels)
    usable = ranking.hits & (recall >= LOWEST_RECALL)
    if not usable.any():
        return None
    ratio = np.arange(1, len(recall) + 1) / np.maximum(recall - 0.5 * error, 1e-9)
    return float(ratio[usable].min())


def starting_guess(labels_per_micrograph: list[int]) -> float:
    """Particles per micrograph before anything is learnt: three times the labels of the labelled micrographs' median."""
    return 3.0 * float(np.median([n for n in labels_per_micrograph if n]))
