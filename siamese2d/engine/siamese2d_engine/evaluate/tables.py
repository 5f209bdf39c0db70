"""Reading what was found and what is true, and bringing the two together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.matching import match_by_distance, micrograph_key
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.star import read_star
from siamese2d_engine.simulate.orientations import view_directions

MICROGRAPH, IMAGE = "rlnMicrographName", "rlnImageName"
COORDINATES = ["rlnCoordinateX", "rlnCoordinateY"]
SCORE = "rlnAutopickFigureOfMerit"
CLASS, SPECIES = "rlnClassNumber", "siamese2dSpecies"
ANGLES = ["rlnAngleRot", "rlnAngleTilt"]


def read_truth(path: Path, where: dict[str, str], scale: float) -> pd.DataFrame:
    """True coordinates from STAR or CSV.

    Parameters
    ----------
    path
        The file.
    where
        Keep only rows with these values in these columns, compared as text.
    scale
        Factor from the truth's pixels to those of the micrographs that were worked on.

    Raises
    ------
    InputError
        If the file can't be read, or no row is left.
    """
    table = filter_rows(read_coordinates(path), where, path)
    table[COORDINATES] = table[COORDINATES] * scale
    return table


def filter_rows(table: pd.DataFrame, where: dict[str, str], path: Path) -> pd.DataFrame:
    """Rows whose columns have the wanted values; InputError when a column is missing or no row is left."""
    for column, value in where.items():
        if column not in table:
            raise InputError(f"{path}: there is no column '{column}' for --where. It has: {', '.join(table.columns)}.")
        kept = table[table[column].astype(str) == value]
        if kept.empty:
            present = ", ".join(sorted(table[column].astype(str).unique())[:10])
            raise InputError(f"{path}: no row has {column}={value} (--where). Values there: {present}.")
        table = kept
    return table.reset_index(drop=True)


def read_micrograph_keys(path: Path) -> list[str]:
    """Keys of the micrographs that a STAR file lists, in order, each once."""
    table = next((block for block in read_star(path).values() if MICROGRAPH in block), None)
    if table is None:
        raise InputError(f"{path}: no column {MICROGRAPH}. Give a STAR file of micrographs.")
    return list(dict.fromkeys(micrograph_key(name) for name in table[MICROGRAPH]))


def split_by_micrograph(table: pd.DataFrame, keys: list[str]) -> list[pd.DataFrame]:
    """The rows of each micrograph, in the order of `keys`."""
    groups = dict(tuple(table.groupby(table[MICROGRAPH].map(micrograph_key), sort=False)))
    return [groups.get(key, table.iloc[:0]) for key in keys]


def pick_scores(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Scores ``(n,)`` of picks; all 0 where the file has none, so that picks keep their order."""
    if SCORE not in table:
        return np.zeros(len(table))
    return numbers(table, [SCORE], path)[:, 0]


def read_classified(path: Path) -> pd.DataFrame:
    """Rows with a class number; InputError when there are none."""
    return _block(path, lambda block: CLASS in block, f"no rows with {CLASS}. Give the particles that classify wrote.")


def read_true_particles(path: Path, where: dict[str, str], scale: float) -> pd.DataFrame:
    """Rows of the truth about images or places; see :func:`read_truth` for the arguments."""
    table = _block(
        path,
        lambda block: {IMAGE, MICROGRAPH} & set(block),
        f"no rows with {IMAGE} or {MICROGRAPH}. Give a STAR file with the truth about particles.",
    )
    table = filter_rows(table, where, path)
    if set(COORDINATES) <= set(table):
        table[COORDINATES] = numbers(table, COORDINATES, path) * scale
    return table


def _block(path: Path, wanted: Callable, otherwise: str) -> pd.DataFrame:
    table = next((block for block in read_star(path).values() if wanted(block)), None)
    if table is None or table.empty:
        raise InputError(f"{path}: {otherwise}")
    return table.reset_index(drop=True)


def numbers(table: pd.DataFrame, columns: list[str], path: Path) -> np.ndarray:
    """Columns as finite floats ``(n, len(columns))``; InputError that names the first bad row."""
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise InputError(f"{path}, row {row + 1}: {columns[column]} is not a number. Mend or remove this row.")
    return values


def class_labels(particles: pd.DataFrame, path: Path) -> np.ndarray:
    """Class numbers ``(n,)``; InputError when one is no whole number."""
    labels = numbers(particles, [CLASS], path)[:, 0]
    bad = np.flatnonzero(labels != np.round(labels))
    if len(bad):
        raise InputError(f"{path}, row {bad[0] + 1}: {CLASS} is not a whole number. Mend or remove this row.")
    return labels.astype(int)


