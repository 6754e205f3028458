"""Which readings of a sensor can be believed, how a device warms up and how it cools down. Pure functions.

Sensors of phones return nonsense: 0, -274, 128 degrees, one number for ever, and some change their unit after a
suspend. What can't be believed is left out, never corrected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from socbench.records import TelemetrySeries

TEMPERATURE: Final = "temperature_milli_c"
COLDEST_MILLI_C, HOTTEST_MILLI_C = -40_000, 120_000
UNIT_RATIO: Final = 8.0
"""Two neighbouring readings of one sensor that differ by this factor are in different units (tenths, milli-degrees)."""
RISE_LEAST_MILLI_C: Final = 2000
LEAST_COVERED: Final = 0.8
REST_LEAST_NS: Final = 10_000_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Exponential:
    """A temperature that nears ``end_milli_c`` with time constant ``tau_s``."""

    start_milli_c: float
    end_milli_c: float
    tau_s: float


def believed(series: TelemetrySeries) -> TelemetrySeries:
    """Return what :func:`credible` leaves, and nothing of a temperature that never changes."""
    kept = credible(series)
    value = np.asarray(kept.value)
    if kept.kind != TEMPERATURE or len(value) < 3 or value.min() != value.max():
        return kept
    return replace(kept, t_ns=np.asarray(kept.t_ns)[:0], value=value[:0])


def credible(series: TelemetrySeries) -> TelemetrySeries:
    """Return a temperature without the readings that can't be one; other kinds come back as they are.

    Left out: exactly 0, readings under -40 or from 120 degrees on, and what follows a change of unit until the unit is
    the first one again.
    """
    if series.kind != TEMPERATURE or not len(series.value):
        return series
    value = np.asarray(series.value)
    good = (value != 0) & (value > COLDEST_MILLI_C) & (value < HOTTEST_MILLI_C)
    good &= _same_unit(value, good)
    return replace(series, t_ns=np.asarray(series.t_ns)[good], value=value[good])


def _same_unit(value: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which readings are within a factor of UNIT_RATIO of the last one that was."""
    size = np.abs(value.astype(np.float64))
    if size[good].size == 0 or size[good].max() < UNIT_RATIO * max(1.0, size[good].min()):
        return np.ones(len(value), bool)
    same = np.ones(len(value), bool)
    last = size[good][0]
    for index in np.flatnonzero(good):
        same[index] = last / UNIT_RATIO < size[index] < last * UNIT_RATIO
        last = size[index] if same[index] else last
    return same


def covers(series: TelemetrySeries, from_ns: int, to_ns: int) -> bool:
    """Tell whether a sensor was read over most of a time: one that vanished half-way says nothing of the end."""
    t = np.asarray(series.t_ns)
    inside = t[(t >= from_ns) & (t <= to_ns)]
    return bool(inside.size > 2 and inside[-1] - inside[0] >= LEAST_COVERED * (to_ns - from_ns))


def exponential(seconds: Floats, milli_c: Floats) -> Exponential | None:
    """Fit T = end - (end - start) exp(-t / tau) by least squares over tau; ``None`` where tau can't be told.

    Needs 20 readings over half a minute and a change of two degrees.
    """
    if len(milli_c) < 20 or seconds[-1] - seconds[0] < 30 or np.ptp(milli_c) < RISE_LEAST_MILLI_C:
        return None
    t = seconds - seconds[0]
    taus = np.geomspace(2.0, float(t[-1]), 60)
    fits = []
    for tau in taus:
        basis = np.stack([np.ones_like(t), np.exp(-t / tau)]).T
        weights, residual, *_ = np.linalg.lstsq(basis, milli_c, rcond=None)
        fits.append((float(residual[0]) if residual.size else math.inf, weights))
    best = int(np.argmin([error for error, _ in fits]))
    if best in (0, len(taus) - 1):
        return None
    end, excess = (float(weight) for weight in fits[best][1])
    return Exponential(end + excess, end, float(taus[best]))


@dataclass(frozen=True)
class Rest:
    """How a device cooled down: the sensor that fell most, for how long it was read, by how much it fell, to what.

    ``end_milli_c`` and ``tau_s`` are of the exponential that it follows, None where it can't be told.
    """

    source: str
    seconds: float
    fall_milli_c: int
    end_milli_c: float | None
    tau_s: float | None


def rest(telemetry: Iterable[TelemetrySeries], from_ns: int, to_ns: int) -> Rest | None:
    """Return how a device cooled down between two times; ``None`` where no sensor was read for ten seconds."""
    found: list[Rest] = []
    for one in map(believed, telemetry):
        t, value = np.asarray(one.t_ns), np.asarray(one.value)
        inside = (t >= from_ns) & (t <= to_ns)
        if one.kind != TEMPERATURE or inside.sum() < 3 or t[inside][-1] - from_ns < REST_LEAST_NS:
            continue
        fit = cool_down(one, from_ns, to_ns)
        end, tau = (None, None) if fit is None else (fit.end_milli_c, fit.tau_s)
        fall = int(value[inside][0]) - int(value[inside][-1])
        found.append(Rest(one.source, float(t[inside][-1] - from_ns) / 1e9, fall, end, tau))
    return max(found, key=lambda one: one.fall_milli_c, default=None)


def cool_down(series: TelemetrySeries, from_ns: int, to_ns: int) -> Exponential | None:
    """Return how a sensor fell while the device rested between two times, ``None`` when it did not fall enough."""
    one = believed(series)
    t = np.asarray(one.t_ns)
    inside = (t >= from_ns) & (t <= to_ns)
    value = np.asarray(one.value, dtype=np.float64)[inside]
    if value.size < 2 or value[-1] > value[0] - RISE_LEAST_MILLI_C:
        return None
    return exponential((t[inside] - from_ns) / 1e9, value)
