"""--detach leaves a plan on the device and goes; collect fetches it: every event, once, however long that takes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from session_home import Heard, Home, end, processes_of, wait_until
from socbench.errors import FailedError, UsageError
from socbench.store.reader import read_document

SLOW = {"clock": "real", "latency_ns": 5_000_000}
SCRIPTED = [1_000_000 + 1000 * number for number in range(97)]


def _states(home: Home, session: str) -> list[tuple[int, str]]:
    return [(row["repetition"], row["status"]) for row in home.rows(session, "repetitions")]


def _measured(home: Home, session: str) -> list[tuple[int, int]]:
    return [(row["repetition"], row["latency_ns"]) for row in home.rows(session, "samples") if row["phase"] == 2]


@contextlib.contextmanager
def _held_up(home: Home, session: str) -> Iterator[None]:
    """Keep a detached run from ending, however slow this machine is: its supervisor is stopped meanwhile."""
    folder = home.path / "fakes" / "one" / "sessions" / session
    wait_until(lambda: '"phase":"import"' in (folder / "events.jsonl").read_text())
    supervisor = int((folder / "pid").read_text())
    os.kill(supervisor, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)


def test_a_detached_run_is_fetched_later_with_the_digits_of_one_that_was_watched(home: Home) -> None:
    model = home.null("digits", latency_ns=SCRIPTED)
    watched = home.run(model, devices=("fake:watched",), min_count=150)
    heard = Heard()
    result = home.run(model, devices=("fake:one", "local"), min_count=150, detach=True, heard=heard)
    assert (result.status, result.exit_code) == ("detached", 0)
    assert f"socbench collect {result.session}" in heard.messages[-1]
    wait_until(lambda: processes_of(home) == [])
    assert read_document(result.folder)["status"] == "running"
    done = home.collect(result.session)
    assert (done.session, done.status, done.exit_code) == (result.session, "complete", 0)
    trials = {row["device"]: row["trial"] for row in home.rows(result.session, "trials")}
    one = [row for row in home.rows(result.session, "samples") if row["trial"] == trials["fake:one"]]
    found = [(row["repetition"], row["latency_ns"]) for row in one if row["phase"] == 2]
    assert found == _measured(home, watched.session)
    assert not list((home.path / "fakes" / "one" / "sessions").iterdir())


def test_a_detached_run_outlives_its_host_and_nothing_of_it_is_hurried(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCBENCH_ORPHAN_AFTER_S", "0.2")
    result = home.run(home.null("slow", **SLOW), devices=("fake:one",), repeat=2, min_time_s=1.5, detach=True)
    with _held_up(home, result.session):
        early = home.collect(result.session, wait=False)
        assert (early.status, early.exit_code) == ("running", 1)
        assert processes_of(home) != []
    done = home.collect(result.session)
    assert done.status == "complete"
    assert _states(home, result.session) == [(1, "done"), (2, "done")]


def test_a_detached_run_has_its_device_and_another_waits_for_it_or_is_refused(home: Home) -> None:
    result = home.run(home.null("slow", **SLOW), devices=("fake:one",), repeat=2, min_time_s=0.8, detach=True)
    in_use = f"in use by the detached session {result.session}"
    with _held_up(home, result.session), pytest.raises(FailedError, match=in_use):
        home.run(home.null("m"), devices=("fake:one",), wait=False)
    heard = Heard()
    assert home.run(home.null("m"), devices=("fake:one",), heard=heard).status == "complete"
    assert [text for text in heard.messages if f"detached session {result.session}: waiting" in text]
    assert home.collect(result.session).status == "complete"
    assert _states(home, result.session) == [(1, "done"), (2, "done")]


def test_ctrl_c_while_collecting_leaves_the_run_alone(home: Home) -> None:
    result = home.run(home.null("slow", **SLOW), devices=("fake:one",), repeat=2, min_time_s=0.8, detach=True)
    with _held_up(home, result.session):
        collecting = home.start_command("collect", result.session)
        wait_until(lambda: '"phase":"import"' in home.journal_text(result.session))
        code, _, err = end(collecting, signal.SIGINT)
        assert code == 130
        assert "is still being measured" in err
        assert home.document(result.session)["status"] == "running"
    # A run that Ctrl-C had reached could not end complete, both repetitions done.
    assert home.collect(result.session).status == "complete"
    assert _states(home, result.session) == [(1, "done"), (2, "done")]


def test_what_a_dead_agent_left_is_fetched_and_the_rest_is_run_by_resume(home: Home) -> None:
    result = home.run(home.null("slow", **SLOW), devices=("fake:one",), repeat=3, min_time_s=0.6, detach=True)
    folder = home.path / "fakes" / "one" / "sessions" / result.session
    wait_until(lambda: (folder / "events.jsonl").read_text().count('"type":"done"') >= 1)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    wait_until(lambda: processes_of(home) == [])
    heard = Heard()
    collected = home.collect(result.session, heard=heard)
    assert (collected.status, collected.exit_code) == ("interrupted", 1)
    assert f"socbench run --resume {result.session}" in heard.messages[-1]
    assert home.resume(result.session).status == "complete"
    assert _states(home, result.session) == [(1, "done"), (2, "done"), (3, "done")]


def test_what_only_a_host_can_decide_is_not_detached(home: Home) -> None:
    with pytest.raises(UsageError, match="--detach can't go with --precision-target"):
        home.run(home.null("m"), devices=("fake:one",), detach=True, precision_target=0.01)
    assert not (home.store / "sessions").exists()
