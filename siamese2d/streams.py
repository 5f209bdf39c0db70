"""Sets that may still be growing: whether they are, what they hold now, and views of some of their items."""

import numpy as np

from pyworkflow.object import Set


def isGrowing(items):
    """Whether a set is still being filled: its file knows, the object may be older."""
    state = items.getProperty("_streamState")
    items.close()
    # The file of a set without items says nothing.
    return items.isStreamOpen() if state is None else int(state) == Set.STREAM_OPEN


def itemIds(items):
    """Ids of all items that a set holds now, in ascending order; the object's size becomes theirs.

    Parameters
    ----------
    items : Set
        Any set with a file of its own.

    Returns
    -------
    ndarray
        ``(n,)`` integers.
    """
    items.close()
    items.load()
    ids = items.getUniqueValues("id") if items.getSize() else []
    items.close()
    return np.sort(np.array(ids, dtype=np.int64))


class Subset:
    """Some of the items of a set; in everything else the set itself.

    Parameters
    ----------
    items : Set
        A set that iterates by queries (of micrographs, coordinates or images).
    ids : iterable of int
        Ids of the items; those that the set does not hold are left out.
    """

    def __init__(self, items, ids):
        self._items = items
        self._ids = frozenset(map(int, ids))

    def __getattr__(self, name):
        return getattr(self._items, name)

    def __iter__(self):
        return self.iterItems()

    def __len__(self):
        return len(self._ids)

    def iterItems(self):
        """The items, by ascending id."""
        return self._items.iterItems(**self.query()) if self._ids else iter(())

    def query(self):
        """The arguments with which the set's own `iterItems` yields these items only."""
        # The range is for the speed of small parts of large sets; a list of ids may be longer than a query is allowed.
        return {"where": f"id>={min(self._ids)} AND id<={max(self._ids)}",
                "rowFilter": lambda row: row["id"] in self._ids}
