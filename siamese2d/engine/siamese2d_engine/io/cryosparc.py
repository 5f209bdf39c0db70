"""cryoSPARC's tables as RELION's, and back, with nothing lost on the way.

What both programs know is converted. Every other cryoSPARC field travels as a column ``cs__<slot>__<field>`` (vectors:
``..__0``, ``..__1``), every other RELION column as a field ``relion/<column>`` or ``relion_optics/<column>``.

Conventions, each checked in the tests by averaging with what was written: ``alignments2D/pose`` is ``rlnAnglePsi`` in
radians, ``alignments2D/shift`` is the origin ``(x, y)`` in pixels of ``alignments2D/psize_A``, classes and halves count
from 0, ``micrograph_shape`` is ``(height, width)``. cryoSPARC has no mirrored alignments: see `export.mirrors`.
``blob/sign`` is -1 for particles that are dark on light; images of such rows are read multiplied by it.
"""

import hashlib
import os
import re
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path
from siamese2d_engine.io.cs_file import UID, read_cs, write_cs
from siamese2d_engine.io.star import read_star

CS_ENDING = ".cs"
GROUP, GROUP_NAME = "rlnOpticsGroup", "rlnOpticsGroupName"
IMAGE, MICROGRAPH = "rlnImageName", "rlnMicrographName"
X, Y = "rlnCoordinateX", "rlnCoordinateY"
CLASS, HALF, PSI = "rlnClassNumber", "rlnRandomSubset", "rlnAnglePsi"
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
TILTS = ("rlnBeamTiltX", "rlnBeamTiltY")
PREFIX = "cs__"
SIGN = "cs__blob__sign"
RADIANS = 180 / np.pi
# Field, column, and what the field is multiplied by to become the column.
CTF = (
    ("ctf/df1_A", "rlnDefocusU", 1.0),
    ("ctf/df2_A", "rlnDefocusV", 1.0),
    ("ctf/df_angle_rad", "rlnDefocusAngle", RADIANS),
    ("ctf/phase_shift_rad", "rlnPhaseShift", RADIANS),
    ("ctf/bfactor", "rlnCtfBfactor", 1.0),
    ("ctf/scale", "rlnCtfScalefactor", 1.0),
)
MICROSCOPE = (
    ("ctf/accel_kv", "rlnVoltage"),
    ("ctf/cs_mm", "rlnSphericalAberration"),
    ("ctf/amp_contrast", "rlnAmplitudeContrast"),
)
POSTERIOR = ("alignments2D/class_posterior", "rlnMaxValueProbDistribution")
SPLITS = ("alignments3D/split", "alignments2D/split")
# Fields with one number per row.
SCALARS = {field for field, *_ in (*CTF, *MICROSCOPE)} | {
    UID, "blob/idx", "blob/sign", "blob/psize_A", "micrograph_blob/psize_A", "ctf/exp_group_id",
    "mscope_params/exp_group_id", "location/exp_group_id", "location/center_x_frac", "location/center_y_frac",
    "alignments2D/psize_A", "alignments2D/pose", "alignments2D/class", POSTERIOR[0], *SPLITS,
}
# 1 mm of spherical aberration in angstroms, times 1 milliradian.
ANGSTROMS_PER_MM = 1e7


def read_tables(path: str | os.PathLike) -> dict[str, pd.DataFrame]:
    """Blocks of a STAR file, or of a .cs file: ``optics``, and ``particles``, ``micrographs`` or ``coordinates``.

    Raises
    ------
    InputError
        If the file can't be read.
    """
    path = Path(path)
    return _tables(path, read_cs(path)) if path.suffix == CS_ENDING else read_star(path)


