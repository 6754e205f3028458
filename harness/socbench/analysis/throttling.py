"""What a device does under load that lasts: baseline, first slow-down, sustained level, cause. Pure functions.

Everything is read off the levels that ``change_points`` finds in the medians of the latency, and in the pace, so a
single spike or a single threshold crossing decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from socbench.analysis.change_points import (
    STEP_MIN,
    Segment,
    bin_medians,
    bin_paces,
    bin_width_s,
    change_points,
    running_median,
    segments_of,
    smoothing_bins,
)
from socbench.analysis.cooling import believed, covers, exponential
from socbench.analysis.thermal_causes import HEAT_CAUSES, Cause, cause_of
from socbench.records import TelemetrySeries

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LASTING_SLOW_DOWN: Final = 1.10
"""A slow-down counts from 10 % on: what is under it, the run-to-run noise of phones (CV 2 to 5 %) explains."""
LASTING_S: Final = 30.0
"""... and when the median of the half minute that follows is that slow as well."""
OUTWEIGHS: Final = 3.0
"""A change this many times as large as the slow phase before it (on a log scale, and 20 % at least) is an event of its
own: a phase under half a minute then has nobody but that change to make it last. Neighbouring steps of a governor are
of like size (clocks evenly spaced: 1.7 times at most), so a staircase is dated by its first step."""
OUTWEIGHS_LEAST: Final = 1.20
BASELINE_MIN_S, BASELINE_MAX_S = 10.0, 60.0
STARTING_RISE: Final = 1.05
"""Half of what counts as a slow-down: so much may the level rise in the first seconds without hiding the beginning."""
SUSTAINED_WINDOW_S: Final = 300.0
EDGE_S: Final = 3.0
"""A segment's edge this near to a crossing is the same event."""
STEP_LEAST: Final = 1.05
MOST_STEPS: Final = 100


@dataclass(frozen=True)
class Step:
    """A change of level: when (s since the first inference), the level over that before, and what made it slower.

    ``lasting_ratio``: the half minute after it over the half minute before. ``cause``, ``evidence``: None where it got
    faster.
    """

    at_s: float
    ratio: float
    lasting_ratio: float
    cause: Cause | None
    evidence: str | None


@dataclass(frozen=True)
class SustainedAnalysis:
    """What is known of one sustained run. ``slowdown`` is sustained over baseline: over 1 is slower.

    ``*_pace_ns`` is the mean time an inference took with all waits between inferences: see :func:`bin_paces`.
    """

    duration_s: float
    baseline_p50_ns: float | None
    baseline_s: float | None
    sustained_p50_ns: float | None
    slowdown: float | None
    throttle_at_s: float | None
    cause: Cause | None
    throttled: bool | None
    best_minute_p50_ns: float | None
    worst_minute_p50_ns: float | None
    stability: float | None
    oscillation_period_s: float | None
    oscillation_depth: float | None
    temperature_rise_milli_c: int | None
    temperature_time_constant_s: float | None
    evidence: str | None
    baseline_pace_ns: float | None = None
    sustained_pace_ns: float | None = None
    pace_slowdown: float | None = None
    longest_pause_s: float | None = None
    minute_p50_ns: tuple[float | None, ...] = ()
    steps: tuple[Step, ...] = field(default=(), repr=False)
    segments: tuple[Segment, ...] = field(default=(), repr=False)


def _baseline(segments: tuple[Segment, ...], since: Floats, latency_ns: Ints) -> tuple[float, float, float] | None:
    """Return (p50 in ns, start in s, end in s) of the first clean 10 to 60 s, or None when there is none.

    They end with the first change that lasts: half a minute's median differs from all before by 2 %. What comes and
    goes in seconds (a neighbour on the same core) ends nothing. A lasting fall within the first ten seconds is starting
    up (caches, a governor that raises clocks) and is passed over, and so is a rise by under 5 %; a larger rise leaves
    nothing to compare with.
    """
    start, fastest, last = segments[0].start_s, math.inf, segments[-1].end_s
    for edge in [segment.start_s for segment in segments[1:]]:
        before = max(1.0, _median_between(since, latency_ns, start, edge))
        after = max(1.0, _median_between(since, latency_ns, edge, edge + LASTING_S))
        if max(after / before, before / after) < 1 + STEP_MIN:
            continue
        if edge - start >= BASELINE_MIN_S:
            last = edge
            break
        fastest = min(fastest, before)
        if edge > BASELINE_MIN_S or after > STARTING_RISE * fastest:
            return None
        start = edge
    end = min(last, start + BASELINE_MAX_S)
    low, high = np.searchsorted(since, [start, end])
    return (float(np.median(latency_ns[low:high])), start, end) if high - low >= 5 else None


