"""Ways in which a runtime deceives, each shown on the runtime itself, and what the adapter says there."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
X = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
COMPILED = """
import json, sys, time
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator as H, Options
names = sys.argv[2].split("|")
kinds = H[names[0]]
for name in names[1:]:
    kinds |= H[name]
model = CompiledModel.from_file(sys.argv[1], options=Options(hardware_accelerators=kinds))
"""


def zoo(variant: str, name: str = "resnet8") -> str:
    """Return the path of a file of the zoo, made when it is not there."""
    from socbench.models import cards, variants

    card = cards.load_card(name)
    return str(variants.build(card, next(v for v in variants.variants_of(card) if v.variant == variant)).path)


def test_litert_reports_full_acceleration_without_an_accelerator_and_the_adapter_refuses(place, tiny, tmp_path) -> None:
    """With the CPU beside it a missing NPU is no obstacle, and ``is_fully_accelerated`` says yes."""
    here = place("host")
    model = tiny.write_tflite(tmp_path / "m.tflite")
    assert here.say(COMPILED + "print(json.dumps(bool(model.is_fully_accelerated())))", str(model), "NPU|CPU") is True
    answer = here.adapter("litert", "npu:intel", model)
    assert answer["error"]["code"] == "delegate_missing"
    assert "dispatch" in answer["error"]["message"]


def test_onnxruntime_runs_on_the_cpu_when_a_provider_is_not_there_and_the_adapter_refuses(
    place, tiny, tmp_path
) -> None:
    here = place("host")
    model = tiny.write_onnx(tmp_path / "m.onnx")
    script = """
