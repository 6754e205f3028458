"""What a model file says of itself: format, precision, inputs, outputs, parameters, operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from socbench.records import TensorSpec


@dataclass(frozen=True)
class FileFacts:
    """Facts read off a model file, never off its name.

    ``precision`` is that of the tensors: ``fp32``, ``fp16``, ``int8`` (weights and activations), ``int8_dynamic``
    (weights; activations are quantised while it runs), ``int8_weights`` (weights stored, computed in float).
    ``multiply_adds`` is ``None`` where a shape is not known; ``quant_scheme``: ``per_channel``, ``per_tensor``, none.
    """

    format: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    ops: Counter[str] = field(default_factory=Counter)
    quant_scheme: str | None = None
    multiply_adds: int | None = None
    size_bytes: int = 0
    companions: tuple[str, ...] = ()


def inspect_file(path: Path) -> FileFacts:
    """Read a .tflite, .onnx, .xml (OpenVINO IR, its .bin beside it) or .null.json file.

    Raises ModelError (one sentence) when it is missing, is no model, is cut off or is of a format that is not known.
    """
    raise NotImplementedError
