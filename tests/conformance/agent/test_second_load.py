"""A second load beside a repetition: it works while it is measured, is counted, and ends in every way of ending."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

MS = 1_000_000
LONG = {"min_time_s": 60.0, "max_time_s": 60.0, "busy_cores": 1}


def loads(agent):
    """The living processes of the second load."""
    words = {pid: Path(f"/proc/{pid}/cmdline") for pid in agent.processes()}
    return [pid for pid, path in words.items() if path.exists() and b"\0busy\0" in path.read_bytes()]


def test_a_second_load_works_while_it_is_measured_and_its_time_is_counted(agent, jobs, of, one):
    script = {"clock": "real", "latency_ns": 5 * MS}
    trial = jobs.trial(script, settings={"min_time_s": 1.0, "busy_cores": 2})
    events = agent.run(jobs.job(trial, jobs.trial(script), repetitions=1))
    beside, alone = of(events, "done")
    # Two processes on at least one core for a second; other tests may run meanwhile, so no more is asked.
    assert 100 * MS < beside["second_load_ns"] < 3000 * MS
    assert "second_load_ns" not in alone
    assert not loads(agent)


def test_what_a_second_load_uses_is_no_other_load(agent, jobs, of):
    job = jobs.null({"clock": "real", "latency_ns": 5 * MS}, settings={"min_time_s": 1.5, "busy_cores": 1})
    job["telemetry"] = {"interval_s": 0.25, "slow_interval_s": 60.0}
    events = agent.run(job)
    rows = [row for event in of(events, "telemetry") for row in event["rows"]]
    busy, other = (
        max(row[3] for row in rows if row[1] == kind) for kind in ("cpu_busy_permille", "other_busy_permille")
    )
    assert busy - other > 150 // (os.cpu_count() or 1)


@pytest.mark.parametrize("ending", ["stop", "kill", "crash", "deadline", "orphan"])
def test_a_second_load_ends_with_its_repetition_however_that_ends(agent, jobs, one, ending):
    script = {"clock": "real", "latency_ns": 5 * MS}
    if ending == "crash":
        script["fail"] = {"at": "measure", "how": "segfault", "after": 60}
    job = jobs.null(script, settings=LONG)
    if ending == "deadline":
        job["repetitions"][0]["deadline_s"] = 1.5
    if ending == "orphan":
        job["orphan_after_s"] = 1.5
    folder = agent.job(job)
    pid = agent.call("start", folder)[1]["pid"]
    until = time.monotonic() + 30
    while not loads(agent):
        assert time.monotonic() < until, agent.events(folder)
        time.sleep(0.01)
    if ending == "stop":
        agent.call("stop", folder)
    elif ending == "kill":
        os.kill(pid, signal.SIGKILL)
    agent.wait_until_gone()
    if ending != "kill":
        code = {"stop": "stopped", "crash": "crashed", "deadline": "deadline", "orphan": "orphaned"}[ending]
        assert one(agent.events(folder), "error")["code"] == code


def test_a_second_load_that_is_killed_ends_the_repetition_and_what_was_measured_is_kept(agent, jobs, of, one):
    folder = agent.job(jobs.null({"clock": "real", "latency_ns": 5 * MS}, settings=LONG))
    agent.call("start", folder)
    agent.wait_for(folder, lambda events: any(event.get("phase") == "measured" for event in events))
    os.kill(loads(agent)[0], signal.SIGKILL)
    events = agent.wait_for(folder, lambda events: events[-1]["type"] == "end")
    error = one(events, "error")
    assert (error["code"], error["advice"]) == ("run_failed", "leave --busy-cores away")
    assert "was under way when a process of the second load ended by itself" in error["message"]
    assert of(events, "samples", phase="measured")


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_a_senseless_second_load_is_a_bad_job(agent, jobs, one, value):
    error = one(agent.run(jobs.null({"clock": "fake"}, settings={"busy_cores": value})), "error")
    assert error["code"] == "bad_job"
    assert "busy_cores must be an integer from 1 to 4096 or null" in error["message"]
