"""What the dots of an embedding's map can be coloured by."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from siamese2d.constants import ITEM_ID
from siamese2d.viewers.class_files import PARTICLES
from siamese2d.viewers.run_files import RunFileError, RunFolder, split_image_name


@dataclass(frozen=True)
class Colors:
    """A value for each embedded particle.

    Attributes
    ----------
    values : ndarray of float, `(n,)`
        NaN where it is not known.
    label : str
        Name and unit.
    names : list of str or None
        Names of the categories when the values are their numbers, from 0; None for quantities.
    """

    values: np.ndarray
    label: str
    names: list[str] | None = None


def column_colors(name: str, label: str, scale: float = 1.0) -> Callable[[dict, object], Colors]:
    """Colours by a quantity in the table of the embedded particles."""
    def colors(table, _classification):
        return Colors(_column(table, name, label).astype(float) * scale, label)
    return colors


def category_colors(name: str, label: str) -> Callable[[dict, object], Colors]:
    """Colours by a property in the table of the embedded particles that has no order."""
    def colors(table, _classification):
        return categories(_column(table, name, label), label)
    return colors


def micrograph_colors(table: dict, _classification) -> Colors:
    """Colours by micrograph; by stack where that is not known, since most programs write one for each micrograph."""
    label = "micrograph" if "rlnMicrographName" in table else "stack"
    paths = table["rlnMicrographName"] if label == "micrograph" else \
        [split_image_name(name)[1] for name in _column(table, "rlnImageName", label)]
    stems = [os.path.splitext(os.path.basename(str(path)))[0] for path in paths]
    return categories(np.array(stems, dtype=object), label)


def classified_colors(name: str, label: str, categorical: bool) -> Callable[[dict, object], Colors]:
    """Colours by what a classification found for the same particles, matched by their ids."""
    def colors(table, classification: RunFolder | None):
        if classification is None:
            raise RunFileError("No *classify 2D* in this project has used this embedding, or these particles, yet: run "
                               "it, or choose another colour.")
        found = classification.read_table(PARTICLES, "particles")
        value_of = dict(zip(_column(found, ITEM_ID, label), _column(found, name, label)))
        # Class numbers below 1 mean: in no class.
        values = np.array([value_of.get(item, np.nan) for item in _column(table, ITEM_ID, label)], dtype=float)
        if categorical:
            values[values < 1] = np.nan
        if not np.isfinite(values).any():
            raise RunFileError("The classification has none of the particles that this embedding was trained with.")
        return categories(values, label) if categorical else Colors(values, label)
    return colors


def categories(values: np.ndarray, label: str) -> Colors:
    """Numbers of categories, the largest first, NaN for NaN."""
    known = np.array([not (isinstance(value, float) and np.isnan(value)) for value in values], dtype=bool)
    kinds, inverse, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(kinds))
    rank[order] = np.arange(len(kinds))
    numbers = np.full(len(values), np.nan)
    numbers[known] = rank[inverse]
    return Colors(numbers, label, [_name(kinds[kind]) for kind in order])


def _name(kind) -> str:
    return f"{kind:g}" if isinstance(kind, float) else str(kind)


def _column(table: dict[str, np.ndarray], name: str, label: str) -> np.ndarray:
    if name not in table:
        raise RunFileError(f"The input particles have no {label.split(' ')[0]} to colour the map with.")
    return table[name]


# What can colour the map, in the order of the form.
COLORS = {
    "nothing": None,
    "defocus": column_colors("rlnDefocusU", "defocus (µm)", 1e-4),
    "class in the input": category_colors("rlnClassNumber", "class"),
    "class": classified_colors("rlnClassNumber", "class", True),
    "confidence of the class": classified_colors("rlnMaxValueProbDistribution", "confidence", False),
    "micrograph": micrograph_colors,
}
