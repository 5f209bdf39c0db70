"""A window to choose a number by looking at a figure."""

import tkinter as tk

from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure
from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES, Dialog

DPI = 92
SLIDER_PIXELS = 340
TEXT_PIXELS = 620


class FigureDialog(Dialog):
    """A figure, a slider for the number, and buttons to turn pages where there are several.

    A subclass draws (`_draw`) and shows another number (`_changed`). The window is modal: the constructor returns when
    it is closed. `resultYes()` tells whether `value` was taken.

    Parameters
    ----------
    parent : tkinter widget
        Window of the form.
    title : str
        Of this window.
    label : str
        Of the slider.
    value : float
        To start with.
    limits : (float, float, float)
        Smallest and largest value, and the step between values.
    pages : int
        Number of pages.
    hint : str
        What to do here, and what the number means.
    """

    # Inches.
    SIZE = (7.2, 7.4)

    def __init__(self, parent, title: str, label: str, value: float, limits: tuple[float, float, float],
                 pages: int = 1, hint: str = ""):
        self._title, self._sliderLabel, self._limits, self._pages, self._hint = title, label, limits, pages, hint
        self._number, self._ready = 0, False
        self.value = min(max(value, limits[0]), limits[1])
        Dialog.__init__(self, parent, title, buttons=[("Select", RESULT_YES), ("Cancel", RESULT_CANCEL)],
                        default="Select")

    def body(self, bodyFrame):
        self._figure = Figure(figsize=self.SIZE, dpi=DPI)
        self._canvas = FigureCanvasTkAgg(self._figure, master=bodyFrame)
        self._canvas.get_tk_widget().grid(row=0, column=0, sticky="news")
        bodyFrame.rowconfigure(0, weight=1)
        bodyFrame.columnconfigure(0, weight=1)
        controls = tk.Frame(bodyFrame)
        controls.grid(row=1, column=0, sticky="ew")
        self._addPageButtons(controls)
        low, high, step = self._limits
        self._scale = tk.Scale(controls, from_=low, to=high, resolution=step, length=SLIDER_PIXELS,
                               label=self._sliderLabel, orient=tk.HORIZONTAL, command=self._slid)
        self._scale.set(self.value)
        self._scale.grid(row=0, column=3, padx=8, pady=4)
        self._text = tk.Label(bodyFrame, text=self._hint, wraplength=TEXT_PIXELS, justify=tk.LEFT, anchor=tk.W)
        self._text.grid(row=2, column=0, sticky="ew", padx=8, pady=(0, 4))
        self._canvas.mpl_connect("scroll_event", lambda event: self.setValue(self.value + event.step * step))
        self._show()

    def turn(self, step: int) -> None:
        """Go to another page."""
        self._number = (self._number + step) % self._pages
        self._show()

    def setValue(self, value: float) -> None:
        """Move the slider, which shows the value."""
        self._scale.set(value)

    def _addPageButtons(self, frame):
        self._pageLabel = tk.Label(frame)
        if self._pages == 1:
            return
        tk.Button(frame, text="Previous", command=lambda: self.turn(-1)).grid(row=0, column=0, padx=4, pady=4)
        self._pageLabel.grid(row=0, column=1)
        tk.Button(frame, text="Next", command=lambda: self.turn(+1)).grid(row=0, column=2, padx=4, pady=4)
        self.bind("<Left>", lambda _event: self.turn(-1))
        self.bind("<Right>", lambda _event: self.turn(+1))

    def _show(self):
        self._draw(self._number)
        self._ready = True
        self._pageLabel.config(text=f"{self._number + 1} of {self._pages}")
        self._canvas.draw_idle()

    def _slid(self, value):
        self.value = float(value)
        if self._ready:
            self._changed()
            self._canvas.draw_idle()

    def _draw(self, page: int) -> None:
        """Draw a page into the figure."""

    def _changed(self) -> None:
        """Show the present value in what is drawn."""
