"""``--precision-target``: says when a trial's interval is narrow enough, or why no repetition is added to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from socbench.analysis.statistics import centre
from socbench.records import Json

MOST_REPETITIONS: Final = 30
"""A trial that is not narrow enough by then never will be: its spread is the finding."""


def reach(events: Iterable[Json]) -> float | None:
    """Return how far the 95 % interval of a trial's median reaches to its wider side, as a share of the median.

    From the medians of the finished repetitions (rule 9 of the design); ``None`` with fewer than three.
    """
    import numpy as np

    measured: dict[int, list[int]] = defaultdict(list)
    done: set[int] = set()
    for event in events:
        number = event.get("repetition")
        if not isinstance(number, int):
            continue
        if event.get("type") == "phase" and event.get("phase") == "import":
            measured.pop(number, None)
        elif event.get("type") == "samples" and event.get("phase") == "measured":
            measured[number] += event["latency_ns"]
        elif event.get("type") == "done":
            done.add(number)
    medians = [float(np.median(measured[number])) for number in sorted(done) if measured.get(number)]
    found = centre(medians) if len(medians) >= 3 else None
    if found is None or found.low is None or found.high is None:
        return None
    return max(found.high - found.value, found.value - found.low) / found.value


def ending(name: str, reached: float | None, count: int, target: float) -> str | None:
    """Return the sentence that says why no repetition is added to a trial, ``None`` when one is to be added."""
    if reached is not None and reached <= target:
        return f"{name}: the interval is within {target:.2%} of the median after {count} repetitions"
    if count < MOST_REPETITIONS:
        return None
    far = "unknown" if reached is None else f"{reached:.2%}"
    return f"{name}: {count} repetitions are the most there are, and the interval still reaches {far}, not {target:.2%}"
