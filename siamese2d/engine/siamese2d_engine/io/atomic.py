"""Files that appear whole or not at all: written beside, then renamed."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from siamese2d_engine.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    The temporary name ends like `path`, because some writers choose the format by the ending.

    Raises
    ------
    OSError
        If the disk doesn't take the file: with its number, and the name of `path`, whichever library wrote.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        _flush_to_disk(partial)
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except Exception as error:
        number = _disk_error(error)
        if number is None or getattr(error, "filename", None) not in (None, str(partial)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _disk_error(error: Exception) -> int | None:
    """Number of the operating system's error behind `error`; None if it has another cause.

    The operating system names no file when a write fails; safetensors has the number in its text; NumPy says only how
    much it could write.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if re.fullmatch(r"\d+ requested and \d+ written", text):
        return errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)", text)
    return int(found[1]) if found else None


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as JSON, atomically. NaN is not allowed: use None."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error}).") from error
