"""Class averages of this or other programs: a STAR or .cs file that names them, or an MRC stack."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.cryosparc import read_tables
from siamese2d_engine.io.images import MRC_ENDINGS, MrcLayout
from siamese2d_engine.io.micrographs import resolve

COLUMNS = ("rlnReferenceImage", "rlnImageName")
NUMBER = "rlnClassNumber"


@dataclass(frozen=True)
class References:
    """Averages as they were found.

    Attributes
    ----------
    images
        float32, ``(K, h, w)``.
    numbers
        Of the classes, ``(K,)``: as the file says, else 1 to K.
    pixel_size
        Angstroms, from the first stack's header; None where it does not say.
    table
        Rows of the STAR file; without columns for a stack.
    """

    images: np.ndarray
    numbers: np.ndarray
    pixel_size: float | None
    table: pd.DataFrame


def read_references(path: Path) -> References:
    """Read averages from a stack, or from the STAR or .cs file of classes or averages that names them.

    Raises
    ------
    InputError
        If a file is missing or damaged, names no image, or two classes have one number.
    """
    if path.suffix.lower() in MRC_ENDINGS:
        images, pixel_size = _read_stack(path)
        numbers = np.arange(1, len(images) + 1)
        return References(images, numbers, pixel_size, pd.DataFrame(index=range(len(images))))
    found = ((block, name) for block in read_tables(path).values() for name in COLUMNS if name in block and len(block))
    table, column = next(found, (None, None))
    if table is None:
        raise InputError(f"{path}: no column {' or '.join(COLUMNS)} with images. Give classes.star of classify, or an "
                         "MRC stack of class averages.")
    places = [str(name).rpartition("@")[::2] for name in table[column]]
    stacks = {file: _read_stack(resolve(file, path)) for file in dict.fromkeys(file for _, file in places)}
    images = [_image(path, number, file, stacks[file][0]) for number, file in places]
    if len({image.shape for image in images}) > 1:
        raise InputError(f"{path}: the averages differ in size. All must have one box size.")
    numbers = table[NUMBER].to_numpy(int) if NUMBER in table else np.arange(1, len(images) + 1)
    if len(set(numbers)) < len(numbers) or numbers.min() < 1:
        raise InputError(f"{path}: {NUMBER} must be 1 or more and differ from class to class. Mend the file.")
    return References(np.stack(images), numbers, next(iter(stacks.values()))[1], table)


def _image(path: Path, number: str, file: str, stack: np.ndarray) -> np.ndarray:
    place = int(number) if number.isdigit() else 1 if not number else 0
    if not 1 <= place <= len(stack):
        raise InputError(f"{path}: {number}@{file} names no image of that stack. Write the file again.")
    return stack[place - 1]


def _read_stack(path: Path) -> tuple[np.ndarray, float | None]:
    if not path.exists():
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.")
    layout = MrcLayout.of(path)
    return layout.read(path, range(layout.shape[0])), layout.pixel_size
