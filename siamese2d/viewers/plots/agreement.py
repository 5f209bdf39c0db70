"""Agreement of two classifications: the table of common particles, and matched classes side by side."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from .grid import ImageSheet
from .style import prepare, say, style

PAIRS_PER_ROW = 3
# Inches; those of a page of twelve pairs, since all pages of a window have one size.
CONFUSION = (8.76, 7.8)
NAMED_CLASSES = 40


def plot_confusion(counts: np.ndarray, rows, columns, names: tuple[str, str], subtitle: str,
                   figure: Figure | None = None) -> Figure:
    """How many particles two classes have in common, for all pairs of classes, as colours.

    Parameters
    ----------
    counts : ndarray of int, `(a, b)`
        Particles in both.
    rows, columns : sequence of int, `(a,)`, `(b,)`
        Class numbers; matched classes have the same place, so agreement stands on the diagonal.
    names : (str, str)
        What the two classifications are called.
    subtitle : str
        Written under the heading.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    with style():
        figure = prepare(figure, *CONFUSION)
        axes = figure.subplots()
        axes.set_title(f"Particles that two classes have in common\n{subtitle}")
        if not np.asarray(counts).any():
            say(axes, "No particle is in both classifications: they come from different particles.")
            return figure
        shares = counts / counts.sum(axis=1, keepdims=True)
        shown = axes.imshow(np.where(counts > 0, shares, np.nan), cmap="Blues", interpolation="nearest", aspect="auto",
                            norm=LogNorm(min(0.01, shares[counts > 0].min()), 1))
        axes.grid(False)
        _name(axes.set_xticks, columns)
        _name(axes.set_yticks, rows)
        axes.set(xlabel=f"class of {names[1]}", ylabel=f"class of {names[0]}, by size")
        figure.colorbar(shown, ax=axes, label="share of the row's class", fraction=0.04, pad=0.02)
    return figure


def plot_pairs(pairs: list[tuple[np.ndarray | None, np.ndarray | None, tuple[str, str], tuple[int, int]]],
               names: tuple[str, str], subtitle: str, slots: int, figure: Figure | None = None) -> Figure:
    """Matched classes side by side, the first classification's on the left.

    Parameters
    ----------
    pairs : list of (ndarray or None, ndarray or None, (str, str), (int, int))
        Both averages (None where there is none), what is written under them, their class numbers.
    names : (str, str)
        What the two classifications are called.
    subtitle : str
        Written under the heading.
    slots : int
        Pairs to leave room for.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    with style():
        title = f"Matched classes: {names[0]} (left), {names[1]} (right)"
        sheet = ImageSheet(figure, 2 * slots, 2 * PAIRS_PER_ROW, 2, title, subtitle)
        for place, (left, right, captions, numbers) in enumerate(pairs):
            for side, image in enumerate((left, right)):
                shown = np.full((8, 8), np.nan) if image is None else image
                sheet.add_image(2 * place + side, shown, captions[side], corner=str(numbers[side]))
            sheet.add_frame(2 * place, 2)
        return sheet.finish()


def _name(set_ticks, numbers) -> None:
    places = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), NAMED_CLASSES)).round().astype(int))
    set_ticks(places, [str(numbers[place]) for place in places], fontsize=7)
