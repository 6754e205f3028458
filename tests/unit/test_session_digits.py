"""A scripted model through the whole chain: what the store holds is the script, digit for digit."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from session_home import Heard, Home, make_home, processes_of
from socbench import results
from socbench.errors import UsageError
from socbench.plan import RunRequest
from socbench.session import plan_session, precision

SCRIPT = [1_234_567, 2_345_678, 3_456_789, 999_999, 1, 17_000_001, 5]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


@pytest.mark.parametrize("device", ["local", "fake:digits"])
def test_the_samples_in_the_store_are_the_script(home: Home, device: str) -> None:
    model = home.null(
        "exact",
        latency_ns={"first": 77_000_000, "warmup": 4_000_000, "check": 3, "measure": SCRIPT},
        repetition_permille=[1000, 2000],
        load_ns=42,
        import_ns=41,
        compile_ns=7,
        outputs=[{"name": "y", "dtype": "float32", "shape": [1, 2], "values": [0.25, -0.75]}],
    )
    result = home.run(model, devices=(device,), repeat=2, min_time_s=0.0, min_count=7)
    assert (result.status, result.exit_code) == ("complete", 0)
    rows = home.rows(result.session, "samples")
    for repetition, factor in ((1, 1), (2, 2)):
        mine = [row for row in rows if row["repetition"] == repetition]
        first = [row["latency_ns"] for row in mine if row["phase"] == 0]
        measured = [row["latency_ns"] for row in mine if row["phase"] == 2]
        assert first == [77_000_000 * factor]
        assert {row["latency_ns"] for row in mine if row["phase"] == 1} == {4_000_000 * factor}
        assert measured[:7] == [value * factor for value in SCRIPT]
        assert measured == ([value * factor for value in SCRIPT] * (len(measured) // 7 + 1))[: len(measured)]
        starts = [row["start_ns"] for row in mine if row["phase"] == 2]
        assert [b - a for a, b in pairwise(starts)] == measured[:-1]
    for row in home.rows(result.session, "repetitions"):
        assert (row["import_ns"], row["load_ns"], row["compile_ns"], row["status"]) == (41, 42, 7, "done")
    outputs = {row["stage"]: row["data"] for row in home.rows(result.session, "outputs") if row["data"]}
    import numpy as np

    assert np.frombuffer(outputs["before"], np.float32).tolist() == [0.25, -0.75]
    assert processes_of(home) == []


def test_several_devices_run_in_one_session_each_in_its_own_seeded_order(home: Home) -> None:
    heard = Heard()
    models = [home.null(name) for name in ("a", "b", "c")]
    result = home.run(*models, devices=("local", "fake:x"), repeat=2, seed=5, heard=heard)
    assert result.status == "complete"
    document = home.document(result.session)
    assert [device["device"] for device in document["devices"]] == ["local", "fake:x"]
    assert document["devices"][1]["name"] == "fake device x"
    assert document["devices"][1]["emulated"] is True
    assert set(document["clocks"]) == {"local", "fake:x"}
    assert len(home.rows(result.session, "repetitions")) == 12
    assert sorted(heard.ended) == [(name, "done") for name in ("a", "a", "b", "b", "c", "c")]
    assert heard.plans[0].order["local"] != heard.plans[0].order["fake:x"]
    ended = {state.device: state for state in heard.updates if state.phase == "ended"}
    assert {(name, state.done, state.total) for name, state in ended.items()} == {("local", 6, 6), ("fake:x", 6, 6)}


def test_a_fake_device_is_left_out_unless_emulated_ones_are_allowed(home: Home) -> None:
    result = home.run(home.null("m"), devices=("fake:x",), allow_emulated=False)
    (row,) = home.rows(result.session, "trials")
    assert (result.exit_code, row["status"], json.loads(row["error"])["code"]) == (0, "excluded", "emulated")


def test_nothing_is_asked_of_a_device_for_a_name_that_nobody_knows(home: Home) -> None:
    with pytest.raises(UsageError, match="there is no runtime 'onxruntime': did you mean onnxruntime"):
        home.run(home.null("m"), runtimes=("onxruntime",))
    assert not (home.path / "device").exists()


def test_a_plan_is_made_without_running_anything(home: Home) -> None:
    request = RunRequest(targets=(home.null("m"),), repeat=3, seed=1)
    plan = plan_session(request, progress=Heard())
    assert [(trial.model, trial.runtime, trial.delegate) for trial in plan.trials] == [("m", "null", "cpu:null")]
    assert [entry.repetition for entry in plan.order["local"]] == [1, 2, 3]
    assert not home.store.exists()


def test_the_two_arms_of_a_comparison_alternate(home: Home) -> None:
    result = home.run(home.null("m"), ab=("threads=1", "threads=2"), repeat=3)
    arms = {row["trial"]: row["ab_arm"] for row in home.rows(result.session, "trials")}
    assert sorted(arms.values()) == ["A", "B"]
    order = [arms[trial] for trial, _ in home.document(result.session)["plan"]["order"]["local"]]
    assert [sorted(order[at : at + 2]) for at in (0, 2, 4)] == [["A", "B"]] * 3
    began = sorted(home.rows(result.session, "repetitions"), key=lambda row: row["started_ns"])
    assert [arms[row["trial"]] for row in began] == order


def test_repetitions_are_added_until_the_interval_is_as_narrow_as_was_asked_for(home: Home) -> None:
    # Medians of 1.00 and 1.01 in turn: three give +-1.4 %, four +-0.9 % (Student's t on logarithms).
    alternating = home.null("alternating", repetition_permille=[1000, 1010])
    steady = home.null("steady")
    heard = Heard()
    result = home.run(alternating, steady, repeat=2, precision_target=0.01, heard=heard)
    assert [text for text in heard.messages if "interval" in text] == [
        "steady fp32 null cpu:null: the interval is within 1.00% of the median after 3 repetitions",
        "alternating fp32 null cpu:null: the interval is within 1.00% of the median after 4 repetitions",
    ]
    trials = {row["trial"]: row["model"] for row in home.rows(result.session, "trials")}
    counted = [trials[row["trial"]] for row in home.rows(result.session, "repetitions") if row["status"] == "done"]
    assert (counted.count("alternating"), counted.count("steady")) == (4, 3)
    assert result.status == "complete"
    told = [trials[trial] for trial, _ in home.document(result.session)["plan"]["order"]["local"]]
    assert (told.count("alternating"), told.count("steady")) == (4, 3), "session.json tells the order that was run"


def test_two_files_are_compared_with_each_other(home: Home) -> None:
    old, new = home.null("old"), home.null("new", latency_ns=[1_100_000])
    result = home.run(repeat=4, ab=(f"model={old}", f"model={new}"))
    assert [(row["model"], row["ab_arm"]) for row in home.rows(result.session, "trials")] == [
        ("old", "A"),
        ("new", "B"),
    ]
    (pair,) = results.compare_rows(home.store)
    assert (pair.decision, pair.ratio, pair.key["model"]) == ("slower", pytest.approx(1.1), "old -> new")


def test_a_precision_that_is_not_reached_is_said_and_pairs_stay_pairs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MOST_REPETITIONS", 4)
    restless = home.null("restless", repetition_permille=[1000, 1300])
    heard = Heard()
    result = home.run(restless, repeat=2, precision_target=0.01, heard=heard, ab=("threads=1", "threads=1"))
    said = [text for text in heard.messages if "interval" in text]
    assert said[0].endswith("4 repetitions are the most there are, and the interval still reaches 27.26%, not 1.00%")
    counted = [row["trial"] for row in home.rows(result.session, "repetitions")]
    assert (counted.count("t001"), counted.count("t002")) == (4, 4)


def test_a_trial_is_profiled_once(home: Home) -> None:
    result = home.run(home.null("m", ops=[[0, "Conv", "conv1", "cpu", 1000, 1]]), repeat=3)
    assert [(row["repetition"], row["time_ns"]) for row in home.rows(result.session, "ops")] == [(1, 1000)]
