"""Devices over SSH: Linux boards. asyncssh in a thread of its own, behind methods that block.

OpenSSH's configuration, agent, keys and known_hosts are used as ``ssh`` itself uses them; a host key that is unknown or
has changed is never accepted. A dead link is noticed by keep-alives within a few seconds, idle or loaded.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from socbench.errors import ChannelError, DeadlineError, DeviceStateError, UsageError
from socbench.transports import far_shell, ssh_session
from socbench.transports.base import OUTPUT_LIMIT_BYTES, Completed, Deadline

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")

OPEN_S = 20.0
KEEPALIVE_S = 1
KEEPALIVE_COUNT = 4
_CIPHERS = "^aes128-gcm@openssh.com"
"""First among the usual ones: half the host's processor time of ChaCha20 (0.47 s against 0.8 to 1.1 s for 100 MB)."""
_QUEUED_CHUNKS = 256


class SshStateError(DeviceStateError):
    """The board is not ready; ``state`` is the short word for how."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class SshTransport:
    """One SSH connection to a board. Passes tests/conformance/transport like every other transport.

    ``name`` is ``[user@]host[:port]`` or an alias of the OpenSSH configuration; what is not given (user, port, keys,
    ProxyJump, ...) comes from there. ``config`` names other configuration files than ``~/.ssh/config``.
    """

    def __init__(
        self,
        name: str,
        *,
        root: PurePosixPath | None = None,
        identity_file: str | None = None,
        proxy_jump: str | None = None,
        known_hosts: str | None = None,
        config: Sequence[str] | None = None,
        open_s: float = OPEN_S,
    ) -> None:
        self._name = name
        options = _options(name, identity_file, proxy_jump, known_hosts, config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"ssh:{name}", daemon=True)
        self._thread.start()
        self._closed = False
        self._connection: asyncssh.SSHClientConnection | None = None
        deadline = Deadline.after(open_s, f"{self.address} to answer")
        try:
            self._connection = self._wait(ssh_session.connect(name, options), deadline)
            found = self._shell(far_shell.finding_root(root), b"", deadline, 4096, ("sh",)).stdout
            self._root = PurePosixPath(found.decode("utf-8", "surrogateescape"))
            if not self._root.is_absolute():
                raise SshStateError(
                    f"{self.address}: its login shell names no folder for socbench: check that "
                    f"`ssh {name} sh -c id` prints one line and nothing else",
                    "no_shell",
                )
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """``ssh:user@board``."""
        return f"ssh:{self._name}"

    @property
    def root(self) -> PurePosixPath:
        """``~/.cache/socbench-device`` on the board."""
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
        """Run a command to completion, over a channel of its own; ending the channel kills the command."""
        line = far_shell.guarded(argv, len(stdin), env)
        return self._shell(line, stdin, deadline, limit_bytes, tuple(argv))

    def spawn(self, argv: Sequence[str], *, log: PurePosixPath, deadline: Deadline) -> None:
        """Start a command in a session of its own; it outlives the channel."""
        done = self._shell(far_shell.detached(argv, log), b"", deadline, 4096, tuple(argv))
        if done.exit_code:
            raise OSError(f"{argv[0]} could not be started: {done.stderr.decode(errors='replace').strip()}")

    def push(self, source: Path, target: PurePosixPath, *, deadline: Deadline) -> None:
        """Send a file over SFTP under a temporary name, then rename; parents are made."""
        self._wait(ssh_session.push(self._open(), source, target), deadline, str(target))

    def pull(self, source: PurePosixPath, target: Path, *, deadline: Deadline) -> None:
        """Receive a file over SFTP under a temporary name beside ``target``, then rename."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            self._wait(ssh_session.pull(self._open(), source, partial), deadline, str(source))
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def follow(self, path: PurePosixPath, offset: int, *, stop: threading.Event) -> Iterator[bytes]:
        """Yield what is appended to a file; the board has to answer a heartbeat."""
        chunks: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUED_CHUNKS)
        task = asyncio.run_coroutine_threadsafe(
            ssh_session.follow(self._open(), far_shell.following(path, offset), chunks), self._loop
        )
        yielded = time.monotonic()
        try:
            while not stop.is_set():
                try:
                    chunk = chunks.get(timeout=0.1)
                except queue.Empty:
                    chunk = b""
                if isinstance(chunk, BaseException):
                    raise self._translated(chunk, str(path)) from None
                if self._closed:
                    raise ChannelError(f"the channel to {self.address} was closed")
                if chunk or time.monotonic() - yielded >= 1.0:
                    yielded = time.monotonic()
                    yield chunk
        finally:
            task.cancel()

    def close(self) -> None:
        """End the connection (users of it see a ChannelError); what was spawned goes on."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            self._loop.call_soon_threadsafe(self._connection.abort)
        asyncio.run_coroutine_threadsafe(ssh_session.end(self._loop), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)
            if not self._thread.is_alive():
                self._loop.close()

    def _open(self) -> asyncssh.SSHClientConnection:
        if self._closed or self._connection is None:
            raise ChannelError(f"the channel to {self.address} was closed")
        return self._connection

    def _shell(self, line: str, stdin: bytes, deadline: Deadline, limit: int, argv: tuple[str, ...]) -> Completed:
        try:
            return self._wait(ssh_session.run(self._open(), line, stdin, limit, argv), deadline)
        except DeadlineError:
            raise DeadlineError(f"{argv[0]} on {self.address} did not end in time: {deadline.what}") from None

    def _wait(self, work: Coroutine[Any, Any, T], deadline: Deadline, what: str = "") -> T:
        """Run ``work`` in the event loop until the deadline, then cancel it; errors come out as ours."""
        try:
            deadline.check()
        except DeadlineError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(max(0.001, deadline.remaining_s))
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise DeadlineError(f"{self.address} gave no answer in time: waited for {deadline.what}") from None
        except concurrent.futures.CancelledError:
            raise ChannelError(f"the channel to {self.address} was closed") from None
        except BaseException as error:
            future.cancel()
            raise self._translated(error, what) from None

    def _translated(self, error: BaseException, what: str) -> BaseException:
        """Return asyncssh's error as one of ours, each with what to do."""
        import asyncssh

        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return SshStateError(_host_key_advice(self._name, str(error)), "host_key_not_trusted")
        if isinstance(error, asyncssh.PermissionDenied):
            return SshStateError(
                f"{self.address} refuses this user's keys: put your public key there with `ssh-copy-id "
                f"{_ssh_words(self._name)}`, or name the key with identity_file in devices.toml",
                "unauthorized",
            )
        if isinstance(error, asyncssh.SFTPError):
            return ssh_session.sftp_error(error, what)
        if isinstance(error, asyncssh.KeyImportError | asyncssh.ConfigParseError):
            return UsageError(f"{self.address}: {error}")
        if isinstance(error, asyncssh.Error):
            return ChannelError(f"the connection to {self.address} broke: {error.reason or type(error).__name__}")
        if isinstance(error, OSError) and error.filename is None and error.errno != errno.ENOSPC:
            if self._connection is not None:
                return ChannelError(f"the connection to {self.address} broke: {error.strerror or error}")
            return ChannelError(
                f"{self.address} cannot be reached ({error.strerror or error}): check that it is on, its address, and "
                f"that `ssh {_ssh_words(self._name)}` works"
            )
        return error


