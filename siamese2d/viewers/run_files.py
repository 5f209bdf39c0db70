"""Reading what a run of the engine wrote: JSON, STAR tables, images. Every problem becomes a sentence for the user."""

import glob
import json
import os

import mrcfile
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError
from pyworkflow.exceptions import ValidationException

from siamese2d.star import readTable

MRC_EXTENSIONS = (".mrc", ".mrcs", ".map", ".st", ".ali", ".rec")
TIFF_EXTENSIONS = (".tif", ".tiff")
BATCHES = "batch_*"


class RunFileError(Exception):
    """A file of a run is missing or can't be read; the message says which, and what to do."""


class RunFolder:
    """The folder that one sub-command of the engine wrote, or several of them, each into a folder for its batch.

    Parameters
    ----------
    path : str
        ``extra/<stage>`` of a protocol, or its ``extra/input``.
    """

    def __init__(self, path: str):
        self.path = path

    def file(self, *parts: str) -> str:
        """Path of a file: that of the first batch that has it; where none has, of one in the folder itself."""
        return next(iter(self._found(*parts)), os.path.join(self.path, *parts))

    def read_json(self, name: str) -> dict:
        """Content of a JSON file that the stage writes; of the first batch, where there are several."""
        self._require(name)
        return read_json(self.file(name))

    def read_records(self, name: str, key: str) -> list:
        """The list `key` of a JSON file that the stage writes, all batches together."""
        self._require(name)
        return [record for path in self._found(name) for record in read_json(path).get(key) or []]

    def read_table(self, name: str, block: str | None = None) -> dict[str, np.ndarray]:
        """Columns of a STAR file that the stage writes, all batches together, see :func:`read_table`."""
        self._require(name)
        tables = [table for path in self._found(name) if (table := read_table(path, block))]
        if any(table.keys() != tables[0].keys() for table in tables):
            raise RunFileError(_damaged(self.file(name), "the tables of the batches have different columns"))
        return {column: np.concatenate([table[column] for table in tables]) for column in (tables[0] if tables else ())}

    def read_array(self, name: str) -> np.ndarray:
        """A ``.npy`` array that the stage writes, mapped into memory."""
        self._require(name)
        try:
            return np.load(self.file(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RunFileError(_damaged(self.file(name), error)) from error

    def resolve(self, path: str) -> str:
        """Path named in a STAR file of this folder: relative to the project, else to the folder of the STAR file."""
        return path if os.path.exists(path) else self.file(path)

    def status(self) -> tuple[str, str]:
        """What ``run.json`` says: status (``none`` when the run has not begun) and message."""
        if not self._found("run.json"):
            return "none", ""
        record = read_json(self.file("run.json"))
        return record.get("status", ""), record.get("message", "")

    def _found(self, *parts: str) -> list[str]:
        """Files of this name, in the order of the batches."""
        return [path for folder in ("", BATCHES) for path in sorted(glob.glob(
            os.path.join(glob.escape(self.path), folder, *map(glob.escape, parts))))]

    def _require(self, name: str) -> None:
        if self._found(name):
            return
        status, message = self.status()
        if status == "none":
            raise RunFileError("This protocol has not been run yet: there is nothing to show.")
        if status == "running":
            raise RunFileError(f"This run has not finished: {name} is not written yet. Look again later, or continue "
                               "the protocol if it was stopped.")
        if status == "failed":
            raise RunFileError(f"This run failed: {message or 'see its log'}")
        raise RunFileError(f"{self.file(name)} is missing, although the run finished: it was moved or removed. Run the "
                           "protocol again.")


def read_json(path: str) -> dict:
    """Content of a JSON file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise RunFileError(_damaged(path, error)) from error


def read_table(path: str, block: str | None = None) -> dict[str, np.ndarray]:
    """Columns of one block of a STAR file: numbers as float64, everything else as text.

    Parameters
    ----------
    path : str
        The STAR file.
    block : str, optional
        Name of the block without ``data_``; the first block when not given.

    Returns
    -------
    dict of str to ndarray
        Empty when the table has no rows.
    """
    try:
        rows = list(readTable(path, block))
    except (OSError, ValueError, ValidationException) as error:
        raise RunFileError(_damaged(path, error)) from error
    names = list(rows[0]) if rows else []
    if any(len(row) != len(names) for row in rows):
        raise RunFileError(_damaged(path, "a row is shorter than the others"))
    return {name: _column([row[name] for row in rows]) for name in names}


def column(table: dict[str, np.ndarray], name: str, path: str) -> np.ndarray:
    """A column that must be there."""
    if name not in table:
        raise RunFileError(f"{path} has no column {name}. Run the protocol again.")
    return table[name]


def read_micrograph(path: str) -> np.ndarray:
    """One image as float32, `(h, w)`, from MRC, TIFF or what Pillow reads; files are only opened for reading.

    Raises
    ------
    RunFileError
        If it is missing, damaged, or no single image.
    """
    if not os.path.exists(path):
        raise RunFileError(f"{path} is missing.")
    try:
        image = np.asarray(_read_any(path))
    except (OSError, ValueError, UnidentifiedImageError, tifffile.TiffFileError) as error:
        raise RunFileError(_damaged(path, error)) from error
    image = image[0] if image.ndim == 3 and len(image) == 1 else image
    if image.ndim != 2:
        raise RunFileError(f"{path} holds no single grey image, but an array of shape {image.shape}.")
    return image.astype(np.float32)


def image_or_reason(path: str) -> np.ndarray | str:
    """The image of :func:`read_micrograph`, or the sentence that says why it can't be shown."""
    try:
        return read_micrograph(path)
    except RunFileError as problem:
        return str(problem)


def read_stack(path: str, indices) -> np.ndarray:
    """Images of an MRC stack as float32, `(len(indices), h, w)`; only those are read.

    Parameters
    ----------
    path : str
        MRC file, opened for reading only.
    indices : sequence of int
        Counted from 0.
    """
    if not os.path.exists(path):
        raise RunFileError(f"{path} is missing.")
    try:
        with mrcfile.mmap(path, mode="r", permissive=True) as mrc:
            if mrc.data is None:
                raise ValueError("truncated, or not MRC")
            data = mrc.data if mrc.data.ndim == 3 else mrc.data[np.newaxis]
            return np.stack([data[index].astype(np.float32) for index in indices])
    except (OSError, ValueError, IndexError) as error:
        raise RunFileError(_damaged(path, error)) from error


def read_particles(names, resolve=lambda path: path) -> np.ndarray:
    """Particle images named as in ``rlnImageName`` (``3@stack.mrcs``), float32 `(n, h, w)`.

    Parameters
    ----------
    names : sequence of str
        Index (from 1) and stack of each particle.
    resolve : callable
        Turns the path of a stack into one that exists.
    """
    places = [split_image_name(name) for name in names]
    images: list[np.ndarray | None] = [None] * len(places)
    for stack in dict.fromkeys(path for _, path in places):
        rows = [row for row, (_, path) in enumerate(places) if path == stack]
        for row, image in zip(rows, read_stack(resolve(stack), [places[row][0] - 1 for row in rows])):
            images[row] = image
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise RunFileError(f"The particles have different sizes: {sorted(shapes)}.")
    return np.stack(images)


def split_image_name(name: str) -> tuple[int, str]:
    """Index (from 1) and path of a name such as ``000003@stack.mrcs``; a path alone is its first image."""
    index, at, path = name.partition("@")
    if not at:
        return 1, name
    if not index.isdigit() or int(index) < 1:
        raise RunFileError(f"{name} is not the name of an image in a stack (NUMBER@FILE).")
    return int(index), path


def _read_any(path: str):
    extension = os.path.splitext(path)[1].lower()
    if extension in MRC_EXTENSIONS:
        with mrcfile.mmap(path, mode="r", permissive=True) as mrc:
            if mrc.data is None:
                raise ValueError("truncated, or not MRC")
            return np.array(mrc.data)
    if extension in TIFF_EXTENSIONS:
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


def _column(values: list[str]) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        return np.array(values, dtype=object)


def _damaged(path: str, error: Exception | str) -> str:
    return f"{path} can't be read ({error}): it is damaged, or not what its name says."
