"""Real adbd, ADB server and sshd for the tests in this folder: started once, in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from device_link import Link
from device_rig import RealAdbd, RealAdbServer, RealSshd


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbServer]:
    server = RealAdbServer(tmp_path_factory.mktemp("adb-server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path_factory.mktemp("adbd") / "device")
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path_factory.mktemp("sshd") / "board")
    yield daemon
    daemon.stop()


@pytest.fixture(params=["adb", "ssh"])
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    if request.param == "adb":
        made = Link("adb", request.getfixturevalue("adbd"), request.getfixturevalue("adb_server"))
    else:
        made = Link("ssh", request.getfixturevalue("sshd"), None)
    yield made
    made.close()
