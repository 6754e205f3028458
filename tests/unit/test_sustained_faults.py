"""What goes wrong in a sustained run: sleep, clocks that are set, sensors that lie or vanish, a run cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_session import Script, plan, write_session
from socbench import results
from socbench.devices.fake_phone import START_NS, FakeRun, describe
from socbench.records import MeasuringSettings, TrialRow
from socbench.render import figure_time
from socbench.render.sentences import answer
from socbench.session.sustained import first_baseline
from socbench.store import power
from socbench.store.events import read_events

S = 1_000_000_000
MS = 1_000_000
SUSTAINED: Any = {"scenario": "sustained", "settings": MeasuringSettings(min_time_s=1800.0)}


def batch(script: Script, latency_ns: list[int], telemetry: list[list[Any]] = []) -> None:  # noqa: B006
    """Say inferences one after the other, and telemetry rows as docs/protocol.md has them."""
    gaps = [0] * len(latency_ns)
    script.say("samples", "t001", 1, phase="measured", start_ns=script.now_ns, latency_ns=latency_ns, gap_ns=gaps)
    script.now_ns += sum(latency_ns)
    if telemetry:
        script.say("telemetry", "t001", 1, rows=telemetry)


def ended(script: Script, how: str = "done", **members: Any) -> None:
    facts = {"measured_count": 1, "measured_ns": script.now_ns, "stopped_by": "min", "power": None}
    script.say(how, "t001", 1, **(facts if how == "done" else {"message": "it ended", "advice": None}), **members)


def only_row(store: Path) -> TrialRow:
    (row,) = results.trial_rows(store)
    assert row.thermal is not None
    return row


# Clocks


def test_a_device_that_slept_in_the_run_has_a_void_row_and_keeps_its_curve(tmp_path: Path) -> None:
    script = Script()
    script.say("phase", "t001", 1, phase="measure")
    batch(script, [100 * MS] * 6000)
    script.say("clock", monotonic_ns=script.now_ns, wall_ns=script.now_ns + 300 * S, gap_ns=301 * S)
    batch(script, [100 * MS] * 6000)
    ended(script)
    write_session(tmp_path, "s-01", [plan(**SUSTAINED)], script)
    row = only_row(tmp_path)
    assert (row.verdict, row.reasons[0].code) == ("invalid", "clock_jump")
    assert row.reasons[0].text == "the device's clock jumped by 301.0 s: it slept or its clock was set"
    assert row.thermal is not None
    assert (row.thermal["clock_jump_ns"], row.thermal["duration_s"]) == (301 * S, pytest.approx(1200))
    assert row.thermal["baseline_p50_ns"] == 100 * MS


def test_a_time_of_day_that_was_set_in_the_run_voids_nothing_and_a_meters_log_is_right_on_both_sides(
    tmp_path: Path,
) -> None:
    script = Script()
    script.now_ns = 0
    batch(script, [100 * MS] * 600)
    ended(script)
    # After 30 s the time of day was set forward by an hour; the agent tells a pair of clocks of each side.
    pairs = [(0, 1_764_000_000), (30, 1_764_000_030 + 3600), (60, 1_764_000_060 + 3600)]
    clocks = [{"monotonic_ns": t * S, "wall_ns": wall * S, "gap_ns": None} for t, wall in pairs]
    write_session(tmp_path, "s-01", [plan(**SUSTAINED)], script, clocks={"local": clocks})
    log = tmp_path / "meter.csv"
    times = [1_764_000_000 + second + (3600 if second >= 30 else 0) for second in range(61)]
    log.write_text("".join(f"{time},{2 if place < 30 else 4}\n" for place, time in enumerate(times)))
    assert power.attach(tmp_path, "latest", log).readings == 61
    row = only_row(tmp_path)
    assert "clock_jump" not in [reason.code for reason in row.reasons]
    assert row.thermal is not None
    assert row.thermal["energy"]["average_power_uw"] == pytest.approx(3e6, rel=0.02)
    assert row.thermal["energy"]["trust"] == "measured"


# Cut short


class CutRun(FakeRun):
    """A fake phone that is stopped when its own clock shows 20 minutes of measuring."""

    def clock(self) -> None:
        super().clock()
        self.stopped = self.now_ns - START_NS >= 1200 * S


def test_a_run_cut_at_minute_20_keeps_twenty_minutes_finds_the_throttling_and_says_so(tmp_path: Path) -> None:
    settings = {"min_time_s": 1800.0, "min_count": 1, "warmup_max_s": 2.0, "rate_hz": None}
    trial = {"scenario": "sustained", "precision": "fp32", "delegate": "cpu:mlas", "threads": 1, "settings": settings}
    job = {"session": "s-01", "trials": {"t001": trial},
           "repetitions": [{"trial": "t001", "repetition": 1, "cool_down": None}]}  # fmt: skip
    assert CutRun(3, tmp_path, job).run() == "stopped"
    script = Script()
    script.events = list(read_events(tmp_path / "events.jsonl", "fake:phone-3"))
    phone = json.loads(json.dumps(describe(3, "fake:phone-3").__dict__, default=vars))
    write_session(tmp_path, "s-01", [plan(device="fake:phone-3", **SUSTAINED)], script, devices=[phone])
    row = only_row(tmp_path)
    assert (row.status, row.thermal["complete"], row.thermal["ended"]) == ("interrupted", False, "stopped")
    assert row.thermal["duration_s"] == pytest.approx(1200, abs=61)
    assert len(row.thermal["minute_p50_ns"]) in (19, 20)
    assert (row.thermal["cause"], row.thermal["throttled"]) == ("clock_cap", True)
    assert row.thermal["slowdown"] == pytest.approx(1 / 0.36, rel=0.01)
    assert "of 30.0 minutes: it was stopped)" in " ".join(answer(results.report_data(tmp_path)))


@pytest.mark.parametrize(("code", "said"), [("disk_full", "the device's disk was full"), ("crashed", "it crashed")])
def test_a_run_that_fails_half_way_keeps_what_was_measured(tmp_path: Path, code: str, said: str) -> None:
    script = Script()
    script.say("phase", "t001", 1, phase="measure")
    batch(script, [100 * MS] * 1200)
    batch(script, [150 * MS] * 1200)
    ended(script, "error", code=code)
    write_session(tmp_path, "s-01", [plan(**SUSTAINED)], script)
    row = only_row(tmp_path)
    assert (row.status, row.error.code if row.error else None) == ("failed", code)
    assert row.thermal is not None
    assert (row.samples, row.thermal["ended"], row.thermal["complete"]) == (2400, code, False)
    assert row.thermal["throttle_at_s"] == pytest.approx(120, abs=2)
    assert f"(cut after 5.0 of 30.0 minutes: {said})" in " ".join(answer(results.report_data(tmp_path)))


# Sensors


MINUTES = 10
WARM = [int(30_000 + 20_000 * (1 - np.exp(-t / 90))) for t in range(60 * MINUTES)]
LIES = {
    "zero": [0] * 600,
    "absolute zero": [-274_000] * 600,
    "128 degrees": [128_000] * 600,
    "constant": [41_000] * 600,
    "vanishes": [*WARM[:200], *[None] * 400],
    "degrees": [*WARM[:200], *[value // 1000 for value in WARM[200:]]],
    "tenths": [*WARM[:200], *[value // 100 for value in WARM[200:]]],
    "mad at times": [128_000 if t % 7 == 0 else -274_000 if t % 11 == 0 else 0 if t % 13 == 0 else WARM[t]
                     for t in range(600)],
}  # fmt: skip


def told(store: Path, values: list[Any], session: str = "s-01") -> TrialRow:
    """A run of ten minutes whose one sensor tells these values, one a second."""
    script = Script()
    script.now_ns = 0
    script.say("phase", "t001", 1, phase="measure")
    rows = [
        [t * S, "temperature_milli_c", "zone0:cpu", value, *(["gone"] if value is None else [])]
        for t, value in enumerate(values)
    ]
    batch(script, [100 * MS] * 6000, rows)
    ended(script)
    write_session(store, session, [plan(**SUSTAINED)], script)
    return only_row(store)


@pytest.mark.parametrize("lie", LIES)
def test_a_sensor_that_lies_or_vanishes_tells_no_rise_and_shows_no_temperature_that_there_was_not(
    tmp_path: Path, lie: str
) -> None:
    row = told(tmp_path, LIES[lie])
    assert row.thermal is not None
    rise = row.thermal["temperature_rise_milli_c"]
    if lie == "mad at times":
        assert rise == pytest.approx(20_000, abs=600)
        assert row.thermal["temperature_time_constant_s"] == pytest.approx(90, rel=0.1)
    else:
        assert rise is None
    unreadable = lie in ("zero", "absolute zero", "128 degrees")
    assert ("temperature_unreadable" in [reason.code for reason in row.reasons]) == unreadable
    data = results.report_data(tmp_path)
    panels = figure_time._telemetry(data, data.sessions[0], data.sessions[0].devices[0])
    shown = [int(value) for _, _, series in panels for one in series for value in one.value]
    assert all(30_000 <= value <= 50_000 for value in shown), "figures show no temperature that there was not"
    assert bool(shown) != unreadable


def test_the_baseline_of_a_session_is_what_its_first_job_found(tmp_path: Path) -> None:
    journal = tmp_path / "job-001.jsonl"
    assert first_baseline(journal) == {}
    baseline = {"temperatures": {"zone0:cpu": 40_000}, "caps": {"policy0": 1_800_000}, "status": 0}
    lines = [
        {"type": "hello"},
        {"type": "phase", "phase": "cool_down", "detail": {"outcome": "waiting"}},
        {"type": "phase", "phase": "cool_down", "detail": {"outcome": "reached", "baseline": {"temperatures": "hot"}}},
        {"type": "phase", "phase": "cool_down", "detail": {"outcome": "reached", "baseline": baseline}},
        {"type": "phase", "phase": "cool_down", "detail": {"baseline": {**baseline, "status": 3}}},
    ]
    journal.write_bytes(b'"cool_down" no JSON\n' + b"".join(json.dumps(line).encode() + b"\n" for line in lines[:3]))
    assert first_baseline(journal) == {}
    with journal.open("ab") as stream:
        stream.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines[3:]))
    assert first_baseline(journal) == {"baseline": baseline}
