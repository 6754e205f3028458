"""Every transport passes the one suite in this folder.

To add one: append its name to ``KINDS`` and define two fixtures here (or import them from ``tests/support``):
``NAME_transport`` yields an open transport with an empty root, ``NAME_full_disk`` one that has no room for a megabyte.
``reopen`` opens the same device again.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_rig import RealAdbd, RealAdbServer, RealSshd
from socbench.transports import open_transport
from socbench.transports.base import Deadline, Transport

KINDS = ["local", "fake", "adb", "adb_direct", "ssh"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transport(request: pytest.FixtureRequest, kind: str) -> Transport:
    found: Transport = request.getfixturevalue(f"{kind}_transport")
    return found


@pytest.fixture
def full_disk(request: pytest.FixtureRequest, kind: str) -> Transport:
    found: Transport = request.getfixturevalue(f"{kind}_full_disk")
    return found


@pytest.fixture
def reopen(transport: Transport) -> Iterator[Callable[[], Transport]]:
    """Open the device of ``transport`` once more, over a channel of its own."""
    opened: list[Transport] = []

    def again() -> Transport:
        opened.append(open_transport(transport.address))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def soon() -> Deadline:
    return Deadline.after(60.0, "a command of the conformance suite")


@pytest.fixture
def local_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    monkeypatch.setenv("SOCBENCH_DEVICE_ROOT", str(tmp_path / "device"))
    opened = open_transport("local")
    yield opened
    opened.close()


@pytest.fixture
def local_full_disk(local_transport: Transport) -> Iterator[Transport]:
    # A limit on file sizes stands for the full disk: it needs no root, and ends a write in the middle as a disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    yield local_transport
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def fake_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    monkeypatch.setenv("SOCBENCH_FAKE_ROOT", str(tmp_path / "fakes"))
    opened = open_transport("fake:conformance")
    yield opened
    opened.close()


@pytest.fixture
def fake_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    script = tmp_path / "fakes.json"
    script.write_text('{"conformance": {"disk_bytes": 262144}}', encoding="utf-8")
    monkeypatch.setenv("SOCBENCH_FAKE_ROOT", str(tmp_path / "fakes"))
    monkeypatch.setenv("SOCBENCH_FAKE_SCRIPT", str(script))
    opened = open_transport("fake:conformance")
    yield opened
    opened.close()


# Real daemons on loopback: Debian's adbd and ADB server, the system's sshd. Started once, their folder emptied a test.


@pytest.fixture(scope="session")
def real_adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbServer]:
    server = RealAdbServer(tmp_path_factory.mktemp("adb-server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def real_adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path_factory.mktemp("adbd") / "device")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def full_adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path_factory.mktemp("adbd-full") / "device", small_disk="256k")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def real_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path_factory.mktemp("sshd") / "board")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def full_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path_factory.mktemp("sshd-full") / "board", small_disk="256k")
    yield daemon
    daemon.stop()


def _over_adb(daemon: RealAdbd, server: RealAdbServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    shutil.rmtree(daemon.root, ignore_errors=True)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    opened = open_transport(f"adb:{daemon.serial}")
    yield opened
    opened.close()


def _over_ssh(daemon: RealSshd, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    shutil.rmtree(daemon.root, ignore_errors=True)
    daemon.make_home(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    opened = open_transport("ssh:board")
    yield opened
    opened.close()


@pytest.fixture
def adb_transport(
    real_adbd: RealAdbd, real_adb_server: RealAdbServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Transport]:
    yield from _over_adb(real_adbd, real_adb_server, monkeypatch)


@pytest.fixture
def adb_full_disk(
    full_adbd: RealAdbd, real_adb_server: RealAdbServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Transport]:
    yield from _over_adb(full_adbd, real_adb_server, monkeypatch)


def _without_server(daemon: RealAdbd) -> Iterator[Transport]:
    shutil.rmtree(daemon.root, ignore_errors=True)
    opened = open_transport(f"adb-direct:{daemon.serial}")
    yield opened
    opened.close()


@pytest.fixture
def adb_direct_transport(real_adbd: RealAdbd) -> Iterator[Transport]:
    yield from _without_server(real_adbd)


@pytest.fixture
def adb_direct_full_disk(full_adbd: RealAdbd) -> Iterator[Transport]:
    yield from _without_server(full_adbd)


@pytest.fixture
def ssh_transport(real_sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    yield from _over_ssh(real_sshd, tmp_path / "home", monkeypatch)


@pytest.fixture
def ssh_full_disk(full_sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    yield from _over_ssh(full_sshd, tmp_path / "home", monkeypatch)
