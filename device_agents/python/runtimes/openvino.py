"""OpenVINO: CPU, Intel GPU and NPU, AUTO and HETERO.

OpenVINO accepts a precision that the device does not have and computes in another one, so the effective precision is
read from the compiled model: from its layers' run-time precision, and where those do not tell from the property.
"""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_missing,
    heaviest,
    match_inputs,
    missing,
    wanted_shapes,
)

Json = Dict[str, Any]
DEVICES = {
    "cpu:openvino": "CPU",
    "gpu:intel": "GPU",
    "npu:intel": "NPU",
    "auto:openvino": "AUTO",
    "hetero:openvino": "HETERO",
}
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
PRECISIONS = {"FP32": "fp32", "F32": "fp32", "FP16": "fp16", "F16": "fp16", "BF16": "bf16", "U8": "int8", "I8": "int8"}
HEAVY = ("Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected", "RNNSeq", "LSTMSequence")
PROFILE_RUNS = 10


class OpenvinoSession(Session):  # type: ignore[misc]
    """A compiled model with one request whose tensors are set before the runs."""

    def __init__(self, model: str, trial: Json) -> None:
        import openvino as ov

        self.ov = ov
        self.trial = trial
        self.core = ov.Core()
        self.device = find_device(self.core, trial["delegate"])
        read = read_model(self.core, model, trial)
        begin = time.perf_counter_ns()
        self.compiled = compile_model(self.core, read, self.device, trial)
        self.compile_ns = time.perf_counter_ns() - begin
        self.request = self.compiled.create_infer_request()
        self.inputs = [_spec(port, index, "input") for index, port in enumerate(self.compiled.inputs)]
        self.output_specs = [_spec(port, index, "output") for index, port in enumerate(self.compiled.outputs)]
        self.tensors: List[Any] = []
        self.run = self._fastest()

    def _fastest(self) -> Any:
        """Return the cheapest call: infer() of the C++ request, sharing outputs, so that none is copied in a run."""
        try:
            from openvino._pyopenvino import InferRequest

            return functools.partial(InferRequest.infer, self.request, {}, True, False)
        except ImportError:
            return functools.partial(self.request.infer, share_outputs=True)

    def bind(self, inputs: Json) -> None:
        """Set tensors that own a copy of the inputs."""
        arrays = match_inputs(self.inputs, inputs)
        self.tensors = [self.ov.Tensor(array) for array in arrays]
        for index, tensor in enumerate(self.tensors):
            self.request.set_input_tensor(index, tensor)

    def outputs(self) -> Json:
        """Return copies of the request's output tensors."""
        return {
            spec["name"]: self.request.get_output_tensor(index).data.copy()
            for index, spec in enumerate(self.output_specs)
        }

    def describe(self) -> Json:
        """Return what the compiled model says of itself. AUTO and HETERO are told by the devices that they chose."""
        executed = _execution_devices(self.compiled)
        plain = [name.split(".")[0] for name in executed]
        wanted = [self.device] if self.device in ("CPU", "GPU", "NPU") else plain
        delegation = "unknown" if not executed else "full" if plain == wanted else "fell_back"
        if delegation == "fell_back" and wanted[0] in plain:
            delegation = "partial"
        layers = _runtime_layers(self.compiled)
        precision, weights = _executed_precision(layers)
        total = sum(1 for layer in layers if layer["type"] not in ("Input", "Output", "Const", "Parameter", "Result"))
        hint = _property(self.compiled, "INFERENCE_PRECISION_HINT", executed)
        return {
            "runtime_version": self.ov.__version__.split("-")[0],
            "compile_ns": self.compile_ns,
            "delegate_effective": _delegate_of(plain, self.trial["delegate"]),
            "accelerator": _device_name(self.core, executed),
            "emulated": False,
            "delegation": delegation,
            "delegation_evidence": "reported" if executed else "none",
            "nodes_total": total or None,
            "nodes_delegated": total if total and delegation == "full" else None,
            "partitions": _property(self.compiled, "HETERO_NUMBER_OF_SUBMODELS") or (1 if len(plain) == 1 else None),
            "precision_effective": precision or _precision_of_hint(hint),
            "threads_effective": _property(self.compiled, "INFERENCE_NUM_THREADS", executed),
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {
                "execution_devices": executed,
                "inference_precision_hint": _precision_of_hint(hint),
                "output_elements_by_precision": weights,
                "streams": _property(self.compiled, "NUM_STREAMS", executed),
            },
        }

    def evidence(self) -> Json:
        """Return the devices that AUTO and HETERO ran on: AUTO may change its mind after the first inferences."""
        return {} if self.device in ("CPU", "GPU", "NPU") else self.describe()

    def close(self) -> None:
        """Drop the request before the model."""
        self.run = self.request = self.tensors = None  # type: ignore[assignment]
        self.compiled = self.core = None


