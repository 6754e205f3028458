"""Reads .mnn files (flatbuffers, MNN's schema ``Net``) without MNN: inputs, outputs, operations, stored precision."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from socbench.errors import ModelError
from socbench.models.formats import precision_of
from socbench.models.inspect import FileFacts
from socbench.records import TensorSpec

_BROKEN = (struct.error, IndexError, ValueError, UnicodeDecodeError)
# Members of the tables in the order of MNN's schema (schema/default/MNN.fbs, CaffeOp.fbs).
_NET_OPS, _NET_OUTPUTS, _NET_TENSORS = 3, 4, 7
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_OUTPUTS, _OP_TYPE = 0, 1, 2, 4, 5
_INPUT_DIMS, _INPUT_DTYPE, _INPUT_FORMAT = 0, 1, 2
_CONV_WEIGHT, _CONV_BIAS, _CONV_QUANTISED = 1, 2, 3
_QUANTISED_BUFFER, _QUANTISED_TYPE = 0, 2
_MAIN_INPUT, _MAIN_CONVOLUTION = 21, 9
_HALF = 3
_DTYPES = {0: "float32", 1: "float32", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 19: "float16"}
_LAYOUTS = {0: "NCHW", 1: "NHWC", 2: "NCHW"}


class _Table:
    """One table of a flatbuffer; members that are not there are None. Reads beyond the file raise struct.error."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]
        self.size = struct.unpack_from("<H", data, self.fields)[0]

    def _place(self, member: int) -> int | None:
        offset = 4 + 2 * member
        if offset >= self.size:
            return None
        found: int = struct.unpack_from("<H", self.data, self.fields + offset)[0]
        return self.at + found if found else None

    def integer(self, member: int, form: str = "<i", default: int = 0) -> int:
        place = self._place(member)
        return default if place is None else int(struct.unpack_from(form, self.data, place)[0])

    def table(self, member: int) -> _Table | None:
        place = self._place(member)
        return None if place is None else _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def vector(self, member: int, width: int) -> tuple[int, int]:
        """Return where a vector's elements begin and how many there are."""
        place = self._place(member)
        if place is None:
            return 0, 0
        start = place + struct.unpack_from("<I", self.data, place)[0]
        count = int(struct.unpack_from("<I", self.data, start)[0])
        if count * width > len(self.data) - start:
            raise ValueError("a list is longer than the file")
        return start + 4, count

    def integers(self, member: int) -> tuple[int, ...]:
        start, count = self.vector(member, 4)
        return struct.unpack_from(f"<{count}i", self.data, start) if count else ()

    def tables(self, member: int) -> Iterator[_Table]:
        start, count = self.vector(member, 4)
        for place in range(start, start + 4 * count, 4):
            yield _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def texts(self, member: int) -> list[str]:
        start, count = self.vector(member, 4)
        return [self._text(place) for place in range(start, start + 4 * count, 4)]

    def _text(self, place: int) -> str:
        at = place + struct.unpack_from("<I", self.data, place)[0]
        length = struct.unpack_from("<I", self.data, at)[0]
        if length > len(self.data) - at:
            raise ValueError("a name is longer than the file")
        return self.data[at + 4 : at + 4 + length].decode("utf-8")


def read(path: Path) -> FileFacts:
    """Return the facts of an MNN model. Raises ModelError."""
    data = path.read_bytes()
    try:
        return _facts(_Table(data, struct.unpack_from("<I", data, 0)[0]))
    except _BROKEN as problem:
        raise ModelError(f"{path} is no MNN model, or one that is cut off ({problem})") from problem


def _facts(net: _Table) -> FileFacts:
    names = net.texts(_NET_TENSORS)
    outputs = net.texts(_NET_OUTPUTS)
    inputs: list[TensorSpec] = []
    elements: Counter[str] = Counter({"float32": 0})
    kinds: Counter[str] = Counter()
    for operation in net.tables(_NET_OPS):
        main, kind = operation.table(_OP_MAIN), operation.integer(_OP_KIND, "<B")
        if main is not None and kind == _MAIN_INPUT:
            inputs.append(_input(main, names[operation.integers(_OP_OUTPUTS)[0]]))
            continue
        kinds[str(operation.integer(_OP_TYPE))] += 1
        if main is not None and kind == _MAIN_CONVOLUTION:
            elements += _weights(main)
    if not inputs or not outputs:
        raise ValueError("it has no inputs or no outputs")
    weights = {dtype: count for dtype, count in elements.items() if dtype != "bias"}
    return FileFacts(
        format="mnn",
        precision=precision_of(weights, quantised=False, dynamic=False),
        inputs=tuple(inputs),
        outputs=tuple(TensorSpec(name, "float32", ()) for name in outputs),
        parameters=sum(elements.values()),
        ops=kinds,
    )


def _input(main: _Table, name: str) -> TensorSpec:
    shape = tuple(size if size > 0 else None for size in main.integers(_INPUT_DIMS))
    layout = _LAYOUTS.get(main.integer(_INPUT_FORMAT, "<b", 2)) if len(shape) == 4 else None
    return TensorSpec(name, _DTYPES.get(main.integer(_INPUT_DTYPE, default=1), "float32"), shape, layout)


def _weights(convolution: _Table) -> Counter[str]:
    found: Counter[str] = Counter()
    found["float32"] += convolution.vector(_CONV_WEIGHT, 4)[1]
    found["bias"] += convolution.vector(_CONV_BIAS, 4)[1]
    quantised = convolution.table(_CONV_QUANTISED)
    if quantised is not None:
        size = quantised.vector(_QUANTISED_BUFFER, 1)[1]
        half = quantised.integer(_QUANTISED_TYPE) == _HALF
        found["float16" if half else "int8"] += size // 2 if half else size
    return found
