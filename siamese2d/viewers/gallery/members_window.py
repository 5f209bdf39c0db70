"""The members of one class, aligned to its average."""

import math
import tkinter as tk
from tkinter import ttk

import numpy as np

from siamese2d.gallery.class_list import MemberList, Members
from siamese2d.viewers.gallery.pictures import Look, read_picture
from siamese2d.viewers.gallery import theme
from siamese2d.viewers.gallery.controls import LookControls
from siamese2d.viewers.gallery.image_grid import Entry, ImageGrid
from siamese2d.viewers.plots.alignment import transform_image
from siamese2d.viewers.run_files import RunFileError

WINDOW = "980x720"
SIDE = 108
# Members whose places are read at a time.
BLOCK = 100
# Period of the low-pass to begin with, pixels.
SMOOTHED = 8
HINT = "Rotated and shifted onto the average; the least certain first: wrong ones stand there."


class MembersWindow:
    """All members of a class in a grid that reads them as it is scrolled.

    Parameters
    ----------
    parent : tkinter widget
    name : str
        Of the class.
    members : Members
        Reader of the set.
    class_id : int
    pixel_size : float or None
        Angstroms per pixel of the particles.

    Raises
    ------
    SetFileError
        If the members can't be read.
    """

    def __init__(self, parent, name: str, members: Members, class_id: int, pixel_size: float | None):
        self._members, self._class_id = members, class_id
        self.list: MemberList = members.of(class_id)
        self._order, self._places = self.list.ids.tolist(), {}
        self._rank = {member: rank for rank, member in enumerate(self._order)}
        self._confidence = dict(zip(self.list.ids.tolist(), self.list.confidence.tolist()))
        self.root = tk.Toplevel(parent, background=theme.PAPER)
        theme.apply_theme(self.root)
        self.root.title(name)
        self.root.geometry(WINDOW)
        top = ttk.Frame(self.root, style=theme.FRAME, padding=(10, 8, 10, 4))
        top.pack(side=tk.TOP, fill=tk.X)
        count = len(self.list.ids)
        ttk.Label(top, style=theme.HEADING,
                  text=f"{name}: {count:,} {'member' if count == 1 else 'members'}").pack(side=tk.LEFT)
        # Single particles are mostly noise: they are smoothed from the start.
        look = Look(SIDE, low_pass=round(SMOOTHED * (pixel_size or 1.0), 1))
        looks = LookControls(top, look, pixel_size, lambda changed: self.grid.set_look(changed))
        looks.pack(side=tk.RIGHT)
        known = bool(np.isfinite(self.list.confidence).any())
        text = HINT if known else HINT.split(";")[0] + "; their program told no confidence, so they come in its order."
        self._hint = ttk.Label(self.root, style=theme.HINT, padding=(10, 0, 10, 4),
                               text=text if count else "This class is empty.")
        self._hint.pack(side=tk.TOP, anchor="w")
        self.grid = ImageGrid(self.root, self._read, self._describe, pixel_size, 1 if known else 0, look)
        self.grid.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self.grid.show(self.list.ids)
        self.root.bind("<Escape>", lambda _event: self.root.destroy())
        self.grid.canvas.focus_set()

    def _read(self, member: int) -> np.ndarray:
        if member not in self._places:
            # One query for this one and those that are shown after it.
            block = self._order[self._rank[member]:][:BLOCK]
            self._places.update(zip(block, self._members.places(self._class_id, block)))
        place, matrix = self._places[member]
        if place is None:
            raise RunFileError("The set does not tell where the image of this particle is.")
        return transform_image(read_picture(place), matrix)

    def _describe(self, member: int) -> Entry:
        confidence = self._confidence[member]
        text = f"{confidence:.0%}" if 0 <= confidence <= 1 else f"{confidence:.3g}"
        return Entry(member, ("",) if math.isnan(confidence) else (text,), str(member))
