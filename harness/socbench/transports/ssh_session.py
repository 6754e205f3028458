"""The parts of the SSH transport that run in asyncssh's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import time
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from socbench.errors import ChannelError
from socbench.transports import far_shell
from socbench.transports.base import Completed

if TYPE_CHECKING:
    import asyncssh

_BLOCK_BYTES = 128 * 1024
"""Larger SFTP blocks break the packet limit of common servers."""
_COPY: Any = {"block_size": _BLOCK_BYTES, "max_requests": 16, "follow_symlinks": True}


async def connect(name: str, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
    """Return an authenticated connection."""
    import asyncssh

    return await asyncssh.connect(**options)


async def end(loop: asyncio.AbstractEventLoop) -> None:
    """Let everything in the loop see its end, then stop the loop."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)
    loop.call_soon(loop.stop)


async def run(
    connection: asyncssh.SSHClientConnection, line: str, stdin: bytes, limit: int, argv: tuple[str, ...]
) -> Completed:
    """Run a line; standard input stays open after the data, because its end is the sign to kill the command."""
    process = await connection.create_process(line, encoding=None, bufsize=_BLOCK_BYTES)
    try:
        room = [limit]
        outputs = await asyncio.gather(
            _read(process.stdout, room), _read(process.stderr, room), _write(process.stdin, stdin)
        )
        await process.wait_closed()
        code = process.returncode
        if code is None:
            raise ConnectionResetError(errno.ECONNRESET, "it ended before the command did")
        (stdout, cut_out), (stderr, cut_err), _ = outputs
        return Completed(argv, code if code >= 0 else 128 - code, stdout, stderr, cut_out or cut_err)
    finally:
        process.close()


async def _read(stream: asyncssh.SSHReader[bytes], room: list[int]) -> tuple[bytes, bool]:
    kept = bytearray()
    cut = False
    while data := await stream.read(_BLOCK_BYTES):
        taken = data[: max(0, room[0])]
        room[0] -= len(taken)
        kept += taken
        cut = cut or len(taken) < len(data)
    return bytes(kept), cut


async def _write(stream: asyncssh.SSHWriter[bytes], data: bytes) -> None:
    """Write in small pieces (one large write is copied again and again); a command that does not read is no failure."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        for start in range(0, len(view), _BLOCK_BYTES):
            stream.write(bytes(view[start : start + _BLOCK_BYTES]))
            await stream.drain()


async def follow(
    connection: asyncssh.SSHClientConnection, line: str, chunks: queue.Queue[bytes | BaseException]
) -> None:
    """Put what a follower prints into ``chunks``, and at last the error that ended it."""
    try:
        process = await connection.create_process(line, encoding=None, bufsize=_BLOCK_BYTES)
        try:
            heard = [time.monotonic()]
            tasks = [
                asyncio.ensure_future(_collect(process.stdout, heard, chunks)),
                asyncio.ensure_future(_collect(process.stderr, heard, None)),
                asyncio.ensure_future(_ask(process.stdin, heard)),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                raise ConnectionResetError(errno.ECONNRESET, "the board stopped following the file")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            process.close()
    except _errors() as error:
        with contextlib.suppress(queue.Full):
            chunks.put_nowait(error)


def _errors() -> tuple[type[BaseException], ...]:
    import asyncssh

    return (OSError, asyncssh.Error)


async def _collect(
    stream: asyncssh.SSHReader[bytes], heard: list[float], chunks: queue.Queue[bytes | BaseException] | None
) -> None:
    while data := await stream.read(_BLOCK_BYTES):
        heard[0] = time.monotonic()
        while chunks is not None:
            try:
                chunks.put_nowait(data)
                break
            except queue.Full:
                await asyncio.sleep(0.01)
                heard[0] = time.monotonic()


async def _ask(stream: asyncssh.SSHWriter[bytes], heard: list[float]) -> None:
    while True:
        if time.monotonic() - heard[0] > far_shell.SILENCE_S:
            raise ConnectionResetError(errno.ECONNRESET, f"no sign of life for {far_shell.SILENCE_S:.0f} s")
        stream.write(b"\n")
        await asyncio.sleep(far_shell.HEARTBEAT_S)


async def push(connection: asyncssh.SSHClientConnection, source: Path, target: PurePosixPath) -> None:
    """Send a file under a temporary name, compare the size, rename. OSError with ENOSPC when the disk is full."""
    size, mode = source.stat().st_size, source.stat().st_mode & 0o777
    partial = str(target.parent / f".{uuid.uuid4().hex}.part")
    async with connection.start_sftp_client() as sftp:
        await sftp.makedirs(str(target.parent), exist_ok=True)
        try:
            await sftp.put(str(source), partial, **_COPY)
            if await sftp.getsize(partial) != size:
                raise OSError(errno.EIO, "fewer bytes arrived than were sent", str(target))
            await sftp.chmod(partial, mode)
            await sftp.posix_rename(partial, str(target))
        except BaseException as error:
            full = await _is_full(sftp, error, partial, size)
            with contextlib.suppress(*_errors()):
                await sftp.unlink(partial)
            if full:
                raise OSError(errno.ENOSPC, "the device's disk is full", str(target)) from None
            raise


async def _is_full(sftp: asyncssh.SFTPClient, error: BaseException, partial: str, size: int) -> bool:
    """Whether a failed transfer failed for want of space: servers of protocol version 3 only say "Failure"."""
    import asyncssh

    if not isinstance(error, asyncssh.SFTPFailure):
        return False
    with contextlib.suppress(OSError, asyncssh.Error):
        disk = await sftp.statvfs(str(PurePosixPath(partial).parent))
        written = await sftp.getsize(partial)
        return int(disk.bavail) * int(disk.frsize) < size - int(written or 0)
    return False


async def pull(connection: asyncssh.SSHClientConnection, source: PurePosixPath, partial: Path) -> None:
    """Receive a file."""
    async with connection.start_sftp_client() as sftp:
        await sftp.get(str(source), str(partial), **_COPY)


def sftp_error(error: asyncssh.SFTPError, what: str) -> BaseException:
    """Return an SFTP failure as the OSError that it was on the board, a lost connection as ours."""
    import asyncssh

    if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath):
        return FileNotFoundError(errno.ENOENT, "not there on the device", what)
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return PermissionError(errno.EACCES, "the device does not allow it", what)
    if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection):
        return ChannelError(f"the connection broke: {error.reason}")
    return OSError(errno.EIO, f"the device says: {error.reason}", what)
