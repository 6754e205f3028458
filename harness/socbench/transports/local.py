"""This machine as a device: real processes, one folder, nothing that another transport could not do as well."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from socbench.errors import ChannelError, DeadlineError
from socbench.transports.base import OUTPUT_LIMIT_BYTES, Completed, Deadline

_CHUNK_BYTES = 1 << 20
_POLL_S = 0.03
"""Between two looks at a followed file: short enough for a live display, long enough to cost the device nothing."""

_SPAWN = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 &'


def local_root() -> Path:
    """Return the folder that stands for the device: ``SOCBENCH_DEVICE_ROOT``, or ``~/.cache/socbench-device``."""
    named = os.environ.get("SOCBENCH_DEVICE_ROOT")
    return (Path(named) if named else Path.home() / ".cache" / "socbench-device").absolute()


class LocalTransport:
    """Runs commands on this machine. Passes tests/conformance/transport like every other transport."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or local_root()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def address(self) -> str:
        """``local``."""
        return "local"

    @property
    def root(self) -> PurePosixPath:
        """The folder of the device."""
        return PurePosixPath(self._root)

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a command in a process group of its own; the group is killed at the deadline."""
        deadline.check()
        try:
            process = self._start(argv, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            return Completed(tuple(argv), 127, stderr=f"{argv[0]}: not found".encode())
        except PermissionError:
            return Completed(tuple(argv), 126, stderr=f"{argv[0]}: may not be run".encode())
        try:
            return self._finish(process, tuple(argv), deadline, stdin, limit_bytes)
        finally:
            _kill_group(process)
            with self._lock:
                self._running.discard(process)

    def spawn(self, argv: Sequence[str], *, log: PurePosixPath, deadline: Deadline) -> None:
        """Start a command that outlives this process: a shell puts it into the background and ends."""
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        started = self.run(["/bin/sh", "-c", _SPAWN, "sh", str(log), *argv], deadline=deadline)
        if started.exit_code:
            raise OSError(f"{argv[0]} could not be started: {started.stderr.decode(errors='replace').strip()}")

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Copy a file under a temporary name beside ``target``, then rename."""
        self._check_open()
        _copy(source, Path(target), deadline)

    def pull(self, source: PurePosixPath, target: Path, *, deadline: Deadline) -> None:
        """Copy a file under a temporary name beside ``target``, then rename."""
        self._check_open()
        _copy(Path(source), target, deadline)

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Yield what is appended to ``path`` from ``offset`` on; ``b""`` about once a second while nothing comes."""
        file: IO[bytes] | None = None
        quiet_s = 0.0
        try:
            while not stop.is_set():
                self._check_open()
                if file is None:
                    with contextlib.suppress(FileNotFoundError):
                        file = Path(path).open("rb")  # noqa: SIM115 - closed below
                        file.seek(offset)
                data = file.read(_CHUNK_BYTES) if file else b""
                if data:
                    quiet_s = 0.0
                    yield data
                    continue
                stop.wait(_POLL_S)
                quiet_s += _POLL_S
                if quiet_s >= 1.0:
                    quiet_s = 0.0
                    yield b""
        finally:
            if file:
                file.close()

    def close(self) -> None:
        """End commands under way (their callers see a ChannelError); what was spawned goes on."""
        self._closed = True
        with self._lock:
            running = list(self._running)
        for process in running:
            _kill_group(process)

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelError(f"the channel to {self.address} was closed")

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **(env or {})}

    def _start(
        self, argv: Sequence[str], env: Mapping[str, str] | None, *, stdin: int, stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        self._check_open()
        process = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self._environment(env),
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
        return process

    def _finish(
        self, process: subprocess.Popen[bytes], argv: tuple[str, ...], deadline: Deadline, stdin: bytes, limit: int
    ) -> Completed:
        outputs = [_Output(process.stdout, limit), _Output(process.stderr, limit)]
        feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
        feeder.start()
        try:
            process.wait(deadline.remaining_s)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            process.wait()
            for output in outputs:
                output.finish(1.0)
            raise DeadlineError(f"{argv[0]} on {self.address} did not end in time: {deadline.what}") from None
        # A grandchild may hold the pipes open after the command itself has ended; it does not hold the caller up.
        for output in outputs:
            output.finish(min(1.0, deadline.remaining_s + 0.05))
        self._check_open()
        truncated = any(output.truncated for output in outputs)
        return Completed(argv, process.returncode, outputs[0].data, outputs[1].data, truncated)


class _Output:
    """Reads one stream to its end in a thread, keeps the first ``limit`` bytes."""

    def __init__(self, stream: IO[bytes] | None, limit: int) -> None:
        assert stream is not None
        self._stream = stream
        self._limit = limit
        self._kept: list[bytes] = []
        self._size = 0
        self._lock = threading.Lock()
        self.truncated = False
        os.set_blocking(stream.fileno(), False)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        while self._take() != 0:
            poll.poll()
        with self._lock:
            self._stream.close()

    def _take(self) -> int | None:
        """Take what the pipe holds; returns its size, 0 at the stream's end, ``None`` when there is nothing now."""
        with self._lock:
            try:
                chunk = b"" if self._stream.closed else os.read(self._stream.fileno(), _CHUNK_BYTES)
            except BlockingIOError:
                return None
            keep = chunk[: self._limit - self._size]
            self.truncated = self.truncated or len(keep) < len(chunk)
            if keep:
                self._kept.append(keep)
                self._size += len(keep)
            return len(chunk)

    def finish(self, wait_s: float) -> None:
        """Wait for the stream's end, and take what a command that has ended wrote, however late the thread is."""
        self._thread.join(wait_s)
        while not self.truncated and self._take():
            pass

    @property
    def data(self) -> bytes:
        return b"".join(self._kept)


def _feed(stream: IO[bytes] | None, data: bytes) -> None:
    """Write ``data`` and close; a command that does not read its input is no failure."""
    assert stream is not None
    with contextlib.suppress(OSError):
        if data:
            stream.write(data)
    with contextlib.suppress(OSError):
        stream.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and what it started in its group, when the command itself has not ended by itself."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _copy(source: Path, target: Path, deadline: Deadline) -> None:
    deadline.check()
    with source.open("rb") as reader:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with partial.open("wb") as writer:
                while chunk := reader.read(_CHUNK_BYTES):
                    writer.write(chunk)
                    deadline.check()
            shutil.copymode(source, partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
