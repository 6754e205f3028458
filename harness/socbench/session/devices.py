"""Opens devices for a session: lease, channel, agent, and what they can do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from socbench.agents.auto import AutoAgent
from socbench.agents.base import Agent, AgentKind
from socbench.agents.channel import Channel
from socbench.agents.environments import agent_in, installed_for
from socbench.agents.fake_phone import FakePhoneAgent
from socbench.agents.native import NativeAgent
from socbench.agents.programs import STOCK_AGENTS, StockAgent
from socbench.agents.python import PythonAgent, probe
from socbench.devices.accelerators import accelerators_of
from socbench.devices.config import load_config
from socbench.devices.discovery import open_device
from socbench.devices.facts import read_facts
from socbench.devices.fake_phone import describe as describe_phone
from socbench.devices.fake_phone import phone_number
from socbench.devices.identity import identify
from socbench.errors import AgentError, ChannelError, FailedError, Interrupted, SocbenchError, UsageError
from socbench.plan import DeviceAbilities
from socbench.records import Json
from socbench.session.lease import DeviceLease, HostLease
from socbench.session.prepared import put_back_leftovers
from socbench.transports.base import Deadline
from socbench.transports.local import local_root

KINDS: Final[dict[str, AgentKind]] = {
    "auto": AutoAgent(),
    "python": PythonAgent(),
    "native": NativeAgent(),
    **{name: StockAgent(name) for name in STOCK_AGENTS},
}
_SETUP_S: Final = 300.0
_PROBE_S: Final = 600.0
_RENEW_S: Final = 30.0
_LOOK_AGAIN_S: Final = 2.0
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LEFTOVERS = r"""
cd "$1/sessions" 2>/dev/null || exit 0
for job in */; do
  job=${job%/}
  if [ -f "$job/pid" ] && ! tail -c 400 "$job/events.jsonl" 2>/dev/null | grep -q '"type":"end"'; then
    alone=host; grep -q '"orphan_after_s":null' "$job/job.json" 2>/dev/null && alone=alone
    alive=gone; kill -0 "$(head -c 20 "$job/pid")" 2>/dev/null && alive=alive
    echo "$alone $alive $job"
  fi
done
"""


@dataclass
class OpenDevice:
    """A device that this session holds. ``shares_host``: what the host does is felt by what is measured there."""

    address: str
    channel: Channel
    agent: Agent
    abilities: DeviceAbilities
    host_lease: HostLease | None
    device_lease: DeviceLease | None
    orphan_after_s: float | None
    renewed_s: float = 0.0

    @property
    def shares_host(self) -> bool:
        """This machine."""
        return self.address == "local"

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
        if self.host_lease is not None:
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
    hold: bool = True,
) -> list[OpenDevice]:
    """Open every device, side by side, and ask it about ``runtimes`` (about nothing when there are none).

    ``hold`` false takes no lease and stops nothing: to look, not to measure. When one can't be opened the others are
    given back and its error is raised.

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
            asked = _Asked(session, runtimes, wait, stop, say, step)
            opened.append(_open(address, KINDS[agent], asked) if hold else _look(address, KINDS[agent], asked))
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


@dataclass(frozen=True)
class _Asked:
    """What every device of a session is opened with."""

    session: str
    runtimes: tuple[str, ...]
    wait: bool
    stop: threading.Event
    say: Callable[[str], None]
    step: Callable[[str], None]


@contextlib.contextmanager
def _holding(address: str, asked: _Asked) -> Iterator[tuple[Channel, HostLease, DeviceLease | None]]:
    """Take a device's leases and its channel; they are given back when what is done with them fails."""
    shares_host = address == "local"
    lease = HostLease(address, PurePosixPath(local_root()) if shares_host else None)
    lease.take(asked.session, wait=asked.wait, stop=asked.stop, say=asked.say)
    channel = on_device = None
    try:
        channel = _channel(address, asked)
        if not shares_host:
            on_device = DeviceLease(channel)
            on_device.take(asked.session, wait=asked.wait, stop=asked.stop, say=asked.say)
        yield channel, lease, on_device
    except BaseException:
        if channel is not None:
            with contextlib.suppress(ChannelError):
                if on_device is not None:
                    on_device.release()
            channel.close()
        lease.release()
        raise


def _channel(address: str, asked: _Asked) -> Channel:
    return Channel(
        address,
        opener=partial(open_device, config=load_config()),
        stop=asked.stop,
        patience_s=_patience_s(),
        lost=lambda why: asked.say(f"{why}: reconnecting"),
    )


def _open(address: str, kind: AgentKind, asked: _Asked) -> OpenDevice:
    with _holding(address, asked) as (channel, lease, on_device):
        asked.step(f"asking {address} what it can do" if asked.runtimes else f"reaching {address}")
        agent = _install(channel, kind, asked.step)
        settle_leftovers(channel, agent, asked.session, wait=asked.wait, stop=asked.stop, say=asked.say)
        if not address.startswith(("local", "ssh:")):
            put_back_leftovers(channel, asked.session, asked.say)
        abilities = _ask(channel, agent, asked)
        return OpenDevice(address, channel, agent, abilities, lease, on_device, _orphan_after_s(address == "local"))


