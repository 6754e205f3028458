"""LiteRT (TFLite) from ``ai-edge-litert`` or, where a board has no more, ``tflite-runtime``.

CPU kernels and external delegates run through its Interpreter, GPUs and NPUs through its CompiledModel
(``parts/litert_compiled.py``).

Delegation is counted on the graph: delegate kernels stand behind the original nodes once tensors are allocated, and the
nodes between a kernel's inputs and outputs are the ones that it took over.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_missing,
    heaviest,
    match_inputs,
    missing,
    part,
    thread_count,
    wanted_shapes,
)

Json = Dict[str, Any]
RESOLVERS = {
    "cpu:xnnpack": "AUTO",
    "cpu:builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "cpu:reference": "BUILTIN_REF",
}
HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D")
KERNEL = "DELEGATE"
"""What LiteRT calls the nodes that a delegate puts behind the model's own, whatever the delegate calls itself."""
FIX = "pip install ai-edge-litert (or tflite-runtime with numpy below 2)"


def runtime() -> Tuple[Any, str]:
    """Return the interpreter module and its version."""
    try:
        import ai_edge_litert
        from ai_edge_litert import interpreter

        return interpreter, str(getattr(ai_edge_litert, "__version__", None) or _version("ai-edge-litert"))
    except ModuleNotFoundError as first:
        if first.name != "ai_edge_litert":
            raise missing("ai_edge_litert", first, FIX) from None
    except ImportError as error:
        raise missing("ai_edge_litert", error, FIX) from None
    try:
        from tflite_runtime import interpreter  # type: ignore[no-redef]
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "tflite_runtime":
            message = "neither of the Python packages ai-edge-litert and tflite-runtime is installed"
            raise RuntimeProblem("runtime_missing", message, FIX) from None
        raise missing("tflite_runtime", error, FIX) from None
    return interpreter, "tflite-runtime " + _version("tflite-runtime")


def _version(package: str) -> str:
    try:
        from importlib import metadata

        return metadata.version(package)
    except ImportError:  # a package unpacked by hand has no metadata; its version is then unknown, nothing more
        return "unknown"


class LitertSession(Session):  # type: ignore[misc]
    """A model in an Interpreter, its inputs set before the runs."""

    def __init__(self, model: str, trial: Json) -> None:
        module, self.version = runtime()
        self.trial = trial
        before = thread_count()
        self.interpreter = _create(module, model, trial)
        self.inputs = [_spec(detail) for detail in self.interpreter.get_input_details()]
        self.names = _signature_names(self.interpreter)
        self._resize(trial)
        begin = time.perf_counter_ns()
        try:
            self.interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise _problem(error, model, resized=bool(trial.get("shapes")) or trial.get("batch", 1) > 1) from None
        self.compile_ns = time.perf_counter_ns() - begin
        self.before = before
        self.threads: Optional[int] = thread_count() - before + 1
        self.input_indices = [detail["index"] for detail in self.interpreter.get_input_details()]
        self.output_details = self.interpreter.get_output_details()
        raw = getattr(self.interpreter, "_interpreter", None)
        self.run = raw.Invoke if hasattr(raw, "Invoke") else self.interpreter.invoke

    def _resize(self, trial: Json) -> None:
        trial = dict(trial, shapes={self._own(name): shape for name, shape in (trial.get("shapes") or {}).items()})
        for name, shape in wanted_shapes(self.inputs, trial).items():
            spec = next(spec for spec in self.inputs if spec["name"] == name)
            index = self.interpreter.get_input_details()[self.inputs.index(spec)]["index"]
            self.interpreter.resize_tensor_input(index, shape)
            spec["shape"] = list(shape)

    def _own(self, name: str) -> str:
        """Return the tensor's own name for a name that may be the signature's."""
        return self.names.get(name, name)

    def bind(self, inputs: Json) -> None:
        """Copy inputs into the interpreter's own tensors; graph inputs are never overwritten by a run."""
        arrays = match_inputs(self.inputs, {self._own(name): value for name, value in inputs.items()})
        for index, array in zip(self.input_indices, arrays):
            self.interpreter.set_tensor(index, array)

    def outputs(self) -> Json:
        """Return copies of the output tensors."""
        return {detail["name"]: self.interpreter.get_tensor(detail["index"]) for detail in self.output_details}

    def describe(self) -> Json:
        """Return the counted delegation, and the precision by the types that the heavy nodes work on."""
        nodes = self.interpreter._get_ops_details()
        original = sum(node["op_name"] != KERNEL for node in nodes)
        covered, partitions = delegated_nodes(nodes, original)
        wants = self.trial["delegate"] == "cpu:xnnpack" or external_library(self.trial["delegate"]) is not None
        mine = len(covered) if wants else original - len(covered)
        delegation = "full" if mine == original else "partial" if mine else "fell_back"
        precision, macs = executed_precision(nodes[:original], self.interpreter.get_tensor_details())
        rest = sorted({node["op_name"] for node in nodes[:original] if node["index"] not in covered})
        return {
            "runtime_version": self.version,
            "compile_ns": self.compile_ns,
            "delegate_effective": "cpu:builtin" if delegation == "fell_back" else self.trial["delegate"],
            "accelerator": self._accelerator(delegation),
            "emulated": False,
            "delegation": delegation,
            "delegation_evidence": "counted",
            "nodes_total": original,
            "nodes_delegated": mine,
            "partitions": partitions if wants else 1,
            "precision_effective": precision,
            "threads_effective": self.threads,
            "inputs": self.inputs,
            "outputs": [_spec(detail) for detail in self.output_details],
            "details": {"not_delegated": rest if wants else [], "macs_by_precision": macs},
        }

    def evidence(self) -> Json:
        """Return the threads of kernels that make theirs in the first run: one without any, else they do not tell.

        XNNPACK's pool is made with the interpreter; the builtin kernels have two pools of which one works at a time.
        """
        grown = thread_count() - self.before + 1
        return {} if self.threads == grown else {"threads_effective": None}

    def _accelerator(self, delegation: str) -> Optional[str]:
        """Name the CPU, or the library of an external delegate: what is behind that, nobody says."""
        library = external_library(self.trial["delegate"])
        return cpu_name() if library is None or delegation == "fell_back" else os.path.basename(library)

    def close(self) -> None:
        """Drop the interpreter."""
        self.run = self.interpreter = None  # type: ignore[assignment]


