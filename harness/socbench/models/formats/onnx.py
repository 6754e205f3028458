"""Reads .onnx files by the onnx library."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from socbench.errors import ModelError
from socbench.models.formats import precision_of
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "QLinearAdd")
_DYNAMIC_OPS = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul")
# What these take beside their first input is a scale, a limit, an axis or a size.
_HELPED = (
    "QuantizeLinear", "DequantizeLinear", "Clip", "Reshape", "Pad", "Slice", "Resize", "Unsqueeze", "Squeeze",
    "ReduceMean", "ReduceSum", "Expand", "Tile", "Gather",
)  # fmt: skip
_NARROW = ("int8", "uint8", "int4", "uint4")


def read(path: Path) -> FileFacts:
    """Return the facts of an .onnx file. Raises ModelError."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError as problem:
        raise ModelError(f"{path} needs the onnx library to be read; install it with: pip install onnx") from problem
    try:
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, ValueError) as problem:
        raise ModelError(f"{path} is no ONNX model, or one that is cut off or damaged") from problem
    if not model.graph.node or not model.ir_version:
        raise ModelError(f"{path} is no ONNX model: it has no graph")
    companions = _external_files(model, path)
    return _facts(onnx, model, companions)


def _external_files(model: Any, path: Path) -> tuple[str, ...]:
    """Return the files beside the model that hold its weights. Raises ModelError for a missing or an escaping one."""
    names = {
        entry.value
        for item in model.graph.initializer
        if item.data_location == 1
        for entry in item.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path} wants its weights from {name!r}, which is outside of its own folder")
        if not (path.parent / name).is_file():
            raise ModelError(f"{path} keeps its weights in {name!r}, which does not lie beside it")
    return tuple(str(path.parent / name) for name in sorted(names))


def _facts(onnx: Any, model: Any, companions: tuple[str, ...]) -> FileFacts:
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    shapes = _shapes(onnx, model, constants)
    parameters = _parameters(onnx, graph, constants)
    elements: Counter[str] = Counter()
    for name in parameters:
        kind = _dtype(onnx, constants[name].data_type)
        if kind in ("float32", "float16", "bfloat16", "float64", *_NARROW):
            elements[kind] += prod(constants[name].dims)
    ops = Counter(node.op_type for node in graph.node if node.op_type != "Constant")
    counts = [_multiply_adds(node, shapes) for node in graph.node]
    return FileFacts(
        format="onnx",
        precision=precision_of(
            elements,
            quantised=any(ops[name] for name in ("QuantizeLinear", *_INTEGER_OPS)),
            dynamic=any(ops[name] for name in _DYNAMIC_OPS),
        ),
        inputs=tuple(_spec(onnx, item) for item in graph.input if item.name not in constants),
        outputs=tuple(_spec(onnx, item) for item in graph.output),
        parameters=sum(prod(constants[name].dims) for name in parameters),
        ops=ops,
        quant_scheme=_scheme(graph, constants),
        multiply_adds=None if None in counts else sum(count or 0 for count in counts),
        companions=companions,
    )


def _parameters(onnx: Any, graph: Any, constants: dict[str, Any]) -> list[str]:
    """Return the names of weights and biases: constants that are no scales, zero points, shapes or limits."""
    helpers: set[str] = set()
    for node in graph.node:
        if node.op_type in _HELPED:
            helpers.update(node.input[1:])
    used = {name for node in graph.node for name in node.input}
    whole = ("int64", "bool", "string")
    return [
        name
        for name, item in constants.items()
        if name in used and name not in helpers and _dtype(onnx, item.data_type) not in whole
    ]


def _dtype(onnx: Any, number: int) -> str:
    try:
        name: str = onnx.TensorProto.DataType.Name(number).lower()
    except ValueError:
        return "unknown"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _spec(onnx: Any, item: Any) -> TensorSpec:
    tensor = item.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return TensorSpec(item.name, _dtype(onnx, tensor.elem_type), shape)


def _shapes(onnx: Any, model: Any, constants: dict[str, Any]) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every tensor that shape inference finds; an open first dimension counts as a batch of 1."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        graph = model.graph
    shapes: dict[str, tuple[int | None, ...]] = {}
    for item in (*graph.input, *graph.output, *graph.value_info):
        sizes = [size.dim_value or None for size in item.type.tensor_type.shape.dim]
        shapes[item.name] = tuple(1 if index == 0 and size is None else size for index, size in enumerate(sizes))
    shapes.update((name, tuple(item.dims)) for name, item in constants.items())
    for node in graph.node:  # weights of a QDQ file stand behind a DequantizeLinear
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            shapes[node.output[0]] = tuple(constants[node.input[0]].dims)
    return shapes


def _multiply_adds(node: Any, shapes: dict[str, tuple[int | None, ...]]) -> int | None:
    """Multiply-adds of one node, ``None`` where a shape is open: elements of the output times the length of the sum."""
    if node.op_type not in ("Conv", "QLinearConv", "ConvTranspose", "Gemm", "MatMul", "QLinearMatMul"):
        return 0
    quantised = node.op_type.startswith("QLinear")
    left, right = (shapes.get(name, ()) for name in (node.input[0], node.input[3 if quantised else 1]))
    made = shapes.get(node.output[0], ())
    if not made or not left or not right or None in (*made, *left, *right):
        return None
    sizes = [size or 0 for size in made]
    if node.op_type in ("Conv", "QLinearConv"):
        return prod(sizes) * prod(size or 0 for size in right[1:])
    if node.op_type == "ConvTranspose":
        return prod(size or 0 for size in left) * prod(size or 0 for size in right[1:])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return prod(sizes) * ((left[-2] if transposed else left[-1]) or 0)


def _scheme(graph: Any, constants: dict[str, Any]) -> str | None:
    """Say whether any weight of a QDQ file has one scale a channel."""
    scales = [
        prod(constants[node.input[1]].dims)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and node.input[1] in constants
    ]
    return ("per_channel" if max(scales) > 1 else "per_tensor") if scales else None
