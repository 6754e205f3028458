"""Devices that are started anew, send too much, have odd names; references that can't be had: each costs its rows."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from session_home import ROOT, Heard, Home
from socbench.errors import ChannelError, FailedError
from socbench.records import TrialPlan
from socbench.session import DeviceProgress, worker
from socbench.transports.base import Completed
from socbench.transports.fake import FakeTransport

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Rebooting(Heard):
    """Kills the agent of fake:one, as a reboot does, when the model ``falls`` is being measured for the first time.

    ``forgets``: like a device that loses its power, it has lost the last events, and its connection breaks.
    """

    home: Home
    rebooted = forgets = False

    def update(self, state: DeviceProgress) -> None:
        super().update(state)
        trial: TrialPlan | None = state.trial
        if trial is not None and "falls" in trial.model and state.phase == "measure" and not self.rebooted:
            self.rebooted = True
            (pid,) = (self.home.path / "fakes" / "one" / "sessions").glob("*/pid")
            os.kill(int(pid.read_text()), signal.SIGKILL)
            if self.forgets:
                os.truncate(pid.parent / "events.jsonl", 100)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_device_that_is_started_anew_fails_the_trial_that_was_under_way_and_the_session_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    heard = Rebooting()
    heard.home, heard.forgets = home, forgets
    original, follow_whole = FakeTransport.run, FakeTransport.follow

    def follow(self: FakeTransport, *arguments, **named) -> Iterator[bytes]:
        for chunk in follow_whole(self, *arguments, **named):
            if heard.rebooted and heard.forgets:
                heard.forgets = False
                raise ChannelError("the connection to fake:one broke")
            yield chunk

    def run(self: FakeTransport, argv, **named) -> Completed:
        done = original(self, argv, **named)
        return Completed(done.argv, 0, b"another-start\n") if BOOT_ID in argv and heard.rebooted else done

    monkeypatch.setattr(FakeTransport, "run", run)
    monkeypatch.setattr(FakeTransport, "follow", follow)
    falls = home.null("falls", clock="real", latency_ns=[5_000_000])
    result = home.run(falls, home.null("stands"), devices=("fake:one",), min_time_s=0.6, heard=heard)
    assert (result.status, result.exit_code) == ("complete_with_failures", 1)
    rows = {row["model"]: row for row in home.rows(result.session, "trials")}
    failure = json.loads(rows["falls"]["error"])
    assert (rows["falls"]["status"], failure["code"]) == ("failed", "device_rebooted")
    assert failure["message"] == "fake:one was started anew while this was under way"
    assert rows["stands"]["status"] == "done"
    stands = rows["stands"]["trial"]
    done = [row["status"] for row in home.rows(result.session, "repetitions") if row["trial"] == stands]
    assert done == ["done", "done"]


def test_a_device_that_sends_a_gigabyte_is_cut_off_long_before(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FakeTransport.follow
    sent = []

    def flood(self: FakeTransport, *arguments, **named) -> Iterator[bytes]:
        if self.address == "fake:mad":
            for _ in range(1024):
                sent.append(1)
                yield b"x" * (1 << 20)
        yield from original(self, *arguments, **named)

    monkeypatch.setattr(FakeTransport, "follow", flood)
    result = home.run(home.null("m"), devices=("fake:mad", "fake:sane"), repeat=1)
    rows = {row["device"]: row for row in home.rows(result.session, "trials")}
    assert (rows["fake:mad"]["status"], rows["fake:sane"]["status"]) == ("failed", "done")
    assert "sent an event of more than" in json.loads(rows["fake:mad"]["error"])["message"]
    assert len(sent) < 20


def test_a_serial_with_odd_characters_is_a_device_like_any_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "adb:../a b;$(touch hacked)'\"`|é"
    monkeypatch.setattr("socbench.session.devices.open_device", lambda address, config=None: FakeTransport("odd"))
    result = home.run(home.null("m", latency_ns=[7]), devices=(odd,), repeat=1)
    assert result.status == "complete"
    (row,) = home.rows(result.session, "trials")
    assert row["device"] == odd
    assert {row["latency_ns"] for row in home.rows(result.session, "samples") if row["phase"] == 2} == {7}
    assert home.document(result.session)["plan"]["order"] == {odd: [["t001", 1]]}
    assert not list(home.path.rglob("hacked"))
    assert {path.name for path in home.path.iterdir()} <= {
        "cache", "store", "config", "device", "fakes", "fakes.json", "m.null.json"
    }  # fmt: skip


def test_answers_that_could_not_be_checked_are_said_and_noted_with_the_session(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise FailedError("its reference runtime is broken")

    monkeypatch.setattr("socbench.session.models.Gatherer._compute", fails)
    heard = Heard()
    model = str(ROOT / "models" / "resnet8" / "resnet8-fp32.onnx")
    result = home.run(model, runtimes=("onnxruntime",), repeat=1, heard=heard)
    said = "its reference runtime is broken"
    assert [text for text in heard.messages if text.endswith(f"will not be checked: {said}")]
    (row,) = home.rows(result.session, "trials")
    assert home.document(result.session)["unchecked"] == {row["fidelity_to"]: said}


def test_an_agent_that_is_started_again_cools_to_the_baseline_of_the_whole_run(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second job begins on a warm device; what it must wait for is what the first job found."""
    zone = home.path / "root" / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu\n")
    (zone / "temp").write_text("40000\n")
    monkeypatch.setenv("SOCBENCH_SYSFS_ROOT", str(home.path / "root"))
    asked = []
    original = worker.job_document

    def job_document(*arguments: Any, **named: Any) -> Any:
        asked.append(named["cool_down"].get("baseline"))
        (zone / "temp").write_text("42000\n" if len(asked) > 1 else "40000\n")
        return original(*arguments, **named)

    monkeypatch.setattr(worker, "job_document", job_document)
    heard = Rebooting()
    heard.home = home
    falls = home.null("falls", clock="real", latency_ns=[5_000_000])
    result = home.run(falls, devices=("fake:one",), min_time_s=0.6, heard=heard)
    assert result.status == "complete"
    baseline = {"temperatures": {"thermal_zone0:cpu": 40_000}, "caps": {}, "status": None}
    assert asked == [None, baseline]
    waits = [json.loads(row["cool_down"]) for row in home.rows(result.session, "repetitions")]
    assert [wait["baseline"] for wait in waits] == [baseline] * 2
    assert [wait["outcome"] for wait in waits] == ["reached"] * 2