def _options(
    name: str, identity_file: str | None, proxy_jump: str | None, known_hosts: str | None, config: Sequence[str] | None
) -> dict[str, Any]:
    found = re.fullmatch(r"(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^@:]+)(?::(?P<port>[0-9]{1,5}))?", name)
    if not found or found["host"].startswith("-"):
        raise UsageError(
            f"ssh:{name} is no address: write ssh:user@host or ssh:user@host:port, or an alias of ~/.ssh/config"
        )
    options: dict[str, Any] = {
        "host": found["host"].strip("[]"),
        "keepalive_interval": KEEPALIVE_S,
        "keepalive_count_max": KEEPALIVE_COUNT,
        "compression_algs": None,
        "encryption_algs": _CIPHERS,
    }
    if config is not None:
        options["config"] = list(config)
    if found["user"]:
        options["username"] = found["user"]
    if found["port"]:
        options["port"] = int(found["port"])
    if identity_file:
        options["client_keys"] = [str(Path(identity_file).expanduser())]
    if proxy_jump:
        options["tunnel"] = proxy_jump
    if known_hosts:
        options["known_hosts"] = str(Path(known_hosts).expanduser())
    return options


def _host_key_advice(name: str, said: str) -> str:
    host, port = _host_and_port(name)
    entry = f"'[{host}]:{port}'" if port else host
    return (
        f"the host key of ssh:{name} is not the one in known_hosts, or not there at all ({said}): log in once with "
        f"`ssh {_ssh_words(name)}` and check it; if the board was set up anew, remove the old key first with "
        f"`ssh-keygen -R {entry}`"
    )


def _host_and_port(name: str) -> tuple[str, str]:
    host, _, port = name.rsplit("@", 1)[-1].rpartition(":")
    return (host, port) if host and port.isdigit() else (name.rsplit("@", 1)[-1], "")


def _ssh_words(name: str) -> str:
    """Return the arguments with which the ssh program reaches ``name``."""
    host, port = _host_and_port(name)
    user = name[: len(name) - len(name.rsplit("@", 1)[-1])]
    return f"-p {port} {user}{host}" if port else name
