"""Makes sessions in a store from scripted events: exact numbers, through the real translator and writer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from socbench.records import Failure, Json, TrialPlan
from socbench.store import events
from socbench.store.writer import SessionWriter

DEVICE: Json = {
    "device": "local",
    "key": "board-1",
    "name": "Test board",
    "soc": "T1000",
    "os_build": "6.1",
    "cores": [{"cpus": [0, 1], "name": "Cortex-T1", "max_khz": 2_000_000}],
}
LOADED: Json = {
    "import_ns": 1000,
    "load_ns": 2000,
    "runtime_version": "1.0",
    "delegate_effective": "cpu:mlas",
    "accelerator": "Test CPU",
    "emulated": False,
    "delegation": "full",
    "delegation_evidence": "counted",
    "nodes_total": 10,
    "nodes_delegated": 10,
    "partitions": 1,
    "precision_effective": "fp32",
    "threads_effective": 1,
    "cores_effective": [0],
    "inputs": [],
    "outputs": [],
    "details": {},
}
POWER: Json = {"source": None, "battery_permille": None, "battery_saver": None}


def plan(trial: str = "t001", **fields: Any) -> TrialPlan:
    """A trial of MobileTest on ONNX Runtime, fp32, unless told."""
    return replace(
        TrialPlan(trial, "local", "mobiletest", "onnx-fp32", "onnx", "fp32", "onnxruntime", "cpu:mlas"), **fields
    )


class Script:
    """Collects events of one device and the raw outputs that they name."""

    def __init__(self) -> None:
        self.events: list[Json] = [{"seq": 1, "t_ns": 0, "type": "hello", "protocol": 1, "power": POWER}]
        self.raw: dict[str, bytes] = {}
        self.now_ns = 1_000

    def say(self, kind: str, trial: str | None = None, repetition: int | None = None, **members: Any) -> None:
        where = {} if trial is None else {"trial": trial, "repetition": repetition}
        self.events.append({"seq": len(self.events) + 1, "t_ns": self.now_ns, "type": kind, **where, **members})

    def outputs(self, trial: str, repetition: int, stage: str, arrays: Mapping[str, Any], count: int) -> None:
        tensors = [self.tensor(name, array, count) for name, array in arrays.items()]
        self.say("outputs", trial, repetition, stage=stage, count=count, tensors=tensors)

    def tensor(self, name: str, array: Any, count: int) -> Json:
        data = np.ascontiguousarray(array).tobytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self.raw[sha256] = data
        shape = [1, np.asarray(array).size // count]
        return {"name": name, "dtype": str(np.asarray(array).dtype), "shape": shape, "sha256": sha256, "count": count}

    def repetition(
        self,
        trial: str,
        number: int,
        latency_ns: Sequence[int],
        *,
        loaded: Mapping[str, Any] | None = None,
        done: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        count: int = 1,
        telemetry: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """One whole repetition: first inference of 5,000 ns, steady warm-up, the given samples 10 ns apart."""
        self.say("phase", trial, number, phase="load", detail=None)
        self.say("loaded", trial, number, **{**LOADED, **(loaded or {})})
        self.say("samples", trial, number, phase="first", start_ns=self.now_ns, latency_ns=[5_000], gap_ns=[0])
        self.now_ns += 10_000
        if outputs:
            self.outputs(trial, number, "before", outputs, count)
        self.say("warmup", trial, number, count=5, duration_ns=500, steady=True)
        if latency_ns:
            gaps = [0] + [10] * (len(latency_ns) - 1)
            self.say("samples", trial, number, phase="measured", start_ns=self.now_ns,
                     latency_ns=list(latency_ns), gap_ns=gaps)  # fmt: skip
            rows = [[self.now_ns + 1, kind, source, value] for kind, source, value in telemetry]
            self.say("telemetry", trial, number, rows=rows)
            self.now_ns += sum(latency_ns) + 10 * len(latency_ns)
        if outputs:
            self.outputs(trial, number, "after", outputs, count)
        measured = sum(latency_ns)
        facts = {
            "measured_count": len(latency_ns), "measured_ns": measured, "stopped_by": "min",
            "peak_memory_bytes": 1_000_000 + number, "cpu_ns": measured, "voluntary_switches": 0,
            "involuntary_switches": 0, "busy_ns": measured, "quota_throttled_ns": 0, "power": POWER,
        }  # fmt: skip
        self.say("done", trial, number, **{**facts, **(done or {})})

    def dataset(self, trial: str, arrays: Mapping[str, Any], count: int, *, loaded: Json | None = None) -> None:
        """The one repetition of an accuracy trial."""
        self.say("loaded", trial, 1, **{**LOADED, **(loaded or {})})
        self.outputs(trial, 1, "dataset", arrays, count)
        self.say("done", trial, 1, measured_count=0, measured_ns=0, stopped_by="min", power=POWER)


def document(session: str, **fields: Any) -> Json:
    """session.json of a scripted session."""
    return {
        "session": session, "label": None, "status": "running", "started": f"2026-11-{session[-2:]}T10:00:00Z",
        "ended": None, "socbench_version": "0.1.0", "argv": ["socbench", "run"], "seed": 7, "host": {},
        "devices": [DEVICE], "models": {}, "truth": {}, "plan": {}, **fields,
    }  # fmt: skip


def write_session(
    store: Path,
    session: str,
    trials: Sequence[TrialPlan],
    script: Script,
    *,
    seal: bool = True,
    references: Sequence[tuple[str, list[Json]]] = (),
    **fields: Any,
) -> Path:
    """Write a session the way a run does; an id must end in the day of its month."""
    with SessionWriter.create(store, document(session, **fields)) as writer:
        for trial in trials:
            if trial.excluded is not None:
                writer.write_part(trial.trial, events.untried_tables(trial, "excluded"))
            else:
                writer.write_part(trial.trial, events.trial_tables(trial, script.events, raw=script.raw.get))
        if references:
            writer.write_part("references", events.reference_tables(references, script.raw.get))
        if seal:
            writer.seal(fields.get("status", "complete"))
        return writer.folder


def simple_session(store: Path, session: str, medians: Mapping[str, Sequence[int]], **fields: Any) -> Path:
    """Trials that differ in their runtime: ``{runtime: [median of repetition 1, ...]}``, 60 samples a repetition."""
    script, trials = Script(), []
    for index, (runtime, values) in enumerate(medians.items(), 1):
        trial = plan(f"t{index:03d}", runtime=runtime)
        trials.append(trial)
        for number, value in enumerate(values, 1):
            script.repetition(trial.trial, number, [value] * 60)
    return write_session(store, session, trials, script, **fields)


NO_DELEGATE = Failure("delegate_missing", "no GPU here", "use a device with a GPU")
