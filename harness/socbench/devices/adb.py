"""What the ADB server lists, each device with its state and what to do about it."""

from __future__ import annotations

from socbench.errors import ChannelError
from socbench.records import Device
from socbench.transports import adb_wire

_ADVICE = {
    "unauthorized": 'unlock the phone and accept "Allow USB debugging?"; if no question shows, replug the cable, or revoke USB debugging authorisations in the developer options and replug',
    "authorizing": 'the phone is being asked for permission: unlock it and accept "Allow USB debugging?"',
    "offline": "the phone is attached and does not answer: replug the cable or run `adb reconnect offline`; over the network check that it is awake and reachable",
    "connecting": "the connection is being made: try again in a few seconds",
    "no_permission": "this user may not open the USB device: install udev rules (Debian: `sudo apt install android-sdk-platform-tools-common`), add yourself to the group plugdev, then replug",
    "bootloader": "the phone is in its bootloader: boot Android (`fastboot reboot`)",
    "recovery": "the phone is in recovery: boot Android (`adb reboot`)",
    "sideload": "the phone waits for a sideload: boot Android (`adb reboot`)",
    "rescue": "the phone is in rescue mode: boot Android (`adb reboot`)",
    "host": "this is an adb host, not a device",
}


def attached() -> list[Device]:
    """Return the devices of the ADB server, ``state`` "ready" or not; an empty list when no server can be reached.

    A server that does not run is started only where an adb binary is found. Devices that share a serial number are
    named by their USB path (``adb:usb:1-2``).
    """
    try:
        listed = adb_wire.devices(adb_wire.server_or_none())
    except ChannelError:
        return []
    return [_device(entry, listed) for entry in listed]


def _device(entry: adb_wire.Listed, listed: list[adb_wire.Listed]) -> Device:
    address = address_of(entry, listed)
    name = entry.fields.get("model", "").replace("_", " ") or address
    if entry.state == "device":
        return Device(device=address, key="", name=name)
    state, advice = state_and_advice(entry.state)
    return Device(device=address, key="", name=name, state=state, advice=advice)


def address_of(entry: adb_wire.Listed, listed: list[adb_wire.Listed]) -> str:
    """Return how the user names this device: by serial, by USB path where the serial is not one device's alone."""
    shared = sum(other.serial == entry.serial for other in listed) > 1
    return f"adb:{entry.usb}" if entry.usb and (shared or "?" in entry.serial) else f"adb:{entry.serial}"


def state_and_advice(words: str) -> tuple[str, str]:
    """Return a short state and what to do, from the words that the server uses (which may be a whole sentence)."""
    state = "no_permission" if words.startswith("no permissions") else words.split(" ")[0] or "unknown"
    return state, _ADVICE.get(state, f"the adb server calls its state {words!r}: replug it, then `adb kill-server`")
