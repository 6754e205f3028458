"""What a device does under load that lasts: baseline, first slow-down, sustained level, cause. Pure functions.

A run is cut into bins; each bin's value is the logarithm of the median latency of the inferences that started in it.
The bins are split into segments of constant level by optimal partitioning with a squared-error cost (Jackson et al.,
"An algorithm for optimal partitioning of data on an interval", IEEE Signal Processing Letters 12, 2005). Everything
else is read off the segments, so a single spike or a single threshold crossing decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from socbench.analysis.cooling import believed, covers, exponential
from socbench.records import TelemetrySeries

Cause = Literal["clock_cap", "thermal_status", "cpu_quota", "contention", "unknown"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LASTING_SLOW_DOWN = 1.10
"""A slow-down counts from 10 % on: what is under it, the run-to-run noise of phones (CV 2 to 5 %) explains."""
LASTING_S = 30.0
"""... and when the median of the half minute that follows is that slow as well."""
BASELINE_MIN_S, BASELINE_MAX_S = 10.0, 60.0
STEP_MIN = 0.02
"""Levels nearer than 2 % are one level: less than the residual drift of a quiet device."""
STARTING_RISE = 1.05
"""Half of what counts as a slow-down: so much may the level rise in the first seconds without hiding the beginning."""
SUSTAINED_WINDOW_S = 300.0
MAX_BINS = 4000
EDGE_S = 3.0
"""A segment's edge this near to a crossing is the same event."""
HEAT_CAUSES = ("clock_cap", "thermal_status")


@dataclass(frozen=True)
class Segment:
    """A stretch of constant level: times in seconds since the first inference, ``p50_ns`` of all its inferences."""

    start_s: float
    end_s: float
    p50_ns: float


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
    segments: tuple[Segment, ...] = field(default=(), repr=False)


def bin_medians(start_ns: Ints, latency_ns: Ints, bin_s: float) -> tuple[Any, Floats]:
    """Return (bin start in s since the first inference, median latency in ns) of every bin that has an inference."""
    bins, edges = _bins(start_ns, bin_s)
    return bins * bin_s, np.array([np.median(latency_ns[a:b]) for a, b in pairwise(edges)], np.float64)


def bin_paces(start_ns: Ints, latency_ns: Ints, bin_s: float) -> tuple[Any, Any]:
    """Return (bin start in s, mean time from one inference's start to the next's in ns) of every bin.

    Short inferences are held back between each other or a few at a time: by a CPU quota (once in 100 ms) or by
    another process on the core. Their median does not move then; what they take in all does.
    """
    bins, edges = _bins(start_ns, bin_s)
    whole = np.append(start_ns, start_ns[-1] + latency_ns[-1])
    return bins * bin_s, (whole[edges[1:]] - whole[edges[:-1]]) / np.diff(edges)


def _bins(start_ns: Ints, bin_s: float) -> tuple[Ints, Ints]:
    """Return the numbers of the bins that are not empty, and where each begins in ``start_ns`` (and the end)."""
    index = (start_ns - start_ns[0]) // max(1, round(bin_s * 1e9))
    first = np.flatnonzero(np.diff(index, prepend=-1))
    return index[first], np.append(first, len(start_ns))


def _bin_width_s(start_ns: Ints, latency_ns: Ints) -> float:
    duration_s = float(start_ns[-1] - start_ns[0]) / 1e9
    typical_s = float(np.median(latency_ns)) / 1e9
    return max(0.5, 3.0 * typical_s, duration_s / MAX_BINS)


def _noise(values: Floats) -> float:
    """Standard deviation of the bins' noise, from successive differences (robust: 1.4826 MAD / sqrt 2)."""
    steps = np.diff(values)
    if steps.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2.0))


