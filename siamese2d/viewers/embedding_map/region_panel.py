"""What lies in a region of the map: one average for each class, and the particles."""

import tkinter as tk
from tkinter import ttk

import numpy as np

from siamese2d.viewers.embedding_map.particles import NO_CLASS, MapParticles, RunningMean
from siamese2d.viewers.gallery import theme
from siamese2d.viewers.gallery.image_grid import Entry, ImageGrid
from siamese2d.viewers.gallery.pictures import Look
from siamese2d.viewers.gallery.time_slices import TimeSlices

AVERAGE_SIDE, MEMBER_SIDE = 104, 84
# Classes that get an average, and particles that each is made from: enough to tell what it is.
AVERAGED_CLASSES, AVERAGED = 12, 300
WIDTH, AVERAGES_HEIGHT = 500, 176
# Period of the low-pass of single particles to begin with, pixels.
SMOOTHED = 8


class RegionPanel(ttk.Frame):
    """Averages above, particles below; both are read while the window answers.

    Parameters
    ----------
    parent : tkinter widget
    particles : MapParticles

    Attributes
    ----------
    averages, members : ImageGrid
    look : Look
        How particles are shown to begin with.
    means : dict of int to RunningMean
        By class number, 0 for those in no class.
    """

    def __init__(self, parent, particles: MapParticles):
        super().__init__(parent, style=theme.FRAME, width=WIDTH)
        self.pack_propagate(False)
        self._particles, self.means, self._groups = particles, {}, {}
        self._only: int | None = None
        self._title = ttk.Label(self, style=theme.HEADING, padding=(8, 0, 0, 2))
        self._title.pack(side=tk.TOP, anchor="w")
        self._hint = ttk.Label(self, style=theme.HINT, padding=(8, 0, 0, 2), wraplength=WIDTH - 20)
        self._hint.pack(side=tk.TOP, anchor="w")
        holder = ttk.Frame(self, style=theme.FRAME, height=AVERAGES_HEIGHT)
        holder.pack_propagate(False)
        holder.pack(side=tk.TOP, fill=tk.X)
        size = particles.pixel_size
        self.averages = ImageGrid(holder, self._average, self._describe_average, size, 2, Look(AVERAGE_SIDE))
        self.averages.pack(fill=tk.BOTH, expand=True)
        self.averages.on_click = lambda number, _shift: self.show_class(None if number == self._only else number)
        self.averages.on_hover = lambda _key, problem="": self._hover(problem)
        # Single particles are mostly noise: they are smoothed from the start.
        self.look = Look(MEMBER_SIDE, low_pass=round(SMOOTHED * (size or 1.0), 1))
        self.members = ImageGrid(self, particles.image, self._describe_member, size, 1, self.look)
        self.members.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self.members.on_hover = lambda _key, problem="": self._hover(problem)
        self._slices = TimeSlices(self, self._read, self._collect)
        self._text = ""
        self.show(np.empty(0, dtype=int))

    def show(self, rows: np.ndarray) -> None:
        """Show these particles."""
        self.averages.show(())
        self.averages.read_again()
        groups = self._particles.groups(rows)
        self._groups = dict(groups)
        self.means = {number: RunningMean() for number, _ in groups[:AVERAGED_CLASSES]}
        self._title.config(text=f"{len(rows):,} particles selected" if len(rows) else "Nothing is selected")
        self._text = self._about(groups)
        self._hover("")
        self.show_class(None)
        self._left = {number: min(len(members), AVERAGED) for number, members in groups[:AVERAGED_CLASSES]}
        self._slices.want((number, int(row)) for number, members in groups[:AVERAGED_CLASSES]
                          for row in _some(members))

    def show_class(self, number: int | None) -> None:
        """Show the particles of one class of the region, or with None all."""
        self._only = number
        shown = list(self._groups.values()) if number is None else [self._groups[number]]
        self.members.show(np.concatenate(shown) if shown else ())
        self.averages.select(() if number is None else (number,))

    def set_look(self, look: Look) -> None:
        """Show the particles in another way; the averages take over the contrast."""
        self.members.set_look(look)
        self.averages.set_look(Look(AVERAGE_SIDE, look.contrast))

    @property
    def complete(self) -> bool:
        """Whether all averages are made and all that is on the screen is drawn."""
        return not any(self._left.values()) and all(grid.complete or not grid.keys
                                                    for grid in (self.averages, self.members))

    def _about(self, groups) -> str:
        if not groups:
            return "Draw around dots of the map with the left button."
        if [number for number, _ in groups] == [NO_CLASS]:
            return "No classes are known: a plain mean, without alignment."
        more = len(groups) - AVERAGED_CLASSES
        return "Average of each class, aligned; a click shows its particles alone. The least certain come first." \
            + (f" {more:,} smaller classes have no average here." if more > 0 else "")

    def _read(self, job):
        return self._particles.image(job[1])

    def _collect(self, job, result) -> None:
        number, _ = job
        self.means[number].add(result)
        self._left[number] -= 1
        if not self._left[number]:
            self.averages.show([key for key in self.means if not self._left[key]])

    def _average(self, number: int) -> np.ndarray:
        return self.means[number].mean()

    def _describe_average(self, number: int) -> Entry:
        mean, size = self.means[number], len(self._groups[number])
        used = "" if mean.count == size else f"mean of {mean.count:,}"
        if mean.failed:
            used = f"{mean.failed:,} can't be read"
        name = "in no class" if number == NO_CLASS and len(self._groups) > 1 else ""
        return Entry(number, (f"{size:,} particles", name or used), "" if number == NO_CLASS else str(number))

    def _describe_member(self, row: int) -> Entry:
        number, confidence = self._particles.classes[row], self._particles.confidence[row]
        return Entry(row, (f"{confidence:.0%}" if np.isfinite(confidence) else "",),
                     "" if number == NO_CLASS else str(number))


    def _hover(self, problem: str) -> None:
        self._hint.config(text=problem or self._text)


def _some(rows: np.ndarray) -> np.ndarray:
    """All rows, or some of many, the same ones every time."""
    if len(rows) <= AVERAGED:
        return rows
    return np.random.default_rng(0).choice(rows, AVERAGED, replace=False)
