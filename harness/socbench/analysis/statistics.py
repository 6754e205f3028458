"""Latency statistics. Sources and derivations: docs/methodology.md.

Samples within one process are not independent (they share layout of memory, clocks, neighbours), so an interval over
them is too narrow. The unit is the repetition, a process of its own: its median, on a logarithmic scale, where
repetitions differ by factors and Student's t applies (Georges, Buytaert, Eeckhout 2007; Kalibera, Jones 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

CONFIDENCE: Final = 0.95
UNKNOWN_SESSIONS: Final = 0.10
"""How far two sessions may lie apart where too few earlier ones tell (rule 11)."""
TAIL_SAMPLES: Final = 300
"""p90 and p99 are given from here on: the 99th percentile of fewer samples is one of the three largest."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Centre:
    """Geometric mean of the repetitions' medians and its interval, in the unit of what went in."""

    value: float
    low: float | None
    high: float | None
    repetitions: int


@dataclass(frozen=True)
class Ratio:
    """Candidate over base: the ratio, its interval, the two-sided p-value of "no ratio but 1", degrees of freedom."""

    ratio: float
    low: float | None
    high: float | None
    p_value: float | None
    freedom: float | None


@dataclass(frozen=True)
class Shape:
    """What the samples of one repetition look like, beside their median.

    ``drift``: change of the level from its first to its last fifth, as a fraction. ``spread``: interquartile range
    over the median. ``modes``: 2 where two separate levels hold the samples, else 1; ``mode_gap``: their distance as
    a fraction. ``outliers``: samples over the far fence (third quartile + 3 interquartile ranges, on logarithms).
    """

    count: int
    median_ns: float
    drift: float
    spread: float
    modes: int
    mode_gap: float
    outliers: int


def percentile(values: Sequence[float] | Floats, share: float) -> float | None:
    """Return a percentile (``share`` 0 to 1), interpolated between neighbours (Hyndman, Fan 1996, type 7)."""
    array = np.asarray(values, np.float64)
    return float(np.quantile(array, share)) if array.size else None


def tail(values: Sequence[float] | Floats, share: float) -> float | None:
    """Return a percentile beyond the median; ``None`` below 300 samples, where it would be a handful of samples."""
    return percentile(values, share) if len(values) >= TAIL_SAMPLES else None


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values; exact when all are equal."""
    smallest = min(values)
    return smallest * math.exp(math.fsum(math.log(value / smallest) for value in values) / len(values))


def centre(medians: Sequence[float], confidence: float = CONFIDENCE) -> Centre | None:
    """Return the headline of one trial from the medians of its repetitions (positive, any order).

    Interval: Student's t on the logarithms; one repetition has none. ``None`` without medians.
    """
    positive = [float(value) for value in medians if value > 0]
    if not positive:
        return None
    # Sorted, so that the result does not depend on the order by a rounding error.
    value = geometric_mean(sorted(positive))
    if len(positive) < 2:
        return Centre(value, None, None, len(positive))
    logs = np.log(np.sort(np.array(positive)) / value)
    half = student_quantile(confidence, len(positive) - 1) * float(np.std(logs, ddof=1)) / math.sqrt(len(positive))
    return Centre(value, value * math.exp(-half), value * math.exp(half), len(positive))


def student_quantile(confidence: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


def student_p(t: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t."""
    from scipy import special

    return float(2 * special.stdtr(freedom, -abs(t)))


def ratio(base: Sequence[float], candidate: Sequence[float], confidence: float = CONFIDENCE) -> Ratio | None:
    """Compare medians of repetitions that were not paired: Welch's t on logarithms (Welch 1947)."""
    one, two = _logs(base), _logs(candidate)
    if not one.size or not two.size:
        return None
    difference = float(np.mean(two) - np.mean(one))
    if one.size < 2 or two.size < 2:
        return Ratio(math.exp(difference), None, None, None, None)
    parts = [float(np.var(logs, ddof=1)) / logs.size for logs in (one, two)]
    variance = sum(parts)
    weights = [part**2 / (logs.size - 1) for part, logs in zip(parts, (one, two), strict=True)]
    freedom = variance**2 / sum(weights) if sum(weights) > 0 else float(one.size + two.size - 2)
    return _interval(difference, math.sqrt(variance), freedom, confidence)


def paired_ratio(base: Sequence[float], candidate: Sequence[float], confidence: float = CONFIDENCE) -> Ratio | None:
    """Compare medians of repetitions that alternated, pair by pair: Student's t on differences of logarithms."""
    differences = _logs(candidate) - _logs(base)
    if not differences.size:
        return None
    difference = float(np.mean(differences))
    if differences.size < 2:
        return Ratio(math.exp(difference), None, None, None, None)
    error = float(np.std(differences, ddof=1)) / math.sqrt(differences.size)
    return _interval(difference, error, float(differences.size - 1), confidence)


