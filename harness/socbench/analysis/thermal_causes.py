"""Why a device became slower at a time: each cause is looked for by its own counter. Pure functions."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np

from socbench.records import TelemetrySeries

Cause = Literal["clock_cap", "thermal_status", "cpu_quota", "contention", "unknown"]
HEAT_CAUSES: Final = ("clock_cap", "thermal_status")
OTHER_LOAD_PERMILLE: Final = 40
"""Of all cores together: a process that takes half of one of eight cores costs a thread on it half its speed."""
WAIT_PERMILLE: Final = 50
"""Of one core: half of what a slow-down of 10 % takes. It is the cause's own counter, so once its spread is enough."""
SLACK_NS: Final = 4_000_000_000
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
        ("contention", "cpu_wait_permille", lambda s: _rose(s, at_ns, SLACK_NS, WAIT_PERMILLE, spreads=1.0)),
        ("contention", "other_busy_permille", lambda s: _rose(s, at_ns, SLACK_NS, OTHER_LOAD_PERMILLE)),
        ("contention", "cpu_steal_permille", lambda s: _rose(s, at_ns, SLACK_NS, OTHER_LOAD_PERMILLE)),
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
        "cpu_wait_permille": "its threads began to wait for a core that other processes used",
        "other_busy_permille": "other processes began to use the cores",
        "cpu_steal_permille": "the host of this virtual machine began to give it less of its processors",
    }
    for cause, kind, seen in tests:
        for series in telemetry:
            if series.kind == kind and len(series.t_ns) and seen(series):
                return cause, words[kind].format(series.source)
    return (
        "unknown",
        "no clock limit, thermal status, quota or other load changed at that time, as far as could be read",
    )


def _dropped(series: TelemetrySeries, at_ns: int, slack_ns: int) -> bool:
    """Tell whether a cap is lower just after ``at_ns`` than it was before the slack around it."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    before, after = value[t < at_ns - slack_ns], value[(t >= at_ns - slack_ns) & (t <= at_ns + slack_ns)]
    return bool(before.size and after.size and after.min() < 0.97 * np.median(before))


def _rose(series: TelemetrySeries, at_ns: int, slack_ns: int, by: float, *, spreads: float = 2.0) -> bool:
    """Tell whether a reading is higher after the step than in the minute before, by ``by`` and by its own spread."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    before = value[(t < at_ns - slack_ns) & (t >= at_ns - 60_000_000_000)]
    after = value[(t >= at_ns) & (t <= at_ns + 2 * slack_ns)]
    if not before.size or not after.size:
        return False
    spread = 1.4826 * float(np.median(np.abs(before - np.median(before))))
    return bool(np.median(after) - np.median(before) >= max(by, spreads * spread))


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
