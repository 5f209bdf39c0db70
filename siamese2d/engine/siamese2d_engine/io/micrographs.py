"""Sets of micrographs: the rows of a STAR file, or a folder of images, with resolved paths and pixel sizes."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.cryosparc import CS_ENDING, read_tables
from siamese2d_engine.io.images import IMAGE_ENDINGS, read_pixel_size
from siamese2d_engine.io.star import write_star

NAME = "rlnMicrographName"
PIXEL_SIZE_COLUMNS = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnImagePixelSize")


@dataclass(frozen=True)
class MicrographSet:
    """Micrographs as named by a table.

    Attributes
    ----------
    table : DataFrame
        One row per micrograph, at least `rlnMicrographName`; unknown columns are kept.
    optics : DataFrame or None
        RELION 3.1 optics groups; None for older files and folders.
    paths : list of Path
        Image files.
    pixel_sizes : ndarray
        Angstroms per pixel, ``(n,)``.
    """

    table: pd.DataFrame
    optics: pd.DataFrame | None
    paths: list[Path]
    pixel_sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> list[str]:
        """Stems of the file names, which identify micrographs in output files."""
        return [path.stem for path in self.paths]

    def subset(self, rows) -> "MicrographSet":
        """The micrographs selected by a boolean mask or integer positions."""
        positions = np.arange(len(self))[np.asarray(rows)]
        return MicrographSet(self.table.iloc[positions].reset_index(drop=True), self.optics,
                             [self.paths[i] for i in positions], self.pixel_sizes[positions])


def read_micrographs(source, pixel_size: float | None = None) -> MicrographSet:
    """Read a set of micrographs.

    Parameters
    ----------
    source : path or list of path
        One STAR or .cs file, or image files and folders of them.
    pixel_size : float, optional
        Angstroms per pixel where neither the STAR file nor an MRC header says it; overrides headers, not STAR files.

    Raises
    ------
    InputError
        If there are no micrographs, a file is missing, two have the same stem, or a pixel size is unknown.
    """
    sources = [Path(s) for s in (source if isinstance(source, (list, tuple)) else [source])]
    if len(sources) == 1 and sources[0].suffix in (".star", CS_ENDING):
        return _from_star(sources[0], pixel_size)
    return _from_files(sources, pixel_size)


def write_micrographs(star_path: str | os.PathLike, micrographs: MicrographSet, image_paths: list,
                      pixel_sizes: np.ndarray) -> None:
    """Write the same rows and columns with other image files and pixel sizes (RELION 3.1 STAR)."""
    write_star(star_path, micrograph_tables(micrographs, image_paths, pixel_sizes))


def micrograph_tables(
    micrographs: MicrographSet, image_paths: list, pixel_sizes: np.ndarray
) -> dict[str, pd.DataFrame]:
    """Blocks ``optics`` and ``micrographs`` of the same rows and columns with other image files and pixel sizes."""
    table = micrographs.table.drop(columns=[c for c in PIXEL_SIZE_COLUMNS if c in micrographs.table])
    table = table.assign(**{NAME: [str(path) for path in image_paths]})
    sizes = np.round(np.asarray(pixel_sizes, dtype=float), 6)
    optics, groups = _optics_by_pixel_size(micrographs, sizes)
    return {"optics": optics, "micrographs": table.assign(rlnOpticsGroup=groups)}


def stem_of(name: str) -> str:
    """Name of a micrograph without folder and image ending; other dots belong to the name."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_ENDINGS else path.name


def resolve(name: str, star_path: Path) -> Path:
    """Path of a file that a STAR file names: relative to the working directory (RELION's rule), else to the
    STAR file."""
    beside = star_path.parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _from_star(star_path: Path, pixel_size: float | None) -> MicrographSet:
    blocks = read_tables(star_path)
    table = blocks.get("micrographs", blocks.get(""))
    if table is None:
        table = next((block for block in blocks.values() if NAME in block), None)
    if table is None or NAME not in table:
        raise InputError(f"{star_path}: no column {NAME}. Give a STAR or .cs file of micrographs.")
    if table.empty:
        raise InputError(f"{star_path}: the set of micrographs is empty.")
    table = table.drop_duplicates(NAME).reset_index(drop=True)
    optics = blocks.get("optics")
    paths = [resolve(str(name), star_path) for name in table[NAME]]
    _check_files(paths, star_path)
    sizes = _column_pixel_sizes(table, optics)
    return MicrographSet(table, optics, paths, _known_pixel_sizes(paths, sizes, pixel_size))


