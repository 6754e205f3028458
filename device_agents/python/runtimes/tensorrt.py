"""TensorRT: from one of the packages ``tensorrt``, ``tensorrt-rtx``, ``tensorrt-lean`` (each in its own environment).

Networks are strongly typed: the precision is that of the model. An engine is built once for each model, GPU, package
and version and kept beside the model; building it is load time, never inference. The timed call ends when the outputs
lie in host memory; the GPU's own time, by CUDA events, is in the details.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import time
from typing import Any, Dict, List, Optional, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    delegate_entry,
    delegate_missing,
    heaviest,
    match_inputs,
    missing,
    part,
    wanted_shapes,
)

Json = Dict[str, Any]
PACKAGES = ("tensorrt_rtx", "tensorrt", "tensorrt_lean")
FIX = "socbench runtimes install tensorrt-rtx (or tensorrt, tensorrt-lean)"
PROFILE_RUNS = 10
EVENT_RUNS = 20
PRECISIONS = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "BFloat16": "bf16", "Int8": "int8"}


def runtime() -> Tuple[Any, str]:
    """Return the module and the name of the package that is installed."""
    for name in PACKAGES:
        try:
            return importlib.import_module(name), name.replace("_", "-")
        except ModuleNotFoundError as error:
            if error.name not in PACKAGES:
                raise missing(name, error, FIX) from None
        except ImportError as error:
            raise missing(name, error, FIX) from None
    message = "none of the Python packages tensorrt-rtx, tensorrt and tensorrt-lean is installed"
    raise RuntimeProblem("runtime_missing", message, FIX)


def engine_key(facts: Json) -> str:
    """Return the name of an engine: it serves the same model on the same GPU with the same build of TensorRT only.

    ``facts``: ``package``, ``version``, ``gpu``, ``capability``, ``model_sha256``, ``shapes``, ``dla``.
    """
    needed = ("package", "version", "gpu", "capability", "model_sha256", "shapes", "dla")
    text = json.dumps({name: facts[name] for name in needed}, sort_keys=True)
    return "engine-" + hashlib.sha256(text.encode()).hexdigest()[:40]


def sha256_of(path: str) -> str:
    """Return the digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def build(
    trt: Any, model: str, shapes: Dict[str, List[int]], capability: Optional[Any] = None, dla: bool = False
) -> Any:
    """Return a serialized engine of an ONNX file.

    ``capability``: a ComputeCapability that TensorRT-RTX builds for without that GPU; None builds for the one here.
    RuntimeProblem: a package that builds nothing, a file that is none, an operator that there is not, a failed build.
    """
    name = os.path.basename(model)
    if not hasattr(trt, "Builder") or not hasattr(trt, "OnnxParser"):
        advice = "use the environment tensorrt or tensorrt-rtx"
        raise RuntimeProblem("op_unsupported", f"this package runs engines and builds none, and {name} is ONNX", advice)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    with open(model, "rb") as file:
        parsed = parser.parse(file.read())
    if not parsed:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _parse_problem(errors, name)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    if dla:
        config.default_device_type = trt.DeviceType.DLA
    if shapes:
        profile = builder.create_optimization_profile()
        for tensor, shape in shapes.items():
            profile.set_shape(tensor, tuple(shape), tuple(shape), tuple(shape))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeProblem("run_failed", f"TensorRT could not build an engine of {name}; its log says why")
    return engine


def _parse_problem(errors: List[Any], name: str) -> RuntimeProblem:
    said = (f"{_operator(error)}: {error.desc()}" for error in errors)
    text = " ".join("; ".join(said).split())[:400]
    if not errors or re.search(r"deserialize|parse|protobuf|not a valid|empty", text, re.IGNORECASE):
        return RuntimeProblem(
            "model_invalid", f"{name} is not a model that TensorRT can load: {text or 'no ONNX file'}"
        )
    advice = "quantise symmetrically and leave biases in float" if "DequantizeLinear" in text else None
    return RuntimeProblem("op_unsupported", f"TensorRT cannot take an operator of {name}: {text}", advice)


