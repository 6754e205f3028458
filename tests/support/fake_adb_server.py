"""A fake ADB server: scripted answers for devices that no test can attach (odd serials, duplicates, garbage)."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeAlias

Handler: TypeAlias = Callable[[socket.socket, str], None]


def packet(kind: int, data: bytes) -> bytes:
    """Return one shell v2 packet."""
    return struct.pack("<BI", kind, len(data)) + data


def exact(connection: socket.socket, count: int) -> bytes:
    """Receive exactly ``count`` bytes; EOFError at an early end."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class FakeAdbServer:
    """Lists ``devices`` (lines of ``devices -l``); services on a device go to ``handler(connection, service)``.

    ``asked`` holds every request in order.
    """

    def __init__(self, devices: str, handler: Handler | None = None) -> None:
        self.devices, self.handler = devices, handler or answer_root
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            while True:
                service = exact(connection, int(exact(connection, 4), 16)).decode()
                self.asked.append(service)
                if service == "host:devices-l":
                    body = self.devices.encode()
                    connection.sendall(b"OKAY" + b"%04x" % len(body) + body)
                    return
                if service.startswith("host:tport:"):
                    connection.sendall(b"OKAY" + struct.pack("<Q", 1))
                    continue
                connection.sendall(b"OKAY")
                self.handler(connection, service)
                return


def answer_root(connection: socket.socket, service: str) -> None:
    """Answer what opening a device asks, and end every other command with 0."""
    if "printf %s" in service:
        connection.sendall(packet(1, b"/data/local/tmp/socbench"))
    connection.sendall(packet(3, b"\0"))
