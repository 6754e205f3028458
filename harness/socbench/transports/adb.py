"""Devices over ADB: Android phones over USB or the network, and Linux boards that run adbd."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from socbench.errors import ChannelError, DeadlineError, DeviceStateError, UsageError
from socbench.transports import adb_sync, adb_wire, far_shell
from socbench.transports.adb_wire import EXIT, STDERR, STDIN, STDOUT, Connection, Listed, Server
from socbench.transports.base import OUTPUT_LIMIT_BYTES, Completed, Deadline

OPEN_S = 10.0
"""How long a device may take to say that it is there."""

PASSING_S = 5.0
_PASSING = ("authorizing", "connecting", "offline")

_ADVICE = {
    "unauthorized": 'unlock the phone and accept "Allow USB debugging?"; if no question shows, revoke USB debugging '
    "authorisations in the developer options and replug",
    "authorizing": 'the phone is asking for permission: unlock it and accept "Allow USB debugging?"',
    "offline": "it is attached and does not answer: replug the cable, or over the network check that it is awake and "
    "reachable, then run `adb reconnect offline`",
    "connecting": "the connection is being made: try again in a few seconds",
    "no_permission": "this user may not open the USB device: install the udev rules (Debian: `sudo apt install "
    "android-sdk-platform-tools-common`), be a member of the group plugdev, then replug",
    "bootloader": "it is in its bootloader: boot Android with `fastboot reboot`",
    "recovery": "it is in recovery: boot Android with `adb reboot`",
    "sideload": "it waits for a sideload: boot Android with `adb reboot`",
    "rescue": "it is in rescue mode: boot Android with `adb reboot`",
    "not_attached": "check the cable and that USB debugging is on; `socbench devices` lists what is attached",
}


class AdbStateError(DeviceStateError):
    """The device is not ready and does not become so by itself; ``state`` is the short word for how."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class AdbLostError(ChannelError):
    """The device is away for now (offline, unplugged): it may come back by itself; ``state`` says how it is away."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


def state_error(address: str, words: str) -> AdbStateError | AdbLostError:
    """Return the error for a device that the server calls ``words`` (``not_attached``: it does not list it)."""
    state, advice = state_and_advice(words)
    message = f"{address} is {state.replace('_', ' ')}: {advice}"
    away = state in (*_PASSING, "not_attached")
    return AdbLostError(message, state) if away else AdbStateError(message, state)


def state_and_advice(words: str) -> tuple[str, str]:
    """Return a short state and what to do, from the words that the server uses (which may be a whole sentence)."""
    state = "no_permission" if words.startswith("no permissions") else words.split(" ")[0] or "unknown"
    return state, _ADVICE.get(state, f"the adb server calls its state {words!r}: replug it and run `adb kill-server`")


def address_of(entry: Listed, listed: Sequence[Listed]) -> str:
    """Return how the user names a device: by serial, by USB path where the serial is not one device's alone."""
    shared = sum(other.serial == entry.serial for other in listed) > 1
    return f"adb:{entry.usb}" if entry.usb and (shared or "?" in entry.serial) else f"adb:{entry.serial}"


