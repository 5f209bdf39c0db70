"""The window of the class gallery."""

import math
import tkinter as tk
from collections.abc import Callable
from dataclasses import dataclass, field
from tkinter import ttk

import numpy as np

from siamese2d.gallery.class_list import SetFileError
from siamese2d.gallery.model import GalleryModel
from siamese2d.gallery.order import (ACCURACY, NUMBER, QUALITY, RESOLUTION, SIMILARITY, SIZE, available_orders,
                                     features, similarity_order, sort_ids)
from siamese2d.viewers.gallery.pictures import Look, read_picture
from siamese2d.viewers.gallery import theme
from siamese2d.viewers.gallery.controls import LookControls, ThresholdControls
from siamese2d.viewers.gallery.image_grid import Entry, ImageGrid
from siamese2d.viewers.gallery.time_slices import TimeSlices

WIDTH, HIGHEST, LOWEST = 1180, 860, 520
# Heights of the controls and of a row of averages, pixels.
CONTROLS, ROW, PER_ROW = 190, 172, 8
SIDE = 124
HINT = "Click: select   Shift+click: range   Drag: several (Ctrl: take away)   Double-click: members"


@dataclass
class Actions:
    """What the gallery can ask of its project; None leaves the button out.

    Attributes
    ----------
    reload : callable or None
        Returns the model of the set as it is now.
    keep : callable or None
        ``keep(ids, window)`` makes a subset; returns what to tell, or "" when the user thought better of it.
    open_members : callable or None
        ``open_members(id, window)`` shows the members of a class.
    others : list of (str, callable)
        More buttons: label, and ``callable(window)`` that returns what to tell.
    """

    reload: Callable[[], GalleryModel] | None = None
    keep: Callable[[list[int], tk.Misc], str] | None = None
    open_members: Callable[[int, tk.Misc], None] | None = None
    others: list[tuple[str, Callable[[tk.Misc], str]]] = field(default_factory=list)


