"""Small file work of the store: atomic writes, the lock of an open session, names that are safe as file names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from urllib.parse import quote, unquote

from socbench.errors import StoreError
from socbench.records import Json

LOCK = "lock"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, rename it. StoreError when that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> StoreError:
    """Return the StoreError that says what could not be written, why, and what to do."""
    return StoreError(
        f"cannot write {path}: {error.strerror or error}; free some space or choose another store with --store"
    )


def json_bytes(document: Json) -> bytes:
    """Return a document as indented JSON with a last newline."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def part_stem(part: str) -> str:
    """Return the file name stem of a part; ids may hold anything (``device:adb:1234``), file names may not."""
    return quote(part, safe="")


def part_id(stem: str) -> str:
    """Return the id that :func:`part_stem` was given."""
    return unquote(stem)


class SessionLock:
    """Held by the one process that writes an open session; the system lets go of it when that process dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False when another process holds it."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(self._path, error) from error
        # A reader that looks whether the lock is held holds it for an instant itself, hence more than one try.
        for _ in range(5):
            if _flock(descriptor, shared=False):
                self._descriptor = descriptor
                return True
            time.sleep(0.05)
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Let go; the file stays until the session is sealed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(folder: Path) -> bool:
    """Tell whether a live process writes this session."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _flock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: a second writer is not noticed there
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
