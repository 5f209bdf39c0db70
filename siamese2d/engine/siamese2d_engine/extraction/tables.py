"""Rows and optics groups of extracted particles."""

from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.io.micrographs import NAME, PIXEL_SIZE_COLUMNS, MicrographSet
from siamese2d_engine.io.particles import IMAGE, OPTICS_COLUMNS, OPTICS_GROUP

# Columns of a micrograph's row that hold for its particles too, unless the coordinate's row says otherwise.
MICROGRAPH_CTF_COLUMNS = (
    "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor",
    "rlnCtfMaxResolution", "rlnCtfFigureOfMerit",
)
# The new optics groups say these; RELION 3.0's are replaced by the pixel size.
REPLACED_COLUMNS = (OPTICS_GROUP, IMAGE, *PIXEL_SIZE_COLUMNS, "rlnDetectorPixelSize", "rlnMagnification")


def particle_rows(coordinates: pd.DataFrame, micrograph: pd.Series, stack: Path, optics_group: int) -> pd.DataFrame:
    """Particle table of one micrograph: its coordinates' columns, its CTF where they have none, and the images' names.

    Parameters
    ----------
    coordinates : DataFrame
        Extracted ones, in the order of the stack.
    micrograph : Series
        The micrograph's row.
    stack : Path
        Image stack.
    optics_group : int
        Number of the particles' optics group.
    """
    table = coordinates.drop(columns=[c for c in REPLACED_COLUMNS if c in coordinates]).reset_index(drop=True)
    ctf = {c: micrograph[c] for c in MICROGRAPH_CTF_COLUMNS if c in micrograph and c not in table}
    images = [f"{number:06d}@{stack}" for number in range(1, len(table) + 1)]
    return table.assign(**{NAME: micrograph[NAME], IMAGE: images, OPTICS_GROUP: optics_group, **ctf})


def optics_groups(micrographs: MicrographSet, pixel_sizes: np.ndarray, box: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Optics groups of the particles: one for each different microscope setting and pixel size of the micrographs.

    Parameters
    ----------
    micrographs : MicrographSet
        Where the particles come from.
    pixel_sizes : ndarray
        Of the particles of each micrograph, angstroms per pixel, ``(n,)``.
    box : int
        Of the particle images, pixels.

    Returns
    -------
    optics : DataFrame
        RELION 3.1 optics table.
    groups : ndarray of int
        Group of each micrograph, ``(n,)``.
    """
    settings = [_setting(micrographs, i, size) for i, size in enumerate(np.round(pixel_sizes, 6))]
    keys = [tuple(sorted((k, str(v)) for k, v in setting.items())) for setting in settings]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    rows = [{OPTICS_GROUP: number, "rlnOpticsGroupName": f"opticsGroup{number}", **settings[keys.index(key)],
             "rlnImageSize": box, "rlnImageDimensionality": 2} for key, number in numbers.items()]
    return pd.DataFrame(rows), np.array([numbers[key] for key in keys])


def _setting(micrographs: MicrographSet, position: int, pixel_size: float) -> dict:
    """Everything about the optics of one micrograph's particles but the group's number and name."""
    row = micrographs.table.iloc[position]
    setting = {}
    if micrographs.optics is not None and OPTICS_GROUP in row:
        match = micrographs.optics[micrographs.optics[OPTICS_GROUP] == row[OPTICS_GROUP]]
        setting = match.iloc[0].to_dict() if len(match) else {}
    original = setting.get("rlnMicrographOriginalPixelSize", micrographs.pixel_sizes[position])
    replaced = (OPTICS_GROUP, "rlnOpticsGroupName", *PIXEL_SIZE_COLUMNS)
    return {
        **{key: value for key, value in setting.items() if key not in replaced},
        **{column: row[column] for column in OPTICS_COLUMNS if column in row},
        "rlnMicrographOriginalPixelSize": original,
        "rlnImagePixelSize": pixel_size,
    }
