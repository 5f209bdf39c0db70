"""Progress of long loops: a bar on a terminal, sparse whole lines in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

LINES_PER_LOOP = 20
SECONDS_BETWEEN_LINES = 2.0


def progress(iterable: Iterable, label: str, total: int | None = None, unit: str = "micrograph") -> Iterator:
    """Iterate over `iterable` and show how far it is.

    Parameters
    ----------
    iterable : iterable
        What to iterate over.
    label : str
        Name of the work, shown first.
    total : int, optional
        Number of items; by default the length of `iterable` where it has one.
    unit : str
        Name of one item.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if sys.stderr.isatty():
        yield from tqdm(iterable, desc=label, total=total, unit=unit)
    else:
        yield from _log_lines(iterable, label, total, unit)


def _log_lines(iterable: Iterable, label: str, total: int | None, unit: str) -> Iterator:
    started = last = time.monotonic()
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        wanted = done == total or total is None or done % max(1, total // LINES_PER_LOOP) == 0
        if wanted and (now - last >= SECONDS_BETWEEN_LINES or done == total):
            last = now
            print(_line(label, done, total, unit, now - started), flush=True)


def _line(label: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    rate = f"{done / max(seconds, 1e-9):.3g} {unit}s/s"
    if not total:
        return f"{label}: {done} {unit}s, {rate}"
    left = seconds / done * (total - done)
    return f"{label}: {done}/{total} {unit}s ({100 * done // total} %), {left:.0f} s left, {rate}"
