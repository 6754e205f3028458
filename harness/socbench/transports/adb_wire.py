"""A small client of the ADB server: its smart-socket, shell v2 and sync protocols. Standard library only.

The ADB server that people already run owns the USB devices; this speaks to it over its TCP port, so there is never a
second owner and hot-plug, reconnects and many streams a device come for free. What the server says of a device is not
liveness (a stopped or unreachable one stays ``device`` for minutes), so every operation here has a deadline.

Protocol facts: AOSP packages/modules/adb, SERVICES.TXT, SYNC.TXT, shell_protocol.h (ids: stdin 0, stdout 1, stderr 2,
exit 3, close stdin 4), file_sync_protocol.h (flags: brotli 1, lz4 2, zstd 4).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from socbench.errors import ChannelError, DeadlineError, DeviceStateError
from socbench.transports.base import Deadline

DEFAULT_PORT = 5037
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
SYNC_CHUNK_BYTES = 64 * 1024
_PACKET_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Server:
    """Where an ADB server listens."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT


@dataclass(frozen=True)
class Listed:
    """One line of ``devices-l``: serial (not unique), state (may be a sentence), USB path (``usb:1-2``), the rest."""

    serial: str
    state: str
    usb: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


def configured_server() -> Server:
    """Return the server that the adb program would use: ADB_SERVER_SOCKET, ANDROID_ADB_SERVER_PORT, else 5037."""
    spec = os.environ.get("ADB_SERVER_SOCKET", "")
    if spec.startswith("tcp:"):
        host, _, port = spec.removeprefix("tcp:").rpartition(":")
        if port.isdigit():
            return Server(host or "127.0.0.1", int(port))
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    return Server(host, int(port) if port.isdigit() else DEFAULT_PORT)


def find_adb() -> Path | None:
    """Return the adb program: on the PATH, else the ``adbutils`` package's; None when there is none."""
    found = shutil.which("adb")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("adbutils")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("adb", "adb.exe"):
            binary = Path(folder) / "binaries" / name
            if binary.is_file():
                return binary
    return None


def server_or_none(*, start_s: float = 10.0) -> Server | None:
    """Return a server that answers, started if none runs and an adb program is there; None when there is none."""
    with contextlib.suppress(ChannelError):
        return ensure_server(start_s=start_s)
    return None


def answers(server: Server) -> bool:
    """Whether something listens at a server's address."""
    with contextlib.suppress(OSError), socket.create_connection((server.host, server.port), 2.0):
        return True
    return False