def _from_files(sources: list[Path], pixel_size: float | None) -> MicrographSet:
    paths = [path for source in sources for path in _images_of(source)]
    if not paths:
        raise InputError(f"{', '.join(map(str, sources))}: no images found (endings {', '.join(IMAGE_ENDINGS)}).")
    _check_files(paths, sources[0])
    table = pd.DataFrame({NAME: [str(path) for path in paths]})
    return MicrographSet(table, None, paths, _known_pixel_sizes(paths, np.full(len(paths), np.nan), pixel_size))


def _images_of(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return sorted(path for path in source.iterdir()
                  if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."))


def _check_files(paths: list[Path], source: Path) -> None:
    missing = [path for path in paths if not path.exists()]
    if len(missing) == len(paths):
        raise InputError(f"{source}: none of its {len(paths)} micrographs exists (first: {missing[0]}). Paths are "
                         f"taken relative to {Path.cwd()}; start the command from the project's folder.")
    twins = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twins:
        raise InputError(f"{source}: {len(twins)} file names occur more than once (first: {twins[0]}). Coordinates "
                         "could not be told apart; rename the micrographs.")


def _column_pixel_sizes(table: pd.DataFrame, optics: pd.DataFrame | None) -> np.ndarray:
    """Pixel sizes that the STAR file states, NaN where it does not."""
    for column in PIXEL_SIZE_COLUMNS:
        if column in table:
            return table[column].to_numpy(float)
    if optics is not None and "rlnOpticsGroup" in table:
        for column in PIXEL_SIZE_COLUMNS:
            if column in optics:
                by_group = optics.set_index("rlnOpticsGroup")[column]
                return table["rlnOpticsGroup"].map(by_group).to_numpy(float)
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table):
        return (table["rlnDetectorPixelSize"] * 1e4 / table["rlnMagnification"]).to_numpy(float)
    return np.full(len(table), np.nan)


def _known_pixel_sizes(paths: list[Path], sizes: np.ndarray, pixel_size: float | None) -> np.ndarray:
    known = np.array([_known_pixel_size(path, size, pixel_size) for path, size in zip(paths, sizes)], dtype=float)
    unknown = np.flatnonzero(~(known > 0))
    if len(unknown):
        raise InputError(f"{paths[unknown[0]]}: the pixel size is not known ({len(unknown)} of {len(paths)} "
                         "micrographs). Pass --pixel-size in angstroms.")
    return known


def _known_pixel_size(path: Path, stated: float, fallback: float | None) -> float:
    if stated > 0:
        return stated
    if fallback is not None:
        return fallback
    try:
        return read_pixel_size(path) or np.nan
    except InputError:
        # A damaged file is reported when its pixels are read, as one failed micrograph.
        return np.nan


def _optics_by_pixel_size(micrographs: MicrographSet, sizes: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """One optics group per old group and pixel size, numbered from 1 in order of appearance."""
    old = micrographs.table["rlnOpticsGroup"].to_numpy() if "rlnOpticsGroup" in micrographs.table \
        else np.ones(len(sizes), dtype=int)
    keys = list(dict.fromkeys(zip(old.tolist(), sizes.tolist())))
    numbers = {key: number for number, key in enumerate(keys, start=1)}
    rows = [_optics_row(micrographs, key, number) for key, number in numbers.items()]
    return pd.DataFrame(rows), np.array([numbers[key] for key in zip(old.tolist(), sizes.tolist())])


def _optics_row(micrographs: MicrographSet, key: tuple, number: int) -> dict:
    group, pixel_size = key
    row = {}
    if micrographs.optics is not None:
        match = micrographs.optics[micrographs.optics["rlnOpticsGroup"] == group]
        row = match.iloc[0].to_dict() if len(match) else {}
    row = {k: v for k, v in row.items() if k not in PIXEL_SIZE_COLUMNS}
    return {**row, "rlnOpticsGroup": number, "rlnOpticsGroupName": f"opticsGroup{number}",
            "rlnMicrographPixelSize": pixel_size}
