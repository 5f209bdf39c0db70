"""Picks over a micrograph, and how many a threshold keeps."""

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from .curves import mark_x
from .style import BARS, BLUE, ORANGE, SCORES, prepare, say, show_image, shrink, smooth, style

BINS = 50
# Points.
LARGE = 28
LOW_PASS_OF_DIAMETER = 0.06


class PicksPlot:
    """A micrograph with its picks as circles coloured by score, beside the histogram of all scores.

    The limits can be moved afterwards: circles appear and vanish, and the counts follow.

    Parameters
    ----------
    image : ndarray, `(h, w)`, or str
        The micrograph, or why it can't be shown.
    name : str
        What to call it.
    coordinates : ndarray, `(n, 2)`
        Centres of its candidates, pixels (x, y) from the centre of the first pixel.
    scores : ndarray, `(n,)`
        Their scores.
    all_scores : ndarray, `(m,)`
        Scores of the candidates of all micrographs.
    diameter : float
        Of the particle, pixels.
    limits : (float, float)
        Scores from which and up to which a candidate is kept.
    curve : list of dict, optional
        ``threshold``, ``precision`` and ``recall``, estimated when the picker was trained.
    figure : Figure, optional
        Figure to draw into.

    Attributes
    ----------
    figure : Figure
    limits : (float, float)
    histogram : Axes
        Where the limits may be dragged.
    """

    def __init__(self, image: np.ndarray | str, name: str, coordinates: np.ndarray, scores: np.ndarray,
                 all_scores: np.ndarray, diameter: float, limits: tuple[float, float], curve: list[dict] | None = None,
                 figure: Figure | None = None):
        self._coordinates, self._scores = np.asarray(coordinates, dtype=float).reshape(-1, 2), np.asarray(scores)
        self._all_scores, self._diameter, self._name = np.sort(all_scores), diameter, name
        self._curve = sorted(curve or [], key=lambda point: point["threshold"])
        self.limits = limits
        with style():
            self.figure = prepare(figure, 11.6, 7.6)
            heights = (1.75, 1.2, 1.2) if self._curve else (1, 1.6)
            grid = self.figure.add_gridspec(len(heights), 2, width_ratios=(2.7, 1), height_ratios=heights)
            self._micrograph = self.figure.add_subplot(grid[:, 0])
            self._counts = self.figure.add_subplot(grid[0, 1])
            self.histogram = self.figure.add_subplot(grid[-1, 1])
            self._circles, self._lines = None, []
            self._point = self._draw_curve(self.figure.add_subplot(grid[1, 1])) if self._curve else None
            self._draw_micrograph(image)
            self._draw_histogram()
            self._here, self._all = self._draw_counts()
            self.set_limits(limits)

    @property
    def kept_here(self) -> int:
        """Picks on this micrograph within the present limits."""
        return int(self._keeps(self._scores).sum())

    @property
    def kept(self) -> int:
        """Picks on all micrographs within the present limits."""
        low, high = self.limits
        return int(np.searchsorted(self._all_scores, high, side="right")
                   - np.searchsorted(self._all_scores, low, side="left"))

    @property
    def _cuts_above(self) -> bool:
        return len(self._all_scores) > 0 and self.limits[1] < self._all_scores[-1]

    def estimate(self) -> tuple[float, float] | None:
        """Precision and recall as they were estimated; None where they are not, as for an upper limit."""
        if not self._curve or self._cuts_above:
            return None
        thresholds = [point["threshold"] for point in self._curve]
        return tuple(float(np.interp(self.limits[0], thresholds, [point[key] for point in self._curve]))
                     for key in ("precision", "recall"))

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Show the picks whose scores are within these limits, both included."""
        self.limits = limits
        keep = self._keeps(self._scores)
        if self._circles is not None:
            self._circles.set_offsets(self._coordinates[keep])
            self._circles.set_array(self._scores[keep])
        for line, score in zip(self._lines, limits):
            line.set_xdata([score, score])
        low, high = limits
        text, found = f"with a score of {low:.3g} or more", self.estimate()
        if self._cuts_above:
            text = f"with a score of {low:.3g} to {high:.3g}"
        if found is not None:
            text += f"\nestimated: precision {found[0]:.2f}, recall {found[1]:.2f}"
        if self._point is not None:
            self._point.set_data(*([[found[1]], [found[0]]] if found is not None else [[], []]))
        self._here.set_text(f"{self.kept_here:,}")
        self._all.set_text(f"picks on this micrograph\n{self.kept:,} on all micrographs\n{text}")

    def say(self, text: str) -> None:
        """Tell something above the micrograph, beside its name."""
        self._title.set_text(f"{self._name}   {text}" if text else self._name)

    def _keeps(self, scores: np.ndarray) -> np.ndarray:
        return (scores >= self.limits[0]) & (scores <= self.limits[1])

    def _draw_curve(self, axes):
        axes.set_title("Precision and recall", fontsize=10)
        axes.plot([point["recall"] for point in self._curve], [point["precision"] for point in self._curve], color=BLUE)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision (estimated)")
        return axes.plot([], [], linestyle="none", marker="o", markersize=9, markerfacecolor="none", markeredgewidth=2,
                         color=ORANGE, clip_on=False)[0]

    def _draw_micrograph(self, image: np.ndarray | str) -> None:
        self._title = self._micrograph.set_title(self._name)
        if isinstance(image, str):
            say(self._micrograph, image)
            return
        small, factor = shrink(image)
        height, width = image.shape
        # Block (i, j) covers pixels from factor * j - 0.5 on, as pixel centres are whole numbers.
        extent = (-0.5, small.shape[1] * factor - 0.5, small.shape[0] * factor - 0.5, -0.5)
        show_image(self._micrograph, smooth(small, self._diameter * LOW_PASS_OF_DIAMETER / factor), extent=extent)
        low, high = self._color_range()
        self._circles = EllipseCollection(
            [self._diameter], [self._diameter], [0], units="xy", offsets=np.empty((0, 2)),
            offset_transform=self._micrograph.transData, facecolors="none", linewidths=1.3, cmap=SCORES,
            norm=Normalize(low, high))
        self._circles.set_array(np.empty(0))
        self._micrograph.add_collection(self._circles, autolim=False)
        self._micrograph.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        self.figure.colorbar(self._circles, ax=self._micrograph, label="score", fraction=0.04, pad=0.015, aspect=32)

    def _color_range(self) -> tuple[float, float]:
        if not len(self._all_scores):
            return 0.0, 1.0
        middle, high = np.percentile(self._all_scores, [50, 99])
        low = min(middle, self.limits[0])
        return (low, high) if high > low else (low, low + 1)

    def _draw_histogram(self) -> None:
        axes = self.histogram
        if not len(self._all_scores):
            say(axes, "There are no candidates.")
            return
        span = (self._all_scores[0], self._all_scores[-1])
        axes.hist(self._all_scores, bins=BINS, range=span, color=BARS, log=True)
        axes.hist(self._scores, bins=BINS, range=span, histtype="step", color=BLUE, linewidth=1.4, log=True)
        axes.set_ylim(bottom=0.5)
        for limit in self.limits:
            mark_x(axes, limit, "limits")
        self._lines = axes.lines[-2:]
        axes.set_xlabel("score")
        axes.set_ylabel("candidates (logarithmic)")

    def _draw_counts(self) -> tuple[Text, Text]:
        axes = self._counts
        axes.set_axis_off()
        handles = [Patch(color=BARS, label="all micrographs"),
                   Line2D([], [], color=BLUE, label="this micrograph"),
                   Line2D([], [], color=ORANGE, linestyle="--", label="limits")]
        axes.legend(handles=handles, loc="lower left", borderaxespad=0)
        return (axes.text(0, 1, "", transform=axes.transAxes, va="top", fontsize=LARGE, fontweight="bold", color=BLUE),
                axes.annotate("", (0, 1), (0, -LARGE * 1.4), xycoords="axes fraction", textcoords="offset points",
                              va="top", linespacing=1.5))
