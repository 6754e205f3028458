"""ONNX -> ExecuTorch (.pte) fp32, fp16 and int8 for XNNPACK, or for no back end, by PyTorch in its own environment.

The graph is handed over as JSON and plain arrays; ``executorch_export.py`` builds a torch module of it there.
Beside the .pte lies a .json with what the file itself does not tell in Python: inputs, outputs, delegated nodes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from socbench.errors import FailedError, ModelError
from socbench.models.convert import tool_python

_DEADLINE_S = 800.0


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` (.pte) and its .json from the fp32 ONNX file ``source``.

    ``calibration``: a .npy file ``(count, *shape)`` float32, for int8. ``recipe``: ``portable`` lowers nothing, so
    that ExecuTorch's own portable kernels run all of it.

    Raises ModelError for a precision that this format does not have or an operator that is not translated,
    FailedError with what PyTorch said.
    """
    if precision not in ("fp32", "fp16", "int8"):
        raise ModelError(f"ExecuTorch files of precision {precision} are not made by socbench")
    facts = f"{target}.json"
    with tempfile.TemporaryDirectory() as folder:
        _hand_over(source, Path(folder))
        script = Path(__file__).with_name("executorch_export.py")
        words = [str(tool_python("executorch")), "-P", str(script), folder, target, facts, precision]
        words += [recipe or "", calibration or ""]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env["OMP_NUM_THREADS"] = "1"  # little is computed, and threads that wait for each other spin
        try:
            done = subprocess.run(
                words, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=_DEADLINE_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as problem:
            raise FailedError(f"ExecuTorch's export did not end within {_DEADLINE_S:.0f} s") from problem
    if done.returncode or not Path(target).is_file():
        last = " ".join((done.stderr or done.stdout).split())[-300:]
        raise FailedError(f"ExecuTorch's export failed (exit code {done.returncode}): {last}")
    return {"companions": [facts]}


def _hand_over(source: str, folder: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    graph = onnx.load(source).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = []
    for node in graph.node:
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        nodes.append(
            {"op": node.op_type, "inputs": list(node.input), "outputs": list(node.output), "attributes": attributes}
        )
    inputs = [
        {
            "name": item.name,
            "shape": [dim.dim_value or 1 for dim in item.type.tensor_type.shape.dim],
            "dtype": np.dtype(helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)).name,
        }
        for item in graph.input
        if item.name not in arrays
    ]
    document = {"nodes": nodes, "inputs": inputs, "outputs": [item.name for item in graph.output]}
    (folder / "graph.json").write_text(json.dumps(document))
    names = list(arrays)
    (folder / "names.json").write_text(json.dumps(names))
    stored: dict[str, Any] = {str(index): arrays[name] for index, name in enumerate(names)}
    np.savez(folder / "arrays.npz", **stored)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
