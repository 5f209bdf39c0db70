"""Reading micrographs and bringing them to the working scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import read_image
from siamese2d_engine.picking.inputs import WORKING_DIAMETER, flatten, resample, working_shape

SMALLEST_DIAMETER = 8.0


@dataclass(frozen=True)
class PreparedMicrograph:
    """What the network sees of a micrograph.

    Attributes
    ----------
    image : ndarray, shape `(h, w)`
        float32; particles have a diameter of `WORKING_DIAMETER` pixels.
    scale : tuple of float
        Micrograph pixels per pixel of `image`, as (y, x).
    """

    image: np.ndarray
    scale: tuple[float, float]


def prepare_micrograph(path: Path, pixel_size: float, diameter: float) -> PreparedMicrograph:
    """Read and prepare one micrograph.

    Parameters
    ----------
    pixel_size : float
        Angstroms per pixel.
    diameter : float
        Of the particle, angstroms.

    Raises
    ------
    InputError
        If the file can't be read, holds no contrast, or the diameter does not suit it.
    """
    image = read_image(path)
    check_diameter(path, image.shape, pixel_size, diameter)
    prepared = flatten(resample(image, working_shape(image.shape, diameter / pixel_size)), WORKING_DIAMETER)
    if not prepared.any():
        raise InputError(f"{path}: more than half of the pixels have the same value, nothing can be seen in this "
                         "image. Leave it out.")
    scale = (image.shape[0] / prepared.shape[0], image.shape[1] / prepared.shape[1])
    return PreparedMicrograph(prepared, scale)


def check_diameter(path: Path, shape: tuple[int, int], pixel_size: float, diameter: float) -> None:
    """Raise InputError if a particle of `diameter` angstroms is too small or too large for an image of `shape`."""
    pixels = diameter / pixel_size
    if pixels < SMALLEST_DIAMETER:
        raise InputError(f"{path}: a particle of {diameter:g} A has a diameter of {pixels:.1f} pixels at "
                         f"{pixel_size:g} A per pixel; at least {SMALLEST_DIAMETER:g} are needed. Check --diameter and "
                         "the pixel size, or use micrographs with less downsampling.")
    if pixels > min(shape):
        raise InputError(f"{path}: a particle of {diameter:g} A has a diameter of {pixels:.0f} pixels at "
                         f"{pixel_size:g} A per pixel, more than this image of {shape[1]} x {shape[0]} pixels. Check "
                         "--diameter (in angstroms) and the pixel size.")
