"""Channels to devices. ``open_transport`` turns what the user writes after ``-d`` into one."""

from __future__ import annotations

import difflib

from socbench.errors import UsageError
from socbench.transports.base import Transport

KINDS = ("local", "ssh", "adb", "adb-direct", "fake")


def open_transport(address: str) -> Transport:
    """Open the channel to ``local``, ``ssh:[user@]host[:port]``, ``adb:SERIAL``, ``adb-direct:HOST`` or ``fake:NAME``.

    Raises:
        UsageError: no such kind of address.
        ChannelError: the device can't be reached (DeviceStateError: it is there and not usable).
    """
    kind, _, name = address.partition(":")
    if kind == "local" and not name:
        from socbench.transports.local import LocalTransport

        return LocalTransport()
    if kind == "fake" and name:
        from socbench.transports.fake import FakeTransport

        return FakeTransport(name)
    if kind == "ssh" and name:
        from socbench.transports.ssh import SshTransport

        return SshTransport(name)
    if kind == "adb" and name:
        from socbench.transports.adb import AdbTransport

        return AdbTransport(name)
    if kind == "adb-direct" and name:
        from socbench.transports.adb_direct import AdbDirectTransport

        return AdbDirectTransport(name)
    nearest = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest and nearest[0] != kind else ""
    raise UsageError(f"{address!r} is not a device: write local, ssh:user@host, adb:SERIAL or fake:NAME{hint}")
