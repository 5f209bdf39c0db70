"""Cutting square boxes out of a micrograph."""

import numpy as np


def box_corners(x: np.ndarray, y: np.ndarray, box: int) -> np.ndarray:
    """First row and column of the boxes around some centres.

    The centre pixel ``box // 2`` of a box is the micrograph's pixel nearest to the coordinate, halves rounded up, as in
    RELION: no pixel is interpolated.

    Parameters
    ----------
    x, y : ndarray
        Centres in pixels from the centre of the first pixel, ``(n,)``.
    box : int
        Pixels.

    Returns
    -------
    ndarray of int
        ``(n, 2)``: row, column; outside the image where the box is.
    """
    return np.floor(np.stack([y, x], axis=-1) + 0.5).astype(np.int64) - box // 2


def is_inside(corners: np.ndarray, box: int, shape: tuple[int, int]) -> np.ndarray:
    """Which boxes ``(n, 2)`` lie wholly in an image of this shape, ``(n,)``."""
    return ((corners >= 0) & (corners + box <= np.asarray(shape))).all(axis=1)


def crop(image: np.ndarray, corners: np.ndarray, box: int) -> tuple[np.ndarray, np.ndarray]:
    """Copy boxes out of an image ``(h, w)``.

    Parameters
    ----------
    image : ndarray
        float32.
    corners : ndarray of int
        From `box_corners`, ``(n, 2)``.
    box : int
        Pixels.

    Returns
    -------
    images : ndarray
        float32, ``(n, box, box)``; 0 outside the micrograph.
    valid : ndarray of bool
        ``(n, box, box)``: which pixels come from the micrograph.
    """
    images = np.zeros((len(corners), box, box), dtype=np.float32)
    valid = np.zeros(images.shape, dtype=bool)
    low = np.clip(corners, 0, image.shape)
    high = np.clip(corners + box, 0, image.shape)
    for particle, corner, (top, left), (bottom, right) in zip(range(len(corners)), corners, low, high):
        place = (particle, slice(top - corner[0], bottom - corner[0]), slice(left - corner[1], right - corner[1]))
        images[place] = image[top:bottom, left:right]
        valid[place] = True
    return images, valid