import json, sys, warnings
import onnxruntime as ort
warnings.simplefilter("ignore")
session = ort.InferenceSession(sys.argv[1], providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
print(json.dumps(session.get_providers()))
"""
    assert here.say(script, str(model)) == ["CPUExecutionProvider"]
    answer = here.adapter("onnxruntime", "gpu:cuda", model)
    assert answer["error"]["code"] == "delegate_missing"
    assert "cpu:mlas" in answer["error"]["message"]


def test_int8_sums_saturate_on_a_cpu_without_vnni_and_weights_of_seven_bits_do_not(tmp_path) -> None:
    """Pairs of u8 x s8 products are added in 16 bits: 255 * 127 * 2 does not fit, 255 * 63 * 2 does."""
    from socbench.models.variants import saturates
    from socbench.records import Device

    flags = set(Path("/proc/cpuinfo").read_text().split())
    device = Device("local", "k", "n", abi="x86_64", cpu_features=tuple(flags))
    recorded = Device("local", "k", "n", abi="x86_64", cpu_features=("avx2", "fma"))
    assert saturates(recorded)
    exact = {weight: 255 * weight * 64 for weight in (127, 63)}
    found = {weight: _matmul_u8s8(tmp_path / f"m{weight}.onnx", weight) for weight in (127, 63)}
    assert found[63] == exact[63]
    if saturates(device):
        assert found[127] < 0.6 * exact[127]
    else:
        assert found[127] == exact[127]


def _matmul_u8s8(path: Path, weight: int) -> int:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    held = numpy_helper.from_array(np.full((64, 64), weight, np.int8), "w")
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [64, 64])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [64, 64])
    graph = helper.make_graph([node], "g", [x], [y], [held])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.full((64, 64), 255, np.uint8)})
    assert (answer == answer[0, 0]).all()
    return int(answer[0, 0])


def test_xnnpack_leaves_the_depthwise_convolutions_of_a_dynamic_range_file(place) -> None:
    model = zoo("tflite-int8_dynamic", "efficientnet_lite0")
    described = place("host").adapter("litert", "cpu:xnnpack", model, "int8_dynamic", runs=1)["described"]
    assert described["delegation"] == "partial"
    assert described["details"]["not_delegated"] == ["DEPTHWISE_CONV_2D"]
    assert described["nodes_total"] - described["nodes_delegated"] == 16
    assert described["precision_effective"] == "int8_dynamic"


def test_openvino_calls_a_layer_f16_that_an_f32_kernel_computes_and_the_adapter_names_the_kernel(place) -> None:
    import openvino

    described = place("host").adapter("openvino", "cpu:openvino", zoo("openvino-fp16"), "fp16")["described"]
    if "FP16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert described["precision_effective"] == "fp32"
    assert described["details"]["output_elements_by_precision"].keys() <= {"fp16", "fp32"}


@pytest.mark.parametrize("delegate", ["auto:openvino", "hetero:openvino"])
def test_what_openvino_chose_by_itself_is_named_and_keeps_to_the_threads(place, tiny, tmp_path, delegate) -> None:
    """Left alone AUTO and HETERO give the CPU all of its threads and do not know that property themselves."""
    here = place("host")
    model = tiny.write_onnx(tmp_path / "m.onnx")
    script = """
import json, os, sys
import openvino
compiled = openvino.Core().compile_model(sys.argv[1], sys.argv[2])
try:
    compiled.get_property("INFERENCE_NUM_THREADS")
except RuntimeError:
    print(json.dumps(compiled.get_property("DEVICE_PROPERTIES")["CPU"]["INFERENCE_NUM_THREADS"]))
"""
    plain = here.say(script, str(model), {"auto:openvino": "AUTO:CPU", "hetero:openvino": "HETERO:CPU"}[delegate])
    assert 1 <= plain <= (os.cpu_count() or 1)
    answer = here.adapter("openvino", delegate, model, inputs={"x": X})
    np.testing.assert_allclose(answer["arrays"][0], tiny.chain(X, 4, 2), rtol=1e-5)
    described = answer["described"]
    assert described["details"]["execution_devices"][-1] == "CPU"
    assert (described["delegate_effective"], described["delegation"]) == ("cpu:openvino", "full")
    assert (described["threads_effective"], described["details"]["inference_precision_hint"]) == (1, "fp32")


@pytest.mark.parametrize(
    ("delegate", "used"),
    [
        ("cpu:reference", 1),  # these kernels know no threads
        ("cpu:builtin", None),  # two pools, of which one works at a time: not told
        ("cpu:xnnpack", 2),
    ],
)
def test_threads_that_kernels_of_litert_do_not_use_are_told(place, delegate, used) -> None:
    answer = place("host").adapter("litert", delegate, ROOT / "models/resnet8/resnet8-fp32.tflite", threads=2)
    assert answer["described"]["threads_effective"] == used


def test_openvino_takes_no_more_threads_than_there_are_cores_and_the_adapter_tells_how_many(place) -> None:
    model = ROOT / "models/resnet8/resnet8-fp32.onnx"
    answer = place("host").adapter("openvino", "cpu:openvino", model, threads=4096)
    assert 1 <= answer["described"]["threads_effective"] <= (os.cpu_count() or 1)


@pytest.mark.runtimes
def test_litert_returns_before_its_gpu_is_done_and_the_adapter_waits(place, tiny, tmp_path) -> None:
    here = place("litert-gpu")
    model = tiny.write_tflite(tmp_path / "m.tflite", size=512, layers=6)
    script = (
        COMPILED
        + """
inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
inputs[0].write(np.ones((1, 512), np.float32))
alone, whole = [], []
for _ in range(30):
    begin = time.perf_counter_ns()
    model.run_by_index(0, inputs, outputs)
    alone.append(time.perf_counter_ns() - begin)
    outputs[0].read(512, np.float32)
    whole.append(time.perf_counter_ns() - begin)
print(json.dumps([sorted(alone)[15], sorted(whole)[15]]))
"""
    )
    alone, whole = here.say(script, str(model), "GPU")
    assert alone < 0.5 * whole
    answer = here.adapter("litert", "gpu:webgpu", model, runs=30)
    assert statistics.median(answer["run_ns"]) > 2 * alone


@pytest.mark.runtimes
def test_shaders_are_compiled_in_the_first_run_which_is_no_measured_one(place, tiny, tmp_path) -> None:
    model = tiny.write_onnx(tmp_path / "m.onnx", size=64)
    times = place("onnxruntime-webgpu").adapter("onnxruntime", "gpu:webgpu", model, runs=6)["run_ns"]
    assert times[0] > 3 * statistics.median(times[1:])


@pytest.mark.runtimes
def test_onnxruntime_answers_a_device_that_openvino_lacks_with_the_cpu_and_the_adapter_says_so(
    place, tiny, tmp_path
) -> None:
    here = place("onnxruntime-openvino")
    model = tiny.write_onnx(tmp_path / "m.onnx")
    described = here.adapter("onnxruntime", "gpu:openvino", model)["described"]
    assert (described["delegation"], described["delegate_effective"]) == ("fell_back", "cpu:mlas")
    assert (described["nodes_total"], described["nodes_delegated"]) == (2, 0)
    assert here.probe("onnxruntime")["gpu:openvino"]["available"] is False


@pytest.mark.runtimes
@pytest.mark.parametrize(
    ("environment", "delegate", "options", "script", "claimed"),
    [
        (
            "onnxruntime-openvino",
            "cpu:openvino",
            {"device_type": "NO_SUCH"},
            'session = ort.InferenceSession(sys.argv[1], providers=[("OpenVINOExecutionProvider", given)])',
            ["CPUExecutionProvider"],
        ),
        (
            "onnxruntime-qnn",
            "npu:qnn",
            {"backend_path": "/no/such/library.so"},
            """
import onnxruntime_qnn
ort.register_execution_provider_library("QNNExecutionProvider", onnxruntime_qnn.get_library_path())
options = ort.SessionOptions()
mine = [device for device in ort.get_ep_devices() if device.ep_name == "QNNExecutionProvider"]
options.add_provider_for_devices(mine[:1], given)
session = ort.InferenceSession(sys.argv[1], options)
""",
            ["QNNExecutionProvider", "CPUExecutionProvider"],  # it counts itself in and takes nothing
        ),
    ],
)
def test_a_provider_that_cannot_start_leaves_all_to_the_cpu_and_the_adapter_says_so(
    place, tiny, tmp_path, environment, delegate, options, script, claimed
) -> None:
    here = place(environment)
    model = tiny.write_onnx(tmp_path / "m.onnx")
    begin = "import json, sys\nimport onnxruntime as ort\ngiven = json.loads(sys.argv[2])\n"
    end = "\nprint()\nprint(json.dumps(session.get_providers()))"
    assert here.say(begin + script + end, str(model), json.dumps(options)) == claimed
    answer = here.adapter("onnxruntime", delegate, model, provider_options=options)
    described = answer["described"]
    assert (described["delegation"], described["delegate_effective"]) == ("fell_back", "cpu:mlas")
    assert (described["nodes_total"], described["nodes_delegated"]) == (2, 0)


@pytest.mark.runtimes
def test_mnn_sorts_its_outputs_by_name_and_hides_a_wrong_layout_and_the_adapter_sees_through_both(place, tmp_path):
    import onnx
    from onnx import TensorProto, helper
    from socbench.models.convert import mnn

    ends = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])]
    ends += [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 1])]
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=1), helper.make_node("ReduceSum", ["z", "axes"], ["a"])]
    given = helper.make_tensor_value_info("x", TensorProto.INT32, [1, 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", [given], ends, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "two.onnx")
    mnn.make(str(tmp_path / "two.onnx"), str(tmp_path / "two.mnn"), "fp32", None)
    x = np.array([[1, 2, 4]], np.int32)
    answer = place("mnn").adapter("mnn", "cpu:mnn", tmp_path / "two.mnn", inputs={"x": x}, runs=1)
    assert answer["outputs"] == ["z", "a"]  # the order of the file; by MNN's session it is a, z
    assert [value.tolist() for value in answer["arrays"]] == [[[1.0, 2.0, 4.0]], [[7.0]]]

    mnn.make(str(ROOT / "models/resnet8/resnet8-fp32.tflite"), str(tmp_path / "last.mnn"), "fp32", None)
    picture = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 28, 28, 1)
    answer = place("mnn").adapter("mnn", "cpu:mnn", tmp_path / "last.mnn", inputs={"x": picture}, runs=1)
    first = {"image": picture.transpose(0, 3, 1, 2)}
    expected = place("host").adapter("onnxruntime", "cpu:mlas", zoo("onnx-fp32"), inputs=first, runs=1)
    np.testing.assert_allclose(answer["arrays"][0], expected["arrays"][0], rtol=1e-3, atol=1e-3)


@pytest.mark.runtimes
def test_a_gpu_of_mnn_is_the_cpu_and_is_refused(place) -> None:
    here = place("mnn")
    model = zoo("mnn-fp32")
    script = """
import json, sys
import MNN
interpreter = MNN.Interpreter(sys.argv[1])
session = interpreter.createSession({"backend": "VULKAN", "precision": "high", "numThread": 1})
print()
print(json.dumps(interpreter.getSessionInfo(session, 2)))
"""
    assert here.say(script, model) == 13  # the CPU's extension for wide instructions
    answer = here.adapter("mnn", "gpu:vulkan", model)
    assert answer["error"]["code"] == "delegate_missing"
    assert here.probe("mnn")["gpu:vulkan"]["available"] is False


@pytest.mark.runtimes
def test_a_matrix_of_ncnn_borrows_its_memory_and_the_adapter_keeps_it(place) -> None:
    here = place("ncnn")
    script = """
import json
import ncnn
import numpy as np
array = np.ones((2, 3, 4), np.float32)
matrix = ncnn.Mat(array)
array[:] = 5
print(json.dumps(float(np.array(matrix)[0, 0, 0])))
"""
    assert here.say(script) == 5.0
    value = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
    answer = here.adapter("ncnn", "cpu:ncnn", zoo("ncnn-fp32"), inputs={"image": value})
    expected = place("host").adapter("onnxruntime", "cpu:mlas", zoo("onnx-fp32"), inputs={"image": value})
    np.testing.assert_allclose(answer["arrays"][0], expected["arrays"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.runtimes
@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_ncnn_are_counted_once_it_has_run(place, threads) -> None:
    answer = place("ncnn").adapter("ncnn", "cpu:ncnn", zoo("ncnn-fp32"), threads=threads)
    assert answer["described"]["threads_effective"] == threads
