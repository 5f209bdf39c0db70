"""The folder of one run: its record, resuming, and who may write into it."""

import fcntl
import hashlib
import json
import os
import resource
import shlex
import shutil
import sys
import time
from contextvars import ContextVar
from datetime import datetime, timezone
from pathlib import Path

from siamese2d_engine import __version__, distributed
from siamese2d_engine.errors import InputError, explanation
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.progress import shown_in

RECORD = "run.json"
# Shows how far the run is while it goes on.
PROGRESS = "progress.json"
HASHED_ENDINGS = (".star", ".csv", ".tsv", ".txt", ".json", ".safetensors")


class Run:
    """One stage's run in its own folder, as a context manager.

    Entering creates the folder or finds an earlier run of the same stage with the same parameters and inputs in it,
    which is then continued (`finished` is true when nothing is left to do). Leaving writes the record with the outcome.
    Of several processes only the main one does this.

    Parameters
    ----------
    out : path
        The run's folder.
    stage : str
        Name of the sub-command.
    parameters : dict
        Everything that determines the result; must be JSON-serialisable.
    inputs : list of path
        Input files; the content of tables and models, and the size and time of images, are part of the run's identity.
    overwrite : bool
        Remove another run's files from the folder instead of refusing.

    Raises
    ------
    InputError
        If the folder holds something else, is in use by another process, or an input is missing.
    """

    def __init__(self, out, stage: str, parameters: dict, inputs=(), overwrite: bool = False):
        self.out = Path(out)
        self.stage = stage
        self.overwrite = overwrite
        self.parameters = json.loads(json.dumps(parameters, default=str))
        self.inputs = [_fingerprint(Path(path)) for path in inputs]
        self.results: dict = {}
        self.warnings: list[str] = []
        self.finished = False

    def path(self, *parts: str) -> Path:
        """Path of a file inside the folder; its parent folders are made."""
        path = self.out.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def warn(self, message: str) -> None:
        """Tell the user about something that does not stop the run, and record it."""
        self.warnings.append(message)
        print(f"warning: {message}", flush=True)

    def __enter__(self) -> "Run":
        if distributed.is_main():
            self._begin()
        self._token = _present.set(self)
        try:
            self.finished, self.results = distributed.from_main(lambda: (self.finished, self.results))
        except BaseException as error:
            # Another process has failed before it came here.
            self.__exit__(type(error), error, None)
            raise
        return self

    def _begin(self) -> None:
        self._make_folder()
        self._lock = _lock(self.out)
        self._adopt_or_clear()
        self._clock = time.monotonic()
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if not self.finished:
            self._write_record("running")
        self._shown = shown_in(self.out / PROGRESS)
        self._shown.__enter__()

    def __exit__(self, kind, error, traceback) -> None:
        _present.reset(self._token)
        if not distributed.is_main():
            return
        self._shown.__exit__(None, None, None)
        try:
            if not self.finished:
                message = (explanation(error) or str(error)) if error else ""
                self._write_record("failed" if error else "finished", message=message,
                                   error=kind.__name__ if kind else "")
        except OSError:
            # A full disk must not hide the error that is already on its way.
            if error is None:
                raise
        finally:
            self._lock.close()

    def _make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {self.out}: can't make this folder ({error.strerror}). Choose another.") from error

    def _adopt_or_clear(self) -> None:
        record_path = self.out / RECORD
        strangers = [p for p in self.out.iterdir() if p.name != _LOCK and not p.name.startswith(".partial-")]
        for partial in self.out.rglob(".partial-*"):
            partial.unlink()
        if not strangers:
            return
        record = read_json(record_path) if record_path.exists() else None
        if record is not None and self._matches(record):
            self.finished = record["status"] == "finished"
            self.results = record["results"] if self.finished else {}
            if self.finished:
                print(f"{self.stage}: {self.out} holds the finished result of the same command; nothing to do.")
            return
        if record is None:
            raise InputError(f"--out {self.out}: the folder holds other files. Choose a new or empty folder.")
        # A run that failed before it wrote anything has nothing worth guarding.
        came_to_nothing = record.get("status") == "failed" and strangers == [record_path]
        if not self.overwrite and not came_to_nothing:
            raise InputError(
                f"--out {self.out}: the folder holds a run of '{record.get('stage')}' with other parameters or inputs "
                f"({self._difference(record)}). Choose another folder, or pass --overwrite to replace it."
            )
        for path in strangers:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _matches(self, record: dict) -> bool:
        return self._identity() == {key: record.get(key) for key in self._identity()}

    def _identity(self) -> dict:
        return {"stage": self.stage, "version": __version__, "parameters": self.parameters, "inputs": self.inputs}

    def _difference(self, record: dict) -> str:
        mine = self._identity()
        return ", ".join(key for key in mine if mine[key] != record.get(key))

    def _write_record(self, status: str, message: str = "", error: str = "") -> None:
        write_json(self.out / RECORD, {
            **self._identity(),
            "status": status,
            "message": message,
            "error": error,
            "command": shlex.join(sys.argv),
            "processes": distributed.world(),
            "started": self._started,
            "wall_seconds": round(time.monotonic() - self._clock, 3),
            "cpu_seconds": round(_cpu_seconds(), 3),
            "peak_memory_mb": round(_peak_memory_mb(), 1),
            "warnings": self.warnings,
            "results": self.results,
        })


# The run that is entered.
_present: ContextVar[Run | None] = ContextVar("present", default=None)


def warn_once(message: str) -> None:
    """Warn as `Run.warn` does, for work that knows no run; nothing where the present run has said it, or there is none."""
    run = _present.get()
    if run is not None and message not in run.warnings:
        run.warn(message)


_LOCK = ".lock"


def _lock(folder: Path):
    """Keep a second process out of the folder; the lock ends with the process, however it ends."""
    stream = open(folder / _LOCK, "w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise InputError(f"--out {folder}: another process is working in this folder. Wait for it, or choose another "
                         "folder.") from error
    except OSError:
        # Some network file systems have no locks; working unlocked there is better than not working.
        pass
    return stream


def _fingerprint(path: Path) -> dict:
    if not path.exists():
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.")
    status = path.stat()
    if path.suffix in HASHED_ENDINGS:
        with open(path, "rb") as stream:
            return {"path": str(path), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    return {"path": str(path), "size": status.st_size, "modified": status.st_mtime_ns}


def _cpu_seconds() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _peak_memory_mb() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
