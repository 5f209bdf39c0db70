"""Blobs of a given size: difference of Gaussians, in units of the noise around."""

import numpy as np
from scipy import fft

# Of the two Gaussians' widths: with this ratio their difference is all but the Laplacian of a Gaussian (Marr & Hildreth
# 1980, Proc. R. Soc. B 207, 187).
RATIO = 1.6
# Windows, in particle diameters, over which the contrast and the response are made even.
CONTRAST_WINDOW = 1.0
RESPONSE_WINDOW = 1.5
MAD_TO_SIGMA = 1.4826


def difference_of_gaussians(image: np.ndarray, diameter: float) -> np.ndarray:
    """Response of `image` `(h, w)` to bright discs of `diameter` pixels.

    The Laplacian of a Gaussian of width ``s = diameter / sqrt(8)`` answers such a disc best (Lindeberg 1998, Int. J.
    Comput. Vis. 30, 79). The difference of the widths ``t`` and ``RATIO t`` changes its sign where that Laplacian does,
    at ``r^2 = 2 s^2``, if ``t^2 = s^2 (RATIO^2 - 1) / (RATIO^2 log RATIO^2)``.
    """
    width = diameter / np.sqrt(8)
    narrow = width * np.sqrt((RATIO**2 - 1) / (RATIO**2 * np.log(RATIO**2)))
    spectrum = fft.dctn(image, norm="ortho")
    return fft.idctn(spectrum * (_gaussian(image.shape, narrow) - _gaussian(image.shape, RATIO * narrow)), norm="ortho")


def smooth(image: np.ndarray, width: float) -> np.ndarray:
    """Gaussian average of `image` `(h, w)` of any `width` (pixels) at the same cost; edges as mirrors."""
    return fft.idctn(fft.dctn(image, norm="ortho") * _gaussian(image.shape, width), norm="ortho")


def even_contrast(image: np.ndarray, diameter: float) -> np.ndarray:
    """Divide a flat `image` `(h, w)` by its local width: carbon and ice have more contrast than the rest."""
    return image / _local_width(image, CONTRAST_WINDOW * diameter)


def noise_units(response: np.ndarray, diameter: float) -> np.ndarray:
    """A response `(h, w)` of zero mean in units of its local width: comparable between places and sizes."""
    return response / _local_width(response, RESPONSE_WINDOW * diameter)


def robust_width(values: np.ndarray) -> float:
    """Standard deviation of the bulk of `values`: 1.4826 times the median distance from the median."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _local_width(image: np.ndarray, window: float) -> np.ndarray:
    """Width around every pixel, not less than that of the bulk of the image: empty places are no places of signal."""
    power = smooth(image * image, window)
    return np.sqrt(np.maximum(power, robust_width(image) ** 2 + np.finfo(np.float32).tiny))


def _gaussian(shape: tuple[int, int], width: float) -> np.ndarray:
    """Transfer function of a Gaussian average for the cosine transform: coefficient k of n has frequency k / (2 n)."""
    y, x = (np.exp(-2 * (np.pi * width * np.arange(n) / (2 * n)) ** 2).astype(np.float32) for n in shape)
    return y[:, None] * x