def ensure_server(*, start_s: float = 10.0) -> Server:
    """Return the configured server, started first if nothing listens there.

    Raises:
        ChannelError: none runs and none can be started; the message says what to install.
    """
    server = configured_server()
    if answers(server):
        return server
    where = f"{server.host}:{server.port}"
    if server.host not in ("127.0.0.1", "localhost", "::1"):
        raise ChannelError(f"no ADB server answers at {where}: start it there with `adb -a start-server`")
    adb = find_adb()
    if adb is None:
        raise ChannelError(
            f"no ADB server runs at {where} and there is no adb program to start one: install adb "
            "(Debian: `sudo apt install adb`, anywhere: `pip install 'socbench[adb]'`)"
        )
    argv = [str(adb), "-P", str(server.port), "start-server"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=start_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChannelError(f"`{' '.join(argv)}` did not start an ADB server: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ChannelError(
            f"`{' '.join(argv)}` did not start an ADB server: {said[-1] if said else f'exit code {done.returncode}'}"
        )
    return server


class Connection:
    """One socket to the server, with a deadline that every read and write keeps to."""

    def __init__(self, server: Server, deadline: Deadline, name: str = "the ADB server") -> None:
        self.deadline = deadline
        self.name = name
        try:
            self._socket = socket.create_connection((server.host, server.port), max(0.001, deadline.remaining_s))
        except OSError as error:
            raise ChannelError(
                f"no ADB server answers at {server.host}:{server.port} ({error}): run `adb start-server`"
            ) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a thread that reads from it sees a ChannelError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor, for ``select``."""
        return self._socket.fileno()

    def _arm(self) -> None:
        self.deadline.check()
        self._socket.settimeout(max(0.001, self.deadline.remaining_s))

    def _broken(self, error: OSError) -> ChannelError:
        if isinstance(error, TimeoutError):
            return DeadlineError(f"{self.name} gave no answer in time: waited for {self.deadline.what}")
        return ChannelError(f"the connection to {self.name} broke ({error})")

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        try:
            self._arm()
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def receive_into(self, view: memoryview) -> None:
        """Fill ``view``."""
        got = 0
        try:
            while got < len(view):
                self._arm()
                count = self._socket.recv_into(view[got:])
                if not count:
                    raise ChannelError(f"the connection to {self.name} broke (it ended early)")
                got += count
        except OSError as error:
            raise self._broken(error) from None

    def receive(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        buffer = bytearray(count)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def receive_some(self, wait_s: float, limit: int = 1 << 16) -> bytes | None:
        """Return what is there, b"" at the end of the stream, None when nothing came within ``wait_s``."""
        try:
            self._socket.settimeout(max(0.001, min(wait_s, self.deadline.remaining_s)))
            return self._socket.recv(limit)
        except TimeoutError:
            return None
        except OSError as error:
            raise self._broken(error) from None

    def request(self, service: str) -> None:
        """Ask for a service and read its status.

        Raises:
            DeviceStateError: the server refuses; ``str()`` holds its words.
        """
        payload = service.encode("utf-8", "surrogateescape")
        self.send(b"%04x" % len(payload) + payload)
        status = self.receive(4)
        if status == b"FAIL":
            raise DeviceStateError(f"{self.name}: {self.text()}")
        if status != b"OKAY":
            raise ChannelError(f"{self.name} speaks no ADB: it answered {status!r}; is another program on that port?")

    def text(self) -> str:
        """Return one length-prefixed answer."""
        digits = self.receive(4)
        try:
            count = int(digits, 16)
        except ValueError:
            raise ChannelError(f"{self.name} speaks no ADB: {digits!r} is no length") from None
        return self.receive(count).decode("utf-8", "replace")


def query(server: Server, service: str, deadline: Deadline) -> str:
    """Return the server's answer to a ``host:`` service."""
    with Connection(server, deadline) as connection:
        connection.request(service)
        return connection.text()


def devices(server: Server | None, deadline: Deadline | None = None) -> list[Listed]:
    """Return what the server lists; an empty list without a server."""
    if server is None:
        return []
    return parse_devices(
        query(server, "host:devices-l", deadline or Deadline.after(5, "the ADB server's list of devices"))
    )


def parse_devices(text: str) -> list[Listed]:
    """Return the devices in ``adb devices [-l]``: headers and daemon messages skipped, states of several words kept."""
    return [entry for entry in map(_parse_line, text.splitlines()) if entry]


def _parse_line(line: str) -> Listed | None:
    if not line.strip() or line.startswith(("List of devices", "*", "adb server", "adb:")):
        return None
    serial, _, rest = line.strip().replace("\t", " ").partition(" ")
    words = rest.split()
    if serial == "(no" and words[:2] == ["serial", "number)"]:
        serial, words = "????????????", words[2:]
    if not words:
        return None
    state: list[str] = []
    fields: dict[str, str] = {}
    sentence = words[0] == "no" and words[1:2] and words[1].startswith("permissions")
    for word in words:
        key, colon, value = word.partition(":")
        known = key in ("usb", "product", "model", "device", "features", "transport_id", "devpath")
        if colon and known and state:
            fields[key] = value
        elif sentence or not state:
            state.append(word)
    usb = f"usb:{fields['usb']}" if "usb" in fields else None
    return Listed(serial, " ".join(state), usb, fields)


def track_devices(server: Server, stop: threading.Event) -> Iterator[list[Listed]]:
    """Yield the list of devices now and whenever it changes, until ``stop`` is set (looked at once a second)."""
    with Connection(server, Deadline.after(10, "the ADB server's list of devices")) as connection:
        connection.request("host:track-devices-l")
        pending = b""
        while not stop.is_set():
            connection.deadline = Deadline.after(10, "the ADB server's list of devices")
            data = connection.receive_some(1.0)
            if data == b"":
                raise ChannelError("the ADB server ended: run `adb start-server`")
            pending += data or b""
            while len(pending) >= 4 and len(pending) >= 4 + (size := _length(pending[:4])):
                yield parse_devices(pending[4 : 4 + size].decode("utf-8", "replace"))
                pending = pending[4 + size :]


def _length(digits: bytes) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        raise ChannelError(f"the ADB server speaks no ADB: {digits!r} is no length") from None


def connect(server: Server, host_and_port: str, deadline: Deadline) -> None:
    """Have the server connect to a device over TCP, allowed or not yet. Raises ChannelError when it cannot."""
    said = query(server, f"host:connect:{host_and_port}", deadline)
    if not said.startswith(("connected", "already connected", "failed to authenticate")):
        raise ChannelError(
            f"adb:{host_and_port} cannot be reached: {said.strip()}; check the address, and that wireless debugging or "
            "`adb tcpip` is on"
        )


def open_service(server: Server, target: str, service: str, deadline: Deadline) -> Connection:
    """Return a connection to a service on a device; ``target`` is a serial or a USB path (``usb:1-2``).

    Raises:
        DeviceStateError: no such device, or not in a state to be used.
    """
    connection = Connection(server, deadline, f"adb:{target}")
    try:
        connection.request(f"host:tport:serial:{target}")
        connection.receive(8)  # the transport id, which a reconnected device does not keep
        connection.request(service)
    except BaseException:
        connection.close()
        raise
    return connection


def send_packet(connection: Connection, kind: int, data: bytes | memoryview = b"") -> None:
    """Send one packet of the shell v2 protocol."""
    connection.send(struct.pack("<BI", kind, len(data)) + bytes(data))


class PacketReader:
    """Cuts a byte stream into shell v2 packets, however it arrives."""

    def __init__(self, name: str = "the device") -> None:
        self._pending = bytearray()
        self._name = name

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take data in, yield the packets that are complete."""
        self._pending += data
        while len(self._pending) >= 5:
            kind, size = struct.unpack_from("<BI", self._pending)
            if size > _PACKET_LIMIT_BYTES:
                raise ChannelError(f"{self._name} sent a packet of {size} bytes, which no ADB device does")
            if len(self._pending) < 5 + size:
                return
            content = bytes(self._pending[5 : 5 + size])
            del self._pending[: 5 + size]
            yield kind, content


def packets(connection: Connection) -> Iterator[tuple[int, bytes]]:
    """Yield the shell v2 packets of a connection up to and with EXIT."""
    while True:
        kind, size = struct.unpack("<BI", connection.receive(5))
        if size > _PACKET_LIMIT_BYTES:
            raise ChannelError(f"{connection.name} sent a packet of {size} bytes, which no ADB device does")
        yield kind, connection.receive(size)
        if kind == EXIT:
            return
