"""The Python agent on a device: found an interpreter, put there by its content, asked what the device can do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from socbench.agents.base import Agent
from socbench.agents.channel import Channel
from socbench.agents.provision import DeviceFile, provision
from socbench.cache import cache_folder, digest_of
from socbench.content import content
from socbench.errors import AgentError, FailedError, ProtocolError
from socbench.records import Json
from socbench.transports.base import Completed, Deadline

ENVIRONMENT = "environment"
"""Folder under a device's root where ``socbench devices setup`` makes the environment with the runtimes."""

_FACTS = (
    "import sys,os,json;"
    "names=sorted(n for p in sys.path if os.path.isdir(p) for n in os.listdir(p) "
    "if n.endswith(('.dist-info','.egg-info')));"
    "print(json.dumps({'python':sys.executable,'version':list(sys.version_info[:3]),'packages':names}))"
)
_FIND = r"""
facts=$1; shift
for python; do
  if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
    exec "$python" -c "$facts"
  fi
done
exit 7
"""
_UNPACK = r"""
[ -d "$2/$3" ] && exit 0
rm -rf "$2/$3.new"; mkdir -p "$2/$3.new" && tar -xf "$1" -C "$2/$3.new" || exit 1
new="$2/$3.new" # kept, or a device that loses its power has the names of empty files; toybox' sync is everything's
fsync "$new"/*.py "$new"/*/*.py 2>/dev/null || sync "$new"/*.py "$new"/*/*.py 2>/dev/null
mv "$2/$3.new" "$2/$3" 2>/dev/null || [ -d "$2/$3" ]
"""


@lru_cache(maxsize=1)
def agent_archive() -> tuple[bytes, str]:
    """Return the agent's folder as a tar archive that depends on nothing but its content, and its sha256."""
    folder = content("device_agents") / "python"
    files = sorted(path for path in folder.rglob("*.py") if path.is_file())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in files:
            data = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


class PythonAgent:
    """Installs the agent of ``device_agents/python`` (an :class:`socbench.agents.base.AgentKind`)."""

    name = "python"

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
        """Put the agent on the device unless it is there.

        Raises AgentError: no Python 3.8 or newer (code ``python_missing``), no room (``disk_full``).
        """
        facts = find_python(channel, deadline=deadline)
        archive, sha256 = agent_archive()
        name = f"{sha256}.tar"
        with tempfile.TemporaryDirectory(prefix="socbench-") as scratch:
            source = Path(scratch) / "agent.tar"
            source.write_bytes(archive)
            provision(channel, [DeviceFile(source, sha256, name, "the agent")], deadline=deadline, say=say)
        root = channel.transport.root
        unpack = ["sh", "-c", _UNPACK, "sh", str(root / "blobs" / name), str(root / "agent"), sha256]
        done = channel.retry(lambda transport: transport.run(unpack, deadline=deadline))
        if done.exit_code:
            raise FailedError(
                f"the agent could not be unpacked on {channel.address}: "
                f"{done.stderr.decode('utf-8', 'replace').strip()[:300]}"
            )
        python = str(facts["python"])
        program = str(root / "agent" / sha256 / "agent.py")
        identity = digest_of({"agent": sha256, **facts})
        return Agent(channel, (python, program), identity, python)


def find_python(channel: Channel, *, deadline: Deadline, environment: bool = True) -> Json:
    """Return ``{"python", "version", "packages"}`` of the interpreter to use on the device.

    On this machine that is the one that socbench runs on; elsewhere the environment that ``devices setup`` made (unless
    ``environment`` is false), then whatever the device has.
    """
    if channel.address == "local" or channel.address.startswith("fake:"):
        candidates: Sequence[str] = [sys.executable]
    else:
        made: PurePosixPath = channel.transport.root / ENVIRONMENT / "bin" / "python3"
        candidates = [
            *([str(made)] if environment else []),
            "python3",
            *(f"python3.{minor}" for minor in range(14, 7, -1)),
            "python",
        ]
    command = ["sh", "-c", _FIND, "sh", _FACTS, *candidates]
    done: Completed = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    if done.exit_code == 7:
        raise AgentError(
            f"{channel.address} has no Python 3.8 or newer: install one there, or use the native agent "
            "(--agent native)",
            code="python_missing",
            advice=f"socbench run -d {channel.address} --agent native",
        )
    try:
        facts = json.loads(done.stdout)
        assert isinstance(facts, dict)
        return {key: facts[key] for key in ("python", "version", "packages")}
    except (ValueError, KeyError, AssertionError) as problem:
        raise ProtocolError(
            f"the Python of {channel.address} did not say what it is (exit code {done.exit_code}): "
            f"{done.stderr.decode('utf-8', 'replace').strip()[:300]}"
        ) from problem


def probe(
    agent: Agent, device_key: str, boot_id: str | None, runtimes: Sequence[str], *, deadline: Deadline
) -> list[Json]:
    """Return the agent's capabilities (docs/protocol.md) for ``runtimes``, from the host's cache where it has them.

    They may change with the device, its boot (drivers), the agent, the interpreter and its packages: all are the key.
    Raises AgentError and ChannelError as :meth:`Agent.call` does.
    """
    key = digest_of({"device": device_key, "boot": boot_id, "agent": agent.identity})
    folder = cache_folder("probes")
    known = {name: _cached(folder / f"{key}.{name}.json") for name in runtimes}
    asked = [name for name, entry in known.items() if entry is None]
    if asked:
        arguments = [word for name in asked for word in ("--runtime", name)]
        answer = agent.call("probe", *arguments, deadline=deadline).get("runtimes")
        if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
            raise ProtocolError(f"the agent on {agent.channel.address} gave no list of runtimes when it was probed")
        for entry in answer:
            name = entry.get("runtime")
            if name in asked:
                known[name] = entry
                _keep(folder / f"{key}.{name}.json", entry)
    return [entry for entry in known.values() if entry is not None]


def _cached(path: Path) -> Json | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _keep(path: Path, entry: Json) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_text(json.dumps(entry), encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        raise FailedError(f"what a device can do can't be kept in {path.parent}: {problem.strerror}") from problem
