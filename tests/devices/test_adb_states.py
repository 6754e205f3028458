"""Authorisation, server restarts and reboots over the real adbd and ADB server, as a phone's user meets them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from device_rig import RealAdbd, RealAdbServer, wait_for
from fault_proxy import FaultProxy
from socbench.devices import discover
from socbench.devices.config import DevicesConfig
from socbench.errors import ChannelError
from socbench.transports import adb_wire
from socbench.transports.adb import AdbStateError, AdbTransport
from socbench.transports.adb_wire import Server
from socbench.transports.base import Deadline


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path / "phone", authenticating=True)
    assert daemon.prompt is not None
    daemon.prompt.watch()
    yield daemon
    daemon.stop()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealAdbServer]:
    made = RealAdbServer(tmp_path / "server")
    for name in ("ANDROID_ADB_SERVER_PORT", "HOME", "PATH", "LD_LIBRARY_PATH", "ADB_USB", "ADB_MDNS"):
        monkeypatch.setenv(name, made.env[name])
    yield made
    made.adb("kill-server")
    made.stop()


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


def state(server: RealAdbServer, serial: str) -> str | None:
    listed = adb_wire.devices(Server(port=server.port))
    return next((entry.state for entry in listed if entry.serial == serial), None)


def test_phone_that_asks_is_unauthorized_until_allow_is_tapped(phone: RealAdbd, server: RealAdbServer) -> None:
    assert phone.prompt is not None
    with pytest.raises(AdbStateError, match='accept "Allow USB debugging') as caught:
        AdbTransport(phone.serial, open_s=5)
    assert caught.value.state in ("unauthorized", "authorizing")
    assert phone.prompt.asked.wait(10)
    (listed,) = [device for device in discover(DevicesConfig(Path())) if device.device != "local"]
    assert (listed.device, listed.state) == (f"adb:{phone.serial}", "unauthorized")
    assert listed.advice is not None
    assert "unlock the phone" in listed.advice
    phone.prompt.tap(allow=True)
    wait_for(lambda: state(server, phone.serial) == "device", "the authorised phone")
    transport = AdbTransport(phone.serial)
    assert transport.run(["echo", "in"], deadline=soon()).stdout == b"in\n"
    transport.close()


def test_phone_that_was_denied_stays_unauthorized(phone: RealAdbd, server: RealAdbServer) -> None:
    assert phone.prompt is not None
    phone.prompt.tap(allow=False)
    with pytest.raises(AdbStateError, match="is unauthorized"):
        AdbTransport(phone.serial, open_s=5)
    assert phone.prompt.asked.wait(10)
    assert state(server, phone.serial) == "unauthorized"


def test_device_is_found_again_after_a_reboot_and_after_the_server_was_killed(
    tmp_path: Path, server: RealAdbServer
) -> None:
    board = RealAdbd(tmp_path / "board")
    try:
        first = AdbTransport(board.serial, root=PurePosixPath(tmp_path / "root"))
        Path(first.root).mkdir(parents=True)
        (Path(first.root) / "events").write_bytes(b"kept")
        followed = first.follow(first.root / "events", 0, stop=threading.Event())
        assert next(followed) == b"kept"
        board.reboot()
        with pytest.raises(ChannelError):
            list(followed)
        second = AdbTransport(board.serial, root=PurePosixPath(tmp_path / "root"))
        assert second.run(["cat", str(second.root / "events")], deadline=soon()).stdout == b"kept"
        server.daemon.stop()
        with pytest.raises(ChannelError):
            second.run(["true"], deadline=soon(3))
        third = AdbTransport(board.serial, root=PurePosixPath(tmp_path / "root"))
        assert third.run(["echo", "back"], deadline=soon()).stdout == b"back\n"
    finally:
        board.stop()


def test_hot_plug_and_unplug_are_told_without_asking(tmp_path: Path, server: RealAdbServer) -> None:
    board = RealAdbd(tmp_path / "board")
    seen: list[list[tuple[str, str]]] = []
    stop = threading.Event()

    def watch() -> None:
        for listed in adb_wire.track_devices(Server(port=server.port), stop):
            seen.append([(entry.serial, entry.state) for entry in listed])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wait_for(lambda: seen == [[]], "the first list")
    AdbTransport(board.serial).close()
    wait_for(lambda: seen[-1] == [(board.serial, "device")], "the plugged device")
    board.stop()
    wait_for(lambda: seen[-1] != [(board.serial, "device")], "the unplugged device")
    stop.set()
    watcher.join(5)
    assert not watcher.is_alive()


def test_compressed_transfers_arrive_unchanged(tmp_path: Path, server: RealAdbServer) -> None:
    board = RealAdbd(tmp_path / "board")
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(b"sparse and quantised " * 200_000)
    try:
        for compression in ("none", "zstd"):
            transport = AdbTransport(board.serial, root=PurePosixPath(tmp_path / "root"), compression=compression)
            target = PurePosixPath(transport.root) / compression
            transport.push(source, target, deadline=soon())
            assert Path(target).read_bytes() == source.read_bytes()
            transport.pull(target, back, deadline=soon())
            assert back.read_bytes() == source.read_bytes()
            transport.close()
    finally:
        board.stop()


def test_compressed_push_of_what_compresses_moves_fewer_bytes(tmp_path: Path, server: RealAdbServer) -> None:
    board = RealAdbd(tmp_path / "board")
    proxy = FaultProxy(board.port)
    source = tmp_path / "source"
    source.write_bytes(b"sparse and quantised " * 200_000)
    moved = []
    try:
        for compression in ("none", "zstd"):
            transport = AdbTransport(
                f"127.0.0.1:{proxy.port}", root=PurePosixPath(tmp_path / "root"), compression=compression
            )
            before = proxy.passed("up")
            transport.push(source, transport.root / "file", deadline=soon())
            moved.append(proxy.passed("up") - before)
            transport.close()
    finally:
        proxy.close()
        board.stop()
    assert moved[0] > 4_200_000
    assert moved[1] < 100_000
