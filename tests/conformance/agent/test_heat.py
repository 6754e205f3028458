"""Heat, on a made-up /sys that changes while a job runs: cooling down, and measuring up to a limit."""

from __future__ import annotations

import threading
import time

import pytest

MS = 1_000_000
ZONE = "sys/class/thermal/thermal_zone{}/"
COOL = {"max_wait_s": 20.0, "tolerance_milli_c": 3000}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Write zones as ``{name: millidegrees}`` below a root that stands before /sys; returns the writer."""
    folder = tmp_path / "root"
    monkeypatch.setenv("SOCBENCH_SYSFS_ROOT", str(folder))

    def write(zones):
        for number, (name, value) in enumerate(zones.items()):
            path = folder / ZONE.format(number)
            path.mkdir(parents=True, exist_ok=True)
            (path / "type").write_text(name + "\n")
            (path / "temp").write_text(f"{value}\n")

    return write


def ended(events):
    """How each wait for cooling ended."""
    found = [event["detail"] for event in events if event.get("phase") == "cool_down"]
    return [detail for detail in found if detail["outcome"] != "waiting"]


@pytest.fixture
def warmed(agent, jobs, root):
    """Run arms A and B, twice each; measuring warms the device, and half a second of waiting cools it."""

    def run(hot, cold=40500):
        arms = [jobs.trial({"clock": "real", "latency_ns": 5 * MS}, settings={"warmup_max_s": 0.1}) for _ in "AB"]
        job = jobs.job(*arms, repetitions=2)
        for entry in job["repetitions"]:
            entry["cool_down"] = COOL
        root({"cpu": 40000, "stuck": 128000})
        folder = agent.job(job)
        agent.call("start", folder)
        until, seen = time.monotonic() + 60, 0
        while not (events := agent.events(folder)) or events[-1]["type"] != "end":
            for event in events[seen:]:
                if event.get("phase") == "measure":
                    root({"cpu": hot, "stuck": 128000})
                elif (event.get("detail") or {}).get("outcome") == "waiting" and event["seq"] > 5:  # not the first
                    threading.Timer(0.5, root, [{"cpu": cold, "stuck": 128000}]).start()
            seen = len(events)
            assert time.monotonic() < until, events[-3:]
            time.sleep(0.01)
        return events

    return run


def test_between_a_and_b_the_device_is_back_at_the_baseline_of_the_whole_run(warmed):
    events = warmed(hot=60000)
    order = [(event["trial"], event["repetition"]) for event in events if event["type"] == "done"]
    assert order == [("t001", 1), ("t002", 1), ("t001", 2), ("t002", 2)]
    waits = ended(events)
    assert [wait["outcome"] for wait in waits] == ["reached"] * 4
    assert all(wait["baseline"]["temperatures"] == {"thermal_zone0:cpu": 40000} for wait in waits)
    assert [wait["state"]["temperatures"]["thermal_zone0:cpu"] for wait in waits] == [40000, 40500, 40500, 40500]
    assert all(wait["waited_ns"] >= 300 * MS for wait in waits[1:])


def test_a_job_that_goes_on_with_a_session_waits_for_the_baseline_of_the_first(agent, jobs, one, root):
    """The device is warm when it begins: what it finds then is not what the session began with."""
    job = jobs.null({"clock": "fake"})
    baseline = {"temperatures": {"thermal_zone0:cpu": 40000}, "caps": {}, "status": None}
    job["repetitions"][0]["cool_down"] = {**COOL, "baseline": baseline}
    root({"cpu": 60000})
    folder = agent.job(job)
    agent.call("start", folder)
    agent.wait_for(folder, lambda events: any(event.get("phase") == "cool_down" for event in events))
    time.sleep(0.3)
    assert not ended(agent.events(folder))
    root({"cpu": 41000})
    (wait,) = ended(agent.wait_for(folder, lambda events: events[-1]["type"] == "end"))
    assert (wait["outcome"], wait["baseline"]) == ("reached", baseline)


def test_telemetry_goes_on_after_the_last_repetition_for_as_long_as_is_asked(agent, jobs, one, root):
    root({"cpu": 60000})
    job = jobs.null({"clock": "fake"})
    job["telemetry"] = {"interval_s": 0.1, "slow_interval_s": 60.0, "after_s": 1.5}
    events = agent.run(job)
    done = one(events, "done")["seq"]
    told = [event["t_ns"] for event in events if event["type"] == "telemetry" and event["seq"] > done]
    assert told[-1] - told[0] > 1000 * MS
    assert events[-1]["reason"] == "complete"


def test_telemetry_that_is_to_end_before_the_last_repetition_is_a_bad_job(agent, jobs, one):
    job = jobs.null({"clock": "fake"})
    job["telemetry"] = {"after_s": -1}
    assert "telemetry.after_s must be a number of at least 0" in one(agent.run(job), "error")["message"]


@pytest.mark.parametrize("value", [7, [], {}, {"temperatures": {"a": "b"}, "caps": {}}, {"temperatures": {}}])
def test_a_baseline_that_is_none_is_a_bad_job(agent, jobs, one, value):
    job = jobs.null({"clock": "fake"})
    job["repetitions"][0]["cool_down"] = {**COOL, "baseline": value}
    assert "repetitions[0].cool_down.baseline must be" in one(agent.run(job), "error")["message"]


def test_a_limit_of_temperature_is_meant_for_the_skin_where_there_is_one(agent, jobs, of, one, root):
    script = {"clock": "real", "latency_ns": 5 * MS}
    settings = {"min_time_s": 30.0, "max_time_s": 30.0, "max_temperature_milli_c": 42_000}
    job = jobs.null(script, settings=settings)
    job["telemetry"] = {"interval_s": 0.1, "slow_interval_s": 60.0}
    root({"cpu": 70000, "skin": 30000})
    folder = agent.job(job)
    agent.call("start", folder)
    for step in range(4):
        agent.wait_for(folder, lambda events, n=step: len(of(events, "samples", phase="measured")) > n)
        root({"cpu": 80000 + step, "skin": 31000 + step})
    assert not of(agent.events(folder), "done")
    root({"cpu": 80000, "skin": 42000})
    events = agent.wait_for(folder, lambda events: events[-1]["type"] == "end")
    assert one(events, "done")["stopped_by"] == "max_temperature"
    assert one(events, "log")["text"] == "stopped measuring: thermal_zone1:skin reached 42.0 degrees C"
