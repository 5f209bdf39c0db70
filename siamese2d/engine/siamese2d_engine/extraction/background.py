"""Background of particle images: the pixels around the particle, their mean, slope and noise."""

import numpy as np


def background_mask(box: int, radius: float) -> np.ndarray:
    """Pixels further than `radius` pixels from the centre ``box // 2``, bool ``(box, box)``."""
    axis = np.arange(box) - box // 2
    return axis[:, None] ** 2 + axis**2 > radius**2


def fill_outside(images: np.ndarray, valid: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Give pixels beyond the micrograph the mean of the particle's background.

    Parameters
    ----------
    images : ndarray
        ``(n, box, box)``.
    valid : ndarray of bool
        ``(n, box, box)``: pixels that come from the micrograph.
    background : ndarray of bool
        ``(box, box)``. Where none of it is valid, all valid pixels take its place.
    """
    weights = _weights(valid, background)
    means = (images * weights).sum((1, 2), dtype=np.float64) / np.maximum(weights.sum((1, 2)), 1)
    return np.where(valid, images, means[:, None, None].astype(images.dtype))


def normalize_background(images: np.ndarray, valid: np.ndarray, background: np.ndarray,
                         ramp: bool) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale each image so that its background has mean 0 and standard deviation 1.

    Parameters
    ----------
    images, valid, background : ndarray
        As for `fill_outside`; pixels that are not valid do not count and become 0, the mean of the background.
    ramp : bool
        First subtract the plane that fits the background best (least squares).

    Returns
    -------
    images : ndarray
        float32, ``(n, box, box)``; 0 everywhere for an image without noise in its background.
    good : ndarray of bool
        ``(n,)``: which images have noise in their background.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    weights = _weights(valid, background).reshape(len(images), -1).astype(np.float64)
    number = np.maximum(weights.sum(1, keepdims=True), 1)
    size = _rms(flat, weights, number)
    functions = _plane(images.shape[-1]) if ramp else np.ones((flat.shape[1], 1))
    flat -= _least_squares(flat, weights, functions) @ functions.T
    spread = _rms(flat, weights, number)
    # A constant or a perfect plane leaves rounding errors, which are no noise.
    good = spread > 1e-7 * size
    flat *= np.where(good, 1 / np.where(good, spread, 1), 0)
    flat[~valid.reshape(flat.shape)] = 0
    return flat.reshape(images.shape).astype(np.float32), good[:, 0]


def _weights(valid: np.ndarray, background: np.ndarray) -> np.ndarray:
    weights = valid & background
    return np.where(weights.any((1, 2), keepdims=True), weights, valid)


def _rms(values: np.ndarray, weights: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.sqrt((weights * values**2).sum(1, keepdims=True) / number)


def _plane(box: int) -> np.ndarray:
    """The functions 1, x and y at all pixels, ``(box^2, 3)``."""
    axis = (np.arange(box) - box // 2) / box
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([np.ones(box * box), x.ravel(), y.ravel()], axis=1)


def _least_squares(values: np.ndarray, weights: np.ndarray, functions: np.ndarray) -> np.ndarray:
    """Weighted least-squares coefficients ``(n, f)`` of functions ``(p, f)`` for values ``(n, p)``."""
    products = (functions[:, :, None] * functions[:, None, :]).reshape(len(functions), -1)
    size = functions.shape[1]
    matrices = (weights @ products).reshape(-1, size, size)
    targets = (weights * values) @ functions
    # The pseudo-inverse takes care of a background left in one row or column.
    return (np.linalg.pinv(matrices, hermitian=True) @ targets[:, :, None])[:, :, 0]