def find_device(core: Any, delegate: str) -> str:
    """Return OpenVINO's name of the device; RuntimeProblem ``delegate_missing`` when it is not there."""
    device = DEVICES.get(delegate)
    have = list(core.available_devices)
    names = [name for name, value in DEVICES.items() if value in have or value in ("AUTO", "HETERO")]
    plain = {name.split(".")[0] for name in have}
    if device is None or (device not in plain and device not in ("AUTO", "HETERO")):
        raise delegate_missing(
            "openvino", delegate, names, "install the device's driver; OpenVINO lists " + ", ".join(have)
        )
    # The first in the list that can takes an operation: the CPU goes last, it can take all.
    return "HETERO:" + ",".join(sorted(have, key="CPU".__eq__)) if device == "HETERO" else device


def read_model(core: Any, model: str, trial: Json) -> Any:
    """Read a file of any format that OpenVINO takes and give it the trial's shapes."""
    name = os.path.basename(model)
    try:
        read = core.read_model(model)
    except RuntimeError as error:
        raise _problem(error, model) from None
    specs = [_spec(port, index, "input") for index, port in enumerate(read.inputs)]
    wanted = wanted_shapes(specs, trial)
    if wanted:
        ports = {spec["name"]: port for spec, port in zip(specs, read.inputs)}
        try:
            read.reshape({ports[key]: list(shape) for key, shape in wanted.items()})
        except RuntimeError as error:
            raise RuntimeProblem(
                "shape_mismatch", f"{name} cannot take the shapes asked for: {_short(error)}"
            ) from None
    return read


