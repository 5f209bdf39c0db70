"""Downsampling by cropping in Fourier space."""

import numpy as np
import scipy.fft

from siamese2d_engine.errors import InputError


def check_factor(factor: float) -> None:
    """Raise InputError for a downsampling below 1."""
    if factor < 1:
        raise InputError(f"--downsample {factor:g}: must be 1 or more; images can't be made larger.")


def cropped_size(size: int, factor: float) -> tuple[int, int]:
    """How many pixels of one axis to keep, and how many they become.

    Parameters
    ----------
    size : int
        Pixels.
    factor : float
        Downsampling, 1 or more.

    Returns
    -------
    tuple of int
        ``(kept, reduced)`` with `reduced` even and ``kept = reduced * factor`` to half a pixel, so that the new pixel
        size is the old one times `factor`; less than ``2 * factor`` pixels at the end of the axis are left out. With
        ``factor = 1`` both are `size`.
    """
    if factor == 1:
        return size, size
    reduced = 2 * int(size / factor // 2)
    return min(size, round(reduced * factor)), reduced


def downsample(image: np.ndarray, factor: float) -> np.ndarray:
    """Downsample a micrograph ``(h, w)`` by `factor`, keeping the centre of the first pixel where it is.

    A point at ``x`` of the input lies at ``x / factor`` of the result, for coordinates measured from the centre of the
    first pixel. Up to ``2 * factor`` pixels at the right and the lower edge are left out (see `cropped_size`).
    """
    (kept_h, new_h), (kept_w, new_w) = (cropped_size(size, factor) for size in image.shape)
    return fourier_crop(image[:kept_h, :kept_w], (new_h, new_w))


def fourier_crop(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample real images to a smaller even shape by cropping their Fourier transforms.

    Frequencies below the new Nyquist frequency keep amplitude and phase; the new Nyquist frequency and all above are
    removed, so that nothing is aliased. The first pixel stays where it is, as does the centre pixel ``n // 2`` of even
    sizes.

    Parameters
    ----------
    images : ndarray
        ``(..., h, w)``.
    shape : tuple of int
        New ``(h, w)``, each even or unchanged.

    Returns
    -------
    ndarray
        ``(..., *shape)``, same precision.
    """
    old = images.shape[-2:]
    new_h, new_w = shape
    if (new_h, new_w) == old:
        return images
    transform = scipy.fft.rfft2(images)[..., : new_w // 2 + 1]
    if new_w < old[1]:
        transform[..., -1] = 0
    if new_h < old[0]:
        half = new_h // 2
        transform = np.concatenate([transform[..., :half, :], transform[..., -half:, :]], axis=-2)
        transform[..., half, :] = 0
    transform *= new_h * new_w / (old[0] * old[1])
    return scipy.fft.irfft2(transform, s=shape)
