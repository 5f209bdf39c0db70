"""Computing in short slices between the events of a window, so that it never freezes.

A thread would do the same, but Python may then collect windows that were closed in that thread, which Tk answers by
aborting the whole program.
"""

import time
from collections.abc import Callable, Hashable

SLICE_SECONDS = 0.012
# Long enough for the window to answer mouse and keyboard in between.
PAUSE_MS = 2


class TimeSlices:
    """Computes jobs one after the other; what is no longer wanted is dropped.

    Parameters
    ----------
    widget : tkinter widget
        Whose event loop is used; nothing is computed any more when it is gone.
    compute : callable
        ``compute(job)``; what it raises is the result.
    deliver : callable
        ``deliver(job, result)`` is called after each job.
    """

    def __init__(self, widget, compute: Callable[[Hashable], object], deliver: Callable[[Hashable, object], None]):
        self._widget, self._compute, self._deliver = widget, compute, deliver
        self._wanted: list[Hashable] = []
        self._timer = None
        widget.bind("<Destroy>", lambda event: self.close() if event.widget is widget else None, add="+")

    def want(self, jobs) -> None:
        """Compute these, in this order, and no longer what was wanted before."""
        self._wanted = list(reversed(list(jobs)))
        if self._wanted and self._timer is None:
            self._timer = self._widget.after(PAUSE_MS, self._run)

    def close(self) -> None:
        """Compute nothing more."""
        self._wanted = []
        if self._timer is not None:
            self._widget.after_cancel(self._timer)
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        end = time.monotonic() + SLICE_SECONDS
        while self._wanted and time.monotonic() < end:
            job = self._wanted.pop()
            try:
                result = self._compute(job)
            except Exception as error:
                result = error
            self._deliver(job, result)
        if self._wanted and self._timer is None:
            self._timer = self._widget.after(PAUSE_MS, self._run)
