"""How the training of a picker went, and where its threshold lies."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .curves import count_axis, draw_series, mark_point, mark_x, note
from .style import BLUE, GREEN, PURPLE, prepare, say, style


def plot_picker_training(epochs: list[dict], best_epoch: int | None, figure: Figure | None = None) -> Figure:
    """Loss, penalty and held-out average precision over the epochs, the best epoch marked.

    Parameters
    ----------
    epochs : list of dict
        ``epoch``, ``loss``, ``penalty`` and ``held_out_average_precision`` of each epoch; a value that was not
        measured may be None or missing.
    best_epoch : int or None
        The epoch whose weights were kept.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Two axes, one above the other.
    """
    with style():
        figure = prepare(figure, 7.2, 5.8)
        top, bottom = figure.subplots(2, 1, sharex=True)
        numbers = [entry["epoch"] for entry in epochs]
        top.set_title("Training loss")
        top.set_ylabel("loss")
        bottom.set_title("Average precision on held-out labels")
        bottom.set_ylabel("average precision")
        count_axis(bottom, "epoch")
        if not epochs:
            say(top, "No epoch has finished yet.")
            say(bottom, "")
            return figure
        for key, color, label in (("loss", BLUE, "labelled windows"),
                                  ("penalty", PURPLE, "unlabelled windows (penalty)")):
            _draw_if_measured(top, numbers, [entry.get(key) for entry in epochs], label, color)
        precision = [entry.get("held_out_average_precision") for entry in epochs]
        if _measured(precision):
            draw_series(bottom, numbers, precision, "held-out", GREEN)
            bottom.set_ylim(0, 1.02)
            _mark_best(bottom, numbers, precision, best_epoch)
        else:
            say(bottom, "Not measured: no labels were held out.")
        if best_epoch is not None:
            mark_x(top, best_epoch, f"best epoch: {best_epoch}")
        if all(value > 0 for line in top.lines for value in line.get_ydata() if math.isfinite(value)):
            # Penalty and loss of labelled windows differ by orders of magnitude.
            top.set_yscale("log")
            top.set_ylabel("loss (logarithmic)")
        top.legend()
    return figure


def plot_precision_recall(curve: list[dict], threshold: float | None, average_precision: float | None = None,
                          held_out: int = 0, figure: Figure | None = None) -> Figure:
    """Precision against recall, and both against the score, with the chosen threshold marked.

    Parameters
    ----------
    curve : list of dict
        ``threshold``, ``precision`` and ``recall`` of each point.
    threshold : float or None
        The score from which a candidate is kept.
    average_precision : float, optional
        Area under the curve, written above it.
    held_out : int
        Number of labels that were kept back for this; with 0 the curve is that of the training labels.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Two axes, side by side.
    """
    scores, precision, recall = (np.array([point[key] for point in curve], dtype=float)
                                 for key in ("threshold", "precision", "recall"))
    with style():
        figure = prepare(figure, 10.0, 4.6)
        left, right = figure.subplots(1, 2)
        left.set_title("Precision and recall")
        right.set_title("What a threshold does")
        if not len(scores):
            say(left, "No curve: no label was found again.")
            say(right, "")
            return figure
        _draw_curve(left, recall, precision)
        if average_precision is not None and math.isfinite(average_precision):
            note(left, f"average precision {average_precision:.3f}")
        note(right, f"on {held_out:,} held-out labels" if held_out else "on the training labels: too good")
        order = np.argsort(scores)
        right.plot(scores[order], precision[order], color=BLUE, label="precision")
        right.plot(scores[order], recall[order], color=GREEN, label="recall")
        right.set_xlabel("score threshold")
        right.set_ylabel("precision, recall")
        right.set_ylim(0, 1.02)
        if threshold is not None:
            nearest = int(np.argmin(np.abs(scores - threshold)))
            mark_point(left, recall[nearest], precision[nearest],
                       f"threshold {threshold:.3g}: precision {precision[nearest]:.2f}, recall {recall[nearest]:.2f}")
            mark_x(right, threshold, f"threshold {threshold:.3g}")
            left.legend(loc="lower left")
        right.legend(loc="center left")
    return figure


def _draw_curve(axes: Axes, recall: np.ndarray, precision: np.ndarray) -> None:
    order = np.argsort(recall, kind="stable")
    axes.fill_between(recall[order], precision[order], color=BLUE, alpha=0.08, linewidth=0)
    axes.plot(recall[order], precision[order], color=BLUE)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall: share of the labelled particles that are found",
             ylabel="precision: share of the picks that are right (estimated)")


def _draw_if_measured(axes: Axes, numbers, values, label: str, color: str) -> None:
    if _measured(values):
        draw_series(axes, numbers, values, label, color)


def _mark_best(axes: Axes, numbers, values, best_epoch: int | None) -> None:
    if best_epoch in numbers and values[numbers.index(best_epoch)] is not None:
        value = values[numbers.index(best_epoch)]
        mark_point(axes, best_epoch, value, f"best epoch {best_epoch}: {value:.3f}")
        axes.legend(loc="lower right")


def _measured(values) -> bool:
    return any(value is not None and math.isfinite(value) for value in values)
