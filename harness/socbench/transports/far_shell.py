"""What transports that end in a POSIX shell on the far side have in common: quoting, and scripts that clean up.

The scripts need sh, and head or tail as any of coreutils, busybox and toybox have them. All are careful about one
thing: when the channel goes away, nothing that belongs to it stays behind on the device. A closed channel kills
nothing by itself (sshd lets the process run on), but it ends standard input, and that can be noticed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

_GUARDED = r"""
exec 4>&2 2>/dev/null
sh -c 'echo $$; [ "$1" = 0 ] || head -c "$1" <&3; exec >&-
while read -r x; do :; done <&3; kill -9 0' sh "$1" 3<&0 4>&- |
{ read -r guard; shift; "$@" 2>&4 3<&- 4>&-; code=$?; kill "$guard"; exit $code; }
"""
"""A command with ``$1`` bytes of standard input. What feeds it stays to watch the channel: at its end, kill the group.

The feeder's process number comes as the first line of the pipe; ``read`` takes that line and not a byte more. Only the
command itself writes to the channel's standard error: shells report the feeder's end there.
"""

_DETACHED = r"""
log=$1; shift
trap '' HUP
mkdir -p -- "${log%/*}" || exit 1
command -v setsid >/dev/null 2>&1 && own=setsid || own=nohup
$own "$@" </dev/null >>"$log" 2>&1 &
"""

_FOLLOW = r"""
file=$1; from=$2
trap '' PIPE
while [ ! -e "$file" ]; do read -r x || exit 0; echo . >&2; done
often=; tail -s 0.1 -c 1 /dev/null >/dev/null 2>&1 && often='-s 0.1'
tail $often -c "+$from" -f "$file" &
tail=$!
trap 'kill $tail; wait $tail' EXIT HUP TERM
while read -r x; do kill -0 $tail 2>/dev/null || exit 1; echo . >&2; done
"""
"""Follow ``$1`` from byte ``$2`` (counted from 1). Answers every line of input with one on standard error: a
heartbeat that costs the device no process. A broken pipe is ignored, so that the end
of input is what ends it, and ``tail`` too."""

_FIND_ROOT = r"""
if [ -n "$1" ]; then root=$1
elif [ -n "$SOCBENCH_DEVICE_ROOT" ]; then root=$SOCBENCH_DEVICE_ROOT
elif [ -d /data/local/tmp ] && [ -w /data/local/tmp ]; then root=/data/local/tmp/socbench
elif [ -n "$HOME" ] && [ -d "$HOME" ] && [ -w "$HOME" ]; then root=$HOME/.cache/socbench-device
else root=/var/tmp/socbench-device
fi
printf %s "$root"
"""

HEARTBEAT_S = 1.0
"""How often the follower asks the device for a sign of life."""

SILENCE_S = 10.0
"""A followed device that gives no sign of life for this long counts as gone."""


def command_line(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Return ``argv`` as one line for a POSIX shell, every argument quoted, environment first.

    Raises ValueError for a NUL, which no argument of any program can hold.
    """
    words = [*(f"{name}={value}" for name, value in (env or {}).items()), *argv]
    if any("\0" in word for word in words):
        raise ValueError(f"a command's argument cannot hold a NUL: {list(argv)!r}")
    return shlex.join(["env", *words] if env else words)


def guarded(argv: Sequence[str], stdin_bytes: int, env: Mapping[str, str] | None = None) -> str:
    """Return the line that runs ``argv`` with that many bytes of input, killed when the channel ends."""
    prefix = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    return command_line(["sh", "-c", _GUARDED, "sh", str(stdin_bytes), *prefix, *argv])


def detached(argv: Sequence[str], log: PurePosixPath) -> str:
    """Return the line that starts ``argv`` in a session of its own, its output appended to ``log``."""
    return command_line(["sh", "-c", _DETACHED, "sh", str(log), *argv])


def following(path: PurePosixPath, offset: int) -> str:
    """Return the line that follows ``path`` from ``offset`` (in bytes, from 0)."""
    return command_line(["sh", "-c", _FOLLOW, "sh", str(path), str(offset + 1)])


def finding_root(wanted: PurePosixPath | None) -> str:
    """Return the line that prints the folder for socbench on the device: ``wanted``, or the device's usual one."""
    return command_line(["sh", "-c", _FIND_ROOT, "sh", str(wanted or "")])
