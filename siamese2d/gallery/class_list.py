"""The classes of a Scipion set as arrays, read by a few queries: a million members are never looped over."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from siamese2d.constants import ATTR_CLASS_SIZE, ATTR_CONFIDENCE, ATTR_QUALITY, ATTR_RESOLUTION
from siamese2d.gallery.relion_model import model_resolutions

# Names of the same property in the sets of this plugin and of others, ours first; compared without case.
SIZE = (ATTR_CLASS_SIZE,)
RESOLUTION = (ATTR_RESOLUTION, "_rlnEstimatedResolution", "_resolution")
# RELION tells how precisely the rotations of a class are known; 999 stands for "not at all".
ACCURACY, NO_ACCURACY = ("_rlnAccuracyRotations",), 999.0
QUALITY = (ATTR_QUALITY, "_rlnPredictedClassScore", "_rlnClassScore", "_cmScore")
CONFIDENCE = (ATTR_CONFIDENCE, "_rlnMaxValueProbDistribution", "_xmipp_maxCC", "_maxCC")
STREAM_OPEN = "1"
LOCK_SECONDS = 5


class SetFileError(Exception):
    """The file of a set can't be read; the message says which, and what to do."""


@dataclass(frozen=True)
class ClassList:
    """The classes of a SetOfClasses2D, or the images of a SetOfAverages, in the order of their ids.

    Attributes
    ----------
    ids : ndarray of int, `(k,)`
        objIds: the class numbers.
    sizes, resolutions, qualities, accuracies : ndarray of float, `(k,)`
        Members; angstroms; score (higher is better); degrees to which rotations are known (lower is better, RELION's
        classes only). NaN where it is not known.
    enabled : ndarray of bool, `(k,)`
        False for those that were disabled by hand in another viewer.
    pictures : list of (int, str) or None, `(k,)`
        Index from 1 and file of each average; None for a class without one.
    pixel_size : float or None
        Angstroms per pixel of the averages.
    has_members : bool
        Whether the set lists the members of its classes.
    streaming : bool
        Whether the set is still growing.
    """

    ids: np.ndarray
    sizes: np.ndarray
    resolutions: np.ndarray
    qualities: np.ndarray
    accuracies: np.ndarray
    enabled: np.ndarray
    pictures: list[tuple[int, str] | None]
    pixel_size: float | None
    has_members: bool
    streaming: bool

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def particles(self) -> int:
        """Members of all classes whose size is known."""
        return int(np.nansum(self.sizes))

    def rows_of(self, ids) -> np.ndarray:
        """Positions of these ids."""
        return np.flatnonzero(np.isin(self.ids, list(ids)))


@dataclass(frozen=True)
class MemberList:
    """The members of one class, the least certain first.

    Attributes
    ----------
    ids : ndarray of int, `(n,)`
    confidence : ndarray of float, `(n,)`
        NaN where it is not known.
    """

    ids: np.ndarray
    confidence: np.ndarray


def read_class_list(path: str) -> ClassList:
    """The classes or averages in the file of a set.

    Parameters
    ----------
    path : str
        SQLite file of a SetOfClasses2D or of a SetOfAverages.

    Raises
    ------
    SetFileError
        If it is missing, or no such file.
    """
    with _connect(path) as connection:
        columns = _columns(connection, "")
        has_members = (_property(connection, "self") or "").startswith("SetOfClasses")
        image = "_representative." if has_members else ""
        wanted = {"index": f"{image}_index", "file": f"{image}_filename", "pixel": f"{image}_samplingRate",
                  "class_pixel": "_samplingRate", "size": "_size" if has_members else _known(columns, SIZE),
                  "resolution": _known(columns, RESOLUTION), "quality": _known(columns, QUALITY),
                  "accuracy": _known(columns, ACCURACY)}
        rows = _select(connection, "", columns, {"id": "id", "enabled": "enabled"}, wanted, "ORDER BY id")
        if has_members:
            # An open set may not have written the sizes yet; a count of an empty table costs nothing.
            rows = [{**row, "size": row["size"] or _count(connection, class_prefix(row["id"]))} for row in rows]
        streaming = _property(connection, "_streamState") == STREAM_OPEN
        pixel_size = next((row[key] for row in rows for key in ("pixel", "class_pixel") if row[key]), None)
        pixel_size = pixel_size or _number(_property(connection, "_samplingRate"))
    pictures = [_location(row["index"], row["file"]) for row in rows]
    resolutions = _floats(rows, "resolution")
    if np.isnan(resolutions).all():
        resolutions = model_resolutions(pictures)
    return ClassList(np.array([row["id"] for row in rows], dtype=int), _floats(rows, "size"), resolutions,
                     _floats(rows, "quality"), _accuracies(rows),
                     np.array([bool(row["enabled"]) for row in rows], dtype=bool), pictures, pixel_size, has_members,
                     streaming)


