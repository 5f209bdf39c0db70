"""How alike the members of classes are, within a class and between classes."""

import numpy as np
from matplotlib.figure import Figure

from .style import prepare, say, style

# Numbers fit into the squares of so many classes.
WRITTEN, NAMED = 12, 40


def plot_cosines(matrix, classes, diagonal_dominance: float | None = None, figure: Figure | None = None) -> Figure:
    """Mean cosine between the members of each two classes, the diagonal being that within a class.

    Parameters
    ----------
    matrix : list of list of (float or None), `(k, k)`
        -1 to 1; None where a class has too few members.
    classes : sequence of int, `(k,)`
        Class numbers.
    diagonal_dominance : float, optional
        Mean over the classes of their own cosine less the largest with another.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    values = np.array([[np.nan if value is None else value for value in row] for row in matrix], dtype=float)
    with style():
        figure = prepare(figure, 7.0, 6.0)
        axes = figure.subplots()
        if not values.size:
            say(axes, "Not measured: there are no classes to compare.")
            return figure
        text = "" if diagonal_dominance is None else \
            f"\ndiagonal dominance {diagonal_dominance:.2f}; above 0, classes stand apart"
        axes.set_title(f"Mean cosine between particles of two classes{text}")
        limit = max(np.nanmax(np.abs(values)), 1e-6) if np.isfinite(values).any() else 1.0
        shown = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.grid(False)
        places = np.unique(np.linspace(0, len(classes) - 1, min(len(classes), NAMED)).round().astype(int))
        labels = [str(classes[place]) for place in places]
        axes.set_xticks(places, labels, fontsize=8)
        axes.set_yticks(places, labels, fontsize=8)
        axes.set(xlabel="class", ylabel="class")
        if len(values) <= WRITTEN:
            for row, column in np.argwhere(np.isfinite(values)):
                value = values[row, column]
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                          color="white" if abs(value) > 0.6 * limit else "black")
        figure.colorbar(shown, ax=axes, label="mean cosine", fraction=0.04, pad=0.02)
    return figure
