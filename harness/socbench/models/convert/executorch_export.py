"""Builds a torch module of a graph and exports it as .pte; run by the interpreter of the environment ``executorch``.

``python executorch_export.py FOLDER TARGET FACTS PRECISION RECIPE CALIBRATION``; FOLDER holds graph.json, names.json
and arrays.npz, CALIBRATION is a .npy file ``(count, *shape)`` or empty. Stands alone: nothing of socbench is there.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np


def load(folder: Path) -> Any:
    """Return a torch module that computes the graph in ``folder``. ValueError for an operator that it does not know."""
    import torch
    from torch import nn
    from torch.nn import functional

    document = json.loads((folder / "graph.json").read_text())
    names = json.loads((folder / "names.json").read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {name: stored[str(index)] for index, name in enumerate(names)}

    def pads(attributes: dict[str, Any]) -> list[int]:
        if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise ValueError(f"padding {attributes['auto_pad']}")
        given = attributes.get("pads", [])
        half = len(given) // 2
        return [pad for axis in reversed(range(half)) for pad in (given[axis], given[axis + half])]

    def convolve(x: Any, a: dict[str, Any], weight: Any, bias: Any = None) -> Any:
        around = pads(a)
        low, high = around[0::2], around[1::2]
        padding = list(reversed(low)) if low == high else [0] * len(a["strides"])
        x = x if low == high else functional.pad(x, around)
        return functional.conv2d(x, weight, bias, a["strides"], padding, a["dilations"], a.get("group", 1))

    def gemm(x: Any, a: dict[str, Any], weight: Any, bias: Any = None) -> Any:
        if a.get("transA") or a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
            raise ValueError("Gemm with transA, alpha or beta")
        return functional.linear(x, weight if a.get("transB") else weight.T, bias)

    def pool(kind: Any, x: Any, a: dict[str, Any]) -> Any:
        around = pads(a)
        if around[0::2] != around[1::2]:
            raise ValueError("pooling with uneven padding")
        return kind(x, a["kernel_shape"], a.get("strides", 1), list(reversed(around[0::2])) or 0)

    class Graph(nn.Module):  # type: ignore[misc]
        """The graph's nodes in their order; weights are parameters."""

        def __init__(self) -> None:
            super().__init__()
            self.places: dict[str, str] = {}
            for index, (name, array) in enumerate(arrays.items()):
                if array.dtype.kind == "f" and array.ndim:
                    self.register_parameter(f"w{index}", nn.Parameter(torch.from_numpy(array.copy()), False))
                    self.places[name] = f"w{index}"

        def value(self, known: dict[str, Any], name: str) -> Any:
            return known[name] if name in known else getattr(self, self.places[name])

        def forward(self, *inputs: Any) -> Any:
            known = {item["name"]: value for item, value in zip(document["inputs"], inputs, strict=True)}
            for node in document["nodes"]:
                known[node["outputs"][0]] = self.one(node, known)
            found = tuple(known[name] for name in document["outputs"])
            return found if len(found) > 1 else found[0]

        def one(self, node: dict[str, Any], known: dict[str, Any]) -> Any:
            op, a, names = node["op"], node["attributes"], node["inputs"]
            x = self.value(known, names[0])
            rest = [self.value(known, name) for name in names[1:] if name and (name in known or name in self.places)]
            constants = [arrays[name].tolist() for name in names[1:] if name in arrays and name not in self.places]
            if op == "Conv":
                return convolve(x, a, *rest)
            if op == "Gemm":
                return gemm(x, a, *rest)
            if op == "Clip":
                limits = [float(arrays[name]) if name else None for name in names[1:]] + [None, None]
                return torch.clamp(x, limits[0], limits[1])
            if op == "ReduceMean":
                axes = constants[0] if constants else a["axes"]
                return x.mean(axes, keepdim=bool(a.get("keepdims", 1)))
            if op == "GlobalAveragePool":
                return x.mean((2, 3), keepdim=True)
            if op == "Reshape":
                return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(constants[0])])
            if op == "Flatten":
                return torch.flatten(x, a.get("axis", 1))
            if op in ("MaxPool", "AveragePool"):
                return pool(functional.max_pool2d if op == "MaxPool" else functional.avg_pool2d, x, a)
            plain = {
                "Relu": torch.relu, "Add": torch.add, "Mul": torch.mul, "Sub": torch.sub, "Sigmoid": torch.sigmoid,
                "MatMul": torch.matmul, "HardSwish": functional.hardswish, "Identity": lambda value: value,
            }  # fmt: skip
            if op == "Softmax":
                return torch.softmax(x, a.get("axis", -1))
            if op == "Concat":
                return torch.cat([x, *rest], a["axis"])
            if op not in plain:
                raise ValueError(f"there is no translation of the operator {op}")
            return plain[op](x, *rest)

    return Graph().eval(), document


