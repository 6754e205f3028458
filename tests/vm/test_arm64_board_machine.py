"""An arm64 board with a kernel of its own, over SSH: what it is, and that a reset in a trial fails that trial only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm64_machine import Arm64Machine
from session_home import Heard, Home, make_home
from socbench.devices import discover
from socbench.devices.config import DevicesConfig, load_config

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm64Machine]:
    machine = Arm64Machine(tmp_path_factory.mktemp("arm64") / "board")
    yield machine
    machine.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Arm64Machine) -> Home:
    board.make_home(tmp_path / "user")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "devices.toml").write_text('[board]\naddress = "ssh:board"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return make_home(tmp_path, monkeypatch)


def test_an_arm64_machine_is_known_by_its_cores_and_as_emulated(home: Home) -> None:
    found: DevicesConfig = load_config()
    (device,) = [one for one in discover(found, adb=False, probe_s=120) if one.device == "ssh:board"]
    assert (device.abi, device.emulated, device.state) == ("aarch64", True, "ready")
    assert [(core.cpus, core.name) for core in device.cores] == [((0,), "Cortex-A72")]


def test_a_board_that_is_reset_in_a_trial_fails_that_trial_and_the_session_goes_on(
    home: Home, board: Arm64Machine
) -> None:
    heard, over = Heard(), threading.Event()

    def reset() -> None:
        while not over.wait(0.1):
            if heard.session and '"phase":"measure"' in home.journal_text(heard.session):
                board.reset()
                board.wait(boots=2)
                return

    resetting = threading.Thread(target=reset)
    resetting.start()
    names = [home.null(name, clock="real", latency_ns=20_000_000) for name in ("one", "two")]
    try:
        result = home.run(*names, devices=("ssh:board",), heard=heard, repeat=1, min_time_s=20.0, min_count=5)
    finally:
        over.set()
        resetting.join(timeout=900)
    assert not resetting.is_alive()
    assert sorted(status for _, status in heard.ended) == ["done", "failed"], heard.messages
    (failed,) = [row for row in home.rows(result.session, "trials") if row["status"] == "failed"]
    assert json.loads(failed["error"])["code"] == "device_rebooted"
    assert (result.status, result.exit_code) == ("complete_with_failures", 1)
