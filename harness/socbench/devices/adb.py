"""What the ADB server lists, each device with its state and what to do about it."""

from __future__ import annotations

from socbench.errors import ChannelError
from socbench.records import Device
from socbench.transports import adb_wire
from socbench.transports.adb import address_of, state_and_advice
from socbench.transports.adb_wire import Listed


def attached() -> list[Device]:
    """Return the devices of the ADB server, ``state`` "ready" or not; an empty list when no server can be reached.

    A server that does not run is started where an adb program is found. Devices that share a serial number are named
    by their USB path (``adb:usb:1-2``).
    """
    try:
        listed = adb_wire.devices(adb_wire.server_or_none())
    except ChannelError:
        return []
    return [_device(entry, listed) for entry in listed]


def _device(entry: Listed, listed: list[Listed]) -> Device:
    address = address_of(entry, listed)
    name = entry.fields.get("model", "").replace("_", " ") or address
    if entry.state == "device":
        return Device(device=address, key="", name=name)
    state, advice = state_and_advice(entry.state)
    return Device(device=address, key="", name=name, state=state, advice=advice)
