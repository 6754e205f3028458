"""A session on a real sshd: the same digits as on this machine, and none lost when the connection is cut."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from device_rig import RealSshd
from session_home import Heard, Home, make_home, processes_of, wait_until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: RealSshd) -> Home:
    sshd.make_home(tmp_path / "user")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    # What `socbench devices setup` would have made: an environment with NumPy in socbench's own folder.
    python = sshd.root / "environment" / "bin" / "python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return make_home(tmp_path, monkeypatch)


SCRIPT = [1_000_000 + 1000 * number for number in range(97)]


def _measured(home: Home, session: str) -> dict[tuple[str, int], list[int]]:
    devices = {row["trial"]: row["device"] for row in home.rows(session, "trials")}
    found: dict[tuple[str, int], list[int]] = {}
    for row in home.rows(session, "samples"):
        if row["phase"] == 2:
            found.setdefault((devices[row["trial"]], row["repetition"]), []).append(row["latency_ns"])
    return found


def test_a_board_over_ssh_gives_the_digits_that_this_machine_gives(home: Home) -> None:
    result = home.run(home.null("m", latency_ns=SCRIPT), devices=("ssh:board", "local"), min_count=150)
    assert result.status == "complete"
    found = _measured(home, result.session)
    assert found["ssh:board", 1] == found["local", 1]
    assert len(found["ssh:board", 2]) >= 150
    again = Heard()
    assert home.run(home.null("m", latency_ns=SCRIPT), devices=("ssh:board",), heard=again).status == "complete"
    assert not any("copying" in step for step in again.steps)


def test_a_restarted_sshd_in_the_middle_of_a_run_loses_no_event(home: Home, sshd: RealSshd) -> None:
    slow = home.null("slow", clock="real", latency_ns=5_000_000)
    options = ("--repeat", "2", "-d", "ssh:board", "--min-time", "1")
    process = home.start(slow, options=options)
    wait_until(
        lambda: (
            (home.store / "sessions").is_dir()
            and list((home.store / "sessions").iterdir())
            and '"phase":"measure"' in home.journal_text(home.session())
        )
    )
    sshd.reboot()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert "reconnecting" in err
    session = home.session()
    assert [row["status"] for row in home.rows(session, "repetitions")] == ["done", "done"]
    counted = {row["repetition"]: row["measured_count"] for row in home.rows(session, "repetitions")}
    assert {number: len(values) for (_, number), values in _measured(home, session).items()} == counted
    assert processes_of(home) == []
