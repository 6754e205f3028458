"""Digits, units and names as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socbench.render import names, numbers


@pytest.mark.parametrize(
    ("value", "half", "said"),
    [
        (3_118_700, 38_700, "3.12 ± 0.04"),
        (4_803_000, 112_000, "4.80 ± 0.11"),
        (7_411_000, 1_400_000, "7.4 ± 1.4"),
        (123_456_000, 3_400_000, "123 ± 3"),
        (9_996_000, 96_000, "10.00 ± 0.10"),
        (1_234_567_000, 20_000_000, "1,235 ± 20"),
    ],
)
def test_digits_end_where_the_interval_ends(value: float, half: float, said: str) -> None:
    assert numbers.measured(value, value - half, value + half, numbers.MILLISECONDS) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(230, 920, "460 \u00d7/÷ 2.0"), (1, 211_600, "460 \u00d7/÷ 460"), (0.1, 2.2e6, "460 \u00d7/÷ 1000+")],
)
def test_an_interval_too_wide_for_plus_and_minus_is_a_factor(low: float, high: float, said: str) -> None:
    assert numbers.measured(460e6, low * 1e6, high * 1e6, numbers.MILLISECONDS) == said


def test_without_an_interval_three_digits_are_given() -> None:
    assert numbers.measured(3_118_700, None, None, numbers.MILLISECONDS) == "3.12"
    assert numbers.measured(None, None, None, numbers.MILLISECONDS) == ""
    assert numbers.measured(math.nan, None, None, numbers.MILLISECONDS) == ""


def test_a_column_has_one_unit() -> None:
    assert numbers.time_unit([800_000, 20_000]).symbol == "µs"
    assert numbers.time_unit([800_000, 20_000_000]).symbol == "ms"
    assert numbers.time_unit([11e9, 40e9]).symbol == "s"
    assert numbers.time_unit([None, math.nan]).symbol == "ms"
    assert numbers.size_unit([39_000, None]).symbol == "kB"
    assert numbers.size_unit([39_000, 2_000_000]).symbol == "MB"


def test_numbers_stand_on_their_decimal_point() -> None:
    cells = numbers.aligned(["3.12 ± 0.04", "14.8 ± 1.1", "120 ± 3", "", "7.5"], figure=" ", point=" ")
    assert cells == ["3.12 ± 0.04", "14.8  ± 1.1 ", "120    ± 3   ", "", "7.5        "]
    points = {len(cell) - cell.index(".") for cell in cells[:2]}
    assert points == {10}


def test_a_minus_is_a_minus_and_zero_has_no_sign() -> None:
    assert numbers.points(-0.018) == "−1.8"  # noqa: RUF001
    assert numbers.points(0.002) == "+0.2"
    assert numbers.points(-0.0001) == "0.0"
    assert numbers.percent_change(1.052) == "+5.2 %"


@given(st.floats(min_value=1e-6, max_value=1e15), st.floats(min_value=1e-6, max_value=1e15))
def test_no_number_is_printed_with_an_exponent(value: float, half: float) -> None:
    said = numbers.measured(value, value - half, value + half, numbers.MILLISECONDS)
    assert "e" not in said
    assert "nan" not in said


@given(st.text(max_size=200))
def test_plain_text_is_one_line_without_control_characters(text: str) -> None:
    said = names.plain(text, 50)
    assert len(said) <= 50
    assert said.isprintable()


def test_escape_sequences_and_reversed_text_do_not_survive() -> None:
    assert names.plain("a\x1b[31mb\u202ec\nd\x00") == "a [31mbc d"


def test_the_usual_engine_on_a_cpu_goes_without_saying() -> None:
    assert names.delegate_title("cpu:xnnpack", "litert") == "CPU"
    assert names.delegate_title("cpu:builtin", "litert") == "CPU (built-in kernels)"
    assert names.delegate_title("gpu:opencl", "litert") == "GPU (OpenCL)"
    assert names.delegate_title("npu:mine", "litert") == "NPU (mine)"


def test_lists_are_said_as_people_say_them() -> None:
    assert names.listing([]) == ""
    assert names.listing("ab") == "a and b"
    assert names.listing("abcdef", 4) == "a, b, c, d and 2 more"
    assert names.count(1, "row") == "1 row"
    assert names.count(2000, "row") == "2,000 rows"


def test_a_command_at_the_start_of_a_sentence_stays_as_it_is_typed() -> None:
    assert names.sentence("socbench runtimes install ncnn") == "socbench runtimes install ncnn."
    assert names.sentence("install the driver") == "Install the driver."
