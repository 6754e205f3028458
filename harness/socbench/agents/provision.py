"""Puts files on a device by their content: one probe, one batch of what is missing, hash verified on the device."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from socbench.agents.channel import Channel
from socbench.errors import AgentError, FailedError
from socbench.transports.base import Completed, Deadline, Transport

_RESERVE_BYTES = 16 * 1024 * 1024
"""Left free on the device for events and outputs."""

_WORTH_TELLING_BYTES = 5_000_000

_PROBE = r"""
mkdir -p "$1" && cd "$1" || exit 9
shift; i=0
while [ $# -gt 1 ]; do # the size: a device that lost its power may have lost what had its name already
  if [ -f "$1" ]; then
    size=$(stat -c %s "$1" 2>/dev/null || wc -c < "$1")
    if [ "$((size))" -eq "$2" ]; then touch -c "$1"; echo "have $i"; fi
  fi
  shift 2; i=$((i+1))
done
df -Pk . | tail -n 1
"""
_VERIFY = r"""
cd "$1" || exit 9
shift; i=0
if command -v sha256sum >/dev/null; then sum=sha256sum; else sum="shasum -a 256"; fi
keep() { fsync "$1" 2>/dev/null || sync "$1" 2>/dev/null; } # toybox has fsync; its sync is the whole device's
while [ $# -gt 1 ]; do # touched: ADB gives a file the time of the host's, but the time is that of its last use;
  # kept: a device that loses its power keeps it, and nothing is left to be written while something is measured
  if [ -f "$2.new" ] || [ ! -f "$2" ]; then
    got=$($sum < "$2.new")
    if [ "${got%% *}" = "$1" ]; then touch "$2.new"; keep "$2.new"; mv -f "$2.new" "$2" || exit 8
    else rm -f "$2.new"; echo "bad $i"; fi
  fi
  shift 2; i=$((i+1))
done
"""


@dataclass(frozen=True)
class DeviceFile:
    """A file that must lie in the device's ``blobs`` folder under ``name`` (``SHA256.tflite``, ``SHA256.d/m.bin``).

    ``what`` is what people call it: ``resnet8 onnx-fp32``, ``inputs of resnet8``.
    """

    source: Path
    sha256: str
    name: str
    what: str = ""

    @property
    def title(self) -> str:
        """What people call it, else its name on the host."""
        return self.what or self.source.name

    @property
    def size_bytes(self) -> int:
        """Its size on the host."""
        return self.source.stat().st_size


@dataclass(frozen=True)
class Provisioned:
    """What a device was given: names pushed, their bytes, and how many files were there before."""

    pushed: tuple[str, ...]
    pushed_bytes: int
    present: int


def provision(
    channel: Channel,
    files: Sequence[DeviceFile],
    *,
    deadline: Deadline,
    say: Callable[[str], None] = lambda _: None,
) -> Provisioned:
    """Put ``files`` on the device; a second call pushes nothing and costs one round trip.

    Raises AgentError (code ``disk_full``) before anything is pushed when there is no room for all of it, FailedError
    when a file arrives damaged twice or the device refuses it.
    """
    wanted = list({file.name: file for file in files}.values())
    for file in wanted:
        _check_name(file.name)
    blobs = channel.transport.root / "blobs"
    probe = ["sh", "-c", _PROBE, "sh", str(blobs)]
    probe += [word for file in wanted for word in (file.name, str(file.size_bytes))]
    answer = channel.retry(lambda transport: transport.run(probe, deadline=deadline))
    missing, free_bytes = _read_probe(channel.address, wanted, answer)
    size = sum(file.size_bytes for file in missing)
    if missing and free_bytes is not None and free_bytes < size + _RESERVE_BYTES:
        raise disk_full(channel.address, size, free_bytes)
    damaged = _push_batch(channel, blobs, missing, deadline, say)
    damaged = _push_batch(channel, blobs, damaged, deadline, say)
    if not damaged:
        return Provisioned(tuple(file.name for file in missing), size, len(wanted) - len(missing))
    raise FailedError(
        f"{damaged[0].title} arrived damaged on {channel.address} twice (other hash): check cable and storage"
    )


def disk_full(address: str, size: int, free_bytes: int | None) -> AgentError:
    """Return the failure of a device that has no room."""
    free = "" if free_bytes is None else f", it has {free_bytes / 1e6:.1f} MB free"
    return AgentError(
        f"{address} has no room for {size / 1e6:.1f} MB{free}: make room there or run socbench devices clean {address}",
        code="disk_full",
        advice=f"socbench devices clean {address}",
    )


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or len(path.parts) > 2 or any(part in ("..", ".") for part in path.parts) or "\0" in name:
        raise FailedError(f"{name!r} can't be the name of a file on a device: rename the model's file")


def _read_probe(address: str, wanted: list[DeviceFile], answer: Completed) -> tuple[list[DeviceFile], int | None]:
    if answer.exit_code == 9:
        said = answer.stderr.decode("utf-8", "replace").strip()[:300]
        raise FailedError(f"socbench's folder on {address} can't be made: {said}")
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    have = {line.removeprefix("have ") for line in lines if line.startswith("have ")}
    missing = [file for number, file in enumerate(wanted) if str(number) not in have]
    return missing, _free_bytes(lines[-1].split() if lines else [])


def free_bytes(channel: Channel, *, deadline: Deadline) -> int | None:
    """Return how much room the device has under socbench's folder, ``None`` where it does not say."""
    command = ["sh", "-c", 'mkdir -p "$1" && df -Pk "$1" | tail -n 1', "sh", str(channel.transport.root)]
    answer = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    return _free_bytes(answer.stdout.decode("utf-8", "replace").split())


def _free_bytes(df: list[str]) -> int | None:
    """Return the free bytes of the last line of ``df -Pk``: the number before the one with the per cent sign."""
    for before, word in pairwise(df):
        if word.endswith("%") and before.isdigit():
            return int(before) * 1024
    return None


def _push_batch(
    channel: Channel, blobs: PurePosixPath, files: list[DeviceFile], deadline: Deadline, say: Callable[[str], None]
) -> list[DeviceFile]:
    """Push under temporary names, verify and rename all with one command; return those that arrived damaged."""
    if not files:
        return []
    for file in files:
        if file.size_bytes >= _WORTH_TELLING_BYTES:
            say(f"copying {file.title} ({file.size_bytes / 1e6:.1f} MB) to {channel.address}")
        channel.retry(lambda transport, file=file: _push(transport, blobs, file, deadline))  # type: ignore[misc]
    pairs = [word for file in files for word in (file.sha256, file.name)]
    command = ["sh", "-c", _VERIFY, "sh", str(blobs), *pairs]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    if done.exit_code:
        raise FailedError(
            f"{channel.address} could not verify what it was given: {done.stderr.decode('utf-8', 'replace')[:300]}"
        )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    bad = {line.removeprefix("bad ") for line in lines if line.startswith("bad ")}
    return [file for number, file in enumerate(files) if str(number) in bad]


def _push(transport: Transport, blobs: PurePosixPath, file: DeviceFile, deadline: Deadline) -> None:
    try:
        transport.push(file.source, blobs / f"{file.name}.new", deadline=deadline)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(transport.address, file.size_bytes, None) from problem
        raise FailedError(
            f"{transport.address} refuses {file.title}: {problem.strerror or os.strerror(problem.errno or 0)}"
        ) from problem
