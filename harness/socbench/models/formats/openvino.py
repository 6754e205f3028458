"""Reads OpenVINO IR: the .xml (the .bin beside it holds the weights), without OpenVINO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from socbench.errors import ModelError
from socbench.models.formats import precision_of
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

XML_LIMIT_BYTES = 64 * 1024 * 1024
_TYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64", "i8": "int8", "u8": "uint8",
    "i4": "int4", "u4": "uint4", "i16": "int16", "i32": "int32", "i64": "int64", "boolean": "bool", "u1": "bool",
}  # fmt: skip
_NARROW = ("int8", "uint8", "int4", "uint4")
_WEIGHTS = ("float32", "float16", "bfloat16", *_NARROW)


def read(path: Path) -> FileFacts:
    """Return the facts of an OpenVINO IR. Raises ModelError."""
    weights = path.with_suffix(".bin")
    if path.stat().st_size > XML_LIMIT_BYTES:
        raise ModelError(f"{path} has over {XML_LIMIT_BYTES} bytes; the .xml of a network is much smaller")
    try:
        root = _parse(path)
    except ElementTree.ParseError as problem:
        raise ModelError(f"{path} is no OpenVINO IR, or one that is cut off ({problem})") from problem
    if root.tag != "net" or root.find("layers") is None:
        raise ModelError(f"{path} is XML, but no OpenVINO IR: it has no <net> with <layers>")
    if not weights.is_file():
        raise ModelError(f"{path} needs its weights {weights.name} beside it, and they are not there")
    try:
        return _facts(root, weights)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as problem:
        raise ModelError(f"{path} is an OpenVINO IR that is damaged ({problem})") from problem


def _parse(path: Path) -> ElementTree.Element:
    """Parse the file; a document type is refused, so no entity is ever expanded."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def end(tag: str) -> None:
        builder.end(tag)

    def characters(text: str) -> None:
        builder.data(text)

    def refuse(*_: Any) -> None:
        raise ModelError(f"{path} is no OpenVINO IR: it declares a document type")

    parser.StartElementHandler = builder.start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as stream:
            parser.ParseFile(stream)
        return builder.close()
    except expat.ExpatError as problem:
        raise ElementTree.ParseError(str(problem)) from problem
    except AssertionError as problem:
        raise ElementTree.ParseError("no element found") from problem


def _facts(root: ElementTree.Element, weights: Path) -> FileFacts:
    layers = {layer.attrib["id"]: layer for layer in root.iterfind("layers/layer")}
    sources = {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): edge.attrib["from-layer"]
        for edge in root.iterfind("edges/edge")
    }
    constants = {number: layer for number, layer in layers.items() if layer.attrib["type"] == "Const"}
    size = weights.stat().st_size
    for layer in constants.values():
        data = layer.find("data")
        if data is not None and int(data.attrib["offset"]) + int(data.attrib["size"]) > size:
            raise ValueError(f"{weights.name} is cut off: it has {size} bytes, and the network reads beyond them")
    helpers, scales = _helpers(layers, sources)
    elements = Counter({"float32": 0})
    for number, layer in constants.items():
        kind, shape = _port(layer)
        if number not in helpers and kind in (*_WEIGHTS, "int32"):
            elements[kind] += prod(size or 0 for size in shape)
    types = Counter(layer.attrib["type"] for layer in layers.values())
    counts = [_multiply_adds(layer) for layer in layers.values()]
    results = [number for number, layer in layers.items() if layer.attrib["type"] == "Result"]
    return FileFacts(
        format="openvino",
        precision=precision_of(
            {kind: count for kind, count in elements.items() if kind != "int32"},
            quantised=bool(types["FakeQuantize"]),
            dynamic=False,
        ),
        inputs=tuple(_spec(layer) for layer in layers.values() if layer.attrib["type"] == "Parameter"),
        outputs=tuple(
            _spec(layers[sources[number, "0"]], layers[number].attrib.get("name", "").split("/sink_port_")[0])
            for number in results
        ),
        parameters=sum(elements.values()),
        ops=Counter({name: count for name, count in types.items() if name not in ("Const", "Parameter", "Result")}),
        quant_scheme=("per_channel" if max(scales) > 1 else "per_tensor") if scales else None,
        multiply_adds=None if None in counts else sum(count or 0 for count in counts),
        companions=(str(weights),),
    )


def _helpers(layers: dict[str, ElementTree.Element], sources: dict[tuple[str, str], str]) -> tuple[set[str], list[int]]:
    """Return the constants that are no weights (ranges and scales of quantisation), and the lengths of weights' scales.

    Stored weights are Const -> Convert -> [Subtract ->] Multiply; the other ends of the last two are what is wanted.
    """
    helpers: set[str] = set()
    scales: list[int] = []
    for (number, port), source in sources.items():
        if layers[source].attrib["type"] == "Convert":
            source = sources.get((source, "0"), source)
        if layers[source].attrib["type"] != "Const":
            continue
        kind = layers[number].attrib["type"]
        if kind == "FakeQuantize" and port != "0":
            helpers.add(source)
        elif kind in ("Multiply", "Subtract") and port == "1":
            first = sources.get((number, "0"), "")
            while first and layers[first].attrib["type"] in ("Convert", "Subtract"):
                first = sources.get((first, "0"), "")
            if first and layers[first].attrib["type"] == "Const" and _port(layers[first])[0] in (*_NARROW, "int32"):
                helpers.add(source)
                if kind == "Multiply" and _port(layers[first])[0] in _NARROW:
                    scales.append(prod(size or 0 for size in _port(layers[source])[1]))
    return helpers, scales


def _port(layer: ElementTree.Element, side: str = "output", index: int = 0) -> tuple[str, tuple[int | None, ...]]:
    """Return type and shape at one port of a layer; an open dimension is ``None``."""
    port = layer.findall(f"{side}/port")[index]
    sizes = tuple(int(size.text or "-1") for size in port.iterfind("dim"))
    shape = tuple(None if size < 0 else size for size in sizes)
    return _TYPES.get(port.attrib["precision"].lower().replace("fp", "f"), "unknown"), shape


def _spec(layer: ElementTree.Element, own: str | None = None) -> TensorSpec:
    kind, shape = _port(layer)
    names = layer.findall("output/port")[0].attrib.get("names", "").split(",")
    return TensorSpec(own_name(own or layer.attrib.get("name", ""), names), kind, shape)


def own_name(own: str, names: Iterable[str]) -> str:
    """Return the file's own name of a tensor: passes of OpenVINO leave further names on it, in no order."""
    given = sorted(name for name in names if name)
    return own if own in given or not given else given[0]


def _multiply_adds(layer: ElementTree.Element) -> int | None:
    """Multiply-adds of one layer at a batch of 1: elements of the output times the length of the sum behind each."""
    kind = layer.attrib["type"]
    if kind not in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"):
        return 0
    made, left, right = (_port(layer, "output")[1], _port(layer, "input", 0)[1], _port(layer, "input", 1)[1])
    sizes = [
        [1 if index == 0 and size is None else size for index, size in enumerate(item)] for item in (made, left, right)
    ]
    if any(size is None for item in sizes for size in item):
        return None
    out, first, second = ([size or 0 for size in item] for item in sizes)
    if kind == "Convolution":
        return prod(out) * prod(second[1:])
    if kind == "GroupConvolution":
        return prod(out) * prod(second[2:])
    if kind == "ConvolutionBackpropData":
        return prod(first) * prod(second[1:])
    data = layer.find("data")
    transposed = data is not None and data.attrib.get("transpose_a") == "true"
    return prod(out) * first[-2 if transposed else -1]
