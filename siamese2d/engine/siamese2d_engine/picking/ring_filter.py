"""A filter made from what was picked: the mean radial profile of the picks, sharpened against the noise.

Particles are rarely discs; virus-like shells show rings, for instance. The mean of the best blobs, over all angles,
shows what these particles look like to a filter that ignores their orientation.
"""

from collections.abc import Sequence

import numpy as np
from scipy import fft, signal

from siamese2d_engine.picking.diameter import radial_profile

# Reach of the filter, in diameters from its centre: the particle with the first fringe of its defocus.
REACH = 1.25
# Pixels at the end of the profile that are taken for its surroundings.
RIM = 3
FEWEST_SEEDS = 5


def learn_filter(images: Sequence[np.ndarray], seeds: Sequence[np.ndarray], diameter: float) -> np.ndarray | None:
    """Filter for particles like those at `seeds`.

    The matched filter for a pattern in noise is the pattern's spectrum divided by the noise's power; the division is by
    the amplitude only, which stays halfway between the matched filter and plain correlation, because the spectrum of
    the images holds the particles too.

    Parameters
    ----------
    images : sequence of ndarray
        Flat micrographs, ``(h, w)`` each.
    seeds : sequence of ndarray
        For each, x and y of what was picked, ``(n, 2)``.
    diameter : float
        Pixels.

    Returns
    -------
    ndarray or None
        ``(2 r + 1, 2 r + 1)`` with zero sum; None if fewer than `FEWEST_SEEDS` windows lie inside the images.
    """
    reach = int(np.ceil(REACH * diameter))
    windows = [window for image, points in zip(images, seeds) for window in _windows(image, points, reach)]
    if len(windows) < FEWEST_SEEDS:
        return None
    profile = radial_profile(np.mean(windows, axis=0))
    profile = profile - profile[-RIM:].mean()
    size = fft.next_fast_len(4 * reach)
    pattern = fft.fft2(fft.ifftshift(_disc_pattern(profile, size)))
    ring = _rings((size, size), size)
    kernel = fft.ifft2(pattern / _amplitude(images, size)[ring]).real
    kernel = fft.fftshift(kernel)[size // 2 - reach:size // 2 + reach + 1, size // 2 - reach:size // 2 + reach + 1]
    inside = _radii(2 * reach + 1) <= reach
    kernel = np.where(inside, kernel - kernel[inside].mean(), 0)
    return (kernel / np.linalg.norm(kernel)).astype(np.float32)


def apply_filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate `image` `(h, w)`, continued by its mirror image, with a filter; in tiles, so memory is bounded."""
    reach = kernel.shape[0] // 2
    padded = np.pad(image, reach, mode="symmetric").astype(np.float32, copy=False)
    return signal.oaconvolve(padded, kernel[::-1, ::-1], mode="valid")


def _windows(image: np.ndarray, points: np.ndarray, reach: int):
    for x, y in np.floor(np.asarray(points) + 0.5).astype(int):
        if reach <= x < image.shape[1] - reach and reach <= y < image.shape[0] - reach:
            yield image[y - reach:y + reach + 1, x - reach:x + reach + 1]


def _radii(size: int) -> np.ndarray:
    """Distance from the pixel ``size // 2``, ``(size, size)``."""
    offsets = np.arange(size) - size // 2
    return np.hypot(offsets[:, None], offsets)


def _disc_pattern(profile: np.ndarray, size: int) -> np.ndarray:
    return np.interp(_radii(size), np.arange(len(profile)), profile, right=0)


def _rings(shape: tuple[int, int], number: int) -> np.ndarray:
    """Ring of every Fourier coefficient of `shape`: `number` rings to a frequency of 1 per pixel."""
    y, x = (fft.fftfreq(n) for n in shape)
    return np.floor(np.hypot(y[:, None], x) * number + 0.5).astype(int)


def _amplitude(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Root mean power of every ring, from windows of `size` over all images; small images are padded."""
    ring = _rings((size, size), size)
    taper = np.outer(np.hanning(size), np.hanning(size)).astype(np.float32)
    power = np.zeros((size, size))
    for image in images:
        for tile in _tiles(image, size):
            power += np.abs(fft.fft2(tile * taper)) ** 2
    mean = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    # The background was removed: the lowest rings hold nothing to divide by.
    return np.sqrt(np.maximum(mean, 1e-3 * mean.max()))


def _tiles(image: np.ndarray, size: int):
    if min(image.shape) < size:
        image = np.pad(image, [(0, max(0, size - n)) for n in image.shape], mode="reflect")
    for top in range(0, image.shape[0] - size + 1, size):
        for left in range(0, image.shape[1] - size + 1, size):
            yield image[top:top + size, left:left + size]
