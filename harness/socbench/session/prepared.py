"""Phones whose settings are changed for a session (``--prepare``), and how they come back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from socbench.agents.channel import Channel
from socbench.devices import settings
from socbench.devices.config import load_config
from socbench.devices.discovery import open_device
from socbench.errors import ChannelError, FailedError
from socbench.records import Json
from socbench.transports.base import Deadline

if TYPE_CHECKING:
    from socbench.session.devices import OpenDevice

_SETTINGS_S = 60.0


class Prepared:
    """The phones of one session; ``restore`` is done once, whoever calls it first."""

    def __init__(self, session: str, say: Callable[[str], None]) -> None:
        self.session = session
        self.recorded: dict[str, Json] = {}
        self._say = say
        self._open: list[OpenDevice] = []

    def prepare(self, devices: Sequence[OpenDevice]) -> None:
        """Change the settings of all devices; what they were is kept on each of them, which watches over it.

        Raises FailedError naming a device that is no Android phone; those before it are put back.
        """
        try:
            for device in devices:
                self._prepare(device)
        except BaseException:
            self.restore()
            raise

    def _prepare(self, device: OpenDevice) -> None:
        channel, deadline = device.channel, Deadline.after(_SETTINGS_S, "the phone's settings")
        before = channel.retry(lambda transport: settings.read_settings(transport, deadline=deadline))
        if before is None:
            raise FailedError(f"--prepare is for Android phones, which {device.address} is not: leave it away")
        self._open.append(device)
        quiet_s = max(1, round(float(os.environ.get("SOCBENCH_ORPHAN_AFTER_S") or settings.QUIET_S)))
        network = _over_network(device.address)
        during = channel.retry(
            lambda transport: settings.prepare(
                transport, self.session, network=network, quiet_s=quiet_s, deadline=deadline
            )
        )
        self.recorded[device.address] = {"before": before, "during": during, "after": None}

    def restore(self) -> bool:
        """Put back what was changed, and say whether there was anything; a phone out of reach does it by itself."""
        changed = bool(self._open)
        while self._open:
            device = self._open.pop()
            deadline = Deadline.after(_SETTINGS_S, "the phone's settings")
            try:
                after = settings.restore(device.channel.transport, deadline=deadline)
            except FailedError as problem:
                self._say(f"{device.address}: {problem}")
            except ChannelError:
                self._say(f"{device.address} can't be reached: it puts its settings back by itself, in minutes")
            else:
                self.recorded.get(device.address, {})["after"] = after
        return changed

    def leave(self) -> None:
        """Leave the phones to themselves: they put their settings back when the detached job has ended."""
        self._open.clear()


def _over_network(address: str) -> bool:
    """Say whether a phone is reached over its own network: ``adb:192.0.2.10:5555``, not ``adb:usb:1-2``."""
    kind, _, name = address.partition(":")
    if name == "usb" or name.startswith("usb:"):
        return False
    return kind == "adb-direct" or re.search(r":[0-9]+$", name) is not None


def put_back_leftovers(channel: Channel, session: str, say: Callable[[str], None]) -> None:
    """Put back what a session that is gone has left changed (the phone was started anew, say)."""
    deadline = Deadline.after(_SETTINGS_S, "the phone's settings")
    if not channel.retry(lambda transport: settings.left_behind(transport, session, deadline=deadline)):
        return
    try:
        channel.retry(lambda transport: settings.restore(transport, deadline=deadline))
        say(f"{channel.address}: the settings that an earlier session had changed were put back")
    except FailedError as problem:
        say(f"{channel.address}: {problem}")


def settings_of(addresses: Sequence[str]) -> list[Json]:
    """Return the settings of those devices that are phones, for ``socbench doctor``: a row a setting."""
    rows: list[Json] = []
    for address in addresses:
        if not address.startswith(("adb:", "adb-direct:")):
            continue
        with suppress(ChannelError):
            transport = open_device(address, load_config())
            try:
                found = settings.read_settings(transport, deadline=Deadline.after(_SETTINGS_S, "the settings"))
            finally:
                transport.close()
            for title, value, wanted in settings.describe(found or {}):
                rows.append({"device": address, "setting": title, "value": value, "prepared": wanted})
    return rows
