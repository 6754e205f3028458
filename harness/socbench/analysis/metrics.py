"""Metrics of the tasks: what is kept of every item, and how that becomes one number over any set of items.

Written out here where the definition is a few lines (filters are SciPy's); mAP is pycocotools'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from socbench.records import Json

Array = npt.NDArray[np.float64]
Stats = npt.NDArray[Any]


def mean(stats: Stats) -> float:
    """Return the mean of one number an item."""
    return float(np.mean(stats))


@dataclass(frozen=True)
class Metric:
    """``items`` gives ``(count, ...)`` statistics of the items; ``total`` the metric over a set of them.

    ``share``: each item is right (1) or wrong (0). ``lower_is_better``: an error. ``unit``: what the value is in where
    it is no fraction from 0 to 1. ``resampled``: ``total`` over many sets at once, each a row of item numbers, where
    that is much faster than one after the other. ``tolerated_loss``: a variant that lost at most this much keeps its
    accuracy; one point of a fraction, as MLPerf's 99 % targets allow for, and a tenth of a decibel, which nobody sees.
    """

    items: Callable[[Sequence[Array], Json, Any], Stats]
    total: Callable[[Stats], float] = mean
    share: bool = False
    lower_is_better: bool = False
    unit: str | None = None
    tolerated_loss: float = 0.01
    resampled: Callable[[Stats, npt.NDArray[np.int64]], Array] | None = None


def top_k(outputs: Sequence[Array], truth: Json, k: int) -> Array:
    """Score 1 where the right label is among the ``k`` largest elements of the first output.

    ``truth["labels"]``: class numbers. Ties count against the answer, so a constant output scores nothing.
    """
    labels = np.asarray(truth["labels"], np.int64)
    classes = outputs[0].reshape(labels.size, -1)
    shifted = labels + int(_setting(truth, "label_offset"))
    if shifted.size and (shifted.min() < 0 or shifted.max() >= classes.shape[1]):
        raise ValueError(f"labels up to {shifted.max()} and {classes.shape[1]} classes do not fit")
    right = np.take_along_axis(classes, shifted[:, None], 1)
    # The right element itself is one of those that are at least as large.
    ahead = np.count_nonzero(classes >= right, axis=1)
    scores: Array = (ahead <= k).astype(np.float64)
    return scores


def _edits(outputs: Sequence[Array], truth: Json, _: Any) -> Array:
    """Return ``(count, 2)``: Levenshtein distance of the text read to the true one, and the true one's length.

    The output holds places in ``truth["characters"]`` (from 1, class 0 is the blank), -1 for nothing.
    """
    texts, characters = truth["texts"], truth["characters"]
    found = outputs[0].reshape(len(texts), -1).astype(np.int64)
    blank_first = 1 if _setting(truth, "blank") == 0 else 0
    made = []
    for row, text in zip(found, texts, strict=True):
        places = [int(place) - blank_first for place in row if place >= 0]
        if any(not 0 <= place < len(characters) for place in places):
            raise ValueError("a class has no character")
        made.append([levenshtein("".join(characters[place] for place in places).strip(), text), len(text)])
    return np.asarray(made, np.float64)


def levenshtein(one: str, two: str) -> int:
    """Return how many characters must be inserted, deleted or replaced to turn one text into the other."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(two, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def _character_accuracy(stats: Stats) -> float:
    return max(0.0, 1.0 - float(stats[:, 0].sum() / stats[:, 1].sum()))


def _overlaps(outputs: Sequence[Array], truth: Json, targets: Any) -> Array:
    """Return ``(count, classes, 2)``: pixels in both and in either, a class; pixels of class 255 do not count."""
    targets = np.asarray(targets)
    classes = outputs[0].reshape(targets.shape).astype(np.int64)
    number = int(truth["output_shapes"][0][-1])
    made = np.zeros((len(targets), number, 2))
    for item, (found, wanted) in enumerate(zip(classes, targets.astype(np.int64), strict=True)):
        counted = (wanted != 255) & (wanted < number) & (found >= 0) & (found < number)
        table = np.bincount(number * wanted[counted] + found[counted], minlength=number * number)
        table = table.reshape(number, number)
        both = np.diag(table)
        made[item] = np.stack([both, table.sum(0) + table.sum(1) - both], axis=1)
    return made


def _mean_iou(stats: Stats) -> float:
    both, either = stats.sum(0).T
    there = either > 0
    return float(np.mean(both[there] / either[there])) if there.any() else float("nan")


