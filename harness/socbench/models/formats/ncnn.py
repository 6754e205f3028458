"""Reads ncnn models: the .param (text) with its .bin beside it, without ncnn.

A .param names no shapes of its own; socbench's converter writes those of the inputs into their ``Input`` layers.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from socbench.errors import ModelError
from socbench.models.formats import precision_of
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

MAGIC = "7767517"
PARAM_LIMIT_BYTES = 16 * 1024 * 1024
_TAGS = {0: ("float32", 4), 0x01306B47: ("float16", 2), 0x000D4B38: ("int8", 1)}
_SIZE_AT = {
    "Convolution": 6, "ConvolutionDepthWise": 6, "Deconvolution": 6, "DeconvolutionDepthWise": 6, "InnerProduct": 2,
}  # fmt: skip
_BIAS_AT = {"InnerProduct": 1}
_WEIGHTLESS = frozenset(
    [
        "Input",
        "Split",
        "Pooling",
        "ReLU",
        "Clip",
        "BinaryOp",
        "UnaryOp",
        "Concat",
        "Reshape",
        "Flatten",
        "Softmax",
        "Sigmoid",
        "Swish",
        "HardSwish",
        "HardSigmoid",
        "Interp",
        "Permute",
        "Slice",
        "Crop",
        "Padding",
        "Dropout",
        "Squeeze",
        "ExpandDims",
        "Eltwise",
        "Reduction",
        "Noop",
        "GELU",
        "PixelShuffle",
        "Mish",
        "TanH",
    ]
)


@dataclass(frozen=True)
class _Layer:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, str]

    def number(self, key: int, default: int = 0) -> int:
        return int(float(self.params.get(key, default)))


def read(path: Path) -> FileFacts:
    """Return the facts of an ncnn model. Raises ModelError."""
    weights = path.with_suffix(".bin")
    if path.stat().st_size > PARAM_LIMIT_BYTES:
        raise ModelError(f"{path} has over {PARAM_LIMIT_BYTES} bytes; the .param of a network is much smaller")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as problem:
        raise ModelError(f"{path} is no ncnn model: it is no text") from problem
    if not lines or lines[0].strip() != MAGIC:
        raise ModelError(f"{path} is no ncnn model: its first line is not {MAGIC}")
    if not weights.is_file():
        raise ModelError(f"{path} needs its weights {weights.name} beside it, and they are not there")
    try:
        return _facts(lines, weights)
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as problem:
        raise ModelError(f"{path} is an ncnn model that is cut off or damaged ({problem})") from problem


def _facts(lines: list[str], weights: Path) -> FileFacts:
    count = int(lines[1].split()[0])
    layers = [_layer(line) for line in lines[2:] if line.strip()]
    if len(layers) != count:
        raise ValueError(f"it has {len(layers)} layers and says {count}")
    taken = {name for layer in layers for name in layer.inputs}
    made = [name for layer in layers for name in layer.outputs if name not in taken]
    inputs = [layer for layer in layers if layer.kind == "Input"]
    if not inputs or not made:
        raise ValueError("it has no inputs or no outputs")
    elements = _elements(layers, weights)
    stored = Counter({kind: number for kind, number in elements.items() if kind != "bias"}) or Counter(float32=0)
    return FileFacts(
        format="ncnn",
        precision=precision_of(stored, quantised="int8" in stored, dynamic=False),
        inputs=tuple(_input(layer) for layer in inputs),
        outputs=tuple(TensorSpec(name, "float32", ()) for name in made),
        parameters=sum(elements.values()),
        ops=Counter(layer.kind for layer in layers if layer.kind != "Input"),
        companions=(str(weights),),
    )


def _layer(line: str) -> _Layer:
    words = line.split()
    ins, outs = int(words[2]), int(words[3])
    if min(ins, outs) < 0 or len(words) < 4 + ins + outs:
        raise ValueError("a layer is cut off")
    pairs = (word.partition("=") for word in words[4 + ins + outs :])
    params = {int(key): value for key, equals, value in pairs if equals}
    return _Layer(words[0], tuple(words[4 : 4 + ins]), tuple(words[4 + ins : 4 + ins + outs]), params)


def _input(layer: _Layer) -> TensorSpec:
    """Return an input as socbench feeds it: with the batch of one that ncnn leaves away, in NumPy's order."""
    sizes = [layer.number(key) for key in (2, 11, 1, 0)]  # channels, depth, height, width
    shape = tuple(size for size in sizes if size > 0)
    layout = "NCHW" if len(shape) == 3 else None
    return TensorSpec(layer.outputs[0], "float32", (1, *shape), layout)


def _elements(layers: list[_Layer], weights: Path) -> Counter[str]:
    """Return the weights by stored type, up to the first layer whose storage is not known here."""
    found: Counter[str] = Counter()
    size, at = weights.stat().st_size, 0
    with weights.open("rb") as stream:
        for kind, count, biases in _stored(layers):
            if kind == "MemoryData":  # constants lie there as they are, float32 without a tag
                at += 4 * biases
                found["bias"] += biases
                continue
            stream.seek(at)
            tag = struct.unpack("<I", stream.read(4))[0]
            if tag not in _TAGS:
                raise ValueError(f"the weights of a {kind} are stored in a way that is not known")
            dtype, width = _TAGS[tag]
            at += 4 + (count * width + 3) // 4 * 4 + 4 * biases
            if at > size:
                raise ValueError(f"{weights.name} is cut off: it has {size} bytes")
            found[dtype] += count
            found["bias"] += biases
    return found


def _stored(layers: list[_Layer]) -> Iterator[tuple[str, int, int]]:
    for layer in layers:
        if layer.kind in _SIZE_AT:
            biases = layer.number(0) if layer.number(_BIAS_AT.get(layer.kind, 5)) else 0
            count = layer.number(_SIZE_AT[layer.kind])
            if count < 0 or biases < 0:
                raise ValueError("a layer has a negative number of weights")
            yield layer.kind, count, biases
        elif layer.kind == "MemoryData" and layer.number(21, 1) == 1:
            yield layer.kind, 0, prod(layer.number(key) or 1 for key in (0, 1, 2, 11))
        elif layer.kind not in _WEIGHTLESS:
            return
