"""Every runtime adapter: right answers, true descriptions, precise refusals."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
MODULES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
X = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
LOADED = (
    "runtime_version delegate_effective accelerator emulated delegation delegation_evidence nodes_total "
    "nodes_delegated partitions precision_effective threads_effective inputs outputs details"
)


def only(outputs):
    (value,) = outputs.values()
    return value


def test_probe_lists_delegates_with_reasons_for_those_that_are_not_there(case):
    entry = case.adapter.probe()
    assert entry["runtime"] == case.runtime
    assert entry["version"] == importlib.metadata.version(PACKAGES[case.runtime])
    assert case.format in entry["formats"]
    assert entry["error"] is None
    found = {delegate["delegate"]: delegate for delegate in entry["delegates"]}
    assert found[case.delegate]["available"] is True
    assert found[case.delegate]["emulated"] is False
    for delegate in entry["delegates"]:
        assert set(delegate) == {"delegate", "available", "accelerator", "emulated", "precisions", "reason", "fix"}
        assert delegate["available"] or (delegate["reason"] and delegate["fix"])


def test_the_answer_is_that_of_numpy(case, tiny):
    session = case.load()
    session.bind({"x": X})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(X, 4, 2), rtol=1e-6)
    session.close()


def test_a_second_input_gives_its_own_answer_and_runs_repeat(case, tiny):
    session = case.load()
    for value in (X, 2 * X, X[:, ::-1]):
        session.bind({"x": value})
        for _ in range(3):
            session.run()
        np.testing.assert_allclose(only(session.outputs()), tiny.chain(value, 4, 2), rtol=1e-6)


def test_binding_copies_and_outputs_are_copies(case, tiny):
    session = case.load()
    value = X.copy()
    session.bind({"x": value})
    value[:] = 99
    session.run()
    first = only(session.outputs())
    session.bind({"x": 5 * X})
    session.run()
    np.testing.assert_allclose(first, tiny.chain(X, 4, 2), rtol=1e-6)


def test_a_model_of_one_input_takes_it_under_any_name(case, tiny):
    session = case.load()
    session.bind({"picture": X})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(X, 4, 2), rtol=1e-6)


def test_describe_has_every_documented_member(case):
    described = case.load().describe()
    assert set(LOADED.split()) <= set(described)
    assert described["delegate_effective"] == case.delegate
    assert described["delegation"] == "full"
    assert described["delegation_evidence"] in ("reported", "counted")
    # OpenVINO tells of the layers that it made of the model, and makes one of these two
    assert described["nodes_total"] == described["nodes_delegated"] == {"openvino": 1}.get(case.runtime, 2)
    assert described["partitions"] == 1
    assert described["emulated"] is False
    assert described["runtime_version"] == importlib.metadata.version(PACKAGES[case.runtime])
    (spec,) = described["inputs"]
    assert (spec["name"], spec["dtype"], spec["shape"], spec["scale"]) == ("x", "float32", [1, 4], None)
    (spec,) = described["outputs"]
    assert (spec["name"], spec["dtype"], spec["shape"]) == ("y", "float32", [1, 4])


def effective(session, value):
    session.bind({"x": value})
    session.run()
    return {**session.describe(), **session.evidence()}["precision_effective"]


def test_a_float32_file_is_computed_in_float32(case):
    assert effective(case.load(), X) == "fp32"


def test_a_float16_file_is_computed_in_float32_where_the_cpu_has_no_float16(case):
    flags = Path("/proc/cpuinfo").read_text()
    native = "avx512_fp16" in flags or "amx_fp16" in flags or "asimdhp" in flags
    found = effective(case.load("fp16"), np.ones((1, 16), np.float32))
    assert found in (("fp16", "fp32") if native else ("fp32",))


def test_an_int8_file_is_computed_in_int8(case):
    assert effective(case.load("int8"), np.linspace(-1, 1, 16, dtype=np.float32)[None]) == "int8"


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_take_effect(case, threads):
    assert case.load(threads=threads).describe()["threads_effective"] == threads


def test_a_dynamic_batch_becomes_that_of_the_trial(case, tiny):
    session = case.load("dynamic", batch=3)
    value = np.vstack([X, 2 * X, -X])
    session.bind({"x": value})
    for _ in range(2):
        session.run()
        np.testing.assert_allclose(only(session.outputs()), tiny.chain(value, 4, 2), rtol=1e-6)
        session.bind({"x": value})
    assert session.describe()["inputs"][0]["shape"] == [3, 4]


def test_a_shape_is_given_by_name(case, tiny):
    session = case.load("dynamic", shapes={"x": [2, 4]})
    value = np.vstack([X, 2 * X])
    session.bind({"x": value})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(value, 4, 2), rtol=1e-6)


@pytest.mark.parametrize("shape", [[4], [1, 2, 2], [1, 5]])
def test_a_shape_that_cannot_be_is_a_mismatch(case, shape):
    with pytest.raises(Exception) as caught:
        case.load("dynamic", shapes={"x": shape})
    assert caught.value.code == "shape_mismatch"
    assert str(shape)[1:-1] in caught.value.message or "shapes asked for" in caught.value.message


@pytest.mark.parametrize("value", [np.ones((1, 5), np.float32), np.ones((4,), np.float32), np.ones((1, 4), np.int32)])
def test_an_input_that_does_not_fit_is_a_mismatch(case, value):
    session = case.load()
    with pytest.raises(Exception) as caught:
        session.bind({"x": value})
    assert caught.value.code == "shape_mismatch"
    assert "x" in caught.value.message


@pytest.mark.parametrize("kind", ["empty", "text", "half", "zeros"])
def test_a_file_that_is_no_model_is_invalid(case, kind):
    good = Path(case.model())
    data = good.read_bytes()
    content = {"empty": b"", "text": b"not a model\n" * 9, "half": data[: len(data) // 2], "zeros": b"\0" * 999}[kind]
    good.write_bytes(content)
    with pytest.raises(Exception) as caught:
        case.adapter.load(str(good), case.trial())
    assert caught.value.code == "model_invalid"
    assert good.name in caught.value.message


def test_an_operator_that_the_runtime_lacks_is_named(case):
    with pytest.raises(Exception) as caught:
        case.load("unsupported")
    assert caught.value.code == "op_unsupported"
    assert "NoSuchOperator" in caught.value.message


def test_a_delegate_that_is_not_there_is_refused_with_those_that_are(case):
    with pytest.raises(Exception) as caught:
        case.adapter.load(case.model(), case.trial(delegate="npu:imaginary"))
    assert caught.value.code == "delegate_missing"
    assert "npu:imaginary" in caught.value.message
    assert case.delegate in caught.value.message


def test_a_runtime_that_is_not_installed_says_what_to_install(case, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == MODULES[case.runtime]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, MODULES[case.runtime], None)
    if case.runtime == "litert":
        monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    with pytest.raises(Exception) as caught:
        case.adapter.import_runtime()
    assert caught.value.code == "runtime_missing"
    assert "pip install" in caught.value.advice


def test_the_profile_has_a_row_for_every_layer(case):
    rows = case.adapter.profile(case.model(), case.trial(), {"x": X})
    if case.runtime == "litert":
        assert rows == []  # its Python package has no profiler
        return
    assert [row[0] for row in rows] == list(range(len(rows)))
    assert rows
    assert all(isinstance(row[4], int) and row[4] >= 0 and row[5] >= 1 for row in rows)


def test_adapters_do_not_shadow_the_packages_they_are_named_after(case):
    case.adapter.import_runtime()
    module = sys.modules[MODULES[case.runtime]]
    assert "device_agents" not in str(module.__file__)


def test_seeded_bytes_fit_every_input(case, agent_module):
    session = case.load()
    described = session.describe()
    inputs = agent_module.Inputs(None, "probe", {"input_seed": 7}, described)
    session.bind(inputs.one(0))
    session.run()
    assert np.isfinite(only(session.outputs())).all()


def test_litert_counts_the_nodes_that_xnnpack_leaves(case_of):
    session = case_of("litert", "cpu:xnnpack", "tflite").load("partial")
    described = session.describe()
    assert (described["delegation"], described["nodes_total"], described["nodes_delegated"]) == ("partial", 3, 2)
    assert described["details"]["not_delegated"] == ["CUMSUM"]


@pytest.mark.parametrize("delegate", ["cpu:builtin", "cpu:reference"])
def test_litert_runs_its_own_kernels_when_asked(case_of, tiny, delegate):
    session = case_of("litert", delegate, "tflite").load()
    session.bind({"x": X})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(X, 4, 2), rtol=1e-6)
    described = session.describe()
    assert (described["delegate_effective"], described["delegation"], described["nodes_delegated"]) == (
        delegate,
        "full",
        2,
    )


def test_litert_quantises_floats_for_an_integer_input_as_its_scale_says(case_of, tiny):
    session = case_of("litert", "cpu:xnnpack", "tflite").load("int8")
    scale, zero_point = tiny.INT8_INPUT
    (spec,) = session.describe()["inputs"]
    assert (spec["dtype"], spec["zero_point"]) == ("int8", zero_point)
    assert spec["scale"] == pytest.approx(scale)
    value = np.linspace(-1, 1, 16, dtype=np.float32)[None]
    quantised = np.clip(np.rint(value / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    answers = []
    for given in (value, quantised):
        session.bind({"x": given})
        session.run()
        answers.append(only(session.outputs()))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert answers[0].dtype == np.int8
    real = (answers[0].astype(np.float32) - tiny.INT8_OUTPUT[1]) * tiny.INT8_OUTPUT[0]
    np.testing.assert_allclose(real, tiny.chain(value, 16, 1), atol=0.15)


def test_onnxruntime_runs_unoptimised_for_references(case_of, tiny):
    case = case_of("onnxruntime", "cpu:mlas", "onnx")
    session = case.load(options={"graph_optimization": "disabled"})
    session.bind({"x": X})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(X, 4, 2), rtol=1e-6)
    with pytest.raises(Exception) as caught:
        case.load(options={"graph_optimization": "most"})
    assert caught.value.code == "bad_job"


def test_onnxruntime_cannot_change_a_fixed_dimension(case_of):
    with pytest.raises(Exception) as caught:
        case_of("onnxruntime", "cpu:mlas", "onnx").load(batch=2)
    assert caught.value.code == "shape_mismatch"


@pytest.mark.parametrize("hint", ["f16", "bf16"])
def test_openvino_is_asked_for_a_precision_and_answers_with_the_one_it_took(case_of, hint):
    """OpenVINO accepts both on every CPU; what it computes in is the CPU's."""
    import openvino

    case = case_of("openvino", "cpu:openvino", "onnx")
    session = case.load(options={"inference_precision": hint})
    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = {"f16": "FP16", "bf16": "BF16"}[hint]
    if wanted not in capable:
        assert session.describe()["precision_effective"] == "fp32"
        assert session.describe()["details"]["inference_precision_hint"] == "fp32"


def test_openvino_reads_tflite_and_accuracy_mode(case_of, tiny):
    session = case_of("openvino", "cpu:openvino", "tflite").load(
        options={"execution_mode": "accuracy", "inference_precision": "f32"}
    )
    session.bind({"x": X})
    session.run()
    np.testing.assert_allclose(only(session.outputs()), tiny.chain(X, 4, 2), rtol=1e-6)
