"""How a classification settled."""

import math

from matplotlib.figure import Figure

from .curves import count_axis, draw_series
from .style import BLUE, GREEN, ORANGE, PURPLE, RED, prepare, say, style

COLORS = (BLUE, GREEN, ORANGE, PURPLE, RED)


def plot_convergence(history: list[dict], labels: dict[str, str], figure: Figure | None = None) -> Figure:
    """Quantities of every pass over the particles, one above the other.

    Parameters
    ----------
    history : list of dict
        One entry for each pass, in order.
    labels : dict of str to str
        Keys of the entries to draw, and what to call them; those that no entry has are left out.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        As many axes as there are quantities, at least one.
    """
    series = {key: [entry.get(key) for entry in history] for key in labels}
    series = {key: values for key, values in series.items()
              if any(value is not None and math.isfinite(value) for value in values)}
    with style():
        figure = prepare(figure, 7.2, 1.0 + 1.7 * max(len(series), 1))
        grid = figure.subplots(max(len(series), 1), 1, sharex=True, squeeze=False).ravel()
        if not series:
            say(grid[0], "No pass has finished yet." if not history else "Nothing was recorded.")
            return figure
        for axes, (key, values), color in zip(grid, series.items(), COLORS):
            axes.set_title(labels[key])
            draw_series(axes, range(1, len(history) + 1), values, labels[key], color)
        count_axis(grid[-1], "pass over the particles")
    return figure
