"""From a micrograph to the picture that the network sees: particles of a set size, flat background, unit noise."""

import numpy as np
from scipy import fft, ndimage

WORKING_DIAMETER = 20.0
CLIP = 4.0


def working_shape(shape: tuple[int, int], diameter: float) -> tuple[int, int]:
    """Size to which a micrograph of `shape` is resampled so that `diameter` pixels become `WORKING_DIAMETER`."""
    factor = WORKING_DIAMETER / diameter
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resample(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample `image` `(h, w)` to `shape` by cropping or padding its cosine transform (DCT-II).

    This is Fourier cropping of the image continued by its mirror image, so opposite edges do not ring into each other.
    Pixel centres are at half-integers of the image's extent: position ``x`` of the result is
    ``(x + 1/2) w / shape[1] - 1/2`` of the input. The mean is kept.
    """
    if tuple(shape) == image.shape:
        return image.astype(np.float32)
    height, width = min(image.shape[0], shape[0]), min(image.shape[1], shape[1])
    spectrum = fft.dctn(image.astype(np.float32), norm="forward")[:height, :width]
    padded = np.zeros(shape, dtype=np.float32)
    padded[:height, :width] = spectrum
    return fft.idctn(padded, norm="forward", overwrite_x=True)


def flatten(image: np.ndarray, diameter: float, clip: float = CLIP) -> np.ndarray:
    """Remove the background of `image` `(h, w)` and scale its noise to 1, robustly; float32.

    Particles have a `diameter` of so many pixels. Invariant to ``a x + b`` with a > 0.
    """
    clipped = robust_scale(image, clip)
    return robust_scale(clipped - background(clipped, diameter), clip)


def background(image: np.ndarray, diameter: float) -> np.ndarray:
    """Median over a square of three particle diameters, smoothed over a quarter; float32 as large as `image` `(h, w)`.

    Unlike a Gaussian average the median follows the edge of carbon and is blind to ice that fills less than half of the
    square: particles beside them do not lie in their halo. It is taken on block averages, for speed.
    """
    block = max(1, int(diameter // 5))
    missing = [-n % block for n in image.shape]
    padded = np.pad(image, [(0, m) for m in missing], mode="symmetric")
    coarse = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block).mean(axis=(1, 3))
    size = 2 * round(1.5 * diameter / block) + 1
    level = ndimage.median_filter(coarse, size=size, mode="reflect")
    level = ndimage.gaussian_filter(level, 0.25 * diameter / block, mode="reflect", truncate=3)
    fine = ndimage.zoom(level, block, order=1, mode="nearest", grid_mode=True)
    return fine[:image.shape[0], :image.shape[1]]


def robust_scale(image: np.ndarray, clip: float) -> np.ndarray:
    """``(x - median) / (1.4826 median |x - median|)``, clipped to +-`clip`; zeros if the image is constant."""
    centred = image - np.float32(np.median(image))
    deviation = 1.4826 * float(np.median(np.abs(centred)))
    if deviation == 0:
        return np.zeros_like(centred)
    return np.clip(centred / np.float32(deviation), -clip, clip)