@dataclass(frozen=True)
class Signal:
    """One value a bin (ns) with the start of each bin and the starts of its levels, in s since the first inference."""

    times: Floats
    values: Floats
    edges: tuple[float, ...]

    def median(self, from_s: float, to_s: float) -> float:
        """Return the median of the bins that start in a time, NaN when there is none."""
        low, high = np.searchsorted(self.times, [from_s, to_s])
        return float(np.median(self.values[low:high])) if high > low else math.nan


def _slow_at(signal: Signal, baseline_ns: float, median_of: Callable[[float, float], float]) -> float | None:
    """Start of the first slow-down of 10 % whose next half minute is that slow too (``median_of`` a time, in ns).

    Clocks fall in steps of some percent, so no level need begin where the limit is crossed: the crossing is that of the
    running median, dated to the change of level next to it. A half minute that is slow only because a far larger change
    falls into it (OUTWEIGHS) is no lasting slow-down: the date is then that of the change.
    """
    limit = baseline_ns * LASTING_SLOW_DOWN
    smooth = running_median(signal.values, smoothing_bins(signal.values))
    last_s = float(signal.times[-1])
    for at_s in map(float, signal.times[smooth >= limit]):
        if last_s - at_s < LASTING_S / 3:
            return None
        if median_of(at_s, at_s + LASTING_S) >= limit and not _outweighed(signal, at_s, baseline_ns):
            near = [edge for edge in signal.edges if abs(edge - at_s) <= EDGE_S]
            return min(near, key=lambda edge: abs(edge - at_s), default=at_s)
    return None


def _outweighed(signal: Signal, at_s: float, baseline_ns: float) -> bool:
    """Tell whether a change within half a minute after ``at_s`` is far larger than the slow-down until then.

    A tooth of a sawtooth is not: its level is that with which the slow-down began.
    """
    begun = signal.median(at_s, at_s + EDGE_S)
    edges = [0.0, *signal.edges, math.inf]
    for before, edge, after in zip(edges, edges[1:], edges[2:], strict=False):
        if at_s < edge < at_s + LASTING_S:
            phase = signal.median(at_s, edge)
            level = signal.median(edge, min(after, edge + LASTING_S))
            jump = level / signal.median(max(at_s, before), edge)
            far = jump >= max(OUTWEIGHS_LEAST, (phase / baseline_ns) ** OUTWEIGHS)
            if far and (edge <= at_s + EDGE_S or level / begun >= OUTWEIGHS_LEAST):
                return True
    return False


@dataclass(frozen=True)
class Pace:
    """Mean time an inference took in all, waits included, in ns: at first, at the end, and when it grew lastingly."""

    baseline_ns: float
    sustained_ns: float
    slow_at_s: float | None


def _pace(signal: Signal, end_s: float, window_s: float) -> Pace:
    """Judge the paces of a run's bins as the latencies are judged; the baseline ends at ``end_s``."""
    # What moves in the first seconds is starting up; the medians have said that there is a beginning to compare with.
    times, first = signal.times, float(signal.times[0])
    length = min([end_s, *(edge for edge in signal.edges if edge - first >= BASELINE_MIN_S)])
    base = float(np.median(signal.values[times < length]))
    slow_at = _slow_at(signal, base, signal.median)
    return Pace(base, float(np.median(signal.values[times >= times[-1] - window_s])), slow_at)


def _pace_signal(times: Floats, paces: Floats) -> Signal:
    return Signal(times, paces, tuple(float(times[index]) for index in change_points(np.log(np.maximum(paces, 1.0)))))


