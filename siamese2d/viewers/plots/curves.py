"""Small parts of line plots: an epoch axis, a marked point, a legend beside the lines."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .style import MUTED, ORANGE


def count_axis(axes: Axes, label: str) -> None:
    """Label the x axis and keep its ticks at whole numbers."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_series(axes: Axes, x, y, label: str, color: str, **kwargs) -> None:
    """A line with a dot at each point when there are few; points that are not finite leave a gap."""
    y = np.array([np.nan if value is None else value for value in y], dtype=float)
    axes.plot(x, y, label=label, color=color, marker="o" if len(y) <= 40 else None, markersize=3.5, **kwargs)


def mark_x(axes: Axes, x: float, text: str, color: str = ORANGE) -> None:
    """A dashed vertical line at `x`, named in the legend."""
    axes.axvline(x, color=color, linestyle="--", linewidth=1.4, label=text)


def mark_point(axes: Axes, x: float, y: float, text: str, color: str = ORANGE) -> None:
    """A ring around the point `(x, y)`, named in the legend."""
    axes.plot([x], [y], linestyle="none", marker="o", markersize=10, markerfacecolor="none", markeredgewidth=2,
              color=color, label=text, clip_on=False, zorder=5)


def note(axes: Axes, text: str) -> None:
    """A remark in small grey print in the upper right corner, above the axes."""
    axes.text(1.0, 1.015, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=MUTED)
