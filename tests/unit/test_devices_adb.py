"""The ADB client against a fake server: states, odd and duplicate serials, garbage, floods, silence."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_adb_server import FakeAdbServer, Handler, answer_root, exact, packet
from socbench.devices import discover
from socbench.devices.config import DevicesConfig
from socbench.errors import ChannelError, DeadlineError
from socbench.transports.adb import AdbLostError, AdbStateError, AdbTransport, address_of, state_and_advice
from socbench.transports.adb_wire import Listed, Server, parse_devices
from socbench.transports.base import Deadline

Serve = Callable[..., FakeAdbServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    made: list[FakeAdbServer] = []

    def start(devices: str, handler: Handler | None = None) -> FakeAdbServer:
        made.append(FakeAdbServer(devices, handler))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(made[-1].port))
        monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
        return made[-1]

    yield start
    for server in made:
        server.close()


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


def test_list_of_devices_is_read_in_all_its_shapes() -> None:
    text = (
        "* daemon not running. starting it now on port 5037 *\n* daemon started successfully *\n"
        "List of devices attached \n"
        "adb server version (41) doesn't match this client (39); killing...\n"
        "0123456789abcdef\tunauthorized usb:1-1 transport_id:3\n"
        "3731B535FAC2 device usb:1-4.2 product:soju model:Nexus_S device:crespo\n"
        "01498B1F0201 device usb:1-4.1\n"
        "192.0.2.10:41012   offline product:P model:M device:D transport_id:24\n"
        "????????????    no permissions (missing udev rules? user is in the plugdev group); "
        "see [http://developer.android.com/tools/device.html] usb:2-1\n"
        "XX01 recovery product:omni\n\n"
    )
    found = [(entry.serial, state_and_advice(entry.state)[0], entry.usb) for entry in parse_devices(text)]
    assert found == [
        ("0123456789abcdef", "unauthorized", "usb:1-1"),
        ("3731B535FAC2", "device", "usb:1-4.2"),
        ("01498B1F0201", "device", "usb:1-4.1"),
        ("192.0.2.10:41012", "offline", None),
        ("????????????", "no_permission", "usb:2-1"),
        ("XX01", "recovery", None),
    ]
    assert parse_devices("") == parse_devices("List of devices attached\n\n") == []


def test_devices_that_share_a_serial_are_named_by_their_usb_path() -> None:
    listed = [
        Listed("SAME", "device", "usb:1-1"),
        Listed("SAME", "device", "usb:1-2"),
        Listed("ONE", "device", "usb:3-1"),
    ]
    assert [address_of(entry, listed) for entry in listed] == ["adb:usb:1-1", "adb:usb:1-2", "adb:ONE"]


@pytest.mark.parametrize("state", ["unauthorized", "no permissions (missing udev rules?)", "bootloader", "recovery"])
def test_device_that_cannot_be_used_is_listed_with_advice(serve: Serve, state: str) -> None:
    serve(f"SERIAL\t{state} usb:1-1 transport_id:1\n")
    (found,) = [device for device in discover(DevicesConfig(Path())) if device.device != "local"]
    assert found.device == "adb:SERIAL"
    assert found.state not in ("ready", "device")
    assert found.advice
    with pytest.raises(AdbStateError, match="SERIAL is"):
        AdbTransport("SERIAL")


def test_absent_device_is_said_to_be_absent(serve: Serve) -> None:
    serve("OTHER\tdevice\n")
    with pytest.raises(AdbLostError, match="SERIAL is not attached"):
        AdbTransport("SERIAL")


@pytest.mark.parametrize("serial", ["a b", "x;reboot", "$(id)", "ünï-✓", "'\"", "usb:1-4.2", "-s", "a:b:c"])
def test_serial_with_odd_characters_reaches_the_server_as_it_is(serve: Serve, serial: str) -> None:
    server = serve("")
    listed = [Listed(serial, "device")]
    assert address_of(listed[0], listed) == f"adb:{serial}"
    server.devices = f"{serial.replace(' ', '_')}\tdevice\n" if " " in serial else f"{serial}\tdevice\n"
    name = serial.replace(" ", "_")
    transport = AdbTransport(name)
    transport.run(["echo", "it's"], deadline=soon())
    assert f"host:tport:serial:{name}" in server.asked
    assert str(transport.root) == "/data/local/tmp/socbench"


def opened_then(after: Handler) -> Handler:
    """Answer the opening, then hand every other command to ``after``."""

    def handle(connection: socket.socket, service: str) -> None:
        if "printf %s" in service:
            answer_root(connection, service)
        else:
            after(connection, service)

    return handle


def test_flood_of_output_is_cut_without_being_kept(serve: Serve) -> None:
    block = packet(1, b"x" * (1 << 20))

    def flood(connection: socket.socket, service: str) -> None:
        for _ in range(200):
            connection.sendall(block)
        connection.sendall(packet(3, b"\0"))

    serve("S\tdevice\n", opened_then(flood))
    done = AdbTransport("S").run(["cat"], deadline=soon(60), limit_bytes=10_000)
    assert (len(done.stdout), done.truncated, done.exit_code) == (10_000, True, 0)


@pytest.mark.parametrize(
    "garbage", [b"\x01\xff\xff\xff\xff", b"\x09" * 4, b"", packet(1, b"half")[:-2], b"\x01\x00\x00\x00\x7f"]
)
def test_garbage_and_early_ends_are_a_broken_channel(serve: Serve, garbage: bytes) -> None:
    serve("S\tdevice\n", opened_then(lambda connection, _: connection.sendall(garbage)))
    with pytest.raises(ChannelError, match="adb:S"):
        AdbTransport("S").run(["true"], deadline=soon())


def test_program_that_is_no_adb_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ChannelError, match=r"speaks no ADB|broke"):
            AdbTransport("S", server=Server(port=listener.getsockname()[1]))


def test_device_that_never_answers_ends_at_the_deadline(serve: Serve) -> None:
    gate = threading.Event()
    serve("S\tdevice\n", opened_then(lambda connection, _: gate.wait(20) and None))
    transport = AdbTransport("S")
    with pytest.raises(DeadlineError, match=r"sleep on adb:S did not end in time"):
        transport.run(["sleep", "9"], deadline=soon(0.3))
    gate.set()


def test_silent_follower_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socbench.transports.far_shell.SILENCE_S", 0.5)
    gate = threading.Event()
    serve("S\tdevice\n", opened_then(lambda connection, _: gate.wait(20) and None))
    transport = AdbTransport("S")
    with pytest.raises(ChannelError, match="no sign of life"):
        list(transport.follow(transport.root / "events", 0, stop=threading.Event()))
    gate.set()


def test_device_that_refuses_a_file_early_is_believed_before_all_was_sent(serve: Serve, tmp_path: Path) -> None:
    received: list[int] = []

    def refuse(connection: socket.socket, service: str) -> None:
        if service != "sync:":
            answer_root(connection, service)
            return
        exact(connection, 8)
        connection.sendall(b"FAIL" + (23).to_bytes(4, "little") + b"No space left on device")
        count = 0
        while data := connection.recv(1 << 16):
            count += len(data)
        received.append(count)

    serve("S\tdevice\n", opened_then(refuse))
    big = tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(400_000_000)
    transport = AdbTransport("S")
    with pytest.raises(OSError, match="No space left"):
        transport.push(big, transport.root / "big", deadline=soon(60))
    assert received == [] or received[0] < 100_000_000