def _steps(signals: list[Signal], end_s: float, explained: Callable[[float], tuple[Cause, str]]) -> tuple[Step, ...]:
    """Return the changes of level of 5 % at least, in time, each that made it slower with its own cause.

    A change that several signals show is one (the larger); of more than MOST_STEPS the largest are kept.
    """
    found: list[tuple[float, float, float]] = []
    for signal in signals:
        bounds = [float(signal.times[0]), *signal.edges, end_s]
        levels = [signal.median(a, b) for a, b in pairwise(bounds)]
        for at_s, before, after in zip(bounds[1:-1], levels, levels[1:], strict=False):
            lasting = signal.median(at_s, at_s + LASTING_S) / signal.median(at_s - LASTING_S, at_s)
            if max(after / before, before / after) >= STEP_LEAST:
                found.append((at_s, after / before, lasting))
    largest: list[tuple[float, float, float]] = []
    for step in sorted(found, key=lambda one: -abs(math.log(one[1]))):
        if len(largest) < MOST_STEPS and all(abs(step[0] - other[0]) > EDGE_S for other in largest):
            largest.append(step)
    nothing: tuple[None, None] = (None, None)
    return tuple(Step(*step, *(explained(step[0]) if step[1] > 1 else nothing)) for step in sorted(largest))