def quantise(module: Any, examples: tuple[Any, ...], calibration: str) -> Any:
    """Return the module with int8 weights (a scale a channel) and int8 activations, by XNNPACK's own quantiser."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(module, examples).module(), quantizer)
    for picture in np.load(calibration, allow_pickle=False):
        prepared(torch.from_numpy(picture[None]))
    return convert_pt2e(prepared)


def main(folder: str, target: str, facts: str, precision: str, recipe: str, calibration: str) -> int:
    """Export the graph and write down what was delegated."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    module, document = load(Path(folder))
    examples = tuple(torch.zeros(item["shape"]) for item in document["inputs"])

    class Half(torch.nn.Module):  # type: ignore[misc]
        """Computes in fp16; inputs and outputs stay float32, so that every variant is fed the same."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner.half()

        def forward(self, *inputs: Any) -> Any:
            return self.inner(*(value.half() for value in inputs)).float()

    with torch.no_grad():
        whole = Half(module) if precision == "fp16" else module
        if precision == "int8":
            whole = quantise(module, examples, calibration)
        outputs = whole(*examples)
        exported = torch.export.export(whole, examples)
    portable = recipe == "portable"
    lowered = to_edge_transform_and_lower(exported, partitioner=[] if portable else [XnnpackPartitioner()])
    nodes = [node for node in lowered.exported_program().graph.nodes if node.op == "call_function"]
    calls = [node for node in nodes if "executorch_call_delegate" in str(node.target)]
    delegated = sum(_covered(lowered.exported_program(), node) for node in calls)
    left = [node for node in nodes if node not in calls and "getitem" not in str(node.target)]
    Path(target).write_bytes(lowered.to_executorch().buffer)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    Path(facts).write_text(
        json.dumps(
            {
                "backend": None if portable else "XnnpackBackend",
                "precision": precision,
                "delegated": delegated,
                "not_delegated": sorted(_name(node.target) for node in left),
                "partitions": len(calls),
                "parameters": sum(value.numel() for value in module.parameters()),
                "inputs": [{**item, "dtype": "float32"} for item in document["inputs"]],
                "outputs": [
                    {"name": name, "dtype": "float32", "shape": list(value.shape)}
                    for name, value in zip(document["outputs"], outputs, strict=True)
                ],
            },
            indent=1,
        )
    )
    return 0


def _name(target: Any) -> str:
    """Return ``dim_order_ops._to_dim_order_copy.default`` of an operation's long text."""
    found = re.search(r"[A-Za-z_]\w*(?:\.\w+)+", str(target))
    return found.group(0) if found else str(target)[:80]


def _covered(program: Any, call: Any) -> int:
    """Return how many operations of the graph one delegate call stands for."""
    lowered = getattr(program.graph_module, str(call.args[0]))
    inner = lowered.original_module.graph.nodes
    return sum(1 for node in inner if node.op == "call_function" and "getitem" not in str(node.target))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
