"""MNN through its Module API: CPU, and whatever GPU back ends the build carries.

A build without a back end runs on the CPU and says so in one line of output. What a session really runs on is asked of
the session itself: information 2 is the list of its back ends.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_has_fp16,
    cpu_name,
    delegate_entry,
    delegate_missing,
    match_inputs,
    misfit,
    missing,
    part,
    thread_count,
    wanted_shapes,
)

Json = Dict[str, Any]
BACKENDS = {"cpu:mnn": "CPU", "gpu:vulkan": "VULKAN", "gpu:opencl": "OPENCL"}
CODES = {0: "cpu:mnn", 13: "cpu:mnn", 3: "gpu:opencl", 7: "gpu:vulkan"}
"""MNNForwardType: CPU and its extension for wide instructions, OpenCL, Vulkan."""
INFO_BACKENDS = 2
CHANNELS_LAST = 0
"""Dimension type of a tensor whose layout is TensorFlow's."""
FIX = "socbench runtimes install mnn"


class MnnSession(Session):  # type: ignore[misc]
    """A module whose inputs are variables written before the runs."""

    def __init__(self, model: str, trial: Json) -> None:
        import MNN
        import MNN.expr as expr
        from MNN import nn

        self.version = str(MNN.version())
        self.trial = trial
        backend = BACKENDS.get(trial["delegate"])
        if backend is None:
            raise delegate_missing("mnn", trial["delegate"], list(BACKENDS))
        self.backend_codes, self.inputs, names = look_into(MNN, model, backend, trial)
        if wanted_shapes(self.inputs, trial):
            self._reshape(trial)
        effective = effective_delegate(self.backend_codes)
        if effective != trial["delegate"] and backend != "CPU":
            text = f"this build of MNN has no {backend} back end: it would run on the CPU"
            raise RuntimeProblem("delegate_missing", text, "use a build of MNN with that back end")
        before = thread_count()
        config = _config(backend, trial)
        self.manager = nn.create_runtime_manager((config,))
        given = [spec["name"] for spec in self.inputs]
        self.net = nn.load_module_from_file(model, given, [], runtime_manager=self.manager)
        in_order = self.net.get_info().get("outputNames") or []  # of the file, as the module answers; names are sorted
        names = in_order if sorted(in_order) == sorted(names) else names
        self.threads = thread_count() - before + 1
        self.variables = [_placeholder(expr, spec) for spec in self.inputs]
        self.output_specs = [
            {"name": name, "dtype": "float32", "shape": [], "scale": None, "zero_point": None} for name in names
        ]
        self.results: List[Any] = []
        self.run = self._on_cpu if backend == "CPU" else self._on_device

    def _reshape(self, trial: Json) -> None:
        for name, shape in wanted_shapes(self.inputs, trial).items():
            spec = next(spec for spec in self.inputs if spec["name"] == name)
            if any(own is not None and own != size for own, size in zip(spec["shape"], shape)):
                raise misfit(name, shape, spec["shape"])
            spec["shape"] = list(shape)

    def bind(self, inputs: Json) -> None:
        """Write copies of the inputs into the variables."""
        for variable, array in zip(self.variables, match_inputs(self.inputs, inputs)):
            variable.write(array)

    def _on_cpu(self) -> None:
        self.results = self.net.forward(self.variables)

    def _on_device(self) -> None:
        """Run and fetch the outputs: only then has a device finished."""
        self.results = self.net.forward(self.variables)
        for result in self.results:
            result.read()

    def outputs(self) -> Json:
        """Return copies of the outputs; what MNN could not compute it leaves out without an error."""
        if len(self.results) != len(self.output_specs):
            text = f"MNN computed {len(self.results)} of {len(self.output_specs)} outputs and did not say why"
            raise RuntimeProblem("run_failed", text)
        return {spec["name"]: result.read().copy() for spec, result in zip(self.output_specs, self.results)}

    def describe(self) -> Json:
        """Return the back ends that a session of this file with these settings has; MNN counts no operations."""
        effective = effective_delegate(self.backend_codes)
        mixed = len({CODES.get(code, "unknown") for code in self.backend_codes}) > 1
        delegation = "fell_back" if effective != self.trial["delegate"] else "unknown" if mixed else "full"
        device = part("vulkan").chosen() if effective == "gpu:vulkan" else None
        half = self.trial["precision"] == "fp16" and cpu_has_fp16()
        cpu = effective == "cpu:mnn"
        return {
            "runtime_version": self.version,
            "delegate_effective": effective,
            "accelerator": cpu_name() if cpu else device["name"] if device else None,
            "emulated": bool(device and device["software"]),
            "delegation": delegation,
            "delegation_evidence": "reported",
            "nodes_total": None,
            "nodes_delegated": None,
            "partitions": None,
            "precision_effective": ("fp16" if half else "fp32") if cpu else None,
            "threads_effective": self.threads if cpu else None,
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"backends": self.backend_codes},
        }

    def close(self) -> None:
        """Drop the module before its runtime."""
        self.results = []
        self.run = self.net = self.variables = self.manager = None  # type: ignore[assignment]


