"""Levels of a signal over time and the points at which they change. Pure functions.

The signal is cut into bins; their values are split into segments of constant level by optimal partitioning with a
squared-error cost (Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal
Processing Letters 12, 2005), so a single spike or a single threshold crossing decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STEP_MIN: Final = 0.02
"""Levels nearer than 2 % are one level: less than the residual drift of a quiet device."""
MAX_BINS: Final = 4000


@dataclass(frozen=True)
class Segment:
    """A stretch of constant level: times in seconds since the first inference, ``p50_ns`` of all its inferences."""

    start_s: float
    end_s: float
    p50_ns: float


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


def bin_width_s(start_ns: Ints, latency_ns: Ints) -> float:
    """Return how long a bin is to be in s: half a second, three inferences, or what makes 4,000 bins."""
    duration_s = float(start_ns[-1] - start_ns[0]) / 1e9
    typical_s = float(np.median(latency_ns)) / 1e9
    return max(0.5, 3.0 * typical_s, duration_s / MAX_BINS)


def noise(values: Floats) -> float:
    """Return the standard deviation of the values' noise, from successive differences (robust: 1.4826 MAD / sqrt 2)."""
    steps = np.diff(values)
    if steps.size == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2.0))


def change_points(values: Floats, *, min_bins: int = 3) -> list[int]:
    """Return the indices at which the level of ``values`` changes, ascending, without 0 and ``len(values)``.

    The penalty is 6 sigma^2 log n a change with sigma from successive differences, at least what makes a change of
    STEP_MIN over ``min_bins`` bins worth a segment: positively correlated noise is not cut into pieces.
    """
    n = len(values)
    if n < 2 * min_bins:
        return []
    sigma = noise(values)
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


def smoothing_bins(medians: Floats) -> int:
    """Odd number of bins whose median has about 0.5 % noise, at most 9."""
    sigma = noise(np.log(np.maximum(medians, 1.0)))
    return int(min(9, 2 * math.ceil(((sigma / 0.005) ** 2 * 1.57 - 1) / 2) + 1)) if sigma > 0.005 else 1


def running_median(values: Floats, width: int) -> Floats:
    """Return the median of ``width`` neighbours (odd) at each place, the edges continued."""
    if width <= 1 or len(values) < width:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))
