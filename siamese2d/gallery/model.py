"""What a gallery shows and what is selected in it, without a window."""

import math

import numpy as np

from siamese2d.gallery.class_list import ClassList
from siamese2d.gallery.criteria import Criteria
from siamese2d.gallery.order import SIMILARITY, available_orders, sort_ids
from siamese2d.gallery.selection import Selection


class GalleryModel:
    """The classes of one set, their order and the selection.

    Parameters
    ----------
    classes : ClassList
    total : int or None
        Particles that were classified, those in no class too; shares refer to it. None: those in the classes.
    """

    def __init__(self, classes: ClassList, total: int | None = None):
        self.classes = classes
        self.total = max(total or 0, classes.particles)
        # What was disabled by hand is left out of every subset, so it can't be selected either.
        self.selection = Selection(classes.ids[classes.enabled])
        self._row = {int(number): row for row, number in enumerate(classes.ids)}
        self._alike: np.ndarray | None = None
        self.order_name, self.descending = available_orders(classes)[0], False

    @property
    def order(self) -> np.ndarray:
        """Ids in the order in which they are shown."""
        if self.order_name != SIMILARITY:
            return sort_ids(self.classes, self.order_name, self.descending)
        alike = self._alike if self._alike is not None else self.classes.ids
        return alike[::-1] if self.descending else alike

    @property
    def similarity_known(self) -> bool:
        """Whether the averages have been compared."""
        return self._alike is not None

    def set_similarity(self, ids) -> None:
        """Tell the order in which neighbours look alike, once the averages have been compared."""
        self._alike = np.asarray(ids, dtype=int)

    def picture(self, number: int) -> tuple[int, str] | None:
        """Where the average of a class is."""
        return self.classes.pictures[self._row[number]]

    def size(self, number: int) -> int | None:
        """Members of a class, None where that is not known."""
        size = self.classes.sizes[self._row[number]]
        return None if math.isnan(size) else int(size)

    def caption(self, number: int) -> tuple[str, str]:
        """Two lines under an average: size and share; resolution, quality, accuracy. Empty where nothing is known."""
        row = self._row[number]
        return (self._size_line(row),
                " · ".join(text for text in (_value(self.classes.resolutions[row], "{:.1f} Å"),
                                            _value(self.classes.qualities[row], "q {:.2f}"),
                                            _value(self.classes.accuracies[row], "{:.1f}°")) if text))

    def describe(self, number: int) -> str:
        """All that is known about a class, in one line."""
        row = self._row[number]
        size = self.size(number)
        parts = [f"Class {number}", "" if size is None else f"{size:,} {_plural(size, 'particle')}",
                 f"{size / self.total:.1%}" if size else "",
                 _value(self.classes.resolutions[row], "resolution {:.2f} Å"),
                 _value(self.classes.qualities[row], "quality {:.3f}"),
                 _value(self.classes.accuracies[row], "rotations to {:.1f}°"),
                 "" if self.classes.enabled[row] else "disabled by hand"]
        return " · ".join(part for part in parts if part)

    def heading(self) -> str:
        """What the set holds, in one line."""
        count = len(self.classes)
        if not count:
            return "An empty set"
        if not self.classes.has_members:
            text = f"{count:,} {_plural(count, 'average')}"
            known = self.classes.particles
            return text + (f" of {known:,} particles" if known else "") + self._pixels()
        empty = int((self.classes.sizes == 0).sum())
        outside = self.total - self.classes.particles
        return (f"{count:,} {_plural(count, 'class')} of {self.classes.particles:,} particles"
                + (f", {empty:,} empty" if empty else "")
                + (f"; {outside:,} particles in no class" if outside else "") + self._pixels())

    def notices(self) -> list[str]:
        """What a person should know about this set before choosing."""
        notices = []
        if self.classes.streaming:
            notices.append("This set is still growing: what is shown is what it held when this window opened. "
                           "Reload shows the rest.")
        if not len(self.classes):
            notices.append("There is nothing in this set yet.")
        without = sum(place is None for place in self.classes.pictures)
        if without:
            notices.append(f"{without:,} of {len(self.classes):,} classes have no average.")
        disabled = int((~self.classes.enabled).sum())
        if disabled:
            notices.append(f"{disabled:,} {_plural(disabled, 'class')} disabled by hand: they can't be selected.")
        return notices

    def status(self) -> str:
        """How much is selected."""
        chosen, noun = len(self.selection), _plural(len(self.classes), "class" if self.classes.has_members
                                                    else "average")
        text = f"{chosen:,} of {len(self.classes):,} {noun}"
        particles = self.selected_particles
        if self.classes.particles:
            text += f", {particles:,} of {self.total:,} particles ({particles / self.total:.1%})"
        return f"{text} selected"

    @property
    def selected_particles(self) -> int:
        """Members of the selected classes."""
        return int(np.nansum(self.classes.sizes[self.classes.rows_of(self.selection.ids)]))

    def select_where(self, criteria: Criteria) -> None:
        """Select what meets the thresholds, and nothing else."""
        self.selection.replace(criteria.accepted(self.classes))

    def _size_line(self, row: int) -> str:
        size = self.classes.sizes[row]
        if math.isnan(size):
            return ""
        if not size:
            return "empty"
        return f"{int(size):,} · {size / self.total:.1%}"

    def _pixels(self) -> str:
        return f"; {self.classes.pixel_size:.3g} Å per pixel" if self.classes.pixel_size else ""


def _value(value: float, text: str) -> str:
    return text.format(value) if math.isfinite(value) else ""


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("s") else "s")