def _pixels(outputs: Sequence[Array], truth: Json, targets: Any) -> tuple[Array, Array]:
    """Return outputs (scaled to 0 to ``peak`` and cut to it) and targets as luma, their borders cut off.

    Luma of ITU-R BT.601 in full range, as super-resolution papers report ("PSNR-Y") up to its offset.
    """
    targets = np.asarray(targets, np.float64)
    peak, border = float(_setting(truth, "peak", 255.0)), int(_setting(truth, "border"))
    found = np.clip(np.rint(outputs[0].reshape(targets.shape) * (255.0 / peak)), 0, 255)
    weights = np.array([0.299, 0.587, 0.114])
    lumas = []
    for pictures in (found, targets):
        if pictures.ndim == 4:
            axis = 1 if pictures.shape[1] == 3 else -1
            pictures = np.tensordot(np.moveaxis(pictures, axis, -1), weights, axes=1)
        lumas.append(pictures[:, border : pictures.shape[1] - border, border : pictures.shape[2] - border])
    return lumas[0], lumas[1]


def _psnr(outputs: Sequence[Array], truth: Json, targets: Any) -> Array:
    """Return the peak signal-to-noise ratio of each picture's luma in dB."""
    found, wanted = _pixels(outputs, truth, targets)
    errors = np.mean((found - wanted) ** 2, axis=(1, 2))
    values: Array = 10 * np.log10(255.0**2 / np.maximum(errors, 1e-10))
    return values


def _ssim(outputs: Sequence[Array], truth: Json, targets: Any) -> Array:
    """Return the structural similarity of each picture's luma (Wang et al. 2004: Gaussian of 1.5, 11 x 11)."""
    found, wanted = _pixels(outputs, truth, targets)
    return np.array([ssim(one, two) for one, two in zip(found, wanted, strict=True)])


def ssim(one: Array, two: Array, peak: float = 255.0) -> float:
    """Return the mean structural similarity of two grey pictures; the outer 5 pixels have no whole window."""
    from scipy.ndimage import gaussian_filter

    def smooth(values: Array) -> Array:
        filtered: Array = gaussian_filter(values, 1.5, truncate=3.5)
        return filtered

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_one, mean_two = smooth(one), smooth(two)
    var_one, var_two = smooth(one * one) - mean_one**2, smooth(two * two) - mean_two**2
    both = smooth(one * two) - mean_one * mean_two
    above = (2 * mean_one * mean_two + c1) * (2 * both + c2)
    values = above / ((mean_one**2 + mean_two**2 + c1) * (var_one + var_two + c2))
    return float(np.mean(values[5:-5, 5:-5]))


def _similarities(outputs: Sequence[Array], truth: Json, _: Any) -> Array:
    """Return ``(pairs, 2)``: the cosine of the two embeddings, and people's score."""
    pairs = np.asarray(truth["pairs"], np.int64)
    count = int(truth["count"])
    vectors = outputs[0].reshape(count, -1)
    if pairs.size and pairs.max() >= count:
        raise ValueError("a pair names an item that is not there")
    one, two = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines = np.sum(one * two, axis=1) / np.where(lengths == 0, 1, lengths)
    return np.stack([cosines, np.asarray(truth["scores"], np.float64)], axis=1)


def _spearman(stats: Stats) -> float:
    """Return the correlation of the ranks; 0 where one side is constant."""
    if np.ptp(stats[:, 0]) == 0 or np.ptp(stats[:, 1]) == 0:
        return 0.0
    one, two = (ranks - ranks.mean() for ranks in (_ranks(stats[:, 0]), _ranks(stats[:, 1])))
    return float(one @ two / np.sqrt((one @ one) * (two @ two)))


