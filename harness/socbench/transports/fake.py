"""A fake device for tests and for people without one: the real agent in a folder of this machine, over a channel that
can be told to break.

``fake:NAME`` lives in ``SOCBENCH_FAKE_ROOT/NAME`` (default: ``~/.cache/socbench-device-fake``). What goes wrong is
written in a JSON file named by ``SOCBENCH_FAKE_SCRIPT``: ``{"NAME": {...}}`` with members of :class:`FakeScript`.
Everything that it measures is measured on this machine, so the device calls itself fake and is ``emulated``.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from socbench.errors import ChannelError, DeadlineError, DeviceStateError, UsageError
from socbench.transports.base import OUTPUT_LIMIT_BYTES, Completed, Deadline
from socbench.transports.local import LocalTransport


@dataclass(frozen=True)
class FakeScript:
    """What a fake device does wrong, deterministically; counts go over the whole process, not over one connection.

    ``refuse``: opening fails with this state (``unauthorized``). ``unreachable_opens``: the first N opens find nothing.
    ``cut_events_at_bytes``: the channel breaks whenever this many bytes of followed files have passed.
    ``stall_events_at_bytes``: from there on this connection delivers nothing more, without breaking.
    ``cut_commands``: the Nth commands (from 1) break the channel. ``stall_commands``: they never answer.
    ``cut_pushes``: the Nth pushes break half way. ``disk_bytes``: room for pushed files. ``file_limit_bytes``: no
    process on the device can make a larger file (RLIMIT_FSIZE), as a disk that fills up while it runs.
    """

    refuse: str | None = None
    unreachable_opens: int = 0
    cut_events_at_bytes: tuple[int, ...] = ()
    stall_events_at_bytes: tuple[int, ...] = ()
    cut_commands: tuple[int, ...] = ()
    stall_commands: tuple[int, ...] = ()
    cut_pushes: tuple[int, ...] = ()
    disk_bytes: int | None = None
    file_limit_bytes: int | None = None


@dataclass
class _Counters:
    opens: int = 0
    commands: int = 0
    pushes: int = 0
    event_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_counters: dict[Path, _Counters] = {}


def fake_root() -> Path:
    """Return the folder that holds all fake devices."""
    named = os.environ.get("SOCBENCH_FAKE_ROOT")
    return (Path(named) if named else Path.home() / ".cache" / "socbench-device-fake").absolute()


def read_script(name: str) -> FakeScript:
    """Return the script of one fake device. UsageError when the file is no such script."""
    path = os.environ.get("SOCBENCH_FAKE_SCRIPT")
    if not path:
        return FakeScript()
    try:
        members = json.loads(Path(path).read_text(encoding="utf-8")).get(name, {})
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in members.items()}
        return FakeScript(**plain)
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise UsageError(f"{path} (SOCBENCH_FAKE_SCRIPT) is no script for fake devices: {problem}") from problem


class FakeTransport(LocalTransport):
    """A device that says that it is a fake."""

    def __init__(self, name: str) -> None:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"fake:{name} is no name for a fake device: use letters, digits, - and _")
        super().__init__(fake_root() / name)
        self._name = name
        self._script = read_script(name)
        self._cut = False
        self._count = _counters.setdefault(Path(self.root), _Counters())
        self._count.opens += 1
        if self._script.refuse:
            raise DeviceStateError(f"fake:{name} is {self._script.refuse}, as its script says")
        if self._count.opens <= self._script.unreachable_opens:
            raise ChannelError(f"fake:{name} can't be reached, as its script says")

    @property
    def address(self) -> str:
        """``fake:NAME``."""
        return f"fake:{self._name}"

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a command, unless the script has this one cut or stalled."""
        with self._count.lock:
            self._count.commands += 1
            number = self._count.commands
        if number in self._script.cut_commands:
            self._break("in a command")
        if number in self._script.stall_commands:
            time.sleep(deadline.remaining_s)
            raise DeadlineError(f"{self.address} did not answer in time, as its script says: {deadline.what}")
        if self._script.file_limit_bytes is not None:
            blocks = self._script.file_limit_bytes // 512
            argv = ["/bin/sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *argv]
        return super().run(argv, deadline=deadline, stdin=stdin, env=env, limit_bytes=limit_bytes)

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Copy a file, unless the script cuts this push or the disk that it describes is full."""
        with self._count.lock:
            self._count.pushes += 1
            number = self._count.pushes
        if number in self._script.cut_pushes:
            half = Path(target).with_name(".half.part")
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
            self._break("in a push")
        if self._script.disk_bytes is not None and self._used() + source.stat().st_size > self._script.disk_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        super().push(source, target, deadline=deadline)

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Follow a file, broken or stalled at the bytes that the script names."""
        for data in super().follow(path, offset, stop=stop):
            before = self._count.event_bytes
            self._count.event_bytes = before + len(data)
            if cut := self._reached(self._script.cut_events_at_bytes, before):
                self._count.event_bytes = cut
                yield data[: cut - before]
                self._break("in the events")
            if stall := self._reached(self._script.stall_events_at_bytes, before):
                self._count.event_bytes = stall
                yield data[: stall - before]
                while not stop.wait(1.0):
                    self._check_open()
                    yield b""
                return
            yield data

    def _reached(self, marks: tuple[int, ...], before: int) -> int | None:
        return next((mark for mark in marks if before < mark <= self._count.event_bytes), None)

    def _break(self, where: str) -> None:
        self._cut = True
        raise ChannelError(f"the channel to {self.address} broke {where}, as its script says")

    def _check_open(self) -> None:
        if self._cut:
            raise ChannelError(f"the channel to {self.address} is broken, as its script says")
        super()._check_open()

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """Put a ``df`` that tells of the scripted disk before the real one."""
        found = super()._environment(env)
        if self._script.disk_bytes is not None:
            tools = Path(self.root) / "fake-tools"
            tools.mkdir(parents=True, exist_ok=True)
            free_kb = max(0, self._script.disk_bytes - self._used()) // 1024
            head = "Filesystem 1024-blocks Used Available Capacity Mounted on"
            (tools / "df").write_text(f"#!/bin/sh\necho '{head}'\necho 'fake 0 0 {free_kb} 0% /'\n", encoding="utf-8")
            (tools / "df").chmod(0o755)
            found["PATH"] = f"{tools}{os.pathsep}{found.get('PATH', os.defpath)}"
        return found

    def _used(self) -> int:
        return sum(file.stat().st_size for file in Path(self.root).rglob("*") if file.is_file())
