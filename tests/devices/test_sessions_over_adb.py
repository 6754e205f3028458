"""A session on a real adbd by way of a real ADB server: none of its events is lost when the server is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_rig import RealAdbd, RealAdbServer
from session_home import Home, make_home, processes_of, wait_until


@pytest.fixture
def adb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealAdbServer]:
    """A server of this test's own, which socbench finds, and can start again by the adb on the PATH."""
    made = RealAdbServer(tmp_path / "server")
    for name in ("ANDROID_ADB_SERVER_PORT", "HOME", "PATH", "LD_LIBRARY_PATH", "ADB_USB", "ADB_MDNS"):
        monkeypatch.setenv(name, made.env[name])
    yield made
    made.adb("kill-server")
    made.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adbd: RealAdbd, adb_server: RealAdbServer) -> Home:
    # A Python with NumPy in socbench's own folder, as `socbench devices setup` makes it.
    python = adbd.root / "environment" / "bin" / "python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return make_home(tmp_path, monkeypatch)


def test_an_adb_server_killed_in_the_middle_of_a_run_is_started_again_and_no_event_is_lost(
    home: Home, adbd: RealAdbd, adb_server: RealAdbServer
) -> None:
    slow = home.null("slow", clock="real", latency_ns=5_000_000)
    process = home.start(slow, options=("--repeat", "2", "-d", f"adb:{adbd.serial}", "--min-time", "1"))
    wait_until(
        lambda: (
            (home.store / "sessions").is_dir()
            and list((home.store / "sessions").iterdir())
            and '"phase":"measure"' in home.journal_text(home.session())
        )
    )
    adb_server.daemon.stop()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert "reconnecting" in err
    session = home.session()
    assert [row["status"] for row in home.rows(session, "repetitions")] == ["done", "done"]
    counted = sum(row["measured_count"] for row in home.rows(session, "repetitions"))
    assert sum(row["phase"] == 2 for row in home.rows(session, "samples")) == counted
    assert processes_of(home) == []
