"""Fourier ring correlation of the class averages."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RED, SKY, prepare, say, style

NAMED = ((ORANGE, "-"), (GREEN, "--"), (PURPLE, "-."), (RED, ":"), (INK, (0, (5, 1))))


def plot_frc(curves: list[dict], threshold: float, highlight=(), figure: Figure | None = None) -> Figure:
    """Fourier ring correlation of each class against spatial frequency, the median and chosen classes in colour.

    Parameters
    ----------
    curves : list of dict
        ``class`` (its number), ``frequency`` (1/angstrom) and ``frc``; the two lists of a class have one length.
    threshold : float
        Correlation at which the resolution is read; drawn as a dotted line.
    highlight : sequence of int
        Class numbers to draw in colour and to name, five at most.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    curves = [curve for curve in curves if len(curve["frequency"])]
    with style():
        figure = prepare(figure, 7.4, 4.8)
        axes = figure.subplots()
        axes.set_title("Fourier ring correlation between the halves of each class")
        if not curves:
            say(axes, "No class has enough particles for two halves.")
            return figure
        for curve in curves:
            axes.plot(curve["frequency"], curve["frc"], color=SKY, linewidth=0.8, alpha=0.55)
        if len(curves) > 2:
            axes.plot(*median_curve(curves), color=BLUE, linewidth=2.4, label=f"median of {len(curves)} classes")
        named = [curve for number in list(highlight)[:len(NAMED)] for curve in curves if curve["class"] == number]
        for curve, (color, dash) in zip(named, NAMED):
            axes.plot(curve["frequency"], curve["frc"], color=color, linestyle=dash, linewidth=1.6,
                      label=f"class {curve['class']}")
        axes.axhline(threshold, color=MUTED, linestyle=":", linewidth=1.4, label=f"{threshold:g}: resolution")
        highest = max(curve["frequency"][-1] for curve in curves)
        axes.set(xlim=(0, highest), ylim=(-0.15, 1.05), xlabel="resolution (Å)", ylabel="correlation")
        axes.xaxis.set_major_formatter(FuncFormatter(_as_length))
        axes.legend()
    return figure


def median_curve(curves: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the first curve, and the median over the classes there (each curve interpolated)."""
    frequency = np.asarray(curves[0]["frequency"], dtype=float)
    values = [np.interp(frequency, curve["frequency"], np.asarray(curve["frc"], dtype=float)) for curve in curves]
    return frequency, np.nanmedian(values, axis=0)


def _as_length(frequency: float, _position: int) -> str:
    return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"
