"""ONNX Runtime: the CPU execution provider (``cpu:mlas``) and whatever other providers the installed build carries.

What ran is read from the session: node assignment (``session.record_ep_graph_assignment_info``), and from a profiled
session after everything timed, the element types that the kernels really took. The provider list is never retried
(``enable_fallback=0``): ONNX Runtime would otherwise answer a failing provider with the CPU.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from typing import Any, Dict, List, Optional, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    heaviest,
    match_inputs,
    misfit,
    missing,
    part,
    thread_count,
    wanted_shapes,
)

Json = Dict[str, Any]
CPU = "CPUExecutionProvider"
providers = part("ort_providers")
LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
DTYPES = {"float": "float32", "double": "float64"}
PROFILE_RUNS = 10
HEAVY = re.compile(r"Conv|Gemm|MatMul|Attention|LSTM|GRU|RNN")


class OrtSession(Session):  # type: ignore[misc]
    """A model in an InferenceSession with everything bound before the runs."""

    def __init__(self, adapter: OrtAdapter, model: str, trial: Json) -> None:
        import onnxruntime as ort

        self.ort = ort
        self.adapter = adapter
        self.model = model
        self.trial = trial
        before = thread_count()
        self.session = create(ort, model, trial)
        self.threads = thread_count() - before + 1
        self.inputs = [_spec(value) for value in self.session.get_inputs()]
        self.output_specs = [_spec(value) for value in self.session.get_outputs()]
        _fix_shapes(self.inputs, trial)
        self.binding = self.session.io_binding()
        self.values: List[Any] = []
        self.arrays: List[Any] = []
        self.bound: Optional[Tuple[Any, ...]] = None
        self.ran_shapes = False
        self.run = self._fastest()

    def _fastest(self) -> Any:
        """Return the cheapest call: the binding of the C++ session, or the public one where that is not there."""
        try:
            raw = self.session._sess.run_with_iobinding
            return functools.partial(raw, self.binding._iobinding, None)
        except AttributeError:
            return functools.partial(self.session.run_with_iobinding, self.binding)

    def bind(self, inputs: Json) -> None:
        """Bind inputs as OrtValues over arrays that are kept alive here, and outputs into memory allocated before."""
        arrays = match_inputs(self.inputs, inputs)
        shapes = tuple(array.shape for array in arrays)
        known = self._output_shapes(shapes)
        self.binding.clear_binding_inputs()
        self.arrays = [array.copy() for array in arrays]
        self.values = [self.ort.OrtValue.ortvalue_from_numpy(array) for array in self.arrays]
        for spec, value in zip(self.inputs, self.values):
            self.binding.bind_ortvalue_input(spec["name"], value)
        self.bound = shapes
        self.binding.clear_binding_outputs()
        for index, spec in enumerate(self.output_specs):
            if known is None:
                self.binding.bind_output(spec["name"])
                continue
            value = self.ort.OrtValue.ortvalue_from_shape_and_type(known[index], _numpy_type(spec["dtype"]))
            self.values.append(value)
            self.binding.bind_ortvalue_output(spec["name"], value)

    def _output_shapes(self, shapes: Tuple[Any, ...]) -> Optional[List[List[int]]]:
        """Return the outputs' shapes for inputs of ``shapes``: fixed ones, or those of the last run on such inputs."""
        if all(_fixed(spec["shape"]) and _plain(spec["dtype"]) for spec in self.output_specs):
            return [spec["shape"] for spec in self.output_specs]
        if shapes != self.bound or not all(_plain(spec["dtype"]) for spec in self.output_specs):
            return None
        values = self.binding.get_outputs()
        return [list(value.shape()) for value in values] if len(values) == len(self.output_specs) else None

    def outputs(self) -> Json:
        """Return copies of the bound outputs."""
        values = self.binding.get_outputs()
        return {spec["name"]: value.numpy().copy() for spec, value in zip(self.output_specs, values)}

    def describe(self) -> Json:
        """Return what the session says of itself; delegation is counted on the nodes of the graph."""
        delegate = self.trial["delegate"]
        provider = providers.PROVIDERS[delegate]
        nodes = assigned_nodes(self.session)
        total = sum(count for _, count in nodes)
        mine = sum(count for name, count in nodes if name == provider)
        by_provider: Dict[str, int] = {}
        for name, count in nodes:
            by_provider[name] = by_provider.get(name, 0) + count
        delegation = "full" if mine == total else "partial" if mine else "fell_back"
        fell_back = delegation == "fell_back" and total > 0
        accelerator, emulated = (cpu_name(), False) if fell_back else providers.accelerator(delegate)
        plain = provider in (CPU, "WebGpuExecutionProvider") or fell_back  # its kernels are of the types of the file
        return {
            "runtime_version": self.ort.__version__,
            "delegate_effective": "cpu:mlas" if fell_back else delegate,
            "accelerator": accelerator,
            "emulated": emulated,
            "delegation": delegation if total else "unknown",
            "delegation_evidence": "reported" if total else "none",
            "nodes_total": total or None,
            "nodes_delegated": mine if total else None,
            "partitions": _partitions(nodes, provider),
            "precision_effective": _known_precision(self.trial["precision"], provider, plain),
            "threads_effective": self.threads if provider == CPU else None,  # others make threads for their own ends
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"providers": self.session.get_providers(), "nodes_by_provider": by_provider},
        }

    def evidence(self) -> Json:
        """Return the precision that the kernels executed, from a profiled session."""
        if self.adapter.executed is None and self.trial["precision"] != "fp32":
            names = [spec["name"] for spec in self.inputs]
            self.adapter.profile(self.model, self.trial, dict(zip(names, self.arrays)), runs=1)
        if self.adapter.executed is None:
            return {}
        precision, shares = self.adapter.executed
        if precision is None:
            return {}  # fused nodes: the profile does not tell
        details = dict(self.describe()["details"], kernel_time_share=shares)
        return {"precision_effective": precision, "details": details}

    def close(self) -> None:
        """Drop the session."""
        self.binding = self.session = self.run = None  # type: ignore[assignment]


