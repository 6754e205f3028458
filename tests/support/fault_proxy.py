"""A TCP proxy that breaks on purpose: cuts or stalls after an exact number of bytes, limits the rate. Needs no root."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class TokenBucket:
    """Lets ``bytes_per_s`` through, with bursts of at most ``burst`` bytes; shared by all who take from it."""

    def __init__(self, bytes_per_s: float, burst: int = 256 * 1024) -> None:
        self.rate, self.burst = bytes_per_s, burst
        self._level, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass."""
        with self._lock:
            now = time.monotonic()
            self._level = min(float(self.burst), self._level + (now - self._at) * self.rate) - count
            self._at = now
            wait = -self._level / self.rate
        if wait > 0:
            time.sleep(wait)


class FaultProxy:
    """Forwards 127.0.0.1:``port`` to ``upstream`` and does what it was told to.

    ``cut_after`` / ``stall_after`` count the bytes from client to device (``up``) or back (``down``), over all
    connections since they were set; a cut resets both sides of every connection, a stall keeps them open and moves
    nothing on, also on new connections, until ``heal()``.
    """

    def __init__(self, upstream: int, *, up: TokenBucket | None = None, down: TokenBucket | None = None) -> None:
        self.upstream = upstream
        self._buckets = {"up": up, "down": down}
        self._counts = {"up": 0, "down": 0}
        self._limits: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._healthy = threading.Event()
        self._healthy.set()
        self._sockets: set[socket.socket] = set()
        self._refusing = False
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count: int, way: str = "up") -> None:
        """Reset every connection once ``count`` more bytes have passed."""
        self._limit(way, "cut", count)

    def stall_after(self, count: int, way: str = "up") -> None:
        """Move nothing more once ``count`` more bytes have passed."""
        self._limit(way, "stall", count)

    def _limit(self, way: str, what: str, count: int) -> None:
        with self._lock:
            self._limits[way] = (what, self._counts[way] + count)

    def refuse(self) -> None:
        """Reset all connections and every new one until ``heal()``: a pulled cable."""
        self._refusing = True
        self.cut_now()

    def heal(self) -> None:
        """Work again."""
        self._refusing = False
        with self._lock:
            self._limits.clear()
        self._healthy.set()

    def cut_now(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets = list(self._sockets)
            self._sockets.clear()
        for one in sockets:
            _reset(one)

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._healthy.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut_now()

    def passed(self, way: str = "up") -> int:
        """How many bytes have passed."""
        return self._counts[way]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._refusing or self._closed:
                _reset(client)
                continue
            try:
                device = socket.create_connection(("127.0.0.1", self.upstream), 5)
                device.settimeout(None)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._sockets |= {client, device}
            threading.Thread(target=self._join, args=(client, device), daemon=True).start()

    def _join(self, client: socket.socket, device: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=("down", device, client), daemon=True)
        back.start()
        self._pump("up", client, device)
        back.join()
        with self._lock:
            self._sockets -= {client, device}
        client.close()
        device.close()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := source.recv(64 * 1024):
                for piece in self._allowed(way, data):
                    sink.sendall(piece)
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _allowed(self, way: str, data: bytes) -> Iterator[bytes]:
        while data:
            with self._lock:
                what, at = self._limits.get(way, ("", 0))
                room = at - self._counts[way] if what else len(data)
                piece, data = data[: max(0, room)], data[max(0, room) :]
                self._counts[way] += len(piece)
            if piece:
                bucket = self._buckets[way]
                if bucket:
                    bucket.take(len(piece))
                yield piece
            if data and what == "cut":
                with self._lock:
                    self._limits.pop(way, None)
                self.cut_now()
                raise ConnectionResetError
            if data and what == "stall":
                self._healthy.clear()
                self._healthy.wait()
                if self._closed:
                    raise ConnectionResetError


def _reset(one: socket.socket) -> None:
    """Close with RST instead of FIN, as a pulled cable's peer finds out."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