def _ranks(values: Array) -> Array:
    """Return ranks from 1, ties at the mean of theirs (scipy.stats.rankdata takes a second to be imported)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _spearman_resampled(stats: Stats, chosen: npt.NDArray[np.int64]) -> Array:
    """Return ``_spearman`` of every row of ``chosen`` ``(sets, items)``, from how often it has each item."""
    sets, items = chosen.shape
    places = np.arange(sets)[:, None] * len(stats) + chosen
    times = np.bincount(places.ravel(), minlength=sets * len(stats)).reshape(sets, -1).astype(np.float64)
    one, two = (_ranks_resampled(stats[:, side], times) - (items + 1) / 2 for side in (0, 1))
    scale = np.sqrt(np.sum(times * one * one, 1) * np.sum(times * two * two, 1))
    known: Array = np.sum(times * one * two, 1) / np.where(scale == 0, 1, scale)
    return known


def _ranks_resampled(values: Array, times: Array) -> Array:
    """Return the ranks ``(sets, items)`` that values have where each of them is there ``times`` times."""
    distinct, places = np.unique(values, return_inverse=True)
    order = np.argsort(places, kind="stable")
    counts = np.add.reduceat(times[:, order], np.searchsorted(places[order], np.arange(distinct.size)), axis=1)
    ranks: Array = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, places]
    return ranks


def _keypoint_errors(outputs: Sequence[Array], truth: Json, targets: Any) -> Array:
    """Return the mean distance of the keypoints of each item, as a share of ``truth["scale"]`` of that item.

    ``truth["keypoints"]``: ``(count, points, 2)``; points whose truth is negative are not there.
    """
    wanted = np.asarray(truth["keypoints"], np.float64)
    found = outputs[0].reshape(len(wanted), wanted.shape[1], -1)[..., :2]
    there = (wanted >= 0).all(-1)
    distance = np.linalg.norm(found - wanted, axis=-1) * there
    scale = np.asarray(truth.get("scale") or np.ones(len(wanted)), np.float64)
    errors: Array = distance.sum(1) / np.maximum(there.sum(1), 1) / scale
    return errors


def _boxes(outputs: Sequence[Array], truth: Json, _: Any) -> Stats:
    """Return one object an item: what was found ``(n, 6)`` and what is there ``(m, 6)``."""
    wanted = truth["boxes"]
    found = outputs[0].reshape(len(wanted), -1, 6)
    made = np.empty(len(wanted), object)
    for place, (one, two) in enumerate(zip(found, wanted, strict=True)):
        made[place] = (one[one[:, 5] > 0], np.asarray(two, np.float64).reshape(-1, 6))
    return made


def _mean_average_precision(stats: Stats) -> float:
    """Return COCO's mAP at IoU 0.50 to 0.95 (https://cocodataset.org/#detection-eval), by pycocotools.

    ValueError when pycocotools is not installed (the extra ``detection``).
    """
    import contextlib
    import io

    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as problem:
        raise ValueError("mAP needs pycocotools; install it with: pip install 'socbench[detection]'") from problem
    scale = 1000.0  # the size classes of COCO are in pixels and are not used here
    images: list[Json] = []
    wanted: list[Json] = []
    found: list[Json] = []
    for number, (answers, boxes) in enumerate(stats, start=1):
        images.append({"id": number})
        for one in boxes:
            x, y, w, h = scale * one[1], scale * one[2], scale * (one[3] - one[1]), scale * (one[4] - one[2])
            entry = {"image_id": number, "category_id": int(one[0]), "bbox": [x, y, w, h], "area": w * h}
            wanted.append({**entry, "id": len(wanted) + 1, "iscrowd": int(one[5])})
        for one in answers:
            x, y, w, h = scale * one[1], scale * one[2], scale * (one[3] - one[1]), scale * (one[4] - one[2])
            found.append({"image_id": number, "category_id": int(one[0]), "bbox": [x, y, w, h], "score": float(one[5])})
    if not found or not wanted:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        categories = sorted({entry["category_id"] for entry in wanted})
        table.dataset = {
            "info": {},
            "images": images,
            "annotations": wanted,
            "categories": [{"id": number} for number in categories],
        }
        table.createIndex()
        evaluation = COCOeval(table, table.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return max(0.0, float(evaluation.stats[0]))


METRICS: Final[Mapping[str, Metric]] = {
    "top1": Metric(lambda outputs, truth, _: top_k(outputs, truth, 1), share=True),
    "top5": Metric(lambda outputs, truth, _: top_k(outputs, truth, 5), share=True),
    "map": Metric(_boxes, _mean_average_precision),
    "miou": Metric(_overlaps, _mean_iou),
    "psnr": Metric(_psnr, unit="dB", tolerated_loss=0.1),
    "ssim": Metric(_ssim),
    "character_accuracy": Metric(_edits, _character_accuracy),
    "spearman": Metric(_similarities, _spearman, resampled=_spearman_resampled),
    "keypoint_error": Metric(_keypoint_errors, lower_is_better=True),
}
"""Name on a model card -> metric. A new metric is one entry."""


def _setting(truth: Json, name: str, default: float = 0) -> float:
    metric = truth.get("metric")
    value = metric.get(name, default) if isinstance(metric, dict) else default
    return float(value)
