"""What a runtime adapter is. One runtime a file in this folder; each is passed tests/conformance/runtime.

Runs on the device: standard library and NumPy only, Python 3.8+. A module in this folder is an adapter when it defines
``ADAPTER``, an object with the methods of :class:`Adapter`. The agent loads it by path under a private name, so that a
file called ``onnxruntime.py`` cannot shadow the package; adapters import this module as ``socbench_runtime_base``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any, Callable, Dict, List, Optional

Json = Dict[str, Any]


class RuntimeProblem(Exception):
    """A failure that the adapter understands; becomes an ``error`` event. Codes are those of docs/protocol.md."""

    def __init__(self, code: str, message: str, advice: Optional[str] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice


class Session:
    """A loaded model on one delegate, in this process. Made by :meth:`Adapter.load`.

    Three attributes are optional and exist for the null runtime: ``clock`` (returns nanoseconds; the timed loop then
    reads it instead of the monotonic clock), ``wait_until`` (waits on that clock), ``on_phase`` (is told each phase).
    """

    run: Callable[[], Any]
    """Runs one inference on the bound inputs to completion, the device's own queue included. The fastest call there
    is with everything bound before; an attribute, so that the timed loop pays no look-up."""

    def describe(self) -> Json:
        """Return the members of the ``loaded`` event from ``runtime_version`` on (docs/protocol.md).

        ``import_ns``, ``load_ns`` and ``compile_ns`` may be among them where the runtime knows better than the agent.
        """
        raise NotImplementedError

    def bind(self, inputs: Json) -> None:
        """Bind ``{name: ndarray}`` for the next runs. RuntimeProblem ``shape_mismatch`` when they do not fit."""
        raise NotImplementedError

    def outputs(self) -> Json:
        """Return ``{name: ndarray}`` copies of the last run's outputs, in the model's order."""
        raise NotImplementedError

    def evidence(self) -> Json:
        """Return members of ``loaded`` that can only be established once everything timed is over."""
        return {}

    def close(self) -> None:
        """Free everything."""


class Adapter:
    """Knows one runtime."""

    name: str = ""
    formats: List[str] = []  # noqa: RUF012

    def import_runtime(self) -> None:
        """Import the runtime; timed by itself. RuntimeProblem ``runtime_missing`` with the fix when it is not there."""
        raise NotImplementedError

    def probe(self) -> Json:
        """Return the runtime's entry of ``probe`` (docs/protocol.md, Capabilities), its delegates really looked for."""
        raise NotImplementedError

    def load(self, model: str, trial: Json) -> Session:
        """Load ``model`` (a path) as the trial of the job asks: delegate, threads, shapes, options."""
        raise NotImplementedError

    def profile(self, model: str, trial: Json, inputs: Json) -> List[List[Any]]:
        """Return rows of the ``ops`` event from a session of its own, or ``[]`` where the runtime cannot tell."""
        return []


def part(name: str) -> Any:
    """Return the module ``parts/NAME.py``, which several adapters or a large one share."""
    known = "socbench_part_" + name
    if known not in sys.modules:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parts", name + ".py")
        spec = importlib.util.spec_from_file_location(known, path)
        if spec is None or spec.loader is None:
            raise RuntimeProblem("runtime_broken", f"the agent is incomplete: {path} is not there")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def delegate_entry(name: str, accelerator: Optional[str], reason: Optional[str] = None, **more: Any) -> Json:
    """Return one entry of a probe's ``delegates``; available when there is no ``reason`` against it.

    ``more``: ``emulated``, ``precisions``, ``fix``.
    """
    entry = {"delegate": name, "available": reason is None, "accelerator": accelerator, "emulated": False}
    entry.update(precisions=None, reason=reason, fix=None)
    entry.update(more)
    if reason is None:
        entry["fix"] = None
    return entry


def missing(package: str, error: ImportError, fix: Optional[str] = None) -> RuntimeProblem:
    """Return the problem of a package that is not there, or that is there and does not import."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "") in (package, package.split(".")[0]):
        return RuntimeProblem("runtime_missing", f"the Python package {error.name} is not installed", fix)
    return RuntimeProblem(
        "runtime_broken", f"the Python package {package} does not import: {error}", "install it again"
    )


def thread_count() -> int:
    """Return how many threads this process has (1 where it cannot be told)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def delegate_missing(runtime: str, delegate: str, available: List[str], fix: Optional[str] = None) -> RuntimeProblem:
    """Return the problem of a delegate that this runtime does not have here."""
    message = "{} has no delegate {} here; it has {}".format(runtime, delegate, ", ".join(available) or "none")
    return RuntimeProblem("delegate_missing", message, fix)


