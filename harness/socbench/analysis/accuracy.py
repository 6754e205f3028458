"""Accuracy with its interval, and the difference of two accuracies on the same items.

What a metric is lies in ``metrics``; what turns raw outputs into answers in ``decode``. Intervals: shares (right or
wrong) by Wilson and Newcombe, means by Student's t, and what is no mean over items (mAP, mIoU, correlations, character
accuracy) by a bootstrap over the items (Efron 1979, percentiles, seeded, so that the same data give the same digits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from socbench.analysis.decode import DECODERS
from socbench.analysis.metrics import METRICS, Metric, mean, top_k
from socbench.analysis.statistics import CONFIDENCE
from socbench.records import Json

__all__ = ["METRICS", "Accuracy", "Difference", "accuracy", "metric_name", "paired_difference", "top_k", "wilson"]

Scores = npt.NDArray[np.float64]
RESAMPLES: Final = 1000
_COSTLY: Final = ("map",)
_COSTLY_RESAMPLES: Final = 100
_SEED: Final = 20261124


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over ``count`` items with its interval.

    ``scores`` has what the metric keeps of each item, in the data set's order: one number for shares and means.
    ``resampled`` has the metric over resampled items, the same ones for every accuracy of as many items.
    """

    metric: str
    value: float
    low: float
    high: float
    count: int
    scores: npt.NDArray[Any]
    resampled: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Difference:
    """Accuracy less the base's on the same items, with its interval."""

    value: float
    low: float
    high: float


def metric_name(metric: Any) -> str | None:
    """Return the name in a card's ``metric``, which is a text or an object with ``name``."""
    name = metric.get("name") if isinstance(metric, dict) else metric
    return name if isinstance(name, str) else None


def accuracy(outputs: Sequence[Scores], truth: Json, targets: Any = None) -> Accuracy:
    """Return the accuracy of outputs (one array an output tensor, items one after the other) against the truth.

    ``truth`` is the model's entry in session.json; ``targets`` the pictures or masks to compare with, where the truth
    is those. ValueError for an unknown metric and for outputs that don't fit.
    """
    name = metric_name(truth.get("metric"))
    if name is None or name not in METRICS:
        raise ValueError(f"unknown metric {str(name)[:40]!r}; there are {', '.join(METRICS)}")
    if not truth.get("labels") and name in ("top1", "top5"):
        raise ValueError("the truth has no labels")
    metric = METRICS[name]
    try:
        stats = metric.items(_decoded(outputs, truth), truth, targets)
    except (KeyError, TypeError, IndexError) as problem:
        raise ValueError(f"the truth does not fit the metric {name} ({problem!r})") from problem
    if not len(stats):
        raise ValueError("the truth has no items")
    value = metric.total(stats)
    if metric.share:
        low, high = wilson(float(np.sum(stats)), len(stats))
    elif metric.total is mean:
        _, half = _student(stats)
        low, high = value - half, value + half
    else:
        totals = _resampled(name, metric, stats)
        return Accuracy(name, value, *_percentiles(totals), len(stats), stats, totals)
    return Accuracy(name, value, low, high, len(stats), stats)


def _decoded(outputs: Sequence[Scores], truth: Json) -> Sequence[Scores]:
    wanted = truth.get("metric")
    decode = wanted.get("decode") if isinstance(wanted, dict) else None
    if decode is None:
        return outputs
    if decode not in DECODERS:
        raise ValueError(f"unknown decode {str(decode)[:40]!r}; there are {', '.join(DECODERS)}")
    return DECODERS[decode](outputs, int(truth["count"]), truth)


def _student(values: npt.NDArray[Any], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the mean of values and half of its interval by Student's t."""
    from scipy import special

    if len(values) < 2:
        return float(np.mean(values)), math.inf
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), float(special.stdtrit(len(values) - 1, 0.5 + confidence / 2)) * spread


def _resampled(name: str, metric: Metric, stats: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the metric over resampled items. The seed is always the same, and so are the items for one count."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    number = _COSTLY_RESAMPLES if name in _COSTLY else RESAMPLES
    chosen = random.integers(0, len(stats), (number, len(stats)))
    if metric.resampled is not None:
        return metric.resampled(stats, chosen)
    return np.array([metric.total(stats[places]) for places in chosen])


def _percentiles(totals: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    known = totals[np.isfinite(totals)]
    if not known.size:
        return -math.inf, math.inf
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


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

    Means: Student's t of the items' differences. What is no mean: both over the same resampled items. Shares: only
    items that one gets right and the other wrong say anything; Newcombe's interval for paired proportions by
    square-and-add of two Wilson intervals with their correlation (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10), which holds its level for few items and stays inside -1 to 1.
    """
    if base.count != other.count or base.metric != other.metric:
        return None
    metric = METRICS[base.metric]
    if not metric.share:
        return _difference(base, other, metric)
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


def _difference(base: Accuracy, other: Accuracy, metric: Metric) -> Difference:
    value = other.value - base.value
    if metric.total is mean:
        _, half = _student(other.scores - base.scores)
        return Difference(value, value - half, value + half)
    if base.resampled is None or other.resampled is None:
        return Difference(value, -math.inf, math.inf)
    return Difference(value, *_percentiles(other.resampled - base.resampled))


def _added(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))
