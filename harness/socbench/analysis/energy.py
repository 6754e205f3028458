"""Average power and energy an inference, from whatever a device or a meter tells, and how far that can be trusted.

Sources, the better first: an external meter, power rails and monitors, the energy counters of CPU packages (RAPL) with
the power of GPUs (NVML), a phone's rails (ODPM), the battery gauge.
What they cover differs (whole device, one rail, the CPU package), so the scope is always said. Nothing is subtracted:
the idle power of the device is in it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from socbench.errors import UsageError
from socbench.records import TelemetrySeries

Ints = NDArray[np.int64]
Trust = Literal["measured", "indicative", "not_trusted"]

EXTERNAL: Final = "external:"
"""Prefix of the source of readings that came from a meter's log."""
GPU: Final = "nvml:"
ODPM: Final = "odpm:"
"""Prefixes of what NVIDIA's library and Android's on-device power monitors tell."""
GAUGE_LEAST_S: Final = 600.0
"""A battery gauge is believed from ten minutes on: some update once a minute (and their resolution is coarse)."""
LEAST_COVERED: Final = 0.9
MOST_POWER_UW: Final = 2_000_000_000
LEAST_READINGS: Final = 5
OFFSET_W: Final = 0.1
"""What a meter may show below zero when nothing flows."""
LONGEST_GAP_SHARE: Final = 0.05
LONGEST_GAP_S: Final = 2.0
"""A meter that was silent for longer than both may have missed a step of the load."""


@dataclass(frozen=True)
class Energy:
    """What a run took; ``reason`` says why to doubt it.

    ``scope`` says of what: ``device``, ``cpu package``, ``gpu`` (or both), ``rail NAME``, ``N rails``.
    """

    average_power_uw: float
    energy_per_inference_uj: float
    source: str
    scope: str
    trust: Trust
    reason: str | None = None


def energy_of(
    telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, inferences: int, *, charging: bool | None = None
) -> Energy | None:
    """Return the energy of a run of ``inferences`` between two times of the device's clock, ``None`` where unreadable.

    ``charging`` says whether the device was fed from outside (then a battery gauge shows the charger, not the load);
    ``None`` is not known.
    """
    if to_ns <= from_ns or inferences <= 0:
        return None
    readers = (_external, _monitors, _processors, _rails, _gauge)
    for reader in readers:
        found = reader(telemetry, from_ns, to_ns, charging)
        if found is not None:
            power_uw, source, scope, trust, reason = found
            return Energy(power_uw, power_uw * (to_ns - from_ns) / 1e9 / inferences, source, scope, trust, reason)
    return None


Found = tuple[float, str, str, Trust, str | None]


def _external(telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, charging: bool | None) -> Found | None:
    for series in telemetry:
        if series.kind == "power_uw" and series.source.startswith(EXTERNAL):
            power = average_uw(series, from_ns, to_ns)
            if power is not None:
                return power, series.source, "device", *_of_meter(series, from_ns, to_ns)
    return None


def _of_meter(series: TelemetrySeries, from_ns: int, to_ns: int) -> tuple[Trust, str | None]:
    """How far a meter's log can be trusted: by the longest time in the run for which it says nothing."""
    t = np.asarray(series.t_ns)
    inside = t[(t >= from_ns) & (t <= to_ns)]
    gap_s = float(np.diff(np.concatenate(([from_ns], inside, [to_ns]))).max()) / 1e9
    if gap_s <= max(LONGEST_GAP_S, LONGEST_GAP_SHARE * (to_ns - from_ns) / 1e9):
        return "measured", None
    return "indicative", f"the meter's log says nothing for {gap_s:.0f} s of the run"


def _monitors(telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, charging: bool | None) -> Found | None:
    """A monitor of the whole input if there is one (its name says so), else the largest rail."""
    found = []
    for series in telemetry:
        if series.kind == "power_uw" and not series.source.startswith((EXTERNAL, GPU)) and ":" in series.source:
            power = average_uw(series, from_ns, to_ns)
            if power is not None:
                whole = any(word in series.source.lower() for word in ("vdd_in", "pom_5v_in", "vin", "total", "psys"))
                found.append((whole, power, series.source))
    if not found:
        return None
    whole, power, source = max(found)
    rail = source.rpartition(":")[2]
    scope = "device" if whole else f"rail {rail}"
    return (
        power,
        source,
        scope,
        "measured",
        None if whole else "one rail: the rest of the device is not in it",
    )


