"""SSH as a board's user meets it: host keys, refused keys, jump hosts, aliases, dead links, unusual names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from device_rig import RealSshd
from fault_proxy import FaultProxy
from socbench.devices import discover
from socbench.devices.config import ConfiguredDevice, DevicesConfig
from socbench.errors import ChannelError, UsageError
from socbench.transports.base import Deadline
from socbench.transports.ssh import SshStateError, SshTransport


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


@pytest.fixture
def board(tmp_path: Path) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path / "board")
    yield daemon
    daemon.stop()


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds)


def name(board: RealSshd) -> str:
    return f"{board.user}@127.0.0.1:{board.port}"


def refused(board: RealSshd, **changed: Any) -> SshStateError:
    with pytest.raises(SshStateError) as caught:
        SshTransport(name(board), **{**board.client_options(), **changed})
    return caught.value


def test_unknown_host_key_is_not_accepted(board: RealSshd) -> None:
    board.known_hosts.write_text("")
    error = refused(board)
    assert error.state == "host_key_not_trusted"
    assert f"`ssh -p {board.port} {board.user}@127.0.0.1`" in str(error)
    assert board.known_hosts.read_text() == ""


def test_changed_host_key_is_not_accepted_and_the_old_one_is_named(board: RealSshd) -> None:
    board.distrust()
    error = refused(board)
    assert error.state == "host_key_not_trusted"
    assert f"`ssh-keygen -R '[127.0.0.1]:{board.port}'`" in str(error)


def test_key_that_the_board_does_not_know_is_refused_with_advice(board: RealSshd) -> None:
    error = refused(board, identity_file=str(board.folder / "other_key"))
    assert error.state == "unauthorized"
    assert f"ssh-copy-id -p {board.port}" in str(error)


def test_alias_of_the_openssh_configuration_is_enough(board: RealSshd, tmp_path: Path) -> None:
    home = tmp_path / "nobody"
    board.make_home(home)
    transport = SshTransport("board")
    assert transport.run(["echo", "in"], deadline=soon()).stdout == b"in\n"
    assert transport.address == "ssh:board"
    transport.close()


def test_board_behind_a_jump_host_is_reached_through_it(board: RealSshd, tmp_path: Path) -> None:
    gateway = RealSshd(tmp_path / "gateway")
    try:
        home = tmp_path / "nobody"
        gateway.make_home(home)
        config = home / ".ssh" / "config"
        inner = (
            f"Host inner\n  HostName 127.0.0.1\n  Port {board.port}\n  User {board.user}\n  ProxyJump board\n"
            f"  IdentityFile {board.folder / 'client_key'}\n  UserKnownHostsFile {board.known_hosts}\n"
        )
        config.write_text(config.read_text() + inner)
        transport = SshTransport("inner")
        seen = transport.run(["sh", "-c", "echo $SSH_CONNECTION"], deadline=soon()).stdout.split()
        transport.close()
        assert int(seen[3]) == board.port
        assert "Accepted publickey" in gateway.daemon.log.read_text()
    finally:
        gateway.stop()


@pytest.mark.parametrize("bad", ["-oProxyCommand=id", "a@b@c", "host:port", "", "host:123456", "x:22:33"])
def test_address_that_is_none_is_said(bad: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        SshTransport(bad)


def test_board_that_is_not_there_is_a_broken_channel(board: RealSshd) -> None:
    board.stop()
    with pytest.raises(ChannelError, match="cannot be reached"):
        SshTransport(name(board), **board.client_options())  # type: ignore[arg-type]


def test_dead_link_is_noticed_while_a_command_runs(board: RealSshd) -> None:
    proxy = FaultProxy(board.port)
    board.trust(proxy.port)
    transport = SshTransport(f"{board.user}@127.0.0.1:{proxy.port}", **board.client_options())  # type: ignore[arg-type]
    proxy.stall_after(0, "down")
    with pytest.raises(ChannelError, match="broke"):
        transport.run(["sleep", "3600"], deadline=soon(60))
    transport.close()
    proxy.close()


def test_reboot_is_a_broken_channel_and_the_board_is_reached_again(board: RealSshd) -> None:
    first = SshTransport(name(board), **board.client_options())  # type: ignore[arg-type]
    board.reboot()
    with pytest.raises(ChannelError):
        first.run(["true"], deadline=soon())
    again = SshTransport(name(board), **board.client_options())  # type: ignore[arg-type]
    assert again.run(["echo", "up"], deadline=soon()).stdout == b"up\n"
    again.close()
    first.close()


def test_configured_boards_are_listed_ready_or_with_advice(board: RealSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    settings = {k: str(v) for k, v in board.client_options().items() if k != "config"}
    good = ConfiguredDevice("good", f"ssh:{name(board)}", **settings)
    bad = ConfiguredDevice("bad", f"ssh:{board.user}@127.0.0.1:1", **settings)
    listed = discover(DevicesConfig(Path(), {"good": good, "bad": bad}))
    assert [(device.device, device.state) for device in listed] == [
        ("local", "ready"),
        (good.address, "ready"),
        (bad.address, "unreachable"),
    ]
    assert listed[1].key == listed[0].key  # the same machine, reached over SSH
    assert listed[2].advice is not None
    assert "cannot be reached" in listed[2].advice


def test_root_of_the_configuration_is_where_everything_goes(board: RealSshd, tmp_path: Path) -> None:
    root = PurePosixPath(tmp_path / "big disk" / "socbench")
    transport = SshTransport(name(board), root=root, **board.client_options())  # type: ignore[arg-type]
    assert transport.root == root
    transport.close()
