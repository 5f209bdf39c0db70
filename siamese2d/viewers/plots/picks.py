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
LOW_PASS_OF_DIAMETER = 0.06


class PicksPlot:
    """A micrograph with its picks as circles coloured by score, beside the histogram of all scores.

    The threshold can be moved afterwards: circles appear and vanish, and the counts follow.

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
    threshold : float
        Score from which a candidate is kept.
    figure : Figure, optional
        Figure to draw into.

    Attributes
    ----------
    figure : Figure
    threshold : float
    """

    def __init__(self, image: np.ndarray | str, name: str, coordinates: np.ndarray, scores: np.ndarray,
                 all_scores: np.ndarray, diameter: float, threshold: float, figure: Figure | None = None):
        self._coordinates, self._scores = np.asarray(coordinates, dtype=float).reshape(-1, 2), np.asarray(scores)
        self._all_scores, self._diameter, self._name = np.sort(all_scores), diameter, name
        self.threshold = threshold
        with style():
            self.figure = prepare(figure, 11.6, 7.6)
            grid = self.figure.add_gridspec(2, 2, width_ratios=(2.7, 1), height_ratios=(1, 1.6))
            self._micrograph = self.figure.add_subplot(grid[:, 0])
            self._counts = self.figure.add_subplot(grid[0, 1])
            self._histogram = self.figure.add_subplot(grid[1, 1])
            self._circles, self._line = None, None
            self._draw_micrograph(image)
            self._draw_histogram()
            self._here, self._all = self._draw_counts()
            self.set_threshold(threshold)

    @property
    def kept_here(self) -> int:
        """Picks on this micrograph at the present threshold."""
        return int((self._scores >= self.threshold).sum())

    @property
    def kept(self) -> int:
        """Picks on all micrographs at the present threshold."""
        return len(self._all_scores) - int(np.searchsorted(self._all_scores, self.threshold, side="left"))

    def set_threshold(self, threshold: float) -> None:
        """Show the picks that score at least `threshold`."""
        self.threshold = threshold
        keep = self._scores >= threshold
        if self._circles is not None:
            self._circles.set_offsets(self._coordinates[keep])
            self._circles.set_array(self._scores[keep])
        if self._line is not None:
            self._line.set_xdata([threshold, threshold])
        self._here.set_text(f"{self.kept_here:,}")
        self._all.set_text(f"picks on this micrograph\n{self.kept:,} on all micrographs\n"
                           f"with a score of {threshold:.3g} or more")

    def _draw_micrograph(self, image: np.ndarray | str) -> None:
        self._micrograph.set_title(self._name)
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
        low = min(middle, self.threshold)
        return (low, high) if high > low else (low, low + 1)

    def _draw_histogram(self) -> None:
        axes = self._histogram
        if not len(self._all_scores):
            say(axes, "There are no candidates.")
            return
        span = (self._all_scores[0], self._all_scores[-1])
        axes.hist(self._all_scores, bins=BINS, range=span, color=BARS, log=True)
        axes.hist(self._scores, bins=BINS, range=span, histtype="step", color=BLUE, linewidth=1.4, log=True)
        axes.set_ylim(bottom=0.5)
        mark_x(axes, self.threshold, "threshold")
        self._line = axes.lines[-1]
        axes.set_xlabel("score")
        axes.set_ylabel("candidates (logarithmic)")

    def _draw_counts(self) -> tuple[Text, Text]:
        axes = self._counts
        axes.set_axis_off()
        handles = [Patch(color=BARS, label="all micrographs"),
                   Line2D([], [], color=BLUE, label="this micrograph"),
                   Line2D([], [], color=ORANGE, linestyle="--", label="threshold")]
        axes.legend(handles=handles, loc="lower left", borderaxespad=0)
        return (axes.text(0, 1, "", transform=axes.transAxes, va="top", fontsize=30, fontweight="bold", color=BLUE),
                axes.text(0, 0.76, "", transform=axes.transAxes, va="top", linespacing=1.5))