def _processors(telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, charging: bool | None) -> Found | None:
    """The CPU packages (RAPL, whose sub-domains are part of them and are left out) and the GPUs (NVML) together."""
    packages = [s for s in telemetry if s.kind == "energy_uj" and "package" in s.source.rpartition(":")[2]]
    cpus = [(counter_uw(one, from_ns, to_ns), one.source) for one in packages]
    boards = [s for s in telemetry if s.kind == "power_uw" and s.source.startswith(GPU)]
    gpus = [(average_uw(one, from_ns, to_ns), one.source) for one in boards]
    known = [(rate, source) for rate, source in [*cpus, *gpus] if rate is not None]
    if not known:
        return None
    told = (("cpu package", cpus), ("gpu", gpus))
    scope = " and ".join(name for name, rates in told if any(rate is not None for rate, _ in rates))
    why = "the GPU's board only" if scope == "gpu" else None
    return sum(rate for rate, _ in known), "+".join(source for _, source in known), scope, "measured", why


def _rails(telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, charging: bool | None) -> Found | None:
    """Android's on-device power monitors: all their rails together."""
    meters = [s for s in telemetry if s.kind == "energy_uj" and s.source.startswith(ODPM)]
    rates = [rate for rate in (counter_uw(one, from_ns, to_ns) for one in meters) if rate is not None]
    if not rates:
        return None
    why = "what hangs on no monitored rail is not in it"
    return sum(rates), "odpm", f"{len(rates)} rails", "measured", why


def _gauge(telemetry: Sequence[TelemetrySeries], from_ns: int, to_ns: int, charging: bool | None) -> Found | None:
    current = _first(telemetry, "battery_ua", from_ns, to_ns)
    voltage = _first(telemetry, "battery_uv", from_ns, to_ns)
    if current is None or voltage is None:
        return None
    # Makers disagree about the sign of a discharge and even about the unit: only the size is used, and checked.
    amperes = abs(float(np.mean(current[1]))) / 1e6
    volts = float(np.mean(voltage[1])) / 1e6
    power_uw = amperes * volts * 1e6
    if not (2.5 <= volts <= 25.0 and 0.01 <= amperes <= 30.0):
        return None
    if charging:
        return power_uw, current[0], "battery", "not_trusted", "the battery was charging: its gauge shows the charger"
    duration_s = (to_ns - from_ns) / 1e9
    if duration_s < GAUGE_LEAST_S:
        why = f"a battery gauge needs ten minutes, this run had {duration_s:.0f} s"
        return power_uw, current[0], "device", "not_trusted", why
    why = "a battery gauge; whether the device was on power is not known" if charging is None else "a battery gauge"
    return power_uw, current[0], "device", "indicative", why


def _first(
    telemetry: Sequence[TelemetrySeries], kind: str, from_ns: int, to_ns: int
) -> tuple[str, NDArray[Any]] | None:
    for series in telemetry:
        inside = (series.t_ns >= from_ns) & (series.t_ns <= to_ns)
        if series.kind == kind and inside.sum() >= LEAST_READINGS:
            return series.source, np.asarray(series.value)[inside]
    return None


def power_series(telemetry: Sequence[TelemetrySeries]) -> list[TelemetrySeries]:
    """Return what tells power over time, as ``power_uw``: power itself, else energy counters, else the battery's gauge.

    Of counters the rate between two readings, placed at the second; of the gauge its current's size times its voltage.
    """
    told = [one for one in telemetry if one.kind == "power_uw" and len(one.t_ns)]
    if told:
        return told
    counters = [one for one in telemetry if one.kind == "energy_uj" and len(one.t_ns) > 1]
    packages = [one for one in counters if "package" in one.source.rpartition(":")[2]] or counters
    rated = [_rate(one) for one in packages]
    currents = [one for one in telemetry if one.kind == "battery_ua" and len(one.t_ns)]
    voltages = {one.source: one for one in telemetry if one.kind == "battery_uv" and len(one.t_ns)}
    gauges = [
        replace(one, kind="power_uw", value=np.abs(one.value) * np.interp(one.t_ns, volt.t_ns, volt.value) / 1e6)
        for one in currents
        if (volt := voltages.get(one.source)) is not None
    ]
    return [one for one in rated if len(one.t_ns)] or gauges


def _rate(series: TelemetrySeries) -> TelemetrySeries:
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    steps_ns, steps_uj = np.diff(t), np.diff(value)
    good = (steps_ns > 0) & (steps_uj >= 0)
    power = np.rint(steps_uj[good] / steps_ns[good] * 1e9)
    return replace(series, kind="power_uw", t_ns=t[1:][good], value=power)


