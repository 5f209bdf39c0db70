"""Several processes that do one run together, as ``torchrun`` starts them; a single process notices nothing of this.

Images are dealt over the processes and what comes out is brought together, so that all processes hold the same results
and decide the same. Process 0 is the main one: it owns the run's folder, prints and writes the results. An error in one
process ends all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from siamese2d_engine.errors import InputError, explanation

if TYPE_CHECKING:
    # Imported where it is used: stages that compute without torch start seconds sooner.
    import torch

# One process may compute alone for long while the others wait; a process that ends is noticed at once.
LONGEST_WAIT = timedelta(days=2)
FAILURES, MESSAGE = "failures", "message"
LOST = ("Another process of this run ended without saying why: it was killed, ran out of memory, or the whole run was "
        "stopped. Start the same command again to continue, with fewer processes if memory was short.")

# Where processes that fail leave word for the others.
_store: ContextVar[Any] = ContextVar("store", default=None)


class Stopped(InputError):
    """Another process has ended the run; the message is what that process said."""


def world() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this process owns the run's folder and speaks to the user."""
    return rank() == 0


@contextmanager
def session() -> Iterator[None]:
    """Join the processes for the work inside. An error ends it in all of them and is told by the first one alone.

    Raises
    ------
    InputError
        If the processes run on several machines.
    SystemExit
        In place of errors that another process tells of.
    """
    if world() == 1:
        yield
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if not is_main():
        sys.stdout = open(os.devnull, "w")
    store, _, _ = next(rendezvous("env://", timeout=LONGEST_WAIT))
    token = _store.set(store)
    signal.signal(signal.SIGTERM, _stop)
    try:
        _require_one_machine()
        dist.init_process_group(_backend(), store=dist.PrefixStore("group", store), rank=rank(), world_size=world(),
                                timeout=LONGEST_WAIT)
        yield
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if not _is_first(store, error):
            raise SystemExit(2) from error
        raise
    finally:
        _store.reset(token)


def share(items: Any) -> Any:
    """This process's part of something that can be sliced: the parts are consecutive and about equal."""
    n = len(items)
    return items[n * rank() // world():n * (rank() + 1) // world()]


def add(*tensors: torch.Tensor) -> None:
    """Sum tensors over the processes, in place; also joins tables in which each process filled rows of its own."""
    _reduce(tensors, "SUM")


def highest(tensor: torch.Tensor) -> None:
    """The largest of the processes' values, in place."""
    _reduce([tensor], "MAX")


def gather(mine: Any) -> list:
    """What each process has, by number of process."""
    if world() == 1:
        return [mine]
    import torch.distributed as dist

    everyones = [None] * world()
    with _together():
        dist.all_gather_object(everyones, mine)
    return everyones


def from_main(compute: Callable[[], Any]) -> Any:
    """What the main process computes, for all."""
    if world() == 1:
        return compute()
    import torch.distributed as dist

    values = [compute() if is_main() else None]
    with _together():
        dist.broadcast_object_list(values)
    return values[0]


def wait() -> None:
    """Until all processes are here."""
    gather(None)


def joined(mine: torch.Tensor, rows: int) -> torch.Tensor:
    """A table of so many rows, of which each process has its `share`."""
    if world() == 1:
        return mine
    result = mine.new_zeros(rows, *mine.shape[1:])
    share(result)[:] = mine
    add(result)
    return result


def _reduce(tensors: Sequence[torch.Tensor], operation: str) -> None:
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    for tensor in tensors:
        plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        plain = plain.view(torch.uint8) if plain.dtype == torch.bool else plain
        # Through main memory: few numbers are exchanged, and what is tested on processors is what runs on GPUs.
        values = plain.cpu().contiguous()
        with _together():
            dist.all_reduce(values, op=getattr(dist.ReduceOp, operation))
        if values is not plain:
            plain.copy_(values)


@contextmanager
def _together() -> Iterator[None]:
    """A process that waits for one that has ended gets an error from the network; say what happened instead."""
    try:
        yield
    except RuntimeError as error:
        raise Stopped(_message()) from error


def _message() -> str:
    store = _store.get()
    try:
        return store.get(MESSAGE).decode() if store.check([MESSAGE]) else LOST
    except RuntimeError:
        # With the launcher, the store is gone.
        return LOST


def _is_first(store: Any, error: BaseException) -> bool:
    """Whether no other process failed before; leaves word for the others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        if store.add(FAILURES, 1) > 1:
            return False
        store.set(MESSAGE, explanation(error) or f"{type(error).__name__}: {error}")
    except RuntimeError:
        pass
    return True


def _stop(*_: Any) -> None:
    # The launcher ends the other processes by this signal when one has failed.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped(_message())


def _backend() -> str:
    import torch

    # Gradients of networks on GPUs go from GPU to GPU, all else through main memory.
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and torch.distributed.is_nccl_available() else "gloo"


def _require_one_machine() -> None:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world()))
    if here != world():
        raise InputError(f"{world()} processes on several machines: the processes of one run share files and memory of "
                         "one machine. Start torchrun with --standalone on one of them.")
