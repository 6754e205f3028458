"""Ctrl-C, SIGTERM and SIGKILL of the host: what was finished is kept, the session can be gone on with."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from session_home import Heard, Home, end, processes_of, wait_until
from socbench.errors import FailedError, Interrupted, SelectorError, UsageError
from socbench.session import run
from socbench.store.reader import read_document

SLOW = {"clock": "real", "latency_ns": 5_000_000}


def _begin(home: Home, device: str, done: int = 1) -> tuple[object, str]:
    """Start a run of a slow model and return when ``done`` repetitions are finished."""
    process = home.start(home.null("slow", **SLOW), options=("--repeat", "4", "-d", device, "--min-time", "0.2"))

    def reached() -> bool:
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        sessions = home.store / "sessions"
        if not sessions.is_dir() or not list(sessions.iterdir()):
            return False
        text = home.journal_text(home.session())
        return text.count('"type":"done"') >= done and text.rstrip().count('"phase":"import"') > done

    wait_until(reached)
    return process, home.session()


@pytest.mark.parametrize(("device", "number"), [("local", signal.SIGINT), ("fake:one", signal.SIGTERM)])
def test_a_stopped_run_keeps_what_is_finished_says_how_to_go_on_and_goes_on(
    home: Home, device: str, number: signal.Signals
) -> None:
    process, session = _begin(home, device)
    code, _, err = end(process, number)
    assert code == 130
    assert f"socbench run --resume {session}" in err
    assert "Traceback" not in err
    assert home.document(session)["status"] == "interrupted"
    kept = {row["repetition"]: row["status"] for row in home.rows(session, "repetitions")}
    assert kept[1] == "done"
    (row,) = home.rows(session, "trials")
    assert row["status"] == "interrupted"
    assert processes_of(home) == []

    before = [row for row in home.rows(session, "samples") if row["repetition"] == 1]
    result = home.resume(session)
    assert (result.session, result.status, result.exit_code) == (session, "complete", 0)
    states = [(row["repetition"], row["status"]) for row in home.rows(session, "repetitions")]
    assert states == [(1, "done"), (2, "done"), (3, "done"), (4, "done")]
    after = [row for row in home.rows(session, "samples") if row["repetition"] == 1]
    assert after == before


def test_ctrl_c_while_the_devices_are_only_beginning_does_not_wait_for_what_began(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = run.ThreadPoolExecutor.submit

    def interrupted(self: run.ThreadPoolExecutor, work: Any, *arguments: Any) -> Any:
        worker = getattr(work, "__self__", None)
        if isinstance(worker, run.DeviceWorker) and worker.address == "fake:two":
            wait_until(lambda: '"phase":"warmup"' in home.journal_text(home.session()))
            raise KeyboardInterrupt
        return submit(self, work, *arguments)

    monkeypatch.setattr(run.ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(Interrupted):
        home.run(home.null("slow", **SLOW), devices=("fake:one", "fake:two"), min_time_s=5.0)
    assert '"type":"done"' not in home.journal_text(home.session())
    assert processes_of(home) == []


def test_a_run_whose_terminal_is_gone_ends_and_leaves_nothing_running(home: Home) -> None:
    process = home.start(home.null("slow", **SLOW), options=("--repeat", "1", "-d", "fake:one", "--min-time", "300"))
    sessions = home.store / "sessions"
    wait_until(lambda: sessions.is_dir() and '"phase":"measure"' in home.journal_text(home.session()))
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    process.send_signal(signal.SIGHUP)
    process.wait(timeout=60)  # the repetition alone would take 300 s
    assert read_document(sessions / home.session())["status"] == "interrupted"
    assert processes_of(home) == []


@pytest.mark.parametrize("device", ["local", "fake:one"])
def test_a_killed_host_loses_nothing_and_is_gone_on_with_while_its_agent_still_works(home: Home, device: str) -> None:
    process, session = _begin(home, device)
    process.kill()
    process.communicate(timeout=30)
    assert processes_of(home) != []  # the agent goes on without its host
    result = home.resume(session)
    assert (result.status, result.exit_code) == ("complete", 0)
    states = [(row["repetition"], row["status"]) for row in home.rows(session, "repetitions")]
    assert states == [(1, "done"), (2, "done"), (3, "done"), (4, "done")]
    assert result.folder.is_dir()
    assert not (result.folder / "journal").exists()


def test_a_killed_host_whose_agent_finished_alone_needs_no_second_measurement(home: Home) -> None:
    process, session = _begin(home, "fake:one")
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: processes_of(home) == [])
    heard = Heard()
    result = home.resume(session, heard)
    assert result.status == "complete"
    assert [row["status"] for row in home.rows(session, "repetitions")] == ["done"] * 4
    assert "provision" not in {state.phase for state in heard.updates}  # no second job was made


def test_an_agent_without_its_host_ends_in_time_and_the_rest_is_run_when_the_host_is_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(home.environment, "SOCBENCH_ORPHAN_AFTER_S", "1")
    process = home.start(home.null("slow", **SLOW), options=("--repeat", "4", "--min-time", "3"))
    wait_until(lambda: (home.store / "sessions").is_dir() and '"phase":"measure"' in home.journal_text(home.session()))
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: processes_of(home) == [])
    session = home.session()
    (events,) = (home.path / "device" / "sessions" / session).glob("events.jsonl")
    assert '"reason":"orphaned"' in events.read_text()
    (plan,) = (home.store / "sessions" / session / "journal").glob("plan.json")
    plan.write_text(plan.read_text().replace('"min_time_s":3.0', '"min_time_s":0.1'))
    assert home.resume(session).status == "complete"
    assert [row["status"] for row in home.rows(session, "repetitions")] == ["done"] * 4


def test_the_job_that_a_dead_host_left_running_is_stopped_before_another_session_measures(home: Home) -> None:
    process, session = _begin(home, "local")
    process.kill()
    process.communicate(timeout=30)
    assert home.run(home.null("quick")).status == "complete"
    assert processes_of(home) == []
    assert home.resume(session).status == "complete"


def test_a_killed_agent_voids_only_what_was_under_way(home: Home) -> None:
    process, session = _begin(home, "fake:one")
    pid = int((home.path / "fakes" / "one" / "sessions" / session / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "died in the middle" in err
    assert home.document(session)["status"] == "complete"
    states = [(row["repetition"], row["status"]) for row in home.rows(session, "repetitions")]
    assert states == [(1, "done"), (2, "done"), (3, "done"), (4, "done")]


def test_two_runs_on_one_device_take_turns_and_the_second_says_for_whom_it_waits(home: Home) -> None:
    process, session = _begin(home, "local")
    heard = Heard()
    result = home.run(home.null("second"), heard=heard)
    first = process.communicate(timeout=60)
    assert process.returncode == 0, first
    assert result.status == "complete"
    (said,) = [text for text in heard.messages if "in use" in text]
    assert session in said
    assert str(process.pid) in said
    assert home.document(session)["ended"] <= home.document(result.session)["ended"]


@pytest.mark.parametrize("device", ["local", "fake:one"])
def test_a_run_that_may_not_wait_is_refused_and_says_who_has_the_device(home: Home, device: str) -> None:
    process, session = _begin(home, device)
    with pytest.raises(FailedError, match=f"{device} is in use by session {session}.*--no-wait"):
        home.run(home.null("second"), devices=(device,), wait=False)
    assert end(process, signal.SIGINT)[0] == 130


def test_the_lease_of_a_dead_process_is_taken_over(home: Home) -> None:
    root = home.path / "fakes" / "one"
    root.mkdir(parents=True)
    dead = {"host": os.uname().nodename, "pid": 4_000_000, "session": "20200101-0000-dead", "user": "x"}
    (root / "lease").write_text(json.dumps(dead))
    heard = Heard()
    assert home.run(home.null("m"), devices=("fake:one",), wait=False, heard=heard).status == "complete"
    assert any("20200101-0000-dead" in text and "taken over" in text for text in heard.messages)
    assert not (root / "lease").exists()


def test_the_lease_of_another_living_host_is_respected_until_it_is_old(home: Home) -> None:
    root = home.path / "fakes" / "one"
    root.mkdir(parents=True)
    (root / "lease").write_text('{"host": "elsewhere", "pid": 1, "session": "20200101-0000-else", "user": "x"}')
    with pytest.raises(FailedError, match=r"20200101-0000-else \(process 1 of x on elsewhere\)"):
        home.run(home.null("m"), devices=("fake:one",), wait=False)
    old = time.time() - 600
    os.utime(root / "lease", (old, old))
    assert home.run(home.null("m"), devices=("fake:one",), wait=False).status == "complete"


def test_only_an_open_session_can_be_gone_on_with(home: Home) -> None:
    with pytest.raises(SelectorError):
        home.resume("20200101-0000-none")
    result = home.run(home.null("m"))
    with pytest.raises(UsageError, match="complete"):
        home.resume(result.session)
