"""The analysis of sustained runs, against cases made by hand and against simulated phones whose truth is known."""

import numpy as np
import pytest
from socbench.analysis.change_points import bin_medians, change_points
from socbench.analysis.throttling import SustainedAnalysis, analyse_sustained, temperature_rise
from socbench.devices.simulated import inferences, random_phones, simulate, truth_of
from socbench.records import TelemetrySeries

MS = 1_000_000
S = 1_000_000_000


def run(levels: list[tuple[float, float]], *, noise: float = 0.01, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Back-to-back inferences: a list of (seconds, latency in ms)."""
    rng = np.random.default_rng(seed)
    latency = np.concatenate(
        [
            np.full(int(seconds * 1000 / ms), ms) * np.exp(rng.normal(0, noise, int(seconds * 1000 / ms)))
            for seconds, ms in levels
        ]
    )
    latency_ns = (latency * MS).astype(np.int64)
    start_ns = np.concatenate(([0], np.cumsum(latency_ns)[:-1])) + 5 * S
    return start_ns, latency_ns


def series(kind: str, points: list[tuple[float, int]], source: str = "policy4") -> TelemetrySeries:
    t, value = zip(*points, strict=True)
    return TelemetrySeries("fake:phone", kind, source, np.array([int(x * S) + 5 * S for x in t]), np.array(value))


def test_a_step_is_dated_and_measured() -> None:
    found = analyse_sustained(*run([(120, 5.0), (480, 7.5)]))
    assert found.throttle_at_s == pytest.approx(120, abs=0.5)
    assert found.slowdown == pytest.approx(1.5, abs=0.01)
    assert found.baseline_s == 60
    assert found.cause == "unknown"
    assert found.throttled is False


def test_a_weak_slow_phase_just_before_a_strong_step_does_not_take_its_date() -> None:
    """The median of the half minute from 336 s on is slow: six of its seconds are twice as slow."""
    found = analyse_sustained(*run([(336, 5.0), (24, 5.6), (240, 10.0)]))
    assert found.throttle_at_s == pytest.approx(360, abs=0.5)
    found = analyse_sustained(*run([(336, 5.0), (40, 5.6), (240, 10.0)]))
    assert found.throttle_at_s == pytest.approx(336, abs=0.5), "40 s are a lasting slow-down of their own"


def test_bursts_of_seconds_in_the_first_minute_do_not_take_the_baseline_away() -> None:
    bursts = [(3, 5.0), (2, 6.6), (4, 5.0), (3, 6.5), (6, 5.0), (4, 6.6), (98, 5.0)]
    found = analyse_sustained(*run([*bursts, (300, 10.0)]))
    assert found.baseline_p50_ns == pytest.approx(5.0 * MS, rel=0.01)
    assert found.throttle_at_s == pytest.approx(120, abs=0.5)
    found = analyse_sustained(*run([(3, 5.0), (117, 6.6), (300, 10.0)]))
    assert found.baseline_p50_ns is None, "a rise that stays leaves nothing to compare with"
    assert [round(step.at_s) for step in found.steps if step.lasting_ratio > 1.2] == [3, 120]


def test_the_largest_step_is_known_where_a_lasting_slow_phase_came_first() -> None:
    wait = series("cpu_wait_permille", [(t / 2, 600 if t / 2 >= 360 else 5) for t in range(1200)], "schedstat")
    found = analyse_sustained(*run([(100, 5.0), (40, 5.8), (220, 5.0), (240, 10.0)]), (wait,))
    assert found.throttle_at_s == pytest.approx(100, abs=0.5)
    largest = max(found.steps, key=lambda step: step.lasting_ratio)
    assert largest.at_s == pytest.approx(360, abs=0.5)
    assert largest.lasting_ratio == pytest.approx(2.0, abs=0.02)
    assert largest.cause == "contention"


def test_a_staircase_is_dated_by_the_step_that_costs_ten_percent() -> None:
    found = analyse_sustained(*run([(120, 5.0), (7, 5.6), (7, 6.4), (7, 7.4), (300, 8.8)]))
    assert found.throttle_at_s == pytest.approx(120, abs=0.5)


def test_a_sawtooth_of_coarse_steps_is_dated_by_its_first_tooth() -> None:
    teeth = [(8, 6.2), (10, 5.0), (30, 6.2), (6, 5.0)] + [(30, 6.2), (6, 5.0)] * 6
    found = analyse_sustained(*run([(120, 5.0), (22, 6.2), *teeth]))
    assert found.throttle_at_s == pytest.approx(120, abs=0.5)
    found = analyse_sustained(*run([(120, 5.0), (9, 6.2), (8, 5.0), (300, 6.2)]))
    assert found.throttle_at_s == pytest.approx(120, abs=0.5)


def test_each_step_has_its_own_size_and_cause() -> None:
    cap = series("clock_cap_khz", [(t / 2, 3_000_000 if t / 2 < 300 else 2_000_000) for t in range(1200)])
    wait = series("cpu_wait_permille", [(t / 2, 300 if 120 <= t / 2 < 180 else 5) for t in range(1200)], "schedstat")
    found = analyse_sustained(*run([(120, 5.0), (60, 7.0), (120, 5.0), (300, 7.5)]), (cap, wait))
    assert [(round(one.at_s), one.cause) for one in found.steps] == [
        (120, "contention"),
        (180, None),
        (300, "clock_cap"),
    ]
    assert [one.ratio for one in found.steps] == pytest.approx([1.4, 1 / 1.4, 1.5], abs=0.01)
    assert found.steps[0].evidence == "its threads began to wait for a core that other processes used"


def test_time_that_the_host_of_a_virtual_machine_took_is_contention() -> None:
    steal = series("cpu_steal_permille", [(t / 2, 180 if t / 2 >= 120 else 9) for t in range(800)], "cpu")
    found = analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (steal,))
    assert (found.cause, found.throttled) == ("contention", False)
    assert "virtual machine" in (found.evidence or "")


def test_a_steady_run_does_not_throttle() -> None:
    found = analyse_sustained(*run([(600, 5.0)], noise=0.05))
    assert (found.throttle_at_s, found.cause, found.throttled) == (None, None, False)
    assert found.slowdown == pytest.approx(1.0, abs=0.005)


def test_a_spike_and_a_short_slow_down_are_not_lasting() -> None:
    found = analyse_sustained(*run([(120, 5.0), (10, 9.0), (300, 5.0)]))
    assert found.throttle_at_s is None
    assert found.worst_minute_p50_ns is not None


def test_nine_percent_is_not_counted_and_eleven_is() -> None:
    assert analyse_sustained(*run([(120, 5.0), (300, 5.45)])).throttle_at_s is None
    assert analyse_sustained(*run([(120, 5.0), (300, 5.56)])).throttle_at_s == pytest.approx(120, abs=1)


def test_a_change_in_the_first_seconds_leaves_no_baseline() -> None:
    found = analyse_sustained(*run([(6, 5.0), (300, 9.0)]))
    assert found.baseline_p50_ns is None
    assert found.slowdown is None
    assert found.throttle_at_s is None
    assert found.throttled is None


def test_a_clock_cap_that_falls_at_the_same_time_is_the_cause() -> None:
    cap = series("clock_cap_khz", [(t / 2, 3_000_000 if t / 2 < 120 else 2_000_000) for t in range(800)])
    found = analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (cap,))
    assert (found.cause, found.throttled) == ("clock_cap", True)
    assert "policy4" in (found.evidence or "")


def test_a_cap_that_fell_long_before_is_not_the_cause() -> None:
    cap = series("clock_cap_khz", [(t / 2, 3_000_000 if t / 2 < 20 else 2_000_000) for t in range(800)])
    assert analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (cap,)).cause == "unknown"


def test_a_quota_counter_that_starts_to_grow_is_the_cause_and_is_not_heat() -> None:
    counter = series(
        "quota_throttled_us", [(t / 2, max(0, int((t / 2 - 120) * 300_000))) for t in range(800)], "cgroup"
    )
    found = analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (counter,))
    assert (found.cause, found.throttled) == ("cpu_quota", False)


def test_a_quota_that_begins_long_after_the_slow_down_is_not_its_cause() -> None:
    late = series("quota_throttled_us", [(t / 2, max(0, int((t / 2 - 130) * 500_000))) for t in range(800)], "cgroup")
    assert analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (late,)).cause == "unknown"


def test_other_processes_are_contention() -> None:
    busy = series("other_busy_permille", [(t / 2, 20 if t / 2 < 120 else 480) for t in range(800)], "cpu")
    assert analyse_sustained(*run([(120, 5.0), (300, 7.5)]), (busy,)).cause == "contention"


def test_a_sawtooth_has_a_period_and_a_depth() -> None:
    teeth = [(120, 5.0)] + [(20, 7.0), (20, 6.0)] * 8
    found = analyse_sustained(*run(teeth))
    assert found.oscillation_period_s == pytest.approx(40, abs=2)
    assert found.oscillation_depth == pytest.approx(7 / 6 - 1, abs=0.02)


def test_temperature_rise_and_time_constant() -> None:
    t = np.arange(0, 600, 0.5)
    warm = series("temperature_milli_c", [(x, int(30_000 + 20_000 * (1 - np.exp(-x / 90)))) for x in t], "skin")
    rise, tau = temperature_rise(warm)
    assert rise == pytest.approx(20_000, abs=200)
    assert tau == pytest.approx(90, rel=0.08)


@pytest.mark.parametrize("value", [0, -274_000, 128_000])
def test_nonsense_sensors_are_not_believed(value: int) -> None:
    found = analyse_sustained(*run([(60, 5.0)]), (series("temperature_milli_c", [(t, value) for t in range(60)]),))
    assert found.temperature_rise_milli_c is None


def test_change_points_of_an_exact_staircase() -> None:
    assert change_points(np.log(np.repeat([1.0, 1.1, 1.3], 20))) == [20, 40]
    assert change_points(np.zeros(40)) == []


def test_bins_take_true_medians() -> None:
    times, medians = bin_medians(np.array([0, 1, 2, 3 * S]), np.array([5, 1, 3, 8]), 1.0)
    assert times.tolist() == [0.0, 3.0]
    assert medians.tolist() == [3.0, 8.0]


def test_too_few_samples_claim_nothing() -> None:
    found = analyse_sustained(np.arange(5), np.ones(5))
    assert isinstance(found, SustainedAnalysis)
    assert found.slowdown is None


def test_thirty_simulated_phones_are_judged_right() -> None:
    phones = random_phones(30, seed=5)
    trajectories = simulate(phones, 1800)
    throttling = dated = steady = 0
    for phone in range(30):
        start_ns, latency_ns, true_s = inferences(phones, trajectories, phone, seed=phone)
        truth = truth_of(start_ns, true_s, float(phones.base_latency_s[phone]), float(phones.noise_cv[phone]))
        found = analyse_sustained(start_ns, latency_ns)
        if truth.throttle_at_s is None:
            steady += 1
            assert found.throttle_at_s is None
        else:
            throttling += 1
            dated += found.throttle_at_s is not None and abs(found.throttle_at_s - truth.throttle_at_s) <= max(
                5, 0.02 * truth.throttle_at_s
            )
    assert throttling >= 12
    assert steady >= 5
    assert dated >= 0.9 * throttling
