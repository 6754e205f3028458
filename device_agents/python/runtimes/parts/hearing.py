"""Hears what a library says: some tell what they fell back to nowhere but in a line of output."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from typing import Any, Callable, Tuple


def heard(action: Callable[[], Any], stream: int = 2) -> Tuple[str, Any]:
    """Return what was written to the file descriptor ``stream`` while ``action`` ran, and what it returned.

    Written on to where it would have gone, so that agent.log keeps it.
    """
    flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(stream)
        os.dup2(file.fileno(), stream)
        try:
            value = action()
        finally:
            flush()
            os.dup2(kept, stream)
            file.seek(0)
            said = file.read(1 << 20)
            os.write(kept, said) if said else None
            os.close(kept)
    return said.decode("utf-8", "replace").strip(), value


def flush() -> None:
    """Empty the buffers of Python and of the C library."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