def _minutes(since: Floats, latency_ns: Ints) -> tuple[float | None, ...]:
    """Return the median of every full minute, None for one with fewer than five inferences; a last part counts from
    57 s on, since a run ends with the inference under way."""
    whole = int((float(since[-1]) + float(latency_ns[-1]) / 1e9 + 3.0) // 60.0)
    cuts = np.searchsorted(since, 60.0 * np.arange(whole + 1))
    return tuple(float(np.median(latency_ns[a:b])) if b - a >= 5 else None for a, b in pairwise(cuts))


def _oscillation(segments: tuple[Segment, ...], throttle_at_s: float | None) -> tuple[float | None, float | None]:
    """Period and depth of a sawtooth, from the turning points of the levels after the slow-down (two periods)."""
    if throttle_at_s is None:
        return None, None
    after = [segment for segment in segments if segment.start_s >= throttle_at_s]
    signs = [1 if b.p50_ns > a.p50_ns else -1 for a, b in pairwise(after)]
    rises = [after[i + 1].start_s for i, s in enumerate(signs) if s == 1 and (i == 0 or signs[i - 1] == -1)]
    if len(rises) < 3:
        return None, None
    levels = [segment.p50_ns for segment in after]
    return float(np.median(np.diff(rises))), max(levels) / min(levels) - 1.0


def temperature_rise(series: TelemetrySeries) -> tuple[int, float | None]:
    """Return (rise from the first tenth's minimum to the last tenth's median in milli-C, time constant in s or None).

    The time constant is that of one exponential, T = end - (end - start) exp(-t / tau), by least squares over tau.
    """
    value = np.asarray(series.value, dtype=np.float64)
    t = (np.asarray(series.t_ns) - series.t_ns[0]) / 1e9
    tenth = max(1, len(value) // 10)
    rise = int(np.median(value[-tenth:]) - np.min(value[:tenth]))
    found = exponential(t, value) if rise >= 2000 else None
    return rise, None if found is None else found.tau_s


def analyse_sustained(
    start_ns: Ints, latency_ns: Ints, telemetry: tuple[TelemetrySeries, ...] = (), *, paced: bool = False
) -> SustainedAnalysis:
    """Analyse one sustained run: all measured samples in order (ns, device clock) and the telemetry of the same time.

    ``paced``: the run kept to a fixed rate, so the time between two starts says nothing and clocks follow the load.

    ``throttle_at_s`` is the start of the first slow-down of 10 % or more that lasts (half a minute's median), whatever
    its cause; ``throttled`` says whether heat was the cause, and is None where a slow-down has no known cause.
    """
    start_ns, latency_ns = np.asarray(start_ns, dtype=np.int64), np.asarray(latency_ns, dtype=np.int64)
    if len(start_ns) < 10:
        return SustainedAnalysis(0.0, *([None] * 15))  # type: ignore[arg-type]
    since = (start_ns - start_ns[0]) / 1e9
    width = bin_width_s(start_ns, latency_ns)
    times, medians = bin_medians(start_ns, latency_ns, width)
    segments = segments_of(start_ns, latency_ns, times, medians, width)
    base = _baseline(segments, since, latency_ns)
    window_s = min(SUSTAINED_WINDOW_S, float(since[-1]) / 4)
    sustained = float(np.median(latency_ns[np.searchsorted(since, float(since[-1]) - window_s) :]))
    begun = times >= base[1] if base else times >= 0
    slow = Signal(times[begun], medians[begun], tuple(segment.start_s for segment in segments[1:]))
    at_s = _slow_at(slow, base[0], lambda a, b: _median_between(since, latency_ns, a, b)) if base else None
    pace, signals = None, [slow]
    if not paced:
        signals.append(_pace_signal(times[begun], bin_paces(start_ns, latency_ns, width)[1][begun]))
        pace = _pace(signals[1], base[2], window_s) if base else None
    if pace is not None and pace.slow_at_s is not None and (at_s is None or pace.slow_at_s < at_s - EDGE_S):
        at_s = pace.slow_at_s

    def explained(second: float) -> tuple[Cause, str]:
        return cause_of(int(start_ns[0] + second * 1e9), telemetry, paced=paced)

    cause, evidence = explained(at_s) if at_s is not None else (None, None)
    minutes = _minutes(since, latency_ns)
    known = [minute for minute in minutes if minute is not None]
    period, depth = _oscillation(segments, at_s)
    hottest = _hottest(telemetry, int(start_ns[0]), int(start_ns[-1]))
    rise, tau = temperature_rise(hottest) if hottest else (None, None)
    throttled: bool | None = False
    if at_s is not None:
        throttled = cause in HEAT_CAUSES
    return SustainedAnalysis(
        duration_s=float(since[-1]) + float(latency_ns[-1]) / 1e9,
        baseline_p50_ns=base[0] if base else None,
        baseline_s=base[2] - base[1] if base else None,
        sustained_p50_ns=sustained,
        slowdown=sustained / base[0] if base else None,
        throttle_at_s=at_s,
        cause=cause,
        throttled=throttled if base else None,
        best_minute_p50_ns=min(known, default=None),
        worst_minute_p50_ns=max(known, default=None),
        stability=min(known) / max(known) if known else None,
        oscillation_period_s=period,
        oscillation_depth=depth,
        temperature_rise_milli_c=rise,
        temperature_time_constant_s=tau,
        evidence=evidence,
        baseline_pace_ns=pace.baseline_ns if pace else None,
        sustained_pace_ns=pace.sustained_ns if pace else None,
        pace_slowdown=pace.sustained_ns / pace.baseline_ns if pace else None,
        longest_pause_s=float(np.max(start_ns[1:] - start_ns[:-1] - latency_ns[:-1])) / 1e9,
        minute_p50_ns=minutes,
        steps=_steps(signals, float(since[-1]), explained),
        segments=segments,
    )


def _median_between(since: Floats, latency_ns: Ints, from_s: float, to_s: float) -> float:
    low, high = np.searchsorted(since, [from_s, to_s])
    return float(np.median(latency_ns[low:high])) if high > low else math.nan


def _hottest(telemetry: tuple[TelemetrySeries, ...], from_ns: int, to_ns: int) -> TelemetrySeries | None:
    """Return the temperature that rose most, of the sensors that can be believed and were read to the end."""
    found = [believed(series) for series in telemetry if series.kind == "temperature_milli_c"]
    found = [series for series in found if covers(series, from_ns, to_ns)]
    return max(found, key=lambda series: int(series.value[-1]) - int(series.value[0]), default=None)


@dataclass(frozen=True)
class Deadlines:
    """How a run at a fixed rate kept it. A frame is missed when it was dropped, or was not done within its period."""

    rate_hz: float
    rate_achieved_hz: float
    deadlines: int
    deadlines_missed: int
    deadline_missed_share: float


def deadlines(start_ns: Ints, latency_ns: Ints, late_ns: Ints, rate_hz: float) -> Deadlines:
    """Count the deadlines of a paced run (docs/protocol.md): slots of 1 / rate from the first inference on."""
    period_ns = 1e9 / rate_hz
    slots = np.rint((start_ns - late_ns - (start_ns[0] - late_ns[0])) / period_ns).astype(np.int64)
    total = int(slots[-1]) + 1
    on_time = int(np.count_nonzero(late_ns + latency_ns <= period_ns))
    span_s = float(start_ns[-1] + latency_ns[-1] - start_ns[0]) / 1e9
    missed = max(0, total - on_time)
    return Deadlines(rate_hz, len(start_ns) / span_s if span_s > 0 else 0.0, total, missed, missed / total)
