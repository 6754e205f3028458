"""A board over a real sshd: set up by its own pip or with wheels that the host downloads, measured, cleaned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_rig import RealSshd
from session_home import ROOT, Home, make_home, processes_of
from socbench.agents.setup import platform_tags

RESNET8 = ROOT / "models" / "resnet8" / "resnet8-fp32.onnx"


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path_factory.mktemp("sshd") / "board")
    yield daemon
    daemon.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: RealSshd) -> Home:
    board.make_home(tmp_path / "user")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return make_home(tmp_path, monkeypatch)


def call(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "socbench", *arguments],
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return list(json.loads(done.stdout))


def test_a_board_is_set_up_from_nothing_measures_and_is_cleaned(home: Home, board: RealSshd) -> None:
    # The board's Python is Debian's own, with neither NumPy nor a runtime.
    first = call(home, "devices", "setup", "ssh:board", "--runtime", "onnxruntime", "--offline", "--json")
    assert first.returncode == 0, first.stderr
    (row,) = rows(first)
    assert (row["runtime"], row["state"], row["reason"]) == ("onnxruntime", "works", None)
    assert "MB) to ssh:board" in first.stderr
    assert listed(board.home) == set(), "nothing outside socbench's own folder is touched"

    run = ("run", str(RESNET8), "-d", "ssh:board", "--repeat", "1", "--min-time", "0.05", "--min-count", "5")
    done = call(home, *run, "--json")
    assert done.returncode == 0, done.stderr
    (measured,) = rows(done)
    assert (measured["runtime"], measured["status"]) == ("onnxruntime", "done")
    assert measured["fidelity"]["within_tolerance"] is True
    assert f"{board.root}/environment" not in done.stdout

    cleaned = call(home, "devices", "clean", "ssh:board", "--json")
    kept = {thing["kind"]: thing["kept"] for thing in rows(cleaned) if thing["kept"]}
    assert kept["environment"] == "the runtimes that devices setup installed"
    assert not list((board.root / "blobs").iterdir())
    assert (board.root / "environment" / "bin" / "python3").exists()
    assert processes_of(home) == []


def test_a_board_with_pip_and_a_network_installs_the_runtime_itself(home: Home, board: RealSshd) -> None:
    done = call(home, "devices", "setup", "ssh:board", "--runtime", "ncnn", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = rows(done)
    assert (row["runtime"], row["state"], row["source"]) == ("ncnn", "works", "its own pip")
    assert "installing ncnn with the pip of ssh:board" in done.stderr
    assert "downloading" not in done.stderr, "no wheel comes from here"
    assert listed(board.home) == set(), "nothing outside socbench's own folder is touched, pip's cache neither"
    assert not (board.root / "tmp").exists()


def test_a_board_whose_pip_brings_nothing_gets_the_wheels_of_this_host(home: Home, board: RealSshd) -> None:
    settings = (
        (board.folder / "sshd_config").read_text().replace("SetEnv ", "SetEnv PIP_NO_INDEX=1 PIP_FIND_LINKS=/none ")
    )
    (board.folder / "sshd_config").write_text(settings)
    board.reboot()
    done = call(home, "devices", "setup", "ssh:board", "--runtime", "ncnn", "--json")
    assert done.returncode == 0, done.stderr
    assert "the pip of ssh:board brings nothing (No matching distribution found for" in done.stderr
    assert [(row["state"], row["source"]) for row in rows(done)] == [("works", "wheels of this host")]


def test_a_board_without_python_is_told_of_the_native_agent(home: Home, board: RealSshd) -> None:
    empty = board.folder / "bin"
    empty.mkdir()
    for tool in ("sh", "mkdir", "cat", "stat", "touch", "rm", "mv", "df", "tail", "env", "kill", "cut", "sleep"):
        (empty / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    settings = (board.folder / "sshd_config").read_text().replace("SetEnv ", f"SetEnv PATH={empty} ")
    (board.folder / "sshd_config").write_text(settings)
    board.reboot()
    done = call(home, "devices", "setup", "ssh:board")
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("socbench: ssh:board has no Python 3.8 or newer")
    assert "--agent native" in last


def test_a_runtime_that_does_not_come_as_a_package_is_refused(home: Home) -> None:
    done = call(home, "devices", "setup", "ssh:board", "--runtime", "tensorrt")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("socbench: tensorrt does not come as a package for boards")


@pytest.mark.parametrize(
    ("machine", "bits", "libc", "first", "last"),
    [
        ("aarch64", 64, ("glibc", "2.36"), "manylinux_2_36_aarch64", "linux_aarch64"),
        ("aarch64", 32, ("glibc", "2.31"), "manylinux_2_31_armv7l", "linux_armv7l"),
        ("armv7l", 32, ("glibc", "2.28"), "manylinux_2_28_armv7l", "linux_armv7l"),
        ("x86_64", 64, ("", ""), "musllinux_1_2_x86_64", "linux_x86_64"),
    ],
)
def test_the_tags_of_a_boards_wheels_follow_its_userland(
    machine: str, bits: int, libc: tuple[str, str], first: str, last: str
) -> None:
    tags = platform_tags(machine, bits, libc)
    assert (tags[0], tags[-1]) == (first, last)
    assert ("manylinux2014_aarch64" in tags) == (tags[0] == "manylinux_2_36_aarch64")
