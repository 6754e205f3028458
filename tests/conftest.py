"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, and programs inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