def read_vectors(path: Path, count: int, particles: Path) -> np.ndarray:
    """Vectors ``(count, d)`` from a NumPy file; InputError when it is none, or has not a row for each particle."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist. Check --embeddings.") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: can't be read as a NumPy file. Give embeddings.npy of train.") from error
    if not isinstance(vectors, np.ndarray):
        raise InputError(f"{path}: this is an archive, not one NumPy array. Give embeddings.npy of train.")
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise InputError(
            f"{path}: {' x '.join(map(str, vectors.shape))} values, but {particles} needs finite vectors for its "
            f"{count} particles. Give the embeddings of these particles."
        )
    return vectors


def label_values(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Values ``(n,)`` of a column of classes, whole numbers as such, else as text."""
    if column not in table:
        raise InputError(f"{path}: no column {column}. Name the column of the true classes with --label.")
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    whole = np.isfinite(values).all() and (values == np.round(values)).all()
    return values.astype(int) if whole else table[column].astype(str).to_numpy()


def match_particles(particles: pd.DataFrame, truth: pd.DataFrame, radius: float | None, paths: tuple) -> np.ndarray:
    """Row of the truth for each particle.

    Images are matched by name where both tables name them, else particles by micrograph and nearest coordinate.

    Parameters
    ----------
    particles, truth
        Tables with ``rlnImageName``, or micrograph names and coordinates.
    radius
        Farthest that a particle may lie from its true place, pixels; not needed for image names.
    paths
        Of the two files, for messages.

    Returns
    -------
    ndarray
        ``(n,)``; -1 for particles that the truth does not know.

    Raises
    ------
    InputError
        If there is nothing to match by, or nothing matches.
    """
    if IMAGE in truth and IMAGE in particles:
        matched = _match_by_image(particles[IMAGE], truth[IMAGE])
        if (matched >= 0).any():
            return matched
    needed = [MICROGRAPH, *COORDINATES]
    for table, path in zip((particles, truth), paths):
        if not set(needed) <= set(table):
            raise InputError(
                f"{path}: can't tell which particle is which: no {IMAGE} that {paths[0]} and {paths[1]} share, and no "
                f"{', '.join(needed)}. Give the truth that belongs to these particles."
            )
    if radius is None:
        raise InputError("Particles are matched to the truth by their coordinates here: pass --radius in pixels.")
    matched = _match_by_place(particles, truth, radius)
    if not (matched >= 0).any():
        raise InputError(
            f"{paths[0]}: none of its particles lies within {radius:g} pixels of one in {paths[1]}. Check "
            "that both are of the same micrographs and in the same pixels (--truth-scale), and --radius."
        )
    return matched


def _match_by_image(names: pd.Series, true_names: pd.Series) -> np.ndarray:
    """By number and file name; the folder may differ, since programs copy and link stacks."""
    rows = {_image_key(name): row for row, name in reversed(list(enumerate(true_names)))}
    return np.array([rows.get(_image_key(name), -1) for name in names])


def _image_key(name: str) -> tuple[int, str]:
    number, _, file = str(name).rpartition("@")
    return int(number or 1), Path(file).name


def _match_by_place(particles: pd.DataFrame, truth: pd.DataFrame, radius: float) -> np.ndarray:
    matched = np.full(len(particles), -1)
    true_groups = truth.groupby(truth[MICROGRAPH].map(micrograph_key)).indices
    for key, rows in particles.groupby(particles[MICROGRAPH].map(micrograph_key)).indices.items():
        true_rows = true_groups.get(key, np.array([], dtype=int))
        places = particles.iloc[rows][COORDINATES].to_numpy(float)
        partners = match_by_distance(places, truth.iloc[true_rows][COORDINATES].to_numpy(float), radius)
        matched[rows[partners >= 0]] = true_rows[partners[partners >= 0]]
    return matched


def true_species(truth: pd.DataFrame, matched: np.ndarray, path: Path) -> np.ndarray:
    """Species ``(n,)`` of matched particles, 1 for all where the truth has none; 0 (junk) for the unmatched."""
    species = numbers(truth, [SPECIES], path)[:, 0].astype(int) if SPECIES in truth else np.ones(len(truth), dtype=int)
    return np.where(matched >= 0, species[matched], 0)


def true_directions(truth: pd.DataFrame, matched: np.ndarray, path: Path) -> np.ndarray | None:
    """Viewing directions ``(n, 3)``, zero for unmatched particles; None where the truth has no angles."""
    if not set(ANGLES) <= set(truth):
        return None
    rot, tilt = np.radians(numbers(truth, ANGLES, path)).T
    return np.where(matched[:, None] >= 0, view_directions(rot, tilt)[matched], 0.0)
