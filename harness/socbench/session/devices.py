"""Opens devices for a session: lease, channel, agent, and what they can do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from socbench.agents.base import Agent, AgentKind
from socbench.agents.channel import Channel
from socbench.agents.environments import agent_in, installed_for
from socbench.agents.native import NativeAgent
from socbench.agents.python import PythonAgent, probe
from socbench.devices.facts import read_facts
from socbench.devices.identity import identify
from socbench.errors import ChannelError, SocbenchError, UsageError
from socbench.plan import DeviceAbilities
from socbench.records import Json
from socbench.session.lease import DeviceLease, HostLease
from socbench.transports.base import Deadline
from socbench.transports.local import local_root

KINDS: Final[dict[str, AgentKind]] = {"python": PythonAgent(), "native": NativeAgent()}
_SETUP_S: Final = 300.0
_PROBE_S: Final = 600.0
_RENEW_S: Final = 30.0
_LEFTOVERS = r"""
cd "$1/sessions" 2>/dev/null || exit 0
for job in */; do
  job=${job%/}
  if [ -f "$job/pid" ] && ! tail -c 400 "$job/events.jsonl" 2>/dev/null | grep -q '"type":"end"'; then echo "$job"; fi
done
"""


@dataclass
class OpenDevice:
    """A device that this session holds. ``shares_host``: what the host does is felt by what is measured there."""

    address: str
    channel: Channel
    agent: Agent
    abilities: DeviceAbilities
    host_lease: HostLease
    device_lease: DeviceLease | None
    orphan_after_s: float | None
    renewed_s: float = 0.0

    @property
    def shares_host(self) -> bool:
        """This machine, or a fake device on it."""
        return self.device_lease is None

    @property
    def cool_down(self) -> Json:
        """How to wait before a repetition: until it is as cool as at the start, where that can be read."""
        return {"max_wait_s": 30.0 if self.shares_host else 120.0, "tolerance_milli_c": 3000}

    def renew_lease(self) -> None:
        """Say on the device that this session lives, when it is time."""
        if self.device_lease is not None and time.monotonic() - self.renewed_s > _RENEW_S:
            self.renewed_s = time.monotonic()
            self.device_lease.renew()

    def close(self) -> None:
        """Give the device back; one that can't be reached keeps a lease that will be found stale."""
        with contextlib.suppress(ChannelError):
            if self.device_lease is not None:
                self.device_lease.release()
        self.channel.close()
        self.host_lease.release()


def open_devices(
    addresses: tuple[str, ...],
    session: str,
    *,
    agent: str,
    runtimes: tuple[str, ...],
    wait: bool,
    stop: threading.Event,
    say: Callable[[str], None],
    step: Callable[[str], None],
) -> list[OpenDevice]:
    """Open every device, side by side, and ask it about ``runtimes``.

    When one can't be opened the others are given back and its error is raised.

    Raises UsageError for an address or agent that nobody knows, FailedError for one in use (``wait`` false),
    ChannelError for one that can't be reached, AgentError for one that can't run the agent.
    """
    if agent not in KINDS:
        raise UsageError(f"there is no agent {agent!r}: this socbench has {', '.join(KINDS)}")
    names = list(dict.fromkeys(addresses))
    opened: list[OpenDevice] = []
    problems: list[SocbenchError] = []

    def one(address: str) -> None:
        try:
            opened.append(_open(address, session, KINDS[agent], runtimes, wait, stop, say, step))
        except SocbenchError as problem:
            problems.append(problem)

    with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="open") as pool:
        try:
            for future in [pool.submit(one, address) for address in names]:
                future.result()
        except KeyboardInterrupt:
            stop.set()
            raise
    if problems:
        for device in opened:
            device.close()
        raise problems[0]
    return sorted(opened, key=lambda device: names.index(device.address))


def _open(
    address: str,
    session: str,
    kind: AgentKind,
    runtimes: tuple[str, ...],
    wait: bool,
    stop: threading.Event,
    say: Callable[[str], None],
    step: Callable[[str], None],
) -> OpenDevice:
    shares_host = address == "local"
    lease = HostLease(address, PurePosixPath(local_root()) if shares_host else None)
    lease.take(session, wait=wait, stop=stop, say=say)
    channel = None
    try:
        step(f"asking {address} what it can do")
        channel = Channel(address, stop=stop, patience_s=_patience_s(), lost=lambda why: say(f"{why}: reconnecting"))
        on_device = None if shares_host else DeviceLease(channel)
        if on_device is not None:
            on_device.take(session, wait=wait, stop=stop, say=say)
        agent, abilities = _ask(channel, kind, session, runtimes, step)
    except BaseException:
        if channel is not None:
            channel.close()
        lease.release()
        raise
    return OpenDevice(address, channel, agent, abilities, lease, on_device, _orphan_after_s(shares_host))


def _ask(
    channel: Channel, kind: AgentKind, session: str, runtimes: tuple[str, ...], step: Callable[[str], None]
) -> tuple[Agent, DeviceAbilities]:
    """Install the agent and return it with what the device is and can do."""
    deadline = Deadline.after(_SETUP_S, f"the agent on {channel.address}")
    agent = kind.install(channel, deadline=deadline, say=step)
    _stop_leftovers(channel, agent, session)
    facts = channel.retry(lambda transport: read_facts(transport, deadline))
    device = identify(facts, channel.address)
    if channel.address.startswith("fake:"):
        # It measures this machine: it says so, and its latencies are never taken for a device's.
        name = channel.address.removeprefix("fake:")
        device = dataclasses.replace(device, key=f"fake-{name}", name=f"fake device {name}", emulated=True)
    boot_id = facts.get("boot_id")
    boot = str(boot_id) if boot_id else None
    found = probe(agent, device.key, boot, runtimes, deadline=Deadline.after(_PROBE_S, "the probe"))
    if channel.address == "local" and agent.python is not None:
        found += _in_environments(agent, device.key, boot, runtimes, step)
    return agent, DeviceAbilities(device, tuple(found))


def _in_environments(
    agent: Agent, device_key: str, boot: str | None, runtimes: tuple[str, ...], step: Callable[[str], None]
) -> list[Json]:
    """Ask about the runtimes in the environments that socbench made on this machine."""
    found = []
    for environment in installed_for(runtimes):
        step(f"asking the environment {environment.name} what it can do")
        deadline = Deadline.after(_PROBE_S, "the probe")
        found += probe(agent_in(agent, environment), device_key, boot, [environment.runtime], deadline=deadline)
    return found


def _stop_leftovers(channel: Channel, agent: Agent, session: str) -> None:
    """Stop jobs that a dead host left running here: nothing else may run beside what is measured.

    What they measured stays on the device, and their session can be resumed. This session's own is read on.
    """
    deadline = Deadline.after(_SETUP_S, "the agents of dead sessions")
    root = channel.transport.root
    command = ["sh", "-c", _LEFTOVERS, "sh", str(root)]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    for job in done.stdout.decode("utf-8", "replace").splitlines()[:100]:
        if job != session and not job.startswith(f"{session}."):
            agent.stop(root / "sessions" / job, deadline=deadline)


def _orphan_after_s(shares_host: bool) -> float:
    """How long an agent goes on without its host: where no cable can be pulled, a dead host does not come back soon."""
    named = os.environ.get("SOCBENCH_ORPHAN_AFTER_S")
    return float(named) if named else (30.0 if shares_host else 120.0)


def _patience_s() -> float:
    """How long a lost device is looked for before it is given up."""
    return float(os.environ.get("SOCBENCH_RECONNECT_S", "600"))