class AdbTransport:
    """One device at the ADB server. Passes tests/conformance/transport like every other transport.

    ``name`` is a serial, ``HOST:PORT`` (connected to if it is not yet) or a USB path (``usb:1-2``). Every operation
    opens a stream of its own, so many go in parallel, and a device that was replugged is found again by its name.
    """

    def __init__(
        self,
        name: str,
        *,
        root: PurePosixPath | None = None,
        compression: str = "none",
        server: Server | None = None,
        open_s: float = OPEN_S,
    ) -> None:
        self._target = name
        self._compression = compression
        if compression != "none":
            adb_sync.zstandard()
        self._open_streams: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        deadline = Deadline.after(open_s, f"{self.address} to answer")
        fresh = server is None and not adb_wire.answers(adb_wire.configured_server())
        self._server = server or adb_wire.ensure_server()
        patience = Deadline.after(min(PASSING_S, open_s), f"{self.address} to be ready")
        self._root = self._come_in(root, deadline, patience, fresh)
        if not self._root.is_absolute():
            raise DeviceStateError(f"{self.address}: its shell names no folder for socbench; try `adb shell id` on it")

    @property
    def address(self) -> str:
        """``adb:SERIAL``."""
        return f"adb:{self._target}"

    @property
    def root(self) -> PurePosixPath:
        """``/data/local/tmp/socbench``, or a folder in the home of a Linux device."""
        return self._root

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Completed:
        """Run a command to completion, over a stream of its own; ending the stream kills the command."""
        line = far_shell.guarded(argv, len(stdin), env)
        return self._shell(line, stdin, deadline, limit_bytes, tuple(argv))

    def spawn(self, argv: Sequence[str], *, log: PurePosixPath, deadline: Deadline) -> None:
        """Start a command in a session of its own; it outlives the channel."""
        done = self._shell(far_shell.detached(argv, log), b"", deadline, 4096, tuple(argv))
        if done.exit_code:
            raise OSError(f"{argv[0]} could not be started: {done.stderr.decode(errors='replace').strip()}")

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Send a file under a temporary name, then rename; the device's daemon makes the parents."""
        partial = str(target.parent / f".{uuid.uuid4().hex}.part")
        try:
            with self._stream("sync:", deadline) as connection:
                adb_sync.send_file(connection, source, partial, self._compression)
        except OSError:
            self._forget(partial)
            raise
        done = self.run(["mv", "-f", partial, str(target)], deadline=deadline)
        if done.exit_code:
            self._forget(partial)
            raise adb_sync.failure(done.stderr.decode(errors="replace").strip(), str(target))

    def pull(self, source: PurePosixPath, target: Path, *, deadline: Deadline) -> None:
        """Receive a file under a temporary name beside ``target``, then rename."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with self._stream("sync:", deadline) as connection, partial.open("wb") as stream:
                adb_sync.receive_file(connection, str(source), stream, self._compression)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Yield what is appended to a file; the device has to answer a heartbeat, whatever the server says of it."""
        deadline = Deadline.after(OPEN_S, f"{self.address} to show {path}")
        with self._stream(f"shell,v2,raw:{far_shell.following(path, offset)}", deadline) as connection:
            yield from self._followed(connection, path, stop)

    def close(self) -> None:
        """End the streams under way (their users see a ChannelError); what was spawned goes on."""
        self._closed = True
        with self._lock:
            streams = list(self._open_streams)
        for stream in streams:
            stream.close()

    def _come_in(
        self, root: PurePosixPath | None, deadline: Deadline, patience: Deadline, fresh: bool
    ) -> PurePosixPath:
        """Return the folder on the device; asking for it is what proves that the device answers."""
        while True:
            self._wait_until_ready(deadline, patience, fresh)
            if self._compression != "none":
                self._need_feature(f"sendrecv_v2_{self._compression}", deadline)
            try:
                found = self._shell(far_shell.finding_root(root), b"", deadline, 4096, ("sh",)).stdout
            except AdbLostError:
                if not patience.remaining_s:
                    raise
                time.sleep(0.05)
            else:
                return PurePosixPath(found.decode("utf-8", "surrogateescape"))

    def _wait_until_ready(self, deadline: Deadline, patience: Deadline, fresh: bool) -> None:
        """Wait out the states that pass by themselves; raise for the others.

        A device that was cut off is offline until the server has found it again (up to 3 s were seen), and a server
        that has just been started (``fresh``) lists nothing for a moment.
        """
        connected = False
        while True:
            listed = adb_wire.devices(self._server, deadline)
            entry = next((e for e in listed if self._target in (e.serial, e.usb)), None)
            words = entry.state if entry else "not_attached"
            if words == "device":
                return
            if entry is None and not connected and _is_network_name(self._target):
                adb_wire.connect(self._server, self._target, deadline)
                connected = True
                continue
            passing = words in _PASSING or (words == "not_attached" and (connected or fresh))
            if not passing or not patience.remaining_s:
                raise state_error(self.address, words)
            time.sleep(0.05)

    def _need_feature(self, feature: str, deadline: Deadline) -> None:
        features = adb_wire.query(self._server, f"host-serial:{self._target}:features", deadline).split(",")
        if feature not in features:
            raise UsageError(
                f"{self.address} cannot receive {self._compression}: set its compression to none in devices.toml "
                "(Android 12 and later can, if the adb program is 31 or later)"
            )

    @contextlib.contextmanager
    def _stream(self, service: str, deadline: Deadline) -> Iterator[Connection]:
        if self._closed:
            raise ChannelError(f"the channel to {self.address} was closed")
        deadline.check()
        try:
            connection = adb_wire.open_service(self._server, self._target, service, deadline)
        except DeviceStateError as error:
            raise self._explained(error) from None
        with self._lock:
            self._open_streams.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open_streams.discard(connection)
            connection.close()

    def _explained(self, error: DeviceStateError) -> ChannelError:
        """Return the server's refusal with the device's state and advice, where it has one."""
        with contextlib.suppress(ChannelError):
            listed = adb_wire.devices(self._server)
            entry = next((e for e in listed if self._target in (e.serial, e.usb)), None)
            words = entry.state if entry else "not_attached"
            if words != "device":
                return state_error(self.address, words)
        return ChannelError(str(error))

    def _shell(self, line: str, stdin: bytes, deadline: Deadline, limit: int, argv: tuple[str, ...]) -> Completed:
        """Run one line; the rest of the output is still read when it is over ``limit``, so the command can end."""
        kept: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
        truncated = False
        with self._stream(f"shell,v2,raw:{line}", deadline) as connection:
            feeder = threading.Thread(target=_feed, args=(connection, stdin), daemon=True)
            if stdin:
                feeder.start()
            try:
                for kind, data in adb_wire.packets(connection):
                    if kind == EXIT:
                        code = data[0] if data else 255
                        return Completed(argv, code, bytes(kept[STDOUT]), bytes(kept[STDERR]), truncated)
                    if kind in kept:
                        room = limit - sum(map(len, kept.values()))
                        kept[kind] += data[: max(0, room)]
                        truncated = truncated or len(data) > room
            except DeadlineError:
                raise DeadlineError(f"{argv[0]} on {self.address} did not end in time: {deadline.what}") from None
        raise ChannelError(f"the connection to {self.address} broke")

    def _followed(self, connection: Connection, path: PurePosixPath, stop: threading.Event) -> Iterator[bytes]:
        received = adb_wire.PacketReader()
        heard = asked = yielded = time.monotonic()
        asked -= far_shell.HEARTBEAT_S
        while not stop.is_set():
            now = time.monotonic()
            connection.deadline = Deadline(now + far_shell.SILENCE_S, f"a sign of life from {self.address}")
            if now - heard > far_shell.SILENCE_S:
                raise ChannelError(f"{self.address} gave no sign of life for {far_shell.SILENCE_S:.0f} s")
            if now - asked >= far_shell.HEARTBEAT_S:
                asked = now
                adb_wire.send_packet(connection, STDIN, b"\n")
            data = connection.receive_some(0.2)
            if data == b"":
                raise ChannelError(f"the connection to {self.address} broke while {path} was followed")
            for kind, content in received.feed(data or b""):
                heard = time.monotonic()
                if kind == EXIT:
                    raise ChannelError(f"{self.address} stopped following {path}")
                if kind == STDOUT:
                    yielded = heard
                    yield content
            if time.monotonic() - yielded >= 1.0:
                yielded = time.monotonic()
                yield b""

    def _forget(self, path: str) -> None:
        """Remove a file that was left half, if the device can still be reached."""
        with contextlib.suppress(ChannelError, OSError):
            self.run(["rm", "-f", path], deadline=Deadline.after(5, f"{self.address} to remove a partial file"))


def _is_network_name(name: str) -> bool:
    host, _, port = name.rpartition(":")
    return bool(host) and port.isdigit() and not name.startswith("usb:")


def _feed(connection: Connection, data: bytes) -> None:
    """Send standard input. It is not closed at its end: that would be the sign to kill the command."""
    view = memoryview(data)
    with contextlib.suppress(ChannelError):
        for start in range(0, len(view), adb_wire.SYNC_CHUNK_BYTES):
            adb_wire.send_packet(connection, STDIN, view[start : start + adb_wire.SYNC_CHUNK_BYTES])


__all__ = ["AdbStateError", "AdbTransport", "address_of", "state_and_advice"]
