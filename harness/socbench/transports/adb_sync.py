"""File transfer over ADB: the sync protocol, version 1, and version 2 where the link is to be compressed.

Compression (zstd) is an option of the link: it costs on fast links and on float weights, it may help on slow ones.
"""

from __future__ import annotations

import errno
import importlib
import select
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from socbench.errors import ChannelError, UsageError
from socbench.transports.adb_wire import SYNC_CHUNK_BYTES, Connection

_ZSTD_FLAG = 4
_ERRORS = {
    "no space left": errno.ENOSPC,
    "disk quota": errno.EDQUOT,
    "read-only file system": errno.EROFS,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
    "no such file": errno.ENOENT,
    "is a directory": errno.EISDIR,
    "not a directory": errno.ENOTDIR,
    "file name too long": errno.ENAMETOOLONG,
}
_READ_BYTES = 1 << 20


def zstandard() -> Any:
    """Return the module that compresses. Raises UsageError when it is not installed."""
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise UsageError(
            "compression zstd needs the Python package zstandard: `pip install 'socbench[adb]'`, or set it to none"
        ) from None


def send_file(connection: Connection, source: Path, target: str, compression: str = "none") -> None:
    """Send a file over a ``sync:`` connection; the device makes parents and unlinks what it could not finish.

    Raises OSError when the device refuses (ENOSPC when its disk is full), ChannelError when the link breaks.
    """
    with source.open("rb") as stream:
        mode = stat.S_IFREG | (0o755 if source.stat().st_mode & 0o111 else 0o644)
        name = target.encode("utf-8", "surrogateescape")
        blocks: Iterator[bytes | memoryview]
        if compression == "none":
            path = name + b",%d" % mode
            connection.send(b"SEND" + struct.pack("<I", len(path)) + path)
            blocks = _plain(stream)
        else:
            connection.send(b"SND2" + struct.pack("<I", len(name)) + name)
            connection.send(b"SND2" + struct.pack("<II", mode, _ZSTD_FLAG))
            blocks = _packed(stream, zstandard().ZstdCompressor(level=1).compressobj())
        for block in blocks:
            if _refused(connection):
                break
            connection.send(block)
        else:
            connection.send(b"DONE" + struct.pack("<I", int(source.stat().st_mtime) & 0xFFFFFFFF))
    _status(connection, target)


def _plain(stream: BinaryIO) -> Iterator[memoryview]:
    """Yield DATA packets in large blocks: one system call for sixteen packets instead of one for each."""
    step = 8 + SYNC_CHUNK_BYTES
    buffer = bytearray(16 * step)
    view = memoryview(buffer)
    while True:
        filled = 0
        while filled < len(buffer):
            count = stream.readinto(view[filled + 8 : filled + step])  # type: ignore[attr-defined]
            if not count:
                break
            buffer[filled : filled + 8] = b"DATA" + struct.pack("<I", count)
            filled += 8 + count
        if not filled:
            return
        yield view[:filled]


def _packed(stream: BinaryIO, packer: Any) -> Iterator[bytes]:
    while block := stream.read(_READ_BYTES):
        yield _data(packer.compress(block))
    yield _data(packer.flush())


def _data(block: bytes) -> bytes:
    pieces = (block[i : i + SYNC_CHUNK_BYTES] for i in range(0, len(block), SYNC_CHUNK_BYTES))
    return b"".join(b"DATA" + struct.pack("<I", len(piece)) + piece for piece in pieces)


def _refused(connection: Connection) -> bool:
    """Whether the device has already said something: before DONE that can only be a failure."""
    return bool(select.select([connection.fileno()], [], [], 0)[0])


def _status(connection: Connection, path: str) -> None:
    kind, size = struct.unpack("<4sI", connection.receive(8))
    if kind == b"OKAY":
        return
    if kind == b"FAIL" and size < 1 << 20:
        raise failure(connection.receive(size).decode("utf-8", "replace"), path)
    raise ChannelError(f"{connection.name} answered {kind!r} in a file transfer: the stream is broken")


def failure(said: str, path: str) -> OSError:
    """Return the device's refusal as the OSError that it was on the device."""
    number = next((code for words, code in _ERRORS.items() if words in said.lower()), errno.EIO)
    return OSError(number, f"the device says: {said}", path)


def receive_file(connection: Connection, source: str, target: BinaryIO, compression: str = "none") -> None:
    """Receive a file over a ``sync:`` connection into an open file. FileNotFoundError when it is not there."""
    name = source.encode("utf-8", "surrogateescape")
    unpacker: Any = None
    if compression == "none":
        connection.send(b"RECV" + struct.pack("<I", len(name)) + name)
    else:
        connection.send(b"RCV2" + struct.pack("<I", len(name)) + name)
        connection.send(b"RCV2" + struct.pack("<I", _ZSTD_FLAG))
        unpacker = zstandard().ZstdDecompressor().decompressobj()
    buffer = memoryview(bytearray(SYNC_CHUNK_BYTES))
    head = memoryview(bytearray(8))
    while True:
        connection.receive_into(head)
        kind, size = struct.unpack("<4sI", head)
        if kind == b"DATA" and size <= SYNC_CHUNK_BYTES:
            connection.receive_into(buffer[:size])
            target.write(unpacker.decompress(bytes(buffer[:size])) if unpacker else buffer[:size])
        elif kind == b"DONE":
            return
        elif kind == b"FAIL" and size < 1 << 20:
            raise failure(connection.receive(size).decode("utf-8", "replace"), source)
        else:
            raise ChannelError(f"{connection.name} answered {kind!r} in a file transfer: the stream is broken")


def file_size(connection: Connection, path: str) -> int | None:
    """Return the size of a file in bytes (64 bits, by STA2), None when it is not there."""
    name = path.encode("utf-8", "surrogateescape")
    connection.send(b"STA2" + struct.pack("<I", len(name)) + name)
    fields = struct.unpack("<4sIQQIIIIQqqq", connection.receive(72))
    return None if fields[1] else int(fields[8])
