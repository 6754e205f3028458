"""The native agent on a device: the binary for its system, and the vendors' libraries that it opens.

It speaks the same commands as the Python agent. Which folders hold libraries is told in ``SOCBENCH_RUNTIMES`` by the
command line that starts it, so that a job need not name them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

from socbench.agents.base import Agent
from socbench.agents.channel import Channel
from socbench.agents.provision import DeviceFile, provision
from socbench.cache import digest_of, sha256_of_file
from socbench.content import content
from socbench.environments.vendor import library_folder
from socbench.errors import AgentError, FailedError, ProtocolError
from socbench.transports.base import Deadline

_SYSTEM = r"""
machine=$(uname -m); kernel=$(uname -s); bits=32
if [ -e /system/bin/linker64 ] || [ -e /system/bin/linker ]; then
  system=android; [ -e /system/bin/linker64 ] && bits=64
else
  system=$kernel
  for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do [ -e "$loader" ] && bits=64; done
fi
echo "$system $machine $bits"
"""
_PLACE = r"""
[ -x "$2/socbench-agent" ] && exit 0
mkdir -p "$2" && cp "$1" "$2/socbench-agent.new" && chmod 755 "$2/socbench-agent.new" || exit 1
mv "$2/socbench-agent.new" "$2/socbench-agent"
"""
_MACHINES = {
    ("x86_64", "64"): "x86_64",
    ("aarch64", "64"): "arm64",
    ("arm64", "64"): "arm64",
    ("aarch64", "32"): "armv7",
    ("armv8l", "32"): "armv7",
    ("armv7l", "32"): "armv7",
}
_WHEELS = {"onnxruntime": ("onnxruntime", "capi"), "ai_edge_litert": ("ai-edge-litert", "")}
"""Packages of this machine whose folders hold the runtimes' C libraries: import name, distribution and subfolder."""


class NativeAgent:
    """Installs the agent of ``device_agents/native`` (an :class:`socbench.agents.base.AgentKind`)."""

    name = "native"

    def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
        """Put the agent and the libraries on the device unless they are there.

        Raises AgentError: this socbench has no agent for the device (code ``native_missing``), no room (``disk_full``).
        """
        target = target_of(channel, deadline=deadline)
        binary = binary_for(target)
        sha256 = sha256_of_file(binary)
        program = DeviceFile(binary, sha256, f"{sha256}.agent")
        here = channel.address == "local" or channel.address.startswith("fake:")
        libraries = [] if here else vendor_files(target)
        if not here and not libraries:
            say(f"no runtimes were fetched for {target}: socbench runtimes fetch {target}")
        provision(channel, [program, *libraries], deadline=deadline, say=say)
        root = channel.transport.root
        place = ["sh", "-c", _PLACE, "sh", str(root / "blobs" / program.name), str(root / "agent" / sha256)]
        done = channel.retry(lambda transport: transport.run(place, deadline=deadline))
        if done.exit_code:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise FailedError(f"the native agent could not be placed on {channel.address}: {said}")
        folders = wheel_folders() if here else {str((root / "blobs" / f.name).parent): "" for f in libraries}
        argv = ("env", f"SOCBENCH_RUNTIMES={':'.join(folders)}", str(root / "agent" / sha256 / "socbench-agent"))
        identity = digest_of({"agent": sha256, "runtimes": folders, "libraries": [f.sha256 for f in libraries]})
        return Agent(channel, argv if folders else argv[2:], identity)


def target_of(channel: Channel, *, deadline: Deadline) -> str:
    """Return the target (``android-arm64``) that the device's programs must be built for.

    Raises AgentError (code ``native_missing``) for a system that the agent is not built for.
    """
    done = channel.retry(lambda transport: transport.run(["sh", "-c", _SYSTEM], deadline=deadline))
    words = done.stdout.decode("utf-8", "replace").split()
    if done.exit_code or len(words) != 3:
        raise ProtocolError(f"{channel.address} does not say what system it is", code="no_answer")
    system, machine, bits = words
    architecture = _MACHINES.get((machine, bits))
    if system.lower() not in ("linux", "android") or architecture is None:
        raise AgentError(
            f"there is no native agent for {channel.address} ({system} on {machine}, {bits} bits)",
            code="native_missing",
            advice=f"socbench run -d {channel.address} --agent python",
        )
    return f"{system.lower()}-{architecture}"


def binary_for(target: str) -> Path:
    """Return the built agent for a target. AgentError (code ``native_missing``) when it was not built."""
    path = content("device_agents") / "native" / "build" / f"socbench-agent-{target}"
    if not path.is_file():
        raise AgentError(
            f"this socbench carries no native agent for {target}: in a checkout, run make native",
            code="native_missing",
            advice="make native",
        )
    return path


def native_agents() -> list[str]:
    """Return the sha256 of every native agent that this socbench carries: the names of their folders on devices."""
    folder = content("device_agents") / "native" / "build"
    return [sha256_of_file(path) for path in sorted(folder.glob("socbench-agent-*")) if path.is_file()]


def wheel_folders() -> dict[str, str]:
    """Return the folders of this machine's packages that hold the runtimes' C libraries, with their versions."""
    folders = {}
    for package, (distribution, inside) in _WHEELS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations))) / inside
            folders[str(folder)] = importlib.metadata.version(distribution)
    return folders


def vendor_files(target: str) -> list[DeviceFile]:
    """Return the fetched libraries of a target, to be put into one folder of the device's blobs."""
    folder = library_folder(target)
    if folder is None:
        return []
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    sums = {path: sha256_of_file(path) for path in paths}
    name = digest_of({path.name: sums[path] for path in paths})
    return [DeviceFile(path, sums[path], f"{name}.d/{path.name}") for path in paths]
