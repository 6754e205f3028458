"""What each ONNX operator is in PyTorch; loaded by ``executorch_export.py``, which stands alone in another environment.

``OPERATORS[name](x, args, attributes)``: ``x`` is the first input, ``args`` the others (``Args``). ValueError for what
has no translation. Semantics: https://onnx.ai/onnx/operators, opsets 11 to 21.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

Attributes = dict[str, Any]
SHAPING = {
    "Clip": (1, 2), "Expand": (1,), "Pad": (1, 2, 3), "ReduceMax": (1,), "ReduceMean": (1,), "ReduceMin": (1,),
    "ReduceSum": (1,), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,),
    "Unsqueeze": (1,),
}  # fmt: skip
"""Inputs that must be constants: sizes, axes, limits. They become part of the program and are no tensors of it."""
_FLOATING, _WHOLE, _BOOLEAN = (1, 10, 11), {2: "uint8", 3: "int8", 6: "int32", 7: "int64"}, 9


class Args:
    """The inputs of a node behind the first: as tensors, or as plain numbers where they are constants."""

    def __init__(self, tensors: list[Callable[[], Any] | None], constants: list[Any]) -> None:
        self._tensors, self._constants = tensors, constants

    def __len__(self) -> int:
        return len(self._tensors)

    def tensor(self, index: int) -> Any:
        """Return the tensor at ``index`` (0 is the node's second input); ``None`` when it was left out."""
        found = self._tensors[index] if index < len(self._tensors) else None
        return None if found is None else found()

    def tensors(self) -> list[Any]:
        """Return all of them as tensors."""
        return [self.tensor(index) for index in range(len(self))]

    def known(self, index: int) -> bool:
        """Say whether the input at ``index`` is a constant of the graph."""
        return index < len(self._constants) and self._constants[index] is not None

    def constant(self, index: int) -> Any:
        """Return the numbers at ``index``; ``None`` when it was left out. ValueError when they are computed."""
        if index >= len(self._tensors) or self._tensors[index] is None:
            return None
        if self._constants[index] is None:
            raise ValueError("sizes, axes or limits that are computed while it runs")
        return self._constants[index]


def _torch() -> Any:
    import torch

    return torch


def _pads(a: Attributes) -> list[int]:
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ValueError(f"padding {a['auto_pad']}")
    return _pairs(a.get("pads", []))


def _pairs(given: list[int]) -> list[int]:
    """Return ONNX's ``[low..., high...]`` as PyTorch's pairs, the last axis first."""
    half = len(given) // 2
    return [pad for axis in reversed(range(half)) for pad in (given[axis], given[axis + half])]


def _convolve(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    weight, bias = args.tensor(0), args.tensor(1)
    rank = weight.ndim - 2
    around = _pads(a)
    low, high = around[0::2], around[1::2]
    ones = [1] * rank
    padding = list(reversed(low)) if low == high and low else [0] * rank
    x = x if low == high else functional.pad(x, around)
    run = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    return run(x, weight, bias, a.get("strides", ones), padding, a.get("dilations", ones), a.get("group", 1))


def _gemm(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    if a.get("transA") or a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
        raise ValueError("Gemm with transA, alpha or beta")
    weight = args.tensor(0)
    return functional.linear(x, weight if a.get("transB") else weight.T, args.tensor(1))


def _pool(name: str, x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    around = _pads(a)
    if around[0::2] != around[1::2] or a.get("ceil_mode"):
        raise ValueError("pooling with uneven padding or ceil_mode")
    strides, padding = a.get("strides", 1), list(reversed(around[0::2])) or 0
    if name == "max":
        return functional.max_pool2d(x, a["kernel_shape"], strides, padding)
    counted = bool(a.get("count_include_pad", 0))
    return functional.avg_pool2d(x, a["kernel_shape"], strides, padding, count_include_pad=counted)


def _reduce(name: str, x: Any, args: Args, a: Attributes) -> Any:
    import torch

    axes = args.constant(0) if args.constant(0) is not None else a.get("axes")
    if not axes:
        if a.get("noop_with_empty_axes"):
            return x
        axes = list(range(x.ndim))
    run = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}[name]
    return run(x, tuple(axes), keepdim=bool(a.get("keepdims", 1)))


def _reshape(x: Any, args: Args, a: Attributes) -> Any:
    shape = args.constant(0)
    return x.reshape([x.shape[i] if size == 0 and not a.get("allowzero") else size for i, size in enumerate(shape)])


def _axes(args: Args, a: Attributes) -> list[int]:
    found = args.constant(0) if args.constant(0) is not None else a.get("axes")
    return list(found or [])


def _squeeze(x: Any, args: Args, a: Attributes) -> Any:
    axes = _axes(args, a)
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def _unsqueeze(x: Any, args: Args, a: Attributes) -> Any:
    axes = _axes(args, a)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(x: Any, args: Args, a: Attributes) -> Any:
    starts, ends, axes, steps = (args.constant(index) for index in range(4))
    axes = axes if axes is not None else list(range(len(starts)))
    places: list[Any] = [slice(None)] * x.ndim
    for place, axis in enumerate(axes):
        step = 1 if steps is None else steps[place]
        if step < 1:
            raise ValueError("Slice with a step back")
        places[axis] = slice(starts[place], min(ends[place], x.shape[axis]), step)
    return x[tuple(places)]


def _split(x: Any, args: Args, a: Attributes) -> Any:
    import torch

    sizes = args.constant(0) if args.constant(0) is not None else a.get("split")
    axis = a.get("axis", 0)
    if sizes is None:
        raise ValueError("Split without sizes")
    return torch.split(x, sizes, axis)


def _pad(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    if args.constant(2) is not None:
        raise ValueError("Pad with axes")
    around = _pairs(args.constant(0))
    while len(around) > 2 and around[-2:] == [0, 0]:
        around = around[:-2]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return functional.pad(x, around, value=float(args.constant(1) or 0))
    if mode != "reflect":
        raise ValueError(f"Pad of mode {mode}")
    flat = x.reshape(1, -1, *x.shape[-(len(around) // 2) :])
    padded = functional.pad(flat, around, mode="reflect")
    return padded.reshape(*x.shape[: x.ndim - len(around) // 2], *padded.shape[2:])


def _gather(x: Any, args: Args, a: Attributes) -> Any:
    import torch
    from torch.nn import functional

    axis, places = a.get("axis", 0), args.tensor(0)
    if args.known(0) and bool((places < 0).any()):
        places = torch.where(places < 0, places + x.shape[axis], places)
    if axis == 0 and x.ndim == 2:
        return functional.embedding(places, x)
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis % x.ndim + 1 :])
    return torch.index_select(x, axis, places.reshape(-1)).reshape(shape)


def _cast(x: Any, args: Args, a: Attributes) -> Any:
    import torch

    to = a["to"]
    if to in _FLOATING:
        return x.to(a["floating"])
    if to == _BOOLEAN:
        return x.to(torch.bool)
    if to not in _WHOLE:
        raise ValueError(f"Cast to the type {to}")
    return x.to(getattr(torch, _WHOLE[to]))


def _layer_norm(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    axis = a.get("axis", -1) % x.ndim
    return functional.layer_norm(x, x.shape[axis:], args.tensor(0), args.tensor(1), a.get("epsilon", 1e-5))


def _batch_norm(x: Any, args: Args, a: Attributes) -> Any:
    weight, bias, mean, variance = args.tensors()
    scale = weight / (variance + a.get("epsilon", 1e-5)).sqrt()
    shape = (1, -1, *[1] * (x.ndim - 2))
    return x * scale.reshape(shape) + (bias - mean * scale).reshape(shape)


def _instance_norm(x: Any, args: Args, a: Attributes) -> Any:
    """Written out, since XNNPACK takes the parts and not the whole."""
    axes, shape = tuple(range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    around = x - x.mean(axes, keepdim=True)
    spread = ((around * around).mean(axes, keepdim=True) + a.get("epsilon", 1e-5)).rsqrt()
    return around * spread * args.tensor(0).reshape(shape) + args.tensor(1).reshape(shape)


def _resize(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    mode, places = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    sizes, scales = args.constant(2), args.constant(1)
    if x.ndim != 4 or mode not in ("linear", "nearest"):
        raise ValueError(f"Resize of mode {mode} and {x.ndim} dimensions")
    size = sizes[2:] if sizes else [int(x.shape[axis] * scales[axis]) for axis in (2, 3)]
    if mode == "linear" and places in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return functional.interpolate(x, size, mode="bilinear", align_corners=places == "align_corners")
    if mode == "nearest" and places == "asymmetric" and a.get("nearest_mode") == "floor":
        return functional.interpolate(x, size, mode="nearest")
    raise ValueError(f"Resize of mode {mode} with {places}")


def _depth_to_space(x: Any, args: Args, a: Attributes) -> Any:
    from torch.nn import functional

    size = a["blocksize"]
    if a.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, size)
    n, c, h, w = x.shape
    apart = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(n, c // size**2, h * size, w * size)


def _clip(x: Any, args: Args, a: Attributes) -> Any:
    return x.clamp(args.constant(0), args.constant(1))


def _expand(x: Any, args: Args, a: Attributes) -> Any:
    import torch

    return x.expand(torch.broadcast_shapes(x.shape, tuple(args.constant(0))))


def _plain(name: str) -> Callable[[Any, Args, Attributes], Any]:
    """Return the function ``torch.name`` of all inputs; of many where it takes two at a time."""

    def run(x: Any, args: Args, a: Attributes) -> Any:
        import torch

        return functools.reduce(getattr(torch, name), args.tensors(), x) if len(args) else getattr(torch, name)(x)

    return run


OPERATORS: dict[str, Callable[[Any, Args, Attributes], Any]] = {
    "Conv": _convolve,
    "Gemm": _gemm,
    "MaxPool": functools.partial(_pool, "max"),
    "AveragePool": functools.partial(_pool, "mean"),
    "GlobalAveragePool": lambda x, args, a: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x, args, a: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "ReduceMean": functools.partial(_reduce, "mean"),
    "ReduceSum": functools.partial(_reduce, "sum"),
    "ReduceMax": functools.partial(_reduce, "max"),
    "ReduceMin": functools.partial(_reduce, "min"),
    "Reshape": _reshape,
    "Flatten": lambda x, args, a: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda x, args, a: x.permute(a.get("perm") or list(reversed(range(x.ndim)))),
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Gather": _gather,
    "Expand": _expand,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "Cast": _cast,
    "Clip": _clip,
    "HardSigmoid": lambda x, args, a: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda x, args, a: x * (x / 6 + 0.5).clamp(0, 1),
    "LeakyRelu": lambda x, args, a: x.clamp(0, None) + x.clamp(None, 0) * a.get("alpha", 0.01),
    "Softmax": lambda x, args, a: x.softmax(a.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "Concat": lambda x, args, a: _torch().cat([x, *args.tensors()], a["axis"]),
    "Where": lambda x, args, a: _torch().where(x, args.tensor(0), args.tensor(1)),
    "Identity": lambda x, args, a: x,
    **{
        name: _plain(function)
        for name, function in {
            "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt",
            "Erf": "erf", "Neg": "neg", "Abs": "abs", "Reciprocal": "reciprocal", "Add": "add", "Sub": "sub",
            "Mul": "mul", "Div": "div", "Pow": "pow", "MatMul": "matmul", "Equal": "eq", "Max": "maximum",
            "Min": "minimum",
        }.items()
    },
}  # fmt: skip
