"""The transport protocol: how a host reaches a device. Every implementation passes tests/conformance/transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from socbench.errors import DeadlineError


@dataclass(frozen=True)
class Deadline:
    """A moment on the host's monotonic clock by which something must have happened; passed down, never restarted."""

    at_s: float
    what: str = "the device's answer"

    @classmethod
    def after(cls, seconds: float, what: str = "the device's answer") -> Deadline:
        """Return the deadline that lies ``seconds`` from now."""
        return cls(time.monotonic() + seconds, what)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineError when it has passed."""
        if time.monotonic() >= self.at_s:
            raise DeadlineError(f"no answer in time: waited for {self.what}")


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end on the device; output is bytes, the two streams apart."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = field(default=False)


OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024


class Transport(Protocol):
    """A channel to one device. Methods block; a transport is used by one worker thread (``follow`` may be a second).

    Commands are argument lists; an implementation that goes through a shell on the far side quotes every argument
    itself. Raises ChannelError when the channel broke and DeadlineError when the deadline passed, never for a
    command that merely failed (that is ``exit_code``).
    """

    @property
    def address(self) -> str:
        """How the user names the device: ``local``, ``ssh:user@board``, ``adb:SERIAL``, ``fake:NAME``."""
        ...

    @property
    def root(self) -> PurePosixPath:
        """The one folder on the device under which everything of socbench lives (absolute)."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a command to completion. It is killed at the deadline; output over ``limit_bytes`` is cut and flagged.

        A command that is not there ends with exit code 127, one that may not be run with 126, as a shell says it.
        """
        ...

    def spawn(self, argv: Sequence[str], *, log: PurePosixPath, deadline: Deadline) -> None:
        """Start a command detached from this channel (new session, stdin from nowhere, output appended to ``log``)."""
        ...

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Copy a file to the device under a temporary name, then rename; parents are made.

        OSError when the device refuses the file (errno ENOSPC when its disk is full); no part of it is left then.
        """
        ...

    def pull(self, source: PurePosixPath, target: Path, *, deadline: Deadline) -> None:
        """Copy a file from the device under a temporary name, then rename. FileNotFoundError when it is not there."""
        ...

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Yield the bytes of a growing file from ``offset`` on, over one long-lived stream, until ``stop`` is set.

        Yields ``b""`` about once a second while nothing arrives (a heartbeat for the caller's own deadlines).
        A file that does not exist yet is waited for.
        """
        ...

    def close(self) -> None:
        """Give the channel back; what was spawned goes on."""
        ...
