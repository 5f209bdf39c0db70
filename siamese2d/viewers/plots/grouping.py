"""How many classes: what grouping fine ones into fewer costs, and how well averages tell particles not in them."""

import math
from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .curves import count_axis, draw_series, mark_point, mark_x
from .style import BLUE, GREEN, ORANGE, prepare, say, style

PANELS = (("loss", "log-likelihood lost", BLUE), ("silhouette", "silhouette", ORANGE))


def held_out(history: list[dict]) -> dict[int, float]:
    """Mean log-likelihood of a particle for each number of classes that the passes had.

    A particle is compared with averages without itself, so that more classes raise it only if they tell more. Each
    class has the same probability beforehand. Only passes on equally many rings compare: the most common number
    counts, and the last pass with each number of classes.
    """
    if not history:
        return {}
    rings, _ = Counter(entry["rings"] for entry in history).most_common(1)[0]
    return {entry["classes"]: entry["log_likelihood"] - math.log(entry["classes"])
            for entry in history if entry["rings"] == rings}


def plot_grouping(rows: list[dict], history: list[dict], chosen: int, figure: Figure | None = None) -> Figure:
    """What each number of classes would cost, with the number that was taken and the highest silhouette marked.

    Parameters
    ----------
    rows : list of dict
        ``k``; ``loss``, the mean log-likelihood of a particle that is lost by grouping the fine classes into k; and
        ``silhouette``, -1 to 1, the higher, the better are groups apart (Rousseeuw 1987), or None.
    history : list of dict
        One entry for each pass: ``classes``, ``rings`` and ``log_likelihood``.
    chosen : int
        Number of classes that was taken.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Three axes: held-out log-likelihood, loss and silhouette.
    """
    with style():
        figure = prepare(figure, 7.2, 7.6)
        growing, *panels = figure.subplots(3, 1, sharex=True)
        _draw_held_out(growing, held_out(history), chosen)
        count_axis(panels[1], "number of classes")
        if not rows:
            say(panels[0], "No fine classes were made, so nothing tells what another number of classes would cost: "
                           "there were too few particles, or none were wanted (Fine classes).")
            panels[1].set_axis_off()
            return figure
        numbers = [row["k"] for row in rows]
        for axes, (key, label, color) in zip(panels, PANELS):
            draw_series(axes, numbers, [row[key] for row in rows], label, color)
            axes.set_ylabel(label)
            mark_x(axes, chosen, f"taken: {chosen} classes", color=GREEN)
            axes.legend()
        best = max((row for row in rows if row["silhouette"] is not None), key=lambda row: row["silhouette"],
                   default=None)
        if best is not None:
            mark_point(panels[1], best["k"], best["silhouette"], f"highest: {best['k']} classes")
            panels[1].legend()
    return figure


def _draw_held_out(axes: Axes, found: dict[int, float], chosen: int) -> None:
    axes.set_title("What fewer or more classes would lose")
    if len(found) < 2:
        say(axes, "There were as many classes from the beginning, so nothing tells how well fewer would do.")
        return
    numbers = sorted(found)
    draw_series(axes, numbers, [found[number] for number in numbers], "held-out log-likelihood of a particle", BLUE)
    axes.set_ylabel("held-out log-likelihood")
    mark_x(axes, chosen, f"taken: {chosen} classes", color=GREEN)
    axes.legend()
