"""A micrograph as the pickers without labels see it: at the particle's scale, particles bright."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import read_image
from siamese2d_engine.picking.inputs import CLIP, WORKING_DIAMETER, flatten, resample, robust_scale, working_shape
from siamese2d_engine.picking.preparation import check_diameter

CONTRASTS = ("dark", "bright")
# Extremes are kept up to here, in widths, to tell contamination by.
STRONGEST = 20.0


@dataclass(frozen=True)
class View:
    """One micrograph.

    Attributes
    ----------
    flat : ndarray
        Without background, noise of width 1, clipped; float32, ``(h, w)``.
    strength : ndarray
        With background and extremes, ``(h, w)``.
    scale : tuple of float
        Micrograph pixels per pixel of the view, as (y, x).
    """

    flat: np.ndarray
    strength: np.ndarray
    scale: tuple[float, float]

    def to_micrograph(self, points: np.ndarray) -> np.ndarray:
        """Positions x, y `(n, 2)` in pixels of the micrograph; both count from the centre of the first pixel."""
        return (points + 0.5) * np.array(self.scale)[::-1] - 0.5


def read_view(path: Path, pixel_size: float, diameters: tuple[float, ...], contrast: str) -> View:
    """Read a micrograph and scale it so that the smallest particle is `WORKING_DIAMETER` pixels wide.

    Parameters
    ----------
    pixel_size : float
        Angstroms per pixel.
    diameters : tuple of float
        Angstroms, in increasing order.
    contrast : str
        Of the particles: one of `CONTRASTS`.

    Raises
    ------
    InputError
        If the file can't be read, holds no contrast, or a diameter does not suit it.
    """
    image = read_image(path)
    for diameter in (diameters[0], diameters[-1]):
        check_diameter(path, image.shape, pixel_size, diameter)
    small = resample(image, working_shape(image.shape, diameters[0] / pixel_size))
    scale = (image.shape[0] / small.shape[0], image.shape[1] / small.shape[1])
    del image
    if contrast == "dark":
        small = -small
    flat = flatten(small, WORKING_DIAMETER * diameters[-1] / diameters[0], CLIP)
    if not flat.any():
        raise InputError(f"{path}: more than half of the pixels have the same value, nothing can be seen in this "
                         "image. Leave it out.")
    return View(flat, robust_scale(small, STRONGEST), scale)
