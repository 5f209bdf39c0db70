"""Coordinates as annotators and other programs write them: STAR, CSV or TSV."""

import csv
import os

from pyworkflow.exceptions import ValidationException

from siamese2d.star import readTable

IMAGE_ENDINGS = (".mrc", ".mrcs", ".tif", ".tiff", ".png", ".jpg", ".jpeg")
COLUMNS = {"micrograph": ("rlnmicrographname", "micrograph", "image_name"),
           "x": ("rlncoordinatex", "x", "x_coord"),
           "y": ("rlncoordinatey", "y", "y_coord")}


def readPositions(path):
    """Read coordinates in pixels.

    Parameters
    ----------
    path : str
        STAR file with RELION's columns, or a CSV/TSV file whose first line names ``micrograph``, ``x`` and ``y``.

    Returns
    -------
    list of tuple
        ``(stem of the micrograph, x, y)``.

    Raises
    ------
    ValidationException
        If the file is missing, empty, lacks a column or holds a value that is no number; the row is named.
    """
    if not os.path.isfile(path):
        raise ValidationException(f"{path}: the file does not exist. Check the path.")
    rows = list(readTable(path)) if path.endswith(".star") else _readText(path)
    if not rows:
        raise ValidationException(f"{path}: no coordinates in it. Mark some particles first.")
    names = {name: _column(path, rows[0], name) for name in COLUMNS}
    return [_position(path, number, row, names) for number, row in enumerate(rows, start=1)]


def stemOf(name):
    """Name of a micrograph without folder and image ending; other dots belong to the name."""
    base = os.path.basename(str(name))
    stem, ending = os.path.splitext(base)
    return stem if ending.lower() in IMAGE_ENDINGS else base


def _readText(path):
    with open(path, newline="", errors="replace") as stream:
        lines = [line for line in stream if line.strip() and not line.startswith("#")]
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    return list(csv.DictReader(lines, delimiter=delimiter))


def _column(path, row, name):
    for column in row:
        if column and column.strip().lower() in COLUMNS[name]:
            return column
    raise ValidationException(f"{path}: no column for {name}. The first line must name {', '.join(COLUMNS)}, or the "
                              "file must be a RELION STAR file of coordinates.")


def _position(path, number, row, names):
    try:
        return stemOf(row[names["micrograph"]]), float(row[names["x"]]), float(row[names["y"]])
    except (TypeError, ValueError):
        raise ValidationException(f"{path}, row {number}: x or y is not a number. Mend or remove this row.") from None
