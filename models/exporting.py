"""What the recipes in this folder share: writing a torch network as one clean ONNX file and one clean TFLite file.

A recipe is run with this folder on the path: ``PYTHONPATH=models python models/NAME/RECIPE.py ...``.

Needs torch, onnx, onnxscript, litert-torch and ai-edge-litert; none of them is needed to use the files.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

OPSET = 18


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: for an even side and stride 2 the extra row is at the end.

    TFLite has no other padding inside a convolution, so this is what spares every runtime a separate PAD.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pad and convolve."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(input, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        total = max(kernel - stride, 0)  # the side is a multiple of the stride
        if total:
            low, high = total // 2, total - total // 2
            input = F.pad(input, (low, high, low, high))
        return F.conv2d(input, self.weight, self.bias, stride, 0, 1, self.groups)


class ConvBN(nn.Module):
    """A :class:`SameConv` and its batch normalisation, which :meth:`fold` merges into one convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.conv = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise."""
        y: Tensor = self.norm(self.conv(x))
        return y

    def fold(self) -> None:
        """Merge the two."""
        self.conv = nn.utils.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


def fold_norms(network: nn.Module) -> None:
    """Merge every batch normalisation of ``network`` (in evaluation mode) into its convolution."""
    for module in network.modules():
        if isinstance(module, ConvBN):
            module.fold()


def write_onnx(
    network: nn.Module,
    shape: tuple[int, ...] | tuple[Tensor, ...],
    path: Path,
    name: str,
    inputs: tuple[str, ...] = ("image",),
    output: str = "logits",
) -> None:
    """Write ``network`` as ONNX: one file, ``inputs`` to ``output``, without the exporter's notes.

    ``shape`` is that of the one float input, or the example inputs themselves. The notes are stack traces: they hold
    paths of the machine that ran it and double the size of a small model.
    """
    program = torch.onnx.export(
        network,
        _examples(shape),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=[output],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    _pads_into_convolutions(graph)
    model.producer_name, model.producer_version, model.doc_string = "socbench", "", ""
    graph.name, graph.doc_string = name, ""
    del model.metadata_props[:], model.functions[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    print(f"{path.name}: {path.stat().st_size} bytes, {dict(Counter(node.op_type for node in graph.node))}")


def _examples(shape: tuple[int, ...] | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return example inputs: those given, or zeros of the shape given."""
    if all(isinstance(item, Tensor) for item in shape):
        return tuple(item for item in shape if isinstance(item, Tensor))
    return (torch.zeros([int(item) for item in shape]),)