def wanted_shapes(specs: List[Json], trial: Json) -> Dict[str, List[int]]:
    """Return the shapes that the trial asks for and that differ from the model's own, by input name.

    ``trial.shapes`` wins; a dynamic or differing first dimension takes ``trial.batch``. Any other dynamic dimension
    without a shape is a ``shape_mismatch``: guessing it would measure a model that nobody asked for.
    """
    given = dict(trial.get("shapes") or {})
    if len(specs) == 1 and len(given) == 1:
        given = {specs[0]["name"]: next(iter(given.values()))}  # one input needs no name
    unknown = sorted(set(given) - {spec["name"] for spec in specs})
    if unknown:
        names = ", ".join(spec["name"] for spec in specs)
        raise RuntimeProblem("shape_mismatch", f"the model has no input called {unknown[0]}; it has {names}")
    wanted = {}
    for spec in specs:
        own = list(spec["shape"])
        shape = list(given.get(spec["name"]) or own)
        if len(shape) != len(own):
            raise misfit(spec["name"], shape, own)
        batch = trial.get("batch") or 1
        if spec["name"] not in given and own and (own[0] is None or batch > 1):
            shape[0] = batch
        if any(size is None for size in shape):
            advice = "give it: --shape {}={}".format(
                spec["name"],
                ",".join("N" if size is None else str(size) for size in own),
            )
            raise RuntimeProblem(
                "shape_mismatch", "input {} has dynamic dimensions: {}".format(spec["name"], own), advice
            )
        if shape != own:
            wanted[spec["name"]] = shape
    return wanted


def misfit(name: str, shape: Any, own: Any) -> RuntimeProblem:
    """Return the problem of an input of a shape that the model does not take."""
    return RuntimeProblem("shape_mismatch", f"input {name} is {list(own)} and cannot be {list(shape)}")


def match_inputs(specs: List[Json], inputs: Json) -> List[Any]:
    """Return the arrays for the model's inputs in its order, converted where that loses nothing that was asked.

    Names must match, but a model of one input takes the one array whatever its name. Floats for an integer input with
    a scale are quantised (round half to even, saturated), as a phone's application does before it calls the runtime.
    """
    if len(specs) == 1 and len(inputs) == 1:
        inputs = {specs[0]["name"]: next(iter(inputs.values()))}
    absent = [spec["name"] for spec in specs if spec["name"] not in inputs]
    if absent:
        raise RuntimeProblem(
            "shape_mismatch", "no input was given for {}; given were {}".format(absent[0], ", ".join(inputs) or "none")
        )
    return [_fit(spec, inputs[spec["name"]]) for spec in specs]


def _fit(spec: Json, value: Any) -> Any:
    import numpy as np

    own = spec["shape"]
    if len(own) != value.ndim or any(a is not None and a != b for a, b in zip(own, value.shape)):
        raise misfit(spec["name"], value.shape, own)
    wanted = np.dtype(spec["dtype"])
    if value.dtype != wanted:
        scale = spec.get("scale")
        if value.dtype.kind == "f" and wanted.kind in "iu" and scale:
            limits = np.iinfo(wanted)
            value = np.clip(np.rint(value / scale) + (spec.get("zero_point") or 0), limits.min, limits.max)
        elif not (value.dtype.kind == "f" and wanted.kind == "f"):
            message = "input {} is {} and cannot be {}".format(spec["name"], wanted, value.dtype)
            raise RuntimeProblem("shape_mismatch", message)
        value = value.astype(wanted)
    return np.ascontiguousarray(value)


def cpu_name() -> Optional[str]:
    """Return the CPU's name from /proc/cpuinfo, or its architecture."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("model name", "Hardware", "Model")):
                    return line.split(":", 1)[1].strip() or None
    except OSError:
        pass
    return platform.machine() or None


def cpu_has_fp16() -> bool:
    """Say whether the CPU computes in fp16 (not only converts), by its flags on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            words = set(file.read(65536).split())
    except OSError:
        return False
    return bool(words & {"asimdhp", "fphp", "avx512_fp16"})


def heaviest(weights: Dict[str, float]) -> Optional[str]:
    """Return the key that carries most of the weight, or None when there is none."""
    return max(weights, key=lambda key: weights[key]) if weights else None
