"""An arm64 board (Debian's arm64 userland, a real sshd, under qemu-user): set up from nothing, right answers, no rank.

What is emulated is slow: setting up takes most of the time. The board has no pip and no NumPy; the host downloads arm64
wheels for it (pip keeps them in ``.cache``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import device_tools
import pytest
from arm64_board import Arm64Board
from session_home import ROOT, Home, make_home

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm64Board]:
    made = Arm64Board(tmp_path_factory.mktemp("arm64") / "board")
    yield made
    made.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: Arm64Board) -> Home:
    board.make_home(tmp_path / "user")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "devices.toml").write_text('[board]\naddress = "ssh:board"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(device_tools.wheels_of_the_board()))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")  # no ADB server here: this is about the board
    return make_home(tmp_path, monkeypatch)


def call(home: Home, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "socbench", *arguments],
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def rows(home: Home, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(call(home, *arguments, "--json")))


def test_an_arm64_board_is_set_up_from_nothing_and_gives_the_right_answers_marked_emulated_and_never_ranked(
    home: Home, board: Arm64Board
) -> None:
    (listed,) = [row for row in rows(home, "devices") if row["device"] == "ssh:board"]
    assert (listed["abi"], listed["emulated"], listed["state"]) == ("aarch64", True, "ready")
    assert listed["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert [(core["cpus"], core["name"], core["max_khz"]) for core in listed["cores"]] == [
        ([0, 1, 2, 3], "Cortex-A55", 1_800_000),
        ([4, 5, 6, 7], "Cortex-A76", 2_400_000),
    ]

    made = rows(home, "devices", "setup", "ssh:board", "--runtime", "litert,onnxruntime")
    assert [(row["runtime"], row["state"], row["reason"]) for row in made] == [
        ("litert", "works", None),
        ("onnxruntime", "works", None),
    ]
    assert _outside(board) == [], "nothing outside socbench's own folder is touched"

    only = ("--precision", "fp32", "--scenario", "single_stream", "--repeat", "1", "--min-time", "0.1")
    only += ("--min-count", "3", "--allow-emulated")
    ran = rows(home, "run", "resnet8", "-d", "ssh:board", "--runtime", "litert,onnxruntime", *only)
    assert sorted(row["runtime"] for row in ran) == ["litert", "onnxruntime"]
    for row in ran:
        assert row["status"] == "done", row["error"]
        assert row["accelerator"] == "aarch64"
        assert row["fidelity"]["within_tolerance"], row["fidelity"]
        assert row["fidelity"]["cosine"] > 0.999999
        assert not row["fidelity"]["constant"]
        assert row["samples"] >= 3
        assert (row["device_emulated"], row["verdict"]) == (True, "invalid")
        assert "emulated" in row["reasons"]

    report = home.path / "report.md"
    call(home, "report", "latest", "-o", str(report))
    said = report.read_text(encoding="utf-8")
    assert "No row can be trusted, so nothing is ranked and nothing is recommended." in said


def _outside(board: Arm64Board) -> list[str]:
    """Return the files of the board's home that are not in socbench's folder, and those in its /etc, /tmp and /run."""
    found = [path for path in board.home.rglob("*") if not path.is_relative_to(board.root) and not path.is_dir()]
    found += [path for name in ("tmp", "run") for path in (board.folder / name).rglob("*")]
    return [str(path) for path in found]
