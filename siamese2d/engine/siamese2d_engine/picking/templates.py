"""Templates, such as class averages: read, brought to the picker's scale, turned, and correlated with a micrograph."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import fft, ndimage

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.references import read_references
from siamese2d_engine.picking.inputs import resample

# Turning by this moves the rim of a particle of 20 pixels by less than 2.
ANGLES = 36
# Radius of the compared disc in diameters: the particle and its first fringe.
RADIUS = 0.6
# Result pixels across one tile; memory does not grow with the micrograph beyond it.
TILE = 512


def read_templates(path: Path, pixel_size: float | None = None) -> tuple[np.ndarray, float]:
    """Read templates, bright on dark, from a stack or a STAR file of class averages.

    Returns
    -------
    images : ndarray
        float32, ``(n, h, w)``.
    pixel_size : float
        Angstroms per pixel: as given, else from the stack's header.

    Raises
    ------
    InputError
        If there is no such file, no template in it, or the pixel size is not known.
    """
    found = read_references(path)
    images = found.images[[image.std() > 0 for image in found.images]]
    if not len(images):
        raise InputError(f"{path}: all templates are empty. Give averages of classes that have members.")
    size = pixel_size or found.pixel_size
    if not size:
        raise InputError(f"{path}: the pixel size of the templates is not known. Pass --template-pixel-size in "
                         "angstroms.")
    return images, float(size)


def turned_templates(images: np.ndarray, factor: float, diameter: float, angles: int = ANGLES) -> np.ndarray:
    """All templates in all orientations, with zero mean and unit norm in a disc, and 0 outside of it.

    Parameters
    ----------
    images : ndarray
        ``(n, h, w)``, centred on the pixels ``h // 2, w // 2``.
    factor : float
        Working pixels per pixel of the templates.
    diameter : float
        Of the particle in working pixels.
    angles : int
        Orientations of each template.

    Returns
    -------
    ndarray
        float32, ``(n angles, k, k)`` with odd ``k``.
    """
    reach = int(np.ceil(RADIUS * diameter))
    inside = disc_mask(diameter)
    offsets = np.mgrid[-reach:reach + 1, -reach:reach + 1].astype(float)
    turned = []
    for image in images:
        small = resample(image, tuple(max(1, round(n * factor)) for n in image.shape))
        scale = np.array(small.shape) / image.shape
        centre = (np.array(image.shape) // 2 + 0.5) * scale - 0.5
        for angle in 2 * np.pi * np.arange(angles) / angles:
            cosine, sine = np.cos(angle), np.sin(angle)
            places = (centre[0] + cosine * offsets[0] + sine * offsets[1],
                      centre[1] - sine * offsets[0] + cosine * offsets[1])
            turned.append(ndimage.map_coordinates(small, places, order=1, mode="nearest"))
    stack = np.where(inside, np.array(turned, dtype=np.float32), 0)
    stack = np.where(inside, stack - stack.sum(axis=(1, 2), keepdims=True) / inside.sum(), 0)
    norm = np.sqrt((stack**2).sum(axis=(1, 2), keepdims=True))
    return (stack / np.maximum(norm, np.finfo(np.float32).tiny)).astype(np.float32)


def disc_mask(diameter: float) -> np.ndarray:
    """The compared disc, ``(k, k)``, boolean."""
    reach = int(np.ceil(RADIUS * diameter))
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    return np.hypot(x, y) <= RADIUS * diameter


def correlation_map(image: np.ndarray, templates: np.ndarray, inside: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Best normalised cross-correlation with any template at every pixel, -1 to 1.

    With a template of zero mean and unit norm in a disc of N pixels, the correlation coefficient is the sum of its
    products with the image over ``sqrt(sum x^2 - (sum x)^2 / N)``, the sums over the disc (Roseman 2003,
    Ultramicroscopy 94, 225). The image is continued by its mirror image; tiles do not change the result.

    Parameters
    ----------
    image : ndarray
        ``(h, w)``.
    templates : ndarray
        Of `turned_templates`, ``(n, k, k)``.
    inside : ndarray
        The disc, ``(k, k)``.
    tile : int
        Result pixels across one tile.

    Returns
    -------
    ndarray
        float32, ``(h, w)``.
    """
    reach = inside.shape[0] // 2
    padded = np.pad(image.astype(np.float32, copy=False), reach, mode="symmetric")
    result = np.empty(image.shape, dtype=np.float32)
    size = fft.next_fast_len(min(tile, max(image.shape)) + 2 * reach, real=True)
    templates_spectra = fft.rfft2(templates, (size, size)).conj()
    disc_spectrum = fft.rfft2(inside.astype(np.float32), (size, size)).conj()
    for rows, columns in _tiles(image.shape, tile):
        patch = padded[rows.start:rows.stop + 2 * reach, columns.start:columns.stop + 2 * reach]
        height, width = rows.stop - rows.start, columns.stop - columns.start

        def correlated(spectrum: np.ndarray) -> np.ndarray:
            return fft.irfft2(spectrum, (size, size))[:height, :width]

        spectrum = fft.rfft2(patch, (size, size))
        total = correlated(spectrum * disc_spectrum)
        power = correlated(fft.rfft2(patch * patch, (size, size)) * disc_spectrum)
        best = np.full((height, width), -np.inf, dtype=np.float32)
        for template in templates_spectra:
            np.maximum(best, correlated(spectrum * template), out=best)
        spread = np.sqrt(np.maximum(power - total**2 / inside.sum(), 1e-6 * max(float(power.max()), 1e-30)))
        result[rows, columns] = best / spread
    return result


def _tiles(shape: tuple[int, int], tile: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[0], tile):
        for left in range(0, shape[1], tile):
            yield slice(top, min(top + tile, shape[0])), slice(left, min(left + tile, shape[1]))
