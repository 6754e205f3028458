"""The largest lasting step of a continuous run, where it is another one than the slow-down that dates the run. Pure."""

from __future__ import annotations

from typing import Any, Final

from socbench.analysis.throttling import EDGE_S
from socbench.render import numbers

CAUSES: Final = {
    "clock_cap": "the limit of the clock was lowered",
    "thermal_status": "the device reported that it was too warm",
    "cpu_quota": "a CPU quota held it back",
    "contention": "something else used the device",
    "unknown": "why could not be read",
}
_LARGE: Final = 1.20


def largest_step(thermal: dict[str, Any]) -> dict[str, Any] | None:
    """Return the step to the slowest half minute, of 20 % at least; None where it is the slow-down already told."""
    large = [step for step in thermal.get("steps") or [] if (step.get("lasting_ratio") or 0.0) >= _LARGE]
    if not large:
        return None
    step: dict[str, Any] = max(large, key=lambda one: one["lasting_ratio"])
    at = thermal.get("throttle_at_s")
    return None if at is not None and abs(step["at_s"] - at) <= EDGE_S else step


def cause_words(found: dict[str, Any]) -> str:
    """Say why a run or a step (its JSON) became slower."""
    return CAUSES.get(str(found.get("cause")), CAUSES["unknown"])


def step_words(thermal: dict[str, Any]) -> str | None:
    """Say where the largest lasting step is, how large and why, and of the slow-down before it; None without one."""
    step = largest_step(thermal)
    if step is None:
        return None
    at = thermal.get("throttle_at_s")
    size, where = numbers.times(step["lasting_ratio"]), f"{step['at_s']:,.0f} s"
    said = f"its largest lasting step is at {where}, to {size} the time: {cause_words(step)}"
    return said if at is None else f"{said}; it was first slower by 10 % from {at:,.0f} s on: {cause_words(thermal)}"