def across_sessions(one: Ratio, earlier: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> Ratio:
    """Widen a ratio between two sessions by the spread between sessions.

    ``earlier`` are headline latencies of the same key in at least three other sessions, one list for each level that
    the key has had (a step is a change, not spread). Their pooled variance on logarithms holds both what differs from
    day to day and the repetitions' own noise; a difference of two such sessions has twice that variance, known with
    as many degrees of freedom as there are sessions less levels. Where the repetitions of this pair spread more than
    history, theirs counts.
    """
    levels = [_logs(level) for level in earlier]
    freedom = float(sum(logs.size - 1 for logs in levels))
    squares = sum(float(np.sum((logs - np.mean(logs)) ** 2)) for logs in levels if logs.size)
    history = math.sqrt(2 * squares / freedom)
    half = student_quantile(confidence, freedom) * history
    difference = math.log(one.ratio)
    own = 0.0 if one.high is None else math.log(one.high) - difference
    if own > half:
        return one
    return _interval(difference, history, freedom, confidence)


def without_history(one: Ratio, allowance: float = UNKNOWN_SESSIONS) -> Ratio:
    """Widen a ratio between two sessions of which nobody knows how far sessions differ: by 10 % to both sides.

    The p-value is then that of "the ratio is not beyond 10 %" (for the nearer side).
    """
    if one.low is None or one.high is None or one.freedom is None:
        return one
    allowed = math.log1p(allowance)
    difference = math.log(one.ratio)
    error = (math.log(one.high) - difference) / student_quantile(CONFIDENCE, one.freedom)
    beyond = max(0.0, abs(difference) - allowed)
    p_value = 1.0 if beyond == 0 else _p_value(beyond, error, one.freedom)
    return Ratio(one.ratio, one.low / (1 + allowance), one.high * (1 + allowance), p_value, one.freedom)


def _interval(difference: float, error: float, freedom: float, confidence: float) -> Ratio:
    half = student_quantile(confidence, freedom) * error
    p_value = _p_value(difference, error, freedom)
    return Ratio(math.exp(difference), math.exp(difference - half), math.exp(difference + half), p_value, freedom)


def _p_value(difference: float, error: float, freedom: float) -> float:
    if error > 0:
        return student_p(difference / error, freedom)
    return 1.0 if difference == 0 else 0.0


def _logs(values: Sequence[float]) -> Floats:
    return np.log(np.asarray(values, np.float64))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979): the chance of even one false claim stays at the level."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def between(medians: Sequence[float]) -> float | None:
    """Return the dispersion between repetitions: standard deviation of the logarithms (about a fraction)."""
    return float(np.std(_logs(sorted(medians)), ddof=1)) if len(medians) > 1 else None


def throughput_hz(count: int, elapsed_ns: int) -> float | None:
    """Return inferences a second."""
    return count * 1e9 / elapsed_ns if elapsed_ns > 0 else None


def shape(latency_ns: npt.NDArray[Any]) -> Shape | None:
    """Describe the samples of one repetition, in the order they were measured. ``None`` without samples."""
    values = np.maximum(np.asarray(latency_ns, np.float64), 1.0)
    if not values.size:
        return None
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    fence = math.log(high) + 3 * (math.log(high) - math.log(low))
    modes, gap = _modes(values)
    return Shape(
        count=int(values.size),
        median_ns=float(middle),
        drift=_drift(values),
        spread=float((high - low) / middle),
        modes=modes,
        mode_gap=gap,
        outliers=int(np.count_nonzero(np.log(values) > fence)) if high > low else 0,
    )


def _drift(values: Floats) -> float:
    """Return the change of level over the repetition: median of the last fifth over that of the first, less 1."""
    fifth = values.size // 5
    if fifth < 10:
        return 0.0
    return float(np.median(values[-fifth:]) / np.median(values[:fifth]) - 1)


def _modes(values: Floats) -> tuple[int, float]:
    """Tell one level from two: the best split in two classes (Otsu 1979), then whether it is a real gap.

    Two modes need at least a tenth of the samples each, levels at least 10 % apart, a separation of D > 4 (Ashman,
    Bird, Zepf 1994 call D > 2 separated; the two halves of one normal distribution already have 2.65, of an even one
    3.46) and a valley: around the split at most a quarter of the density of the thinner class.
    """
    if values.size < 40:
        return 1, 0.0
    logs = np.sort(np.log(values[:: max(1, values.size // 20_000)]))
    n = logs.size
    sums, squares = np.cumsum(logs), np.cumsum(logs**2)
    k = np.arange(math.ceil(0.1 * n), math.floor(0.9 * n) + 1)
    left, right = sums[k - 1] / k, (sums[-1] - sums[k - 1]) / (n - k)
    best = int(np.argmax(k * (n - k) * (right - left) ** 2))
    size, gap = int(k[best]), float(right[best] - left[best])
    variances = (
        squares[size - 1] / size - left[best] ** 2,
        (squares[-1] - squares[size - 1]) / (n - size) - right[best] ** 2,
    )
    width = math.sqrt(max(0.0, (variances[0] + variances[1]) / 2))
    middle = (left[best] + right[best]) / 2
    quarter = gap / 4

    def density(at: float) -> int:
        return int(np.searchsorted(logs, at + quarter / 2) - np.searchsorted(logs, at - quarter / 2))

    thinner = min(density(float(left[best])), density(float(right[best])))
    separate = gap >= math.log(1.1) and gap > 4 * width and density(float(middle)) <= thinner / 4
    return (2, math.expm1(gap)) if separate else (1, 0.0)
