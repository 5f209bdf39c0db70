"""cryoSPARC's .cs files: one NumPy structured array. Read without pickle, and without trusting what the header says."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path

UID = "uid"
# Files with dozens of alignments need some 20 kB; NumPy's own bound of 10 kB would refuse them.
LONGEST_HEADER = 2**18
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_cs(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read all fields of a .cs file, with those of its passthrough files.

    cryoSPARC writes what a job only hands on into files of the same folder with ``passthrough`` in their name; their
    rows are found by ``uid``.

    Returns
    -------
    dict of str to ndarray
        By field name, ``(n, ...)``; texts as str.

    Raises
    ------
    InputError
        If the file is missing, damaged, holds Python objects (which would be a pickle), or two rows have one uid.
    """
    path = Path(path)
    fields = _read_fields(path)
    if UID not in fields:
        raise InputError(f"{path}: no field {UID}. Give a .cs file that cryoSPARC wrote.")
    if len(set(fields[UID].tolist())) < len(fields[UID]):
        raise InputError(f"{path}: two rows have the same {UID}. Write the file again with cryoSPARC.")
    if "passthrough" in path.name:
        return fields
    for other in sorted(path.parent.glob("*passthrough*.cs")):
        fields = _joined(fields, _read_fields(other))
    return fields


def write_cs(path: str | os.PathLike, fields: dict[str, np.ndarray]) -> None:
    """Write fields as a .cs file, atomically; texts become bytes, as cryoSPARC has them."""
    columns = {name: _as_bytes(values) for name, values in fields.items()}
    kinds = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    rows = np.zeros(len(next(iter(columns.values()))), dtype=kinds)
    for name, values in columns.items():
        rows[name] = values
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.save(stream, rows, allow_pickle=False)


def _read_fields(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.")
    with open(path, "rb") as stream:
        shape, dtype = _header(path, stream)
        needed, found = int(shape[0]) * dtype.itemsize, path.stat().st_size - stream.tell()
        if found < needed:
            raise InputError(f"{path}: {found} bytes of data, but its header needs {needed}. It is truncated; copy it "
                             "again.")
        rows = np.fromfile(stream, dtype, int(shape[0]))
    if len(rows) < shape[0]:
        raise InputError(f"{path}: the file became shorter while it was read. Read it when it is complete.")
    return {name: _as_text(path, name, rows[name]) for name in dtype.names}


def _header(path: Path, stream: BinaryIO) -> tuple[tuple[int], np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        if version not in HEADER_READERS:
            raise ValueError(f"version {version} of the NumPy format")
        _check_header_length(stream, 2 if version == (1, 0) else 4)
        shape, _, dtype = HEADER_READERS[version](stream, max_header_size=LONGEST_HEADER)
    # The header is Python text, which NumPy evaluates as a literal; nonsense in it ends in any of many errors.
    except Exception as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: not a .cs file in NumPy format, or damaged ({detail}). Give a .cs file of cryoSPARC "
                         "2 or later; its newer binary format must be saved as NumPy with cryosparc-tools.") from error
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects, which could run code when they are read. Give a .cs file that "
                         "cryoSPARC wrote.")
    if dtype.names is None or len(shape) != 1 or dtype.itemsize == 0:
        raise InputError(f"{path}: an array of shape {shape} and type {dtype.str} is not a table. Give a .cs file that "
                         "cryoSPARC wrote.")
    if shape[0] < 0:
        raise InputError(f"{path}: its header says {shape[0]} rows. The file is damaged; copy it again.")
    return shape, dtype


def _check_header_length(stream: BinaryIO, size: int) -> None:
    """NumPy reads a header before it asks how long it is, so ask first."""
    start = stream.tell()
    length = int.from_bytes(stream.read(size), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    stream.seek(start)


def _as_text(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biufSU":
        raise InputError(f"{path}: the field {name} has the type {values.dtype}, which no .cs file has. Write it again "
                         "with cryoSPARC.")
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the field {name} holds bytes that are no text ({error}). The file is damaged; copy "
                         "it again.") from error


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.char.encode(values.astype(str), "utf-8") if values.dtype.kind in "OU" else values


def _joined(fields: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add what `other` has more, if it knows every row of `fields`; else it belongs to another output of the job."""
    if UID not in other or not np.isin(fields[UID], other[UID]).all():
        return fields
    order = np.argsort(other[UID])
    rows = order[np.searchsorted(other[UID], fields[UID], sorter=order)]
    return fields | {name: values[rows] for name, values in other.items() if name not in fields}
