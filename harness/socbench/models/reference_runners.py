"""Runs a model file on the host the plainest way there is; imported only in a child process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from socbench.models.formats.openvino import own_name

Run = Callable[[dict[str, Any]], dict[str, Any]]


def run(form: str, path: str, inputs: str, out: str) -> dict[str, Any]:
    """Run ``path`` on every input of the .npz ``inputs`` (``{name: (count, *shape)}``) and write the .npz ``out``.

    ``out`` has ``{name: (count, *shape)}`` in the file's order; returns ``{"outputs": [names]}``.
    """
    import numpy as np

    with np.load(inputs, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    once = _LOADERS[form](path, {name: array.shape[1:] for name, array in arrays.items()})
    count = len(next(iter(arrays.values())))
    answers = [once({name: array[index] for name, array in arrays.items()}) for index in range(count)]
    names = list(answers[0])
    made = {str(place): np.stack([answer[name] for answer in answers]) for place, name in enumerate(names)}
    np.savez(out, allow_pickle=False, **made)
    return {"outputs": names}


def _tflite(path: str, shapes: dict[str, tuple[int, ...]]) -> Run:
    """LiteRT with its reference kernels: no XNNPACK, no optimised arithmetic."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    places = {item["name"]: item for item in model.get_input_details()}
    for name, shape in shapes.items():
        if tuple(places[name]["shape"]) != tuple(shape):
            model.resize_tensor_input(places[name]["index"], shape)
    model.allocate_tensors()
    made = [(item["name"], item["index"]) for item in model.get_output_details()]

    def once(inputs: dict[str, Any]) -> dict[str, Any]:
        for name, array in inputs.items():
            model.set_tensor(places[name]["index"], array)
        model.invoke()
        return {name: model.get_tensor(index) for name, index in made}

    return once


def _onnx(path: str, shapes: dict[str, tuple[int, ...]]) -> Run:
    """ONNX Runtime on the CPU with graph optimisation off: every node as the file has it."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]

    def once(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return once


def _openvino(path: str, shapes: dict[str, tuple[int, ...]]) -> Run:
    """OpenVINO at f32, in its accuracy mode, with one thread."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    ports = {_name(port): port for port in model.inputs}
    model.reshape({ports[name]: list(shape) for name, shape in shapes.items()})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    names = [_name(port) for port in model.outputs]
    places = [_name(port) for port in model.inputs]

    def once(inputs: dict[str, Any]) -> dict[str, Any]:
        request.infer([inputs[name] for name in places])
        return {name: request.get_output_tensor(index).data.copy() for index, name in enumerate(names)}

    return once


def _name(port: Any) -> str:
    return own_name(port.get_node().get_friendly_name().split("/sink_port_")[0], port.get_names())


_LOADERS: dict[str, Callable[[str, dict[str, tuple[int, ...]]], Run]] = {
    "tflite": _tflite,
    "onnx": _onnx,
    "openvino": _openvino,
}
