"""The particles behind the dots of a map: their images, classes and poses."""

import numpy as np

from siamese2d.constants import ITEM_ID
from siamese2d.viewers.class_files import PARTICLES
from siamese2d.viewers.plots.alignment import align
from siamese2d.viewers.run_files import RunFileError, RunFolder, column, read_particles

POSE = ("rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnIsFlip")
CLASS, CONFIDENCE = "rlnClassNumber", "rlnMaxValueProbDistribution"
NO_CLASS = 0


class MapParticles:
    """The embedded particles, in the order of the embeddings.

    Parameters
    ----------
    table : dict of str to ndarray
        Columns of the particles that were embedded.
    path : str
        Where that table was read, for messages.
    pixel_size : float or None
        Angstroms.
    classification : RunFolder or None
        Run that classified these particles, matched by their ids; without one, classes and poses are those of `table`,
        where it has any.

    Attributes
    ----------
    names : ndarray of str, `(n,)`
        Images (``index@stack``).
    ids : ndarray of int, `(n,)`
        objIds.
    classes : ndarray of int, `(n,)`
        Class numbers; 0 for none.
    confidence : ndarray of float, `(n,)`
        0 to 1; NaN where it is not known.
    """

    def __init__(self, table: dict[str, np.ndarray], path: str, pixel_size: float | None,
                 classification: RunFolder | None = None):
        self.names, self.ids = column(table, "rlnImageName", path), column(table, ITEM_ID, path).astype(int)
        self.pixel_size = pixel_size
        found, ids = table, self.ids
        if classification is not None:
            found = classification.read_table(PARTICLES, "particles")
            ids = column(found, ITEM_ID, classification.file(PARTICLES)).astype(int)
        row_of = {int(item): row for row, item in enumerate(ids)}
        rows = np.array([row_of.get(item, -1) for item in self.ids.tolist()], dtype=int)
        numbers = _values(found, CLASS, rows)
        self.classes = np.where(numbers >= 1, numbers, NO_CLASS).astype(int)
        self.confidence = _values(found, CONFIDENCE, rows)
        self._poses = np.column_stack([_values(found, name, rows) for name in POSE])
        # A pose belongs to the average of a class; without one it is not known onto what it turns the image.
        self._poses[self.classes == NO_CLASS] = np.nan

    def __len__(self) -> int:
        return len(self.names)

    def aligned(self, row: int) -> bool:
        """Whether the pose of a particle is known."""
        return bool(np.isfinite(self._poses[row]).all())

    def image(self, row: int) -> np.ndarray:
        """One image, `(h, w)`, on the average of its class where the pose is known.

        Raises
        ------
        RunFileError
            If it can't be read.
        """
        image = read_particles([str(self.names[row])])[0]
        if not self.aligned(row):
            return image
        psi, x, y, flip = self._poses[row]
        return align(image, psi, (x / (self.pixel_size or 1.0), y / (self.pixel_size or 1.0)), bool(flip))

    def groups(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Some particles by their class, the largest class first and those in no class last.

        Returns
        -------
        list of (int, ndarray)
            Class number, and rows with the least certain first.
        """
        rows = rows[np.argsort(self.confidence[rows], kind="stable")]
        numbers, sizes = np.unique(self.classes[rows], return_counts=True)
        order = sorted(zip(numbers.tolist(), sizes.tolist()), key=lambda group: (group[0] == NO_CLASS, -group[1]))
        return [(number, rows[self.classes[rows] == number]) for number, _ in order]


class RunningMean:
    """Mean of images that arrive one after the other; those that can't be read are counted."""

    def __init__(self):
        self._sum, self.count, self.failed, self._problem = None, 0, 0, None

    def add(self, image: np.ndarray | Exception) -> None:
        """Take one image, or why there is none."""
        if self._sum is not None and not isinstance(image, Exception) and image.shape != self._sum.shape:
            image = RunFileError("The particles have different sizes.")
        if isinstance(image, Exception):
            self.failed += 1
            self._problem = image
            return
        self._sum = image.astype(np.float64) if self._sum is None else self._sum + image
        self.count += 1

    def mean(self) -> np.ndarray:
        """The mean.

        Raises
        ------
        RunFileError
            If no image could be read.
        """
        if self._sum is None:
            raise RunFileError(str(self._problem or "There is no image."))
        return (self._sum / self.count).astype(np.float32)


def _values(table: dict[str, np.ndarray], name: str, rows: np.ndarray) -> np.ndarray:
    """A column at some rows; NaN at row -1, and everywhere where the table does not have it."""
    if name not in table or not len(table[name]):
        return np.full(len(rows), np.nan)
    return np.where(rows >= 0, np.asarray(table[name], dtype=float)[rows], np.nan)