def write_particles_cs(path: str | os.PathLike, table: pd.DataFrame, optics: pd.DataFrame, box: int) -> dict:
    """Write particles, with classes and 2D alignments as far as they have them.

    Parameters
    ----------
    path : path
        The .cs file.
    table, optics : DataFrame
        RELION's columns; image names that are not absolute are taken relative to the working directory.
    box : int
        Width of the images in pixels.

    Returns
    -------
    dict of str to ndarray
        The fields that were written.
    """
    fields, left = _carried_fields(table)
    parts = left.pop(IMAGE).astype(str).str.extract(r"^(?:(\d+)@)?(.+)$")
    fields.setdefault(UID, _identifiers(table[IMAGE].astype(str)))
    fields.setdefault("blob/path", _absolute(parts[1]))
    fields["blob/idx"] = pd.to_numeric(parts[0]).fillna(1).to_numpy(np.uint32) - np.uint32(1)
    fields["blob/shape"] = np.full((len(table), 2), box, np.uint32)
    fields.setdefault("blob/sign", np.ones(len(table), np.float32))
    _put_optics(fields, left, optics, "blob/psize_A", "rlnImagePixelSize")
    _put_scaled(fields, left, CTF)
    _put_alignment(fields, left)
    _put_location(fields, left)
    _put_rest(fields, left)
    write_cs(path, fields)
    return fields


def write_micrographs_cs(path: str | os.PathLike, table: pd.DataFrame, optics: pd.DataFrame,
                         shapes: np.ndarray) -> dict:
    """Write micrographs with their CTF; `shapes` is ``(n, 2)``, height and width. Returns the fields."""
    fields, left = _carried_fields(table)
    names = left.pop(MICROGRAPH).astype(str)
    fields.setdefault(UID, _identifiers(names))
    fields.setdefault("micrograph_blob/path", _absolute(names))
    fields["micrograph_blob/idx"] = np.zeros(len(table), np.uint32)
    fields["micrograph_blob/shape"] = np.asarray(shapes, np.uint32)
    fields.setdefault("micrograph_blob/is_background_subtracted", np.zeros(len(table), np.uint32))
    _put_optics(fields, left, optics, "micrograph_blob/psize_A", "rlnMicrographPixelSize")
    for field in ("accel_kv", "cs_mm"):
        if f"ctf/{field}" in fields:
            fields[f"mscope_params/{field}"] = fields[f"ctf/{field}"]
    fields["mscope_params/exp_group_id"] = fields["ctf/exp_group_id"]
    _put_scaled(fields, left, CTF)
    _put_rest(fields, left)
    write_cs(path, fields)
    return fields


def write_coordinates_cs(path: str | os.PathLike, table: pd.DataFrame, shapes: np.ndarray,
                         pixel_sizes: np.ndarray) -> dict:
    """Write positions; `shapes` ``(n, 2)`` and `pixel_sizes` ``(n,)`` are those of each row's micrograph."""
    fields, left = _carried_fields(table)
    fields.setdefault(UID, _identifiers(table[MICROGRAPH].astype(str) + "\n" + table[X].astype(str) + "\n"
                                        + table[Y].astype(str) + "\n" + table.index.astype(str)))
    fields["location/micrograph_shape"] = np.asarray(shapes, np.uint32)
    fields["location/micrograph_psize_A"] = np.asarray(pixel_sizes, np.float32)
    _put_location(fields, left)
    _put_rest(fields, left)
    write_cs(path, fields)
    return fields


def write_templates_cs(path: str | os.PathLike, rows: pd.DataFrame, stack: Path, box: int, pixel_size: float) -> dict:
    """Write the averages of classes, image n of `stack` being that of class n. Returns the fields."""
    count = len(rows)
    fields = {
        UID: _identifiers(rows["rlnReferenceImage"].astype(str)),
        "blob/path": np.full(count, str(Path(stack).absolute())),
        "blob/idx": (rows[CLASS].to_numpy(int) - 1).astype(np.uint32),
        "blob/shape": np.full((count, 2), box, np.uint32),
        "blob/psize_A": np.full(count, pixel_size, np.float32),
    }
    left = rows.drop(columns=["rlnReferenceImage", CLASS])
    if "rlnEstimatedResolution" in left:
        fields["blob/res_A"] = left.pop("rlnEstimatedResolution").to_numpy(np.float32)
    _put_rest(fields, left)
    write_cs(path, fields)
    return fields


