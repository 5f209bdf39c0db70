"""Where to cut the scores when no label says what is right."""

import numpy as np

# Peaks below this are noise without doubt; their number depends on how empty the micrographs are.
CERTAIN_NOISE = 1.0


def separating_score(scores: np.ndarray) -> float:
    """The score that best divides candidates into two groups.

    It has the largest variance between the groups' means (Otsu 1979, IEEE Trans. Syst. Man Cybern. 9, 62), among scores
    above `CERTAIN_NOISE`.
    """
    ordered = np.sort(scores[scores > CERTAIN_NOISE].astype(float))
    if len(ordered) < 2:
        return CERTAIN_NOISE
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / (len(ordered) - below)
    best = int((below * (len(ordered) - below) * difference**2).argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)