def create(ort: Any, model: str, trial: Json, profile_prefix: Optional[str] = None) -> Any:
    """Return an InferenceSession as the trial asks; RuntimeProblem with the reason when it cannot be had."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = trial["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    level = (trial.get("options") or {}).get("graph_optimization", "all")
    if level not in LEVELS:
        raise RuntimeProblem("bad_job", f"options.graph_optimization is {level}; it is one of {', '.join(LEVELS)}")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    chosen = providers.choose(ort, options, trial["delegate"], trial)
    try:
        return ort.InferenceSession(model, options, providers=chosen or None, enable_fallback=0)
    except Exception as error:  # pybind's exceptions share no base below Exception
        raise _problem(error, model, trial["delegate"]) from None


def assigned_nodes(session: Any) -> List[Tuple[str, int]]:
    """Return provider and number of graph nodes for each part that the session made of the model.

    Empty where this version does not tell: nothing is then claimed.
    """
    try:
        return [(str(one.ep_name), len(one.get_nodes())) for one in session.get_provider_graph_assignment_info()]
    except AttributeError:
        return []


def _partitions(nodes: List[Tuple[str, int]], provider: str) -> Optional[int]:
    """Return the number of parts; providers that take node by node report each as a part, which tells nothing."""
    mine = [count for name, count in nodes if name == provider]
    if provider == CPU or (len(mine) > 1 and max(mine) == 1):
        return 1 if len(mine) == len(nodes) or provider == CPU else None
    return len(mine) if nodes else None


def _known_precision(precision: str, provider: str, plain: bool) -> Optional[str]:
    """Return the precision where it needs no profile. Qualcomm's HTP runs quantised nodes in integers, and floats in a
    precision that it does not tell."""
    if provider == "QNNExecutionProvider" and precision == "int8":
        return "int8"
    return "fp32" if precision == "fp32" and plain else None


def _problem(error: Exception, model: str, delegate: str) -> RuntimeProblem:
    kind, text = type(error).__name__, " ".join(str(error).split())[:500]
    name = os.path.basename(model)
    if kind == "NotImplemented" or re.search(r"not a registered function/op|No Op registered|NOT_IMPLEMENTED", text):
        return RuntimeProblem("op_unsupported", f"ONNX Runtime lacks an operator of {name}: {text}")
    if "requires f16 but the device does not" in text:
        message = f"the device behind {delegate} has no fp16, and {name} needs it"
        return RuntimeProblem("op_unsupported", message, "measure the fp32 file there")
    if re.search(r"[Oo]ut of memory|bad_alloc|Failed to allocate", text):
        return RuntimeProblem("out_of_memory", f"ONNX Runtime has no memory for {name}: {text}")
    if kind == "NoSuchFile":
        return RuntimeProblem("model_missing", f"the model file {name} cannot be opened: {text}")
    if kind in ("InvalidProtobuf", "InvalidGraph", "Fail", "InvalidArgument"):
        return RuntimeProblem("model_invalid", f"{name} is not a model that ONNX Runtime can load: {text}")
    return RuntimeProblem("run_failed", f"ONNX Runtime cannot load {name} on {delegate}: {text}")


def _spec(value: Any) -> Json:
    found = re.match(r"tensor\((\w+)\)", value.type)
    dtype = DTYPES.get(found.group(1), found.group(1)) if found else value.type
    shape = [size if isinstance(size, int) and size >= 0 else None for size in value.shape]
    return {"name": value.name, "dtype": dtype, "shape": shape, "scale": None, "zero_point": None}


def _fix_shapes(specs: List[Json], trial: Json) -> None:
    """Put the wanted shapes into dynamic inputs; a fixed dimension of an ONNX file cannot be changed."""
    for name, shape in wanted_shapes(specs, trial).items():
        spec = next(spec for spec in specs if spec["name"] == name)
        if any(own is not None and own != size for own, size in zip(spec["shape"], shape)):
            raise misfit(name, shape, spec["shape"])
        spec["shape"] = shape


def _fixed(shape: List[Any]) -> bool:
    return all(size is not None for size in shape)


def _plain(dtype: str) -> bool:
    return re.match(r"^(u?int\d+|float(16|32|64)|bool)$", dtype) is not None


def _numpy_type(dtype: str) -> Any:
    import numpy as np

    return np.dtype(dtype).type


def _precision_of(event: Json) -> Optional[str]:
    """Return the precision in which a profiled kernel computed, by the type of its first input."""
    op = event["args"].get("op_name", "")
    types = [next(iter(item)) for item in event["args"].get("input_type_shape") or [] if item]
    if not HEAVY.search(op) or not types:
        return None
    if op == "MatMulNBits":
        return "int4_weights"
    if re.search(r"^(Dynamic|MatMulInteger|ConvInteger)", op):
        return "int8_dynamic"
    return {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}.get(types[0])


def read_profile(events: List[Json], runs: int) -> Tuple[List[List[Any]], Dict[str, float]]:
    """Return the rows of ``ops`` (mean time an inference) and the kernel time by precision, of a profile's events."""
    nodes: Dict[str, List[Any]] = {}
    weights: Dict[str, float] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"][: -len("_kernel_time")]
        row = nodes.setdefault(
            name, [len(nodes), event["args"].get("op_name"), name, event["args"].get("provider"), 0, 0]
        )
        row[4] += event["dur"] * 1000
        row[5] += 1
        precision = _precision_of(event)
        if precision is not None:
            weights[precision] = weights.get(precision, 0.0) + event["dur"] + 0.01
    rows = [[*row[:4], row[4] // max(1, runs), max(1, row[5] // max(1, runs))] for row in nodes.values()]
    return rows, weights


class OrtAdapter(Adapter):  # type: ignore[misc]
    """ONNX Runtime."""

    name = "onnxruntime"
    formats = ["onnx"]  # noqa: RUF012
    executed: Optional[Tuple[Optional[str], Dict[str, float]]] = None

    def import_runtime(self) -> None:
        """Import onnxruntime."""
        try:
            import onnxruntime
        except ImportError as error:
            raise missing("onnxruntime", error, "pip install onnxruntime") from None
        if not hasattr(onnxruntime, "InferenceSession"):
            raise RuntimeProblem("runtime_broken", "the Python package onnxruntime is empty", "install it again")

    def probe(self) -> Json:
        """Ask the build which providers it carries."""
        self.import_runtime()
        import onnxruntime as ort

        return {
            "runtime": self.name,
            "version": ort.__version__,
            "formats": self.formats,
            "error": None,
            "delegates": providers.entries(ort),
        }

    def load(self, model: str, trial: Json) -> Session:
        """Make a session."""
        self.executed = None
        return OrtSession(self, model, trial)

    def profile(self, model: str, trial: Json, inputs: Json, runs: int = PROFILE_RUNS) -> List[List[Any]]:
        """Run a session with ONNX Runtime's own profiler; its first run is left out."""
        import onnxruntime as ort

        with tempfile.TemporaryDirectory(dir=".", prefix=".profile-") as folder:
            session = create(ort, model, trial, os.path.join(folder, "p"))
            specs = [_spec(value) for value in session.get_inputs()]
            feeds = dict(zip([spec["name"] for spec in specs], match_inputs(specs, inputs)))
            for _ in range(runs + 1):
                session.run(None, feeds)
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
        starts = [event["ts"] for event in events if event.get("name") == "model_run"]
        first_end = sorted(starts)[0] + next(e["dur"] for e in events if e.get("name") == "model_run")
        rows, weights = read_profile([event for event in events if event.get("ts", 0) >= first_end], runs)
        total = sum(weights.values())
        shares = {name: round(value / total, 4) for name, value in weights.items()}
        self.executed = (heaviest(weights), shares)
        return rows


ADAPTER = OrtAdapter()
