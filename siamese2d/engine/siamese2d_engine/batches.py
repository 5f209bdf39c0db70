"""Batches that become smaller when the memory of the GPU ends; for work whose result doesn't depend on their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Result = TypeVar("Result")


def shrinking_batches(compute: Callable[[slice], Result], count: int, size: int) -> Iterator[Result]:
    """Yield ``compute(rows)`` for consecutive rows, `size` at a time; half as many from where the memory ended on.

    Without rows, `compute` is called once for none.

    Parameters
    ----------
    compute
        Called with a slice of ``range(count)``.
    count, size
        Number of rows in all, and at a time.

    Raises
    ------
    torch.OutOfMemoryError
        If the memory doesn't suffice for a single row.
    """
    start = 0
    while True:
        result, size = shrinking(lambda tried: (compute(slice(start, min(start + tried, count))), tried), size, 1)
        yield result
        start += size
        if start >= count:
            return


def shrinking(compute: Callable[[int], Result], size: int, smallest: int) -> Result:
    """``compute(size)``; with half the size, but not less than `smallest`, each time that the memory of the GPU ends.

    Raises
    ------
    torch.OutOfMemoryError
        If it doesn't suffice for `smallest`.
    """
    while True:
        try:
            return compute(size)
        except torch.OutOfMemoryError:
            if size <= smallest:
                raise
        size = max(smallest, size // 2)
        # What the failed attempt has left may be in pieces.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