def _look(address: str, kind: AgentKind, asked: _Asked) -> OpenDevice:
    asked.step(f"asking {address} what it can do")
    channel = _channel(address, asked)
    try:
        agent = _install(channel, kind, asked.step)
        return OpenDevice(address, channel, agent, _ask(channel, agent, asked), None, None, None)
    except BaseException:
        channel.close()
        raise


@contextlib.contextmanager
def hold_device(
    address: str, *, wait: bool, say: Callable[[str], None], step: Callable[[str], None]
) -> Iterator[Channel]:
    """Hold one device for something else than a session (setting it up, cleaning it), without an agent on it.

    Raises as :func:`open_devices`.
    """
    asked = _Asked(f"devices-{os.getpid()}", (), wait, threading.Event(), say, step)
    with _holding(address, asked) as (channel, lease, on_device):
        yield channel
    with contextlib.suppress(ChannelError):
        if on_device is not None:
            on_device.release()
    channel.close()
    lease.release()


def _install(channel: Channel, kind: AgentKind, step: Callable[[str], None]) -> Agent:
    phone = phone_number(channel.address)
    kind = kind if phone is None else FakePhoneAgent(phone)
    return kind.install(channel, deadline=Deadline.after(_SETUP_S, f"the agent on {channel.address}"), say=step)


def _ask(channel: Channel, agent: Agent, asked: _Asked) -> DeviceAbilities:
    """Return what the device is and what it can do."""
    deadline = Deadline.after(_SETUP_S, f"{channel.address} to say what it is")
    facts = channel.retry(lambda transport: read_facts(transport, deadline))
    device = identify(facts, channel.address)
    phone = phone_number(channel.address)
    if phone is not None:
        device = describe_phone(phone, channel.address)
    elif channel.address.startswith("fake:"):
        # It measures this machine: it says so, and its latencies are never taken for a device's.
        name = channel.address.removeprefix("fake:")
        device = dataclasses.replace(device, key=f"fake-{name}", name=f"fake device {name}", emulated=True)
    boot_id = facts.get("boot_id")
    boot = str(boot_id) if boot_id else None
    found = probe(agent, device.key, boot, asked.runtimes, deadline=Deadline.after(_PROBE_S, "the probe"))
    if channel.address == "local" and agent.python is not None:
        found += _in_environments(agent, device.key, boot, asked.runtimes, asked.step)
    return DeviceAbilities(device, tuple(found), _accelerators(channel, agent, facts))


def _accelerators(channel: Channel, agent: Agent, facts: Json) -> Json | None:
    """Return what the device's drivers say of themselves; only the native agent can ask them."""
    if agent.python is not None or phone_number(channel.address) is not None:
        return accelerators_of(facts, None) if facts.get("gles") else None
    try:
        told = agent.call("identify", deadline=Deadline.after(_SETUP_S, "the device's drivers")).get("facts")
    except AgentError:  # it can measure all the same
        told = None
    return accelerators_of(facts, told.get("accelerators") if isinstance(told, dict) else None)


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


def settle_leftovers(
    channel: Channel,
    agent: Agent,
    session: str,
    *,
    wait: bool,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """See to jobs of other sessions that still run here: nothing else may run beside what is measured.

    What a dead host left is stopped; it stays on the device and its session can be resumed. A detached run has the
    device: it is waited for, or with ``wait`` false FailedError says whose it is. This session's own is read on.
    """
    said = False
    while True:
        detached = []
        for job, alone, _ in open_jobs(channel):
            if job == session or job.startswith(f"{session}."):
                continue
            folder = channel.transport.root / "sessions" / job
            if not alone:
                agent.stop(folder, deadline=Deadline.after(_SETUP_S, "the agents of dead sessions"))
            elif agent.status(folder, deadline=Deadline.after(_SETUP_S, "a detached run")).get("running"):
                detached.append(job.partition(".")[0])
        if not detached:
            return
        who = f"{channel.address} is in use by the detached session {detached[0]}"
        if not wait:
            raise FailedError(f"{who}: try again later, or leave --no-wait away to wait for it")
        if not said:
            say(f"{who}: waiting until it is done (Ctrl-C gives up)")
            said = True
        if stop.wait(_LOOK_AGAIN_S):
            raise Interrupted(f"stopped while waiting for {channel.address}; nothing was run")


def open_jobs(channel: Channel) -> list[tuple[str, bool, bool]]:
    """Return the jobs on a device whose files have no end: name, whether detached, whether its process may be there."""
    deadline = Deadline.after(_SETUP_S, "the jobs on the device")
    command = ["sh", "-c", _LEFTOVERS, "sh", str(channel.transport.root)]
    done = channel.retry(lambda transport: transport.run(command, deadline=deadline))
    lines = (line.split(" ", 2) for line in done.stdout.decode("utf-8", "replace").splitlines()[:100])
    known = [line for line in lines if len(line) == 3 and _JOB.fullmatch(line[2])]
    return [(name, alone == "alone", alive == "alive") for alone, alive, name in known]


def _orphan_after_s(shares_host: bool) -> float:
    """How long an agent goes on without its host: where no cable can be pulled, a dead host does not come back soon."""
    named = os.environ.get("SOCBENCH_ORPHAN_AFTER_S")
    return float(named) if named else (30.0 if shares_host else 120.0)


def _patience_s() -> float:
    """How long a lost device is looked for before it is given up."""
    return float(os.environ.get("SOCBENCH_RECONNECT_S", "600"))
