"""Given class averages brought to the box and pixel size of particles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from siamese2d_engine.classify.prepare import CircularMask
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.references import read_references

# Averages are taken as they are when this is all that the rim of the box would move, pixels.
TOLERANCE = 0.25


@dataclass(frozen=True)
class GivenClasses:
    """Averages in the particles' box and pixel size.

    Attributes
    ----------
    images
        ``(K, box, box)``.
    numbers
        Of the classes, ``(K,)``.
    table
        What the file says of the classes; without columns where it is a stack.
    finest
        Twice the averages' own pixel size: no detail is finer, angstroms.
    rescaled
        Sentence for the user where box or pixel size differed, or empty.
    """

    images: Tensor
    numbers: np.ndarray
    table: pd.DataFrame
    finest: float
    rescaled: str

    @property
    def filled(self) -> np.ndarray:
        """Places of the averages that are not constant."""
        return np.flatnonzero((self.images.amax((1, 2)) > self.images.amin((1, 2))).numpy())

    def masked(self, mask: CircularMask) -> Tensor:
        """The averages that are not constant, with mean 0 outside of the mask, ``(k, box, box)``."""
        outside = 1 - mask.weights()
        images = self.images[self.filled]
        return images - ((images * outside).sum((1, 2)) / outside.sum())[:, None, None]


def read_given_classes(path: Path, pixel_size: float | None, box: int, wanted: float, mask: CircularMask) -> GivenClasses:
    """Read averages and resample them where box or pixel size differ from the particles'.

    Parameters
    ----------
    path
        ``classes.star`` of classify, or an MRC stack.
    pixel_size
        Angstroms per pixel of the averages; None for what the stack's header says.
    box, wanted
        Of the particles: pixels, angstroms per pixel.
    mask
        That the averages must fill.

    Raises
    ------
    InputError
        If the averages can't be read or used for these particles.
    """
    found = read_references(path)
    bad = found.numbers[~np.isfinite(found.images).all(axis=(1, 2))]
    if len(bad):
        raise InputError(f"{path}: the average of class {bad[0]} holds values that are not finite. Leave that class out.")
    if found.images.shape[1] != found.images.shape[2]:
        raise InputError(f"{path}: averages of {found.images.shape[2]} x {found.images.shape[1]} pixels are not square.")
    if (found.images.max(axis=(1, 2)) == found.images.min(axis=(1, 2))).all():
        raise InputError(f"{path}: all averages are empty. Give averages of classes that have members.")
    own = pixel_size or found.pixel_size
    if not own:
        raise InputError(f"{path}: the pixel size of the averages is not known. Pass --classes-pixel-size in angstroms.")
    old = found.images.shape[1]
    images, said = torch.from_numpy(found.images), ""
    if old != box or abs(own / wanted - 1) * box / 2 > TOLERANCE:
        if old * own < 2 * mask.radius * wanted:
            raise InputError(f"{path}: the averages show {old * own:.0f} A, less than the mask of "
                             f"{2 * mask.radius * wanted:.0f} A. Give a smaller --mask-diameter, or check "
                             "--classes-pixel-size.")
        images = resampled(images, box, wanted / own)
        said = (f"The averages of {old} pixels of {own:g} A are resampled to the particles' {box} pixels of {wanted:g} A.")
    return GivenClasses(images, found.numbers, found.table, 2 * own, said)


def resampled(images: Tensor, box: int, step: float) -> Tensor:
    """Images ``(n, old, old)`` at other points around the same centre, by their Fourier series; 0 beyond their rims.

    Frequencies that the new pixels can't show are left out.

    Parameters
    ----------
    box
        New side, pixels.
    step
        New pixel size over the old one.
    """
    old = images.shape[-1]
    positions = (torch.arange(box, dtype=torch.float64) - box // 2) * step
    distances = positions[:, None] - (torch.arange(old) - old // 2)
    highest = int(np.ceil(min(old, old / step) / 2)) - 1
    orders = torch.arange(1, highest + 1, dtype=torch.float64)
    matrix = (1 + 2 * torch.cos(2 * torch.pi / old * distances[..., None] * orders).sum(-1)) / old
    inside = (positions >= -(old // 2) - 0.5) & (positions <= (old - 1) // 2 + 0.5)
    matrix = (matrix * inside[:, None]).to(images.dtype)
    return matrix @ images @ matrix.T
