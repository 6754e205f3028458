"""A device that is shaped like a phone (arm64, only /system/bin, no Python) behind the real adbd, under emulation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fake_settings
import pytest
from android_root import AndroidRoot
from device_rig import RealAdbServer
from fake_settings import BEFORE, DURING
from socbench.devices import discover, identify, resolve_cores, settings
from socbench.devices.config import DevicesConfig
from socbench.devices.facts import read_facts
from socbench.errors import DeadlineError
from socbench.records import CoreCluster
from socbench.transports.adb import AdbTransport
from socbench.transports.adb_wire import Server
from socbench.transports.base import Deadline

CLUSTERS = (
    CoreCluster((0, 1, 2, 3), "Cortex-A510", 1_704_000),
    CoreCluster((4, 5, 6, 7), "Cortex-A715", 2_367_000),
    CoreCluster((8,), "Cortex-X3", 2_914_000),
)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AndroidRoot]:
    device = AndroidRoot(tmp_path_factory.mktemp("phone"))
    yield device
    device.stop()


@pytest.fixture
def transport(phone: AndroidRoot, adb_server: RealAdbServer) -> Iterator[AdbTransport]:
    made = AdbTransport(phone.serial, server=Server(port=adb_server.port), open_s=60)
    yield made
    made.close()


def soon(seconds: float = 60.0) -> Deadline:
    return Deadline.after(seconds)


def on_host(phone: AndroidRoot, path: PurePosixPath) -> Path:
    return phone.root / str(path).lstrip("/")


def test_phone_is_listed_with_what_it_is_and_as_emulated(
    phone: AndroidRoot, transport: AdbTransport, adb_server: RealAdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.port))
    listed = discover(DevicesConfig(Path()), probe_s=60)
    device = next(device for device in listed if device.device == f"adb:{phone.serial}")
    assert (device.name, device.soc_vendor, device.soc) == ("Google Pixel 8 Pro", "Google", "Google Tensor G3")
    assert (device.os, device.abi, device.gpu) == ("Android 16", "arm64-v8a", "Mali-G715 MP7")
    facts = read_facts(transport, soon())
    assert facts["gles"] == "GLES: ARM, Mali-G715, OpenGL ES 3.2 v1.r44p1-00pxl0.0123456789abcdef0123456789abcdef"
    assert device.os_build == "google/husky/husky:16/TEST.000000.000/1:user/release-keys"
    assert device.cores == CLUSTERS
    assert device.emulated
    assert device.state == "ready"
    assert device.advice == "the battery is at 15 %, phones slow down below about 20 %: charge it first"
    assert "TESTSERIAL" not in device.key
    assert device.key != listed[0].key
    assert resolve_cores("big", device.cores) == (4, 5, 6, 7, 8)
    assert resolve_cores("little", device.cores) == (0, 1, 2, 3)


def test_what_the_kernel_lets_the_shell_and_an_app_use_is_read(transport: AdbTransport) -> None:
    found = identify(read_facts(transport, soon()), transport.address).scheduling
    assert found is not None
    allowed = next(line for line in Path("/proc/self/status").read_text().splitlines() if "Cpus_allowed_list" in line)
    assert (found.cpuset, found.cpus) == (Path("/proc/self/cpuset").read_text().strip(), allowed.split()[1])
    assert (found.app_cpus, found.app_uclamp_min_permille, found.app_uclamp_max_permille) == ("0-8", 125, 1000)


def test_folder_on_a_phone_is_below_data_local_tmp(transport: AdbTransport) -> None:
    assert transport.root == PurePosixPath("/data/local/tmp/socbench")


def test_commands_run_in_the_phones_own_shell(transport: AdbTransport) -> None:
    done = transport.run(
        ["sh", "-c", 'cat; printf "%s" "$1" >&2; exit 9', "sh", "it's\n$x"], deadline=soon(), stdin=b"\0in"
    )
    assert (done.exit_code, done.stdout, done.stderr) == (9, b"\0in", b"it's\n$x")
    assert transport.run(["uname", "-m"], deadline=soon()).stdout == b"aarch64\n"
    assert transport.run(["python3"], deadline=soon()).exit_code == 127


def test_files_go_there_and_back_and_have_the_right_hash_on_the_phone(
    phone: AndroidRoot, transport: AdbTransport, tmp_path: Path
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    target = transport.root / "blobs" / "a 'model'\n.tflite"
    transport.push(source, target, deadline=soon())
    assert on_host(phone, target).read_bytes() == source.read_bytes()
    transport.pull(target, back, deadline=soon())
    assert back.read_bytes() == source.read_bytes()


def test_command_ends_at_its_deadline_and_the_phone_is_still_there(transport: AdbTransport) -> None:
    with pytest.raises(DeadlineError):
        transport.run(["sleep", "9417"], deadline=soon(2))
    assert (
        b"9417" not in transport.run(["sh", "-c", "sleep 1; ps -o args | grep '[s]leep 9417'"], deadline=soon()).stdout
    )


def test_spawned_command_is_followed_event_by_event(phone: AndroidRoot, transport: AdbTransport) -> None:
    log = transport.root / "sessions" / "events.jsonl"
    script = "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo event $i; sleep 0.1; done"
    transport.spawn(["sh", "-c", script], log=log, deadline=soon())
    stop, got = threading.Event(), b""
    for chunk in transport.follow(log, 0, stop=stop):
        got += chunk
        if got.endswith(b"event 5\n"):
            stop.set()
    assert got == b"".join(b"event %d\n" % number for number in range(1, 6))


def test_settings_of_a_phone_come_back_by_its_own_shell_when_the_link_is_cut(
    phone: AndroidRoot, adb_server: RealAdbServer
) -> None:
    state, tools = phone.root / "data/local/tmp/fake-settings", phone.root / "system/bin"
    fake_settings.install(tools, state, seen_as="/data/local/tmp/fake-settings", shell="/system/bin/sh")
    transport = AdbTransport(phone.serial, server=Server(port=adb_server.port), open_s=60)
    lease, done = on_host(phone, transport.root / "lease"), threading.Event()
    lease.parent.mkdir(parents=True, exist_ok=True)

    def renew() -> None:
        while not done.wait(0.3):
            lease.touch()

    thread = threading.Thread(target=renew)
    thread.start()
    found = settings.prepare(transport, "s-1", network=False, quiet_s=4, deadline=soon())
    assert fake_settings.now(state) == DURING
    assert {one.name: found[one.name] for one in settings.SETTINGS if one.wanted is not None} == {
        one.name: one.wanted for one in settings.SETTINGS if one.wanted is not None
    }
    transport.close()
    done.set()
    thread.join()
    adb_server.adb("disconnect", phone.serial)
    until = time.monotonic() + 60
    while fake_settings.now(state) != BEFORE:
        assert time.monotonic() < until, fake_settings.now(state)
        time.sleep(0.2)


def test_airplane_mode_is_left_alone_where_it_would_cut_the_connection(
    phone: AndroidRoot, transport: AdbTransport
) -> None:
    state, tools = phone.root / "data/local/tmp/fake-settings-2", phone.root / "system/bin"
    fake_settings.install(tools, state, seen_as="/data/local/tmp/fake-settings-2", shell="/system/bin/sh")
    settings.prepare(transport, "s-2", network=True, quiet_s=60, deadline=soon())
    assert fake_settings.now(state) == {**DURING, "global.airplane_mode_on": "0"}
    assert settings.restore(transport, deadline=soon())["screen_brightness"] == "180"
    assert fake_settings.now(state) == BEFORE
