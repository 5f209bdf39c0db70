"""From a prepared micrograph to candidate particles in the micrograph's pixels."""

import numpy as np
from scipy import ndimage

from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.network import PickerNetwork
from siamese2d_engine.picking.peaks import find_peaks
from siamese2d_engine.picking.scoring import TILE, score_map

# Working pixels. The width of the smoothing is about that of the score's own peak.
SMOOTHING = 2.0
# Two particles' centres are at least this many diameters, of the smallest ones, apart.
SEPARATION = 0.6
FINER = 2


def find_candidates(network: PickerNetwork, image: np.ndarray, floor: float, orientations: int = 4,
                    tile: int = TILE, smallest: float = 1.0) -> np.ndarray:
    """Candidates in a prepared micrograph `(h, w)`.

    Parameters
    ----------
    floor : float
        Logit of the worst candidate.
    orientations, tile : int
        See `score_map`.
    smallest : float
        Diameter of the smallest particles over that of the largest, which is `WORKING_DIAMETER`.

    Returns
    -------
    ndarray, shape `(n, 3)`
        x, y in pixels of `image` and the logit, best first, all above `floor`.
    """
    scores = score_map(network, image, orientations, tile)
    step = network.architecture.stride / FINER
    smooth = ndimage.gaussian_filter(_refined(scores), SMOOTHING / step, mode="nearest")
    peaks = find_peaks(smooth, SEPARATION * smallest * WORKING_DIAMETER / step, floor)
    peaks[:, :2] *= step
    inside = (peaks[:, 0] <= image.shape[1] - 0.5) & (peaks[:, 1] <= image.shape[0] - 0.5)
    return _without_mirrored(peaks[inside], image.shape, float(np.median(scores)), floor)


def _without_mirrored(peaks: np.ndarray, shape: tuple[int, int], typical: float, floor: float) -> np.ndarray:
    """Take back what peaks near the edge owe to the mirror image beyond it; what is still above `floor`, best first.

    The network sees the part inside twice and counts it twice: only the visible share, one half for a centre on the
    edge, is evidence. Evidence is how far a logit lies above the `typical` one of the micrograph.
    """
    distance = np.minimum(peaks[:, :2], np.array([shape[1], shape[0]]) - 1 - peaks[:, :2]).min(axis=1, initial=np.inf)
    visible = 0.5 + 0.5 * np.clip(distance / (WORKING_DIAMETER / 2), 0, 1)
    corrected = peaks.copy()
    corrected[:, 2] = np.where(peaks[:, 2] > typical, typical + visible * (peaks[:, 2] - typical), peaks[:, 2])
    corrected = corrected[corrected[:, 2] > floor]
    return corrected[np.argsort(-corrected[:, 2], kind="stable")]


def _refined(scores: np.ndarray) -> np.ndarray:
    """`scores` with `FINER` samples to each old step (cubic splines); the first sample stays where it was."""
    shape = [FINER * (n - 1) + 1 for n in scores.shape]
    return ndimage.zoom(scores, [s / n for s, n in zip(shape, scores.shape)], order=3, mode="nearest")


def to_micrograph(points: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Working pixels `(n, 2)` as x, y to micrograph pixels; `scale` = micrograph / working pixels as (y, x)."""
    return (points + 0.5) * np.array([scale[1], scale[0]]) - 0.5


def from_micrograph(points: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """The inverse of `to_micrograph`."""
    return (np.asarray(points, dtype=float).reshape(-1, 2) + 0.5) / np.array([scale[1], scale[0]]) - 0.5