class Members:
    """Reads the members of the classes of one SetOfClasses2D, each class when it is asked for.

    One thread uses an object at a time.

    Parameters
    ----------
    path : str
        SQLite file of the set.
    """

    def __init__(self, path: str):
        self.path = path

    def of(self, class_id: int) -> MemberList:
        """Members of a class, the least certain first.

        Raises
        ------
        SetFileError
            If the file can't be read, or there is no such class.
        """
        with _connect(self.path) as connection:
            prefix = class_prefix(class_id)
            columns = _columns(connection, prefix)
            rows = _select(connection, prefix, columns, {"id": "id"}, {"confidence": _known(columns, CONFIDENCE)},
                           "ORDER BY id")
            if not rows and not connection.execute("SELECT 1 FROM Objects WHERE id = ?", (int(class_id),)).fetchone():
                raise SetFileError(f"{self.path} has no class {class_id} any more.")
        ids, confidence = np.array([row["id"] for row in rows], dtype=int), _floats(rows, "confidence")
        order = np.argsort(confidence, kind="stable")
        return MemberList(ids[order], confidence[order])

    def places(self, class_id: int, ids) -> list[tuple[tuple[int, str] | None, np.ndarray]]:
        """Where the images of some members are, and the maps onto their average.

        Returns
        -------
        list of ((int, str) or None, ndarray)
            Index from 1 and file; map in pixels, `(4, 4)`, the identity where the set has none.
        """
        with _connect(self.path) as connection:
            prefix = class_prefix(class_id)
            columns = _columns(connection, prefix)
            chosen = ",".join(str(int(member)) for member in ids)
            rows = {row["id"]: row for row in _select(
                connection, prefix, columns, {"id": "id"},
                {"index": "_index", "file": "_filename", "matrix": "_transform._matrix"}, f"WHERE id IN ({chosen})")}
        missing = {"index": None, "file": None, "matrix": None}
        found = [rows.get(int(member), missing) for member in ids]
        return [(_location(row["index"], row["file"]), _matrix(row["matrix"])) for row in found]


def read_assignment(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Which particle is in which class.

    Parameters
    ----------
    path : str
        SQLite file of a SetOfClasses2D.

    Returns
    -------
    particles, classes : ndarray of int, `(n,)`
        objIds of the particles, ascending, and of their classes.
    """
    with _connect(path) as connection:
        classes = _ids(connection, "")
        members = [_ids(connection, class_prefix(number)) for number in classes]
    particles = np.concatenate([np.empty(0, dtype=int), *members])
    labels = np.repeat(np.array(classes, dtype=int), [len(ids) for ids in members])
    order = np.argsort(particles, kind="stable")
    return particles[order], labels[order]


def class_prefix(class_id: int) -> str:
    """What the names of the tables of a class begin with."""
    return f"Class{int(class_id):03d}_"


@contextmanager
def _connect(path: str) -> Iterator[sqlite3.Connection]:
    if not path or not os.path.exists(path):
        raise SetFileError(f"{path}: the file of this set is missing. Run the protocol that makes it again.")
    connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=LOCK_SECONDS)
    try:
        yield connection
    except sqlite3.Error as error:
        raise SetFileError(f"{path} can't be read ({error}): if a protocol is writing it, look again later; else it is "
                           "damaged, or not the file of such a set.") from error
    finally:
        connection.close()


def _quoted(path: str) -> str:
    return os.path.abspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


# Scipion writes the tables of a set, and those of each class, with its first item: without them, there is none.
def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def _columns(connection: sqlite3.Connection, prefix: str) -> dict[str, str]:
    if not _has_table(connection, f"{prefix}Objects"):
        return {}
    return dict(connection.execute(f"SELECT label_property, column_name FROM {prefix}Classes"))


def _ids(connection: sqlite3.Connection, prefix: str) -> np.ndarray:
    if not _has_table(connection, f"{prefix}Objects"):
        return np.empty(0, dtype=int)
    return np.fromiter((row[0] for row in connection.execute(f"SELECT id FROM {prefix}Objects ORDER BY id")), dtype=int)


def _known(columns: dict[str, str], names: tuple[str, ...]) -> str:
    lower = {name.lower(): name for name in columns}
    return next((lower[name.lower()] for name in names if name.lower() in lower), "")


def _select(connection, prefix, columns, plain, wanted, tail) -> list[dict]:
    if not columns:
        return []
    # A column that the set does not have reads as NULL.
    terms = [*plain.values(), *(columns.get(label, "NULL") for label in wanted.values())]
    rows = connection.execute(f"SELECT {', '.join(terms)} FROM {prefix}Objects {tail}")
    return [dict(zip([*plain, *wanted], row)) for row in rows]


def _count(connection: sqlite3.Connection, prefix: str) -> int:
    if not _has_table(connection, f"{prefix}Objects"):
        return 0
    return connection.execute(f"SELECT COUNT(*) FROM {prefix}Objects").fetchone()[0]


def _property(connection: sqlite3.Connection, key: str) -> str | None:
    if not _has_table(connection, "Properties"):
        return None
    row = connection.execute("SELECT value FROM Properties WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def _floats(rows: list[dict], key: str) -> np.ndarray:
    values = np.array([np.nan if row[key] is None else float(row[key]) for row in rows], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)


def _accuracies(rows: list[dict]) -> np.ndarray:
    values = _floats(rows, "accuracy")
    return np.where(values < NO_ACCURACY, values, np.nan)


def _number(text: str | None) -> float | None:
    try:
        return float(text) or None
    except (TypeError, ValueError):
        return None


def _location(index, path) -> tuple[int, str] | None:
    return (max(int(index or 1), 1), path) if path else None


def _matrix(text: str | None) -> np.ndarray:
    return np.array(json.loads(text), dtype=float) if text else np.eye(4)
