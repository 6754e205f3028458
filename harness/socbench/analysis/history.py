"""Finds steps in a key's history: where its latency changed for good, and what changed with it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from socbench.analysis.statistics import Floats, Ratio, ratio

STEP_LIMIT: Final = 0.03
"""Steps under 3 % are not reported: the margin within which two things count as no different."""
SHORTEST: Final = 3
"""A level needs three sessions on each side: two points that agree by chance are no level."""
ALPHA: Final = 0.01


@dataclass(frozen=True)
class Step:
    """A change of level: ``index`` of the first session after it, the ratio after over before, what changed there."""

    index: int
    change: Ratio
    changed: tuple[str, ...] = ()


def steps(values: Sequence[float], facts: Sequence[Mapping[str, Any]] = ()) -> list[Step]:
    """Return the steps in a series of headline latencies, oldest first.

    Binary segmentation (Scott, Knott 1974; Vostrikova 1981): the split with the largest Welch's t between what lies
    before and after it, accepted when its p-value, times the number of splits that were tried, is under 1 % and the
    levels differ by 3 % or more; then the same on both sides. ``facts`` (one mapping a session) name what goes with a
    step: the members that differ between the sessions on both sides of it.
    """
    found: list[int] = []
    _split(np.asarray(values, np.float64), 0, found)
    edges = [0, *sorted(found), len(values)]
    result = []
    for before, at, after in zip(edges, edges[1:], edges[2:], strict=False):
        change = ratio(values[before:at], values[at:after])
        assert change is not None
        result.append(Step(at, change, _changed(facts, at)))
    return result


def levels(values: Sequence[float]) -> list[Sequence[float]]:
    """Return a series cut at its steps."""
    found: list[int] = []
    _split(np.asarray(values, np.float64), 0, found)
    edges = [0, *sorted(found), len(values)]
    return [values[start:end] for start, end in itertools.pairwise(edges)]


def _split(values: Floats, offset: int, found: list[int]) -> None:
    places = range(SHORTEST, len(values) - SHORTEST + 1)
    candidates = []
    for at in places:
        change = ratio(values[:at].tolist(), values[at:].tolist())
        if change is not None and change.p_value is not None:
            candidates.append((change.p_value, -abs(float(np.log(change.ratio))), at, change))
    if not candidates:
        return
    p_value, _, at, change = min(candidates, key=lambda item: item[:3])
    large = max(change.ratio, 1 / change.ratio) >= 1 + STEP_LIMIT
    if not large or min(1.0, p_value * len(candidates)) >= ALPHA:
        return
    found.append(offset + at)
    _split(values[:at], offset, found)
    _split(values[at:], offset + at, found)


def _changed(facts: Sequence[Mapping[str, Any]], at: int) -> tuple[str, ...]:
    """What differs between the sessions beside a step; where nothing does, what differs one session earlier or later:
    noise can shift where a step seems to be by one.
    """
    for place, where in ((at, ""), (at - 1, " (a session earlier)"), (at + 1, " (a session later)")):
        if 0 < place < len(facts):
            before, after = facts[place - 1], facts[place]
            names = [name for name in after if before.get(name) != after.get(name)]
            if names:
                return tuple(
                    f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}{where}" for name in names
                )
    return ()


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
