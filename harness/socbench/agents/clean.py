"""Frees room in socbench's folder on a device: what was not used for longest goes first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from socbench.agents.channel import Channel
from socbench.agents.native import native_agents
from socbench.agents.python import ENVIRONMENT, agent_archive
from socbench.errors import FailedError
from socbench.transports.base import Deadline

OLD_S: Final = 30 * 86_400.0
"""A session's folder is kept this long: its host may still come for what lies in it."""

_CLEAN_S: Final = 300.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_LIST: Final = r"""
cd "$1" 2>/dev/null || exit 0
date +now' '%s
for path in blobs/* agent/* sessions/* cache environment environment.new environment.old tmp; do
  [ -e "$path" ] || continue
  newest=$path
  if [ -d "$path" ]; then
    for inside in "$path"/*; do [ -f "$inside" ] && [ "$inside" -nt "$newest" ] && newest=$inside; done
  fi
  echo "$(du -sk "$path" | cut -f1) $(stat -c %Y "$newest") $path"
done
"""


@dataclass(frozen=True)
class Thing:
    """Something in socbench's folder: ``path`` below it, how large, how long not used; ``keep`` says why it stays."""

    kind: str
    path: str
    size_bytes: int
    unused_s: float
    keep: str | None = None


def survey(channel: Channel, *, keep_bytes: int = 0, everything: bool = False) -> list[Thing]:
    """Return what lies on a device and what of it would stay.

    Files are kept from the last used on, up to ``keep_bytes``; agents of this version, the environment with the
    runtimes and sessions that were not fetched stay, unless ``everything`` goes.
    """
    deadline = Deadline.after(_CLEAN_S, "the device's folder to be listed")
    command = ["sh", "-c", _LIST, "sh", str(channel.transport.root)]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    things = sorted(_parse(done.stdout.decode("utf-8", "replace")), key=lambda thing: thing.unused_s)
    in_use = {f"agent/{name}" for name in (agent_archive()[1], *native_agents())}
    kept, found = 0, []
    for thing in things:
        why = None
        if not everything:
            if thing.kind == "file" and not thing.path.endswith(".new"):
                kept += thing.size_bytes  # once over the limit, everything older goes too
                why = "used last" if kept <= keep_bytes else None
            elif thing.path in in_use:
                why = "the agent in use"
            elif thing.kind == "session" and thing.unused_s < OLD_S:
                why = "not fetched yet"
            elif thing.path == ENVIRONMENT:
                why = "the runtimes that devices setup installed"
        found.append(Thing(thing.kind, thing.path, thing.size_bytes, thing.unused_s, why))
    return found


def remove(channel: Channel, things: Sequence[Thing]) -> None:
    """Remove what a survey found. FailedError when the device refuses."""
    deadline = Deadline.after(_CLEAN_S, "the device's files to be removed")
    script = 'cd "$1" || exit 1; shift; rm -rf -- "$@"'
    for start in range(0, len(things), 200):
        command = ["sh", "-c", script, "sh", str(channel.transport.root)]
        command += [thing.path for thing in things[start : start + 200]]
        done = channel.retry(lambda transport, command=command: transport.run(command, deadline=deadline))  # type: ignore[misc]
        if done.exit_code:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise FailedError(f"{channel.address} could not remove everything: {said}")


def _parse(listing: str) -> list[Thing]:
    kinds = {"blobs": "file", "agent": "agent", "sessions": "session", "cache": "cache"}
    now, things = 0.0, []
    for line in listing.splitlines():
        size, _, rest = line.partition(" ")
        used, _, path = rest.partition(" ")
        if size == "now" and used.isdigit():
            now = float(used)
            continue
        folder, _, name = path.partition("/")
        known = _NAME.fullmatch(name) if name else folder not in ("blobs", "agent", "sessions")
        if not (size.isdigit() and used.isdigit() and known):
            continue  # a name that socbench does not give: it is left alone
        kind = kinds.get(folder, "environment")
        things.append(Thing(kind, path, int(size) * 1024, max(0.0, now - float(used))))
    return things
