"""Every ONNX operator that ExecuTorch programs are made of computes in PyTorch what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
EXPORT = ROOT / "harness" / "socbench" / "models" / "convert" / "executorch_export.py"
pytestmark = pytest.mark.runtimes

X = np.random.default_rng(7).uniform(0.1, 1.0, (1, 4, 6, 8)).astype(np.float32)
W = np.random.default_rng(8).uniform(-1, 1, (4, 2, 3, 3)).astype(np.float32)
C = np.array([0.5, -1.0, 2.0, 1.5], np.float32)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray[Any, Any]:
    return np.array(value, np.float32)


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Conv", [W, C], {"group": 2, "pads": [1, 1, 1, 1], "strides": [1, 2]}),
    ("Conv", [W, C], {"group": 2, "pads": [0, 0, 1, 1], "dilations": [2, 1]}),
    ("MaxPool", [], {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 0, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", [], {}),
    ("GlobalMaxPool", [], {}),
    ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
    ("ReduceSum", [ints(1)], {"keepdims": 1}),
    ("ReduceSum", [], {"noop_with_empty_axes": 1}),
    ("ReduceMax", [], {"axes": [-1]}),
    ("ReduceMin", [], {}),
    ("Reshape", [ints(0, 2, -1, 8)], {}),
    ("Flatten", [], {"axis": 2}),
    ("Squeeze", [ints(0)], {}),
    ("Unsqueeze", [ints(0, 3)], {}),
    ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ("Slice", [ints(1, 0), ints(9223372036854775807, -1), ints(3, 2), ints(2, 1)], {}),
    ("Split", [ints(1, 3)], {"axis": 1}),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 4), number(0.25)], {}),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 4)], {"mode": "reflect"}),
    ("Gather", [ints(2, 0)], {"axis": 2}),
    ("Gather", [ints(-1)], {"axis": 3}),
    ("Expand", [ints(3, 4, 6, 8)], {}),
    ("Resize", [None, None, ints(1, 4, 12, 12)], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
    ("Resize", [None, np.array([1, 1, 2, 2], np.float32)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "DCR"}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("Cast", [], {"to": int(TensorProto.INT32)}),
    ("Clip", [number(0.3), number(0.6)], {}),
    ("Clip", [number(0.3)], {}),
    ("HardSigmoid", [], {"alpha": 0.7, "beta": 0.1}),
    ("HardSwish", [], {}),
    ("LeakyRelu", [], {"alpha": 0.3}),
    ("Softmax", [], {"axis": 1}),
    ("LayerNormalization", [np.tile(C, 2), np.tile(C, 2)], {"axis": -1, "epsilon": 0.01}),
    ("BatchNormalization", [C, C, C, C**2], {"epsilon": 0.01}),
    ("InstanceNormalization", [C, C], {"epsilon": 0.01}),
    ("Concat", [X], {"axis": 2}),
    ("Gemm", [W.reshape(9, 8)[:5].copy(), np.ones(5, np.float32)], {"transB": 1}),
    ("MatMul", [W.reshape(8, 9).copy()], {}),
    *((name, [], {}) for name in ("Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Erf", "Neg", "Abs", "Reciprocal")),
    *((name, [C.reshape(4, 1, 1)], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    ("Pow", [number(3.0)], {}),
    ("Identity", [], {}),
]  # fmt: skip
SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
import numpy as np
spec = importlib.util.spec_from_file_location("export", sys.argv[1])
export = importlib.util.module_from_spec(spec)
spec.loader.exec_module(export)
import torch
said = {"operators": sorted(export._operations().OPERATORS)}
for folder in sorted(Path(sys.argv[2]).iterdir()):
    module, document = export.load(folder)
    found = module(torch.from_numpy(np.load(folder / "x.npy")))
    found = found if isinstance(found, tuple) else (found,)
    np.savez(folder / "found.npz", *[value.numpy() for value in found])
print(json.dumps(said))
"""


def model_of(operator: str, constants: list[Any], attributes: dict[str, Any], x: Any) -> Any:
    """Return a graph of one operator whose further inputs are constants."""
    names = [None if value is None else f"c{place}" for place, value in enumerate(constants)]
    outputs = ["y", "y2"] if operator == "Split" else ["y"]
    node = helper.make_node(operator, ["x", *[name or "" for name in names]], outputs, **attributes)
    stored = [numpy_helper.from_array(v, n) for v, n in zip(constants, names, strict=True) if n is not None]
    kind = attributes.get("to", TensorProto.FLOAT)
    ends = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))
    graph = helper.make_graph([node], "g", [given], ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_an_operator_computes_in_pytorch_what_it_computes_in_onnx_runtime(place, tmp_path) -> None:
    from socbench.models.convert.executorch import _hand_over

    expected = []
    for number_of, (operator, constants, attributes) in enumerate(CASES):
        x = X.reshape(24, 8) if operator == "Gemm" else X
        folder = tmp_path / "cases" / f"{number_of:03d}"
        folder.mkdir(parents=True)
        onnx.save(model_of(operator, constants, attributes, x), folder / "m.onnx")
        _hand_over(str(folder / "m.onnx"), folder)
        np.save(folder / "x.npy", x)
        session = onnxruntime.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"])
        expected.append((operator, folder, session.run(None, {"x": x})))
    said = place("executorch").say(SCRIPT, str(EXPORT), str(tmp_path / "cases"))
    for operator, folder, values in expected:
        with np.load(folder / "found.npz") as found:
            assert len(found.files) == len(values), operator
            for name, value in zip(found.files, values, strict=True):
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=operator)
    needs_two = {"Equal", "Where"}  # their first input is no picture: Magika's and Basic Pitch's programs have them
    assert set(said["operators"]) - {case[0] for case in CASES} == needs_two


REFUSED = """
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("export", sys.argv[1])
export = importlib.util.module_from_spec(spec)
spec.loader.exec_module(export)
import torch
said = []
for folder in sorted(Path(sys.argv[2]).iterdir()):
    try:
        module, document = export.load(folder)
        module(torch.zeros(1, 4, 6, 8))
        said.append("it was taken")
    except ValueError as problem:
        said.append(str(problem))
print(json.dumps(said))
"""


def test_an_operator_without_a_translation_or_used_in_a_way_that_has_none_is_named(place, tmp_path) -> None:
    from socbench.models.convert.executorch import _hand_over

    cases = (("Sinh", [], {}), ("Slice", [ints(-1), ints(-9), ints(3), ints(-1)], {}), ("Pad", [ints(*[1] * 8)],
             {"mode": "edge"}), ("MaxPool", [], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}))  # fmt: skip
    for place_of, (operator, constants, attributes) in enumerate(cases):
        folder = tmp_path / "cases" / str(place_of)
        folder.mkdir(parents=True)
        onnx.save(model_of(operator, constants, attributes, X), folder / "m.onnx")
        _hand_over(str(folder / "m.onnx"), folder)
    assert place("executorch").say(REFUSED, str(EXPORT), str(tmp_path / "cases")) == [
        "there is no translation of the operator Sinh",
        "the operator Slice is not translated: Slice with a step back",
        "the operator Pad is not translated: Pad of mode edge",
        "the operator MaxPool is not translated: padding SAME_UPPER",
    ]
