"""The null runtime: computes nothing and returns exactly what its model, a small JSON file, scripts.

It is for tests, and for trying socbench without a network. Every member is optional:

{"inputs":  [{"name": "x", "dtype": "float32", "shape": [1, 4]}],
 "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 2], "values": [0.25, 0.75]}],
                             values fill the tensor in C order, repeating; "values": "nan" or "echo" (the first
                             input's values repeated); "by_input": [[..], [..]] gives the n-th bound input its own
 "clock": "fake",            the timed loop reads the script's clock: samples have exactly the scripted digits.
                             "real" (default): the scripted latencies are slept
 "clock_start_ns": 1000000000000,
 "latency_ns": 1000000,      or a list that is repeated, or {"first": .., "check": .., "warmup": .., "measure": ..} of
                             either; default 1000000 with the fake clock, 0 with the real one
 "spin": false,              with the real clock: spend the latency computing instead of sleeping
 "repetition_permille": [1000, 1010],   factor on the latencies of repetition 1, 2 ... (repeated)
 "import_ns": 1, "load_ns": 2, "compile_ns": 3,        override what the agent measured
 "loaded": {...},            members of the `loaded` event to override (delegation, nodes_total, precision_effective..)
 "evidence": {...},          members of `loaded` that are known only after everything timed
 "ops": [[0, "Conv", "conv1", "cpu", 1000, 1]],
 "fail": {"at": "load" | "first" | "check" | "warmup" | "measure" | "profile",
          "how": "segfault" | "abort" | "hang" | "raise" | "problem" | "memory" | "exit" | "kill",
          "after": 0,        inferences of that phase that still succeed
          "repetitions": [2],    only in these (default: all)
          "code": "op_unsupported", "message": "..", "advice": "..", "stderr": "text printed before"}}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, Dict, List

from socbench_runtime_base import (  # type: ignore[import-not-found]
    Adapter,
    RuntimeProblem,
    Session,
    cpu_name,
    delegate_missing,
    match_inputs,
    wanted_shapes,
)

Json = Dict[str, Any]
DELEGATES = ["cpu:null", "gpu:null", "npu:null", "nnapi"]
VERSION = "1"


class NullSession(Session):  # type: ignore[misc]
    """A scripted model."""

    def __init__(self, script: Json, trial: Json) -> None:
        self.script = script
        self.trial = trial
        self.specs = [
            dict(spec) for spec in script.get("inputs") or [{"name": "x", "dtype": "float32", "shape": [1, 4]}]
        ]
        for name, shape in wanted_shapes(self.specs, trial).items():
            next(spec for spec in self.specs if spec["name"] == name)["shape"] = shape
        self.results = script.get("outputs") or [
            {"name": "y", "dtype": "float32", "shape": [1, 2], "values": [0.25, 0.75]}
        ]
        self.fake = script.get("clock") == "fake"
        self.now_ns = int(script.get("clock_start_ns", 10**12))
        self.phase = "load"
        self.calls = 0
        self.bound = -1
        self.given: List[Any] = []
        self.latencies: List[int] = []
        if self.fake:
            self.clock = lambda: self.now_ns
            self.wait_until = self._wait_until
        self.on_phase("load")
        fail_if_scripted(script, trial, "load", 0)

    def _wait_until(self, due_ns: int) -> None:
        self.now_ns = max(self.now_ns, due_ns)

    def on_phase(self, name: str) -> None:
        """Take up the script of a phase of the repetition."""
        if name == "check":
            self.bound = -1
        self.phase = name
        self.calls = 0
        self.latencies = self._scripted(name)
        plain = self.latencies == [0] and not self.fake and "fail" not in self.script
        self.run = _nothing if plain else self._run

    def _scripted(self, phase: str) -> List[int]:
        given = self.script.get("latency_ns", 10**6 if self.fake else 0)
        if isinstance(given, dict):
            given = given.get(phase, 10**6 if self.fake else 0)
        factors = self.script.get("repetition_permille") or [1000]
        factor = factors[(self.trial.get("repetition", 1) - 1) % len(factors)]
        return [value * factor // 1000 for value in (given if isinstance(given, list) else [given])]

    def _run(self) -> None:
        fail_if_scripted(self.script, self.trial, self.phase, self.calls)
        latency_ns = self.latencies[self.calls % len(self.latencies)]
        self.calls += 1
        if self.fake:
            self.now_ns += latency_ns
        elif self.script.get("spin"):
            until = time.perf_counter_ns() + latency_ns
            while time.perf_counter_ns() < until:
                pass
        elif latency_ns:
            time.sleep(latency_ns / 1e9)

    def bind(self, inputs: Json) -> None:
        """Take the inputs; they matter for outputs that echo, and for ``by_input``."""
        self.given = match_inputs(self.specs, inputs)
        self.bound += 1

    def outputs(self) -> Json:
        """Return the scripted outputs."""
        return {spec["name"]: self._output(spec) for spec in self.results}

    def _output(self, spec: Json) -> Any:
        import numpy as np

        values = spec.get("values", [0])
        if "by_input" in spec:
            values = spec["by_input"][self.bound % len(spec["by_input"])]
        if values == "nan":
            values = [float("nan")]
        elif values == "echo":
            values = self.given[0].ravel()
        return np.resize(np.asarray(values), spec["shape"]).astype(spec["dtype"])

    def describe(self) -> Json:
        """Everything as asked, unless the script says otherwise."""
        described = {
            "runtime_version": VERSION,
            "delegate_effective": self.trial["delegate"],
            "accelerator": "script",
            "emulated": False,
            "delegation": "full",
            "delegation_evidence": "reported",
            "nodes_total": 1,
            "nodes_delegated": 1,
            "partitions": 1,
            "precision_effective": self.trial["precision"],
            "threads_effective": self.trial["threads"],
            "inputs": [_spec(spec) for spec in self.specs],
            "outputs": [_spec(spec) for spec in self.results],
            "details": {},
        }
        for name in ("import_ns", "load_ns", "compile_ns"):
            if name in self.script:
                described[name] = self.script[name]
        described.update(self.script.get("loaded") or {})
        return described

    def evidence(self) -> Json:
        """Return what the script reveals late."""
        return dict(self.script.get("evidence") or {})


def _nothing() -> None:
    return None


def _spec(spec: Json) -> Json:
    members = {name: spec[name] for name in ("name", "dtype", "shape")}
    return dict(members, scale=spec.get("scale"), zero_point=spec.get("zero_point"))


def fail_if_scripted(script: Json, trial: Json, phase: str, calls: int) -> None:
    """Fail in the scripted way when its time has come."""
    fail = script.get("fail")
    if not fail or fail.get("at") != phase or calls < fail.get("after", 0):
        return
    if trial.get("repetition", 1) not in fail.get("repetitions", [trial.get("repetition", 1)]):
        return
    if fail.get("stderr"):
        sys.stderr.write(fail["stderr"])
        sys.stderr.flush()
    how = fail.get("how", "raise")
    message = fail.get("message", "scripted failure")
    signals = {"segfault": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}
    if how in signals:
        os.kill(os.getpid(), signals[how])
    elif how == "hang":
        while True:
            time.sleep(3600)
    elif how == "memory":
        raise MemoryError
    elif how == "exit":
        os._exit(3)
    elif how == "problem":
        raise RuntimeProblem(fail.get("code", "run_failed"), message, fail.get("advice"))
    raise RuntimeError(message)


class NullAdapter(Adapter):  # type: ignore[misc]
    """The null runtime is always there."""

    name = "null"
    formats = ["null"]  # noqa: RUF012

    def import_runtime(self) -> None:
        """Nothing to import but NumPy, which every repetition needs."""
        import numpy  # noqa: F401

    def probe(self) -> Json:
        """Every delegate works, on every machine."""
        delegates = [
            {
                "delegate": name,
                "available": True,
                "accelerator": cpu_name() if name.startswith("cpu") else "script",
                "emulated": False,
                "precisions": ["fp32", "fp16", "int8"],
                "reason": None,
                "fix": None,
            }
            for name in DELEGATES
        ]
        return {"runtime": "null", "version": VERSION, "formats": self.formats, "error": None, "delegates": delegates}

    def load(self, model: str, trial: Json) -> Session:
        """Read the script."""
        if trial["delegate"] not in DELEGATES:
            raise delegate_missing("null", trial["delegate"], DELEGATES)
        return NullSession(_read(model), trial)

    def profile(self, model: str, trial: Json, inputs: Json) -> List[List[Any]]:
        """Return the scripted rows."""
        fail_if_scripted(_read(model), trial, "profile", 0)
        return list(_read(model).get("ops") or [])


def _read(model: str) -> Json:
    try:
        with open(model, encoding="utf-8") as file:
            script = json.load(file)
    except ValueError as error:
        raise RuntimeProblem("model_invalid", f"{model} is no script of the null runtime: {error}") from None
    if not isinstance(script, dict):
        raise RuntimeProblem("model_invalid", f"{model} is no script of the null runtime: it is no object")
    return script


ADAPTER = NullAdapter()
