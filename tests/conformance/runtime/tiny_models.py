"""Chains of fully connected layers as ONNX and TFLite files, written directly in a few milliseconds.

Weights are small integers over a power of two, so that float32 results can be computed exactly beside any runtime.
Also loaded by benchmarks/agent_loop.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = Any


def weights(size: int, layer: int) -> Array:
    """Return the (size, size) weights of a layer: y = x @ w."""
    rng = np.random.default_rng(1000 * size + layer)
    return (rng.integers(-4, 5, (size, size)) / (4.0 * max(1, size // 8))).astype(np.float32)


def chain(x: Array, size: int, layers: int) -> Array:
    """Return the chain's output for ``x`` of shape (n, size), computed in float64."""
    for layer in range(layers):
        x = x @ weights(size, layer).astype(np.float64)
    return x


def write_onnx(
    path: Path, size: int = 4, layers: int = 2, dtype: str = "float32", batch: int | str = 1, op: str = "MatMul"
) -> Path:
    """Write an ONNX chain. float16: float32 at both ends with casts; ``op`` replaces the first layer's operator."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers, at = [], [], "x"
    if dtype == "float16":
        nodes.append(helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16))
        at = "x16"
    for layer in range(layers):
        initializers.append(numpy_helper.from_array(weights(size, layer).astype(dtype), f"w{layer}"))
        last = layer == layers - 1 and dtype != "float16"
        target = "y" if last else f"h{layer}"
        nodes.append(helper.make_node(op if layer == 0 else "MatMul", [at, f"w{layer}"], [target], name=f"fc{layer}"))
        at = target
    if dtype == "float16":
        nodes.append(helper.make_node("Cast", [at], ["y"], to=TensorProto.FLOAT))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, size])
    graph = helper.make_graph(nodes, "chain", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def write_onnx_int8(path: Path, size: int = 4, layers: int = 2) -> Path:
    """Write a chain of quantised layers (QDQ, uint8 activations, int8 weights)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers, at = [], [], "x"

    def constant(name: str, value: Array) -> str:
        initializers.append(numpy_helper.from_array(value, name))
        return name

    for layer in range(layers):
        scale = constant(f"s{layer}", np.float32(0.05))
        zero = constant(f"z{layer}", np.uint8(128))
        w = weights(size, layer)
        step = np.float32(np.abs(w).max() / 63)
        q = constant(f"wq{layer}", np.rint(w / step).astype(np.int8))
        ws, wz = constant(f"ws{layer}", step), constant(f"wz{layer}", np.int8(0))
        nodes += [
            helper.make_node("QuantizeLinear", [at, scale, zero], [f"q{layer}"]),
            helper.make_node("DequantizeLinear", [f"q{layer}", scale, zero], [f"d{layer}"]),
            helper.make_node("DequantizeLinear", [q, ws, wz], [f"dw{layer}"]),
            helper.make_node("MatMul", [f"d{layer}", f"dw{layer}"], [f"h{layer}"], name=f"fc{layer}"),
        ]
        at = f"h{layer}"
    nodes += [
        helper.make_node("QuantizeLinear", [at, "s0", "z0"], ["qo"]),
        helper.make_node("DequantizeLinear", ["qo", "s0", "z0"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])
    graph = helper.make_graph(nodes, "chain", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


class _Tflite:
    """Builds one TFLite subgraph."""

    def __init__(self) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.s = schema
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = b"main", [], []

    def tensor(
        self, name: str, shape: list[int], value: Array = None, dtype: str = "float32", quant: Any = None
    ) -> int:
        types = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
        tensor = self.s.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), types[dtype], 0
        tensor.shape = np.array([max(1, size) for size in shape], np.int32)
        if any(size < 0 for size in shape):
            tensor.shapeSignature = np.array(shape, np.int32)
        if quant is not None:
            tensor.quantization = self.s.QuantizationParametersT()
            tensor.quantization.scale = np.array([quant[0]], np.float32)
            tensor.quantization.zeroPoint = np.array([quant[1]], np.int64)
        if value is not None:
            buffer = self.s.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(
        self, code: int, inputs: list[int], outputs: list[int], options: Any = None, kind: int = 0, custom: str = ""
    ) -> None:
        entry = self.s.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        if custom:
            entry.customCode = custom.encode()
        self.model.operatorCodes.append(entry)
        operator = self.s.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        self.graph.operators.append(operator)

    def connected(self, inputs: list[int], output: int) -> None:
        code, kind = self.s.BuiltinOperator.FULLY_CONNECTED, self.s.BuiltinOptions.FullyConnectedOptions
        self.op(code, inputs, [output], self.s.FullyConnectedOptionsT(), kind)

    def save(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self.model.subgraphs = [self.graph]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def write_tflite(
    path: Path, size: int = 4, layers: int = 2, dtype: str = "float32", batch: int = 1, tail: str = ""
) -> Path:
    """Write a TFLite chain. float16: weights dequantised by the file; ``tail`` adds CUMSUM or a custom operator."""
    net = _Tflite()
    at = first = net.tensor("x", [batch, size])
    for layer in range(layers):
        w = weights(size, layer).T
        if dtype == "float16":
            half = net.tensor(f"w{layer}h", [size, size], w.astype(np.float16), "float16")
            held = net.tensor(f"w{layer}", [size, size])
            net.op(
                net.s.BuiltinOperator.DEQUANTIZE,
                [half],
                [held],
                net.s.DequantizeOptionsT(),
                net.s.BuiltinOptions.DequantizeOptions,
            )
        else:
            held = net.tensor(f"w{layer}", [size, size], w)
        bias = net.tensor(f"b{layer}", [size], np.zeros(size, np.float32))
        y = net.tensor("y" if layer == layers - 1 and not tail else f"h{layer}", [batch, size])
        net.connected([at, held, bias], y)
        at = y
    if tail == "CUMSUM":
        axis = net.tensor("axis", [], np.array(1, np.int32), "int32")
        y = net.tensor("y", [batch, size])
        net.op(
            net.s.BuiltinOperator.CUMSUM, [at, axis], [y], net.s.CumsumOptionsT(), net.s.BuiltinOptions.CumsumOptions
        )
        at = y
    elif tail:
        y = net.tensor("y", [batch, size])
        net.op(net.s.BuiltinOperator.CUSTOM, [at], [y], custom=tail)
        at = y
    return net.save(path, [first], [at])


INT8_INPUT = (0.05, -3)
INT8_OUTPUT = (0.1, 4)


def write_tflite_int8(path: Path, size: int = 4) -> Path:
    """Write one fully integer layer; scales are INT8_INPUT and INT8_OUTPUT."""
    net = _Tflite()
    w = weights(size, 0).T
    step = float(np.abs(w).max() / 127)
    x = net.tensor("x", [1, size], dtype="int8", quant=INT8_INPUT)
    held = net.tensor("w", [size, size], np.rint(w / step).astype(np.int8), "int8", (step, 0))
    bias = net.tensor("b", [size], np.zeros(size, np.int32), "int32", (step * INT8_INPUT[0], 0))
    y = net.tensor("y", [1, size], dtype="int8", quant=INT8_OUTPUT)
    net.connected([x, held, bias], y)
    return net.save(path, [x], [y])
