"""A loop over files on several threads, in order; reading, Fourier transforms and array arithmetic run side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import image_shape

Item = TypeVar("Item")
Result = TypeVar("Result")

# Three micrographs of 8k x 8k, at about 1 GB each while they are worked on.
PIXELS_AT_ONCE = 3 * 2**26


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of `items`; an error or an interrupt drops what has not started."""
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def bounded_threads(threads: int, paths: Sequence[Path]) -> int:
    """As many of `threads` as micrographs of the size of the first readable one of `paths` fit into memory."""
    for path in paths:
        try:
            height, width = image_shape(path)
        except InputError:
            continue
        return max(1, min(threads, PIXELS_AT_ONCE // (height * width)))
    return threads
