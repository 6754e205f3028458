"""ADB without a server (adb-shell) against the real adbd: what it can do, and that its limits are as stated."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_rig import RealAdbd
from socbench.errors import ChannelError, DeadlineError, DeviceStateError
from socbench.transports import open_transport
from socbench.transports.adb_direct import AdbDirectTransport
from socbench.transports.base import Deadline


@pytest.fixture
def device(tmp_path: Path) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path / "device")
    yield daemon
    daemon.stop()


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


def test_commands_give_their_exit_code_and_both_streams(device: RealAdbd) -> None:
    transport = open_transport(f"adb-direct:{device.serial}")
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], deadline=soon())
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert transport.run(["cat"], deadline=soon(), stdin=b"in\0put\r\n").stdout == b"in\0put\r\n"
    odd = transport.run(["sh", "-c", 'printf "%s|%s" "$1" "$V"', "sh", "it's\n$x"], deadline=soon(), env={"V": "b'"})
    assert odd.stdout == b"it's\n$x|b'"
    assert str(transport.root) == str(device.root)
    assert list((device.root / "tmp").iterdir()) == [], "nothing of it stays behind"
    transport.close()
    with pytest.raises(ChannelError, match="was closed"):
        transport.run(["true"], deadline=soon())


def test_files_and_followed_files_arrive_unchanged(device: RealAdbd, tmp_path: Path) -> None:
    transport = AdbDirectTransport(device.serial)
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    target = transport.root / "a folder" / "it's"
    transport.push(source, target, deadline=soon())
    transport.pull(target, back, deadline=soon())
    assert back.read_bytes() == source.read_bytes() == Path(target).read_bytes()
    with pytest.raises(FileNotFoundError):
        transport.pull(transport.root / "none", back, deadline=soon())
    log = transport.root / "log"
    transport.spawn(["sh", "-c", "echo one; sleep 0.3; echo two"], log=log, deadline=soon())
    stop, got = threading.Event(), b""
    for chunk in transport.follow(log, 0, stop=stop):
        got += chunk
        if got.endswith(b"two\n"):
            stop.set()
    assert got == b"one\ntwo\n"
    transport.close()


def test_deadline_is_kept_and_the_connection_is_of_use_after_it(device: RealAdbd) -> None:
    transport = AdbDirectTransport(device.serial)
    with pytest.raises(DeadlineError):
        transport.run(["sleep", "5"], deadline=soon(0.5))
    assert transport.run(["echo", "on"], deadline=soon()).stdout == b"on\n"
    transport.close()


def test_phone_that_asks_is_unauthorized_without_a_key(tmp_path: Path) -> None:
    phone = RealAdbd(tmp_path / "phone", authenticating=True)
    try:
        with pytest.raises(DeviceStateError, match="unauthorized"):
            AdbDirectTransport(phone.serial, keys=[])
    finally:
        phone.stop()