def _create(module: Any, model: str, trial: Json) -> Any:
    library = external_library(trial["delegate"])
    resolver = RESOLVERS.get(trial["delegate"]) if library is None else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    if resolver is None:
        raise delegate_missing("litert", trial["delegate"], list(RESOLVERS))
    more = {} if library is None else {"experimental_delegates": [_external(module, library, trial)]}
    kind = getattr(module.OpResolverType, resolver)
    try:
        return module.Interpreter(
            model_path=model, num_threads=trial["threads"], experimental_op_resolver_type=kind, **more
        )
    except (ValueError, RuntimeError, SystemError, ImportError) as error:
        raise _problem(error, model, resized=False) from None


def external_library(delegate: str) -> Optional[str]:
    """Return the file of an external delegate (``npu:FILE``), None for the delegates that LiteRT knows by name."""
    name = delegate.partition(":")[2]
    return name if delegate.startswith("npu:") and ("/" in name or name.endswith((".so", ".dll", ".dylib"))) else None


def _external(module: Any, library: str, trial: Json) -> Any:
    """Load a delegate's library; ``options.delegate_options`` of the trial are given to it."""
    options = (trial.get("options") or {}).get("delegate_options") or {}
    try:
        return module.load_delegate(library, {str(key): str(value) for key, value in options.items()})
    except (OSError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise RuntimeProblem("delegate_missing", f"the delegate {library} does not load: {text}") from None


def _problem(error: Exception, model: str, resized: bool) -> RuntimeProblem:
    text = " ".join(str(error).split())[:500]
    name = model.rsplit("/", 1)[-1]
    if isinstance(error, (SystemError, ImportError)):
        return RuntimeProblem("runtime_broken", f"LiteRT does not work here: {text}", FIX)
    if re.search(r"unresolved custom op|[Dd]idn't find op|builtin_code|Op code|not supported", text):
        return RuntimeProblem("op_unsupported", f"LiteRT lacks an operator of {name}: {text}")
    if resized:
        return RuntimeProblem("shape_mismatch", f"{name} cannot take the shapes asked for: {text}")
    return RuntimeProblem("model_invalid", f"{name} is not a model that LiteRT can load: {text}")


def _signature_names(interpreter: Any) -> Dict[str, str]:
    """Return ``{name in the signature: name of the tensor}`` of a model with one signature."""
    try:
        full = interpreter._get_full_signature_list()
    except (AttributeError, ValueError):
        return {}
    if len(full) != 1:
        return {}
    tensors = {detail["index"]: detail["name"] for detail in interpreter.get_input_details()}
    inputs = next(iter(full.values())).get("inputs") or {}
    return {name: tensors[index] for name, index in inputs.items() if index in tensors}


def _spec(detail: Json) -> Json:
    import numpy as np

    signature = detail.get("shape_signature")
    shape = [int(size) for size in (signature if signature is not None and len(signature) else detail["shape"])]
    if not any(size < 0 for size in shape):
        shape = [int(size) for size in detail["shape"]]
    scale, zero_point = detail["quantization"]
    return {
        "name": detail["name"],
        "dtype": np.dtype(detail["dtype"]).name,
        "shape": [None if size < 0 else size for size in shape],
        "scale": float(scale) or None,
        "zero_point": int(zero_point) if scale else None,
    }


def delegated_nodes(nodes: List[Json], original: int) -> Tuple[Set[int], int]:
    """Return the indices of the original nodes that delegate kernels cover, and the number of kernels.

    ``nodes`` is the interpreter's list after allocation, the first ``original`` of them the model's own. A node is
    covered when a kernel's output depends on it without passing through that kernel's inputs.
    """
    producer = {int(tensor): node for node in nodes[:original] for tensor in node["outputs"]}
    kernels = nodes[original:]
    covered: Set[int] = set()
    for kernel in kernels:
        inputs = {int(tensor) for tensor in kernel["inputs"]}
        stack = [int(tensor) for tensor in kernel["outputs"]]
        seen: Set[int] = set()
        while stack:
            tensor = stack.pop()
            node = producer.get(tensor)
            if tensor in seen or tensor in inputs or node is None:
                continue
            seen.add(tensor)
            covered.add(node["index"])
            stack += [int(source) for source in node["inputs"] if source >= 0]
    return covered, len(kernels)


def executed_precision(nodes: List[Json], tensors: List[Json]) -> Tuple[Optional[str], Dict[str, int]]:
    """Return the precision that carries most multiplications, and the multiply-accumulates by precision.

    Judged by the types that nodes read: weights that a DEQUANTIZE brings to float are computed in float (fp16 and
    weight-only int8 files), int8 weights under float activations are quantised on the fly.
    """
    import numpy as np

    by_index = {int(tensor["index"]): tensor for tensor in tensors}
    macs: Dict[str, int] = {}
    for node in nodes:
        if node["op_name"] not in HEAVY or len(node["inputs"]) < 2:
            continue
        weights_at, data_at = (1, 2) if node["op_name"] == "TRANSPOSE_CONV" else (1, 0)
        data, weights = by_index.get(int(node["inputs"][data_at])), by_index.get(int(node["inputs"][weights_at]))
        output = by_index.get(int(node["outputs"][0]))
        if data is None or weights is None or output is None:
            continue
        precision = _precision(np.dtype(data["dtype"]).name, np.dtype(weights["dtype"]).name)
        size = int(np.prod(weights["shape"])) * int(np.prod(output["shape"]))
        channels = int(output["shape"][-1]) if len(output["shape"]) else 1
        macs[precision] = macs.get(precision, 0) + size // max(1, channels)
    return heaviest(macs) or ("fp32" if not macs else None), macs


def _precision(data: str, weights: str) -> str:
    if data == "int16":
        return "int16x8"
    if data in ("int8", "uint8"):
        return "int8"
    if weights in ("int8", "uint8"):
        return "int8_dynamic"
    return "fp16" if data == "float16" else "fp32"


class LitertAdapter(Adapter):  # type: ignore[misc]
    """LiteRT."""

    name = "litert"
    formats = ["tflite"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import the interpreter."""
        runtime()

    def probe(self) -> Json:
        """The three kinds of CPU kernels come with every build; accelerators are looked for."""
        module, version = runtime()
        delegates = [
            {
                "delegate": name,
                "available": hasattr(module.OpResolverType, resolver),
                "accelerator": cpu_name(),
                "emulated": False,
                "precisions": ["fp32", "int8", "int8_dynamic"],
                "reason": None if hasattr(module.OpResolverType, resolver) else "this build has no such kernels",
                "fix": None,
            }
            for name, resolver in RESOLVERS.items()
        ]
        delegates += part("litert_compiled").entries()
        return {
            "runtime": self.name,
            "version": version,
            "formats": self.formats,
            "error": None,
            "delegates": delegates,
        }

    def load(self, model: str, trial: Json) -> Session:
        """Make an interpreter, or for an accelerator a compiled model."""
        delegate = trial["delegate"]
        compiled = part("litert_compiled")
        if delegate in compiled.GPU_LIBRARIES or delegate in compiled.VENDORS:
            return compiled.CompiledSession(runtime()[1], model, trial)  # type: ignore[no-any-return]
        return LitertSession(model, trial)


ADAPTER = LitertAdapter()
