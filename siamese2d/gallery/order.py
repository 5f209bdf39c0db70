"""In which order classes are shown; among them an order in which neighbours look alike."""

import numpy as np

from siamese2d.gallery.class_list import ClassList

SIZE, RESOLUTION, QUALITY, ACCURACY, NUMBER, SIMILARITY = (
    "size", "resolution", "quality", "rotation accuracy", "class number", "similarity")
# Rings of an image that are compared, and samples on each.
RADII, ANGLES = 20, 64
PASSES = 20


def available_orders(classes: ClassList) -> list[str]:
    """The orders that this set has the values for."""
    values = {SIZE: classes.sizes, RESOLUTION: classes.resolutions, QUALITY: classes.qualities,
              ACCURACY: classes.accuracies}
    return [*(name for name, known in values.items() if np.isfinite(known).any()), NUMBER, SIMILARITY]


def sort_ids(classes: ClassList, order: str, descending: bool = False) -> np.ndarray:
    """Ids with the best first: large, fine, good, precise, low number; unknown values come last in either direction.

    Parameters
    ----------
    classes : ClassList
    order : str
        One of :func:`available_orders` but similarity.
    descending : bool
        The worst first.
    """
    values = {SIZE: -classes.sizes, RESOLUTION: classes.resolutions, QUALITY: -classes.qualities,
              ACCURACY: classes.accuracies, NUMBER: classes.ids.astype(float)}[order]
    values = -values if descending else values
    return classes.ids[np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")]


def features(image: np.ndarray) -> np.ndarray:
    """A description of an image that does not change when it is rotated about its centre or mirrored.

    The amplitudes of the Fourier series around each ring of the image: a rotation changes only their phases, a mirror
    conjugates them.

    Parameters
    ----------
    image : ndarray, `(h, w)`

    Returns
    -------
    ndarray, `(RADII * (ANGLES // 4),)`
        Of length 1; zeros for a constant image.
    """
    image = np.nan_to_num(np.asarray(image, dtype=np.float64))
    height, width = image.shape
    # Rings up to 0.45 of the box, each weighted by the square root of its length, as its pixels would count.
    radii = (np.arange(RADII) + 0.5) / RADII * 0.45
    angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
    rows = height // 2 + np.outer(radii * height, np.sin(angles))
    columns = width // 2 + np.outer(radii * width, np.cos(angles))
    rings = _bilinear(image - image.mean(), rows, columns)
    amplitudes = np.abs(np.fft.rfft(rings, axis=1))[:, :ANGLES // 4] * np.sqrt(radii)[:, None]
    # The mean of a ring is kept at half its weight: profile alone would hide the shape.
    amplitudes[:, 0] *= 0.5
    norm = np.linalg.norm(amplitudes)
    return amplitudes.ravel() / norm if norm > 0 else amplitudes.ravel()


def similarity_order(descriptions: np.ndarray) -> np.ndarray:
    """A path through all descriptions that is short: neighbours are alike.

    Starts at the first, goes on to the nearest that is left, then turns parts of the path round while that makes it
    shorter (2-opt).

    Parameters
    ----------
    descriptions : ndarray, `(k, d)`

    Returns
    -------
    ndarray of int, `(k,)`
        Positions in the order of the path.
    """
    count = len(descriptions)
    if count < 3:
        return np.arange(count)
    squares = np.einsum("ij,ij->i", descriptions, descriptions)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * descriptions @ descriptions.T, 0))
    return _shorten(_nearest_chain(distances), distances)


def _nearest_chain(distances: np.ndarray) -> np.ndarray:
    path, left = [0], np.ones(len(distances), dtype=bool)
    left[0] = False
    while left.any():
        path.append(int(np.argmin(np.where(left, distances[path[-1]], np.inf))))
        left[path[-1]] = False
    return np.array(path)


def _shorten(path: np.ndarray, distances: np.ndarray) -> np.ndarray:
    for _ in range(PASSES):
        before = path
        for start in range(len(path) - 2):
            here, following = path[start], path[start + 1]
            ends = np.arange(start + 2, len(path))
            after = path[ends[:-1] + 1]
            # Turning path[start + 1 .. end] round replaces the steps into and out of that part.
            gain = distances[here, following] - distances[here, path[ends]]
            gain[:-1] += distances[path[ends[:-1]], after] - distances[following, after]
            best = int(np.argmax(gain))
            if gain[best] > 1e-9:
                path = np.concatenate([path[:start + 1], path[start + 1:ends[best] + 1][::-1], path[ends[best] + 1:]])
        if path is before:
            break
    return path


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    top = np.clip(np.floor(rows).astype(int), 0, max(image.shape[0] - 2, 0))
    left = np.clip(np.floor(columns).astype(int), 0, max(image.shape[1] - 2, 0))
    down, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    dy, dx = rows - top, columns - left
    return ((image[top, left] * (1 - dx) + image[top, right] * dx) * (1 - dy)
            + (image[down, left] * (1 - dx) + image[down, right] * dx) * dy)