def _config(backend: str, trial: Json) -> Json:
    """``low`` lets MNN compute in fp16 where the CPU can; it computes in fp32 where it cannot."""
    precision = "low" if trial["precision"] == "fp16" else "high"
    return {"backend": backend, "precision": precision, "numThread": trial["threads"]}


def effective_delegate(codes: List[int]) -> str:
    """Return the delegate that back ends amount to: an accelerator where any is among them, else the CPU."""
    named = [CODES.get(code, "unknown") for code in codes]
    return next((name for name in named if not name.startswith("cpu")), named[0] if named else "unknown")


def look_into(mnn: Any, model: str, backend: str, trial: Json) -> Any:
    """Return the codes of the back ends of a session, the inputs' specs and the names of the outputs.

    Raises RuntimeProblem ``model_invalid`` for a file that is none (MNN itself may only print that).
    """
    name = os.path.basename(model)
    problem = RuntimeProblem("model_invalid", f"{name} is not a model that MNN can load")
    if os.path.getsize(model) < 32:
        raise problem
    try:
        interpreter = mnn.Interpreter(model)
        session = interpreter.createSession(_config(backend, trial))
        inputs = [_spec(mnn, key, tensor) for key, tensor in interpreter.getSessionInputAll(session).items()]
        names = list(interpreter.getSessionOutputAll(session))
        codes = interpreter.getSessionInfo(session, INFO_BACKENDS)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise RuntimeProblem("model_invalid", f"{name} is not a model that MNN can load: {text}") from None
    if not inputs or not names:
        raise problem
    return (list(codes) if isinstance(codes, (list, tuple)) else [int(codes)]), inputs, names


def _spec(mnn: Any, name: str, tensor: Any) -> Json:
    shape = [int(size) if int(size) > 0 else None for size in tensor.getShape()]
    kinds = {"Int": "int32", "Int64": "int64", "Uint8": "uint8", "Double": "float64"}
    found = tensor.getDataType()  # an object without a value, the same one as the constant of its kind
    dtype = next((kinds[kind] for kind in kinds if found is getattr(mnn, f"Halide_Type_{kind}", None)), "float32")
    channels_last = len(shape) == 4 and tensor.getDimensionType() == CHANNELS_LAST
    layout = "NHWC" if channels_last else None
    return {"name": name, "dtype": dtype, "shape": shape, "layout": layout, "scale": None, "zero_point": None}


def _placeholder(expr: Any, spec: Json) -> Any:
    """Return a variable for an input. Of the wrong layout, MNN would compute nothing and not say so."""
    kinds = {"float32": expr.float, "int32": expr.int, "int64": expr.int64, "uint8": expr.uint8}
    layout = expr.NHWC if spec["layout"] == "NHWC" else expr.NCHW
    return expr.placeholder(list(spec["shape"]), layout, kinds.get(spec["dtype"], expr.float))


class MnnAdapter(Adapter):  # type: ignore[misc]
    """MNN."""

    name = "mnn"
    formats = ["mnn"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import MNN."""
        try:
            import MNN
        except ImportError as error:
            raise missing("MNN", error, FIX) from None
        if not hasattr(MNN, "Interpreter"):
            raise RuntimeProblem("runtime_broken", "the Python package MNN is empty", "install it again")

    def probe(self) -> Json:
        """Ask for each back end; without a model MNN only says in its output that it takes another."""
        self.import_runtime()
        import MNN

        precisions = ["fp32", "fp16"] if cpu_has_fp16() else ["fp32"]
        entries = [delegate_entry("cpu:mnn", cpu_name(), precisions=precisions)]
        for delegate in ("gpu:vulkan", "gpu:opencl"):
            entries.append(self._gpu(delegate))
        return {
            "runtime": self.name,
            "version": str(MNN.version()),
            "formats": self.formats,
            "error": None,
            "delegates": entries,
        }

    @staticmethod
    def _gpu(delegate: str) -> Json:
        """Ask MNN for the back end and read what it prints: "Can't Find type=7 backend, use 0 instead"."""
        from MNN import nn

        config = {"backend": BACKENDS[delegate], "precision": "high", "numThread": 1}
        said, _ = part("hearing").heard(lambda: nn.create_runtime_manager((config,)), stream=1)
        if "Can't Find" in said:
            text = f"this build of MNN has no {BACKENDS[delegate]} back end and would run on the CPU"
            return delegate_entry(delegate, None, text, fix="use a build of MNN with that back end")
        device: Optional[Json] = part("vulkan").chosen() if delegate == "gpu:vulkan" else None
        software = bool(device and device["software"])
        return delegate_entry(delegate, device["name"] if device else None, emulated=software)

    def load(self, model: str, trial: Json) -> Session:
        """Load the module."""
        return MnnSession(model, trial)


ADAPTER = MnnAdapter()
