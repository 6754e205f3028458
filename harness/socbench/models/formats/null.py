"""Reads .null.json: the scripted model of the null runtime."""

from __future__ import annotations

from pathlib import Path

import msgspec

from socbench.errors import ModelError
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int | None, ...]


class _Script(msgspec.Struct):
    inputs: tuple[_Tensor, ...] = (_Tensor("x", "float32", (1, 4)),)
    outputs: tuple[_Tensor, ...] = (_Tensor("y", "float32", (1, 2)),)
    precision: str = "fp32"


def read(path: Path) -> FileFacts:
    """Return the facts of a scripted model. Raises ModelError."""
    try:
        script = msgspec.json.decode(path.read_bytes(), type=_Script)
    except msgspec.MsgspecError as problem:
        raise ModelError(f"{path} is no script of the null runtime: {problem}") from problem
    return FileFacts(
        format="null",
        precision=script.precision,
        inputs=tuple(TensorSpec(item.name, item.dtype, item.shape) for item in script.inputs),
        outputs=tuple(TensorSpec(item.name, item.dtype, item.shape) for item in script.outputs),
        parameters=0,
    )
