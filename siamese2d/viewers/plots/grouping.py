"""How many classes: what grouping fine classes into fewer costs."""

from matplotlib.figure import Figure

from .curves import count_axis, draw_series, mark_point, mark_x
from .style import BLUE, GREEN, ORANGE, prepare, say, style

PANELS = (("loss", "log-likelihood of a particle that is lost", BLUE), ("silhouette", "silhouette", ORANGE))


def plot_grouping(rows: list[dict], chosen: int, figure: Figure | None = None) -> Figure:
    """What each number of classes would cost, with the number that was taken and the highest silhouette marked.

    Parameters
    ----------
    rows : list of dict
        ``k``; ``loss``, the mean log-likelihood of a particle that is lost by grouping the fine classes into k; and
        ``silhouette``, -1 to 1, the higher, the better are groups apart (Rousseeuw 1987), or None.
    chosen : int
        Number of classes that was taken.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Two axes: loss and silhouette.
    """
    with style():
        figure = prepare(figure, 7.2, 5.6)
        panels = figure.subplots(2, 1, sharex=True)
        if not rows:
            say(panels[0], "No fine classes were made, so nothing tells what another number of classes would cost. Ask for "
                           "some with the expert parameter Fine classes; where poses are unsure, none are made.")
            panels[1].set_axis_off()
            return figure
        numbers = [row["k"] for row in rows]
        for axes, (key, label, color) in zip(panels, PANELS):
            draw_series(axes, numbers, [row[key] for row in rows], label, color)
            axes.set_ylabel(label)
            mark_x(axes, chosen, f"taken: {chosen} classes", color=GREEN)
            axes.legend()
        best = max((row for row in rows if row["silhouette"] is not None), key=lambda row: row["silhouette"], default=None)
        if best is not None:
            mark_point(panels[1], best["k"], best["silhouette"], f"highest: {best['k']} classes")
            panels[1].legend()
        panels[0].set_title("What fewer or more classes would lose")
        count_axis(panels[1], "number of classes")
    return figure
