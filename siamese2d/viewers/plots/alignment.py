"""Particles as they lie on their class average."""

import numpy as np


def align(image: np.ndarray, psi: float, origin: tuple[float, float], flip: bool) -> np.ndarray:
    """Rotate, shift and mirror an image onto its class average, by RELION's convention.

    The result has the content of `x` at ``x' = F R(psi) (x + origin)``, both measured from the box centre ``n // 2``;
    ``R(psi) = [[cos, -sin], [sin, cos]]`` and ``F`` mirrors x. Pixels are interpolated linearly; what comes from
    outside of the image is its mean.

    Parameters
    ----------
    image : ndarray, `(n, n)`
        The particle, ``[y, x]``.
    psi : float
        Angle in degrees.
    origin : (float, float)
        Shift (x, y) in pixels, before the rotation.
    flip : bool
        Whether the result is mirrored in x.

    Returns
    -------
    ndarray, `(n, n)`
    """
    angle = np.radians(psi)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:2, 3] = matrix[:2, :2] @ np.asarray(origin, dtype=float)
    if flip:
        matrix[0] *= -1
    return transform_image(image, matrix)


def transform_image(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move the content of an image by a Scipion 2D transform: from `x` to ``x' = M x``, both from the box centre.

    Parameters
    ----------
    image : ndarray, `(h, w)`
        ``[y, x]``; pixels are interpolated linearly, and what comes from outside of the image is its mean.
    matrix : ndarray, `(4, 4)`
        Rotation, mirror and shift in pixels; only its map of the plane counts.

    Returns
    -------
    ndarray, `(h, w)`
    """
    plane, shift = matrix[:2, :2], matrix[:2, 3]
    if abs(np.linalg.det(plane)) < 1e-6:
        # No map of the plane onto itself, such as an all-zero matrix: shown as it is.
        return image.astype(np.float32)
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    target = np.stack([x - width // 2 - shift[0], y - height // 2 - shift[1]])
    source_x, source_y = np.tensordot(np.linalg.inv(plane), target, axes=1)
    return _bilinear(image, source_y + height // 2, source_x + width // 2)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    # Rounding must not turn the border of an image that stays in its place into its mean.
    inside = (y > -1e-6) & (x > -1e-6) & (y < image.shape[0] - 1 + 1e-6) & (x < image.shape[1] - 1 + 1e-6)
    y0 = np.clip(np.floor(y).astype(int), 0, image.shape[0] - 2)
    x0 = np.clip(np.floor(x).astype(int), 0, image.shape[1] - 2)
    dy, dx = y - y0, x - x0
    upper = image[y0, x0] * (1 - dx) + image[y0, x0 + 1] * dx
    lower = image[y0 + 1, x0] * (1 - dx) + image[y0 + 1, x0 + 1] * dx
    return np.where(inside, upper * (1 - dy) + lower * dy, image.mean()).astype(np.float32)
