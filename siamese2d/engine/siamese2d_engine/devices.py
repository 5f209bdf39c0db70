"""Where to compute: the device asked for or an error, threads, and seeded random numbers."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

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

    Raises
    ------
    InputError
        If the name is none of these, or the GPU is not there.
    """
    import torch

    wanted = "cuda:0" if name == "cuda" else name
    present = available_devices()
    if wanted in present:
        return torch.device(wanted)
    if not wanted.startswith("cuda:"):
        raise InputError(f"--device {name}: not a device. Use one of: {', '.join(present)}.")
    raise InputError(
        f"--device {name}: this GPU is not available to PyTorch {torch.__version__} here (available: "
        f"{', '.join(present)}). Check nvidia-smi and CUDA_VISIBLE_DEVICES, install the CUDA build of PyTorch, "
        "or ask for --device cpu."
    )


def available_threads() -> int:
    """Number of processors that this process may use (respects taskset and containers)."""
    return len(os.sched_getaffinity(0))


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