def _operator(error: Any) -> str:
    """Return the operator and the node that an error of the parser is about, where this version tells."""
    words = [getattr(error, name)() for name in ("node_operator", "node_name") if hasattr(error, name)]
    return " ".join(str(word) for word in words if word) or "the model"


def layers_precision(inspected: str) -> Tuple[Optional[str], int, Dict[str, int]]:
    """Return precision by most layers, number of layers, and layers by precision, of the inspector's JSON."""
    try:
        layers = json.loads(inspected).get("Layers", [])
    except ValueError:
        return None, 0, {}
    weights: Dict[str, int] = {}
    for layer in layers:
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        for output in outputs[:1]:
            words = re.findall(r"[A-Za-z]+\d*", str(output.get("Format/Datatype", output.get("Datatype", ""))))
            precision = next((PRECISIONS[word] for word in words if word in PRECISIONS), None)
            if precision:
                weights[precision] = weights.get(precision, 0) + 1
    return heaviest(weights), len(layers), weights


class TensorrtSession(Session):  # type: ignore[misc]
    """An engine with its own buffers on the GPU and in pinned host memory."""

    def __init__(self, model: str, trial: Json) -> None:
        cuda = part("cuda")
        self.trial = trial
        self.trt, self.package = runtime()
        self.gpu = cuda.device()
        if trial["delegate"] not in ("gpu:cuda", "npu:dla"):
            raise delegate_missing("tensorrt", trial["delegate"], ["gpu:cuda", "npu:dla"])
        begin = time.perf_counter_ns()
        self.engine, self.built = self._engine(model)
        self.compile_ns = time.perf_counter_ns() - begin
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT]
        self.inputs = [self._spec(name) for name in inputs]
        for name, shape in wanted_shapes(self.inputs, trial).items():
            next(spec for spec in self.inputs if spec["name"] == name)["shape"] = list(shape)
        for spec in self.inputs:
            self.context.set_input_shape(spec["name"], tuple(spec["shape"]))
        self.output_specs = [self._spec(name, ask=self.context) for name in names if name not in inputs]
        self.stream = cuda.Stream()
        self.buffers = {spec["name"]: cuda.Buffer(spec) for spec in [*self.inputs, *self.output_specs]}
        for name, buffer in self.buffers.items():
            self.context.set_tensor_address(name, buffer.address)
        self.run = self._once

    def _engine(self, model: str) -> Tuple[Any, bool]:
        """Return the engine and whether it was built now."""
        facts = {
            "package": self.package,
            "version": self.trt.__version__,
            "gpu": self.gpu["name"],
            "capability": self.gpu["capability"],
            "model_sha256": sha256_of(model),
            "shapes": {name: list(shape) for name, shape in sorted((self.trial.get("shapes") or {}).items())},
            "dla": self.trial["delegate"] == "npu:dla",
        }
        path = os.path.join(os.path.dirname(model), engine_key(facts) + ".plan")
        loader = self.trt.Runtime(self.trt.Logger(self.trt.Logger.ERROR))
        if os.path.exists(path):
            with open(path, "rb") as file:
                engine = loader.deserialize_cuda_engine(file.read())
            if engine is not None:
                return engine, False
        serialized = build(self.trt, model, facts["shapes"], dla=facts["dla"])
        partial = f"{path}.{os.getpid()}"
        with open(partial, "wb") as file:
            file.write(serialized)
        os.replace(partial, path)
        engine = loader.deserialize_cuda_engine(serialized)
        if engine is None:
            raise RuntimeProblem("run_failed", "TensorRT built an engine and cannot load it; its log says why")
        return engine, True

    def _spec(self, name: str, ask: Any = None) -> Json:
        import numpy as np

        shape = (ask or self.engine).get_tensor_shape(name)
        dtype = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name))).name
        sizes = [None if size < 0 else int(size) for size in shape]
        return {"name": name, "dtype": dtype, "shape": sizes, "scale": None, "zero_point": None}

    def _once(self) -> None:
        """Run, fetch the outputs and wait: then they are readable."""
        self.context.execute_async_v3(self.stream.handle)
        for spec in self.output_specs:
            self.buffers[spec["name"]].fetch(self.stream)
        self.stream.wait()

    def bind(self, inputs: Json) -> None:
        """Copy the inputs to the GPU."""
        for spec, array in zip(self.inputs, match_inputs(self.inputs, inputs)):
            self.buffers[spec["name"]].put(array, self.stream)
        self.stream.wait()

    def outputs(self) -> Json:
        """Return copies of the outputs in host memory."""
        return {spec["name"]: self.buffers[spec["name"]].host.copy() for spec in self.output_specs}

    def describe(self) -> Json:
        """An engine runs whole on its GPU; layers and their types come from its inspector."""
        text = self.engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON)
        precision, total, weights = layers_precision(text)
        return {
            "runtime_version": f"{self.package} {self.trt.__version__}",
            "compile_ns": self.compile_ns,
            "delegate_effective": self.trial["delegate"],
            "accelerator": self.gpu["name"],
            "emulated": False,
            "delegation": "full",
            "delegation_evidence": "reported",
            "nodes_total": total or None,
            "nodes_delegated": total or None,
            "partitions": 1,
            "precision_effective": precision,
            "threads_effective": None,
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"engine_built": self.built, "layers_by_precision": weights, "gpu": self.gpu},
        }

    def evidence(self) -> Json:
        """Return the GPU's own time of an inference, by CUDA events."""
        times = [
            self.stream.timed(lambda: self.context.execute_async_v3(self.stream.handle)) for _ in range(EVENT_RUNS)
        ]
        return {"details": dict(self.describe()["details"], cuda_event_ns=sorted(times)[len(times) // 2])}

    def close(self) -> None:
        """Free the GPU's memory."""
        self.run = self.context = self.engine = None  # type: ignore[assignment]
        for buffer in self.buffers.values():
            buffer.free()


class TensorrtAdapter(Adapter):  # type: ignore[misc]
    """TensorRT."""

    name = "tensorrt"
    formats = ["onnx"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import the package that is there, and CUDA."""
        runtime()
        part("cuda").library()

    def probe(self) -> Json:
        """Ask CUDA for the GPU; without one the reason is CUDA's own."""
        trt, package = runtime()
        fix = "run on a machine with an NVIDIA GPU and its driver"
        try:
            gpu = part("cuda").device()
            entries = [delegate_entry("gpu:cuda", gpu["name"], precisions=["fp32", "fp16", "int8"])]
        except RuntimeProblem as problem:
            entries = [delegate_entry("gpu:cuda", None, problem.message, fix=fix)]
        cores = self._dla_cores(trt) if entries[0]["available"] else 0
        against = None if cores else "there is no deep learning accelerator (DLA) here"
        entries.append(delegate_entry("npu:dla", "NVIDIA DLA" if cores else None, against, fix="use a Jetson with one"))
        return {
            "runtime": self.name,
            "version": f"{package} {trt.__version__}",
            "formats": self.formats,
            "error": None,
            "delegates": entries,
        }

    @staticmethod
    def _dla_cores(trt: Any) -> int:
        if not hasattr(trt, "Builder"):
            return 0
        return int(getattr(trt.Builder(trt.Logger(trt.Logger.ERROR)), "num_DLA_cores", 0))

    def load(self, model: str, trial: Json) -> Session:
        """Build or find the engine and load it."""
        return TensorrtSession(model, trial)

    def profile(self, model: str, trial: Json, inputs: Json) -> List[List[Any]]:
        """Return the mean of the layers' times over a few runs under TensorRT's profiler."""
        session = TensorrtSession(model, trial)
        rows: Dict[str, List[Any]] = {}

        class Profiler(session.trt.IProfiler):  # type: ignore[name-defined,misc]
            """Sums the times of a layer."""

            def report_layer_time(self, name: str, milliseconds: float) -> None:
                """Take one time."""
                row = rows.setdefault(name, [len(rows), "layer", name, "gpu", 0.0, 1])
                row[4] += milliseconds * 1e6

        session.bind(inputs)
        session.run()
        session.context.profiler = Profiler()
        for _ in range(PROFILE_RUNS):
            session.run()
        session.close()
        return [[*row[:4], round(row[4] / PROFILE_RUNS), row[5]] for row in rows.values()]


ADAPTER = TensorrtAdapter()
