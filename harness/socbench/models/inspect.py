"""What a model file says of itself: format, precision, inputs, outputs, parameters, operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from socbench.errors import ModelError
from socbench.models.cards import nearest
from socbench.records import TensorSpec

ENDINGS = {
    ".tflite": "tflite",
    ".onnx": "onnx",
    ".xml": "openvino",
    ".param": "ncnn",
    ".mnn": "mnn",
    ".pte": "executorch",
    ".null.json": "null",
}
FILE_LIMIT_BYTES = 2**31 - 1


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


def format_of(path: Path) -> str:
    """Return the format that a file's ending names. Raises ModelError for an ending that no runtime here takes."""
    found = next((form for ending, form in ENDINGS.items() if path.name.lower().endswith(ending)), None)
    if found is None:
        likely = [ending for ending in ENDINGS if ending != ".pte"]  # a .pt is PyTorch's and no slip of the pen
        hint = nearest(path.suffix.lower(), likely) if path.suffix else None
        known = "; did you mean " + hint + "?" if hint else "; a model file ends in " + ", ".join(ENDINGS)
        raise ModelError(f"{path} is no model file that socbench knows{known}")
    return found


def inspect_file(path: Path) -> FileFacts:
    """Read a .tflite, .onnx, .xml (OpenVINO IR), .param (ncnn; both with their .bin beside), .mnn or .null.json file.

    Raises ModelError (one sentence) when it is missing, is no model, is cut off or is of a format that is not known.
    """
    if not path.exists():
        near = nearest(path.name, [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ModelError(f"there is no file {path}" + (f"; did you mean {path.with_name(near)}?" if near else ""))
    if not path.is_file():
        raise ModelError(f"{path} is a folder, not a model file")
    form = format_of(path)
    try:
        size = path.stat().st_size
        if size == 0:
            raise ModelError(f"{path} is empty")
        if size > FILE_LIMIT_BYTES:
            raise ModelError(f"{path} has {size} bytes; a model file may have 2 GB")
        facts = _read(form, path)
    except OSError as problem:
        raise ModelError(f"{path} cannot be read: {problem.strerror}") from problem
    companions = tuple(Path(item) for item in facts.companions)
    return replace(facts, size_bytes=size + sum(item.stat().st_size for item in companions))


def _read(form: str, path: Path) -> FileFacts:
    from socbench.models import formats

    return formats.reader(form)(path)
