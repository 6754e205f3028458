"""The answer: what it recommends, what it says it cannot tell."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import synthetic_report as synthetic
from socbench.records import Reason, ReportData, TrialRow
from socbench.render import names, ranking
from socbench.render.conclusion import compare_answer, gathered
from socbench.render.sentences import answer, pair_name
from socbench.render.steps import largest_step, step_words


def _row(runtime: str, precision: str, ms: float, spread: float = 0.005, **changes: object) -> TrialRow:
    p50 = ms * 1e6
    return synthetic.row(
        runtime,
        precision,
        trial=f"{runtime}-{precision}",
        latency_p50_ns=p50,
        latency_p50_low_ns=p50 * (1 - 2 * spread),
        latency_p50_high_ns=p50 * (1 + 2 * spread),
        repetition_medians_ns=(p50 * (1 - spread), p50, p50 * (1 + spread)),
        accuracy_count=1000,
        **changes,
    )


def _answer(*rows: TrialRow) -> str:
    return " ".join(answer(ReportData((synthetic.session(),), rows)))


def test_the_fastest_that_keeps_its_accuracy_is_named_with_its_lead() -> None:
    said = _answer(_row("openvino", "int8", 3.1, accuracy_delta=-0.006), _row("litert", "fp32", 7.4))
    assert said.startswith("Fastest that keeps its accuracy: OpenVINO on the CPU at int8, 3.10 ms, 2.4 x faster than")
    assert "(LiteRT, 7.40 ms)" in said


def test_an_fp32_row_keeps_what_the_others_are_measured_against() -> None:
    reference = _row("litert", "fp32", 3.1, accuracy=0.9, accuracy_delta=None)
    said = _answer(reference, _row("openvino", "int8", 7.4, accuracy_delta=0.0))
    assert said.startswith("Fastest that keeps its accuracy: LiteRT on the CPU at fp32")


def test_a_faster_row_that_loses_accuracy_is_said_to_lose_it() -> None:
    lossy = _row("openvino", "int8", 1.2, accuracy_delta=-0.018, accuracy_delta_low=-0.03, accuracy_delta_high=-0.006)
    said = _answer(_row("litert", "fp16", 3.1), lossy)
    assert said.startswith("Fastest that keeps its accuracy: LiteRT on the CPU at fp16")
    assert "Faster still is OpenVINO on the CPU at int8 (1.200 ms), which loses 1.8 points of top-1." in said


def test_a_loss_that_the_labelled_inputs_cannot_show_is_said_to_be_unclear() -> None:
    row = _row("openvino", "int8", 1.2, accuracy_delta=-0.02, accuracy_delta_low=-0.06, accuracy_delta_high=0.02)
    assert ranking.accuracy_state(row) == "unclear"
    assert "too few to tell that from none" in _answer(_row("litert", "fp16", 3.1), row)


def test_a_decibel_is_no_point_and_a_twentieth_of_one_is_kept() -> None:
    kept = _row("openvino", "int8", 1.2, accuracy_metric="psnr", accuracy=28.95, accuracy_delta=-0.05)
    lost = _row("openvino", "int8", 1.2, accuracy_metric="psnr", accuracy_delta=-2.0, accuracy_delta_high=-1.5)
    assert (ranking.accuracy_state(kept), ranking.accuracy_state(lost)) == ("keeps", "loses")
    other = _row("litert", "fp16", 3.1, accuracy_metric="psnr", accuracy=29.0, accuracy_delta=0.0)
    assert "which loses 2.00 dB of PSNR." in _answer(other, lost)


def test_where_the_metric_is_an_error_more_of_it_is_the_loss() -> None:
    def error(delta: float, low: float = -1.0) -> TrialRow:
        changes = {"accuracy_metric": "keypoint_error", "accuracy_delta": delta, "accuracy_delta_low": low}
        return _row("litert", "int8", 1.2, **changes)

    worse, better, unclear = error(0.05, low=0.02), error(-0.05), error(0.05, low=-0.01)
    assert [ranking.accuracy_state(row) for row in (worse, better, unclear)] == ["loses", "keeps", "unclear"]


def test_a_tie_is_said_as_a_tie() -> None:
    said = _answer(_row("openvino", "fp32", 7.40, 0.02), _row("onnxruntime", "fp32", 7.42, 0.02))
    assert "It can't be told apart from ONNX Runtime on the CPU at fp32: their ratio is 0.96 to 1.05." in said
    assert "x faster" not in said


def test_a_clear_lead_is_not_called_a_tie() -> None:
    assert "told apart" not in _answer(_row("openvino", "fp32", 7.0), _row("onnxruntime", "fp32", 7.4))


def test_doubtful_rows_are_never_recommended() -> None:
    wrong = Reason("output_wrong", "invalid", "cosine 0.4", "Use another file.")
    void = _row("litert", "int8", 0.5, verdict="invalid", reasons=(wrong,))
    suspect = _row("onnxruntime", "int8", 1.0, verdict="suspect")
    said = _answer(void, suspect, _row("openvino", "fp32", 7.0))
    assert said.startswith("Fastest that keeps its accuracy: OpenVINO on the CPU at fp32")
    assert "ONNX Runtime on the CPU at int8 may be faster (1.000 ms), but that row is suspect" in said
    assert "Of 3 rows, 2 can't be trusted" in said


def test_when_no_row_is_trusted_nothing_is_recommended() -> None:
    said = _answer(_row("litert", "fp32", 7.0, verdict="suspect"), _row("openvino", "fp32", 6.0, verdict="invalid"))
    assert said.startswith("No row can be trusted, so nothing is ranked and nothing is recommended.")
    assert "Fastest that" not in said


def test_when_no_row_is_trusted_the_frequent_reason_comes_with_its_advice() -> None:
    busy = Reason("background_load", "suspect", "1.7 cores busy", "close what else runs")
    rows = [_row(name, "fp32", 7.0, verdict="suspect", reasons=(busy,)) for name in ("litert", "openvino")]
    assert "The most frequent reason is background load, 2 of 2. Close what else runs." in _answer(*rows)


def test_when_nothing_was_measured_the_frequent_reason_is_said() -> None:
    said = " ".join(answer(synthetic.all_failed()))
    assert said.startswith("Nothing was measured: of 4 rows, 3 failed and 1 left out.")
    assert "(3 of 4): ai-edge-litert is not installed" in said


def test_an_empty_report_says_that_it_is_empty() -> None:
    assert answer(ReportData((), ()))[0].startswith("There are no rows")


def test_without_labelled_data_the_answer_says_what_stands_in_for_it() -> None:
    said = " ".join(answer(synthetic.one_row()))
    assert said.startswith("LiteRT on the CPU at fp32 takes 9.10 ms.")
    assert "Accuracy was not measured" in said
    assert "one repetition" in said


def test_a_throttled_run_is_told_as_a_curve() -> None:
    said = " ".join(answer(synthetic.several_devices(sustained=True)))
    assert (
        "begins at 8.00 ms and, from 118 s on, takes 11.5 ms, 1.44 x as long: the limit of the clock was lowered"
        in said
    )
    assert "Of 4 devices, each at its best, Pixel 9 Pro is fastest" in said


def test_rows_that_differ_only_in_threads_are_told_apart() -> None:
    one, four = _row("litert", "fp32", 8.0), replace(_row("litert", "fp32", 3.0), trial="t4", threads=4)
    assert "LiteRT on the CPU at fp32, 4 threads" in _answer(one, four)


def test_ranking_never_mixes_doubtful_rows_among_the_true_ones() -> None:
    data = synthetic.quick()
    [section, _] = ranking.sections(data)
    groups = [name for name, _ in section.devices[0].groups]
    assert groups == ["trusted", "loses", "suspect", "void"]
    for name, rows in section.devices[0].groups:
        medians = [row.latency_p50_ns for row in rows]
        assert medians == sorted(medians), name
        assert all(ranking.is_trusted(row) for row in rows) == (name in ("trusted", "loses"))


def test_a_comparison_concludes_like_a_colleague() -> None:
    said = compare_answer(synthetic.pairs(), base="nightly", candidate="patch")
    assert said[0] == "patch is slower on 2 rows of 7, most on LiteRT on the CPU at fp32: +21.0 % (+18.6 % to +23.4 %)."
    assert said[1].startswith("patch is faster on 1 row of 7: OpenVINO on the CPU at int8: −18.0 %")  # noqa: RUF001
    assert "1 row shows no difference: the intervals reach from −0.6 % to +1.4 %, inside the margin." in said  # noqa: RUF001
    assert any("can't be told" in sentence for sentence in said)
    assert any("missing or failed" in sentence for sentence in said)
    assert compare_answer([])[0].endswith("nothing to compare.")


def test_a_pair_that_its_own_spread_hides_is_not_put_down_to_missing_history() -> None:
    told = synthetic.pairs()[4]
    told = replace(told, decision="cannot_tell", reasons=("no_session_history",))
    within_days = replace(told, ratio=1.08, ratio_low=1.08 / 1.12, ratio_high=1.08 * 1.12)  # 8 % at 2 % of its own
    hidden = replace(told, ratio=1.08, ratio_low=1.08 / 1.6, ratio_high=1.08 * 1.6)
    assert compare_answer([within_days])[0].startswith("1 row can't be told: with fewer than three earlier sessions")
    assert compare_answer([hidden])[0].startswith("1 row can't be told: the interval is wider than the difference")


def test_what_holds_for_several_pairs_is_said_once() -> None:
    suspect = ("base_suspect:noisy", "candidate_suspect:noisy")
    pairs = [replace(pair, reasons=suspect) for pair in synthetic.pairs()[:3]]
    pairs.append(replace(synthetic.pairs()[3], reasons=("candidate_suspect:noisy",)))
    pairs.append(replace(synthetic.pairs()[6], reasons=("missing",)))
    assert [(text, len(found)) for text, found in gathered(pairs)] == [
        ("suspect: noisy (both sides)", 3),
        ("suspect: noisy (candidate)", 1),
    ]
    assert compare_answer(pairs)[-1].startswith("Something disturbed the measurement on all 4 rows (noisy)")


def test_a_pair_is_not_called_by_the_environment_in_which_its_sides_differ() -> None:
    pair = synthetic.pairs()[4]
    assert pair.candidate is not None
    older = replace(pair.candidate, environment="onnxruntime-1.24.4")
    assert pair_name(replace(pair, candidate=older), model=False) == "ONNX Runtime on the CPU at fp32"
    both = replace(pair, candidate=older, base=older)
    assert pair_name(both, model=False) == "ONNX Runtime on the CPU at fp32, in onnxruntime-1.24.4"


def test_the_gate_fails_on_what_is_slower_missing_or_void_and_strictly_on_what_cannot_be_told() -> None:
    pairs = synthetic.pairs()
    assert [pair.decision for pair in ranking.gate_failures(pairs, 0.05)] == ["slower", "slower", "missing"]
    assert [pair.decision for pair in ranking.gate_failures(pairs, 0.10)] == ["slower", "missing"]
    strict = [pair.decision for pair in ranking.gate_failures(pairs, 0.10, strict=True)]
    assert strict == ["slower", "cannot_tell", "not_comparable", "missing"]
    void = replace(pairs[2], candidate=replace(pairs[2].candidate, verdict="invalid"))
    assert ranking.gate_failures([void], 0.05) == [void]


def test_accuracy_that_the_table_shows_is_not_said_to_be_unmeasured() -> None:
    said = _answer(_row("litert", "int8", 3.1, accuracy=0.9, accuracy_delta=None))
    assert "Accuracy was not measured" not in said
    assert "What a row loses in accuracy can't be said: there is none of full precision to compare with." in said
    assert "Accuracy was not measured" in _answer(_row("litert", "int8", 3.1, accuracy=None, accuracy_delta=None))


@pytest.mark.parametrize(
    ("title", "limit", "shown"),
    [
        ("Pixel 8", 30, "Pixel 8"),
        ("A very long name of a device that", 30, "A very long name of a device…"),
        ("AMD EPYC virtual machine (local)", 30, "AMD EPYC virtual mach… (local)"),
        ("AMD EPYC virtual machine (adb:127.0.0.1:42309)", 30, "AMD EPY… (adb:127.0.0.1:42309)"),
        ("Pixel 8 (adb:0123456789abcdefghijk)", 24, "Pi… (…56789abcdefghijk)"),
    ],
)
def test_a_cut_title_of_a_device_keeps_the_address_that_tells_it_from_its_twin(
    title: str, limit: int, shown: str
) -> None:
    assert names.device_title(title, limit) == shown


def test_the_largest_step_is_told_where_it_is_not_the_slow_down_that_dates_the_run() -> None:
    step = {"at_s": 360.4, "ratio": 3.1, "lasting_ratio": 3.0, "cause": "contention", "evidence": "x"}
    thermal = {"throttle_at_s": 100.0, "steps": [{**step, "at_s": 100.0, "lasting_ratio": 1.3}, step]}
    first = "it was first slower by 10 % from 100 s on: why could not be read"
    largest = "its largest lasting step is at 360 s, to 3.0 x the time: something else used the device"
    assert step_words(thermal) == f"{largest}; {first}"
    assert step_words({**thermal, "throttle_at_s": None}) == largest
    thermal |= {"baseline_p50_ns": 2e5, "sustained_p50_ns": 2.1e5, "slowdown": 1.05, "pace_slowdown": 2.07}
    row = synthetic.row(scenario="sustained", thermal=thermal)
    (said, *_) = answer(dataclasses.replace(synthetic.one_row(), rows=(row,)))
    assert said.startswith("LiteRT on the CPU at fp32 begins at 200 µs and in the end gets 2.1 x less done, though")
    assert said.endswith(f"single inferences take as long: {largest}; {first}.")
    assert largest_step({**thermal, "throttle_at_s": 358.0}) is None
    assert largest_step({"steps": [{**step, "lasting_ratio": 1.19}]}) is None
    assert largest_step({"throttle_at_s": None, "steps": None}) is None
