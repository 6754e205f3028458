"""What a model does to its own process costs that repetition, never the session."""

from __future__ import annotations

import json

import pytest
from session_home import Heard, Home

DEVICES = ["local", "fake:one"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_segfault_is_a_failed_trial_and_the_others_are_measured(home: Home, device: str) -> None:
    good = home.null("good")
    bad = home.null("bad", fail={"at": "measure", "how": "segfault", "after": 2})
    result = home.run(bad, good, devices=(device,))
    assert (result.status, result.exit_code) == ("complete_with_failures", 1)
    rows = {row["model"]: row for row in home.rows(result.session, "trials")}
    assert rows["good"]["status"] == "done"
    assert rows["bad"]["status"] == "failed"
    error = json.loads(rows["bad"]["error"])
    assert error["code"] == "crashed"
    assert "SIGSEGV" in error["message"]
    good_trial = rows["good"]["trial"]
    done = [row for row in home.rows(result.session, "repetitions") if row["trial"] == good_trial]
    assert [(row["repetition"], row["status"]) for row in done] == [(1, "done"), (2, "done")]


def test_a_crash_in_one_repetition_keeps_the_samples_of_the_others(home: Home) -> None:
    flaky = home.null("flaky", fail={"at": "load", "how": "abort", "repetitions": [2]})
    result = home.run(flaky, repeat=3)
    states = {row["repetition"]: row["status"] for row in home.rows(result.session, "repetitions")}
    assert states == {1: "done", 2: "failed", 3: "done"}
    measured = {row["repetition"] for row in home.rows(result.session, "samples") if row["phase"] == 2}
    assert measured == {1, 3}


def test_a_model_that_hangs_is_stopped_at_its_deadline_and_not_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socbench.agents.job.deadline_s", lambda trial, files: 1.0 if "hangs" in trial.model else 60.0)
    hangs = home.null("hangs", fail={"at": "first", "how": "hang"})
    good = home.null("good")
    result = home.run(hangs, good, repeat=3, seed=1)
    assert result.exit_code == 1
    rows = {row["model"]: row for row in home.rows(result.session, "trials")}
    assert rows["good"]["status"] == "done"
    assert json.loads(rows["hangs"]["error"])["code"] == "deadline"
    tried = [row for row in home.rows(result.session, "repetitions") if row["trial"] == rows["hangs"]["trial"]]
    # The next one may have begun before the agent was told to leave it.
    assert [row["status"] for row in tried] in (["failed"], ["failed", "interrupted"])
    kept = [row for row in home.rows(result.session, "repetitions") if row["trial"] == rows["good"]["trial"]]
    assert [row["status"] for row in kept] == ["done"] * 3


def test_what_a_runtime_says_of_a_model_reaches_the_row(home: Home) -> None:
    fail = {"at": "load", "how": "problem", "code": "op_unsupported", "message": "no Foo here", "advice": "use Bar"}
    result = home.run(home.null("odd", fail=fail))
    (row,) = home.rows(result.session, "trials")
    assert json.loads(row["error"]) == {"code": "op_unsupported", "message": "no Foo here", "advice": "use Bar"}


def test_a_delegate_that_took_half_of_the_model_fails_when_all_of_it_was_required(home: Home) -> None:
    half = home.null("half", loaded={"delegation": "partial", "nodes_total": 4, "nodes_delegated": 2})
    heard = Heard()
    result = home.run(half, require_full=True, heard=heard)
    (row,) = home.rows(result.session, "trials")
    assert (row["status"], json.loads(row["error"])["code"]) == ("failed", "not_full")
    assert heard.ended == [("half", "failed")]
    assert home.run(half).exit_code == 0
