"""Statistics, to the digit; expected values were computed by hand or by SciPy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socbench.analysis import statistics
from socbench.analysis.history import steps

MEDIANS = st.lists(st.floats(1e2, 1e10), min_size=2, max_size=12)


def test_the_headline_of_equal_repetitions_is_exact() -> None:
    assert statistics.centre([123457.0] * 5) == statistics.Centre(123457.0, 123457.0, 123457.0, 5)


def test_the_interval_is_students_t_on_logarithms() -> None:
    found = statistics.centre([90, 100, 110])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((99.66554934, 77.66999933, 127.89007096), rel=1e-9)


def test_one_repetition_has_no_interval_and_none_has_nothing() -> None:
    assert statistics.centre([100]) == statistics.Centre(100.0, None, None, 1)
    assert statistics.centre([]) is None


def test_percentiles_interpolate_and_tails_need_300_samples() -> None:
    assert statistics.percentile([4, 1, 3, 2], 0.5) == 2.5
    assert statistics.percentile([1, 2, 3, 4, 5], 0.9) == pytest.approx(4.6)
    assert statistics.percentile([], 0.5) is None
    assert statistics.tail(list(range(299)), 0.99) is None
    assert statistics.tail(list(range(301)), 0.99) == pytest.approx(297.0)


def test_welch_and_pairs_agree_with_scipys_own_tests() -> None:
    base, candidate = [100, 102, 101, 99, 103], [110, 112, 109, 111, 113]
    one, two = statistics.ratio(base, candidate), statistics.paired_ratio(base, candidate)
    assert one is not None
    assert two is not None
    assert (one.ratio, one.low, one.high) == pytest.approx((1.09902844, 1.07526026, 1.12332201), rel=1e-8)
    assert (one.p_value, one.freedom) == pytest.approx((9.210481940420626e-06, 7.929706238336238), rel=1e-9)
    assert (two.ratio, two.low, two.high) == pytest.approx((1.09902844, 1.08068171, 1.11768665), rel=1e-8)
    assert (two.p_value, two.freedom) == pytest.approx((9.926007652496306e-05, 4), rel=1e-9)


def test_a_ratio_without_repetitions_has_no_interval() -> None:
    assert statistics.ratio([100], [110, 112]) == statistics.Ratio(pytest.approx(1.1099549), None, None, None, None)
    assert statistics.paired_ratio([100], [110]) == statistics.Ratio(pytest.approx(1.1), None, None, None, None)
    assert statistics.ratio([], [1]) is None


def test_across_sessions_the_learned_spread_is_what_counts() -> None:
    one = statistics.Ratio(1.05, 1.04, 1.06, 1e-9, 8.0)
    wide = statistics.across_sessions(one, [[100, 104, 97, 101]])
    assert math.log(wide.high or 0) - math.log(1.05) == pytest.approx(0.12933694458329156, rel=1e-9)
    noisy = statistics.Ratio(1.05, 0.5, 2.2, 0.9, 8.0)
    assert statistics.across_sessions(noisy, [[100, 104, 97, 101]]) is noisy


def test_without_history_nothing_under_ten_percent_is_claimed() -> None:
    one = statistics.ratio([100, 100.1, 99.9], [109, 109.1, 108.9])
    assert one is not None
    wide = statistics.without_history(one)
    assert (wide.low or 0) < 1 < (wide.high or 0)
    assert wide.p_value == 1.0
    far = statistics.without_history(statistics.ratio([100, 100.1, 99.9], [120, 120.1, 119.9]) or one)
    assert (far.low or 0) > 1.08
    assert (far.p_value or 1) < 0.01


def test_holm_multiplies_by_what_is_left() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_throughput_is_inferences_a_second() -> None:
    assert statistics.throughput_hz(50, 2_000_000_000) == 25.0
    assert statistics.throughput_hz(50, 0) is None


def test_a_shape_names_drift_modes_and_outliers() -> None:
    quiet = np.tile([100, 101, 99, 100, 102], 20)
    found = statistics.shape(quiet)
    assert found == statistics.Shape(100, 100.0, 0.0, pytest.approx(0.01), 1, 0.0, 0)
    spiky = quiet.copy()
    spiky[::25] = 150
    assert (statistics.shape(spiky) or found).outliers == 4
    ramp = statistics.shape(1e6 * np.linspace(1, 1.2, 100))
    assert (ramp or found).drift == pytest.approx((1 + 0.2 * 89.5 / 99) / (1 + 0.2 * 9.5 / 99) - 1)
    assert statistics.shape(np.array([], np.int64)) is None


def test_two_levels_are_two_modes_and_one_level_is_one() -> None:
    random = np.random.default_rng(1)
    two = np.where(random.random(2000) < 0.3, 130.0, 100.0) * np.exp(0.01 * random.standard_normal(2000))
    found = statistics.shape(two)
    assert found is not None
    assert found.modes == 2
    assert found.mode_gap == pytest.approx(0.30, abs=0.01)
    for values in (
        np.exp(0.2 * random.standard_normal(2000)),
        random.exponential(1, 2000) + 1,
        random.uniform(1, 2, 2000),
        100 + random.standard_t(2, 2000),
        np.where(random.random(2000) < 0.05, 150.0, 100.0),
    ):
        assert (statistics.shape(values * 1000) or found).modes == 1


@given(MEDIANS, st.randoms())
def test_the_order_of_repetitions_changes_nothing(medians: list[float], random: object) -> None:
    shuffled = sorted(medians, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert statistics.centre(shuffled) == statistics.centre(medians)


@given(MEDIANS, st.floats(1e-2, 1e2))
def test_the_headline_scales_with_the_unit(medians: list[float], scale: float) -> None:
    one, two = statistics.centre(medians), statistics.centre([scale * value for value in medians])
    assert one is not None
    assert two is not None
    assert [two.value, two.low, two.high] == pytest.approx(
        [scale * value for value in (one.value, one.low or 0, one.high or 0)], rel=1e-6
    )
    # Equal but for a rounding error, an interval has no width, so its ends may lie that error beside the centre.
    assert (two.low or 0) <= two.value * (1 + 1e-12)
    assert two.value <= (two.high or 0) * (1 + 1e-12)


@settings(deadline=None)
@given(MEDIANS, MEDIANS)
def test_swapping_base_and_candidate_inverts_the_ratio(base: list[float], candidate: list[float]) -> None:
    one, two = statistics.ratio(base, candidate), statistics.ratio(candidate, base)
    assert one is not None
    assert two is not None
    assert [two.ratio, two.low, two.high] == pytest.approx(
        [1 / one.ratio, 1 / (one.high or 0), 1 / (one.low or 0)], rel=1e-6
    )
    assert two.p_value == pytest.approx(one.p_value, abs=1e-9)


def test_a_step_is_found_with_what_changed_there() -> None:
    values = [100, 101, 100, 99, 100, 112, 111, 113, 112, 112]
    facts = [{"runtime_version": "1.0"}] * 5 + [{"runtime_version": "1.1"}] * 5
    (step,) = steps(values, facts)
    assert step.index == 5
    assert step.change.ratio == pytest.approx(1.12, abs=0.001)
    assert step.changed == ("runtime_version: 1.0 -> 1.1",)


def test_noise_and_single_spikes_are_no_steps() -> None:
    random = np.random.default_rng(2)
    assert steps((100 * np.exp(0.02 * random.standard_normal(40))).tolist()) == []
    assert steps([100, 101, 100, 150, 100, 99, 100, 101, 100, 100]) == []
    assert steps([100, 120]) == []
    assert steps([]) == []


def test_two_steps_are_both_found() -> None:
    values = np.repeat([100.0, 120.0, 90.0], 8) * np.exp(0.01 * np.random.default_rng(3).standard_normal(24))
    assert [step.index for step in steps(values.tolist())] == [8, 16]
