"""Every runtime's delegates compute the right answer in their environments, and say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from socbench.environments.catalogue import catalogue, environments_for

ROOT = Path(__file__).resolve().parents[2]
PICTURE = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
SWIFTSHADER = "SwiftShader Device (Subzero)"
HTP = "Qualcomm HTP emulator (x86-64 software)"

pytestmark = pytest.mark.runtimes


def zoo(variant: str) -> str:
    from socbench.models import cards, variants

    card = cards.load_card("resnet8")
    return str(variants.build(card, next(v for v in variants.variants_of(card) if v.variant == variant)).path)


@pytest.mark.parametrize(
    ("environment", "runtime", "delegate", "variant", "accelerator", "nodes"),
    [
        ("litert-gpu", "litert", "gpu:webgpu", "tflite-fp32", SWIFTSHADER, None),
        ("litert-npu-intel", "litert", "npu:intel", "tflite-fp32", "OpenVINO's CPU device", (14, 14)),
        ("onnxruntime-webgpu", "onnxruntime", "gpu:webgpu", "onnx-fp32", SWIFTSHADER, (24, 24)),
        ("onnxruntime-qnn", "onnxruntime", "npu:qnn", "onnx-fp32", HTP, (24, 24)),
        ("onnxruntime-openvino", "onnxruntime", "cpu:openvino", "onnx-fp32", None, (22, 22)),
        ("ncnn", "ncnn", "cpu:ncnn", "ncnn-fp32", None, (21, 21)),
        ("ncnn", "ncnn", "gpu:vulkan", "ncnn-fp32", SWIFTSHADER, (21, 21)),
        ("mnn", "mnn", "cpu:mnn", "mnn-fp32", None, None),
        ("executorch", "executorch", "cpu:xnnpack", "executorch-fp32", None, (24, 24)),
        ("executorch", "executorch", "cpu:portable", "executorch-fp32-portable", None, (25, 25)),
    ],
)
def test_a_delegate_gives_the_reference_answer_in_full_and_names_what_it_ran_on(
    place, environment, runtime, delegate, variant, accelerator, nodes
) -> None:
    name = "x" if variant.startswith("tflite") else "image"
    value = PICTURE.transpose(0, 2, 3, 1) if variant.startswith("tflite") else PICTURE
    answer = place(environment).adapter(runtime, delegate, zoo(variant), inputs={name: value}, runs=1)
    assert "error" not in answer
    expected = place("host").adapter("onnxruntime", "cpu:mlas", zoo("onnx-fp32"), inputs={"image": PICTURE})
    np.testing.assert_allclose(answer["arrays"][0], expected["arrays"][0], rtol=1e-3, atol=1e-3)
    described = answer["described"]
    assert (described["delegate_effective"], described["delegation"]) == (delegate, "full")
    assert described["delegation_evidence"] in ("reported", "counted")
    assert described["emulated"] is (accelerator is not None)
    if accelerator is not None:
        assert described["accelerator"].startswith(accelerator)
    if nodes is not None:
        assert (described["nodes_delegated"], described["nodes_total"]) == nodes


def test_the_htp_emulator_computes_int8_and_leaves_the_ends_to_the_cpu(place) -> None:
    described = place("onnxruntime-qnn").adapter("onnxruntime", "npu:qnn", zoo("onnx-int8"), "int8", runs=1)[
        "described"
    ]
    assert (described["delegation"], described["precision_effective"], described["emulated"]) == (
        "partial",
        "int8",
        True,
    )
    assert described["nodes_total"] - described["nodes_delegated"] == 2


def test_fp16_on_a_gpu_without_it_is_refused_or_named(place) -> None:
    answer = place("onnxruntime-webgpu").adapter("onnxruntime", "gpu:webgpu", zoo("onnx-fp16"), "fp16", runs=1)
    assert answer["error"]["code"] == "op_unsupported"
    assert "fp16" in answer["error"]["message"]
    described = place("litert-gpu").adapter("litert", "gpu:webgpu", zoo("tflite-fp16"), "fp16", runs=1)["described"]
    assert described["precision_effective"] == "fp32"


@pytest.mark.parametrize("environment", ["litert-gpu", "onnxruntime-qnn", "ncnn", "mnn", "executorch", "tensorrt-rtx"])
def test_a_probe_gives_a_reason_for_every_delegate_that_is_not_there(place, environment) -> None:
    made = catalogue()[environment]
    for entry in place(environment).probe(made.runtime).values():
        assert set(entry) == {"delegate", "available", "accelerator", "emulated", "precisions", "reason", "fix"}
        assert entry["available"] is not bool(entry["reason"])
        assert entry["available"] or entry["fix"]


def test_a_program_of_executorch_runs_on_what_it_was_made_for_or_says_so(place, tmp_path) -> None:
    """The runtime itself runs whatever was not lowered on portable kernels and says nothing."""
    here = place("executorch")
    refused = here.adapter("executorch", "cpu:portable", zoo("executorch-fp32"))["error"]
    assert refused["code"] == "delegate_missing"
    assert "was made for XnnpackBackend and cannot run on cpu:portable" in refused["message"]
    counted = here.adapter("executorch", "cpu:xnnpack", zoo("executorch-fp32-portable"), runs=1)["described"]
    assert (counted["delegation"], counted["delegate_effective"]) == ("fell_back", "cpu:portable")
    assert (counted["nodes_delegated"], counted["delegation_evidence"]) == (0, "counted")
    for variant, delegation, evidence in (
        ("executorch-fp32-portable", "fell_back", "inferred"),
        ("executorch-fp32", "unknown", "none"),
    ):
        alone = tmp_path / f"{variant}.pte"  # without the exporter's word on it
        alone.write_bytes(Path(zoo(variant)).read_bytes())
        found = here.adapter("executorch", "cpu:xnnpack", alone, runs=1)["described"]
        assert (found["delegation"], found["delegation_evidence"], found["nodes_total"]) == (delegation, evidence, None)


def test_tensorrt_says_in_cudas_words_why_it_cannot_run_here(place, tiny, tmp_path) -> None:
    answer = place("tensorrt-rtx").adapter("tensorrt", "gpu:cuda", tiny.write_onnx(tmp_path / "m.onnx"))
    assert answer["error"]["code"] == "delegate_missing"
    assert "cudaErrorInsufficientDriver (35)" in answer["error"]["message"]


BUILD = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("agent", sys.argv[1] + "/device_agents/python/agent.py")
agent = importlib.util.module_from_spec(spec)
sys.modules["agent"] = agent
spec.loader.exec_module(agent)
agent.load_adapter("tensorrt")
adapter = sys.modules["socbench_runtime_tensorrt"]
trt, package = adapter.runtime()
try:
    engine = adapter.build(trt, sys.argv[2], {}, trt.ComputeCapability.SM80)
    print(json.dumps([package, engine.nbytes]))
except Exception as problem:
    print(json.dumps([problem.code, problem.message]))
"""


def test_tensorrt_rtx_builds_engines_without_a_gpu_and_names_what_it_cannot_take(place, tiny, tmp_path) -> None:
    here = place("tensorrt-rtx")
    package, size_bytes = here.say(BUILD, str(ROOT), str(tiny.write_onnx(tmp_path / "m.onnx", size=64)))
    assert package == "tensorrt-rtx"
    assert size_bytes > 1000
    code, message = here.say(BUILD, str(ROOT), str(tiny.write_onnx(tmp_path / "u.onnx", op="NoSuchOperator")))
    assert code == "op_unsupported"
    assert "NoSuchOperator" in message
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    assert here.say(BUILD, str(ROOT), str(bad))[0] == "model_invalid"


def test_environments_are_found_by_runtime_and_delegate() -> None:
    assert [one.name for one in environments_for("onnxruntime", "npu:qnn")] == ["onnxruntime-qnn"]
    assert environments_for("tensorrt")[0].name == "tensorrt-rtx"
