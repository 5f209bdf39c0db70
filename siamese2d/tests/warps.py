"""Images that are moved by code which knows nothing of the plugin's conversion, to check that against."""

import numpy as np
from scipy import ndimage

# Angstroms per pixel of these images.
PIXEL = 1.7


def makeTemplate(size=64):
    """An image without symmetry: blobs of different size and height."""
    y, x = np.mgrid[:size, :size] - size // 2
    blobs = [(0, 0, 6, 1.0), (12, 3, 3, 1.5), (-5, 14, 4, 0.8), (-9, -11, 2.5, 1.2)]
    return sum(height * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * width ** 2)) for bx, by, width, height in blobs)


def displace(template, psi, originX, originY, flip):
    """A particle that these parameters align to the template.

    The particle at x is the template at x' = F R (x + origin), so it is read there, point by point.
    """
    angle, centre = np.deg2rad(psi), template.shape[0] // 2
    y, x = (np.mgrid[:template.shape[0], :template.shape[1]] - centre).astype(float)
    x, y = x + originX / PIXEL, y + originY / PIXEL
    turnedX, turnedY = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    turnedX = -turnedX if flip else turnedX
    return ndimage.map_coordinates(template, [turnedY + centre, turnedX + centre], order=3)


def warpByMatrix(image, matrix):
    """Move the content of an image by a Scipion transform; scipy asks for the way back, in (y, x)."""
    centre = image.shape[0] // 2
    linear, shift = matrix[:2, :2], matrix[:2, 3]
    back = np.linalg.inv(linear)[::-1, ::-1]
    offset = centre - back @ (np.array([centre, centre]) + shift[::-1])
    return ndimage.affine_transform(image, back, offset=offset, order=3)


def correlation(first, second):
    """Correlation coefficient inside the circle that no warp leaves."""
    size = first.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    inside = x ** 2 + y ** 2 < (size // 2 - 8) ** 2
    return np.corrcoef(first[inside], second[inside])[0, 1]
