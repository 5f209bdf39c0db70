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

    Contamination (ice, carbon) is clipped first so that it does not leak into the background of its surroundings; the
    background is a Gaussian average over about a particle's `diameter` (pixels). Invariant to ``a x + b`` with a > 0.
    """
    clipped = robust_scale(image, clip)
    flat = clipped - ndimage.gaussian_filter(clipped, diameter, mode="reflect", truncate=3)
    return robust_scale(flat, clip)


def robust_scale(image: np.ndarray, clip: float) -> np.ndarray:
    """``(x - median) / (1.4826 median |x - median|)``, clipped to +-`clip`; zeros if the image is constant."""
    centred = image - np.float32(np.median(image))
    deviation = 1.4826 * float(np.median(np.abs(centred)))
    if deviation == 0:
        return np.zeros_like(centred)
    return np.clip(centred / np.float32(deviation), -clip, clip)
