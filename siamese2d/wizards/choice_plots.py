"""Figures in which a value is chosen: curves, with a mark that moves along them."""

import numpy as np
from matplotlib.backend_bases import MouseEvent
from matplotlib.figure import Figure

from siamese2d.viewers.plots.curves import mark_point, mark_x
from siamese2d.viewers.plots.embedding import plot_cluster_count
from siamese2d.viewers.plots.picker_training import plot_precision_recall
from siamese2d.viewers.plots.style import PURPLE, RED, style


class ThresholdPlot:
    """Precision and recall of a picker, with a mark at one threshold.

    Parameters
    ----------
    training : dict
        ``precision_recall`` (not empty), ``threshold``, ``held_out_labels`` and ``held_out_average_precision``, as in
        the training's JSON file.
    figure : Figure
        To draw into.
    """

    def __init__(self, training: dict, figure: Figure):
        points = sorted(training["precision_recall"], key=lambda point: point["threshold"])
        self._thresholds, self._precision, self._recall = (
            np.array([point[key] for point in points], dtype=float) for key in ("threshold", "precision", "recall"))
        # From the highest score on: recall rises along the curve, precision falls.
        plot_precision_recall(points[::-1], None, training.get("held_out_average_precision"),
                              training.get("held_out_labels") or 0, figure)
        self._left, self._right = figure.axes
        with style():
            self._add_marks(training.get("threshold"))

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall at a threshold, between the points of the curve along straight lines."""
        return (float(np.interp(threshold, self._thresholds, self._precision)),
                float(np.interp(threshold, self._thresholds, self._recall)))

    def set_value(self, threshold: float) -> None:
        """Move the mark."""
        precision, recall = self.at(threshold)
        self._ring.set_data([recall], [precision])
        self._line.set_xdata([threshold, threshold])

    def value_at(self, event: MouseEvent) -> float | None:
        """The threshold under the mouse: nearest on the curve, or the one on the axis; None elsewhere."""
        if event.inaxes is self._right:
            return float(np.clip(event.xdata, self._thresholds[0], self._thresholds[-1]))
        if event.inaxes is self._left:
            distance = np.hypot(self._recall - event.xdata, self._precision - event.ydata)
            return float(self._thresholds[distance.argmin()])
        return None

    def text(self, threshold: float) -> str:
        """What a threshold means."""
        precision, recall = self.at(threshold)
        return (f"From a score of {threshold:.3g} on, about {100 * precision:.0f} of 100 picks are particles "
                f"(precision), "
                f"and {100 * recall:.0f} of 100 particles are picked (recall).")

    def _add_marks(self, own: float | None) -> None:
        if own is not None:
            precision, recall = self.at(own)
            mark_point(self._left, recall, precision, f"found best by the training: {own:.3g}")
            mark_x(self._right, own, f"found best by the training: {own:.3g}")
        mark_point(self._left, 0, 0, "chosen", color=RED)
        mark_x(self._right, 0, "chosen", color=RED)
        self._ring, self._line = self._left.lines[-1], self._right.lines[-1]
        self._left.legend(loc="lower left")
        self._right.legend(loc="lower center")


class ClassCountPlot:
    """Elbow and silhouette of an embedding, with a mark at one number of classes.

    Parameters
    ----------
    rows : list of dict
        ``k``, ``inertia`` and ``silhouette``, at least one.
    figure : Figure
        To draw into.
    """

    def __init__(self, rows: list[dict], figure: Figure):
        self._rows = rows
        plot_cluster_count(rows, figure=figure)
        with style():
            bend = elbow_of(rows)
            for axes in figure.axes:
                mark_x(axes, bend, f"bend of the elbow: k = {bend}", color=PURPLE)
                mark_x(axes, bend, "chosen", color=RED)
                axes.legend()
        self._axes = figure.axes

    def set_value(self, number: float) -> None:
        """Move the mark."""
        for axes in self._axes:
            axes.lines[-1].set_xdata([number, number])

    def value_at(self, event: MouseEvent) -> float | None:
        """The number of classes under the mouse; None outside of the axes."""
        if event.inaxes is None:
            return None
        return float(np.clip(round(event.xdata), self._rows[0]["k"], self._rows[-1]["k"]))

    def text(self, number: float) -> str:
        """What a number of classes means."""
        best = max(self._rows, key=lambda row: row["silhouette"])["k"]
        return (f"{number:.0f} classes. The embedding falls best into {best} groups (highest silhouette); beyond "
                f"{elbow_of(self._rows)} more groups hardly make them tighter. Fewer classes than groups mix what is "
                "different; some more cost time, but separate rare views and junk. When unsure take more.")


def elbow_of(rows: list[dict]) -> int:
    """The k at which the curve of inertia bends: farthest below the straight line between its ends (Satopaa 2011).

    Parameters
    ----------
    rows : list of dict
        ``k``, ascending, and ``inertia``.
    """
    k, inertia = (np.array([row[key] for row in rows], dtype=float) for key in ("k", "inertia"))
    if len(rows) < 3 or inertia[0] <= inertia[-1]:
        return int(k[0])
    below = 1 - (k - k[0]) / (k[-1] - k[0]) - (inertia - inertia[-1]) / (inertia[0] - inertia[-1])
    return int(k[below.argmax()])
