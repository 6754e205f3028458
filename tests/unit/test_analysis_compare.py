"""Pairing, refusing and deciding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socbench.analysis import statistics
from socbench.analysis.compare import Across, compare, compare_arms, decide, identity
from socbench.errors import UsageError
from socbench.records import Failure, Reason, TrialRow

from tests.support import synthetic_report

BASE = (100.0, 100.1, 99.9, 100.05, 99.95)
SLOWER = tuple(1.2 * value for value in BASE)


def row(medians: tuple[float, ...] = BASE, **fields: Any) -> TrialRow:
    centre = statistics.centre(medians)
    return replace(
        synthetic_report.row(), session="s1", trial="t001", status="done", verdict="valid", reasons=(),
        latency_p50_ns=centre.value if centre else None, repetition_medians_ns=medians,
        repetition_numbers=tuple(range(1, len(medians) + 1)), **fields,
    )  # fmt: skip


def one(base: list[TrialRow], candidate: list[TrialRow], **options: Any) -> Any:
    (pair,) = compare(base, candidate, **options)
    return pair


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (0.98, 1.02, "no_difference"),
        (1.01, 1.02, "no_difference"),  # excludes 1, but nobody would notice it: tested first
        (1.01, 1.04, "slower"),
        (0.90, 0.99, "faster"),
        (0.90, 1.02, "cannot_tell"),
        (0.971, 1.0299, "no_difference"),
        (0.9705, 1.0299, "cannot_tell"),
        (None, None, "cannot_tell"),
    ],
)
def test_the_margin_is_tested_before_the_direction(low: float | None, high: float | None, decision: str) -> None:
    assert decide(statistics.Ratio(1.0, low, high, None, None), 0.03) == decision


def test_the_same_row_is_no_different_from_itself() -> None:
    pair = one([row()], [row()])
    assert (pair.decision, pair.ratio, pair.reasons) == ("no_difference", 1.0, ())


def test_a_slower_row_is_slower_and_the_other_way_round_faster() -> None:
    pair, back = one([row()], [row(SLOWER)]), one([row(SLOWER)], [row()])
    assert (pair.decision, back.decision) == ("slower", "faster")
    assert pair.ratio == pytest.approx(1.2)
    assert (pair.ratio_low, pair.ratio_high) == pytest.approx((1 / back.ratio_high, 1 / back.ratio_low))
    assert (pair.base_p50_ns, pair.candidate_p50_ns) == pytest.approx((100, 120))


@settings(max_examples=60, deadline=None)
@given(*[st.lists(st.floats(90, 120), min_size=2, max_size=6)] * 2)
def test_decisions_are_antisymmetric(base: list[float], candidate: list[float]) -> None:
    there = one([row(tuple(base))], [row(tuple(candidate))]).decision
    back = one([row(tuple(candidate))], [row(tuple(base))]).decision
    assert back == {"faster": "slower", "slower": "faster"}.get(there, there)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("threads", 4, "threads: 1 -> 4"),
        ("os_build", "new", "os_build: 6.1 -> new"),
        ("power_source", "usb", "power_source: - -> usb"),
        ("batch", 8, "batch: 1 -> 8"),
        ("settings", {"min_count": 9}, 'settings: {} -> {"min_count": 9}'),
        ("device_key", "other", "device_key: a1b2c3d4 -> other"),
    ],
)
def test_a_condition_that_differs_is_named_and_can_be_allowed(field: str, value: Any, said: str) -> None:
    base = row(threads=1, os_build="6.1", batch=1)
    pair = one([base], [replace(base, **{field: value})])
    assert (pair.decision, pair.ratio, pair.reasons) == ("not_comparable", None, (f"condition:{said}",))
    assert one([base], [replace(base, **{field: value})], allow=[field]).decision == "no_difference"


def test_equal_conditions_pair_first() -> None:
    one_thread, four = row(threads=1), row(SLOWER, threads=4)
    pairs = compare([four, one_thread], [one_thread, four])
    assert [pair.decision for pair in pairs] == ["no_difference", "no_difference"]
    pairs = compare([one_thread], [four, one_thread])
    assert [(pair.decision, pair.reasons) for pair in pairs] == [
        ("no_difference", ()),
        ("not_comparable", ("only_in_candidate",)),
    ]


def test_subjects_may_differ_and_are_shown() -> None:
    pair = one([row(runtime_version="1.0")], [row(runtime_version="1.1", recipe="reduced")])
    assert pair.decision == "no_difference"
    assert pair.reasons == ("subject:runtime_version: 1.0 -> 1.1", "subject:recipe: - -> reduced")


def test_missing_failed_void_and_excluded_rows() -> None:
    crash = Failure("crashed", "SIGSEGV")
    void = Reason("fell_back", "invalid", "", "")
    good = row()
    broken = replace(good, status="failed", error=crash, latency_p50_ns=None)
    left_out = replace(good, status="excluded", error=Failure("delegate_missing", ""), latency_p50_ns=None)
    wrong = replace(good, verdict="invalid", reasons=(void,))
    told = [
        (one([base], [candidate] if candidate else []).decision, one([base], [candidate] if candidate else []).reasons)
        for base, candidate in (
            (good, None),
            (good, broken),
            (good, left_out),
            (good, wrong),
            (broken, good),
            (wrong, good),
        )
    ]
    assert told == [
        ("missing", ("missing",)),
        ("failed", ("candidate_failed:crashed",)),
        ("missing", ("excluded:delegate_missing",)),
        ("failed", ("candidate_void:fell_back",)),
        ("cannot_tell", ("base_failed:crashed",)),
        ("cannot_tell", ("base_void:fell_back",)),
    ]
    assert compare([left_out], [left_out]) == []
    assert compare([left_out], []) == []


def test_suspect_rows_are_compared_and_named() -> None:
    noisy = replace(row(), verdict="suspect", reasons=(Reason("noisy", "suspect", "", ""),))
    assert one([row()], [noisy]).reasons == ("candidate_suspect:noisy",)


def test_one_repetition_gives_a_ratio_and_no_claim() -> None:
    pair = one([row()], [row((150.0,))])
    assert (pair.decision, pair.ratio_low, pair.reasons) == ("cannot_tell", None, ("single_repetition",))
    assert pair.ratio == pytest.approx(1.5)


def test_across_sessions_without_history_nothing_under_ten_percent_is_claimed() -> None:
    nearly = tuple(1.09 * value for value in BASE)
    assert one([row()], [row(nearly)]).decision == "slower"
    pair = one([row()], [row(nearly)], across=Across({}))
    assert (pair.decision, pair.reasons) == ("cannot_tell", ("no_session_history",))
    assert one([row()], [row(SLOWER)], across=Across({identity(row()): [100.0, 101.0]})).reasons == (
        "no_session_history",
    )
    assert one([row()], [row(SLOWER)], across=Across({})).decision == "slower"


def test_across_sessions_the_spread_of_earlier_ones_is_added() -> None:
    steady = Across({identity(row()): [100.0, 100.5, 99.6, 100.2]})
    restless = Across({identity(row()): [100.0, 112.0, 91.0]})
    assert one([row()], [row(SLOWER)], across=steady).decision == "slower"
    assert "session_spread:4" in one([row()], [row(SLOWER)], across=steady).reasons
    pair = one([row()], [row(SLOWER)], across=restless)
    assert (pair.decision, pair.reasons) == ("cannot_tell", ("session_spread:3",))


def test_many_comparisons_are_corrected_for_their_number() -> None:
    shifted = tuple(value * 1.05 for value in (98.0, 102.0, 100.0, 97.0, 103.0))
    base = (97.0, 103.0, 100.0, 98.0, 102.0)
    assert one([row(base)], [row(shifted)]).decision == "slower"
    rows = [replace(row(base), model=f"m{i}") for i in range(20)]
    others = [replace(row(shifted if i == 0 else base), model=f"m{i}") for i in range(20)]
    pairs = compare(rows, others)
    assert (pairs[0].decision, pairs[0].reasons) == ("cannot_tell", ("many_comparisons",))


def test_by_runtime_frees_format_and_name_of_the_delegate_but_not_its_class() -> None:
    rows = [
        row(runtime="litert", format="tflite", delegate="cpu:xnnpack"),
        row(SLOWER, runtime="onnxruntime", format="onnx", delegate="cpu:mlas"),
        row(runtime="onnxruntime", format="onnx", delegate="gpu:cuda"),
        row(runtime="openvino", format="openvino", delegate="cpu:openvino"),
    ]
    pairs = compare(rows, rows, by="runtime")
    assert [(pair.key["runtime"], pair.decision) for pair in pairs] == [
        ("litert -> onnxruntime", "slower"),
        ("litert -> openvino", "no_difference"),
    ]


def test_by_precision_and_by_device() -> None:
    rows = [row(precision="fp32"), row(SLOWER, precision="int8")]
    (pair,) = compare(rows, rows, by="precision")
    assert (pair.key["precision"], pair.decision) == ("fp32 -> int8", "slower")
    phones = [row(device="adb:1", device_key="a"), row(SLOWER, device="adb:2", device_key="b", os_build="x")]
    (pair,) = compare(phones[:1], phones[1:], by="device")
    assert (pair.key["device"], pair.decision) == ("adb:1 -> adb:2", "slower")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"by": "colour"}, "cannot compare by 'colour'; there are runtime,"),
     ({"allow": ["model"]}, "'model' is no condition that --allow can free; there are device_key,")],
)  # fmt: skip
def test_an_unknown_axis_or_condition_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare([row()], [row()], **options)


def test_arms_are_paired_by_repetition_whatever_their_drift() -> None:
    drift = [100.0 * 1.05**k for k in range(14)]
    first = row(tuple(drift), ab_arm="A", runtime="litert", delegate="cpu:xnnpack")
    second = row(
        tuple(value * (1.03 + 0.002 * (-1) ** k) for k, value in enumerate(drift)), ab_arm="B", runtime="openvino"
    )
    (pair,) = compare_arms([first, second])
    assert pair.ratio == pytest.approx(1.03, abs=1e-4)
    assert (pair.decision, pair.reasons[0]) == ("slower", "paired")
    assert (
        one([first], [replace(second, runtime="litert", delegate=first.delegate, format=first.format)]).decision
        == "cannot_tell"
    )
    some = replace(second, repetition_numbers=(1, 3), repetition_medians_ns=(103.0, 103.0 * 1.05**2))
    assert compare_arms([first, some])[0].ratio == pytest.approx(1.03)


def test_accuracy_rows_are_not_compared() -> None:
    assert compare([row(scenario="accuracy")], [row(scenario="accuracy")]) == []


def test_in_what_both_arms_have_equal_meets_equal_and_what_an_arm_leaves_out_is_no_loss() -> None:
    a = [row(ab_arm="A", runtime="litert", precision=precision) for precision in ("int8", "fp32")]
    b = [row(SLOWER, ab_arm="B", runtime="openvino", precision=precision) for precision in ("fp32", "int8")]
    pairs = compare_arms([*a, *b])
    assert [pair.key["precision"] for pair in pairs] == ["int8", "fp32"]
    assert [pair.decision for pair in pairs] == ["slower", "slower"]
    left_out = replace(b[0], precision="fp16", status="excluded", repetition_medians_ns=(), latency_p50_ns=None)
    assert [pair.decision for pair in compare_arms([*a, *b, left_out])] == ["slower"] * 2
    only = replace(left_out, precision="fp32", error=Failure("runtime_missing", "no", None))
    (missing,) = compare_arms([a[1], only])
    assert (missing.decision, missing.reasons[0]) == ("missing", "excluded:runtime_missing")
