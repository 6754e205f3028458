"""ExecuTorch through its Python runtime: XNNPACK.

A program is lowered for its back end when it is made, and the runtime does not tell in Python how much of it was. What
the exporter counted lies in a .json beside the file; without it delegation is unknown.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

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
    wanted_shapes,
)

Json = Dict[str, Any]
BACKENDS = {"cpu:xnnpack": "XnnpackBackend", "npu:qnn": "QnnBackend", "gpu:vulkan": "VulkanBackend"}
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
        backend = BACKENDS.get(trial["delegate"])
        if backend not in have and trial["delegate"] != "cpu:portable":
            names = [name for name, value in BACKENDS.items() if value in have]
            raise delegate_missing("executorch", trial["delegate"], names, "use a build with that back end")
        self._check_backend(model, backend)
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

    def _check_backend(self, model: str, backend: Any) -> None:
        """Refuse a file that was made for another back end: asked for one, nothing else is run."""
        made_for = (self.facts or {}).get("backend")
        if made_for is not None and made_for != backend and (self.facts or {}).get("partitions"):
            text = "{} was made for {} and cannot run on {}".format(
                os.path.basename(model), made_for, self.trial["delegate"]
            )
            raise RuntimeProblem("delegate_missing", text, "export the model for that back end")

    def _spec(self, kind: str, index: int, meta: Any) -> Json:
        known = (self.facts or {}).get(kind) or []
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
        """Return what the exporter counted; nothing is claimed of a file without that."""
        facts = self.facts or {}
        mine, rest = facts.get("delegated"), facts.get("not_delegated") or []
        total = None if mine is None else mine + len(rest)
        delegation = "unknown" if mine is None else "full" if not rest else "partial" if mine else "fell_back"
        return {
            "runtime_version": _version(),
            "delegate_effective": "cpu:portable" if delegation == "fell_back" else self.trial["delegate"],
            "accelerator": cpu_name() if self.trial["delegate"].startswith("cpu") else None,
            "emulated": False,
            "delegation": delegation,
            "delegation_evidence": "none" if mine is None else "counted",
            "nodes_total": total,
            "nodes_delegated": mine,
            "partitions": facts.get("partitions"),
            "precision_effective": facts.get("precision"),
            "threads_effective": self.threads,
            "inputs": self.inputs,
            "outputs": self.output_specs,
            "details": {"not_delegated": rest},
        }

    def close(self) -> None:
        """Drop the method."""
        self.run = self.method = None  # type: ignore[assignment]


def _facts(model: str) -> Any:
    try:
        with open(model + ".json", encoding="utf-8") as file:
            found = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


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
        for name, backend in BACKENDS.items():
            cpu = name.startswith("cpu")
            against = None if backend in have else f"this build has no {backend}"
            if against is None and not cpu:
                against = "the files of the zoo are not made for it"
            entries.append(delegate_entry(name, cpu_name() if cpu else None, against, fix="export a program for it"))
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
