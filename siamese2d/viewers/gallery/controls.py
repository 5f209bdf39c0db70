"""The strips of controls around the grid: how images look, and which are selected."""

import math
import tkinter as tk
from collections.abc import Callable
from tkinter import ttk

from siamese2d.gallery.criteria import Criteria
from siamese2d.viewers.gallery.pictures import Look
from siamese2d.viewers.gallery import theme

SIDES = (64, 256)
CONTRASTS = (0.5, 4.0)
# Step 0 of the low-pass slider smooths nothing, step k keeps periods from 2 * 1.13^k pixels on.
LOW_PASS_STEPS, LOW_PASS_RATIO = 24, 1.13


class LookControls(ttk.Frame):
    """Sliders for the size of the images, their contrast and their low-pass.

    Parameters
    ----------
    parent : tkinter widget
    look : Look
        To begin with, and again after a reset.
    pixel_size : float or None
        Angstroms per pixel.
    changed : callable
        ``changed(look)`` is called on every move.
    """

    def __init__(self, parent, look: Look, pixel_size: float | None, changed: Callable[[Look], None]):
        super().__init__(parent, style=theme.FRAME)
        self._first, self._pixel_size, self._changed = look, pixel_size, changed
        self._side, self._contrast = tk.DoubleVar(value=look.side), tk.DoubleVar(value=look.contrast)
        self._low_pass = tk.DoubleVar(value=self._step(look.low_pass))
        self._texts = {}
        for label, variable, low, high in (("Size", self._side, *SIDES), ("Contrast", self._contrast, *CONTRASTS),
                                           ("Low-pass", self._low_pass, 0, LOW_PASS_STEPS)):
            ttk.Label(self, style=theme.LABEL, text=label).pack(side=tk.LEFT, padx=(10, 3))
            ttk.Scale(self, style=theme.SCALE, from_=low, to=high, variable=variable, length=100,
                      command=lambda _value: self._on_change()).pack(side=tk.LEFT)
            self._texts[label] = ttk.Label(self, style=theme.LABEL, width=7, anchor="w")
            self._texts[label].pack(side=tk.LEFT, padx=(4, 0))
        ttk.Button(self, text="Reset", width=6, command=self.reset).pack(side=tk.LEFT, padx=4)
        self._write()

    @property
    def look(self) -> Look:
        """What the sliders say."""
        step = self._low_pass.get()
        period = 0.0 if step < 1 else 2 * (self._pixel_size or 1.0) * LOW_PASS_RATIO ** step
        return Look(4 * round(self._side.get() / 4), round(self._contrast.get(), 2), round(period, 1))

    def reset(self) -> None:
        """All sliders as they were in the beginning, apart from the size."""
        self._contrast.set(self._first.contrast)
        self._low_pass.set(self._step(self._first.low_pass))
        self._on_change()

    def _step(self, period: float) -> float:
        nyquist = 2 * (self._pixel_size or 1.0)
        return math.log(period / nyquist, LOW_PASS_RATIO) if period > nyquist else 0.0

    def _on_change(self) -> None:
        self._write()
        self._changed(self.look)

    def _write(self) -> None:
        look, unit = self.look, "Å" if self._pixel_size else "px"
        self._texts["Size"].config(text=f"{look.side} px")
        self._texts["Contrast"].config(text=f"{look.contrast:.1f}")
        self._texts["Low-pass"].config(text=f"{look.low_pass:.0f} {unit}" if look.low_pass else "off")


class ThresholdControls(ttk.Frame):
    """Fields for thresholds, and a button that selects what meets them.

    Parameters
    ----------
    parent : tkinter widget
    known : dict of str to bool
        Which of ``size``, ``resolution`` and ``quality`` the set has.
    apply : callable
        ``apply(criteria)`` is called by the button and by Return.
    """

    def __init__(self, parent, known: dict[str, bool], apply: Callable[[Criteria], None]):
        super().__init__(parent, style=theme.FRAME)
        self._apply, self._fields = apply, {}
        ttk.Label(self, style=theme.LABEL, text="Select where").pack(side=tk.LEFT, padx=(0, 4))
        for name, label, unit in (("size", "size ≥", ""), ("resolution", "resolution ≤", "Å"),
                                  ("quality", "quality ≥", "")):
            if not known[name]:
                continue
            ttk.Label(self, style=theme.LABEL, text=label).pack(side=tk.LEFT, padx=(6, 2))
            self._fields[name] = ttk.Entry(self, width=7, justify="right")
            self._fields[name].bind("<Return>", lambda _event: self.apply())
            self._fields[name].pack(side=tk.LEFT)
            ttk.Label(self, style=theme.LABEL, text=unit).pack(side=tk.LEFT, padx=(2, 0))
        button = ttk.Button(self, text="Select", command=self.apply)
        button.pack(side=tk.LEFT, padx=6)
        if not self._fields:
            self.destroy()

    def apply(self) -> None:
        """Select by what is typed; a field that is no number is marked and nothing is selected."""
        values, wrong = {}, False
        for name, field in self._fields.items():
            text = field.get().strip().replace(",", ".")
            try:
                values[name] = float(text) if text else None
                field.config(foreground="")
            except ValueError:
                field.config(foreground="red")
                wrong = True
        criteria = Criteria(values.get("size"), values.get("resolution"), values.get("quality"))
        if not wrong and not criteria.empty:
            self._apply(criteria)

    def set(self, **values: float) -> None:
        """Type values into fields by name."""
        for name, value in values.items():
            self._fields[name].delete(0, tk.END)
            self._fields[name].insert(0, f"{value:g}")
