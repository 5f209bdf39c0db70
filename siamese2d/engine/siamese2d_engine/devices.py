"""Where to compute: the device asked for or an error, threads, and seeded random numbers."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from siamese2d_engine import distributed
from siamese2d_engine.errors import InputError

if TYPE_CHECKING:
    # Imported where it is used: stages that compute without torch start seconds sooner.
    import torch


def available_devices() -> list[str]:
    """Names that `resolve_device` accepts on this machine, ``cpu`` first."""
    import torch

    return ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def resolve_device(name: str) -> torch.device:
    """Turn ``cpu``, ``cuda`` or ``cuda:N`` into a device; never falls back to another one.

    Of several processes each gets a GPU of its own: of ``cuda:0,2`` the first process gets the first one, of ``cuda``
    the one with its number.

    Raises
    ------
    InputError
        If the name is none of these, the GPU is not there, or there is not one for each process.
    """
    import torch

    wanted = _own_gpu(name) if name.startswith("cuda") else name
    present = available_devices()
    if wanted in present:
        device = torch.device(wanted)
        if device.type == "cuda":
            # What names no device, such as the exchange of gradients, goes to the present one.
            torch.cuda.set_device(device)
        return device
    if not wanted.startswith("cuda:"):
        raise InputError(f"--device {name}: not a device. Use one of: {', '.join(present)}.")
    raise InputError(
        f"--device {wanted}: this GPU is not available to PyTorch {torch.__version__} here (available: "
        f"{', '.join(present)}). Check nvidia-smi and CUDA_VISIBLE_DEVICES, install the CUDA build of PyTorch, "
        "or ask for --device cpu."
    )


def _own_gpu(name: str) -> str:
    """The GPU of this process, of a list for all processes."""
    if name == "cuda":
        return f"cuda:{distributed.rank()}"
    numbers = re.split("[ ,]+", name.removeprefix("cuda:"))
    if len(set(numbers)) != distributed.world() or len(numbers) != distributed.world():
        raise InputError(f"--device {name}: {distributed.world()} process(es) need a GPU each. Name as many as there are "
                         "processes, such as --device cuda:0,1 for torchrun --nproc_per_node 2.")
    return f"cuda:{numbers[distributed.rank()]}"


def available_threads() -> int:
    """Number of processors that this process may use (respects taskset and containers, shared with its like)."""
    return max(1, len(os.sched_getaffinity(0)) // distributed.world())


def set_threads(threads: int) -> None:
    """Let PyTorch use `threads` threads."""
    import torch

    torch.set_num_threads(threads)


def seed_from(*numbers: int) -> int:
    """A 63-bit seed from several integers, so that (seed, epoch) and (seed + 1, epoch - 1) do not collide."""
    digest = hashlib.sha256(",".join(str(int(n)) for n in numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded_generator(*numbers: int) -> torch.Generator:
    """CPU generator seeded from several integers, for instance ``(seed, epoch)``."""
    import torch

    return torch.Generator().manual_seed(seed_from(*numbers))
