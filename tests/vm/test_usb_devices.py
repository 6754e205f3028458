"""USB devices in a virtual machine, as an ADB server there sees them: they come and go, share serials, are pulled."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from session_home import Heard, Home, make_home
from socbench.devices import discover
from socbench.devices.config import DevicesConfig
from socbench.errors import ChannelError
from socbench.session import SessionResult
from socbench.transports.adb import AdbTransport
from socbench.transports.adb_wire import Listed, track_devices
from socbench.transports.base import Deadline
from usb_machine import UsbMachine

pytestmark = pytest.mark.vm

PLUGGED, LATER, TWIN, OTHER_TWIN = range(4)
SERIALS = ("FAKE0000", "FAKE0001", "TWIN", "TWIN")


def soon(seconds: float = 120.0) -> Deadline:
    return Deadline.after(seconds)


def until(what: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def states(usb: UsbMachine, serial: str) -> list[str]:
    return [entry.state for entry in usb.listed() if entry.serial == serial]


def ready(usb: UsbMachine, serial: str, count: int = 1) -> None:
    until(lambda: states(usb, serial) == ["device"] * count)


@pytest.fixture(scope="module")
def plugged(usb: UsbMachine) -> UsbMachine:
    usb.add(PLUGGED, SERIALS[PLUGGED])
    ready(usb, SERIALS[PLUGGED])
    return usb


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugged: UsbMachine) -> Home:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(plugged.server.port))
    return make_home(tmp_path, monkeypatch)


def test_a_device_is_seen_when_it_is_plugged_in_and_when_it_is_pulled(usb: UsbMachine) -> None:
    seen: list[list[Listed]] = []
    stop = threading.Event()

    def watch() -> None:
        for listed in track_devices(usb.server, stop):
            seen.append(listed)

    def last() -> list[str]:
        return [entry.state for entry in seen[-1] if entry.serial == SERIALS[LATER]] if seen else ["?"]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    until(lambda: last() == [])
    usb.add(LATER, SERIALS[LATER])
    until(lambda: last() == ["device"])
    (entry,) = [entry for entry in seen[-1] if entry.serial == SERIALS[LATER]]
    assert entry.usb is not None
    assert entry.usb.startswith("usb:")
    usb.unplug(LATER)
    until(lambda: last() == [])
    usb.reboot(LATER)
    until(lambda: last() == ["device"])
    usb.unplug(LATER)
    until(lambda: last() == [])
    stop.set()
    watcher.join(timeout=30)
    assert not watcher.is_alive()


def test_devices_of_one_serial_are_told_apart_by_the_port_that_they_are_on(
    usb: UsbMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (TWIN, OTHER_TWIN):
        usb.add(number, SERIALS[number])
    ready(usb, "TWIN", 2)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(usb.server.port))
    paths = [entry.usb for entry in usb.listed() if entry.serial == "TWIN"]
    assert len(set(paths)) == 2
    listed = [device for device in discover(DevicesConfig(Path()), probe_s=120) if device.device.startswith("adb:usb:")]
    assert sorted(device.device for device in listed) == sorted(f"adb:{path}" for path in paths)
    assert len({device.key for device in listed}) == 2
    assert {(device.abi, device.emulated, device.state) for device in listed} == {("x86_64", True, "ready")}
    ids = set()
    for path in paths:
        assert path is not None
        transport = AdbTransport(path, server=usb.server, open_s=120)
        ids.add(transport.run(["cat", "/etc/machine-id"], deadline=soon()).stdout.decode().strip())
        transport.close()
    assert ids == {f"{TWIN:032d}", f"{OTHER_TWIN:032d}"}
    for number in (TWIN, OTHER_TWIN):
        usb.unplug(number)


def test_a_device_pulled_in_a_push_breaks_it_at_once_and_takes_the_file_when_it_is_back(
    plugged: UsbMachine, tmp_path: Path
) -> None:
    content = os.urandom(30_000_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    transport = AdbTransport(SERIALS[PLUGGED], server=plugged.server, open_s=120)
    target = transport.root / "blobs" / "pushed"
    broken: list[BaseException] = []

    def push() -> None:
        try:
            transport.push(source, target, deadline=soon(300))
        except ChannelError as error:
            broken.append(error)

    pushing = threading.Thread(target=push)
    pushing.start()
    look = f"du -s /d/{PLUGGED}/data | cut -f1"
    until(lambda: int(plugged.machine.control(look)) > 2000)
    plugged.unplug(PLUGGED)
    pushing.join(timeout=60)
    assert not pushing.is_alive(), "a push on a pulled cable must end"
    assert len(broken) == 1
    plugged.replug(PLUGGED)
    ready(plugged, SERIALS[PLUGGED])
    assert transport.run(["test", "-e", str(target)], deadline=soon()).exit_code == 1, "half a file counts as none"
    transport.push(source, target, deadline=soon(300))
    done = transport.run(["sha256sum", str(target)], deadline=soon())
    assert done.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()
    transport.run(["rm", str(target)], deadline=soon())
    transport.close()


def _measuring(home: Home, heard: Heard) -> bool:
    return bool(heard.session) and '"phase":"measure"' in home.journal_text(heard.session)


def _in_the_middle(home: Home, act: Callable[[], None]) -> tuple[SessionResult, Heard, str]:
    """Run two slow trials on the plugged device, ``act`` once the first is being measured."""
    names = [home.null(name, clock="real", latency_ns=20_000_000) for name in ("one", "two")]
    heard = Heard()

    def when_measured() -> None:
        until(lambda: bool(heard.ended) or _measuring(home, heard), 600)
        assert not heard.ended, "a trial ended before anything was measured"
        act()

    acting = threading.Thread(target=when_measured)
    acting.start()
    choices = {"repeat": 1, "min_time_s": 20.0, "min_count": 5}
    result = home.run(*names, devices=(f"adb:{SERIALS[PLUGGED]}",), heard=heard, **choices)
    acting.join(timeout=300)
    assert not acting.is_alive()
    return result, heard, result.session


def test_a_device_pulled_in_a_run_and_plugged_in_again_loses_no_event(home: Home, plugged: UsbMachine) -> None:
    def pull() -> None:
        plugged.unplug(PLUGGED)
        time.sleep(5)
        plugged.replug(PLUGGED)

    result, heard, session = _in_the_middle(home, pull)
    assert (result.status, [status for _, status in heard.ended]) == ("complete", ["done", "done"])
    repetitions = home.rows(session, "repetitions")
    counted = {row["trial"]: row["measured_count"] for row in repetitions}
    measured: dict[str, int] = {}
    for row in home.rows(session, "samples"):
        measured[row["trial"]] = measured.get(row["trial"], 0) + (row["phase"] == 2)
    assert measured == counted
    assert all(count >= 5 for count in counted.values())
    assert any("reconnecting" in text or "not_attached" in text for text in [*heard.messages, *heard.steps])


def test_a_device_that_reboots_in_a_trial_fails_it_and_the_session_goes_on(home: Home, plugged: UsbMachine) -> None:
    result, heard, session = _in_the_middle(home, lambda: plugged.reboot(PLUGGED))
    assert sorted(status for _, status in heard.ended) == ["done", "failed"], heard.messages
    (failed,) = [row for row in home.rows(session, "trials") if row["status"] == "failed"]
    assert json.loads(failed["error"])["code"] == "device_rebooted"
    assert (result.status, result.exit_code) == ("complete_with_failures", 1)
