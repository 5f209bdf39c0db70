"""Particle coordinates: STAR, .cs, or CSV/TSV as other programs and annotators write them."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.cryosparc import read_tables
from siamese2d_engine.io.images import image_shape
from siamese2d_engine.io.micrographs import NAME, MicrographSet, resolve, stem_of
from siamese2d_engine.io.star import write_star

LIST = "rlnMicrographCoordinates"
X, Y, SCORE = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"
TEXT_NAMES = {"micrograph": NAME, "image_name": NAME, "x": X, "x_coord": X, "y": Y, "y_coord": Y, "score": SCORE}
TEXT_ENDINGS = (".csv", ".tsv", ".txt")


def read_coordinates(path: str | os.PathLike) -> pd.DataFrame:
    """Read coordinates in pixels.

    Returns
    -------
    DataFrame
        At least `rlnMicrographName`, `rlnCoordinateX`, `rlnCoordinateY`; other columns are kept.

    Raises
    ------
    InputError
        If the file can't be read, a column is missing, a value is not a number, or there are no rows.
    """
    path = Path(path)
    table = _read_text(path) if path.suffix.lower() in TEXT_ENDINGS else _read_blocks(path)
    missing = [column for column in (NAME, X, Y) if column not in table]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}. Coordinates need the micrograph's name, x and y "
                         f"(in a CSV file: {', '.join(TEXT_NAMES)}).")
    if table.empty:
        raise InputError(f"{path}: the file holds no coordinates. Mark some particles first.")
    table = table.assign(**{NAME: table[NAME].astype(str)})
    for column in (X, Y):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        bad = np.flatnonzero(~np.isfinite(table[column]))
        if len(bad):
            raise InputError(f"{path}, row {bad[0] + 1}: {column} is not a number. Mend or remove this row.")
    return table.reset_index(drop=True)


def write_coordinates(path: str | os.PathLike, coordinates: pd.DataFrame) -> None:
    """Write coordinates as a STAR file of one block."""
    write_star(path, {"coordinates": coordinates})


def group_by_micrograph(coordinates: pd.DataFrame, micrographs: MicrographSet) -> list[pd.DataFrame]:
    """Split coordinates by micrograph, by full name, else by the file name's stem.

    Returns
    -------
    list of DataFrame
        One for each micrograph of the set, in its order; coordinates of other micrographs are left out.

    Raises
    ------
    InputError
        If no coordinate belongs to any micrograph, or one lies outside its image.
    """
    by_name = dict(tuple(coordinates.groupby(NAME, sort=False)))
    by_stem: dict[str, list[pd.DataFrame]] = {}
    for name, rows in by_name.items():
        by_stem.setdefault(stem_of(name), []).append(rows)
    empty = coordinates.iloc[:0]
    groups = []
    for full, stem in zip(micrographs.table[NAME].astype(str), micrographs.names):
        rows = by_name.get(full)
        if rows is None:
            rows = pd.concat(by_stem[stem]) if stem in by_stem else empty
        groups.append(rows.reset_index(drop=True))
    if not any(len(rows) for rows in groups):
        raise InputError(f"None of the {len(coordinates)} coordinates belongs to these micrographs: the coordinates "
                         f"name '{coordinates[NAME].iloc[0]}', the micrographs are like '{micrographs.names[0]}'. "
                         "Use coordinates of the same micrographs.")
    for path, rows in zip(micrographs.paths, groups):
        _check_inside(path, rows)
    return groups


def _check_inside(path: Path, rows: pd.DataFrame) -> None:
    if rows.empty or not path.exists():
        return
    try:
        height, width = image_shape(path)
    except InputError:
        # A damaged file is reported when its pixels are read, as one failed micrograph.
        return
    x, y = rows[X].to_numpy(), rows[Y].to_numpy()
    outside = np.flatnonzero((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5))
    if len(outside):
        first = outside[0]
        raise InputError(f"{path}: {len(outside)} of {len(rows)} coordinates lie outside this image of {width} x "
                         f"{height} pixels (first: x {x[first]:.1f}, y {y[first]:.1f}). They were probably marked at "
                         "another pixel size: scale them to this micrograph's pixels, or use the micrographs they were "
                         "marked on.")


def _read_blocks(path: Path) -> pd.DataFrame:
    blocks = read_tables(path)
    for table in blocks.values():
        if {X, Y} & set(table):
            return table
        if {NAME, LIST} <= set(table):
            return pd.concat([_of_micrograph(path, *row) for row in zip(table[NAME], table[LIST])], ignore_index=True)
    return next(iter(blocks.values()))


def _of_micrograph(path: Path, name: str, listed: str) -> pd.DataFrame:
    """Positions from the file that RELION keeps for each micrograph."""
    found = next((table for table in read_tables(resolve(str(listed), path)).values() if {X, Y} <= set(table)), None)
    if found is None:
        raise InputError(f"{path}: {listed} has no columns {X} and {Y}. Pick that micrograph again, or remove its row.")
    return found.assign(**{NAME: name})


def _read_text(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep=None, engine="python", comment="#", skipinitialspace=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.") \
            from error
    except Exception as error:
        raise InputError(f"{path}: can't be read as a table ({str(error).splitlines()[0]}).") from error
    names = {column: str(column).strip() for column in table.columns}
    return table.rename(columns={column: TEXT_NAMES.get(name.lower(), name) for column, name in names.items()})
