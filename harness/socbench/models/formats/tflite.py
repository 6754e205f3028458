"""Reads .tflite files by LiteRT's generated flatbuffer schema."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from socbench.errors import ModelError
from socbench.models.formats import precision_of
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

_BROKEN = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, KeyError, RecursionError)
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "uint8": 8, "int4": 4, "int16": 16, "int32": 32}
_NARROW = ("int8", "uint8", "int4")


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    buffer: int
    constant: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    @property
    def parameter(self) -> bool:
        """Say whether it is a weight or a bias: an int32 constant without a scale is a shape, an axis or a padding."""
        return self.constant and self.dtype in _BITS and (self.dtype != "int32" or bool(self.scales))

    @property
    def spec(self) -> TensorSpec:
        one = len(self.scales) == 1
        return TensorSpec(
            self.name,
            self.dtype,
            tuple(None if size < 0 else size for size in self.signature or self.shape),
            scale=self.scales[0] if one else None,
            zero_point=self.zero_points[0] if one and self.zero_points else 0 if one else None,
        )


def read(path: Path) -> FileFacts:
    """Return the facts of a .tflite file. Raises ModelError."""
    raw = path.read_bytes()
    if len(raw) < 8 or raw[4:8] != b"TFL3":
        raise ModelError(f"{path} is no TFLite model: its bytes 4 to 8 are not TFL3")
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as problem:
        raise ModelError(f"{path} needs LiteRT to be read; install it: pip install 'socbench[litert]'") from problem
    try:
        return _facts(schema, schema.Model.GetRootAs(raw, 0), len(raw))
    except _BROKEN as problem:
        raise ModelError(f"{path} is a TFLite model that is cut off or damaged ({problem})") from problem


def _facts(schema: Any, model: Any, size: int) -> FileFacts:
    if model.SubgraphsLength() < 1:
        raise ValueError("it has no graph")
    graph = model.Subgraphs(0)
    if max(graph.TensorsLength(), graph.OperatorsLength(), model.BuffersLength()) > size:
        raise ValueError("it says that it has more tensors than bytes")
    kinds, operators = _names(schema.TensorType), _names(schema.BuiltinOperator)
    tensors = [_tensor(model, graph.Tensors(index), kinds, size) for index in range(graph.TensorsLength())]
    nodes = [_node(model, graph.Operators(index), operators, tensors) for index in range(graph.OperatorsLength())]
    computing = [(ins, outs) for name, ins, outs in nodes if name not in ("QUANTIZE", "DEQUANTIZE")]
    parameters = {item.buffer: item for _, ins, _ in nodes for item in ins if item.parameter}.values()
    elements: Counter[str] = Counter()
    for item in parameters:
        if item.dtype != "int32":
            elements[item.dtype] += prod(item.shape)
    scales = [len(item.scales) for item in parameters if item.dtype in _NARROW and item.scales]
    return FileFacts(
        format="tflite",
        precision=precision_of(
            elements,
            quantised=any(
                item.dtype in ("int8", "uint8") and not item.constant for ins, _ in computing for item in ins
            ),
            dynamic=any(
                any(item.constant and item.dtype in _NARROW for item in ins)
                and any(not item.constant and item.dtype == "float32" for item in ins)
                for ins, _ in computing
            ),
        ),
        inputs=tuple(tensors[index].spec for index in _numbers(graph.InputsAsNumpy())),
        outputs=tuple(tensors[index].spec for index in _numbers(graph.OutputsAsNumpy())),
        parameters=sum(prod(item.shape) for item in parameters),
        ops=Counter(name for name, _, _ in nodes),
        quant_scheme=("per_channel" if max(scales) > 1 else "per_tensor") if scales else None,
        multiply_adds=sum(_multiply_adds(*node) for node in nodes),
    )


def _names(kind: Any) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if not name.startswith("_")}


def _numbers(array: Any) -> list[int]:
    """Return a vector of the schema as integers; one that is not there is the number 0."""
    return [] if isinstance(array, int) else [int(value) for value in array]


def _tensor(model: Any, tensor: Any, kinds: dict[int, str], size: int) -> _Tensor:
    quantisation = tensor.Quantization()
    number = tensor.Buffer()
    buffer = model.Buffers(number)
    stored = buffer.Size() if buffer.Offset() > 1 else len(_numpy(buffer.DataAsNumpy()))
    if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > size:
        raise ValueError("the weights end behind the end of the file")
    made = _Tensor(
        name=(tensor.Name() or b"").decode("utf-8", "replace"),
        dtype=kinds[tensor.Type()].lower(),
        shape=tuple(_numbers(tensor.ShapeAsNumpy())),
        signature=tuple(_numbers(tensor.ShapeSignatureAsNumpy())),
        buffer=number,
        constant=stored > 0,
        scales=tuple(float(value) for value in _numpy(quantisation.ScaleAsNumpy())) if quantisation else (),
        zero_points=tuple(_numbers(quantisation.ZeroPointAsNumpy())) if quantisation else (),
    )
    if made.constant and prod(made.shape) * _BITS.get(made.dtype, 0) > stored * 8:
        raise ValueError(f"the tensor {made.name} has fewer bytes than its shape needs")
    return made


def _numpy(array: Any) -> Sequence[Any]:
    return () if isinstance(array, int) else array


def _node(
    model: Any, node: Any, operators: dict[int, str], tensors: list[_Tensor]
) -> tuple[str, list[_Tensor], list[_Tensor]]:
    code = model.OperatorCodes(node.OpcodeIndex())
    name = operators[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    if name == "CUSTOM":
        name = (code.CustomCode() or b"CUSTOM").decode("utf-8", "replace")
    ins = [tensors[index] for index in _numbers(node.InputsAsNumpy()) if index >= 0]
    return name, ins, [tensors[index] for index in _numbers(node.OutputsAsNumpy()) if index >= 0]


def _multiply_adds(name: str, ins: list[_Tensor], outs: list[_Tensor]) -> int:
    """Multiply-adds of one operator: elements of the output times the length of the sum behind each."""
    if name in ("CONV_2D", "CONV_3D"):
        return prod(outs[0].shape) * prod(ins[1].shape[1:] if name == "CONV_2D" else ins[1].shape[:-1])
    if name == "DEPTHWISE_CONV_2D":
        return prod(outs[0].shape) * prod(ins[1].shape[1:3])
    if name in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        return prod(outs[0].shape) * ins[0 if name == "BATCH_MATMUL" else 1].shape[-1]
    if name == "TRANSPOSE_CONV":
        return prod(ins[2].shape) * prod(ins[1].shape[:3])
    return 0
