"""One command, three devices: this machine, a board over a real sshd, a device over a real adbd; links are pulled."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_rig import RealAdbd, RealAdbServer, RealSshd
from fault_proxy import FaultProxy
from session_home import ROOT, Heard, Home, make_home, processes_of, wait_until
from socbench.records import Failure, TrialPlan

RESNET8 = ROOT / "models" / "resnet8" / "resnet8-fp32.onnx"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    daemon = RealSshd(tmp_path_factory.mktemp("sshd") / "board", machine_id="b" * 32)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def adbd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAdbd]:
    daemon = RealAdbd(tmp_path_factory.mktemp("adbd") / "device", machine_id="a" * 32)
    yield daemon
    daemon.stop()


@pytest.fixture
def links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: RealSshd, adbd: RealAdbd, adb_server: RealAdbServer
) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Proxies in front of ``ssh:board`` and of the adb device; both have a Python with NumPy in socbench's folder."""
    proxies = FaultProxy(sshd.port), FaultProxy(adbd.port)
    sshd.make_home(tmp_path / "user")
    config = tmp_path / "user" / ".ssh" / "config"
    config.write_text(config.read_text().replace(f"Port {sshd.port}", f"Port {proxies[0].port}"))
    sshd.trust(sshd.port, proxies[0].port)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.port))
    for root in (sshd.root, adbd.root):
        python = root / "environment" / "bin" / "python3"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    yield proxies
    adb_server.adb("disconnect")
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: tuple[FaultProxy, FaultProxy]) -> Home:
    return make_home(tmp_path, monkeypatch)


def test_one_command_measures_three_devices_though_both_links_are_pulled_and_its_report_compares_them(
    home: Home, links: tuple[FaultProxy, FaultProxy]
) -> None:
    board, phone = links
    devices = ("local", "ssh:board", f"adb:127.0.0.1:{phone.port}")
    words = [word for device in devices for word in ("-d", device)]
    only = ("--runtime", "onnxruntime", "--min-time", "0.8")
    process = home.start(str(RESNET8), options=(*words, *only, "--repeat", "2", "--label", "three"))

    def measuring(which: int) -> bool:
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        journals = list((home.store / "sessions").glob(f"*/journal/{devices[which][:3]}*/job-*.jsonl"))
        return any('"phase":"measure"' in path.read_text() for path in journals)

    wait_until(lambda: measuring(1), 120)
    board.cut_now()
    wait_until(lambda: measuring(2), 120)
    phone.cut_now()
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, (out, err)
    assert err.count("reconnecting") >= 2, err

    session = home.session()
    trials = {row["trial"]: row["device"] for row in home.rows(session, "trials")}
    assert set(trials.values()) == set(devices)
    repetitions = home.rows(session, "repetitions")
    assert sorted((trials[row["trial"]], row["repetition"]) for row in repetitions) == sorted(
        (device, number) for device in devices for number in (1, 2)
    )
    assert {row["status"] for row in repetitions} == {"done"}
    counted = {(row["trial"], row["repetition"]): row["measured_count"] for row in repetitions}
    arrived = dict.fromkeys(counted, 0)
    for row in home.rows(session, "samples"):
        arrived[row["trial"], row["repetition"]] += row["phase"] == 2
    assert arrived == counted, "every event once"

    environment = {**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")}
    report = [sys.executable, "-m", "socbench", "report", "three", "-o"]
    for name in ("r.html", "r.csv"):
        subprocess.run([*report, str(home.path / name)], env=environment, check=True, capture_output=True)
    page = (home.path / "r.html").read_text()
    assert all(device in page for device in devices)
    rows = list(csv.DictReader(io.StringIO((home.path / "r.csv").read_text())))
    assert {row["device"] for row in rows} == set(devices)
    compare = [sys.executable, "-m", "socbench", "compare", "three", "--by", "device", "--json"]
    told = subprocess.run(compare, env=environment, check=True, capture_output=True, text=True)
    assert {pair["device"] for pair in json.loads(told.stdout)} == {f"local -> {device}" for device in devices[1:]}
    assert processes_of(home) == []


class PullingBetween(Heard):
    """Pulls a device's link when its first trial has ended, plugs it in again after half a second."""

    def __init__(self, links: dict[str, tuple[FaultProxy, Path]]) -> None:
        super().__init__()
        self.links = links
        self.measured: dict[str, int] = {}
        """Repetitions that had begun to be measured on the device when its link was pulled."""

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        super().trial_ended(trial, status, failure)
        if trial.device in self.measured or trial.device not in self.links:
            return
        link, root = self.links[trial.device]
        link.refuse()
        (events,) = (root / "sessions" / self.session).glob("events.jsonl")
        self.measured[trial.device] = events.read_text().count('"phase":"measure"')
        threading.Timer(0.5, link.heal).start()


def test_links_that_are_pulled_between_trials_lose_no_event(
    home: Home, links: tuple[FaultProxy, FaultProxy], sshd: RealSshd, adbd: RealAdbd
) -> None:
    devices = ("local", "ssh:board", f"adb:127.0.0.1:{links[1].port}")
    heard = PullingBetween({devices[1]: (links[0], sshd.root), devices[2]: (links[1], adbd.root)})
    models = [home.null(name, latency_ns=[ms * 1_000_000 + n for n in range(97)]) for name, ms in (("a", 1), ("b", 2))]
    # Between two repetitions a device that tells no temperature waits five times the measured time: 3 s.
    result = home.run(*models, devices=devices, repeat=1, min_time_s=0.6, heard=heard)
    assert result.status == "complete"
    assert heard.measured == {devices[1]: 1, devices[2]: 1}, "pulled between the trials"
    assert sum("reconnecting" in text for text in heard.messages) >= 2
    assert {one.device for one in heard.updates if one.phase == "reconnecting"} == set(devices[1:])
    trials = {row["trial"]: row for row in home.rows(result.session, "trials")}
    digits: dict[tuple[str, str], list[int]] = {}
    for row in home.rows(result.session, "samples"):
        if row["phase"] == 2:
            trial = trials[row["trial"]]
            digits.setdefault((trial["device"], trial["model"]), []).append(row["latency_ns"])
    assert len(digits) == 6
    for (_, model), latencies in digits.items():
        assert latencies == digits["local", model]


def test_a_killed_host_goes_on_with_both_remote_devices_where_they_stopped(
    home: Home, links: tuple[FaultProxy, FaultProxy]
) -> None:
    devices = ("ssh:board", f"adb:127.0.0.1:{links[1].port}")
    words = [word for device in devices for word in ("-d", device)]
    slow = home.null("slow", clock="real", latency_ns=5_000_000)
    process = home.start(slow, options=(*words, "--repeat", "2", "--min-time", "0.8"))
    wait_until(
        lambda: (
            len(list((home.store / "sessions").glob("*/journal/*/job-*.jsonl"))) == 2
            and home.journal_text(home.session()).count('"phase":"measure"') >= 2
        ),
        120,
    )
    process.kill()
    process.communicate(timeout=30)
    session = home.session()
    kept = len(home.journal_text(session))
    assert kept > 0
    result = home.resume(session)
    assert (result.status, result.exit_code) == ("complete", 0)
    states = [(row["repetition"], row["status"]) for row in home.rows(session, "repetitions")]
    assert sorted(states) == [(1, "done"), (1, "done"), (2, "done"), (2, "done")]
    counted = sum(row["measured_count"] for row in home.rows(session, "repetitions"))
    assert sum(row["phase"] == 2 for row in home.rows(session, "samples")) == counted
    assert processes_of(home) == []
