"""Progress of long work: a bar on a terminal, sparse whole lines in a log, and a small file in the run's folder."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tqdm import tqdm

from siamese2d_engine import distributed
from siamese2d_engine.io.atomic import write_json

LINES_PER_LOOP = 20
SECONDS_BETWEEN_LINES = 2.0
# Of work inside other work, which has lines of its own.
SECONDS_BETWEEN_INNER_LINES = 30.0
SECONDS_BETWEEN_FILES = 3.0
# The pace is that of the last minute, or of the last items where these take longer: what a resumed run finds done is
# soon forgotten.
MARKS = 60
SECONDS_BETWEEN_MARKS = 1.0


class Meter:
    """How far one piece of work is; made by `work`, told by `advance`.

    Attributes
    ----------
    label, unit : str
        Name of the work, and of one item.
    done : int
        Items done.
    total : int or None
        Items in all; None where that is not known.
    """

    def __init__(self, label: str, total: int | None, unit: str, done: int, board: "_Board"):
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._board, self._inner = board, bool(board.meters)
        self._marks = deque([(time.monotonic(), done)], maxlen=MARKS)
        self._last_line, self._lines = time.monotonic(), self._part_of_lines()
        self._bar = tqdm(desc=label, total=total, unit=unit, initial=done, leave=not self._inner) \
            if sys.stderr.isatty() and distributed.is_main() else None

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Tell that `count` more items are done; a line with a `detail` is always printed."""
        self.done += count
        now = time.monotonic()
        if now - self._marks[-1][0] >= SECONDS_BETWEEN_MARKS:
            self._marks.append((now, self.done))
        if self._bar is not None:
            self._bar.update(count)
        if detail or (self._bar is None and self._is_line_due(now)):
            self._last_line, self._lines = now, self._part_of_lines()
            line = f"{self.label}: {self.text()}"
            tqdm.write(f"{line}; {detail}" if detail else line, file=sys.stdout)
            sys.stdout.flush()
        self._board.write()

    def text(self, inner: float = 0.0) -> str:
        """How far, how long still, and how fast; `inner` is the share of the next item that is done."""
        parts = [f"{self.done} {plural(self.unit)}"] if self.total is None else \
            [f"{self.done}/{self.total} {plural(self.unit)} ({int(100 * (self.done + inner) / max(self.total, 1))} %)"]
        left, rate = self.seconds_left(inner), self.per_second(inner)
        parts += [f"{duration(left)} left"] if left is not None else []
        if rate:
            parts.append(f"{_number(rate)} {plural(self.unit)}/s" if rate > 1 else
                         f"{duration(1 / rate)} per {self.unit}")
        return ", ".join(parts)

    def per_second(self, inner: float = 0.0) -> float | None:
        """Items per second; None before it is known."""
        (began, first), now = self._marks[0], time.monotonic()
        done = self.done + inner - first
        return done / (now - began) if done > 0 and now > began else None

    def seconds_left(self, inner: float = 0.0) -> float | None:
        """Until all items are done; None where it is not known."""
        rate = self.per_second(inner)
        return None if rate is None or self.total is None else max(self.total - self.done - inner, 0.0) / rate

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _is_line_due(self, now: float) -> bool:
        ended = self.done == self.total and not self._inner
        interval = SECONDS_BETWEEN_INNER_LINES if self._inner else SECONDS_BETWEEN_LINES
        return ended or (now - self._last_line >= interval and self._part_of_lines() != self._lines)

    def _part_of_lines(self) -> int:
        return self.done if not self.total else LINES_PER_LOOP * self.done // self.total


class _Board:
    """The work that goes on, outermost first, and the file that shows it; no file without a run."""

    def __init__(self, path: Path | None = None):
        self.meters: list[Meter] = []
        self._path, self._written = path, -SECONDS_BETWEEN_FILES

    def write(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._path is None or not (at_once or now - self._written >= SECONDS_BETWEEN_FILES):
            return
        self._written = now
        try:
            write_json(self._path, {"work": self._levels()})
        except OSError:
            # A run is not given up because nobody can watch it.
            pass

    def _levels(self) -> list[dict]:
        levels, inner = [], 0.0
        for meter in reversed(self.meters):
            levels.append({"label": meter.label, "unit": meter.unit, "done": meter.done, "total": meter.total,
                           "seconds_left": meter.seconds_left(inner), "per_second": meter.per_second(inner),
                           "text": meter.text(inner)})
            inner = (meter.done + inner) / meter.total if meter.total else 0.0
        return levels[::-1]


_board: ContextVar[_Board] = ContextVar("board", default=_Board())


@contextmanager
def shown_in(path: Path) -> Iterator[None]:
    """Write all progress of the work inside to a JSON file, which is removed at the end.

    The file holds ``work``: a list, outermost first, of ``label``, ``unit``, ``done``, ``total``, ``seconds_left``,
    ``per_second`` (None where not known) and ``text``, the same in words.
    """
    path.unlink(missing_ok=True)
    token = _board.set(_Board(path))
    try:
        yield
    finally:
        _board.reset(token)
        path.unlink(missing_ok=True)


@contextmanager
def work(label: str, total: int | None = None, unit: str = "item", done: int = 0) -> Iterator[Meter]:
    """A piece of work, to be told how far it is; it may hold others.

    Parameters
    ----------
    label : str
        Name of the work, shown first.
    total : int, optional
        Number of items.
    unit : str
        Name of one item.
    done : int
        Items that were done before.
    """
    board = _board.get()
    meter = Meter(label, total, unit, done, board)
    board.meters.append(meter)
    board.write(at_once=len(board.meters) == 1)
    try:
        yield meter
    finally:
        board.meters.remove(meter)
        meter.close()


def progress(iterable: Iterable, label: str, total: int | None = None, unit: str = "micrograph",
             count: Callable[..., int] = lambda item: 1) -> Iterator:
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
    count : callable
        For how many items an element of `iterable` stands; by default for one.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    with work(label, total, unit) as meter:
        for item in iterable:
            yield item
            meter.advance(count(item))


def plural(unit: str) -> str:
    """More than one of `unit`."""
    return unit + ("es" if unit.endswith(("s", "tch")) else "s")


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 90:
        return f"{_number(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
