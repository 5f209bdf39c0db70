"""The one exception that speaks to the user, and what the user is told of errors with their cause outside."""

import errno
import os

# What a disk answers that takes no more (also a file too large for it or for the process), or nothing.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EIO)


class InputError(ValueError):
    """Input that can't be worked on.

    The message is what the user reads: it names the file (and row), says what is wrong and what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """


def explanation(error: BaseException) -> str | None:
    """What to tell the user; None for errors that are the engine's own fault."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN):
        return _disk_message(error)
    # By name, because torch takes seconds to import and may not be in use.
    if type(error).__name__ == "OutOfMemoryError":
        return ("The GPU's memory is not enough. Close other programs that use it, take a GPU with more, reduce "
                "--batch-size where there is one or the size of the images, or compute with --device cpu.")
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return ("The memory of this machine is not enough. Close other programs, ask the queue for more, or work on "
                "fewer or smaller images at a time. Start the same command again to continue.")
    return None


def _disk_message(error: OSError) -> str:
    where = error.filename or "the output folder"
    if error.errno in FULL:
        return (f"{where}: the disk is full ({os.strerror(error.errno)}). Free some space and start the same command "
                "again.")
    return (f"{where}: can't be read or written ({os.strerror(error.errno)}). Check its permissions, or choose another "
            "folder.")