class GalleryWindow:
    """Class averages in a grid, to look at, sort and select.

    Parameters
    ----------
    parent : tkinter widget or None
        None makes a root window.
    title : str
    model : GalleryModel
    actions : Actions

    Attributes
    ----------
    root : tkinter window
    grid : ImageGrid
    """

    def __init__(self, parent, title: str, model: GalleryModel, actions: Actions):
        self.model, self.actions = model, actions
        self.root = tk.Toplevel(parent) if parent is not None else tk.Tk()
        theme.apply_theme(self.root)
        self.root.configure(background=theme.PAPER)
        self.root.title(title)
        rows = math.ceil(len(model.classes) / PER_ROW)
        self.root.geometry(f"{WIDTH}x{min(max(CONTROLS + rows * ROW, LOWEST), HIGHEST)}")
        self.root.minsize(760, 480)
        self._described: dict[int, np.ndarray | Exception] = {}
        self._comparing: TimeSlices | None = None
        self._build()
        self._bind_keys()
        self._show_model()
        self.grid.canvas.focus_set()

    # --------------------------- building --------------------------------------
    def _build(self) -> None:
        root, look, classes = self.root, Look(SIDE), self.model.classes
        top = ttk.Frame(root, style=theme.FRAME, padding=(10, 8, 10, 2))
        top.pack(side=tk.TOP, fill=tk.X)
        self._heading = ttk.Label(top, style=theme.HEADING)
        self._heading.pack(side=tk.TOP, anchor="w")
        self._notice = ttk.Label(top, style=theme.NOTICE)
        bar = ttk.Frame(root, style=theme.FRAME, padding=(10, 2, 10, 6))
        bar.pack(side=tk.TOP, fill=tk.X)
        ttk.Label(bar, style=theme.LABEL, text="Sort by").pack(side=tk.LEFT, padx=(0, 4))
        self._order = ttk.Combobox(bar, state="readonly", width=16, values=available_orders(classes))
        self._order.pack(side=tk.LEFT)
        self._order.bind("<<ComboboxSelected>>", lambda _event: self.sort_by(self._order.get()))
        self._descending = tk.BooleanVar(value=False)
        ttk.Checkbutton(bar, style=theme.CHECK, text="reversed", variable=self._descending,
                        command=self._reverse).pack(side=tk.LEFT, padx=6)
        self.looks = LookControls(bar, look, classes.pixel_size, lambda changed: self.grid.set_look(changed))
        self.looks.pack(side=tk.RIGHT)
        self._build_bottom()
        self.grid = ImageGrid(root, self._read, self._describe, classes.pixel_size, self._caption_lines(), look)
        self.grid.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self.grid.on_click, self.grid.on_band = self._clicked, self._banded
        self.grid.on_open, self.grid.on_hover = self._opened, self._hovered

    def _build_bottom(self) -> None:
        bottom = ttk.Frame(self.root, style=theme.FRAME, padding=(10, 6, 10, 8))
        bottom.pack(side=tk.BOTTOM, fill=tk.X)
        self._message = HINT
        self._hint = ttk.Label(bottom, style=theme.HINT, text=HINT)
        self._hint.pack(side=tk.TOP, anchor="w", pady=(0, 6))
        choose = ttk.Frame(bottom, style=theme.FRAME)
        choose.pack(side=tk.TOP, fill=tk.X, pady=(0, 6))
        orders = available_orders(self.model.classes)
        known = {name: name in orders for name in (SIZE, RESOLUTION, QUALITY)}
        self.thresholds = ThresholdControls(choose, known, self._select_where)
        if self.thresholds.winfo_exists():
            self.thresholds.pack(side=tk.LEFT)
        for label, command in (("Undo", self.undo), ("Invert", self.invert), ("None", self.select_none),
                               ("All", self.select_all)):
            ttk.Button(choose, text=label, width=7, command=command).pack(side=tk.RIGHT, padx=(4, 0))
        last = ttk.Frame(bottom, style=theme.FRAME)
        last.pack(side=tk.TOP, fill=tk.X)
        self._status = ttk.Label(last, style=theme.STATUS)
        self._status.pack(side=tk.LEFT)
        ttk.Button(last, text="Close", width=7, command=self.root.destroy).pack(side=tk.RIGHT, padx=(4, 0))
        self._keep = None
        if self.actions.keep is not None:
            self._keep = ttk.Button(last, text="Keep selected…", command=self.keep)
            self._keep.pack(side=tk.RIGHT, padx=(4, 0))
        if self.actions.reload is not None:
            ttk.Button(last, text="Reload", width=7, command=self.reload).pack(side=tk.RIGHT, padx=(4, 0))
        for label, command in self.actions.others:
            ttk.Button(last, text=label, command=lambda act=command: self.say(act(self.root))) \
                .pack(side=tk.RIGHT, padx=(4, 0))

    def _bind_keys(self) -> None:
        for key, act in (("<Control-a>", self.select_all), ("<Control-z>", self.undo), ("<Control-i>", self.invert),
                         ("<F5>", self.reload)):
            self.root.bind(key, lambda _event, act=act: act())
        self.root.bind("<Escape>", lambda _event: self.select_none())

    def _caption_lines(self) -> int:
        return 2 if {RESOLUTION, QUALITY, ACCURACY} & set(available_orders(self.model.classes)) else 1

    # --------------------------- what a user does ------------------------------
    def sort_by(self, order: str) -> None:
        """Show the classes in another order."""
        self.model.order_name = order
        self._order.set(order)
        self._order.selection_clear()
        if order == SIMILARITY and not self.model.similarity_known:
            self._compare()
        self.grid.show(self.model.order)

    def select_all(self) -> None:
        """Select every class."""
        self.model.selection.replace(self.model.classes.ids)
        self._show_selection()

    def select_none(self) -> None:
        """Select no class."""
        self.model.selection.replace(())
        self._show_selection()

    def invert(self) -> None:
        """Select all the others."""
        self.model.selection.invert()
        self._show_selection()

    def undo(self) -> None:
        """Take back the last change of the selection."""
        self.model.selection.undo()
        self._show_selection()

    def keep(self) -> None:
        """Make a subset of what is selected."""
        if not len(self.model.selection):
            self.say("Nothing is selected: click the classes to keep, or give thresholds.")
            return
        try:
            self.say(self.actions.keep(self.model.selection.ids, self.root))
        except Exception as problem:
            # Whatever the project refuses, the selection is not lost.
            self.say(f"The subset could not be started: {problem}")

    def reload(self) -> None:
        """Read the set again; the selection stays."""
        if self.actions.reload is None:
            return
        chosen, order, descending = self.model.selection.ids, self.model.order_name, self.model.descending
        try:
            self.model = self.actions.reload()
        except Exception as problem:
            self.say(str(problem))
            return
        if self._comparing is not None:
            self._comparing.close()
            self._comparing = None
        self.model.selection.replace(chosen)
        orders = available_orders(self.model.classes)
        self._order.config(values=orders)
        self.model.order_name, self.model.descending = (order if order in orders else orders[0]), descending
        self.grid.read_again()
        self._show_model()

    def say(self, text: str) -> None:
        """Tell something in the line above the controls."""
        self._message = text or HINT
        self._hint.config(text=self._message)

    def _reverse(self) -> None:
        self.model.descending = self._descending.get()
        self.grid.show(self.model.order)

    def _select_where(self, criteria) -> None:
        self.model.select_where(criteria)
        self._show_selection()

    def _clicked(self, key: int, shift: bool) -> None:
        if shift:
            self.model.selection.extend(key, self.grid.keys)
        else:
            self.model.selection.toggle(key)
        self._show_selection()

    def _banded(self, keys: list[int], control: bool) -> None:
        (self.model.selection.remove if control else self.model.selection.add)(keys)
        self._show_selection()

    def _opened(self, key: int) -> None:
        if self.actions.open_members is None:
            self.say("These are averages alone: open the classes that they belong to to see their members.")
            return
        try:
            self.actions.open_members(key, self.root)
        except SetFileError as problem:
            self.say(str(problem))

    def _hovered(self, key: int | None, problem: str = "") -> None:
        self._hint.config(text=self._message if key is None else problem or self.model.describe(key))

    # --------------------------- showing ---------------------------------------
    def _show_model(self) -> None:
        self._heading.config(text=self.model.heading())
        notices = "   ".join(self.model.notices())
        self._notice.config(text=notices)
        if notices:
            self._notice.pack(side=tk.TOP, anchor="w")
        else:
            self._notice.pack_forget()
        self.sort_by(self.model.order_name)
        self._show_selection()

    def _show_selection(self) -> None:
        self.say("")
        self.grid.select(self.model.selection.ids)
        self._status.config(text=self.model.status())
        if self._keep is not None:
            self._keep.state(["!disabled" if len(self.model.selection) else "disabled"])

    def _read(self, key: int) -> np.ndarray:
        return read_picture(self.model.picture(key))

    def _describe(self, key: int) -> Entry:
        return Entry(key, self.model.caption(key), str(key))

    # --------------------------- similarity ------------------------------------
    def _compare(self) -> None:
        if self._comparing is not None:
            return
        self._described = {}
        self._comparing = TimeSlices(self.root, lambda number: features(self._read(number)), self._compared)
        largest_first = SIZE if SIZE in available_orders(self.model.classes) else NUMBER
        self._comparing.want(sort_ids(self.model.classes, largest_first))

    def _compared(self, number: int, description: np.ndarray | Exception) -> None:
        self._described[number] = description
        self.say(f"Comparing the averages: {len(self._described):,} of {len(self.model.classes):,} …")
        if len(self._described) < len(self.model.classes):
            return
        # The largest class comes first, classes whose average can't be read last.
        seen = [key for key, value in self._described.items() if not isinstance(value, Exception)]
        unseen = [key for key in self._described if key not in set(seen)]
        path = similarity_order(np.array([self._described[key] for key in seen]))
        self.model.set_similarity([*(seen[position] for position in path), *unseen])
        self._comparing = None
        self.say("")
        if self.model.order_name == SIMILARITY:
            self.grid.show(self.model.order)
