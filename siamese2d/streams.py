"""Sets that may still be growing: whether they are, what they hold now, and views of some of their items."""

import contextlib
import os
import sqlite3
from pathlib import Path

import numpy as np

from pyworkflow.object import Set
from pyworkflow.protocol import Protocol, getProtocolFromDb
from pyworkflow.utils import isProcessAlive

LOCK_SECONDS = 60


def isGrowing(items):
    """Whether a set is still being filled: its file knows, the object may be older. A set whose file is gone is not."""
    if not _hasFile(items):
        return False
    state = items.getProperty("_streamState")
    items.close()
    # The file of a set without items says nothing.
    return items.isStreamOpen() if state is None else int(state) == Set.STREAM_OPEN


def mayGrow(items, protocol):
    """Whether an input may get more items: it is growing, or its producer works, and may be about to open it again.

    Parameters
    ----------
    items : Set
        An input of the protocol.
    protocol : Protocol
        The one that asks.
    """
    return isGrowing(items) or any(_works(pointer.getObjValue(), protocol.getProject())
                                   for _, pointer in protocol.iterInputPointers() if pointer.get() is items)


def _works(producer, project):
    """Whether a protocol runs or will run, as its own database knows; the object is as old as this process."""
    if project is None or not isinstance(producer, Protocol) or not os.path.exists(producer.getDbPath()):
        return False
    try:
        now = getProtocolFromDb(project.path, producer.getDbPath(), producer.getObjId())
    except sqlite3.DatabaseError:
        # It is just being written, as one starts.
        return True
    now.getProject().closeMapper()
    now.closeMappers()
    return now.isScheduled() or now.isLaunched() or now.isRunning() and isProcessAlive(now.getPid())


def madeAt(items):
    """When the first item of a set was written, which tells it from one made anew in its place; None without items."""
    if not _hasFile(items):
        return None
    file = f"{Path(items.getFileName()).absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(file, uri=True, timeout=LOCK_SECONDS)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Objects'").fetchone():
            return None
        first = connection.execute("SELECT creation FROM Objects ORDER BY id LIMIT 1").fetchone()
        return first[0] if first else None


def _hasFile(items):
    # Scipion makes an empty file when it opens one that is not there.
    return os.path.exists(items.getFileName())


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
    if not _hasFile(items):
        return np.array([], dtype=np.int64)
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
