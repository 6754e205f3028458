"""Inputs as a variant's file wants them (layout, dtype, quantisation), and outputs back as the reference has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from socbench.errors import ModelError
from socbench.models.cards import Card, Input
from socbench.models.data import Dataset, calibration, evaluation
from socbench.records import TensorSpec, Variant

_OTHER = {"NCHW": "NHWC", "NHWC": "NCHW"}
_TO = {"NHWC": (0, 2, 3, 1), "NCHW": (0, 3, 1, 2)}
_RESIZABLE = ("tflite", "openvino")
DEFAULT_SEED = 7


@dataclass(frozen=True)
class InputData:
    """``count`` inputs of one tensor one after the other: raw little-endian bytes, C order, each of ``shape``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    data: bytes


def with_layouts(card: Card, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the inputs of a file with their layouts, told by which order of the card's dimensions fits their shape.

    Raises ModelError when neither fits: then the file is not this model.
    """
    made = []
    for index, spec in enumerate(specs):
        declared = _declared(card, spec, index)
        if declared is None or declared.layout not in _OTHER:
            made.append(spec)
            continue
        other = [declared.shape[axis] for axis in _TO[_OTHER[declared.layout]]]
        if _fits(spec.shape, declared.shape):
            made.append(replace(spec, layout=declared.layout))
        elif _fits(spec.shape, other):
            made.append(replace(spec, layout=_OTHER[declared.layout]))
        else:
            raise ModelError(
                f"{card.model}: the input {spec.name} of the file has the shape {list(spec.shape)}, "
                f"which is not the card's {list(declared.shape)} in either layout"
            )
    return tuple(made)


def _declared(card: Card, spec: TensorSpec, index: int) -> Input | None:
    """Return the card's input that a tensor of the file is: the one of its name, else the one in its place."""
    named = next((item for item in card.inputs if item.name == spec.name), None)
    return named or (card.inputs[index] if index < len(card.inputs) else None)


def _fits(shape: Sequence[int | None], declared: Sequence[int | str]) -> bool:
    return len(shape) == len(declared) and all(
        size is None or isinstance(want, str) or size == want for size, want in zip(shape, declared, strict=True)
    )


def resolve_shapes(
    card: Card, variant: Variant, *, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the whole shape of every input of the variant's file, from its own, ``--batch`` and ``--shape``.

    Raises ModelError naming the input and the dimension: left open and not given, or fixed and asked to be another.
    """
    given = dict(shapes or {})
    names = [spec.name for spec in variant.inputs] + [item.name for item in card.inputs]
    for name in given:
        if name not in names:
            raise ModelError(f"{card.model} has no input {name!r}; its inputs are {', '.join(dict.fromkeys(names))}")
    made = {}
    for index, spec in enumerate(variant.inputs):
        declared = _declared(card, spec, index)
        asked = given.get(spec.name, given.get(declared.name) if declared else None)
        if asked is not None and declared is not None and spec.name not in given and _turned(declared, spec):
            asked = tuple(asked[axis] for axis in _TO[spec.layout or "NHWC"])
        made[spec.name] = _whole(card, variant, spec, declared, asked, batch)
    return made


def _turned(declared: Input, spec: TensorSpec) -> bool:
    """Say whether the file has the channels elsewhere than the card."""
    return spec.layout in _OTHER and declared.layout in _OTHER and spec.layout != declared.layout


def _whole(
    card: Card, variant: Variant, spec: TensorSpec, declared: Input | None, asked: tuple[int, ...] | None, batch: int
) -> tuple[int, ...]:
    if asked is not None and len(asked) != len(spec.shape):
        raise ModelError(
            f"the input {spec.name} of {card.model} has {len(spec.shape)} dimensions {_text(spec)}, "
            f"and --shape gives {len(asked)}"
        )
    made: list[int] = []
    for axis, size in enumerate(spec.shape):
        want = asked[axis] if asked is not None else None
        if want is None and axis == 0 and _batched(spec, declared) and (batch != 1 or size is None):
            want = batch
        if want is not None and want < 1:
            raise ModelError(f"the input {spec.name} of {card.model} cannot have a dimension of {want}")
        free = size is None or (variant.format in _RESIZABLE and axis == 0)
        if want is not None and want != size and not free:
            how = "--shape" if asked is not None else "--batch"
            raise ModelError(
                f"the input {spec.name} of {variant.variant} has dimension {axis} fixed at {size} {_text(spec)}; "
                f"{how} asks for {want}"
            )
        if want is None and size is None:
            raise ModelError(
                f"the input {spec.name} of {card.model} leaves dimension {axis} open {_text(spec)}; "
                f"say --shape {spec.name}={','.join(str(item or 'N') for item in spec.shape)} with numbers"
            )
        made.append(want if want is not None else size or 1)
    return tuple(made)


def _text(spec: TensorSpec) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in spec.shape)})"


def _batched(spec: TensorSpec, declared: Input | None) -> bool:
    """Say whether the first dimension counts pictures: the card calls it so, or there is no card to ask."""
    if declared is not None and declared.shape:
        return isinstance(declared.shape[0], str) or spec.shape[0] in (1, None)
    return bool(spec.shape)


def probe_inputs(
    card: Card,
    variant: Variant,
    count: int | None = None,
    *,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = DEFAULT_SEED,
) -> list[InputData]:
    """Return the inputs of the fidelity check for this file (``count`` of them, the card's own number by default).

    Pictures where the card names them and the shapes are its own; a batch holds the following pictures, beginning
    again at the first. Else one seeded input, the same numbers for every variant of the card.
    """
    import numpy as np

    whole = resolve_shapes(card, variant, batch=batch, shapes=shapes)
    number = count or card.probe.count
    data = None if is_seeded(card, shapes) else _probe_data(card)
    if data is not None:
        number = min(number, data.count)
        taken = np.arange(number)
        made = []
        for index, spec in enumerate(variant.inputs):
            array = _array_of(card, data, spec, index)[:number]
            some = array[np.arange(number * whole[spec.name][0]) % number] if batch != 1 else array[taken]
            own = _declared(card, spec, index) or card.inputs[0]
            made.append(_packed(spec, arranged(some, own, spec).reshape(-1, *whole[spec.name])))
        return made
    made = []
    for index, spec in enumerate(variant.inputs):
        declared = _declared(card, spec, index)
        kind = declared.dtype if declared is not None else spec.dtype
        shape = whole[spec.name]
        if declared is not None and _turned(declared, spec):
            shape = tuple(shape[axis] for axis in _TO[declared.layout or "NCHW"])
        array = _seeded(replace(spec, dtype=kind), seed + index, shape)
        made.append(_packed(spec, (arranged(array, declared, spec) if declared is not None else array)[None]))
    return made


def is_seeded(card: Card, shapes: Mapping[str, Any] | None) -> bool:
    """Say whether the inputs of the fidelity check are seeded numbers and no data."""
    return bool(shapes) or card.probe.source == "seeded"


def _probe_data(card: Card) -> Dataset | None:
    return calibration(card) if card.probe.source == "calibration" else evaluation(card)


def _array_of(card: Card, data: Dataset, spec: TensorSpec, index: int) -> Any:
    """Return the array of a data set that fills an input of a file. Raises ModelError when there is none."""
    declared = _declared(card, spec, index)
    place = card.inputs.index(declared) if declared is not None else index
    if place >= len(data.arrays):
        raise ModelError(
            f"{card.model} has {len(card.inputs)} inputs, and its data ({data.name}) fill {len(data.arrays)}"
        )
    return data.arrays[place]


def dataset_inputs(card: Card, variant: Variant, dataset: Dataset) -> list[InputData]:
    """Return a whole data set as this file wants it (batch 1), for scenario ``accuracy``.

    Raises ModelError for a network with more inputs than the data fill.
    """
    made = []
    for index, spec in enumerate(variant.inputs):
        declared = _declared(card, spec, index) or card.inputs[0]
        made.append(_packed(spec, arranged(_array_of(card, dataset, spec, index), declared, spec)[:, None]))
    return made


def arranged(data: Any, declared: Input, spec: TensorSpec) -> Any:
    """Return ``(count, *shape)`` of the card as the file has it: layout, dtype, scale and zero point."""
    import numpy as np

    if _turned(declared, spec):
        data = np.transpose(data, _TO[spec.layout or "NHWC"])
    kind = np.dtype(spec.dtype)
    if kind.kind in "iu" and data.dtype.kind == "f" and spec.scale:
        limits = np.iinfo(kind)
        data = np.clip(np.rint(data / np.float32(spec.scale)) + (spec.zero_point or 0), limits.min, limits.max)
    return np.ascontiguousarray(data).astype(kind, copy=False)


def _packed(spec: TensorSpec, array: Any) -> InputData:
    """Return ``(count, *shape)`` as raw little-endian bytes."""
    kind = array.dtype.newbyteorder("<")
    return InputData(spec.name, spec.dtype, array.shape[1:], len(array), array.astype(kind, copy=False).tobytes())


def seeded_inputs(inputs: Sequence[TensorSpec], seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return ``{name: ndarray}`` of the SplitMix64 inputs of docs/protocol.md, the same bytes as the agents make.

    Raises ModelError for a type that has no seeded values.
    """
    return {spec.name: _seeded(spec, seed + index, shapes[spec.name]) for index, spec in enumerate(inputs)}


def _seeded(spec: TensorSpec, seed: int, shape: tuple[int, ...]) -> Any:
    import numpy as np

    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = np.uint64(seed % 2**64) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values: Any
    if spec.dtype in ("float32", "float16", "float64"):
        values = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    elif spec.dtype in ("int8", "uint8"):
        values = (z & np.uint64(0xFF)).astype(np.uint8).view(spec.dtype)
    elif spec.dtype in ("int32", "int64"):
        values = z % np.uint64(128)
    elif spec.dtype == "bool":
        values = z & np.uint64(1)
    else:
        raise ModelError(f"the input {spec.name} is of type {spec.dtype}, for which there are no seeded values")
    return values.astype(spec.dtype).reshape(shape)


def dequantised(values: Any, spec: TensorSpec | None) -> Any:
    """Return the numbers that a quantised output means, ``scale * (q - zero_point)``; others as they are."""
    import numpy as np

    if values.dtype.kind not in "iu" or spec is None or not spec.scale:
        return values
    return (values.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale)


def to_reference(outputs: Mapping[str, Any], variant: Variant, card: Card) -> dict[str, Any]:
    """Return raw outputs ``{name: (count, *shape)}`` as float32 under the reference's names, order and layout.

    An output is matched to the card's by name, else by its place. Raises ModelError when one is missing or its
    elements are not as many as the card says.
    """
    import numpy as np

    names = list(outputs)
    specs = {spec.name: spec for spec in variant.outputs}
    made = {}
    for index, declared in enumerate(card.outputs):
        name = declared.name if declared.name in outputs else names[index] if index < len(names) else None
        if name is None:
            raise ModelError(f"{variant.variant} of {card.model} gave no output {declared.name}")
        values = dequantised(np.asarray(outputs[name]), specs.get(name))
        if variant.format == "tflite" and declared.layout == "NCHW" and values.ndim == 5:
            values = np.moveaxis(values, -1, 2)
        made[declared.name] = np.ascontiguousarray(values, np.float32)
    return made
