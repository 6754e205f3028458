"""Readers of model files, one file a format: each module has ``read(path) -> FileFacts``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from socbench.errors import ModelError

if TYPE_CHECKING:
    from socbench.models.inspect import FileFacts


def reader(form: str) -> Callable[[Path], FileFacts]:
    """Return the reader of a format. Raises ModelError when there is none."""
    try:
        module = importlib.import_module(f"{__name__}.{form}")
    except ModuleNotFoundError as problem:
        raise ModelError(f"files of the format {form} cannot be read by socbench") from problem
    read: Callable[[Path], FileFacts] = module.read
    return read


def precision_of(weights: dict[str, int], *, quantised: bool, dynamic: bool) -> str:
    """Return the precision that the tensors of a file amount to.

    ``weights``: elements by NumPy type; ``quantised``: activations carry integers; ``dynamic``: operations quantise
    float activations while they run. The type that holds most weights decides; a file without weights is fp32.
    """
    most = max(weights, key=lambda kind: weights[kind]) if weights else "float32"
    if most in ("int8", "uint8"):
        return "int8" if quantised else "int8_dynamic" if dynamic else "int8_weights"
    if most in ("int4", "uint4"):
        return "int4_weights"
    return {"float16": "fp16", "bfloat16": "bf16"}.get(most, "fp32")
