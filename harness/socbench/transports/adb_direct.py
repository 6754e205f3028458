"""Devices over ADB without an ADB server: the pure Python package ``adb-shell``, for hosts that can run no server.

Limits, all of the package: one command at a time; exit codes come behind a marker, standard error and standard input go
over files in socbench's folder; 30 to 70 MB/s; over USB only while no ADB server runs on this host; a closed channel
does not end a command, its deadline does. Use ``adb:`` where you can.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import secrets
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from socbench.errors import ChannelError, DeadlineError, DeviceStateError, UsageError
from socbench.transports import adb_sync, far_shell
from socbench.transports.base import OUTPUT_LIMIT_BYTES, Completed, Deadline

OPEN_S = 10.0
_POLL_S = 0.5


class AdbDirectTransport:
    """One device, spoken to without a server. ``name`` is ``HOST[:PORT]`` or ``usb[:SERIAL]``.

    ``keys`` are private key files that the device has allowed (default: the adb program's own, ``~/.android/adbkey``).
    """

    def __init__(
        self,
        name: str,
        *,
        root: PurePosixPath | None = None,
        keys: Sequence[Path] | None = None,
        open_s: float = OPEN_S,
    ) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._keys = _signers(keys)
        self._hang_up: Callable[[], None] | None = None
        deadline = Deadline.after(open_s, f"{self.address} to answer")
        self._device = self._connect(deadline)
        found = self._shell(far_shell.finding_root(root), deadline)
        self._root = PurePosixPath(found.stdout.decode("utf-8", "surrogateescape").strip())

    @property
    def address(self) -> str:
        """``adb-direct:HOST:PORT``."""
        return f"adb-direct:{self._name}"

    @property
    def root(self) -> PurePosixPath:
        """The folder of socbench on the device."""
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
        """Run a command; standard error and input go over temporary files."""
        line = far_shell.command_line(argv, env)
        errors = str(self._root / "tmp" / f"{uuid.uuid4().hex}.stderr")
        if not stdin:
            return self._shell(f"{line} </dev/null", deadline, tuple(argv), limit_bytes, errors)
        held = self._hold(stdin, deadline)
        try:
            return self._shell(f"{line} <{held}", deadline, tuple(argv), limit_bytes, errors)
        finally:
            with contextlib.suppress(ChannelError):
                self._shell(far_shell.command_line(["rm", "-f", held]), Deadline.after(5))

    def spawn(self, argv: Sequence[str], *, log: PurePosixPath, deadline: Deadline) -> None:
        """Start a command in a session of its own; it outlives the channel."""
        done = self._shell(far_shell.detached(argv, log), deadline, tuple(argv))
        if done.exit_code:
            raise OSError(f"{argv[0]} could not be started: {done.stdout.decode(errors='replace').strip()}")

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Send a file under a temporary name, then rename; room is looked for first: the package hangs without."""
        self._need_room(source.stat().st_size, target, deadline)
        partial = str(target.parent / f".{uuid.uuid4().hex}.part")
        mode = 0o100755 if source.stat().st_mode & 0o111 else 0o100644
        self._call(deadline, "push", str(source), partial, st_mode=mode)
        done = self._shell(far_shell.command_line(["mv", "-f", partial, str(target)]), deadline)
        if done.exit_code:
            raise adb_sync.failure(done.stdout.decode(errors="replace").strip(), str(target))

    def _need_room(self, size_bytes: int, target: PurePosixPath, deadline: Deadline) -> None:
        folder = far_shell.command_line([str(target.parent)])
        words = self._shell(f"mkdir -p {folder} && df -Pk {folder} | tail -n 1", deadline).stdout.split()
        free = [int(before) for before, word in pairwise(words) if word.endswith(b"%") and before.isdigit()]
        if free and free[0] * 1024 < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    def pull(self, source: PurePosixPath, target: Path, *, deadline: Deadline) -> None:
        """Receive a file under a temporary name beside ``target``, then rename."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            self._call(deadline, "pull", str(source), str(partial))
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Yield what is appended to a file, asked for twice a second: one connection has room for one command."""
        yielded = time.monotonic()
        name = far_shell.command_line([str(path)])
        while not stop.is_set():
            line = f"if [ -e {name} ]; then tail -c +{offset + 1} {name} | head -c 4194304; fi"
            chunk = self._shell(line, Deadline.after(far_shell.SILENCE_S, f"{self.address} to show {path}")).stdout
            offset += len(chunk)
            if chunk or time.monotonic() - yielded >= 1.0:
                yielded = time.monotonic()
                yield chunk
            stop.wait(_POLL_S)

    def close(self) -> None:
        """Give the connection back; what was spawned goes on."""
        self._closed = True
        if self._hang_up is not None:
            self._hang_up()  # a call under way waits for data, and holds the lock that the package's close wants
        with contextlib.suppress(Exception):
            self._device.close()

    def _hold(self, data: bytes, deadline: Deadline) -> str:
        """Put standard input into a file on the device; return its quoted name."""
        name = str(self._root / "tmp" / f"{uuid.uuid4().hex}.stdin")
        import io

        self._call(deadline, "push", io.BytesIO(data), name)
        return far_shell.command_line([name])

    def _connect(self, deadline: Deadline) -> Any:
        adb_device = _package("adb_shell.adb_device")
        exceptions = _package("adb_shell.exceptions")
        try:
            if self._name == "usb" or self._name.startswith("usb:"):
                device = adb_device.AdbDeviceUsb(serial=self._name.partition(":")[2] or None)
            else:
                host, _, port = self._name.partition(":")
                link = _tcp_transport(host, int(port or 5555))
                device, self._hang_up = adb_device.AdbDevice(link), link.hang_up
            device.connect(rsa_keys=self._keys, auth_timeout_s=deadline.remaining_s)
        except exceptions.DeviceAuthError as error:
            raise DeviceStateError(
                f"{self.address} is unauthorized: accept the question on its screen ({error})"
            ) from None
        except (exceptions.TcpTimeoutException, exceptions.AdbTimeoutError) as error:
            raise DeadlineError(f"{self.address} gave no answer in time ({error}); is it unauthorized?") from None
        except (OSError, exceptions.UsbDeviceNotFoundError) as error:
            raise ChannelError(f"{self.address} cannot be reached ({error}); over USB no ADB server may run") from None
        return device

    def _shell(
        self,
        line: str,
        deadline: Deadline,
        argv: tuple[str, ...] = ("sh",),
        limit: int = OUTPUT_LIMIT_BYTES,
        errors: str = "",
    ) -> Completed:
        """Run a line; its exit code comes behind a marker that no output can know beforehand.

        ``errors``: a file of the device for its standard error, which comes after the marker; else it is output too.
        """
        mark = secrets.token_hex(8)
        name, folder = (far_shell.command_line([path]) for path in (errors, str(PurePosixPath(errors).parent)))
        ran = f"{_watch(deadline)}; ({line}) 2>&1; code=$?; kill $watch; echo {mark}$code"
        if errors:  # what is over the limit does not leave the device: the package would hold all of it in memory
            piped = f"{{ ({line}) 2>{name}; echo $? >{name}.code; }} | {{ head -c {limit + 1}; cat >/dev/null; }}"
            told = f"echo {mark}$(cat {name}.code); head -c {limit + 1} {name}; rm -f {name} {name}.code"
            ran = f"mkdir -p {folder}; {_watch(deadline)}; {piped}; kill $watch; {told}"
        text = self._call(deadline, "exec_out", ran, decode=False)
        found = re.search(rb"%s([0-9]{1,3})\r?\n" % mark.encode(), text)
        if not found:
            raise ChannelError(f"the connection to {self.address} broke before `{argv[0]}` ended")
        output, told = text[: found.start()], text[found.end() :]
        return Completed(argv, int(found[1]), output[:limit], told[:limit], max(len(output), len(told)) > limit)

    def _call(self, deadline: Deadline, method: str, *arguments: Any, **options: Any) -> Any:
        if self._closed:
            raise ChannelError(f"the channel to {self.address} was closed")
        deadline.check()
        exceptions = _package("adb_shell.exceptions")
        wait = max(0.1, deadline.remaining_s)
        if method == "exec_out":
            options["timeout_s"] = wait
        with self._lock:
            try:
                return getattr(self._device, method)(
                    *arguments, read_timeout_s=wait, transport_timeout_s=wait, **options
                )
            except exceptions.TcpTimeoutException:
                raise DeadlineError(f"{self.address} gave no answer in time: waited for {deadline.what}") from None
            except exceptions.AdbTimeoutError:
                raise DeadlineError(f"{self.address} gave no answer in time: waited for {deadline.what}") from None
            except (exceptions.AdbCommandFailureException, exceptions.PushFailedError) as error:
                raise adb_sync.failure(str(error), str(arguments[0])) from None
            except (OSError, exceptions.AdbConnectionError, exceptions.InvalidResponseError) as error:
                raise ChannelError(f"the connection to {self.address} broke ({error})") from None


def _tcp_transport(host: str, port: int) -> Any:
    """Return the package's TCP transport, but one that notices the end of the connection: its own reads on for ever."""
    timeout = _package("adb_shell.exceptions").TcpTimeoutException

    class Tcp(_package("adb_shell.transport.tcp_transport").TcpTransport):  # type: ignore[misc]
        def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
            link = self._connection
            if link is None or link.fileno() < 0:
                raise ConnectionResetError("it was closed")
            if not select.select([link], [], [], transport_timeout_s)[0]:
                raise timeout(f"nothing came for {transport_timeout_s} s")
            data = bytes(link.recv(numbytes))
            if not data:
                raise ConnectionResetError("the device ended it")
            return data

        def hang_up(self) -> None:
            with contextlib.suppress(OSError, AttributeError):
                self._connection.shutdown(socket.SHUT_RDWR)

    return Tcp(host, port)


def _watch(deadline: Deadline) -> str:
    """Return the line that starts a watcher on the device, ``$watch``: at the deadline it kills the command's group.

    Its sleep goes with it, and it holds no stream of the command's.
    """
    seconds = max(1, math.ceil(deadline.remaining_s))
    inner = f"trap 'kill $nap; exit' TERM; sleep {seconds} & nap=$!; wait $nap && kill -9 0"
    return f"({inner}) </dev/null >/dev/null 2>&1 & watch=$!"


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(
            "adb-direct devices need the package adb-shell: `pip install 'socbench[adb-direct]'`"
        ) from None


def _signers(keys: Sequence[Path] | None) -> list[Any]:
    paths = [Path.home() / ".android" / "adbkey"] if keys is None else list(keys)
    signer = _package("adb_shell.auth.sign_pythonrsa").PythonRSASigner
    found = []
    for path in paths:
        if path.is_file():
            public = path.with_name(path.name + ".pub")
            found.append(signer(public.read_text() if public.is_file() else "", path.read_text()))
    return found
