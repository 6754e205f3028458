"""Room on a device over a real adbd and a real sshd: what was not used for longest goes first, what is in use stays."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_link import Link
from device_rig import RealAdbd, RealAdbServer, RealSshd
from session_home import Home, make_home, processes_of, wait_until
from socbench.agents.channel import Channel
from socbench.agents.clean import Thing, remove, survey
from socbench.agents.provision import DeviceFile, provision
from socbench.cache import sha256_of_file
from socbench.cli.progress import watching
from socbench.errors import FailedError
from socbench.session.boards import clean_device
from socbench.transports.base import Deadline


@pytest.fixture
def channel(link: Link) -> Iterator[Channel]:
    made = Channel("tested", opener=lambda _: link.open())
    made.transport.run(["rm", "-rf", str(made.transport.root)], deadline=Deadline.after(30))
    yield made
    made.close()


def device_file(folder: Path, name: str, size: int) -> DeviceFile:
    """A file of the host that is years old, as models are."""
    path = folder / name
    path.write_bytes(os.urandom(size))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    sha256 = sha256_of_file(path)
    return DeviceFile(path, sha256, f"{sha256}.{name}")


def give(channel: Channel, *files: DeviceFile) -> int:
    """Provision files; return how many of them were pushed."""
    return len(provision(channel, files, deadline=Deadline.after(60)).pushed)


def by_name(things: list[Thing], *files: DeviceFile) -> list[Thing]:
    return [next(thing for thing in things if thing.path == f"blobs/{file.name}") for file in files]


def test_what_was_not_used_for_longest_goes_first_and_a_second_run_counts_as_a_use(
    channel: Channel, tmp_path: Path
) -> None:
    files = [device_file(tmp_path, name, 100_000) for name in ("a", "b", "c")]
    assert give(channel, *files) == 3
    assert max(thing.unused_s for thing in survey(channel)) < 60, "new on the device is not old, whatever its source is"

    for age_s, file in zip((3000, 2000, 1000), files, strict=True):
        path = channel.transport.root / "blobs" / file.name
        os.utime(path, (time.time() - age_s,) * 2)
    assert give(channel, files[0]) == 0
    a, b, c = by_name(survey(channel, keep_bytes=250_000), *files)
    assert a.unused_s < 60, "the second run used it"
    assert (b.unused_s // 100, c.unused_s // 100) == (20, 10)
    assert (a.keep, b.keep, c.keep) == ("used last", None, "used last")

    remove(channel, [thing for thing in survey(channel, keep_bytes=250_000) if thing.keep is None])
    left = {path.name for path in Path(channel.transport.root / "blobs").iterdir()}
    assert left == {files[0].name, files[2].name}
    assert give(channel, *files) == 1, "it comes again when it is needed"


def test_a_second_push_of_the_same_content_is_one_round_trip_and_moves_no_file_bytes(
    channel: Channel, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = device_file(tmp_path, "model", 5_000_000)
    assert give(channel, file) == 1
    calls: list[str] = []

    def counted(name: str, call: Any) -> Any:
        def calling(*arguments: object, **named: object) -> object:
            calls.append(name)
            return call(*arguments, **named)

        return calling

    for name in ("run", "spawn", "push", "pull"):
        monkeypatch.setattr(channel.transport, name, counted(name, getattr(channel.transport, name)))
    accepted, before = link.proxy.accepted, link.proxy.passed("up")
    assert give(channel, file) == 0
    assert calls == ["run"]
    assert link.proxy.accepted == accepted, "on the open connection"
    assert link.proxy.passed("up") - before < 10_000


@pytest.mark.parametrize("left", [0, 1_000_000])
def test_a_file_whose_end_was_lost_when_the_power_went_is_pushed_again(
    channel: Channel, tmp_path: Path, left: int
) -> None:
    file = device_file(tmp_path, "model", 3_000_000)
    give(channel, file)
    on_device = Path(channel.transport.root / "blobs" / file.name)
    os.truncate(on_device, left)
    assert give(channel, file) == 1
    assert on_device.read_bytes() == file.source.read_bytes()


def test_a_large_file_that_does_not_fit_takes_everything_older_with_it(channel: Channel, tmp_path: Path) -> None:
    files = [device_file(tmp_path, n, s) for n, s in (("old", 9000), ("large", 400_000), ("young", 9000))]
    give(channel, *files)
    for age_s, file in zip((300, 200, 100), files, strict=True):
        os.utime(channel.transport.root / "blobs" / file.name, (time.time() - age_s,) * 2)
    kept = {thing.path: thing.keep for thing in survey(channel, keep_bytes=100_000)}
    assert [kept[f"blobs/{file.name}"] for file in files] == [None, None, "used last"]


def with_python(real: RealSshd | RealAdbd) -> Path:
    """Give a device a Python of its own, as ``socbench devices setup`` does; return socbench's folder there."""
    python = real.root / "environment" / "bin" / "python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return real.root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


def clean(address: str) -> list[Thing]:
    with watching() as progress:
        return clean_device(address, keep_bytes=0, everything=True, dry_run=False, wait=False, progress=progress)


SLOW = {"clock": "real", "latency_ns": 5_000_000}


def test_what_a_run_uses_is_not_removed(
    home: Home, monkeypatch: pytest.MonkeyPatch, adbd: RealAdbd, adb_server: RealAdbServer
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.port))
    address, root = f"adb:{adbd.serial}", with_python(adbd)
    options = ("--repeat", "1", "-d", address, "--min-time", "300")
    process = home.start(home.null("watched", **SLOW), options=options)
    sessions = home.store / "sessions"
    wait_until(lambda: sessions.is_dir() and '"phase":"measure"' in home.journal_text(home.session()), 60)
    with pytest.raises(FailedError, match=f"{address} is in use by session {home.session()}"):
        clean(address)
    assert len(list((root / "blobs").iterdir())) >= 2
    process.terminate()
    process.communicate(timeout=60)
    assert processes_of(home) == []


def test_what_a_detached_run_uses_is_not_removed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: RealSshd
) -> None:
    sshd.make_home(tmp_path / "user")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    address, root = "ssh:board", with_python(sshd)
    result = home.run(home.null("alone", **SLOW), devices=(address,), repeat=1, min_time_s=4.0, detach=True)
    with pytest.raises(FailedError, match=f"has a run of session {result.session} that was not ended"):
        clean(address)
    assert home.collect(result.session).status == "complete", "nothing of it was removed"
    assert {thing.keep for thing in clean(address)} == {None}
    assert not any((root / name).exists() for name in ("environment", "cache"))
    assert list((root / "blobs").iterdir()) == []
    assert processes_of(home) == []
