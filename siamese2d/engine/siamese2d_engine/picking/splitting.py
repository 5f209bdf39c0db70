"""Which labels are kept back from training."""

import numpy as np

# With fewer labels all are needed for training.
FEWEST_LABELS = 20
FEWEST_MICROGRAPHS = 4


def held_out_labels(counts: list[int], share: float, seed: int) -> list[np.ndarray]:
    """Choose labels to hold out: of whole micrographs where enough are labelled, else single labels.

    Parameters
    ----------
    counts : list of int
        Labels of each micrograph.
    share : float
        Share of the labels to hold out, about.

    Returns
    -------
    list of ndarray
        For each micrograph a boolean array with one element per label; all false if there are fewer than 20 labels.
    """
    rng = np.random.default_rng(seed)
    chosen = [np.zeros(n, dtype=bool) for n in counts]
    wanted = share * sum(counts)
    if sum(counts) < FEWEST_LABELS or share == 0:
        return chosen
    labelled = np.flatnonzero(counts)
    if len(labelled) < FEWEST_MICROGRAPHS:
        flat = np.zeros(sum(counts), dtype=bool)
        flat[rng.permutation(len(flat))[:round(wanted)]] = True
        return np.split(flat, np.cumsum(counts)[:-1])
    taken = 0
    for i in rng.permutation(labelled):
        # The first one that fits is taken in any case; others only while they bring the number closer to the wanted
        # one.
        if abs(taken + counts[i] - wanted) < abs(taken - wanted):
            chosen[i][:] = True
            taken += counts[i]
    return chosen
