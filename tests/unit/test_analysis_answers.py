"""Fidelity and accuracy: numbers from published examples or small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socbench.analysis import accuracy, fidelity
from socbench.records import Fidelity


def arrays(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, np.float64) for row in rows]


def test_a_pair_of_vectors_to_the_digit() -> None:
    found = fidelity.compare_outputs(arrays([3, 4]), arrays([4, 3]), 1, {"cosine": 0.95})
    assert found == Fidelity(pytest.approx(0.96), 1.0, 0.25, 0.0, True)


def test_the_worst_input_and_tensor_count() -> None:
    measured = arrays([1, 0, 1, 1, 0, 2], [10, 10, 11])
    reference = arrays([1, 0, 1, 0, 0, 2], [10, 10, 10])
    found = fidelity.compare_outputs(measured, reference, 3)
    assert found.cosine == pytest.approx(1 / np.sqrt(2))
    assert (found.max_abs, found.max_relative, found.top1_agreement) == (1.0, 1.0, 1.0)
    assert found.within_tolerance is None


@pytest.mark.parametrize(
    ("tolerance", "within"),
    [
        ({"cosine": 0.95}, True),
        ({"cosine": 0.97}, False),
        ({"max_relative": 0.25}, True),
        ({"max_relative": 0.2}, False),
        ({"cosine": 0.9, "top1_agreement": 0.5}, False),
        ({"cosine": 0.9, "unknown_limit": 1}, False),
    ],
)
def test_every_limit_of_the_card_has_to_be_kept(tolerance: dict[str, float], within: bool) -> None:
    assert fidelity.compare_outputs(arrays([3, 4]), arrays([4, 3]), 1, tolerance).within_tolerance is within


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_voids_all(bad: float) -> None:
    found = fidelity.compare_outputs(arrays([1, 2], [bad, 0]), arrays([1, 2], [1, 0]), 1)
    assert (found.finite, found.within_tolerance, found.cosine) == (False, False, None)


def test_a_constant_output_is_void_and_a_constant_reference_is_not() -> None:
    assert fidelity.compare_outputs(arrays([5, 5]), arrays([1, 2]), 1, {"cosine": 0.5}).constant is True
    assert fidelity.compare_outputs(arrays([5, 5]), arrays([1, 2]), 1).within_tolerance is False
    assert fidelity.compare_outputs(arrays([5, 5]), arrays([5, 5]), 1, {"cosine": 1}).within_tolerance is True


def test_another_size_is_never_within_tolerance() -> None:
    assert fidelity.compare_outputs(arrays([1, 2, 3]), arrays([1, 2]), 1).within_tolerance is False
    assert fidelity.compare_outputs(arrays([1, 2, 3]), arrays([1, 2, 3]), 2).within_tolerance is False


def test_the_worst_over_repetitions_is_taken_member_by_member() -> None:
    one = Fidelity(0.9, 1.0, 0.5, 1.0, True)
    two = Fidelity(0.99, 3.0, 0.1, 0.5, False, constant=True)
    assert fidelity.worst([one, two]) == Fidelity(0.9, 3.0, 0.5, 0.5, False, constant=True)
    assert fidelity.worst([]) is None


@pytest.mark.parametrize(
    ("dtype", "raw", "scale", "zero_point", "values"),
    [
        ("float32", np.float32([1.5, -2]).tobytes(), None, None, [1.5, -2]),
        ("float16", np.float16([0.5]).tobytes(), None, None, [0.5]),
        ("bfloat16", b"\xc0\x3f", None, None, [1.5]),
        ("int8", np.int8([-128, 127]).tobytes(), 0.5, -128, [0, 127.5]),
        ("uint8", b"\x00\xff", 2.0, 1, [-2, 508]),
        ("int64", np.int64([7]).tobytes(), None, None, [7]),
        ("bool", b"\x01", None, None, [1]),
    ],
)
def test_raw_bytes_become_real_numbers(
    dtype: str, raw: bytes, scale: float | None, zero_point: int | None, values: list[float]
) -> None:
    assert fidelity.real_values(raw, dtype, scale, zero_point).tolist() == values


@pytest.mark.parametrize(
    ("dtype", "raw"), [("float32", b"123"), ("object", b"12345678"), ("U4", bytes(16)), ("x", b"1")]
)
def test_bytes_that_are_no_numbers_are_refused(dtype: str, raw: bytes) -> None:
    with pytest.raises(ValueError):
        fidelity.real_values(raw, dtype)


@given(st.lists(st.floats(-1e200, 1e200), min_size=2, max_size=8), st.floats(1e-50, 1e50))
def test_cosine_ignores_scale_and_never_leaves_its_range(values: list[float], scale: float) -> None:
    one = np.array(values)
    assert -1 <= fidelity.cosine(one, one[::-1].copy()) <= 1
    if np.max(np.abs(one)) > 1e-100:
        assert fidelity.cosine(one, scale * one) == pytest.approx(1)


LOGITS = np.array([[9, 1, 0], [1, 9, 0], [0, 1, 9], [5, 5, 0]], np.float64)


def test_top1_counts_and_ties_count_against_it() -> None:
    found = accuracy.accuracy([LOGITS.ravel()], {"metric": "top1", "labels": [0, 1, 0, 0]})
    assert found.scores.tolist() == [1, 1, 0, 0]
    assert (found.metric, found.value, found.count) == ("top1", 0.5, 4)
    constant = accuracy.accuracy([np.ones(40)], {"metric": {"name": "top5"}, "labels": [0, 1, 2, 3]})
    assert constant.value == 0


def test_top5_counts_five() -> None:
    logits = np.tile(np.arange(10.0), (2, 1))
    assert accuracy.accuracy([logits.ravel()], {"metric": "top5", "labels": [5, 4]}).scores.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"metric": "mAP", "labels": [1]}, "unknown metric 'mAP'; there are top1, top5"),
        ({"metric": "top1", "labels": None}, "the truth has no labels"),
        ({"metric": "top1", "labels": [0, 1, 2, 3]}, "labels up to 3 and 3 classes do not fit"),
    ],
)
def test_truth_that_does_not_fit_is_refused(truth: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        accuracy.accuracy([LOGITS.ravel()], truth)


def test_wilsons_interval_is_scipys() -> None:
    assert accuracy.wilson(41, 50) == pytest.approx((0.6920394632569922, 0.9022980732976582), rel=1e-12)
    assert accuracy.wilson(0, 10)[0] == 0.0
    assert accuracy.wilson(10, 10)[1] == 1.0


def made(both: int, only_other: int, only_base: int, neither: int) -> tuple[accuracy.Accuracy, accuracy.Accuracy]:
    base = np.repeat([1.0, 0.0, 1.0, 0.0], [both, only_other, only_base, neither])
    other = np.repeat([1.0, 1.0, 0.0, 0.0], [both, only_other, only_base, neither])
    return tuple(accuracy.Accuracy("top1", float(s.mean()), 0, 0, s.size, s) for s in (base, other))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((20, 12, 2, 16), 0.0562, 0.3292), ((18, 14, 0, 18), 0.1441, 0.3963)],
)
def test_the_paired_difference_is_newcombes_published_one(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    found = accuracy.paired_difference(*made(*cells))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_swapping_the_rows_negates_the_difference(cells: tuple[int, int, int, int]) -> None:
    base, other = made(*cells)
    one, two = accuracy.paired_difference(base, other), accuracy.paired_difference(other, base)
    assert one is not None
    assert two is not None
    assert (two.value, two.low, two.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert -1 <= one.low <= one.value <= one.high <= 1


def test_other_items_have_no_difference() -> None:
    assert accuracy.paired_difference(made(1, 1, 1, 1)[0], made(2, 1, 1, 1)[1]) is None
