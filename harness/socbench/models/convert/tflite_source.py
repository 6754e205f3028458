"""Edits TFLite files by LiteRT's own schema: signatures, inline buffers, fp16 weights made fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socbench.errors import ModelError


def prepare(
    source: str, target: str, opset: int | None = None, shapes: list[list[int]] | None = None
) -> dict[str, Any]:
    """Write ``target``: ``source`` with a signature; open dimensions are the card's. Raises ModelError."""
    model = _read(source)
    if len(model.subgraphs) != 1:
        raise ModelError(f"it has {len(model.subgraphs)} subgraphs, and one is expected")
    graph = model.subgraphs[0]
    if shapes is not None:
        if len(shapes) != len(graph.inputs):
            raise ModelError(f"the file has {len(graph.inputs)} inputs and the card {len(shapes)}")
        recorded = [list(map(int, graph.tensors[index].shape)) for index in graph.inputs]
        for index, shape in zip(graph.inputs, shapes, strict=True):
            graph.tensors[index].shape = shape
            graph.tensors[index].shapeSignature = None
        if recorded == shapes:
            _close(model)
    if not model.signatureDefs:
        _sign(model)
    _write(model, target)
    return {}


def _close(model: Any) -> None:
    """Make the shapes that the file records those of all its tensors, and constants of what computes them as it runs.

    Delegates take only graphs whose shapes are known before, and compiled models have no room for other outputs.
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    for node in graph.operators:
        if codes[node.opcodeIndex] != schema.BuiltinOperator.RESHAPE or len(node.inputs) < 2:
            continue
        if model.buffers[graph.tensors[node.inputs[1]].buffer].data is None:
            shape = np.asarray(graph.tensors[node.outputs[0]].shape, "<i4")
            buffer, operand = schema.BufferT(), schema.TensorT()
            buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
            operand.name, operand.type = graph.tensors[node.outputs[0]].name + b"/shape", schema.TensorType.INT32
            operand.shape, operand.buffer = [len(shape)], len(model.buffers)
            model.buffers.append(buffer)
            graph.tensors.append(operand)
            node.inputs = [node.inputs[0], len(graph.tensors) - 1]
    needed = {int(index) for index in graph.outputs}
    kept = []
    for node in reversed(graph.operators):  # they stand in the order in which they run
        if any(int(index) in needed for index in node.outputs):
            needed.update(int(index) for index in node.inputs)
            kept.append(node)
    graph.operators = kept[::-1]
    _drop_unused(model)


def widened(source: str, target: str) -> None:
    """Write ``target``: the weights that ``source`` stores as fp16 are stored as fp32, the same numbers.

    Each constant behind a DEQUANTIZE takes the place of that operation's result. Raises ModelError for fp16 weights
    that are stored otherwise (sparse ones).
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = _read(source)
    (graph,) = model.subgraphs
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kept = []
    for node in graph.operators:
        wide = graph.tensors[node.inputs[0]] if codes[node.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE else None
        data = None if wide is None else model.buffers[wide.buffer].data
        if wide is None or data is None or wide.type != schema.TensorType.FLOAT16:
            kept.append(node)
            continue
        if wide.sparsity is not None:
            raise ModelError("its weights are stored sparse, which cannot be widened")
        values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), "<f2").astype("<f4")
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors[node.outputs[0]].buffer = len(model.buffers) - 1
        model.buffers[wide.buffer].data = None
    graph.operators = kept
    _drop_unused(model)
    if not model.signatureDefs:
        _sign(model)
    _write(model, target)


def inlined(source: str, target: str) -> None:
    """Write ``target``: constants that lie behind the flatbuffer are put into it, where OpenVINO's reader looks."""
    _write(_read(source), target)


def _read(source: str) -> Any:
    """Return the file as objects, every constant in its buffer, every operation under its newer number."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    raw = Path(source).read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
    for buffer in model.buffers:
        if (buffer.offset or 0) > 1:
            buffer.data = np.frombuffer(raw, np.uint8, buffer.size, buffer.offset)
            buffer.offset, buffer.size = 0, 0
    for code in model.operatorCodes:  # old files have the older field alone, and AI Edge Quantizer reads the newer one
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    return model


def _write(model: Any, target: str) -> None:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    Path(target).write_bytes(bytes(builder.Output()))


def _sign(model: Any) -> None:
    """Give the graph the signature ``serving_default``, its ends called as the tensors are."""
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [], []
    for ends, indices in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        for index in indices:
            end = schema.TensorMapT()
            end.name, end.tensorIndex = graph.tensors[index].name, int(index)
            ends.append(end)
    model.signatureDefs = [signature]


def _drop_unused(model: Any) -> None:
    """Leave out tensors and buffers that no operation has any more."""
    (graph,) = model.subgraphs
    ends = {int(i) for i in (*graph.inputs, *graph.outputs)}
    used = sorted(ends | {int(i) for node in graph.operators for i in (*node.inputs, *node.outputs) if i >= 0})
    place = {old: new for new, old in enumerate(used)}
    graph.tensors = [graph.tensors[old] for old in used]
    for node in graph.operators:
        node.inputs, node.outputs = ([place.get(int(i), -1) for i in part] for part in (node.inputs, node.outputs))
    graph.inputs, graph.outputs = ([place[int(i)] for i in part] for part in (graph.inputs, graph.outputs))
    for signature in model.signatureDefs or []:
        for end in (*signature.inputs, *signature.outputs):
            end.tensorIndex = place[int(end.tensorIndex)]
    model.metadata, model.metadataBuffer = [], None
    needed = sorted({0, *(tensor.buffer for tensor in graph.tensors)})
    model.buffers = [model.buffers[old] for old in needed]
    for tensor in graph.tensors:
        tensor.buffer = needed.index(tensor.buffer)
