"""A window to choose a diameter by looking at circles over images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from siamese2d.viewers.plots.circles import FIGURE_INCHES, CirclesPlot
from siamese2d.wizards.figure_dialog import FigureDialog

LEFT_BUTTON, RIGHT_BUTTON = 1, 3


@dataclass(frozen=True)
class Page:
    """One image to look at.

    Attributes
    ----------
    name : str
        What to call it.
    read : callable
        Returns the image `(h, w)`, or the sentence why there is none.
    positions : ndarray
        Centres of the circles, pixels (x, y), `(n, 2)`.
    """

    name: str
    read: Callable[[], np.ndarray | str]
    positions: np.ndarray


class CircleDialog(FigureDialog):
    """Shows circles over images, with a slider for their diameter; the mouse wheel changes it too.

    Parameters
    ----------
    parent, title
        See `FigureDialog`.
    pages : list of Page
        Images, at least one.
    pixelSize : float
        Angstroms per pixel of all images.
    diameter : float
        To start with, angstroms.
    largest : float
        End of the slider, angstroms.
    hint : str
        What to do here.
    clickable : bool
        A click puts a circle there, the right button takes the nearest away.
    """

    SIZE = FIGURE_INCHES

    def __init__(self, parent, title: str, pages: list[Page], pixelSize: float, diameter: float, largest: float,
                 hint: str = "", clickable: bool = False):
        self._images, self._pixelSize, self._clickable = pages, pixelSize, clickable
        self._positions = [np.asarray(page.positions, dtype=float).reshape(-1, 2) for page in pages]
        step = 1.0 if largest > 50 else 0.5
        FigureDialog.__init__(self, parent, title, "Diameter (Å)", diameter, (step, largest, step), len(pages), hint)

    @property
    def diameter(self) -> float:
        """Angstroms."""
        return self.value

    def body(self, bodyFrame):
        FigureDialog.body(self, bodyFrame)
        if self._clickable:
            self._canvas.mpl_connect("button_press_event", self._clicked)

    def _draw(self, page):
        self._plot = CirclesPlot(self._images[page].read(), self._images[page].name, self._positions[page],
                                 self._pixelSize, self.value, self._figure)

    def _changed(self):
        self._plot.set_diameter(self.value)

    def _clicked(self, event):
        if event.inaxes is None or event.button not in (LEFT_BUTTON, RIGHT_BUTTON):
            return
        place, known = np.array([[event.xdata, event.ydata]]), self._positions[self._number]
        if event.button == LEFT_BUTTON:
            known = np.concatenate([known, place])
        elif len(known):
            known = np.delete(known, np.argmin(np.linalg.norm(known - place, axis=1)), axis=0)
        self._positions[self._number] = known
        self._plot.set_positions(known)
        self._canvas.draw_idle()
