"""Builds a torch module of a graph and exports it as .pte; run by the interpreter of the environment ``executorch``.

``python executorch_export.py FOLDER TARGET FACTS PRECISION RECIPE CALIBRATION``; FOLDER holds graph.json, names.json
and arrays.npz, CALIBRATION is a .npy file ``(count, *shape)`` or empty. Stands alone: nothing of socbench is there.
"""

from __future__ import annotations

import functools
import importlib.util
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

    operations = _operations()
    document = json.loads((folder / "graph.json").read_text())
    names = json.loads((folder / "names.json").read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {name: stored[str(index)] for index, name in enumerate(names)}
    unknown = sorted({node["op"] for node in document["nodes"]} - set(operations.OPERATORS))
    if unknown:
        raise ValueError(f"there is no translation of the operator {unknown[0]}")
    computed = _used_as_tensors(document, operations.SHAPING)

    class Graph(nn.Module):  # type: ignore[misc]
        """The graph's nodes in their order; floating-point constants are parameters, whole numbers buffers."""

        floating = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.places: dict[str, str] = {}
            for index, (name, array) in enumerate(arrays.items()):
                if name not in computed:
                    continue
                self.places[name] = f"w{index}"
                value = torch.from_numpy(np.array(array))
                if value.is_floating_point():
                    self.register_parameter(f"w{index}", nn.Parameter(value, False))
                else:
                    self.register_buffer(f"w{index}", value)

        def value(self, known: dict[str, Any], name: str) -> Any:
            return known[name] if name in known else getattr(self, self.places[name])

        def forward(self, *inputs: Any) -> Any:
            known = {item["name"]: value for item, value in zip(document["inputs"], inputs, strict=True)}
            for node in document["nodes"]:
                found = self.one(node, known)
                known.update(zip(node["outputs"], found if isinstance(found, (tuple, list)) else [found]))  # noqa: B905
            outputs = tuple(known[name] for name in document["outputs"])
            return outputs if len(outputs) > 1 else outputs[0]

        def one(self, node: dict[str, Any], known: dict[str, Any]) -> Any:
            first, *rest = node["inputs"]
            tensors = [functools.partial(self.value, known, name) if name else None for name in rest]
            constants = [arrays[name].tolist() if name in arrays else None for name in rest]
            attributes = {**node["attributes"], "floating": self.floating}
            args = operations.Args(tensors, constants)
            try:
                return operations.OPERATORS[node["op"]](self.value(known, first), args, attributes)
            except ValueError as problem:
                raise ValueError(f"the operator {node['op']} is not translated: {problem}") from problem

    return Graph().eval(), document


def _operations() -> Any:
    """Load the translations, by path: the folder they lie in must not be searched (it has an onnx.py)."""
    place = Path(__file__).with_name("executorch_ops.py")
    spec = importlib.util.spec_from_file_location("executorch_ops", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _used_as_tensors(document: dict[str, Any], shaping: dict[str, tuple[int, ...]]) -> set[str]:
    """Return the names of what nodes compute with, less the sizes and axes that become part of the program."""
    return {
        name
        for node in document["nodes"]
        for index, name in enumerate(node["inputs"])
        if name and index not in shaping.get(node["op"], ())
    } | set(document["outputs"])


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
    examples = tuple(torch.zeros(item["shape"], dtype=getattr(torch, item["dtype"])) for item in document["inputs"])

    class Half(torch.nn.Module):  # type: ignore[misc]
        """Computes in fp16; inputs and outputs stay float32, so that every variant is fed the same."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner.half()
            inner.floating = torch.float16

        def forward(self, *inputs: Any) -> Any:
            found = self.inner(*(value.half() if value.is_floating_point() else value for value in inputs))
            return tuple(value.float() for value in found) if isinstance(found, tuple) else found.float()

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
                "inputs": document["inputs"],
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