def _pads_into_convolutions(graph: onnx.GraphProto) -> None:
    """Move each Pad by zeros into the ``pads`` of the convolution that alone reads it, and drop what is then unused."""
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    readers = Counter(name for node in graph.node for name in node.input)
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or readers[pad.output[0]] != 1:
            continue
        if len(pad.input) > 2 and pad.input[2] and float(constants[pad.input[2]]) != 0:
            continue
        before, after = np.split(constants[pad.input[1]], 2)
        if before[:2].any() or after[:2].any():
            continue
        own = next((item for item in node.attribute if item.name == "pads"), None)
        added = [int(v) for v in (*before[2:], *after[2:])]
        total = [a + b for a, b in zip(added, own.ints if own else (0, 0, 0, 0), strict=True)]
        kept = [item for item in node.attribute if item.name not in ("pads", "auto_pad")]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("pads", total)])
        node.input[0] = pad.input[0]
        graph.node.remove(pad)
    used = {name for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def write_tflite(
    network: nn.Module,
    shape: tuple[int, ...] | tuple[Tensor, ...],
    path: Path,
    inputs: tuple[str, ...] = ("image",),
    output: str = "logits",
    picture_out: bool = False,
) -> None:
    """Write ``network`` as TFLite with the channels last; ``shape`` is (1, height, width, channels), or the inputs.

    The signature is ``serving_default``: ``inputs`` to ``output``. ``picture_out``: the output has channels, too.
    """
    import litert_torch

    if len(shape) == 4 and not isinstance(shape[0], Tensor):
        ends = {"outputs": [0]} if picture_out else {}
        network = litert_torch.to_channel_last_io(network, args=[0], **ends).eval()
    litert_torch.convert(network, _examples(shape)).export(str(path))
    _tidy_tflite(path, inputs, output)


def _tidy_tflite(path: Path, inputs: tuple[str, ...], output: str) -> None:
    """Name the signature's ends, turn PAD + VALID into SAME where they are equal, drop what is unused and notes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (graph,) = model.subgraphs
    (signature,) = model.signatureDefs
    signature.signatureKey = b"serving_default"
    for ends, indices, words in (
        (signature.inputs, graph.inputs, inputs),
        (signature.outputs, graph.outputs, (output,)),
    ):
        for index, word in zip(indices, words, strict=True):
            end = next(item for item in ends if item.tensorIndex == index)
            end.name = graph.tensors[index].name = word.encode()

    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kind = schema.BuiltinOperator
    for op in graph.operators:
        op.inputs, op.outputs = list(map(int, op.inputs)), list(map(int, op.outputs))
    makers = {int(op.outputs[0]): op for op in graph.operators}

    def made_by(tensor: int, *kinds: int) -> Any:
        op = makers.get(tensor)
        return op if op is not None and codes[op.opcodeIndex] in kinds else None

    def constant(tensor: int) -> np.ndarray:
        return np.frombuffer(bytes(model.buffers[graph.tensors[tensor].buffer].data), np.int32)

    def before_transposes(tensor: int, axes: list[int]) -> tuple[int, list[int]]:
        """Return what ``tensor``, whose axes are taken in the order ``axes``, is a transposition of."""
        while (op := made_by(tensor, kind.TRANSPOSE)) is not None:
            order = constant(op.inputs[1])
            tensor, axes = int(op.inputs[0]), [int(order[axis]) for axis in axes]
        return tensor, axes

    for op in graph.operators:
        if codes[op.opcodeIndex] not in (kind.CONV_2D, kind.DEPTHWISE_CONV_2D):
            continue
        origin, axes = before_transposes(int(op.inputs[0]), [0, 1, 2, 3])
        if axes == [0, 1, 2, 3]:
            op.inputs[0] = origin
        pad = made_by(origin, kind.PAD, kind.PADV2)
        if pad is None or op.builtinOptions.padding != schema.Padding.VALID:
            continue
        amounts = constant(pad.inputs[1]).reshape(4, 2)[axes].tolist()
        origin, axes = before_transposes(int(pad.inputs[0]), axes)
        side, kernel = graph.tensors[origin].shape[1], graph.tensors[op.inputs[1]].shape[1]
        stride = op.builtinOptions.strideH
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        same = [[0, 0], [total // 2, total - total // 2], [total // 2, total - total // 2], [0, 0]]
        if axes == [0, 1, 2, 3] and amounts == same:
            op.builtinOptions.padding = schema.Padding.SAME
            op.inputs[0] = origin
    needed_tensors = {int(i) for i in graph.outputs}
    for op in reversed(list(graph.operators)):
        if needed_tensors.isdisjoint(int(i) for i in op.outputs):
            graph.operators.remove(op)
        else:
            needed_tensors.update(int(i) for i in op.inputs)

    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    used |= {int(i) for i in (*graph.inputs, *graph.outputs)}
    place = {old: new for new, old in enumerate(sorted(used))}
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    for op in graph.operators:
        op.inputs, op.outputs = ([place.get(int(i), -1) for i in ends] for ends in (op.inputs, op.outputs))
    graph.inputs, graph.outputs = ([place[int(i)] for i in ends] for ends in (graph.inputs, graph.outputs))
    for end in (*signature.inputs, *signature.outputs):
        end.tensorIndex = place[int(end.tensorIndex)]
    for number, tensor in enumerate(graph.tensors):  # the converter's names are long lists of source positions
        if tensor.name not in {word.encode() for word in (*inputs, output)}:
            tensor.name = f"t{number}".encode()
    needed = sorted({0, *(tensor.buffer for tensor in graph.tensors)})
    model.buffers = [model.buffers[old] for old in needed]
    for tensor in graph.tensors:
        tensor.buffer = needed.index(tensor.buffer)
    opcodes = sorted({op.opcodeIndex for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[old] for old in opcodes]
    for op in graph.operators:
        op.opcodeIndex = opcodes.index(op.opcodeIndex)
    model.metadata, model.metadataBuffer, model.description = [], None, b"socbench"
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    names = {value: key for key, value in vars(kind).items() if not key.startswith("_")}
    counts = Counter(names[codes[opcodes[op.opcodeIndex]]] for op in graph.operators)
    print(f"{path.name}: {path.stat().st_size} bytes, {dict(counts)}")
