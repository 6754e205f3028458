"""``--precision-target``: says when the repetitions so far make a trial's interval narrow enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from socbench.analysis.statistics import centre
from socbench.records import Json

MOST_REPETITIONS: Final = 30
"""A trial that is not narrow enough by then never will be: its spread is the finding."""


def narrow_enough(events: Iterable[Json], target: float) -> bool:
    """Say whether the 95 % interval of a trial's median reaches at most ``target`` of it to the wider side.

    From the medians of the finished repetitions (rule 9 of the design); with fewer than three it never is.
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
        return False
    return max(found.high - found.value, found.value - found.low) <= target * found.value
