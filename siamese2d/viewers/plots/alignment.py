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
    size = image.shape[0]
    centre = size // 2
    y, x = np.mgrid[:size, :size] - centre
    x = -x if flip else x
    cosine, sine = np.cos(np.radians(psi)), np.sin(np.radians(psi))
    # The inverse map: x = R(-psi) F x' - origin.
    source_x = cosine * x + sine * y - origin[0] + centre
    source_y = -sine * x + cosine * y - origin[1] + centre
    return _bilinear(image, source_y, source_x)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    inside = (y >= 0) & (x >= 0) & (y <= image.shape[0] - 1) & (x <= image.shape[1] - 1)
    y0 = np.clip(np.floor(y).astype(int), 0, image.shape[0] - 2)
    x0 = np.clip(np.floor(x).astype(int), 0, image.shape[1] - 2)
    dy, dx = y - y0, x - x0
    upper = image[y0, x0] * (1 - dx) + image[y0, x0 + 1] * dx
    lower = image[y0 + 1, x0] * (1 - dx) + image[y0 + 1, x0 + 1] * dx
    return np.where(inside, upper * (1 - dy) + lower * dy, image.mean()).astype(np.float32)
