"""A repetition that fails costs itself and nothing else; each failure is named."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

MS = 1_000_000


def failing(at, how, **members):
    return {"clock": "fake", "latency_ns": MS, "fail": {"at": at, "how": how, **members}}


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("abort", "crashed", "SIGABRT"),
        ("kill", "crashed", "SIGKILL"),
        ("exit", "run_failed", "status 3"),
        ("raise", "run_failed", "scripted failure"),
        ("memory", "out_of_memory", "memory"),
        ("problem", "op_unsupported", "no Einsum"),
    ],
)
@pytest.mark.parametrize("at", ["load", "measure"])
def test_a_failure_is_named_and_the_next_repetition_runs(agent, jobs, of, one, at, how, code, words):
    script = failing(at, how, repetitions=[1], code="op_unsupported", advice="use another")
    if how == "problem":
        script["fail"]["message"] = "no Einsum"
    events = agent.run(jobs.job(jobs.trial(script), repetitions=2))
    error = one(events, "error")
    assert (error["code"], error["trial"], error["repetition"]) == (code, "t001", 1)
    assert words in error["message"]
    if how == "problem":
        assert error["advice"] == "use another"
    assert one(events, "done")["repetition"] == 2
    assert one(events, "end")["reason"] == "complete"


def test_the_last_words_of_a_crash_are_logged(agent, jobs, one):
    script = failing("measure", "segfault", stderr="x" * 9000 + "vendor driver: bad handle\n")
    events = agent.run(jobs.null(script))
    log = one(events, "log")
    assert log["text"].endswith("vendor driver: bad handle")
    assert len(log["text"]) <= 4000
    assert (agent.folder / "job" / "agent.log").read_bytes().endswith(b"bad handle\n")


def test_what_was_measured_before_a_crash_is_kept(agent, jobs, of, one):
    script = failing("measure", "segfault", after=1700)
    events = agent.run(jobs.null(script, settings={"min_time_s": 5.0}))
    assert one(events, "error")["code"] == "crashed"
    kept = sum(len(event["latency_ns"]) for event in of(events, "samples", phase="measured"))
    assert kept == 1500  # three batches of half a second of the scripted clock


def test_a_profiler_that_fails_costs_its_rows_and_not_the_repetition(agent, jobs, of, one):
    events = agent.run(jobs.null(failing("profile", "raise"), profile=True))
    assert of(events, "error") == of(events, "ops") == []
    assert one(events, "log")["level"] == "warning"
    assert "scripted failure" in one(events, "log")["text"]
    assert one(events, "done")["stopped_by"] == "min"


def test_output_without_end_is_cut_in_the_log(agent, jobs, one):
    script = failing("measure", "raise", stderr="y" * 3_000_000)
    assert one(agent.run(jobs.null(script)), "error")["code"] == "run_failed"
    assert (agent.folder / "job" / "agent.log").stat().st_size <= 1024 * 1024


def test_a_repetition_that_hangs_ends_at_its_deadline(agent, jobs, of, one):
    job = jobs.job(jobs.trial(failing("measure", "hang", repetitions=[1])), repetitions=2)
    job["repetitions"][0]["deadline_s"] = 2.0
    events = agent.run(job)
    error = one(events, "error")
    assert error["code"] == "deadline"
    assert "2 s" in error["message"]
    assert one(events, "done")["repetition"] == 2
    assert agent.processes() == []


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model": "../nowhere.json"}, "model_missing", "nowhere.json"),
        ({"runtime": "tensorflowed"}, "runtime_missing", "tensorflowed"),
        ({"runtime": "../agent"}, "runtime_missing", "agent"),
        ({"delegate": "gpu:imaginary"}, "delegate_missing", "gpu:imaginary"),
        ({"scenario": "offline"}, "bad_job", "offline"),
        ({"python": "/nowhere/python3"}, "runtime_missing", "/nowhere/python3"),
        ({"shapes": {"x": [1, 2, 3]}}, "shape_mismatch", "x"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(agent, jobs, one, changes, code, words):
    if "python" in changes and agent.name != "python":
        return  # a native agent has no interpreter to choose
    error = one(agent.run(jobs.null({"clock": "fake"}, **changes)), "error")
    assert error["code"] == code
    assert words in error["message"]


@pytest.mark.parametrize("text", ["", "[1, 2", "\u0000", "[]"])
def test_a_model_that_is_none_is_invalid(agent, jobs, one, text):
    path = agent.folder / "model.json"
    path.write_text(text)
    error = one(agent.run(jobs.null({}, model=str(path))), "error")
    assert error["code"] == "model_invalid"
    assert "model.json" in error["message"]


DISK = """
set -e
mount -t tmpfs -o size={size}k none "$1"
cp "$2" "$1/job.json"
shift 2
JOB="$1"; shift
"$@" run "$JOB" || true
cp "$JOB/events.jsonl" "$JOB.events"
"""


def test_a_full_disk_is_said_and_ends_the_job_cleanly(agent, jobs, tmp_path, one):
    """A real file system of 600 KB, in a mount name space of its own."""
    script = {"clock": "fake", "latency_ns": 1_000_001}
    job = jobs.job(jobs.trial(script, settings={"min_time_s": 30.0, "max_time_s": 60.0}), repetitions=9)
    document = agent.job(job, "written") / "job.json"
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    shell = ["sh", "-c", DISK.format(size=600), "sh", str(disk), str(document), str(disk), *agent.argv]
    done = subprocess.run([*namespace, *shell], capture_output=True, timeout=60, env=agent.environment(), check=False)
    assert done.returncode == 0, done.stderr
    lines = Path(f"{disk}.events").read_bytes()
    assert lines.endswith(b"\n"), "no line is cut"
    events = [json.loads(line) for line in lines.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events[-3:]] == ["error", "error", "end"]
    assert [event["code"] for event in events[-3:-1]] == ["disk_full", "disk_full"]
    assert events[-3]["trial"] == "t001"
    assert "trial" not in events[-2]
    assert events[-1]["reason"] == "job_error"
