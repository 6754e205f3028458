"""Turns raw outputs into the answers that a metric compares; chosen by a card's ``metric.decode``.

Each function takes the outputs (one float64 array a tensor, items one after the other, in the card's order), the
number of items and the truth (the model's entry in session.json), and returns the outputs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from socbench.records import Json

Array = npt.NDArray[np.float64]
Decoder = Callable[[Sequence[Array], int, Json], list[Array]]


def shape_of(truth: Json, output: int) -> tuple[int, ...]:
    """Return the shape of one item of an output as the card has it, without the batch. ValueError when not known."""
    shapes = truth.get("output_shapes")
    if not isinstance(shapes, list) or output >= len(shapes):
        raise ValueError("the truth does not say what shape the outputs have")
    sizes = [size for size in shapes[output][1:] if isinstance(size, int)]
    if len(sizes) != len(shapes[output]) - 1:
        raise ValueError("an output of the card has an open dimension")
    return tuple(sizes)


def largest(values: Array, count: int, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the index of the largest element along the last axis ``(count, *shape[:-1])``.

    Values that were reduced to indices on the device already (``keep: argmax``) are those indices.
    """
    steps = int(np.prod(shape[:-1]))
    if values.size == count * steps * shape[-1]:
        places: npt.NDArray[np.int64] = values.reshape(count, *shape).argmax(-1)
        return places
    if values.size == count * steps:
        return values.reshape(count, *shape[:-1]).astype(np.int64)
    raise ValueError(f"{values.size} elements are no {count} outputs of {shape}")


def ctc_greedy(outputs: Sequence[Array], count: int, truth: Json) -> list[Array]:
    """Return ``(count, steps)`` classes with repeats and blanks as -1: best-path decoding (Graves et al. 2006)."""
    found = largest(outputs[0], count, shape_of(truth, 0))
    blank = int(_settings(truth).get("blank", 0))
    before = np.concatenate([np.full((count, 1), -1), found[:, :-1]], axis=1)
    return [np.where((found == blank) | (found == before), -1, found).astype(np.float64), *outputs[1:]]


def mean_over_steps(outputs: Sequence[Array], count: int, truth: Json) -> list[Array]:
    """Return the first output averaged over its first axis: ``(count, classes)``."""
    return [outputs[0].reshape(count, *shape_of(truth, 0)).mean(1), *outputs[1:]]


def l2_normalised(outputs: Sequence[Array], count: int, truth: Json) -> list[Array]:
    """Return the first output as vectors of length 1: ``(count, n)``."""
    vectors = outputs[0].reshape(count, -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return [vectors / np.where(lengths == 0, 1, lengths), *outputs[1:]]


def argmax_classes(outputs: Sequence[Array], count: int, truth: Json) -> list[Array]:
    """Return the class of every pixel ``(count, height, width)`` of scores that have the classes last."""
    return [largest(outputs[0], count, shape_of(truth, 0)).astype(np.float64), *outputs[1:]]


def tflite_boxes(outputs: Sequence[Array], count: int, truth: Json) -> list[Array]:
    """Return ``(count, n, 6)``: class, x1, y1, x2, y2, score, of the four outputs of TFLite's detection op.

    Its boxes are (y1, x1, y2, x2) and its class 0 is the first behind the background (``label_offset`` is added).
    """
    boxes, classes, scores = (outputs[place].reshape(count, -1) for place in range(3))
    corners = boxes.reshape(count, -1, 4)
    offset = int(_settings(truth).get("label_offset", 0))
    columns = [classes + offset, *(corners[..., axis] for axis in (1, 0, 3, 2)), scores]
    return [np.stack(columns, axis=-1)]


DECODERS: Final[Mapping[str, Decoder]] = {
    "ctc_greedy": ctc_greedy,
    "mean_over_steps": mean_over_steps,
    "l2_normalised": l2_normalised,
    "argmax_classes": argmax_classes,
    "tflite_boxes": tflite_boxes,
}
"""Name in a card's ``metric.decode`` -> function."""


def _settings(truth: Json) -> dict[str, Any]:
    metric = truth.get("metric")
    return metric if isinstance(metric, dict) else {}