def change_points(values: Floats, *, min_bins: int = 3) -> list[int]:
    """Return the indices at which the level of ``values`` changes, ascending, without 0 and ``len(values)``.

    The penalty is 4 sigma^2 log n a change with sigma from successive differences, at least what makes a change of
    STEP_MIN over ``min_bins`` bins worth a segment: positively correlated noise is not cut into pieces.
    """
    n = len(values)
    if n < 2 * min_bins:
        return []
    sigma = _noise(values)
    penalty = max(6.0 * sigma * sigma * math.log(n), min_bins * STEP_MIN**2 / 2.0) + 1e-12
    total = np.concatenate(([0.0], np.cumsum(values)))
    square = np.concatenate(([0.0], np.cumsum(values * values)))
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    back = np.zeros(n + 1, dtype=np.int64)
    for end in range(min_bins, n + 1):
        starts = np.arange(0, end - min_bins + 1)
        length = end - starts
        sums = total[end] - total[starts]
        cost = best[starts] + (square[end] - square[starts]) - sums * sums / length + penalty
        back[end] = int(np.argmin(cost))
        best[end] = cost[back[end]]
    found: list[int] = []
    at = int(back[n])
    while at > 0:
        found.append(at)
        at = int(back[at])
    return _merge_small_steps(values, found[::-1])


def _merge_small_steps(values: Floats, found: list[int]) -> list[int]:
    """Drop the smallest change again and again while it is under STEP_MIN."""
    found = list(found)
    while found:
        edges = [0, *found, len(values)]
        levels = [float(np.median(values[a:b])) for a, b in pairwise(edges)]
        steps = [abs(b - a) for a, b in pairwise(levels)]
        smallest = int(np.argmin(steps))
        if steps[smallest] >= STEP_MIN:
            break
        del found[smallest]
    return found


def segments_of(start_ns: Ints, latency_ns: Ints, times: Floats, medians: Floats, width: float) -> tuple[Segment, ...]:
    """Split a run into segments of constant level (of its bins' medians), boundaries refined to the inference."""
    since = (start_ns - start_ns[0]) / 1e9
    logs = np.log(np.maximum(latency_ns, 1))
    edges = [0.0]
    for index in change_points(np.log(np.maximum(medians, 1.0))):
        edges.append(_refine(since, logs, float(times[index]), width))
    edges.append(float(since[-1] + latency_ns[-1] / 1e9))
    positions = np.searchsorted(since, edges)
    segments = []
    for begin, end, a, b in zip(edges, edges[1:], positions, positions[1:], strict=False):
        if b > a:
            segments.append(Segment(begin, end, float(np.median(latency_ns[a:b]))))
    return tuple(segments)


