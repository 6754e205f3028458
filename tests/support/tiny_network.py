"""A network of one convolution and one matrix product, made in tests as ONNX and as TFLite, with its card and data."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = 5
SIDE = 16
_rng = np.random.default_rng(20)
KERNEL = (_rng.normal(size=(8, 3, 3, 3)) * 0.2).astype(np.float32)
KERNEL_BIAS = (_rng.normal(size=8) * 0.1).astype(np.float32)
MATRIX = (_rng.normal(size=(CLASSES, 8)) * 0.3).astype(np.float32)
MATRIX_BIAS = (_rng.normal(size=CLASSES) * 0.1).astype(np.float32)
PARAMETERS = KERNEL.size + KERNEL_BIAS.size + MATRIX.size + MATRIX_BIAS.size
MULTIPLY_ADDS = 8 * 8 * 8 * 27 + CLASSES * 8


def forward(images: np.ndarray) -> np.ndarray:
    """Compute the network by NumPy: ``(n, 3, 16, 16)`` to ``(n, 5)``."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (0, 1), (0, 1)))
    made = np.zeros((len(images), 8, SIDE // 2, SIDE // 2))
    for row in range(3):
        for column in range(3):
            patch = padded[:, :, row : row + SIDE : 2, column : column + SIDE : 2]
            made += np.einsum("ncyx,kc->nkyx", patch, KERNEL[:, :, row, column])
    pooled = np.maximum(made + KERNEL_BIAS[:, None, None], 0).mean((2, 3))
    return pooled @ MATRIX.T + MATRIX_BIAS


def write_onnx(path: Path, batch: int | str = "batch") -> Path:
    """Write the network as ONNX, NCHW."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {"w": KERNEL, "b": KERNEL_BIAS, "m": MATRIX, "c": MATRIX_BIAS}
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["image", "w", "b"], ["y"], pads=[0, 0, 1, 1], strides=[2, 2], kernel_shape=[3, 3]
            ),
            helper.make_node("Relu", ["y"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "m", "c"], ["logits"], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def write_tflite(path: Path) -> Path:
    """Write the same network as TFLite, NHWC, by LiteRT's own schema."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.buffers, model.operatorCodes = 3, b"tiny", [schema.BufferT()], []
    graph.name, graph.tensors, graph.operators = b"main", [], []

    def tensor(name: str, shape: tuple[int, ...], values: Any = None, kind: int = schema.TensorType.FLOAT32) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(shape, np.int32), kind, 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, ins: list[int], outs: list[int], options: Any, kind: int) -> None:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        model.operatorCodes.append(entry)
        made = schema.OperatorT()
        made.opcodeIndex = len(model.operatorCodes) - 1
        made.inputs, made.outputs = np.array(ins, np.int32), np.array(outs, np.int32)
        made.builtinOptions, made.builtinOptionsType = options, kind
        graph.operators.append(made)

    image = tensor("image", (1, SIDE, SIDE, 3))
    kernel = tensor("w", (8, 3, 3, 3), KERNEL.transpose(0, 2, 3, 1))
    made = tensor("y", (1, SIDE // 2, SIDE // 2, 8))
    convolution = schema.Conv2DOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = schema.Padding.SAME, 2, 2
    convolution.dilationHFactor = convolution.dilationWFactor = 1
    convolution.fusedActivationFunction = schema.ActivationFunctionType.RELU
    code, options = schema.BuiltinOperator, schema.BuiltinOptions
    operator(code.CONV_2D, [image, kernel, tensor("b", (8,), KERNEL_BIAS)], [made], convolution, options.Conv2DOptions)
    axes = tensor("axes", (2,), np.array([1, 2], np.int32), schema.TensorType.INT32)
    pooled = tensor("p", (1, 8))
    operator(code.MEAN, [made, axes], [pooled], schema.ReducerOptionsT(), options.ReducerOptions)
    logits = tensor("logits", (1, CLASSES))
    matrix, bias = tensor("m", MATRIX.shape, MATRIX), tensor("c", (CLASSES,), MATRIX_BIAS)
    operator(
        code.FULLY_CONNECTED,
        [pooled, matrix, bias],
        [logits],
        schema.FullyConnectedOptionsT(),
        options.FullyConnectedOptions,
    )
    graph.inputs, graph.outputs, model.subgraphs = np.array([image]), np.array([logits]), [graph]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    ends = []
    for name, index in ((b"image", image), (b"logits", logits)):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, index
        ends.append(end)
    signature.inputs, signature.outputs, model.signatureDefs = [ends[0]], [ends[1]], [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write uint8 as a gzipped IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def card_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the card of the network whose files lie in ``folder``, as YAML would be loaded."""
    files = {
        form: {"path": f"tiny.{form}", "sha256": hashlib.sha256((folder / f"tiny.{form}").read_bytes()).hexdigest()}
        for form in ("onnx", "tflite")
    }
    card: dict[str, Any] = {
        "model": folder.name,
        "title": "Tiny",
        "task": "image_classification",
        "metric": "top1",
        "licence": {"weights": "Apache-2.0", "redistribute": True},
        "files": files,
        "inputs": [
            {
                "name": "image",
                "layout": "NCHW",
                "shape": ["batch", 3, SIDE, SIDE],
                "preprocess": {"mean": [0.5], "std": [0.25]},
            }
        ],
        "outputs": [{"name": "logits", "shape": ["batch", CLASSES], "meaning": "class_logits"}],
        "data": {
            "evaluation": {"kind": "idx", "images": "pictures.gz", "labels": "labels.gz", "first": 12, "count": 20},
            "calibration": {"kind": "idx", "images": "pictures.gz", "labels": "labels.gz", "count": 12},
        },
        "probe": {"from": "calibration", "count": 4},
        "tolerance": {name: {"cosine": 0.9} for name in ("fp32", "fp16", "int8", "int8_dynamic")},
        "variants": {
            "tflite": ["fp32", "fp16", "int8", "int8_dynamic"],
            "onnx": ["fp32", "fp16", "int8"],
            "openvino": ["fp32", "fp16", "int8"],
        },
    }
    card.update(changes)
    return card


def write_model(folder: Path, **changes: Any) -> str:
    """Write network, data and card into ``folder`` (a folder of the content ``models``) and return the model's name."""
    folder.mkdir(parents=True)
    write_onnx(folder / "tiny.onnx")
    write_tflite(folder / "tiny.tflite")
    rng = np.random.default_rng(3)
    write_idx(folder / "pictures.gz", rng.integers(0, 256, (32, SIDE, SIDE, 3), np.uint8))
    write_idx(folder / "labels.gz", rng.integers(0, CLASSES, 32).astype(np.uint8))
    (folder / "card.yaml").write_text(yaml.safe_dump(card_of(folder, **changes), sort_keys=False))
    return folder.name
