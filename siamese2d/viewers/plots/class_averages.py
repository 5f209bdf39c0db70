"""Class averages in a grid, the largest first."""

import math

import numpy as np
from matplotlib.figure import Figure

from .grid import ImageSheet, grid_columns
from .style import style


def plot_class_averages(averages: np.ndarray, sizes, resolutions=None, title: str = "2D class averages", numbers=None,
                        unassigned: int = 0, pixel_size: float | None = None, first: int = 0,
                        count: int | None = None, figure: Figure | None = None) -> Figure:
    """Class averages sorted by size, with the number of particles and their share under each.

    Every average has its own contrast, as empty classes and strong ones differ by much.

    Parameters
    ----------
    averages : ndarray, `(k, h, w)`
        One image for each class.
    sizes : sequence of int, `(k,)`
        Number of particles in each class.
    resolutions : sequence of float, `(k,)`, optional
        Resolution of each average in angstroms; NaN or infinity where it could not be estimated.
    title : str
        Heading.
    numbers : sequence of int, `(k,)`, optional
        Class numbers, written in the corner of each average; 1 to k when not given.
    unassigned : int
        Particles that belong to no class; they count in the shares.
    pixel_size : float, optional
        Angstroms per pixel; when given, a scale bar is drawn on the first average.
    first, count : int
        Page of the sorted classes to draw: `count` of them (all when None) from position `first`. Pages of the same
        `count` have the same layout, also the last one.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the lengths disagree, there is no class, or the page is empty.
    """
    averages, sizes = np.asarray(averages), np.asarray(sizes, dtype=int)
    numbers = np.arange(1, len(averages) + 1) if numbers is None else np.asarray(numbers)
    resolutions = np.full(len(averages), np.nan) if resolutions is None else np.asarray(resolutions, dtype=float)
    if averages.ndim != 3 or not len(averages):
        raise ValueError(f"averages must be a stack (k, h, w) of at least one class, not {averages.shape}")
    if not len(averages) == len(sizes) == len(numbers) == len(resolutions):
        raise ValueError(f"{len(averages)} averages, but {len(sizes)} sizes, {len(numbers)} numbers and "
                         f"{len(resolutions)} resolutions")
    page = by_size(sizes)[first:][:count]
    if not len(page):
        raise ValueError(f"there is no class at position {first} of {len(averages)}")
    total = int(sizes.sum()) + unassigned
    caption_lines = 2 if np.isfinite(resolutions).any() else 1
    with style():
        slots = min(count or len(sizes), len(sizes))
        sheet = ImageSheet(figure, slots, grid_columns(slots), caption_lines, title,
                           _subtitle(sizes, unassigned, first, len(page)))
        for position, index in enumerate(page):
            sheet.add_image(position, averages[index], _caption(sizes[index], total, resolutions[index]),
                            corner=str(numbers[index]), faint=not sizes[index])
        if pixel_size:
            sheet.add_scale_bar(averages.shape[-1], pixel_size)
        return sheet.finish()


def by_size(sizes) -> np.ndarray:
    """Positions of the classes, the largest class first; equal sizes keep their order."""
    return np.argsort(-np.asarray(sizes, dtype=int), kind="stable")


def _subtitle(sizes: np.ndarray, unassigned: int, first: int, shown: int) -> str:
    filled = int((sizes > 0).sum())
    text = f"{int(sizes.sum()):,} particles in {filled:,} {'class' if filled == 1 else 'classes'}"
    if filled < len(sizes):
        text += f", {len(sizes) - filled:,} empty"
    if unassigned:
        text += f"; {unassigned:,} particles in no class"
    if shown < len(sizes):
        text += f"; shown: {first + 1:,} to {first + shown:,} by size"
    return text


def _caption(size: int, total: int, resolution: float) -> str:
    if not size:
        return "empty"
    caption = f"{size:,}  ·  {size / total:.1%}"
    return caption + (f"\n{resolution:.1f} Å" if math.isfinite(resolution) and resolution > 0 else "")
