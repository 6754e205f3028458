"""A session on a real adbd by way of a real ADB server: none of its events is lost when the server is killed."""

from __future__ import annotations

import json
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


def lay_out_libraries(folder: Path) -> None:
    """Put this machine's ONNX Runtime and LiteRT where `socbench runtimes fetch` would put them."""
    import ai_edge_litert
    import onnxruntime

    folder.mkdir(parents=True)
    (onnx,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (folder / "libonnxruntime.so").symlink_to(onnx)
    (folder / "libLiteRt.so").symlink_to(Path(next(iter(ai_edge_litert.__path__))) / "libLiteRt.so")


def test_the_native_agent_measures_on_a_device_behind_adb_and_its_answers_are_right(
    home: Home, adbd: RealAdbd, adb_server: RealAdbServer
) -> None:
    lay_out_libraries(Path(home.environment["SOCBENCH_CACHE"]) / "vendor" / "linux-x86_64")
    options = ("--agent", "native", "-d", f"adb:{adbd.serial}", "--runtime", "litert,onnxruntime", "--repeat", "1")
    delegates = ("--precision", "fp32", "--delegate", "cpu:xnnpack,cpu:mlas", "--scenario", "single_stream", "--json")
    process = home.start("resnet8", options=(*options, *delegates))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    rows = [row for row in json.loads(out) if row["status"] != "excluded"]
    assert {row["runtime"] for row in rows} == {"litert", "onnxruntime"}
    for row in rows:
        assert (row["status"], row["delegation"], row["fidelity"]["within_tolerance"]) == ("done", "full", True)
        assert row["fidelity"]["cosine"] > 0.99999
    assert (adbd.root / "agent").is_dir(), "the agent lies on the device"
    assert processes_of(home) == []
