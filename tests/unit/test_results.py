"""The public results API on scripted sessions, to the digit."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import socbench
from socbench import results
from socbench.errors import SelectorError, UsageError

from tests.support.scripted_session import (
    NO_DELEGATE,
    POWER,
    Script,
    plan,
    simple_session,
    write_session,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "trial_rows.json"
LOGITS = np.float32([[9, 1, 0], [1, 9, 0], [0, 1, 9], [5, 1, 0]])
WRONG = np.float32([[1, 9, 0], [1, 9, 0], [0, 1, 9], [1, 5, 0]])
SENSORS = [("temperature_milli_c", "zone0", 40_000), ("clock_cap_khz", "cpu0", 2_000_000)]
CARD = {"mobiletest": {"tolerance": {"fp32": {"cosine": 0.999}, "int8": {"cosine": 0.5}}}}
TRUTH = {"mobiletest": {"name": "four", "count": 4, "metric": "top1", "labels": [0, 1, 2, 0]}}


def full_session(store: Path) -> Path:
    """fp32 with tails, int8 that falls back, an excluded GPU, a crash, and accuracy of the first two."""
    script = Script()
    for number in (1, 2, 3):
        latency = [1000 * number + (k % 10) for k in range(200)]
        script.repetition("t001", number, latency, outputs={"y": LOGITS}, count=4,
                          telemetry=SENSORS)  # fmt: skip
        script.repetition("t002", number, [500] * 60, loaded={"delegation": "fell_back", "precision_effective": "int8"})
    script.say("loaded", "t004", 1, load_ns=5)
    script.say("error", "t004", 1, code="crashed", message="died of SIGSEGV", advice="measure on cpu")
    script.dataset("t005", {"y": LOGITS}, 4)
    script.dataset("t006", {"y": WRONG}, 4, loaded={"precision_effective": "int8"})
    int8 = {"variant": "onnx-int8", "precision": "int8"}
    trials = [
        plan(fidelity_to="reference:mobiletest"),
        plan("t002", **int8),
        plan("t003", delegate="gpu:cuda", excluded=NO_DELEGATE),
        plan("t004", delegate="cpu:xnnpack"),
        plan("t005", scenario="accuracy"),
        plan("t006", scenario="accuracy", **int8),
    ]
    reference = [("reference:mobiletest", [script.tensor("y", LOGITS, 4)])]
    return write_session(store, "s-01", trials, script, references=reference, models=CARD, truth=TRUTH, label="first")


def test_rows_of_a_scripted_session_are_golden(tmp_path: Path) -> None:
    full_session(tmp_path)
    rows = json.loads(json.dumps([asdict(row) for row in results.trial_rows(tmp_path)]))
    assert rows == json.loads(GOLDEN.read_text())


def test_a_device_calls_a_file_by_its_hash_and_a_person_is_told_the_models_name(tmp_path: Path) -> None:
    script = Script()
    script.say("loaded", "t001", 1, load_ns=5)
    said = f"t001 repetition 1 died in {'0a' * 32}.onnx and in {'b1' * 32}.d/net.bin"
    script.say("error", "t001", 1, code="crashed", message=said)
    write_session(tmp_path, "s-01", [plan()], script)
    (row,) = results.trial_rows(tmp_path)
    assert row.error is not None
    assert row.error.message == "repetition 1 died in mobiletest onnx-fp32 and in mobiletest onnx-fp32/net.bin"


def test_the_golden_rows_say_what_was_scripted(tmp_path: Path) -> None:
    full_session(tmp_path)
    fp32, int8, gpu, crashed, accuracy, _ = results.trial_rows(tmp_path)
    medians = (1004.5, 2004.5, 3004.5)
    assert fp32.repetition_medians_ns == medians
    assert fp32.latency_p50_ns == pytest.approx(math.prod(medians) ** (1 / 3))
    assert (fp32.samples, fp32.latency_p90_ns, fp32.latency_p99_ns) == (600, pytest.approx(3006.1), 3009.0)
    assert (fp32.first_ns, fp32.load_ns, fp32.peak_memory_bytes) == (5000, 2000, 1_000_003)
    assert fp32.fidelity is not None
    assert (fp32.fidelity.cosine, fp32.fidelity.within_tolerance) == (pytest.approx(1), True)
    assert [reason.code for reason in fp32.reasons] == ["noisy"]
    assert (fp32.accuracy, fp32.accuracy_count, fp32.accuracy_delta) == (1.0, 4, None)
    assert (int8.latency_p50_ns, int8.latency_p50_low_ns, int8.latency_p90_ns) == (500.0, 500.0, None)
    assert (int8.verdict, int8.delegation, int8.accuracy, int8.accuracy_delta) == ("invalid", "fell_back", 0.5, -0.5)
    assert (gpu.status, gpu.verdict, gpu.error) == ("excluded", None, NO_DELEGATE)
    assert (crashed.status, crashed.error and crashed.error.code, crashed.latency_p50_ns) == ("failed", "crashed", None)
    assert (accuracy.scenario, accuracy.accuracy, accuracy.latency_p50_ns) == ("accuracy", 1.0, None)


def test_wrong_outputs_void_a_row(tmp_path: Path) -> None:
    script = Script()
    script.repetition("t001", 1, [100] * 60, outputs={"y": WRONG}, count=4)
    reference = [("reference:mobiletest", [script.tensor("y", LOGITS, 4)])]
    write_session(tmp_path, "s-01", [plan()], script, references=reference, models=CARD)
    (row,) = results.trial_rows(tmp_path)
    assert row.fidelity is not None
    assert (row.verdict, row.reasons[0].code, row.fidelity.top1_agreement) == ("invalid", "output_wrong", 0.5)


def test_quantised_outputs_are_compared_as_real_numbers(tmp_path: Path) -> None:
    script = Script()
    spec = [{"name": "y", "dtype": "int8", "shape": [1, 2], "scale": 0.5, "zero_point": -2}]
    script.repetition("t001", 1, [100] * 60, outputs={"q": np.int8([2, 4])}, loaded={"outputs": spec})
    reference = [("reference:mobiletest", [script.tensor("y", np.float32([2, 3]), 1)])]
    write_session(tmp_path, "s-01", [plan()], script, references=reference, models=CARD)
    (row,) = results.trial_rows(tmp_path)
    assert row.fidelity is not None
    assert (row.fidelity.max_abs, row.fidelity.within_tolerance) == (0.0, True)


def test_a_users_own_file_is_compared_with_itself(tmp_path: Path) -> None:
    script, own = Script(), f"reference:{'a' * 64}"
    script.repetition("t001", 1, [100] * 60, outputs={"y": LOGITS}, count=4)
    tensors = [script.tensor("y", LOGITS, 4)]
    write_session(tmp_path, "s-01", [plan(fidelity_to=own)], script, references=[(own, tensors)])
    (row,) = results.trial_rows(tmp_path)
    assert row.fidelity is not None
    assert (row.fidelity.reference, row.fidelity.within_tolerance) == ("self", None)


def test_a_row_whose_own_reference_is_missing_is_not_compared_with_another(tmp_path: Path) -> None:
    script = Script()
    script.repetition("t001", 1, [100] * 60, outputs={"y": LOGITS}, count=4)
    reference = [("reference:mobiletest", [script.tensor("y", WRONG, 4)])]
    write_session(tmp_path, "s-01", [plan(fidelity_to="reference:mobiletest:x=1")], script, references=reference)
    assert results.trial_rows(tmp_path)[0].fidelity is None


def test_heat_is_seen_while_the_trial_ran_only(tmp_path: Path) -> None:
    script = Script()
    cap = "clock_cap_khz"
    script.say(
        "telemetry", rows=[[1, "temperature_milli_c", "thermal", None, "no sensor"], [1, cap, "cpu0", 2_000_000]]
    )
    script.repetition("t001", 1, [100] * 60, telemetry=[(cap, "cpu0", 1_000_000), ("thermal_status", "android", 3)])
    script.repetition("t002", 1, [100] * 60, telemetry=[(cap, "cpu0", 2_000_000)])
    folder = write_session(tmp_path, "s-01", [plan(), plan("t002")], script, seal=False)
    from socbench.store import events
    from socbench.store.writer import SessionWriter

    with SessionWriter.open(folder) as writer:
        writer.write_part("device:local", events.device_tables("local", script.events))
        writer.seal("complete")
    hot, cool = results.trial_rows(tmp_path)
    assert [reason.code for reason in hot.reasons] == [
        "throttled", "clocks_capped", "temperature_unreadable", "single_repetition",
    ]  # fmt: skip
    assert hot.reasons[1].text == "a clock was capped at 50% of its highest (cpu0)"
    assert [reason.code for reason in cool.reasons] == ["temperature_unreadable", "single_repetition"]


def test_a_sustained_row_has_its_thermal_analysis(tmp_path: Path) -> None:
    script = Script()
    latency = [100_000_000] * 1200 + [150_000_000] * 1200
    script.repetition("t001", 1, latency)
    write_session(tmp_path, "s-01", [plan(scenario="sustained")], script)
    (row,) = results.trial_rows(tmp_path)
    assert row.thermal is not None
    assert row.thermal["slowdown"] == pytest.approx(1.5)
    assert row.thermal["throttle_at_s"] == pytest.approx(120, abs=2)
    json.dumps(row.thermal)


def test_notebooks_get_data_frames(tmp_path: Path) -> None:
    full_session(tmp_path)
    store = socbench.open_results(tmp_path)
    assert store.sessions().iloc[0][["session", "label", "status", "trials"]].tolist() == [
        "s-01",
        "first",
        "complete",
        6,
    ]
    trials = store.trials()
    assert trials.set_index("trial").loc["t002", ["latency_p50_ns", "verdict"]].tolist() == [500.0, "invalid"]
    assert trials["error"].fillna("").tolist() == ["", "", "delegate_missing", "crashed", "", ""]
    assert store.trials("first")["session"].unique().tolist() == ["s-01"]
    samples = store.samples("latest", "t002")
    assert (len(samples), samples["latency_ns"].max(), samples["session"].unique().tolist()) == (183, 5000, ["s-01"])
    assert sorted(store.telemetry()["kind"].unique()) == ["clock_cap_khz", "temperature_milli_c"]
    assert store.sql("SELECT count(*) AS n FROM samples WHERE phase = 2")["n"].tolist() == [780]
    headlines = store.sql("SELECT latency_p50_ns FROM results WHERE samples > 0 ORDER BY trial")
    assert headlines["latency_p50_ns"].tolist() == pytest.approx(trials["latency_p50_ns"].dropna().tolist(), rel=1e-12)


def test_the_store_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_STORE", str(tmp_path))
    assert socbench.open_results().store == tmp_path
    with pytest.raises(SelectorError, match="there is no results store in"):
        socbench.open_results(tmp_path / "none").trials()
    assert socbench.open_results(tmp_path).trials().empty


def test_a_report_gets_everything(tmp_path: Path) -> None:
    full_session(tmp_path)
    data = results.report_data(tmp_path, ["first"])
    (info,) = data.sessions
    assert (info.label, info.trial_counts, info.devices[0].cores[0].cpus) == (
        "first", {"done": 4, "excluded": 1, "failed": 1}, (0, 1),
    )  # fmt: skip
    assert [row.trial for row in data.rows] == ["t001", "t002", "t003", "t004", "t005", "t006"]
    first = data.samples["s-01", "t001"]
    assert [part.repetition for part in first] == [1, 2, 3]
    assert (first[0].phase.tolist()[:3], first[0].latency_ns.tolist()[:3]) == ([0, 2, 2], [5000, 1000, 1001])
    assert {(series.kind, len(series.value)) for series in data.telemetry["s-01"]} == {
        ("temperature_milli_c", 3),
        ("clock_cap_khz", 3),
    }


def test_a_damaged_table_is_warned_of_and_the_rest_used(tmp_path: Path) -> None:
    folder = full_session(tmp_path)
    (folder / "telemetry.parquet").chmod(0o644)
    (folder / "telemetry.parquet").write_bytes(b"PAR1 broken")
    with pytest.warns(results.StoreWarning, match=r"telemetry.parquet is damaged and was skipped"):
        rows = results.trial_rows(tmp_path)
    assert rows[0].samples == 600


def test_a_newer_session_is_left_out_of_lists_with_a_warning(tmp_path: Path) -> None:
    folder = simple_session(tmp_path, "s-01", {"litert": [5]})
    simple_session(tmp_path, "s-02", {"litert": [6]})
    (folder / "session.json").chmod(0o644)
    (folder / "session.json").write_text((folder / "session.json").read_text().replace('"format": 1', '"format": 7'))
    with pytest.warns(results.StoreWarning, match="s-01 has format 7"):
        assert [info.session for info in results.session_list(tmp_path)] == ["s-02"]


BASE = [100_000, 100_100, 99_900, 100_050, 99_950]
SLOWER = [120_000, 120_100, 119_900, 120_050, 119_950]


def test_two_sessions_are_compared_and_history_is_learned(tmp_path: Path) -> None:
    simple_session(tmp_path, "s-08", {"litert": BASE}, label="base")
    simple_session(tmp_path, "s-09", {"litert": SLOWER, "openvino": BASE}, label="candidate")
    first, extra = results.compare_rows(tmp_path, "base", "candidate")
    assert (first.decision, first.ratio, first.reasons) == ("slower", pytest.approx(1.2), ("no_session_history",))
    assert (extra.decision, extra.reasons) == ("not_comparable", ("only_in_candidate",))
    for day, scale in (("04", 1.0), ("05", 1.001), ("06", 0.999)):
        simple_session(tmp_path, f"s-{day}", {"litert": [int(scale * value) for value in BASE]})
    simple_session(tmp_path, "s-10", {"litert": [10 * value for value in BASE]})  # later: it is no history
    pair = results.compare_rows(tmp_path, "base", "candidate")[0]
    assert pair.reasons == ("session_spread:3",)
    assert pair.ratio_high is not None
    assert pair.ratio_high < 1.22
    back = results.compare_rows(tmp_path, "candidate", "base")
    assert [(pair.decision, pair.reasons[0]) for pair in back] == [
        ("faster", "session_spread:3"),
        ("missing", "missing"),
    ]


def test_rows_of_one_session_are_compared_along_an_axis(tmp_path: Path) -> None:
    simple_session(tmp_path, "s-01", {"litert": BASE, "openvino": SLOWER})
    (pair,) = results.compare_rows(tmp_path, by="runtime")
    assert (pair.key["runtime"], pair.decision) == ("litert -> openvino", "slower")


def test_the_arms_of_one_session_are_compared_in_pairs(tmp_path: Path) -> None:
    script = Script()
    for number in range(1, 15):
        script.repetition("t001", number, [1000 * number] * 60)
        script.repetition("t002", number, [1100 * number + number % 2] * 60)
    arms = [plan(ab_arm="A"), plan("t002", ab_arm="B", runtime="openvino", delegate="cpu:openvino")]
    write_session(tmp_path, "s-01", arms, script)
    (pair,) = results.compare_rows(tmp_path)
    assert (pair.decision, pair.reasons[0], pair.ratio) == ("slower", "paired", pytest.approx(1.1, rel=1e-3))


def test_sessions_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    simple_session(tmp_path, "s-01", {"litert": BASE})
    simple_session(tmp_path, "s-02", {"openvino": BASE})
    write_session(tmp_path, "s-03", [], Script())
    with pytest.raises(UsageError, match="s-01 and s-02 have no two rows that could be compared"):
        results.compare_rows(tmp_path, "s-01", "s-02")
    with pytest.raises(UsageError, match="s-01 and s-03 have no two rows that could be compared"):
        results.compare_rows(tmp_path, "s-01", "s-03")
    with pytest.raises(UsageError, match="session s-01 has nothing to compare with: name a second session"):
        results.compare_rows(tmp_path, "s-01")


def test_history_follows_a_key_and_names_what_changed_at_a_step(tmp_path: Path) -> None:
    for day in range(1, 9):
        script = Script()
        for number in (1, 2, 3):
            version = {"runtime_version": "1.0" if day <= 4 else "1.1"}
            script.repetition("t001", number, [(1000 if day <= 4 else 1200) + number + day] * 60, loaded=version)
        write_session(tmp_path, f"s-{day:02d}", [plan()], script)
    (line,) = results.history(tmp_path, "mobiletest", device="Test board")
    assert (line["model"], line["runtime"], len(line["points"])) == ("mobiletest", "onnxruntime", 8)
    (step,) = line["steps"]
    assert (step["session"], step["changed"]) == ("s-05", ["runtime_version: 1.0 -> 1.1"])
    assert step["ratio"] == pytest.approx(1.2, abs=0.01)
    assert results.history(tmp_path, "mobiletest", device="other") == []
    assert results.history(tmp_path, "nothing") == []


@pytest.mark.parametrize("wrong", [{"details": ["x"]}, {"outputs": {"a": 1}}, {"outputs": [{"scale": "x"}, 5]}])
def test_free_members_of_a_hostile_device_break_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    script = Script()
    script.repetition("t001", 1, [100] * 60, loaded=wrong, outputs={"y": LOGITS}, count=4,
                      done={"power": {**POWER, "source": 7, "battery_permille": "full"}})  # fmt: skip
    reference = [("reference:mobiletest", [script.tensor("y", LOGITS, 4)])]
    write_session(tmp_path, "s-01", [plan()], script, references=reference, models=CARD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = results.trial_rows(tmp_path)
    assert row.latency_p50_ns == 100
