"""From a prepared micrograph to candidate particles in the micrograph's pixels."""

import numpy as np
from scipy import ndimage

from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.network import PickerNetwork
from siamese2d_engine.picking.peaks import find_peaks
from siamese2d_engine.picking.scoring import TILE, score_map

# Working pixels. The width of the smoothing is about that of the score's own peak.
SMOOTHING = 2.0
# Two particles' centres are at least this many diameters apart.
SEPARATION = 0.6
FINER = 2


def find_candidates(network: PickerNetwork, image: np.ndarray, floor: float, orientations: int = 4,
                    tile: int = TILE) -> np.ndarray:
    """Candidates in a prepared micrograph `(h, w)`.

    Returns
    -------
    ndarray, shape `(n, 3)`
        x, y in pixels of `image` and the logit, best first, all above `floor`.
    """
    scores = score_map(network, image, orientations, tile)
    step = network.architecture.stride / FINER
    smooth = ndimage.gaussian_filter(_refined(scores), SMOOTHING / step, mode="nearest")
    peaks = find_peaks(smooth, SEPARATION * WORKING_DIAMETER / step, floor)
    peaks[:, :2] *= step
    inside = (peaks[:, 0] <= image.shape[1] - 0.5) & (peaks[:, 1] <= image.shape[0] - 0.5)
    return peaks[inside]


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
