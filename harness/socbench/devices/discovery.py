"""Finds the devices: this machine, what is attached over ADB, what ``devices.toml`` names. Each ready, or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

from socbench.devices.config import ConfiguredDevice, DevicesConfig, load_config
from socbench.devices.facts import local_facts, read_facts
from socbench.devices.identity import identify
from socbench.devices.parse import parse_battery
from socbench.errors import ChannelError, DeadlineError, DeviceStateError, UsageError
from socbench.records import Device, Json
from socbench.transports.base import Deadline, Transport

PROBE_S = 20.0
"""How long one device may take to say what it is."""

LOW_BATTERY_PERMILLE = 200


def open_device(name_or_address: str, config: DevicesConfig | None = None) -> Transport:
    """Open the channel to a device by its name in ``devices.toml`` or by its address, with the settings it has there.

    Raises:
        UsageError: no such kind of address, or a broken ``devices.toml``.
        ChannelError: the device can't be reached (DeviceStateError: it is there and not usable).
    """
    return _open((config or load_config()).find(name_or_address))


def _open(device: ConfiguredDevice) -> Transport:
    from socbench.transports import open_transport

    kind, _, name = device.address.partition(":")
    root = PurePosixPath(device.root) if device.root else None
    if kind == "ssh" and name:
        from socbench.transports.ssh import SshTransport

        return SshTransport(
            name,
            root=root,
            identity_file=device.identity_file,
            proxy_jump=device.proxy_jump,
            known_hosts=device.known_hosts,
        )
    if kind == "adb" and name:
        from socbench.transports.adb import AdbTransport

        return AdbTransport(name, root=root, compression=device.compression or "none")
    if kind == "adb-direct" and name:
        from socbench.transports.adb_direct import AdbDirectTransport

        return AdbDirectTransport(name, root=root)
    if kind == "local" and root and not name:
        from pathlib import Path

        from socbench.transports.local import LocalTransport

        return LocalTransport(Path(root))
    return open_transport(device.address)


def discover(config: DevicesConfig | None = None, *, adb: bool = True, probe_s: float = PROBE_S) -> list[Device]:
    """Return this machine, every device that the ADB server lists, and every one in ``devices.toml``, in that order.

    A device that cannot be used is in the list with its ``state`` and the ``advice`` what to do about it; finding
    devices never fails because of one of them. Devices are asked in parallel, each for at most ``probe_s`` seconds.
    """
    config = load_config() if config is None else config
    jobs: list[Callable[[], Device]] = [this_machine]
    addresses = {"local"}
    if adb:
        from socbench.devices.adb import attached

        for found in attached():
            addresses.add(found.device)
            jobs.append(partial(_usable, found, config, probe_s))
    for device in config.devices.values():
        if device.address not in addresses:
            addresses.add(device.address)
            jobs.append(partial(probe, device.address, config, probe_s=probe_s))
    with ThreadPoolExecutor(max_workers=min(32, len(jobs))) as pool:
        return list(pool.map(lambda job: job(), jobs))


def _usable(found: Device, config: DevicesConfig, probe_s: float) -> Device:
    return probe(found.device, config, probe_s=probe_s) if found.state == "ready" else found


def this_machine() -> Device:
    """Return the Device record of this machine."""
    try:
        return identify(local_facts(), "local")
    except ChannelError as error:
        return unusable("local", "unreachable", str(error))


def probe(address: str, config: DevicesConfig | None = None, *, probe_s: float = PROBE_S) -> Device:
    """Ask one device what it is; a device that cannot be reached comes back with its state and advice.

    Raises:
        UsageError: ``address`` is not a device's.
    """
    deadline = Deadline.after(probe_s, f"{address} to say what it is")
    try:
        transport = open_device(address, config)
        try:
            facts = read_facts(transport, deadline)
            address = transport.address
        finally:
            transport.close()
    except DeviceStateError as error:
        return unusable(address, getattr(error, "state", "not_ready"), str(error))
    except DeadlineError as error:
        return unusable(address, "not_answering", str(error))
    except ChannelError as error:
        return unusable(address, "unreachable", str(error))
    except UsageError as error:
        return unusable(address, "misconfigured", str(error))
    return identify(facts, address, advice=battery_advice(facts))


def battery_advice(facts: Json) -> str | None:
    """Return what to do when the battery is low, None when it is not or there is none."""
    permille = parse_battery(str(facts.get("battery") or "")).permille
    if permille is None or permille >= LOW_BATTERY_PERMILLE:
        return None
    return f"the battery is at {permille // 10} %, phones slow down below about 20 %: charge it first"


def unusable(address: str, state: str, advice: str) -> Device:
    """Return the record of a device that is known by its address only."""
    return Device(device=address, key="", name=address, state=state, advice=advice)


def ready(devices: Iterable[Device]) -> list[Device]:
    """Return the devices that can be used now."""
    return [device for device in devices if device.state == "ready"]
