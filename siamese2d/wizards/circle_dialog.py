"""A window to choose a diameter by looking at circles over images."""

import tkinter as tk
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure
from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES, Dialog

from siamese2d.viewers.plots.circles import FIGURE_INCHES, CirclesPlot

DPI = 92


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


class CircleDialog(Dialog):
    """Shows circles over images, with a slider for their diameter; the mouse wheel changes it too.

    The window is modal: the constructor returns when it is closed. `resultYes()` tells whether `diameter` was taken.

    Parameters
    ----------
    parent : tkinter widget
        Window of the form.
    title : str
        Of this window.
    pages : list of Page
        Images, at least one.
    pixelSize : float
        Angstroms per pixel of all images.
    diameter : float
        To start with, angstroms.
    largest : float
        End of the slider, angstroms.
    """

    def __init__(self, parent, title: str, pages: list[Page], pixelSize: float, diameter: float, largest: float):
        self._pages, self._pixelSize, self._largest, self._number = pages, pixelSize, largest, 0
        self.diameter = min(diameter, largest)
        self._plot = None
        Dialog.__init__(self, parent, title, buttons=[("Select", RESULT_YES), ("Cancel", RESULT_CANCEL)],
                        default="Select")

    def body(self, bodyFrame):
        self._figure = Figure(figsize=FIGURE_INCHES, dpi=DPI)
        self._canvas = FigureCanvasTkAgg(self._figure, master=bodyFrame)
        self._canvas.get_tk_widget().grid(row=0, column=0, columnspan=4, sticky="news")
        self._canvas.mpl_connect("scroll_event",
                                 lambda event: self._scale.set(self.diameter + event.step * self._step()))
        self._label = tk.Label(bodyFrame)
        tk.Button(bodyFrame, text="Previous", command=lambda: self.turn(-1)).grid(row=1, column=0, padx=4, pady=4)
        self._label.grid(row=1, column=1)
        tk.Button(bodyFrame, text="Next", command=lambda: self.turn(+1)).grid(row=1, column=2, padx=4, pady=4)
        self._scale = tk.Scale(bodyFrame, from_=self._step(), to=self._largest, resolution=self._step(), length=340,
                               orient=tk.HORIZONTAL, label="Diameter (Å)", command=self._diameterChanged)
        self._scale.set(self.diameter)
        self._scale.grid(row=1, column=3, padx=8, pady=4)
        self.bind("<Left>", lambda _event: self.turn(-1))
        self.bind("<Right>", lambda _event: self.turn(+1))
        self._show()

    def turn(self, step: int) -> None:
        """Go to another image."""
        self._number = (self._number + step) % len(self._pages)
        self._show()

    def _show(self):
        page = self._pages[self._number]
        self._plot = CirclesPlot(page.read(), page.name, page.positions, self._pixelSize, self.diameter, self._figure)
        self._label.config(text=f"{self._number + 1} of {len(self._pages)}")
        self._canvas.draw_idle()

    def _diameterChanged(self, value):
        self.diameter = float(value)
        if self._plot is not None:
            self._plot.set_diameter(self.diameter)
            self._canvas.draw_idle()

    def _step(self):
        return 1.0 if self._largest > 50 else 0.5
