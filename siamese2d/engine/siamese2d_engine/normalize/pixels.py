"""From an image to the weighted pixel values that a fit sees: sampling, values without information, outliers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siamese2d_engine.errors import InputError

BINS = 512
PIXELS_PER_BIN = 20
FEWEST_BINS = 64
# Pixels this many robust standard deviations from the median take no part in the fit (hot pixels, the darkest ice).
TRIM = 20.0
# A single pixel that is this far from the median of the image and of its neighbours is dead or hot.
OUTLIER = 6.0
NEIGHBOURHOOD = 5
# A value shared by more than this part of the pixels, and this much commoner than the levels beside it, carries no
# information: padding, dead areas, saturation.
FILL_SHARE = 0.01
FILL_EXCESS = 10.0
FEWEST_PIXELS = 100
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class PixelSample:
    """Some pixels of an image, without the values that carry no information.

    Attributes
    ----------
    values : ndarray
        float64, sorted, ``(n,)``.
    fill_values : ndarray
        The values left out.
    fill_share : float
        Part of all pixels that have one of them.
    resolution : float
        Spacing of the levels, 0 for a continuum.
    """

    values: np.ndarray
    fill_values: np.ndarray
    fill_share: float
    resolution: float

    @property
    def median(self) -> float:
        return float(self.values[len(self.values) // 2])

    @cached_property
    def spread(self) -> float:
        """Robust standard deviation; the plain one where more than half of the pixels have one value."""
        robust = MAD_TO_SIGMA * float(np.median(np.abs(self.values - self.median)))
        return robust or float(self.values.std())


@dataclass(frozen=True)
class Histogram:
    """Weighted values for a fit.

    Attributes
    ----------
    values, weights : ndarray
        Values and numbers of pixels, each ``(BINS,)``; unused places have weight 0.
    best : float
        Mean log density that the histogram itself gives to its pixels, nats per pixel. A model's mean log density
        lies below it by the Kullback-Leibler divergence of the pixels from the model. Corrected for the number of
        bins (Miller & Madow: they are fitted to the pixels).
    """

    values: np.ndarray
    weights: np.ndarray
    best: float


def sample_positions(size: int, number: int, generator: np.random.Generator) -> np.ndarray:
    """At most `number` positions out of `size`, one at random in each of as many equal intervals."""
    if size <= number:
        return np.arange(size)
    return ((np.arange(number) + generator.random(number)) * (size / number)).astype(np.int64)


def take_sample(values: np.ndarray) -> PixelSample:
    """Sort sampled pixels and take out values without information.

    Raises
    ------
    InputError
        If what is left is constant or next to nothing.
    """
    levels, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(levels) == 1:
        raise InputError(f"all pixels have the value {levels[0]:g}")
    fill = _is_fill(counts)
    share = float(counts[fill].sum() / counts.sum())
    kept = np.repeat(levels[~fill], counts[~fill])
    if len(kept) < FEWEST_PIXELS or (~fill).sum() < 2:
        raise InputError(f"{100 * share:.0f} % of the pixels have the same value ({levels[counts.argmax()]:g}): dead, "
                         "saturated or empty")
    discrete = len(levels) < len(values) / 10
    return PixelSample(kept, levels[fill], share, float(np.diff(levels).min()) if discrete else 0.0)


def _is_fill(counts: np.ndarray) -> np.ndarray:
    """Which levels are far commoner than the two levels on either side."""
    fill = np.zeros(len(counts), dtype=bool)
    for i in np.flatnonzero(counts > FILL_SHARE * counts.sum()):
        beside = np.concatenate([counts[max(i - 2, 0) : i], counts[i + 1 : i + 3]])
        fill[i] = len(beside) > 0 and counts[i] > FILL_EXCESS * np.median(beside)
    return fill


def histogram(sample: PixelSample) -> Histogram:
    """Histogram for the fit, without outliers (`TRIM`)."""
    inside = np.abs(sample.values - sample.median) <= TRIM * sample.spread
    levels, counts = np.unique(sample.values[inside], return_counts=True)
    if len(levels) > BINS or not sample.resolution:
        levels, counts = _binned(sample.values[inside], sample.resolution)
    used = counts > 0
    shares = counts[used] / counts.sum()
    best = float((shares * np.log(shares / np.gradient(levels)[used])).sum() - (used.sum() - 1) / (2 * counts.sum()))
    room = BINS - len(levels)
    return Histogram(np.pad(levels, (0, room), mode="edge"), np.pad(counts.astype(float), (0, room)), best)


def _binned(values: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and counts of at most `BINS` equal bins; each holds the same number of levels where there are levels."""
    low, high = values[0] - resolution / 2, values[-1] + resolution / 2
    width = (high - low) / min(BINS, max(FEWEST_BINS, len(values) // PIXELS_PER_BIN))
    if resolution:
        width = resolution * np.ceil(width / resolution)
    number = int(np.ceil((high - low) / width - 1e-9))
    counts, edges = np.histogram(values, number, range=(low, low + number * width))
    return (edges[1:] + edges[:-1]) / 2, counts


def repair_pixels(image: np.ndarray, sample: PixelSample) -> tuple[np.ndarray, int]:
    """Replace dead and hot pixels by the median of their neighbours.

    A pixel is replaced when it lies `OUTLIER` robust standard deviations from both the image's median and that of the
    5 x 5 pixels around it, most of which are ordinary. Areas, such as ice or gold, stay as they are.

    Parameters
    ----------
    image : ndarray
        ``(h, w)``.
    sample : PixelSample
        Of this image.

    Returns
    -------
    image : ndarray
        The input itself when nothing had to be replaced.
    replaced : int
        Number of pixels.
    """
    far = np.abs(image - np.float32(sample.median)) > OUTLIER * sample.spread
    if not far.any():
        return image, 0
    rows, columns = np.nonzero(far & (_neighbours(far) < NEIGHBOURHOOD**2 / 2))
    reach = NEIGHBOURHOOD // 2
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    padded = np.pad(image, reach, mode="reflect")
    around = np.median(padded[rows[:, None] + reach + offsets[0], columns[:, None] + reach + offsets[1]], axis=1)
    bad = np.abs(image[rows, columns] - around) > OUTLIER * sample.spread
    repaired = image.copy()
    repaired[rows[bad], columns[bad]] = around[bad]
    return repaired, int(bad.sum())


def _neighbours(marked: np.ndarray) -> np.ndarray:
    """Marked pixels among the `NEIGHBOURHOOD` x `NEIGHBOURHOOD` around each, itself included, ``(h, w)``."""
    padded = np.pad(marked, NEIGHBOURHOOD // 2, mode="symmetric").astype(np.uint8)
    height, width = marked.shape
    rows = sum(padded[i : i + height] for i in range(NEIGHBOURHOOD))
    return sum(rows[:, i : i + width] for i in range(NEIGHBOURHOOD))


def summary_histogram(values: np.ndarray, bins: int = 200) -> dict[str, list]:
    """Histogram to draw, between the 0.05 and 99.95 percentiles widened by a tenth: ``edges`` and ``counts``."""
    low, high = np.percentile(values, [0.05, 99.95])
    margin = 0.05 * (high - low) or 0.5
    counts, edges = np.histogram(values, bins, range=(low - margin, high + margin))
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts.tolist()}
