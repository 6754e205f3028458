"""What became of one sustained trial: its samples, finished or cut, joined with the telemetry of the same time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from socbench.analysis import cooling, energy, throttling
from socbench.records import Json, TelemetrySeries

if TYPE_CHECKING:
    from socbench.store.reader import Database

_MEASURED = 2
_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class Sustained:
    """The measured samples of a sustained trial (ns, device clock, in order) and its analysis."""

    start_ns: Any
    latency_ns: Any
    thermal: Json


def sustained_of(
    database: Database,
    session: str,
    trial: Json,
    series_of: Callable[[int, int], tuple[TelemetrySeries, ...]],
) -> Sustained | None:
    """Return what is known of a sustained trial; ``None`` when nothing was measured.

    ``series_of`` gives the device's telemetry between two times. A run that was cut (stopped, crashed, cooled off by
    its limit) is analysed as far as it came: ``complete`` is false then and ``ended`` says how.
    """
    import numpy as np

    found = database.rows(
        "SELECT * FROM repetitions WHERE session = ? AND trial = ? ORDER BY repetition LIMIT 1",
        [session, trial["trial"]],
    )
    columns = database.arrays(
        "SELECT start_ns, latency_ns, late_ns FROM samples WHERE session = ? AND trial = ? AND phase = ? "
        "AND repetition = ?",
        [session, trial["trial"], _MEASURED, found[0]["repetition"] if found else 1],
    )
    start, latency, late = (columns[name] for name in ("start_ns", "latency_ns", "late_ns"))
    if not len(start):
        return None
    if np.any(np.diff(start) < 0):
        order = np.argsort(start, kind="stable")
        start, latency, late = start[order], latency[order], late[order]
    end_ns = int(start[-1] + latency[-1])
    series = tuple(map(cooling.believed, series_of(int(start[0]), end_ns)))
    repetition = found[0] if found else {}
    settings = _object(trial["settings"])
    thermal = _facts(repetition, settings, (end_ns - int(start[0])) / 1e9)
    thermal.update(_second_load(repetition, settings))
    rate = settings.get("rate_hz")
    analysis = throttling.analyse_sustained(start, latency, series, paced=bool(rate))
    thermal.update(asdict(analysis), segments=[asdict(segment) for segment in analysis.segments])
    if rate:
        thermal.update(asdict(throttling.deadlines(start, latency, np.ma.filled(late, 0), float(rate))))
    taken = energy.energy_of(series, int(start[0]), end_ns, len(start), charging=_charging(repetition, series))
    until_ns = _next_start(database, session, trial["device"], end_ns)
    rested = cooling.rest(series_of(end_ns, until_ns), end_ns, until_ns)
    thermal["cool_down"] = None if rested is None else asdict(rested)
    thermal["energy"] = None if taken is None else asdict(taken)
    return Sustained(start, latency, thermal)


def _next_start(database: Database, session: str, device: str, after_ns: int) -> int:
    """Return when the device's next inference began: until then it cools down; an hour later if none followed."""
    (found,) = database.rows(
        "SELECT min(start_ns) AS t FROM samples JOIN trials USING (session, trial) "
        "WHERE session = ? AND device = ? AND start_ns > ?",
        [session, device, after_ns],
    )
    return int(found["t"]) if found["t"] is not None else after_ns + _HOUR_NS


def _facts(repetition: Json, settings: Json, duration_s: float) -> Json:
    status = repetition.get("status") or "interrupted"
    stopped_by = repetition.get("stopped_by")
    error = _object(repetition.get("error")).get("code")
    return {
        "complete": status == "done" and stopped_by in ("min", "max_time"),
        "ended": stopped_by if status == "done" else (error or "interrupted"),
        "planned_s": settings.get("min_time_s"),
        "duration_s": duration_s,
        "clock_jump_ns": repetition.get("clock_jump_ns"),
    }


def _second_load(repetition: Json, settings: Json) -> Json:
    """Return what ran beside it: cores that were to be busy, and how many were on average; ``None`` if it ran alone."""
    used, measured = repetition.get("second_load_ns"), repetition.get("measured_ns")
    asked = settings.get("busy_cores")
    average = None if not asked or used is None or not measured else used / measured
    return {"busy_cores": asked, "busy_cores_average": average}


def _charging(repetition: Json, series: tuple[TelemetrySeries, ...]) -> bool | None:
    """Tell whether the device was fed from outside at any time; ``None`` where nothing says it."""
    states = [_object(repetition.get(name)).get("source") for name in ("power_before", "power_after")]
    charged = [bool(one.value.max()) for one in series if one.kind == "battery_charging" and len(one.value)]
    known = [state != "battery" for state in states if isinstance(state, str)] + charged
    return any(known) if known else None


def _object(text: object) -> Json:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
