"""Preparing a TFLite file: with closed inputs it computes no shape as it runs, and its answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from socbench.models.convert import tflite_source

_OPERATORS = ("SHAPE", "STRIDED_SLICE", "PACK", "RESHAPE")


def _tensor(schema: Any, model: Any, name: str, shape: list[int], values: list[int] | None = None) -> int:
    """Add a tensor to the graph: float32, or an int32 with ``values`` when they are given (empty: computed)."""
    tensor, buffer = schema.TensorT(), schema.BufferT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, len(model.buffers)
    tensor.type = schema.TensorType.FLOAT32 if values is None else schema.TensorType.INT32
    if values:
        buffer.data = np.frombuffer(np.asarray(values, "<i4").tobytes(), np.uint8)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _write_model(path: Path) -> None:
    """Write a graph that reshapes [N, 4] to [N, 2, 2], where it takes N from its input's shape."""
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [schema.BufferT()], []
    graph.tensors, graph.operators = [], []
    for name in _OPERATORS:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        model.operatorCodes.append(code)
    given = _tensor(schema, model, "given", [1, 4])
    graph.tensors[given].shapeSignature = [-1, 4]
    shape, count = _tensor(schema, model, "shape", [2], []), _tensor(schema, model, "count", [], [])
    zero, one = _tensor(schema, model, "zero", [1], [0]), _tensor(schema, model, "one", [1], [1])
    two, wanted = _tensor(schema, model, "two", [], [2]), _tensor(schema, model, "wanted", [3], [])
    answer = _tensor(schema, model, "answer", [1, 2, 2])
    graph.tensors[answer].shapeSignature = [-1, 2, 2]
    options = [schema.ShapeOptionsT(), schema.StridedSliceOptionsT(), schema.PackOptionsT(), schema.ReshapeOptionsT()]
    options[0].outType = schema.TensorType.INT32
    options[1].shrinkAxisMask = 1
    options[2].valuesCount = 3
    ends = [([given], shape), ([shape, zero, one, one], count), ([count, two, two], wanted), ([given, wanted], answer)]
    for index, (name, (inputs, output)) in enumerate(zip(_OPERATORS, ends, strict=True)):
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = index, inputs, [output]
        kind = "".join(word.capitalize() for word in name.split("_")) + "Options"
        node.builtinOptionsType, node.builtinOptions = getattr(schema.BuiltinOptions, kind), options[index]
        graph.operators.append(node)
    graph.inputs, graph.outputs = [given], [answer]
    tflite_source._write(model, str(path))


def _answer(path: Path, given: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, given.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, given)
    interpreter.invoke()
    found: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return found


@pytest.mark.parametrize(("batch", "operators"), [(1, ["RESHAPE"]), (2, list(_OPERATORS))])
def test_shapes_are_closed_where_the_card_asks_for_those_that_the_file_records(
    tmp_path: Path, batch: int, operators: list[str]
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    source, target = tmp_path / "open.tflite", tmp_path / "closed.tflite"
    _write_model(source)
    tflite_source.prepare(str(source), str(target), shapes=[[batch, 4]])
    model = tflite_source._read(str(target))
    (graph,) = model.subgraphs
    codes = {getattr(schema.BuiltinOperator, name): name for name in _OPERATORS}
    assert [codes[model.operatorCodes[node.opcodeIndex].builtinCode] for node in graph.operators] == operators
    is_open = [tensor.name for tensor in graph.tensors if tensor.shapeSignature is not None]
    assert is_open == ([] if batch == 1 else [b"answer"])
    given = np.arange(4 * batch, dtype=np.float32).reshape(batch, 4)
    assert _answer(target, given).tolist() == given.reshape(batch, 2, 2).tolist()
