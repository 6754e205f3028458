"""Each reason of the closed list, seen once when it holds and not when it doesn't."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from socbench.analysis.statistics import Shape
from socbench.analysis.verdicts import ADVICE, RepetitionFacts, TrialFacts, verdict
from socbench.records import Fidelity

SHAPE = Shape(count=100, median_ns=1e6, drift=0.0, spread=0.02, modes=1, mode_gap=0.0, outliers=0)
QUIET = RepetitionFacts(
    repetition=1, shape=SHAPE, measured_ns=10**9, measured_count=100, warmup_steady=True, cpu_ns=999_000_000,
    involuntary_switches=3, busy_ns=1_050_000_000, quota_throttled_ns=0, threads_effective=1, emulated=False,
    delegation="full", precision_effective="fp32", power_before={"source": None}, cool_down={"outcome": "reached"},
)  # fmt: skip
GOOD = TrialFacts(
    status="done", scenario="single_stream", device="local", delegate="cpu:mlas", precision="fp32", threads=1,
    repetitions=(QUIET, QUIET, QUIET), device_cores=4, min_count=50, lowest_cap=1.0, highest_thermal_status=0,
    temperature_seen=True, fidelity=Fidelity(1.0, 0.0, 0.0, 1.0, True),
)  # fmt: skip


def every(**fields: Any) -> TrialFacts:
    return replace(GOOD, repetitions=tuple(replace(one, **fields) for one in GOOD.repetitions))


def shaped(**fields: Any) -> TrialFacts:
    return every(shape=replace(SHAPE, **fields))


def medians(*values: float) -> TrialFacts:
    return replace(GOOD, repetitions=tuple(replace(QUIET, shape=replace(SHAPE, median_ns=v)) for v in values))


BATTERY = {"source": "usb", "battery_permille": 800, "battery_saver": False}
ONE_EACH: dict[str, tuple[TrialFacts, TrialFacts]] = {
    # code: (facts that show it, facts just short of it)
    "charging": (every(power_before=BATTERY), every(power_before={**BATTERY, "source": "battery"})),
    "temperature_unreadable": (replace(GOOD, temperature_seen=False), replace(GOOD, temperature_seen=None)),
    "no_cool_down": (every(cool_down={"outcome": "timeout"}), every(cool_down={})),
    "precision_not_effective": (every(precision_effective="fp16"), every(precision_effective=None)),
    "partial_delegation": (every(delegation="partial", nodes_total=9, nodes_delegated=4), every(delegation="unknown")),
    "second_load": (replace(every(second_load_ns=1_900_000_000), busy_cores=2), every(second_load_ns=0)),
    "vendor_program": (replace(GOOD, program="benchmark_model"), replace(GOOD, program=None)),
    "single_repetition": (replace(GOOD, repetitions=(QUIET,)), replace(GOOD, repetitions=(QUIET, QUIET))),
    "shell_process": (replace(GOOD, device="adb:1"), replace(GOOD, device="ssh:adb")),
    "few_samples": (shaped(count=49), shaped(count=50)),
    "not_steady": (every(warmup_steady=False), every(warmup_steady=None)),
    "drifting": (shaped(drift=-0.06), shaped(drift=0.05)),
    "noisy": (medians(1e6, 1.06e6, 1.12e6), medians(1e6, 1.04e6, 1.08e6)),
    "multimodal": (shaped(modes=2, mode_gap=0.4), shaped(modes=1)),
    "throttled": (replace(GOOD, highest_thermal_status=2), replace(GOOD, highest_thermal_status=1)),
    "clocks_capped": (replace(GOOD, lowest_cap=0.8), replace(GOOD, lowest_cap=0.995)),
    "preempted": (every(involuntary_switches=21), every(involuntary_switches=20)),
    "background_load": (every(busy_ns=1_200_000_000), every(busy_ns=1_140_000_000)),
    "cpu_quota": (every(quota_throttled_ns=20_000_000), every(quota_throttled_ns=10_000_000)),
    "threads_not_effective": (every(threads_effective=4), every(threads_effective=None)),
    "low_battery": (every(power_before={"source": "battery", "battery_permille": 199}),
                    every(power_before={"source": "battery", "battery_permille": 200})),
    "battery_saver": (every(power_before={"battery_saver": True}), every(power_before={"battery_saver": False})),
    "power_changed": (every(power_before={"source": "ac"}, power_after={"source": "battery"}),
                      every(power_before={"source": "ac"}, power_after={"source": "ac"})),
    "debug_build": (every(details={"debug_build": True}), every(details={"debug_build": "?"})),
    "fell_back": (every(delegation="fell_back", delegate_effective="cpu:mlas"), every(delegation="full")),
    "output_wrong": (replace(GOOD, fidelity=Fidelity(0.5, 1, 1, 0, False)),
                     replace(GOOD, fidelity=Fidelity(0.5, 1, 1, 0, None))),
    "output_not_finite": (replace(GOOD, fidelity=Fidelity(None, None, None, None, False, finite=False)),
                          replace(GOOD, fidelity=None)),
    "output_constant": (replace(GOOD, fidelity=Fidelity(0.5, 1, 1, 0, False, constant=True)), GOOD),
    "emulated": (every(emulated=True), every(emulated=None)),
    "clock_jump": (every(clock_jump_ns=2 * 10**9), every(clock_jump_ns=0)),
    "interrupted": (replace(GOOD, status="interrupted"), GOOD),
}  # fmt: skip


def codes(facts: TrialFacts) -> list[str]:
    found = verdict(facts)
    assert found is not None
    return [reason.code for reason in found.reasons]


def test_every_reason_of_the_list_is_tested() -> None:
    assert set(ONE_EACH) == set(ADVICE)


def test_a_quiet_trial_is_valid_without_a_word() -> None:
    found = verdict(GOOD)
    assert found is not None
    assert (found.verdict, found.reasons) == ("valid", ())


@pytest.mark.parametrize("code", ONE_EACH)
def test_a_reason_is_given_exactly_when_it_holds(code: str) -> None:
    holds, short = ONE_EACH[code]
    found = verdict(holds)
    assert found is not None
    assert [reason.code for reason in found.reasons] == [code]
    assert found.verdict == {"note": "valid"}.get(ADVICE[code][0], ADVICE[code][0])
    assert found.reasons[0].text
    assert found.reasons[0].advice
    assert code not in codes(short)


def test_the_text_has_the_numbers() -> None:
    texts = {code: (verdict(holds) or exit()).reasons[0].text for code, (holds, _) in ONE_EACH.items()}
    assert texts["partial_delegation"] == "cpu:mlas took 4 of 9 nodes"
    assert texts["fell_back"] == "cpu:mlas was asked for, cpu:mlas ran"
    assert texts["drifting"] == "latency changed by -6% within a repetition"
    assert texts["clocks_capped"] == "a clock was capped at 80% of its highest"
    assert texts["background_load"] == "other processes kept 0.2 cores busy"
    assert texts["few_samples"] == "49 inferences in a repetition, 50 were wanted"
    assert texts["output_wrong"].startswith(
        "outputs differ from the reference beyond the card's tolerance (cosine 0.5,"
    )


def test_one_thread_that_had_no_whole_core_was_preempted() -> None:
    assert codes(every(cpu_ns=960_000_000, busy_ns=None)) == ["preempted"]
    assert codes(replace(every(cpu_ns=960_000_000, busy_ns=None), delegate="gpu:opencl")) == []
    assert codes(replace(every(cpu_ns=960_000_000, busy_ns=None, threads_effective=2), threads=2)) == []


def test_beside_a_second_load_its_time_is_no_background_and_waiting_no_flaw() -> None:
    asked = {"busy_ns": 2_900_000_000, "run_delay_ns": 500_000_000, "involuntary_switches": 99}
    beside = replace(every(**asked, second_load_ns=1_900_000_000), busy_cores=2)
    found = verdict(beside)
    assert found is not None
    assert [(reason.code, reason.text) for reason in found.reasons] == [
        ("second_load", "ran beside a second load of 2 busy processes; on average 1.9 cores were busy with them")
    ]
    assert codes(replace(beside, busy_cores=None)) == ["preempted"]
    assert codes(replace(every(**asked, second_load_ns=1_600_000_000), busy_cores=2)) == [
        "background_load",
        "second_load",
    ]
    unknown = verdict(replace(every(busy_ns=None), busy_cores=1))
    assert unknown is not None
    assert unknown.reasons[0].text == "ran beside a second load of 1 busy process; how busy they were is not known"


def test_the_worst_level_decides_and_comes_first() -> None:
    found = verdict(replace(every(delegation="fell_back", involuntary_switches=99), device="adb:1"))
    assert found is not None
    assert found.verdict == "invalid"
    assert [reason.level for reason in found.reasons] == ["invalid", "suspect", "note"]


def test_how_a_long_run_changes_is_its_result() -> None:
    slow = replace(
        shaped(drift=0.5, modes=2, mode_gap=1.0), scenario="sustained", lowest_cap=0.5, highest_thermal_status=3
    )
    assert codes(replace(slow, repetitions=slow.repetitions[:1])) == []


def test_accuracy_trials_are_not_judged_by_their_timing() -> None:
    assert codes(replace(shaped(count=1), scenario="accuracy", temperature_seen=False)) == []


@pytest.mark.parametrize("status", ["failed", "excluded"])
def test_what_did_not_run_has_no_verdict(status: str) -> None:
    assert verdict(replace(GOOD, status=status)) is None


def test_nothing_known_is_nothing_held_against_it() -> None:
    assert codes(replace(GOOD, repetitions=(RepetitionFacts(1), RepetitionFacts(2)), fidelity=None)) == []


def test_a_wait_for_a_core_counts_a_thread_and_is_said_in_percent() -> None:
    found = verdict(every(run_delay_ns=50_000_000))
    assert found is not None
    assert [(reason.code, reason.text) for reason in found.reasons] == [
        ("preempted", "waited for a core for 5% of the time")
    ]
    assert codes(every(run_delay_ns=30_000_000)) == []
    assert codes(replace(every(run_delay_ns=50_000_000, threads_effective=2), threads=2)) == []
