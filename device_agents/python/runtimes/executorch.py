"""ExecuTorch through its Python runtime: XNNPACK, Qualcomm's QNN, Vulkan, and its own portable kernels.

A program is lowered for its back end when it is made, and whatever was not lowered runs on portable kernels, silently.
The runtime does not tell in Python how much that is: what the exporter counted lies in a .json beside the file; of a
file without it only the back ends that it names are known. QNN and Vulkan were not run on hardware yet.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import re
from typing import Any, Dict, List, Optional, Set, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_entry,
    delegate_missing,
    match_inputs,
    misfit,
    missing,
    part,
    wanted_shapes,
)

Json = Dict[str, Any]
PORTABLE = "cpu:portable"
BACKENDS = {"cpu:xnnpack": "XnnpackBackend", "npu:qnn": "QnnBackend", "gpu:vulkan": "VulkanBackend"}
NAMED = re.compile(rb"[A-Z][A-Za-z]{2,30}Backend\b")
"""How a program names the back ends of its delegated parts."""
QNN_LIBRARY = "libQnnHtp.so"
DTYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"}
"""ScalarType of PyTorch."""
IDENTIFIER = b"ET12"
FIX = "socbench runtimes install executorch"


class ExecutorchSession(Session):  # type: ignore[misc]
    """The method ``forward`` of a program, its inputs as tensors that own copies."""

    def __init__(self, model: str, trial: Json) -> None:
        import torch
        from executorch.runtime import Runtime

        self.torch = torch
        self.trial = trial
        self.facts = _facts(model)
        self.threads = _set_threads(trial["threads"])
        have = list(Runtime.get().backend_registry.registered_backend_names)
        against = unavailable(trial["delegate"], have)
        if against is not None:
            names = [PORTABLE, *(name for name in BACKENDS if unavailable(name, have) is None)]
            raise delegate_missing("executorch", trial["delegate"], names, against[1])
        self.backends = _check_backend(model, self.facts, trial["delegate"])
        self.method = _load(Runtime.get(), model)
        meta = self.method.metadata
        self.inputs = [self._spec("inputs", i, meta.input_tensor_meta(i)) for i in range(meta.num_inputs())]
        self.output_specs = [self._spec("outputs", i, meta.output_tensor_meta(i)) for i in range(meta.num_outputs())]
        for name, shape in wanted_shapes(self.inputs, trial).items():
            raise misfit(name, shape, next(spec["shape"] for spec in self.inputs if spec["name"] == name))
        self.arrays: List[Any] = []
        self.tensors: List[Any] = []
        self.results: List[Any] = []
        self.run = self._once

    def _spec(self, kind: str, index: int, meta: Any) -> Json:
        known = self.facts.get(kind) or []
        name = known[index]["name"] if index < len(known) else f"{kind[:-1]}{index}"
        dtype = DTYPES.get(int(meta.dtype()), "float32")
        return {"name": name, "dtype": dtype, "shape": list(meta.sizes()), "scale": None, "zero_point": None}

    def bind(self, inputs: Json) -> None:
        """Make tensors over copies of the inputs, which are kept."""
        self.arrays = [array.copy() for array in match_inputs(self.inputs, inputs)]
        self.tensors = [self.torch.from_numpy(array) for array in self.arrays]

    def _once(self) -> None:
        self.results = self.method.execute(self.tensors)

    def outputs(self) -> Json:
        """Return copies of the outputs."""
        return {spec["name"]: value.numpy().copy() for spec, value in zip(self.output_specs, self.results)}

    def describe(self) -> Json:
        """Return what the exporter counted; of a file without that, only that nothing of it was lowered is known."""
        delegate = self.trial["delegate"]
        mine, rest = self.facts.get("delegated"), self.facts.get("not_delegated") or []
        total = None if mine is None else mine + len(rest)
        if delegate == PORTABLE:
            mine, rest = total, []
        delegation = self._delegation(mine, total)
        effective = PORTABLE if delegation == "fell_back" else delegate
        name, emulated = accelerator(effective)
        return {
            "runtime_version": _version(),
            "delegate_effective": effective,
            "accelerator": name,
            "emulated": emulated,
            "delegation": delegation,
            "delegation_evidence": "counted" if mine is not None else "none" if delegation == "unknown" else "inferred",
            "nodes_total": total,
            "nodes_delegated": mine,
            "partitions": self.facts.get("partitions"),
            "precision_effective": self.facts.get("precision"),
            "threads_effective": self._threads(effective),
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"not_delegated": rest, "backends": sorted(self.backends)},
        }

    def _delegation(self, mine: Optional[int], total: Optional[int]) -> str:
        if mine is not None:
            return "full" if mine == total else "partial" if mine else "fell_back"
        if self.trial["delegate"] == PORTABLE:
            return "full"  # a file that names a back end was refused
        return "unknown" if self.backends else "fell_back"

    def _threads(self, effective: str) -> Optional[int]:
        """Return the size of the pool that XNNPACK works with; which portable kernels use it is not told."""
        if effective == PORTABLE:
            return 1 if self.threads == 1 else None
        return self.threads if effective.startswith("cpu") else None

    def close(self) -> None:
        """Drop the method."""
        self.run = self.method = None  # type: ignore[assignment]


def accelerator(delegate: str) -> Tuple[Optional[str], bool]:
    """Return the name of what does the work of a delegate and whether that is an emulation."""
    if delegate == "npu:qnn":
        return part("ort_providers").accelerator(delegate)  # type: ignore[no-any-return]
    if delegate == "gpu:vulkan":
        device = part("vulkan").chosen()
        return (device["name"], device["software"]) if device else (None, False)
    return cpu_name(), False


def unavailable(delegate: str, have: List[str]) -> Optional[Tuple[str, str]]:
    """Return why a delegate cannot be had here and what to do, or None. ``have``: the back ends of the build."""
    backend = BACKENDS.get(delegate)
    if delegate == PORTABLE:
        return None
    if backend is None or backend not in have:
        return f"this build has no {backend or delegate}", "use a build of ExecuTorch with that back end"
    if delegate == "npu:qnn":
        try:
            ctypes.CDLL(QNN_LIBRARY)
        except OSError:
            where = "its x86-64 emulator" if platform.machine().lower() in ("x86_64", "amd64") else "the device"
            fix = f"put Qualcomm's QNN libraries for {where} on LD_LIBRARY_PATH and export a program for QNN"
            return f"Qualcomm's {QNN_LIBRARY} is not here", fix
    if delegate == "gpu:vulkan" and part("vulkan").chosen() is None:
        return str(part("vulkan").reason()), "install the GPU's Vulkan driver"
    return None


def _check_backend(model: str, facts: Json, delegate: str) -> Set[str]:
    """Return the back ends that a file names. Refuses one made for another: asked for one, nothing else is run."""
    named = _named_backends(model)
    lowered = facts.get("partitions") != 0 if facts else bool(named)
    if lowered and named and BACKENDS.get(delegate) not in named:
        name = os.path.basename(model)
        text = "{} was made for {} and cannot run on {}".format(name, ", ".join(sorted(named)), delegate)
        raise RuntimeProblem("delegate_missing", text, "export the model for that back end")
    return named


def _named_backends(model: str) -> Set[str]:
    if os.path.getsize(model) == 0:
        return set()
    with open(model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {name.decode() for name in set(NAMED.findall(data))}


def _facts(model: str) -> Json:
    """Return what the exporter wrote down beside the file, nothing where it wrote nothing."""
    try:
        with open(model + ".json", encoding="utf-8") as file:
            found = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _load(runtime: Any, model: str) -> Any:
    name = os.path.basename(model)
    with open(model, "rb") as file:
        if file.read(8)[4:8] != IDENTIFIER:
            raise RuntimeProblem("model_invalid", f"{name} is not a model that ExecuTorch can load: it is no program")
    try:
        return runtime.load_program(model).load_method("forward")
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        code = "op_unsupported" if "operator" in text.lower() or "kernel" in text.lower() else "model_invalid"
        raise RuntimeProblem(code, f"{name} is not a model that ExecuTorch can load: {text}") from None


def _set_threads(wanted: int) -> Any:
    """Give XNNPACK's pool its number of threads; return how many it has, None where it cannot be asked."""
    try:
        from executorch.extension.pybindings import portable_lib

        portable_lib._unsafe_reset_threadpool(wanted)
        return int(portable_lib._threadpool_get_thread_count())
    except (ImportError, AttributeError):
        return None


def _version() -> str:
    from importlib import metadata

    return metadata.version("executorch")


class ExecutorchAdapter(Adapter):  # type: ignore[misc]
    """ExecuTorch."""

    name = "executorch"
    formats = ["executorch"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import the runtime (and PyTorch, which it needs)."""
        try:
            import executorch.runtime  # noqa: F401
        except ImportError as error:
            raise missing("executorch", error, FIX) from None

    def probe(self) -> Json:
        """Ask which back ends the build has."""
        self.import_runtime()
        from executorch.runtime import Runtime

        have = list(Runtime.get().backend_registry.registered_backend_names)
        entries = []
        for delegate in (*BACKENDS, PORTABLE):
            against, fix = unavailable(delegate, have) or (None, None)
            name, emulated = accelerator(delegate) if against is None else (None, False)
            entries.append(delegate_entry(delegate, name, against, fix=fix, emulated=emulated))
        return {
            "runtime": self.name,
            "version": _version(),
            "formats": self.formats,
            "error": None,
            "delegates": entries,
        }

    def load(self, model: str, trial: Json) -> Session:
        """Load the program."""
        return ExecutorchSession(model, trial)


ADAPTER = ExecutorchAdapter()
