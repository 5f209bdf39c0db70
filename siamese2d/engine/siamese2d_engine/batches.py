"""Work in batches that become smaller where the memory of the GPU ends; its result must not depend on their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from siamese2d_engine.runs import warn_once

Result = TypeVar("Result")

# Numbers in the largest temporary array: little of a computer's memory, or enough to keep a GPU busy.
CPU_ELEMENTS = 2**22
GPU_ELEMENTS = 2**27
SMALLER = ("The GPU's memory is short: the work goes on in smaller parts, more slowly, with the same result. Close "
           "other programs that use this GPU, or take one with more memory.")


class Room:
    """How much may be worked on at once: half as much, from then on, each time that the memory of the GPU ends.

    Attributes
    ----------
    size
        In any unit: rows, pixels, numbers in an array.
    """

    def __init__(self, size: int):
        self.size = size

    @staticmethod
    def on(device: torch.device) -> Room:
        """Room for the numbers of the largest temporary array on a device."""
        return Room(CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS)

    def attempt(self, compute: Callable[[int], Result], smallest: int = 1, largest: int | None = None) -> Result:
        """``compute(size)`` with the present size, or half of it and so on until the memory suffices.

        Parameters
        ----------
        compute
            Called again after it failed, so that it may change something only at its end.
        smallest
            Size that isn't halved further.
        largest
            Size that would do for all of the work that is left.

        Raises
        ------
        torch.OutOfMemoryError
            If the memory doesn't suffice for `smallest`.
        """
        size = self.size if largest is None else min(self.size, largest)
        while True:
            try:
                return compute(size)
            except torch.OutOfMemoryError:
                if size <= smallest:
                    raise
            size = max(smallest, size // 2)
            self.size = min(self.size, size)
            warn_once(SMALLER)
            # What the failed attempt has left may be in pieces.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def batches(self, compute: Callable[[slice], Result], count: int, each: int = 1) -> Iterator[Result]:
        """Yield ``compute(rows)`` for consecutive slices of ``range(count)``; without rows, once for none.

        Parameters
        ----------
        compute
            See `attempt`.
        count
            Number of rows.
        each
            What one row takes of the size.

        Raises
        ------
        torch.OutOfMemoryError
            If the memory doesn't suffice for a single row.
        """
        start = 0
        while True:

            def following(size: int) -> tuple[int, Result]:
                stop = min(count, start + max(1, size // each))
                return stop, compute(slice(start, stop))

            start, result = self.attempt(following, each, each * (count - start))
            yield result
            if start >= count:
                return


def in_parts(compute: Callable[[Tensor], Tensor], batch: Tensor, rows: int) -> Tensor:
    """``compute(batch)``, so many rows at a time; for the gradient each part is computed a second time.

    So the intermediate results of one part alone are held (Chen et al. 2016, arXiv:1604.06174), whatever is done with
    all rows afterwards. Each row of the result must depend on its row of the batch alone.
    """
    if len(batch) <= rows:
        return compute(batch)
    return torch.cat([checkpoint(compute, part, use_reentrant=False) for part in batch.split(rows)])
