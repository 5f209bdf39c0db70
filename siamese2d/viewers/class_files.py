"""What the engine wrote about 2D classes, gathered for viewing."""

import os
from dataclasses import dataclass

import numpy as np

from siamese2d.viewers.plots.alignment import align
from siamese2d.viewers.run_files import RunFileError, RunFolder, column, read_particles

CLASSES, PARTICLES, SET_APART = "classes.star", "particles.star", "set_apart.star"


@dataclass(frozen=True)
class ClassTable:
    """The classes of a run, in the order of ``classes.star``.

    Attributes
    ----------
    numbers, sizes : ndarray
        Class number and number of particles, `(k,)`.
    resolutions : ndarray
        Angstroms, `(k,)`; NaN where it was not estimated.
    averages : ndarray
        `(k, h, w)`.
    pixel_size : float or None
        Angstroms.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    resolutions: np.ndarray
    averages: np.ndarray
    pixel_size: float | None


@dataclass(frozen=True)
class Members:
    """Particles of one class, the least certain first.

    Attributes
    ----------
    names : list of str
        Images (``index@stack``).
    poses : ndarray
        Angle in degrees, shift x and y in angstroms, mirrored or not: `(n, 4)`.
    confidence : ndarray
        0 to 1, `(n,)`.
    pixel_size : float
        Angstroms.
    """

    names: list[str]
    poses: np.ndarray
    confidence: np.ndarray
    pixel_size: float

    def images(self, folder: RunFolder, first: int, count: int) -> np.ndarray:
        """Some of the images, aligned to the average, `(m, n, n)`."""
        images = read_particles(self.names[first:first + count], folder.resolve)
        return np.stack([
            align(image, psi, (x / self.pixel_size, y / self.pixel_size), bool(flip))
            for image, (psi, x, y, flip) in zip(images, self.poses[first:first + count])])


def read_classes(folder: RunFolder) -> ClassTable:
    """The class averages with their numbers, sizes and resolutions; batches have the same classes, other members."""
    table, path = folder.read_table(CLASSES), folder.file(CLASSES)
    if not table:
        raise RunFileError("This run made no class.")
    numbers, sizes, images = (column(table, name, path) for name in (
        "rlnClassNumber", "siamese2dClassSize", "rlnReferenceImage"))
    resolutions = np.asarray(table.get("rlnEstimatedResolution", np.full(len(numbers), np.nan)), dtype=float)
    _, rows, classes = np.unique(numbers, return_index=True, return_inverse=True)
    sizes = np.bincount(classes, sizes)
    order = np.argsort(rows)
    rows = rows[order]
    return ClassTable(numbers[rows].astype(int), sizes[order].astype(int), resolutions[rows],
                      read_particles(list(images[rows]), folder.resolve), pixel_size_of(folder))


def pixel_size_of(folder: RunFolder) -> float | None:
    """Angstroms per pixel of the particles, None where their table does not say."""
    optics = folder.read_table(PARTICLES, "optics")
    return float(optics["rlnImagePixelSize"][0]) if "rlnImagePixelSize" in optics else None


def count_unassigned(folder: RunFolder) -> int:
    """Particles that belong to no class: set apart before the classification, or with a class number below 1."""
    apart = len(next(iter(folder.read_table(SET_APART, "particles").values()), ())) \
        if os.path.exists(folder.file(SET_APART)) else 0
    return apart + int((read_particle_classes(folder)["rlnClassNumber"] < 1).sum())


def read_particle_classes(folder: RunFolder) -> dict[str, np.ndarray]:
    """The particles' table; particles in no class have a class number below 1."""
    table = folder.read_table(PARTICLES, "particles")
    column(table, "rlnClassNumber", folder.file(PARTICLES))
    return table


def members_of(table: dict[str, np.ndarray], number: int, path: str, pixel_size: float) -> Members:
    """Particles of class `number` in the particles' table, the least certain first."""
    chosen = np.flatnonzero(table["rlnClassNumber"] == number)
    if not len(chosen):
        raise RunFileError(f"Class {number} has no particles.")
    confidence = np.asarray(table.get("rlnMaxValueProbDistribution", np.full(len(table["rlnClassNumber"]), np.nan)))
    chosen = chosen[np.argsort(confidence[chosen], kind="stable")]
    poses = np.column_stack([column(table, name, path)[chosen] for name in (
        "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnIsFlip")])
    names = column(table, "rlnImageName", path)[chosen]
    return Members(list(names), poses.astype(float), confidence[chosen].astype(float), pixel_size)
