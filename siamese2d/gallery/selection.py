"""Which classes are selected: clicks, ranges, inversion, and the way back."""

UNDO_STEPS = 100


class Selection:
    """A set of selected ids among all ids; every change can be undone.

    Parameters
    ----------
    ids : iterable of int
        All that can be selected.
    """

    def __init__(self, ids):
        self._all = frozenset(int(number) for number in ids)
        self._selected: frozenset[int] = frozenset()
        self._past: list[frozenset[int]] = []
        self._anchor: int | None = None

    @property
    def ids(self) -> list[int]:
        """What is selected, ascending."""
        return sorted(self._selected)

    def __len__(self) -> int:
        return len(self._selected)

    def __contains__(self, number: int) -> bool:
        return number in self._selected

    def toggle(self, number: int) -> None:
        """Select `number`, or no longer; ranges start from it."""
        self._anchor = number
        self._change(self._selected ^ {number})

    def extend(self, number: int, order) -> None:
        """Give all from the last toggled id to `number`, in the shown `order`, the state of the last toggled one."""
        order = [int(shown) for shown in order]
        if self._anchor not in order:
            self.toggle(number)
            return
        first, last = sorted((order.index(self._anchor), order.index(number)))
        span = frozenset(order[first:last + 1])
        self._change(self._selected | span if self._anchor in self._selected else self._selected - span)

    def add(self, numbers) -> None:
        """Select these too."""
        self._change(self._selected | frozenset(int(number) for number in numbers))

    def remove(self, numbers) -> None:
        """Select these no longer."""
        self._change(self._selected - frozenset(int(number) for number in numbers))

    def replace(self, numbers) -> None:
        """Select these and no others."""
        self._change(frozenset(int(number) for number in numbers))

    def invert(self) -> None:
        """Select all the others."""
        self._change(self._all - self._selected)

    def undo(self) -> None:
        """Take the last change back."""
        if self._past:
            self._selected = self._past.pop()

    def _change(self, selected: frozenset[int]) -> None:
        selected &= self._all
        if selected != self._selected:
            self._past = [*self._past, self._selected][-UNDO_STEPS:]
            self._selected = selected
