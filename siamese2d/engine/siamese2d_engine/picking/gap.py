"""The gap between the scores of particles and those of everything else, where there is one."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from siamese2d_engine.picking.precision_recall import Ranking

# Width of the kernel, in units of log distance from the best score.
BANDWIDTH = 0.15
GRID = 400
# The density in the gap is at most this share of that among the particles, else it could be chance.
DEEPEST = 0.8
# Largest slope of the calibration.
STEEPEST = 2.0
# Fewer candidates make no density.
FEWEST = 50


@dataclass(frozen=True)
class Gap:
    """Where particles and background part.

    Attributes
    ----------
    score : float
        Score at which candidates are rarest.
    particles : float
        Median score of the labels, above `score`.
    """

    score: float
    particles: float

    def calibration(self) -> tuple[float, float]:
        """Slope and offset of a probability that is one half in the gap and 0.98 at the labels' median, or less.

        The slope is bounded, so that candidates far below the gap keep distinct scores.
        """
        slope = min(STEEPEST, 4.0 / max(self.particles - self.score, 1e-6))
        return slope, -slope * self.score


def find_gap(ranking: Ranking) -> Gap | None:
    """The gap between the mode of the particles and that of the background, where candidates are rarest.

    Needs no number of particles and hardly any labels. A network's logits for particles crowd below a ceiling while
    those for background spread far down, so both modes have a similar width only in ``v = log(best - s + d)``, where d
    is the distance of the labels' median from the best score. The density of v is estimated with a Gaussian kernel; the
    gap is its minimum between the highest mode, the background's, and the highest one at better scores (the valley
    method of thresholding, Prewitt & Mendelsohn 1966).

    Parameters
    ----------
    ranking : Ranking
        All candidates, without a lower limit of the score; the hits may be labels that were trained on.

    Returns
    -------
    Gap or None
        None where the two modes do not stand apart, or no label was found.
    """
    if len(ranking.scores) < FEWEST or not ranking.hits.any():
        return None
    best, middle = float(ranking.scores[0]), float(np.median(ranking.scores[ranking.hits]))
    unit = max(best - middle, 1e-3)
    distances = np.log(best - ranking.scores.astype(float) + unit)
    counts, edges = np.histogram(distances, GRID, (distances[0] - 2 * BANDWIDTH, distances[-1] + 2 * BANDWIDTH))
    density = ndimage.gaussian_filter1d(counts.astype(float), BANDWIDTH / (edges[1] - edges[0]), mode="constant")
    background = int(density.argmax())
    modes = [i for i in range(1, background) if density[i - 1] <= density[i] > density[i + 1]]
    if not modes:
        return None
    particles = max(modes, key=lambda i: density[i])
    lowest = particles + int(density[particles:background].argmin())
    if density[lowest] > DEEPEST * density[particles]:
        return None
    score = best + unit - float(np.exp((edges[lowest] + edges[lowest + 1]) / 2))
    return Gap(score, middle) if score < middle else None


def gap_at(ranking: Ranking, expected: float) -> Gap:
    """The boundary that leaves `expected` candidates above it, where nothing marks a gap.

    For labels that were trained on: they score higher than other particles, so that no calibration can go by them.
    """
    last = min(max(1, round(expected)), len(ranking.scores)) - 1
    score = float(ranking.scores[last]) if len(ranking.scores) else 0.0
    labels = ranking.scores[ranking.hits]
    return Gap(score, float(np.median(labels)) if len(labels) else score)