def _refine(since: Floats, logs: Floats, at_s: float, width_s: float) -> float:
    """Move a change from a bin's edge to the inference at which it lies, within two bins of it."""
    low, high = np.searchsorted(since, [at_s - 2 * width_s, at_s + 2 * width_s])
    window = logs[low:high]
    if window.size < 8:
        return at_s
    before = float(np.median(logs[max(0, low - window.size) : low + window.size // 8 + 1]))
    after = float(np.median(logs[high - window.size // 8 - 1 : high + window.size]))
    # Least absolute error: the cut k minimises sum(|x - before|, i < k) + sum(|x - after|, i >= k).
    saved = np.abs(window - before) - np.abs(window - after)
    best = int(np.argmin(np.concatenate(([0.0], np.cumsum(saved)))))
    return float(since[min(low + best, len(since) - 1)])


def _baseline(segments: tuple[Segment, ...], since: Floats, latency_ns: Ints) -> tuple[float, float, float] | None:
    """Return (p50 in ns, start in s, end in s) of the first clean 10 to 60 s, or None when there is none.

    A level that falls within the first ten seconds is starting up (caches, a governor that raises clocks) and is
    passed over, and so is one that rises by under 5 %; a larger rise leaves nothing to compare with.
    """
    fastest = math.inf
    for segment, after in zip(segments, [*segments[1:], None], strict=True):
        if segment.start_s > BASELINE_MIN_S:
            return None
        if segment.end_s - segment.start_s >= BASELINE_MIN_S or after is None:
            end = min(segment.end_s, segment.start_s + BASELINE_MAX_S)
            low, high = np.searchsorted(since, [segment.start_s, end])
            return (float(np.median(latency_ns[low:high])), segment.start_s, end) if high - low >= 5 else None
        fastest = min(fastest, segment.p50_ns)
        if after.p50_ns > STARTING_RISE * fastest:
            return None
    return None


def _throttle_at(
    segments: tuple[Segment, ...], baseline_ns: float, times: Floats, medians: Floats, since: Floats, latency_ns: Ints
) -> float | None:
    """Start of the first slow-down of 10 % whose next half minute is that slow too.

    Clocks fall in steps of some percent, so no segment need begin where the level crosses the limit: the crossing is
    that of the running median, dated to the inference where a segment's edge is next to it.
    """
    limit = baseline_ns * LASTING_SLOW_DOWN
    smooth = _running_median(medians, _smoothing_bins(medians))
    for at_s in times[smooth >= limit]:
        if _lasts(float(at_s), limit, since, latency_ns):
            edges = [segment.start_s for segment in segments[1:] if abs(segment.start_s - at_s) <= EDGE_S]
            return min(edges, key=lambda edge: abs(edge - at_s), default=float(at_s))
    return None


def _lasts(at_s: float, limit: float, since: Floats, latency_ns: Ints) -> bool:
    low, high = np.searchsorted(since, [at_s, at_s + LASTING_S])
    enough = since[-1] - at_s >= LASTING_S / 3 and high > low
    return bool(enough and np.median(latency_ns[low:high]) >= limit)


@dataclass(frozen=True)
class Pace:
    """Mean time an inference took in all, waits included, in ns: at first, at the end, and when it grew lastingly."""

    baseline_ns: float
    sustained_ns: float
    slow_at_s: float | None


def _pace(times: Floats, paces: Floats, end_s: float, window_s: float) -> Pace:
    """Judge the paces of a run's bins as the latencies are judged; the baseline ends at ``end_s``."""
    changes = change_points(np.log(np.maximum(paces, 1.0)))
    edges = [float(times[index]) for index in changes]
    # What moves in the first seconds is starting up; the medians have said that there is a beginning to compare with.
    length = min([end_s, *(edge for edge in edges if edge - times[0] >= BASELINE_MIN_S)])
    base = float(np.median(paces[times < length]))
    limit = base * LASTING_SLOW_DOWN
    slow_at: float | None = None
    for at_s in times[_running_median(paces, _smoothing_bins(paces)) >= limit]:
        after = paces[(times >= at_s) & (times < at_s + LASTING_S)]
        if times[-1] - at_s >= LASTING_S / 3 and np.median(after) >= limit:
            near = [edge for edge in edges if abs(edge - at_s) <= EDGE_S]
            slow_at = min(near, key=lambda edge: abs(edge - at_s), default=float(at_s))
            break
    return Pace(base, float(np.median(paces[times >= times[-1] - window_s])), slow_at)


def _smoothing_bins(medians: Floats) -> int:
    """Odd number of bins whose median has about 0.5 % noise, at most 9."""
    sigma = _noise(np.log(np.maximum(medians, 1.0)))
    return int(min(9, 2 * math.ceil(((sigma / 0.005) ** 2 * 1.57 - 1) / 2) + 1)) if sigma > 0.005 else 1


def _running_median(values: Floats, width: int) -> Floats:
    if width <= 1 or len(values) < width:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))


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


def _dropped(series: TelemetrySeries, at_ns: int, slack_ns: int) -> bool:
    """Tell whether a cap is lower just after ``at_ns`` than it was before the slack around it."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    before, after = value[t < at_ns - slack_ns], value[(t >= at_ns - slack_ns) & (t <= at_ns + slack_ns)]
    return bool(before.size and after.size and after.min() < 0.97 * np.median(before))


def _rose(series: TelemetrySeries, at_ns: int, slack_ns: int, by: float) -> bool:
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    before = value[(t < at_ns - slack_ns) & (t >= at_ns - 60_000_000_000)]
    after = value[(t >= at_ns) & (t <= at_ns + 2 * slack_ns)]
    if not before.size or not after.size:
        return False
    spread = 1.4826 * float(np.median(np.abs(before - np.median(before))))
    return bool(np.median(after) - np.median(before) >= max(by, 2.0 * spread))


def _clock_fell(series: TelemetrySeries, at_ns: int, slack_ns: int) -> bool:
    """Tell whether a clock itself ran lower after the step than before, by more than it moved before."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value, dtype=np.float64)
    before = value[(t < at_ns - slack_ns) & (t >= at_ns - 60_000_000_000)]
    after = value[(t >= at_ns) & (t <= at_ns + 2 * slack_ns)]
    if before.size < 5 or after.size < 3:
        return False
    return bool(np.median(after) < 0.95 * np.quantile(before, 0.1))


def _counter_started(series: TelemetrySeries, at_ns: int, slack_ns: int) -> bool:
    """Tell whether a cumulative counter of throttled time grows faster after ``at_ns`` than before it."""
    t, value = np.asarray(series.t_ns, dtype=np.float64), np.asarray(series.value, dtype=np.float64)
    before, after = t < at_ns - slack_ns / 4, (t >= at_ns - slack_ns / 4) & (t <= at_ns + slack_ns)
    if after.sum() < 2:
        return False
    rate_after = (value[after][-1] - value[after][0]) / max(1.0, t[after][-1] - t[after][0])
    rate_before = (
        (value[before][-1] - value[before][0]) / max(1.0, t[before][-1] - t[before][0]) if before.sum() > 1 else 0.0
    )
    # Counter in microseconds over nanoseconds: 0.02 of the time stolen is the least that can cost 10 % of one thread.
    return bool((rate_after - rate_before) * 1000.0 > 0.02)


OTHER_LOAD_PERMILLE = 40
"""Of all cores together: a process that takes half of one of eight cores costs a thread on it half its speed."""
SLACK_NS = 4_000_000_000
"""Telemetry is read twice a second and slow commands each ten; a change within 4 s of the step belongs to it."""


def cause_of(at_ns: int, telemetry: tuple[TelemetrySeries, ...], *, paced: bool = False) -> tuple[Cause, str]:
    """Return the cause of a slow-down at ``at_ns`` (device clock) and the sentence that says what was seen.

    Each cause is looked for by its own counter. A clock that fell while its limit did not (many phones keep their
    real limits to themselves) counts last, and not in a ``paced`` run, where clocks follow the load.
    """
    tests: list[tuple[Cause, str, Any]] = [
        ("cpu_quota", "quota_throttled_us", lambda s: _counter_started(s, at_ns, SLACK_NS)),
        ("clock_cap", "clock_cap_khz", lambda s: _dropped(s, at_ns, SLACK_NS)),
        ("clock_cap", "gpu_clock_cap_khz", lambda s: _dropped(s, at_ns, SLACK_NS)),
        ("thermal_status", "thermal_status", lambda s: _rose(s, at_ns, 11_000_000_000, 1)),
        ("contention", "other_busy_permille", lambda s: _rose(s, at_ns, SLACK_NS, OTHER_LOAD_PERMILLE)),
    ]
    if not paced:
        for kind in ("clock_khz", "gpu_clock_khz"):
            tests.append(("clock_cap", kind, lambda s: _clock_fell(s, at_ns, SLACK_NS)))
    words = {
        "clock_cap_khz": "the clock limit of {} fell",
        "gpu_clock_cap_khz": "the clock limit of the GPU ({}) fell",
        "clock_khz": "the clock of {} fell, though no limit that could be read did",
        "gpu_clock_khz": "the clock of the GPU ({}) fell, though no limit that could be read did",
        "thermal_status": "the thermal status rose",
        "quota_throttled_us": "a CPU quota of its control group began to hold it back",
        "other_busy_permille": "other processes began to use the cores",
    }
    for cause, kind, seen in tests:
        for series in telemetry:
            if series.kind == kind and len(series.t_ns) and seen(series):
                return cause, words[kind].format(series.source)
    return (
        "unknown",
        "no clock limit, thermal status, quota or other load changed at that time, as far as could be read",
    )


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
    width = _bin_width_s(start_ns, latency_ns)
    times, medians = bin_medians(start_ns, latency_ns, width)
    segments = segments_of(start_ns, latency_ns, times, medians, width)
    base = _baseline(segments, since, latency_ns)
    window_s = min(SUSTAINED_WINDOW_S, float(since[-1]) / 4)
    sustained = float(np.median(latency_ns[np.searchsorted(since, float(since[-1]) - window_s) :]))
    begun = times >= base[1] if base else times >= 0
    at_s = _throttle_at(segments, base[0], times[begun], medians[begun], since, latency_ns) if base else None
    pace = None
    if base is not None and not paced:
        paces = bin_paces(start_ns, latency_ns, width)[1]
        pace = _pace(times[begun], paces[begun], base[2], window_s)
    if pace is not None and pace.slow_at_s is not None and (at_s is None or pace.slow_at_s < at_s - EDGE_S):
        at_s = pace.slow_at_s
    found = cause_of(int(start_ns[0] + at_s * 1e9), telemetry, paced=paced) if at_s is not None else (None, None)
    cause, evidence = found
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
        segments=segments,
    )


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
