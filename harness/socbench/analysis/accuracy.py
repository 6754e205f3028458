"""Accuracy metrics with their intervals. One function a metric; a fraction from 0 to 1.

A metric takes the outputs of a data set and its truth and gives one score an item; the mean of the scores is the
accuracy. Metrics that are no mean over items (mAP) will give their own resampling; none is here yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from socbench.analysis.statistics import CONFIDENCE
from socbench.records import Json

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over ``count`` items with its interval; ``scores`` has one score an item, in the data set's order."""

    metric: str
    value: float
    low: float
    high: float
    count: int
    scores: Scores


@dataclass(frozen=True)
class Difference:
    """Accuracy less the base's on the same items, with its interval."""

    value: float
    low: float
    high: float


def top_k(outputs: Sequence[Scores], truth: Json, k: int) -> Scores:
    """Score 1 where the right label is among the ``k`` largest elements of the first output.

    ``truth["labels"]``: class numbers. Ties count against the answer, so a constant output scores nothing.
    """
    labels = np.asarray(truth["labels"], np.int64)
    classes = outputs[0].reshape(labels.size, -1)
    shifted = labels + int(
        truth.get("metric", {}).get("label_offset", 0) if isinstance(truth.get("metric"), dict) else 0
    )
    if shifted.size and (shifted.min() < 0 or shifted.max() >= classes.shape[1]):
        raise ValueError(f"labels up to {shifted.max()} and {classes.shape[1]} classes do not fit")
    right = np.take_along_axis(classes, shifted[:, None], 1)
    # The right element itself is one of those that are at least as large.
    ahead = np.count_nonzero(classes >= right, axis=1)
    scores: Scores = (ahead <= k).astype(np.float64)
    return scores


METRICS: Final[Mapping[str, Callable[[Sequence[Scores], Json], Scores]]] = {
    "top1": lambda outputs, truth: top_k(outputs, truth, 1),
    "top5": lambda outputs, truth: top_k(outputs, truth, 5),
}
"""Name on a model card -> scores of the items. A new metric is one entry."""


def metric_name(metric: Any) -> str | None:
    """Return the name in a card's ``metric``, which is a text or an object with ``name``."""
    name = metric.get("name") if isinstance(metric, dict) else metric
    return name if isinstance(name, str) else None


def accuracy(outputs: Sequence[Scores], truth: Json) -> Accuracy:
    """Return the accuracy of outputs (one array an output tensor, items one after the other) against the truth.

    ``truth`` is the model's entry in session.json. ValueError for an unknown metric and for outputs that don't fit.
    """
    name = metric_name(truth.get("metric"))
    if name is None or name not in METRICS:
        raise ValueError(f"unknown metric {str(name)[:40]!r}; there are {', '.join(METRICS)}")
    if not truth.get("labels"):
        raise ValueError("the truth has no labels")
    scores = METRICS[name](outputs, truth)
    value = float(np.mean(scores))
    low, high = wilson(float(np.sum(scores)), scores.size)
    return Accuracy(name, value, low, high, int(scores.size), scores)


def wilson(successes: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927; recommended by Brown, Cai, DasGupta 2001)."""
    from scipy import special

    z = float(special.ndtri(0.5 + confidence / 2))
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At the ends the interval touches them exactly; rounding must not take that away.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == count else middle + half)


def paired_difference(base: Accuracy, other: Accuracy, confidence: float = CONFIDENCE) -> Difference | None:
    """Return the difference of two accuracies on the same items; ``None`` when the items are not the same number.

    Only items that one gets right and the other wrong say anything. Interval: Newcombe's for paired proportions by
    square-and-add of two Wilson intervals with their correlation (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10), which holds its level for few items and stays inside -1 to 1.
    """
    if base.count != other.count or base.metric != other.metric:
        return None
    n, one, two = base.count, base.scores > 0.5, other.scores > 0.5
    a, b = int(np.sum(two & one)), int(np.sum(two & ~one))
    c, d = int(np.sum(~two & one)), int(np.sum(~two & ~one))
    difference = (b - c) / n
    share_two, share_one = (a + b) / n, (a + c) / n
    low_two, high_two = wilson(a + b, n, confidence)
    low_one, high_one = wilson(a + c, n, confidence)
    marginals = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0
    if marginals > 0:
        product = float(a * d - b * c)
        if product > 0:
            product = max(product - n / 2, 0.0)  # continuity correction of method 10
        phi = product / math.sqrt(marginals)
    down = _added(share_two - low_two, high_one - share_one, phi)
    up = _added(high_two - share_two, share_one - low_one, phi)
    return Difference(difference, max(-1.0, difference - down), min(1.0, difference + up))


def _added(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))
