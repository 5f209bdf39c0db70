"""The window of the map: dots on the left, what lies in the lassoed region on the right."""

import tkinter as tk
from collections.abc import Callable
from tkinter import ttk

import numpy as np
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure
from matplotlib.widgets import LassoSelector

from siamese2d.viewers.embedding_colors import COLORS
from siamese2d.viewers.embedding_map.map_model import MapModel
from siamese2d.viewers.embedding_map.region_panel import RegionPanel
from siamese2d.viewers.gallery import theme
from siamese2d.viewers.gallery.controls import LookControls
from siamese2d.viewers.plots.embedding import dot_size
from siamese2d.viewers.plots.style import INK, ORANGE
from siamese2d.viewers.run_files import RunFileError

SIZE = "1360x800"
DPI = 90
HINT = ("Drag: lasso   Shift+drag: add   Ctrl+drag: take away   Wheel: zoom   Double-click: whole map   Esc: nothing "
        "selected")
ZOOM = 1.25
NOTHING = next(iter(COLORS))


class MapWindow:
    """An embedding's map, to lasso particles in.

    Parameters
    ----------
    parent : tkinter widget or None
        None makes a root window.
    title : str
    model : MapModel
    keep : callable or None
        ``keep(model, layout, window)`` makes a subset of what is selected; returns what to tell, or "" when the user
        thought better of it.
    color, layout : str, optional
        To begin with.

    Attributes
    ----------
    root : tkinter window
    panel : RegionPanel
    """

    def __init__(self, parent, title: str, model: MapModel, keep: Callable[[MapModel, str, tk.Misc], str] | None = None,
                 color: str = NOTHING, layout: str | None = None):
        self.model, self._keep_action = model, keep
        self.root = tk.Toplevel(parent) if parent is not None else tk.Tk()
        theme.apply_theme(self.root)
        self.root.configure(background=theme.PAPER)
        self.root.title(title)
        self.root.geometry(SIZE)
        self.root.minsize(900, 560)
        self._message = HINT
        self._selected_dots = None
        self._build()
        self.root.bind("<Escape>", lambda _event: self._change(lambda: self.model.selection.replace(())))
        self.root.bind("<Control-z>", lambda _event: self._change(self.model.selection.undo))
        self.show(color, layout or model.layouts[0])

    # --------------------------- building --------------------------------------
    def _build(self) -> None:
        bar = ttk.Frame(self.root, style=theme.FRAME, padding=(10, 8, 10, 4))
        bar.pack(side=tk.TOP, fill=tk.X)
        self._color = self._choice(bar, "Colour by", list(COLORS), 22)
        self._layout = self._choice(bar, "Axes", self.model.layouts, 20)
        bottom = ttk.Frame(self.root, style=theme.FRAME, padding=(10, 4, 10, 8))
        bottom.pack(side=tk.BOTTOM, fill=tk.X)
        self._hint = ttk.Label(bottom, style=theme.HINT, text=HINT)
        self._hint.pack(side=tk.TOP, anchor="w", pady=(0, 6))
        self._status = ttk.Label(bottom, style=theme.STATUS)
        self._status.pack(side=tk.LEFT)
        ttk.Button(bottom, text="Close", width=7, command=self.root.destroy).pack(side=tk.RIGHT, padx=(4, 0))
        self._keep = None
        if self._keep_action is not None:
            self._keep = ttk.Button(bottom, text="Keep selected…", command=self.keep)
            self._keep.pack(side=tk.RIGHT, padx=(4, 0))
        selection = self.model.selection
        for label, act in (("Undo", selection.undo), ("Invert", selection.invert),
                           ("None", lambda: selection.replace(()))):
            ttk.Button(bottom, text=label, width=7, command=lambda act=act: self._change(act)) \
                .pack(side=tk.RIGHT, padx=(4, 0))
        self.panel = RegionPanel(self.root, self.model.particles)
        self.panel.pack(side=tk.RIGHT, fill=tk.Y)
        looks = LookControls(bar, self.panel.look, self.model.particles.pixel_size, self.panel.set_look)
        looks.pack(side=tk.RIGHT)
        self.figure = Figure(dpi=DPI)
        self.canvas = FigureCanvasTkAgg(self.figure, self.root)
        self.canvas.get_tk_widget().configure(highlightthickness=0)
        self.canvas.get_tk_widget().pack(side=tk.LEFT, fill=tk.BOTH, expand=True)
        self.canvas.mpl_connect("button_press_event", self._on_press)
        self.canvas.mpl_connect("scroll_event", self._on_scroll)

    def _choice(self, bar, label: str, options: list[str], width: int) -> ttk.Combobox:
        ttk.Label(bar, style=theme.LABEL, text=label).pack(side=tk.LEFT, padx=(0, 4))
        box = ttk.Combobox(bar, state="readonly", width=width, values=options)
        box.pack(side=tk.LEFT, padx=(0, 14))
        box.bind("<<ComboboxSelected>>", lambda _event: (self.show(self._color.get(), self._layout.get()),
                                                         box.selection_clear()))
        return box

    # --------------------------- what a user does ------------------------------
    def show(self, color: str, layout: str) -> None:
        """Draw the map with these colours and axes; the selection stays."""
        problem = ""
        try:
            colors = self.model.colors(color)
        except RunFileError as error:
            problem, color, colors = str(error), NOTHING, None
        self._color.set(color)
        self._layout.set(layout)
        self.points = self.model.points(layout)
        size = self.figure.get_size_inches()
        self.model.draw(self.points, colors, self.figure)
        # The plot's own size is that of a window by itself; here the window gives it.
        self.figure.set_size_inches(size)
        self.axes = self.figure.axes[0]
        self._limits = None
        self._selected_dots = self.axes.scatter([], [], s=2.2 * dot_size(max(len(self.points.rows), 1)), marker="o",
                                                facecolors="none", edgecolors=INK, linewidths=0.7, zorder=4)
        self._selector = LassoSelector(self.axes, self._lassoed, useblit=True, button=1,
                                       props={"color": ORANGE, "linewidth": 1.8})
        self._show_selection(problem)

    def keep(self) -> None:
        """Make a subset of what is selected."""
        if not len(self.model.selection):
            self.say("Nothing is selected: draw around the particles to keep.")
            return
        try:
            self.say(self._keep_action(self.model, self._layout.get(), self.root))
        except Exception as problem:
            # Whatever the project refuses, the selection is not lost.
            self.say(f"The subset could not be started: {problem}")

    def say(self, text: str) -> None:
        """Tell something in the line above the buttons."""
        self._message = text or HINT
        self._hint.config(text=self._message)

    def _change(self, act: Callable[[], None]) -> None:
        act()
        self._show_selection()

    def _on_press(self, event) -> None:
        if event.dblclick and self._limits is not None:
            self.axes.set(xlim=self._limits[0], ylim=self._limits[1])
            self.canvas.draw_idle()
        self._mode = "add" if "shift" in event.modifiers else "remove" if "ctrl" in event.modifiers else "replace"

    def _lassoed(self, corners: list[tuple[float, float]]) -> None:
        # A click is no region.
        corners = np.unique(np.array(corners), axis=0) if len(corners) < 4 else np.array(corners)
        if len(corners) < 3:
            return
        if self.points.undrawn:
            # The first time, a million particles take some seconds.
            self.say("Looking for the particles that are not drawn …")
            self.root.update_idletasks()
        before = self.model.selection.ids
        told = self.model.lasso(self.points, corners, self._mode)
        if self.model.selection.ids == before:
            self.say(told)
            self.canvas.draw_idle()
            return
        self._show_selection()

    def _on_scroll(self, event) -> None:
        if event.inaxes is not self.axes:
            return
        if self._limits is None:
            self._limits = self.axes.get_xlim(), self.axes.get_ylim()
        scale = 1 / ZOOM if event.button == "up" else ZOOM
        self.axes.set(**{name: [centre + (edge - centre) * scale for edge in limits] for name, limits, centre in (
            ("xlim", self.axes.get_xlim(), event.xdata), ("ylim", self.axes.get_ylim(), event.ydata))})
        self.canvas.draw_idle()

    # --------------------------- showing ---------------------------------------
    def _show_selection(self, text: str = "") -> None:
        undrawn = self.points.undrawn
        self.say(text or undrawn and f"{HINT}   Of many particles only some are drawn: {undrawn}")
        rows = self.model.rows
        shown = np.isin(self.points.rows, rows)
        self._selected_dots.set_offsets(self.points.places[shown].reshape(-1, 2))
        self.panel.show(rows)
        self._status.config(text=self.model.status())
        if self._keep is not None:
            self._keep.state(["!disabled" if len(rows) else "disabled"])
        self.canvas.draw_idle()