def compile_model(core: Any, read: Any, device: str, trial: Json, profile: bool = False) -> Any:
    """Compile for latency with the threads and the precision that were asked for, and nothing left to a default."""
    options = trial.get("options") or {}
    hint = options.get("inference_precision") or HINTS.get(trial["precision"], "f32")
    on_cpu = {"INFERENCE_NUM_THREADS": trial["threads"], "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    config: Dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        config.update(on_cpu)
    elif device == "GPU":
        config["INFERENCE_PRECISION_HINT"] = hint
    elif device != "NPU":  # AUTO and HETERO take these for a device only, and leave the CPU all of its threads else
        config["DEVICE_PROPERTIES"] = {"CPU": on_cpu}
    if device == "AUTO":
        config["ENABLE_STARTUP_FALLBACK"] = False  # else the CPU serves until the device that it chose is ready
    if options.get("execution_mode") == "accuracy":
        config["EXECUTION_MODE_HINT"] = "ACCURACY"
    if profile:
        config["PERF_COUNT"] = True
    try:
        return core.compile_model(read, device, config)
    except RuntimeError as error:
        raise _problem(error, read.get_friendly_name()) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _problem(error: Exception, model: str) -> RuntimeProblem:
    text, name = _short(error), os.path.basename(model)
    if re.search(
        r"OpConversionFailure|No conversion rule|[Uu]nsupported op|not supported by|Cannot create .* layer", text
    ):
        return RuntimeProblem("op_unsupported", f"OpenVINO lacks an operator of {name}: {text}")
    if re.search(r"bad_alloc|[Oo]ut of memory", text):
        return RuntimeProblem("out_of_memory", f"OpenVINO has no memory for {name}: {text}")
    return RuntimeProblem("model_invalid", f"{name} is not a model that OpenVINO can load: {text}")


def _spec(port: Any, index: int, kind: str) -> Json:
    shape = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    dtype = port.get_element_type().to_dtype().name
    return {"name": _name(port, index, kind), "dtype": dtype, "shape": shape, "scale": None, "zero_point": None}


def _name(port: Any, index: int, kind: str) -> str:
    """Return the file's own name of a port: OpenVINO adds names that its passes leave, in no order."""
    names = port.get_names()
    own = port.get_node().get_friendly_name().split("/sink_port_")[0]
    return own if own in names else min(names) if names else f"{kind}{index}"


def _property(compiled: Any, name: str, executed: Sequence[str] = ()) -> Any:
    """Return a property of the compiled model, or None. AUTO and HETERO know some only for the one device chosen."""
    try:
        value = compiled.get_property(name)
    except RuntimeError:
        if len(executed) != 1:
            return None
        try:
            value = compiled.get_property("DEVICE_PROPERTIES")[executed[0]][name]
        except (RuntimeError, KeyError):
            return None
    return value if isinstance(value, (int, str, list)) else str(value)


def _delegate_of(devices: List[str], asked: str) -> str:
    """Return the delegate that the devices amount to; what was asked for where they are several or not known."""
    names = {device: name for name, device in DEVICES.items()}
    return names.get(devices[0], asked) if len(set(devices)) == 1 else asked


def _execution_devices(compiled: Any) -> List[str]:
    value = _property(compiled, "EXECUTION_DEVICES")
    if isinstance(value, str):
        value = value.split()
    return [str(name).strip("()") for name in value or []]


def _device_name(core: Any, executed: List[str]) -> Optional[str]:
    if not executed:
        return None
    try:
        return str(core.get_property(executed[0], "FULL_DEVICE_NAME")) or cpu_name()
    except RuntimeError:
        return None


def _precision_of_hint(hint: Any) -> Optional[str]:
    found = re.search(r"float(32|16)|bf(?:loat)?16|f(32|16)", str(hint)) if hint is not None else None
    if found is None:
        return None
    return "bf16" if "bf" in found.group(0) else "fp" + re.sub(r"\D", "", found.group(0))


def _runtime_layers(compiled: Any) -> List[Json]:
    """Return ``{type, precision, elements}`` of the layers that the device made of the model."""
    try:
        ops = compiled.get_runtime_model().get_ordered_ops()
    except RuntimeError:
        return []
    layers = []
    for op in ops:
        info = {key: str(getattr(value, "value", value)) for key, value in op.get_rt_info().items()}
        elements = 1
        if op.get_output_size() and not op.get_output_partial_shape(0).is_dynamic:
            for size in op.get_output_shape(0):
                elements *= size
        layers.append(
            {
                "type": info.get("layerType", ""),
                "precision": info.get("runtimePrecision", ""),
                "kernel": info.get("primitiveType", ""),
                "elements": elements,
            }
        )
    return layers


def _executed_precision(layers: List[Json]) -> Any:
    """Return precision by most output elements. The kernel's own name (``brgconv_avx2_f32``) goes before the layer's
    run-time precision: weights that a file stores in f16 make that f16 while an f32 kernel runs."""
    weights: Dict[str, float] = {}
    for layer in layers:
        kernel = re.search(r"_(f32|f16|bf16|i8|u8)$", layer["kernel"], re.IGNORECASE)
        precision = PRECISIONS.get((kernel.group(1) if kernel else layer["precision"]).upper())
        if layer["type"] in HEAVY and precision:
            weights[precision] = weights.get(precision, 0) + layer["elements"]
    return heaviest(weights), weights


class OpenvinoAdapter(Adapter):  # type: ignore[misc]
    """OpenVINO."""

    name = "openvino"
    formats = ["openvino", "onnx", "tflite"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import openvino."""
        try:
            import openvino
        except ImportError as error:
            raise missing("openvino", error, "pip install openvino") from None
        if not hasattr(openvino, "Core"):
            raise RuntimeProblem("runtime_broken", "the Python package openvino is empty", "install it again")

    def probe(self) -> Json:
        """Ask OpenVINO which devices it sees."""
        self.import_runtime()
        import openvino as ov

        core = ov.Core()
        have = {name.split(".")[0]: name for name in core.available_devices}
        delegates = []
        for name, device in DEVICES.items():
            there = device in have or device in ("AUTO", "HETERO")
            capabilities = _capabilities(core, have[device]) if device in have else None
            delegates.append(
                {
                    "delegate": name,
                    "available": there,
                    "accelerator": _device_name(core, [have[device]]) if device in have else None,
                    "emulated": False,
                    "precisions": capabilities,
                    "reason": None if there else f"OpenVINO sees no {device} here",
                    "fix": None if there else f"install Intel's {device} driver, if this machine has such a device",
                }
            )
        return {
            "runtime": self.name,
            "version": ov.__version__.split("-")[0],
            "formats": self.formats,
            "error": None,
            "delegates": delegates,
        }

    def load(self, model: str, trial: Json) -> Session:
        """Read and compile."""
        return OpenvinoSession(model, trial)

    def profile(self, model: str, trial: Json, inputs: Json) -> List[List[Any]]:
        """Return the mean of the layers' times over a few runs of a model compiled with performance counters."""
        import openvino as ov

        core = ov.Core()
        device = find_device(core, trial["delegate"])
        compiled = compile_model(core, read_model(core, model, trial), device, trial, profile=True)
        specs = [_spec(port, index, "input") for index, port in enumerate(compiled.inputs)]
        request = compiled.create_infer_request()
        for index, array in enumerate(match_inputs(specs, inputs)):
            request.set_input_tensor(index, ov.Tensor(array))
        request.infer()
        rows: Dict[str, List[Any]] = {}
        for _ in range(PROFILE_RUNS):
            request.infer()
            for layer in request.profiling_info:
                if str(layer.status).endswith("NOT_RUN"):
                    continue
                row = rows.setdefault(
                    layer.node_name, [len(rows), layer.node_type, layer.node_name, layer.exec_type, 0, 1]
                )
                row[4] += round(layer.real_time.total_seconds() * 1e9)
        return [[*row[:4], row[4] // PROFILE_RUNS, row[5]] for row in rows.values()]


def _capabilities(core: Any, device: str) -> Optional[List[str]]:
    try:
        found = [str(name) for name in core.get_property(device, "OPTIMIZATION_CAPABILITIES")]
    except RuntimeError:
        return None
    return [
        ours
        for theirs, ours in (("FP32", "fp32"), ("FP16", "fp16"), ("BF16", "bf16"), ("INT8", "int8"))
        if theirs in found
    ]


ADAPTER = OpenvinoAdapter()
