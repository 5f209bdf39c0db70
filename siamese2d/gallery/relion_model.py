"""Resolutions of RELION's classes: its Scipion plugin leaves them in the model file beside the averages."""

import os

import numpy as np
from pyworkflow.exceptions import ValidationException

from siamese2d.star import readTable

AVERAGES, MODEL = "_classes.mrcs", "_model.star"
RESOLUTION, REFERENCE = "rlnEstimatedResolution", "rlnReferenceImage"


def model_resolutions(pictures: list[tuple[int, str] | None]) -> np.ndarray:
    """Resolutions of averages in angstroms, `(k,)`; NaN for those that are not RELION's, or whose model file is gone.

    Parameters
    ----------
    pictures : list of (int, str) or None
        Index from 1 and file of each average.
    """
    known = {path: _read(path.removesuffix(AVERAGES) + MODEL)
             for path in {picture[1] for picture in pictures if picture and picture[1].endswith(AVERAGES)}}
    return np.array([known.get(picture[1], {}).get(picture[0], np.nan) if picture else np.nan for picture in pictures],
                    dtype=float)


def _read(path: str) -> dict[int, float]:
    """Resolution by the index of the average, from 1; nothing where there is no such file."""
    if not os.path.exists(path):
        return {}
    try:
        found = {int(row[REFERENCE].partition("@")[0]): float(row[RESOLUTION])
                 for row in readTable(path, "model_classes") if RESOLUTION in row}
    except (OSError, ValueError, KeyError, ValidationException):
        # The gallery is worth opening without it.
        return {}
    return {index: value for index, value in found.items() if np.isfinite(value) and value > 0}
