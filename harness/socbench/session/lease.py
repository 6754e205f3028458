"""Who has a device: one session at a time. A lease on this host, and for other devices one on the device too.

The host's is a locked file, which the kernel lets go of when its process dies, however it dies. The device's is a file
made atomically there; its age on the device's own clock tells a living holder from a dead one.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import platform
import re
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from socbench.agents.channel import Channel
from socbench.cache import cache_folder
from socbench.errors import FailedError, Interrupted
from socbench.records import Json
from socbench.transports.base import Deadline

STALE_S: Final = 120.0
"""A lease on a device that was not renewed for this long belongs to nobody."""

_POLL_S: Final = 0.2
_TAKE = r"""
lease=$1; mine=$2; dead=$3; mkdir -p "${lease%/*}" || exit 9
if [ -n "$dead" ] && [ "$(cat "$lease" 2>/dev/null)" = "$dead" ]; then
  mv "$lease" "$lease.old" && rm -f "$lease.old"
fi
if (set -C; printf '%s' "$mine" > "$lease") 2>/dev/null; then echo taken; exit 0; fi
touch "$lease.now" && echo "$(( $(stat -c %Y "$lease.now") - $(stat -c %Y "$lease") ))"; cat "$lease"
"""
_RENEW = r"""if [ "$(cat "$1" 2>/dev/null)" = "$2" ]; then touch -c "$1"; else exit 3; fi"""
_RELEASE = r"""if [ "$(cat "$1" 2>/dev/null)" = "$2" ]; then rm -f "$1"; fi"""


_held_here: set[str] = set()


def owner(session: str) -> Json:
    """Return who takes a lease: process, host, user and session."""
    with contextlib.suppress(KeyError, OSError):
        return {"session": session, "pid": os.getpid(), "host": platform.node(), "user": getpass.getuser()}
    return {"session": session, "pid": os.getpid(), "host": platform.node(), "user": str(os.getuid())}


def slug(address: str) -> str:
    """Return a file name for a device's address that no other address has."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', address)[:60]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


class HostLease:
    """The lease of a device among the processes of this host."""

    def __init__(self, address: str, root: PurePosixPath | None = None) -> None:
        self.address = address
        # For this machine the lease lies in the device's folder: two caches of one user are still one machine.
        folder = cache_folder("leases") if root is None else Path(root)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / (f"{slug(address)}.lease")
        self._file: IO[Any] | None = None

    def take(self, session: str, *, wait: bool, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Take the lease; wait for it and say for whom, or raise FailedError with ``wait`` false."""
        file = self._path.open("a+", encoding="utf-8")
        said = False
        while not _lock(file):
            holder = _holder(_read(file))
            if not wait:
                file.close()
                raise FailedError(
                    f"{self.address} is in use by {holder}: try again later, or leave --no-wait away to wait for it"
                )
            if not said:
                say(f"{self.address} is in use by {holder}: waiting until it is free (Ctrl-C gives up)")
                said = True
            if stop.wait(_POLL_S):
                file.close()
                raise Interrupted(f"stopped while waiting for {self.address}; nothing was run")
        file.truncate(0)
        file.write(json.dumps(owner(session)))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give it back; the file stays, unlocked."""
        if self._file is not None:
            self._file.close()
            self._file = None


class DeviceLease:
    """The lease that lies on a device, for hosts that do not know of each other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._path = channel.transport.root / "lease"
        self._mine: str | None = None

    def take(self, session: str, *, wait: bool, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Take the lease; see :meth:`HostLease.take`. One of a dead process is taken over, and that is said."""
        mine = json.dumps({**owner(session), "nonce": os.urandom(4).hex()}, sort_keys=True)
        dead, said = "", False
        while (answer := self._try(mine, dead)) is not None:
            age_s, text = answer
            holder = _holder(text)
            if text == mine:
                break
            if _is_dead(text, age_s):
                say(f"the lease of {self._channel.address} was left by {holder}, which is gone: taken over")
                dead = text
                continue
            if not wait:
                raise FailedError(
                    f"{self._channel.address} is in use by {holder}: try again later, or leave --no-wait away to wait"
                )
            if not said:
                say(f"{self._channel.address} is in use by {holder}: waiting until it is free (Ctrl-C gives up)")
                said = True
            if stop.wait(5 * _POLL_S):
                raise Interrupted(f"stopped while waiting for {self._channel.address}; nothing was run")
        self._mine = mine
        _held_here.add(mine)

    def _try(self, mine: str, dead: str) -> tuple[float, str] | None:
        """Return ``None`` when the lease is ours now, else its age in seconds and its text."""
        command = ["sh", "-c", _TAKE, "sh", str(self._path), mine, dead]
        done = self._channel.retry(lambda t: t.run(command, deadline=Deadline.after(20.0, "the device's lease")))
        lines = done.stdout.decode("utf-8", "replace").split("\n", 1)
        if lines[0] == "taken":
            return None
        if done.exit_code == 9:
            raise FailedError(
                f"socbench's folder on {self._channel.address} can't be made: "
                f"{done.stderr.decode('utf-8', 'replace').strip()[:300]}"
            )
        age = lines[0].strip()
        return (float(age) if age.lstrip("-").isdigit() else 0.0), (lines[1] if len(lines) > 1 else "")

    def renew(self) -> None:
        """Say that this holder lives; to be called several times within ``STALE_S``."""
        if self._mine is not None:
            command = ["sh", "-c", _RENEW, "sh", str(self._path), self._mine]
            self._channel.retry(lambda t: t.run(command, deadline=Deadline.after(20.0, "the device's lease")))

    def release(self) -> None:
        """Give it back if it is still ours."""
        if self._mine is not None:
            command = ["sh", "-c", _RELEASE, "sh", str(self._path), self._mine]
            _held_here.discard(self._mine)
            self._mine = None
            self._channel.transport.run(command, deadline=Deadline.after(10.0, "the device's lease"))


def _lock(file: IO[Any]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(file: IO[Any]) -> str:
    file.seek(0)
    return str(file.read(4096))


def _parsed(text: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(text: str) -> str:
    """Return who holds a lease in words; what a device says is cut and made printable."""
    found = {key: "".join(c for c in str(value)[:80] if c.isprintable()) for key, value in _parsed(text).items()}
    if "session" not in found:
        return "another socbench"
    who = f"session {found['session']} (process {found.get('pid')} of {found.get('user')} on {found.get('host')})"
    return who


def _is_dead(text: str, age_s: float) -> bool:
    """A holder is dead when its lease is old, or when its process was on this host and is not there any more."""
    found = _parsed(text)
    if age_s > STALE_S or not found:
        return True
    pid = found.get("pid")
    if found.get("host") != platform.node() or not isinstance(pid, int):
        return False
    if pid == os.getpid():
        return text not in _held_here  # one that this process could not give back, its channel was broken
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
