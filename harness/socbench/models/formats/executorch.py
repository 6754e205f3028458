"""Reads ExecuTorch programs by the .json that socbench's converter writes beside the .pte."""

from __future__ import annotations

from pathlib import Path

import msgspec

from socbench.errors import ModelError
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

_IDENTIFIER = b"ET12"


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Facts(msgspec.Struct, frozen=True):
    precision: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    parameters: int


def read(path: Path) -> FileFacts:
    """Return the facts of an ExecuTorch program. Raises ModelError."""
    with path.open("rb") as stream:
        if stream.read(8)[4:8] != _IDENTIFIER:
            raise ModelError(f"{path} is no ExecuTorch program: its bytes 4 to 8 are not {_IDENTIFIER.decode()}")
    beside = path.with_name(f"{path.name}.json")
    try:
        facts = msgspec.json.decode(beside.read_bytes(), type=_Facts)
    except (OSError, msgspec.MsgspecError) as problem:
        raise ModelError(f"{path} needs {beside.name} beside it, as socbench's converter writes it") from problem
    layout = "NCHW"
    return FileFacts(
        format="executorch",
        precision=facts.precision,
        inputs=tuple(
            TensorSpec(item.name, item.dtype, item.shape, layout if len(item.shape) == 4 else None)
            for item in facts.inputs
        ),
        outputs=tuple(TensorSpec(item.name, item.dtype, item.shape) for item in facts.outputs),
        parameters=facts.parameters,
        companions=(str(beside),),
    )