def write_group(path: str | os.PathLike, kind: str, metafile: str, fields: dict[str, np.ndarray], title: str) -> None:
    """Write the .csg file by which cryoSPARC's job *Import Result Group* takes a .cs file of the same folder.

    Parameters
    ----------
    path : path
        The .csg file.
    kind : str
        ``particle``, ``exposure`` or ``template``.
    metafile : str
        Name of the .cs file.
    fields : dict
        What it holds.
    title : str
        Shown by cryoSPARC.
    """
    slots = sorted({name.split("/")[0] for name in fields if "/" in name and not name.startswith("relion")})
    rows = len(fields[UID])
    created = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
    lines = [f"created: {created}", "group:", f"  description: {title}", f"  name: {kind}s",
             f"  title: {title}", f"  type: {kind}", "results:"]
    for slot in slots:
        lines += [f"  {slot}:", f"    metafile: '>{metafile}'", f"    num_items: {rows}", f"    type: {kind}.{slot}"]
    with atomic_path(path) as partial:
        partial.write_text("\n".join([*lines, "version: v4.0.0", ""]), encoding="utf-8")


# --------------------------- reading -----------------------------------------------------
def _tables(path: Path, fields: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    fields, columns = dict(fields), {}
    if not len(fields[UID]):
        raise InputError(f"{path}: the file has no rows. Give a .cs file with particles or micrographs.")
    for field in SCALARS & set(fields):
        if fields[field].ndim != 1 or fields[field].dtype.kind not in "biuf":
            raise InputError(f"{path}: the field {field} is not one number per row. Write the file again with "
                             "cryoSPARC.")
    kind = _take_names(path, fields, columns)
    _take_location(path, fields, columns)
    for field, column, factor in CTF:
        if field in fields:
            columns[column] = fields.pop(field).astype(float) * factor
    _take_alignment(fields, columns)
    size = ("micrograph_blob/psize_A", "rlnMicrographPixelSize") if kind == "micrographs" else \
        ("blob/psize_A", "rlnImagePixelSize")
    optics = _take_optics(path, fields, columns, size)
    for field in list(fields):
        columns.update(_carried_columns(path, field, fields.pop(field)))
    return {"optics": optics, kind: pd.DataFrame(columns)}


def _take_names(path: Path, fields: dict, columns: dict) -> str:
    """Take the names of the images; tells what the rows are."""
    if "blob/path" in fields:
        found = _take_path(path, "blob/path", fields)
        numbers = fields.pop("blob/idx", np.zeros(len(found), int)).astype(np.int64) + 1
        columns[IMAGE] = [f"{number:06d}@{name}" for number, name in zip(numbers, found)]
        fields.pop("blob/shape", None)
        return "particles"
    if "micrograph_blob/path" in fields:
        columns[MICROGRAPH] = _take_path(path, "micrograph_blob/path", fields)
        fields.pop("micrograph_blob/shape", None)
        fields.pop("micrograph_blob/idx", None)
        return "micrographs"
    if "location/center_x_frac" in fields:
        return "coordinates"
    raise InputError(f"{path}: neither images (blob/path), micrographs (micrograph_blob/path) nor positions "
                     "(location/center_x_frac). Give a .cs file of particles or micrographs, beside its passthrough "
                     "file.")


def _take_path(path: Path, field: str, fields: dict) -> list[str]:
    """Names of files as they are found from here; the given ones stay in `fields` where they differ."""
    given = [str(name).removeprefix(">") for name in fields.pop(field).tolist()]
    places = {name: _found(name, path) for name in dict.fromkeys(given)}
    found = [places[name] for name in given]
    if found != given:
        fields[field] = np.array(given)
    return found


def _found(name: str, path: Path) -> str:
    """cryoSPARC's paths start at the project, whose jobs are the folders of the .cs files; those of exports at
    these."""
    folders = (Path(), path.parent, path.parent.parent)
    return next((str(folder / name) for folder in folders if name and (folder / name).exists()), name)


def _take_location(path: Path, fields: dict, columns: dict) -> None:
    if "location/micrograph_path" in fields:
        columns[MICROGRAPH] = _take_path(path, "location/micrograph_path", fields)
    shape = fields.get("location/micrograph_shape")
    if {"location/center_x_frac", "location/center_y_frac"} <= set(fields) and shape is not None and shape.ndim == 2 \
            and shape.shape[1] == 2:
        columns[X] = fields.pop("location/center_x_frac").astype(float) * shape[:, 1]
        columns[Y] = fields.pop("location/center_y_frac").astype(float) * shape[:, 0]


def _take_alignment(fields: dict, columns: dict) -> None:
    shift = fields.get("alignments2D/shift", np.zeros(0))
    size = fields.get("alignments2D/psize_A", fields.get("blob/psize_A"))
    if size is not None and shift.ndim == 2 and shift.shape[1] == 2:
        for axis, column in enumerate(ORIGINS):
            columns[column] = shift[:, axis].astype(float) * size
        del fields["alignments2D/shift"]
        fields.pop("alignments2D/psize_A", None)
    if "alignments2D/pose" in fields:
        columns[PSI] = fields.pop("alignments2D/pose") * RADIANS
    if "alignments2D/class" in fields:
        columns[CLASS] = fields.pop("alignments2D/class").astype(np.int64) + 1
    if POSTERIOR[0] in fields:
        columns[POSTERIOR[1]] = fields.pop(POSTERIOR[0])
    split = next((field for field in SPLITS if field in fields), None)
    if split:
        columns[HALF] = fields.pop(split).astype(np.int64) + 1


def _take_optics(path: Path, fields: dict, columns: dict, size: tuple[str, str]) -> pd.DataFrame:
    """One optics group for each combination of exposure group, microscope, pixel size and beam tilt."""
    names = ("ctf/exp_group_id", "mscope_params/exp_group_id", "location/exp_group_id")
    given = next((fields[name] for name in names if name in fields), np.ones(len(fields[UID]), int))
    keys = {"given": given.astype(np.int64)}
    keys |= {column: fields.pop(field) for field, column in (*MICROSCOPE, size) if field in fields}
    keys |= _take_tilt(fields, keys.get("rlnSphericalAberration"))
    for field in [field for field in fields if field.startswith("relion_optics/")]:
        keys[_plain(path, field.removeprefix("relion_optics/"))] = fields.pop(field)
    keys = pd.DataFrame({name: _single(path, name, values) for name, values in keys.items()})
    groups = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    optics = keys.loc[np.unique(groups, return_index=True)[1]].reset_index(drop=True)
    ids = optics.pop("given")
    numbers = ids if ids.is_unique and ids.min() >= 1 else pd.Series(range(1, len(optics) + 1))
    columns[GROUP] = numbers.to_numpy(np.int64)[groups]
    if numbers is ids:
        fields.pop("ctf/exp_group_id", None)
    optics = optics.drop(columns=[GROUP], errors="ignore")
    optics.insert(0, GROUP, numbers.to_numpy(np.int64))
    if GROUP_NAME not in optics:
        optics.insert(1, GROUP_NAME, [f"opticsGroup{number}" for number in numbers])
    return optics.sort_values(GROUP, ignore_index=True)


def _take_tilt(fields: dict, aberration: np.ndarray | None) -> dict[str, np.ndarray]:
    """Beam tilt in milliradians of the shift in angstroms that it makes; it stays as it is where Cs is 0."""
    tilt = fields.get("ctf/tilt_A")
    if tilt is None or aberration is None or tilt.ndim != 2 or tilt.shape[1] != 2 or not (aberration > 0).all():
        return {}
    ratio = tilt.astype(float) / (ANGSTROMS_PER_MM * aberration.astype(float)[:, None])
    if not (np.abs(ratio) < 1).all():
        return {}
    del fields["ctf/tilt_A"]
    milliradians = np.arcsin(ratio) * 1e3
    return {column: milliradians[:, axis] for axis, column in enumerate(TILTS)}


def _carried_columns(path: Path, field: str, values: np.ndarray) -> dict[str, np.ndarray]:
    if field.startswith("relion/"):
        name = _plain(path, field.removeprefix("relion/"))
    else:
        name = PREFIX + "__".join(_plain(path, part) for part in field.split("/"))
    if values.dtype.kind == "b":
        values = values.astype(int)
    if values.ndim == 1:
        return {name: values}
    flat = values.reshape(len(values), -1)
    return {f"{name}__{place}": flat[:, place] for place in range(flat.shape[1])}


def _plain(path: Path, name: str) -> str:
    """A name of which the column of a STAR file can be made."""
    if not re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", name):
        raise InputError(f"{path}: the field '{name}' has a name that can't become a column. Remove it from the file, "
                         "for instance with cryosparc-tools.")
    return name


def _single(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1:
        raise InputError(f"{path}: {name} has {values[0].size} values per row instead of one. Write the file again "
                         "with cryoSPARC.")
    return values


# --------------------------- writing -----------------------------------------------------
def _carried_fields(table: pd.DataFrame) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Fields that came from cryoSPARC, and the table of the other columns."""
    parts: dict[str, list[str]] = {}
    for column in table.columns:
        if column.startswith(PREFIX):
            field = column.removeprefix(PREFIX).split("__")
            parts.setdefault("/".join(field[:-1] if field[-1].isdigit() else field), []).append(column)
    fields = {}
    for field, columns in parts.items():
        columns = sorted(columns, key=lambda name: int(name.rpartition("__")[2]) if len(columns) > 1 else 0)
        values = [_narrow(field, table[column]) for column in columns]
        is_vector = columns[0].rpartition("__")[2].isdigit()
        fields[field] = np.stack(values, axis=1) if is_vector else values[0]
    return fields, table.drop(columns=[name for names in parts.values() for name in names])


def _narrow(field: str, values: pd.Series) -> np.ndarray:
    """Values in the types that cryoSPARC uses."""
    if field == UID or field.endswith(("_uid", "import_sig")):
        return values.to_numpy(np.uint64)
    if values.dtype.kind == "f":
        return values.to_numpy(np.float32)
    if values.dtype.kind in "iu":
        small = len(values) and values.min() >= 0 and values.max() < 2**32
        return values.to_numpy(np.uint32) if small else values.to_numpy()
    return values.fillna("").to_numpy(str)


def _identifiers(names: pd.Series) -> np.ndarray:
    """The same name has the same identifier in every export; rows with one name are told apart by their order."""
    twins = names.groupby(names).cumcount()
    names = names.where(twins == 0, names + "\n" + twins.astype(str))
    return np.array([int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names], np.uint64)


def _absolute(names: pd.Series) -> np.ndarray:
    places = {name: str(Path(name).absolute()) if Path(name).exists() else name for name in names.unique()}
    return names.map(places).to_numpy(str)


def _put_optics(fields: dict, left: pd.DataFrame, optics: pd.DataFrame, size_field: str, size_column: str) -> None:
    groups = left.pop(GROUP)
    rows = optics.set_index(GROUP).loc[groups]
    fields.setdefault("ctf/exp_group_id", groups.to_numpy(np.uint32))
    for field, column in (*MICROSCOPE, (size_field, size_column)):
        if column in rows:
            fields[field] = rows.pop(column).to_numpy(np.float32)
    if set(TILTS) <= set(rows) and "ctf/cs_mm" in fields:
        tilt = np.sin(rows[list(TILTS)].to_numpy(float) * 1e-3) * ANGSTROMS_PER_MM * fields["ctf/cs_mm"][:, None]
        fields["ctf/tilt_A"] = tilt.astype(np.float32)
        rows = rows.drop(columns=list(TILTS))
    for column in rows:
        fields[f"relion_optics/{column}"] = _wide(rows[column])


def _put_scaled(fields: dict, left: pd.DataFrame, scaled: tuple) -> None:
    """Put the CTF, with neutral values in the parts of its slot that nobody measured, as cryoSPARC's imports have."""
    for field, column, factor in scaled:
        if column in left:
            fields[field] = (left.pop(column).to_numpy(float) / factor).astype(np.float32)
    if "ctf/df1_A" not in fields:
        return
    rows = len(fields["ctf/df1_A"])
    fields.setdefault("ctf/df2_A", fields["ctf/df1_A"])
    fields.setdefault("ctf/type", np.full(rows, "imported"))
    fields.setdefault("ctf/scale", np.ones(rows, np.float32))
    for name, width in (("df_angle_rad", 0), ("phase_shift_rad", 0), ("scale_const", 0), ("bfactor", 0), ("shift_A", 2),
                        ("tilt_A", 2), ("trefoil_A", 2), ("tetra_A", 4), ("anisomag", 4)):
        fields.setdefault(f"ctf/{name}", np.zeros((rows, width) if width else rows, np.float32))


def _put_alignment(fields: dict, left: pd.DataFrame) -> None:
    if set(ORIGINS) <= set(left):
        origins = np.stack([left.pop(column).to_numpy(float) for column in ORIGINS], axis=1)
        fields["alignments2D/shift"] = (origins / fields["blob/psize_A"][:, None]).astype(np.float32)
        fields["alignments2D/psize_A"] = fields["blob/psize_A"]
    if PSI in left:
        fields["alignments2D/pose"] = np.radians(left.pop(PSI).to_numpy(float)).astype(np.float32)
    # Particles in no class have no number there: then the column travels as RELION has it.
    if CLASS in left and (left[CLASS] >= 1).all():
        fields["alignments2D/class"] = (left.pop(CLASS).to_numpy(int) - 1).astype(np.uint32)
    if POSTERIOR[1] in left:
        fields[POSTERIOR[0]] = left.pop(POSTERIOR[1]).to_numpy(np.float32)
    if HALF in left and (left[HALF] >= 1).all():
        in_3d = any(field.startswith("alignments3D/") for field in fields)
        fields[SPLITS[0] if in_3d else SPLITS[1]] = (left.pop(HALF).to_numpy(int) - 1).astype(np.uint32)


def _put_location(fields: dict, left: pd.DataFrame) -> None:
    if MICROGRAPH not in left:
        return
    names = left.pop(MICROGRAPH).astype(str)
    fields.setdefault("location/micrograph_path", _absolute(names))
    fields.setdefault("location/micrograph_uid", _group_identifiers(names))
    if "ctf/exp_group_id" in fields:
        fields.setdefault("location/exp_group_id", fields["ctf/exp_group_id"])
    shape = fields.get("location/micrograph_shape")
    if {X, Y} <= set(left) and shape is not None:
        fields["location/center_x_frac"] = (left.pop(X).to_numpy(float) / shape[:, 1]).astype(np.float32)
        fields["location/center_y_frac"] = (left.pop(Y).to_numpy(float) / shape[:, 0]).astype(np.float32)


def _group_identifiers(names: pd.Series) -> np.ndarray:
    distinct = pd.Series(names.unique())
    return names.map(dict(zip(distinct, _identifiers(distinct).tolist()))).to_numpy(np.uint64)


def _put_rest(fields: dict, left: pd.DataFrame) -> None:
    for column in left:
        fields[f"relion/{column}"] = _wide(left[column])


def _wide(values: pd.Series) -> np.ndarray:
    if values.dtype.kind in "iuf":
        return values.to_numpy()
    return values.astype(int).to_numpy() if values.dtype.kind == "b" else values.fillna("").to_numpy(str)