def average_uw(series: TelemetrySeries, from_ns: int, to_ns: int) -> float | None:
    """Return the time average of power readings (trapezoids), ``None`` unless they cover nine tenths of the time."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value, dtype=np.float64)
    inside = (t >= from_ns) & (t <= to_ns) & (value >= 0) & (value < MOST_POWER_UW)
    t, value = t[inside], value[inside]
    if len(t) < LEAST_READINGS or t[-1] - t[0] < LEAST_COVERED * (to_ns - from_ns) or not value.any():
        return None
    return float(np.trapezoid(value, t) / (t[-1] - t[0]))


def counter_uw(series: TelemetrySeries, from_ns: int, to_ns: int) -> float | None:
    """Return the average rate of an energy counter in microwatts; steps on which it wrapped round are left out."""
    t, value = np.asarray(series.t_ns), np.asarray(series.value)
    inside = (t >= from_ns) & (t <= to_ns)
    steps_ns, steps_uj = np.diff(t[inside]), np.diff(value[inside])
    good = (steps_uj >= 0) & (steps_ns > 0)
    total_ns = float(steps_ns[good].sum())
    if good.sum() < LEAST_READINGS or total_ns < LEAST_COVERED * (to_ns - from_ns):
        return None
    rate = float(steps_uj[good].sum()) / total_ns * 1e9
    return rate if 0 < rate < MOST_POWER_UW else None


def parse_power_log(text: str, name: str, *, empty_too: bool = False) -> tuple[Ints, Ints]:
    """Return (ns since 1970, power in uW) of a meter's log: lines ``time,watts``, a heading allowed.

    Times are seconds since 1970 or ISO 8601 with a time zone, and never go back. UsageError names the first line that
    is neither.
    """
    times: list[int] = []
    powers: list[int] = []
    for number, line in _lines(text, name):
        if not line or (number == 1 and _is_heading(line)):
            continue
        if len(line) < 2:
            raise UsageError(f"{name}, line {number}: {','.join(line)[:60]!r} is not time,watts")
        t_ns, watts = _time_ns(line[0].strip()), _number(line[1].strip())
        if t_ns is None:
            raise UsageError(
                f"{name}, line {number}: {line[0][:60]!r} is no time: write seconds since 1970, or ISO 8601 with a "
                "time zone such as 2026-11-24T18:00:00Z"
            )
        if watts is None or watts >= MOST_POWER_UW / 1e6:
            raise UsageError(f"{name}, line {number}: {line[1][:60]!r} is no power in watts")
        if watts < -OFFSET_W:
            raise UsageError(f"{name}, line {number}: {watts:g} W is negative: swap the meter's leads, or its sign")
        times.append(t_ns)
        powers.append(max(0, round(watts * 1e6)))
    if not times and not empty_too:
        raise UsageError(f"{name} holds no reading: lines must be time,watts")
    for number, (before, after) in enumerate(pairwise(times), 2):
        if after < before:
            raise UsageError(f"{name}: reading {number} is earlier than the one before it; sort the log by time")
    return np.array(times, np.int64), np.array(powers, np.int64)


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    number = 0
    try:
        for number, line in enumerate(csv.reader(text.splitlines()), 1):
            yield number, line
    except csv.Error as problem:
        raise UsageError(f"{name}, line {number + 1}: this is no CSV ({problem}): lines must be time,watts") from None


def _is_heading(line: list[str]) -> bool:
    return all(_number(word.strip()) is None for word in line) and _time_ns(line[0].strip()) is None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time_ns(text: str) -> int | None:
    seconds = _number(text)
    if seconds is not None:
        return round(seconds * 1e9) if 1e9 < seconds < 1e10 else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else round(moment.timestamp() * 1e9)


def device_times(wall_ns: Ints, pairs: Sequence[tuple[int, int]]) -> Ints:
    """Return times of day on a device's monotonic clock, by the nearest of its ``(monotonic_ns, wall_ns)`` pairs.

    The nearest, not a line through all: a clock that was set in between leaves both its sides right.
    """
    monotonic, wall = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    order = np.argsort(wall, kind="stable")
    monotonic, wall = monotonic[order], wall[order]
    place = np.clip(np.searchsorted(wall, wall_ns), 1, len(wall) - 1) if len(wall) > 1 else np.zeros(len(wall_ns), int)
    if len(wall) > 1:
        place = place - (wall_ns - wall[place - 1] <= wall[place] - wall_ns)
    return np.asarray(wall_ns + (monotonic - wall)[place], np.int64)
