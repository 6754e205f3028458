#!/usr/bin/env python3
"""An agent that FAKES a phone: it speaks docs/protocol.md, and every number comes from ``simulated.py``.

``fake:phone-N`` runs it as a program on this machine. Half an hour of the phone's time passes in a second or two. Its
rows are marked as emulated, its device calls itself a fake and simulated, and no answer is computed. Commands are
those of an agent (version, probe, start, run, status, stop) behind the phone's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import Any, Final

if __package__ in (None, ""):  # run as a file: import the package that it lies in, whatever the interpreter knows
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
from numpy.typing import NDArray

from socbench.devices import simulated
from socbench.records import FORMATS_OF_RUNTIME, PROTOCOL_VERSION, CoreCluster, Device

Json = dict[str, Any]
Ints = NDArray[np.int64]
ADDRESS: Final = re.compile(r"fake:phone-([1-9][0-9]{0,5})")
START_NS: Final = 1_000_000_000_000
BATCH_NS: Final = 500_000_000
GAP_NS: Final = 2_000
FULL_KHZ: Final = 3_000_000
BATTERY_UV: Final = 3_850_000
LOAD_W: Final = 0.5
"""What a simulated core takes that a second load keeps busy."""
SPEED_OF: Final = {"int8": 0.55, "int8_dynamic": 0.7, "fp16": 0.8, "bf16": 0.8}
"""What a precision takes of the time of fp32, on every simulated phone."""
_CPU: Final = {
    "litert": "cpu:xnnpack",
    "onnxruntime": "cpu:mlas",
    "openvino": "cpu:openvino",
    "ncnn": "cpu:ncnn",
    "mnn": "cpu:mnn",
    "executorch": "cpu:xnnpack",
    "null": "cpu:null",
}
_SKIN: Final = "thermal_zone7:skin"


def phone_number(address: str) -> int | None:
    """Return N of ``fake:phone-N``, ``None`` for every other address."""
    found = ADDRESS.fullmatch(address)
    return int(found[1]) if found else None


def describe(number: int, address: str) -> Device:
    """Return the record of a fake phone: it says that it is one wherever its name is shown."""
    kind, _ = simulated.named_phone(number)
    return Device(
        device=address,
        key=f"fake-phone-{number}",
        name=f"Fake phone {number} ({kind}, simulated)",
        soc_vendor="simulated",
        soc=f"simulated SoC {number}",
        os="simulated",
        abi="arm64-v8a",
        cores=(CoreCluster((0, 1, 2, 3), "simulated", 2_000_000), CoreCluster((4, 5, 6, 7), "simulated", FULL_KHZ)),
        emulated=True,
    )


class _Stopped(Exception):
    pass


class FakeRun:
    """Writes the event file of one job. ``now_ns`` is the phone's clock."""

    def __init__(self, number: int, job_dir: Path, job: Json) -> None:
        self.number = number
        self.job = job
        self.now_ns = START_NS
        self.wall_ns = time.time_ns() - START_NS
        self.seq = 0
        self.where: Json = {}
        self.stopped = False
        self.ran: tuple[simulated.PhoneParameters, simulated.PhoneRun] | None = None
        self.stream = (job_dir / "events.jsonl").open("xb", buffering=0)

    def emit(self, kind: str, t_ns: int | None = None, **members: Any) -> None:
        """Append one event."""
        self.seq += 1
        event = {"seq": self.seq, "t_ns": t_ns or self.now_ns, "type": kind, **self.where, **members}
        self.stream.write(json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")

    def clock(self) -> None:
        """Append a pair of clocks."""
        self.emit("clock", monotonic_ns=self.now_ns, wall_ns=self.wall_ns + self.now_ns)

    def run(self) -> str:
        """Run all repetitions; returns the reason of the end."""
        boot = f"fake-phone-{self.number}"
        power = {"source": "battery", "battery_permille": 870, "battery_saver": False}
        members = {"agent_version": "simulated", "pid": os.getpid(), "session": self.job["session"], "boot_id": boot}
        self.emit("hello", protocol=PROTOCOL_VERSION, agent="fake", power=power, **members)
        self.clock()
        reason = "complete"
        try:
            for place, entry in enumerate(self.job["repetitions"]):
                self.where = {"trial": entry["trial"], "repetition": entry["repetition"]}
                _Repetition(self, self.job["trials"][entry["trial"]], entry, first=place == 0).run()
                self.where = {}
            self._rest((self.job.get("telemetry") or {}).get("after_s") or 0.0)
        except _Stopped:
            self.emit("error", code="stopped", message="the fake phone was told to stop", advice=None)
            reason = "stopped"
        self.where = {}
        self.emit("end", reason=reason)
        self.stream.close()
        return reason

    def _rest(self, seconds: float) -> None:
        """Tell temperatures while the phone cools down after its last repetition."""
        if not seconds or self.ran is None:
            return
        phone, run = self.ran
        origin_ns = self.now_ns
        rows = simulated.telemetry_rows(phone, simulated.cooling(phone, run, seconds), 0, FULL_KHZ)
        for t_ns, group in groupby(rows, key=lambda row: int(row[0])):
            self.now_ns = origin_ns + t_ns
            self.emit("telemetry", rows=[[self.now_ns, *row[1:]] for row in group if row[1] == "temperature_milli_c"])


class _Repetition:
    """One repetition of a trial on the simulated phone, from a rested phone on."""

    def __init__(self, run: FakeRun, trial: Json, entry: Json, *, first: bool) -> None:
        self.out = run
        self.trial = trial
        self.settings = trial["settings"]
        self.first = first
        self.entry = entry
        _, self.phone = simulated.named_phone(run.number)
        # Cores that something else keeps busy are capped together with ours: their heat follows the same clock.
        load_w = LOAD_W * (self.settings.get("busy_cores") or 0)
        self.phone = dataclasses.replace(self.phone, power_full_w=self.phone.power_full_w + load_w)
        scale = SPEED_OF.get(trial["precision"], 1.0) * trial.get("batch", 1)
        self.base_s = float(self.phone.base_latency_s[0]) * scale
        self.rng = np.random.default_rng([run.number, int(trial.get("input_seed", 0)), entry["repetition"]])

    def run(self) -> None:
        """Write the repetition's events."""
        if self.trial["scenario"] == "accuracy":
            message = "a simulated phone computes no answers, so it has no accuracy"
            self.out.emit("error", code="op_unsupported", message=message, advice=None)
            return
        self._cool_down()
        for phase in ("import", "load"):
            self.out.emit("phase", phase=phase, detail=None)
            self.out.now_ns += 40_000_000
        self.out.emit("loaded", **self._loaded())
        self._phase("first", 1, 2.5)
        self.out.emit("phase", phase="check", detail=None)
        count = max(1, round(min(1.0, self.settings["warmup_max_s"]) / self.base_s))
        before_ns = self.out.now_ns
        self._phase("warmup", count, 1.0)
        self.out.emit("warmup", count=count, duration_ns=self.out.now_ns - before_ns, steady=True)
        self.out.emit("phase", phase="measure", detail=None)
        start_ns, latency_ns, stopped_by = self._measure()
        self._done(start_ns, latency_ns, stopped_by)

    def _cool_down(self) -> None:
        if self.entry.get("cool_down") is None:
            return
        waited_ns = 0 if self.first else int(120e9)
        self.out.emit("phase", phase="cool_down", detail={"outcome": "waiting"})
        self.out.now_ns += waited_ns
        state = {"temperatures": {_SKIN: 30_000}, "caps": {"policy4": FULL_KHZ}, "status": 0}
        detail = {"outcome": "reached", "waited_ns": waited_ns, "baseline": state, "state": state, "above": []}
        self.out.emit("phase", phase="cool_down", detail=detail)

    def _loaded(self) -> Json:
        return {
            "runtime_version": "simulated",
            "delegate_effective": self.trial["delegate"],
            "accelerator": "simulated",
            "emulated": True,
            "delegation": "full",
            "delegation_evidence": "none",
            "nodes_total": None,
            "nodes_delegated": None,
            "partitions": None,
            "precision_effective": self.trial["precision"],
            "threads_effective": self.trial["threads"],
            "cores_effective": self.trial.get("cores"),
            "import_ns": 40_000_000,
            "load_ns": 40_000_000,
            "compile_ns": None,
            "inputs": [],
            "outputs": [],
            "details": {"simulated": True},
        }

    def _phase(self, phase: str, count: int, factor: float) -> None:
        """Inferences before measuring: at full clock, the device is cold."""
        self.out.emit("phase", phase=phase, detail=None)
        latency_ns = self._noisy(np.full(count, self.base_s * factor))
        self._samples(phase, self.out.now_ns + np.concatenate(([0], np.cumsum(latency_ns + GAP_NS)[:-1])), latency_ns)
        self.out.now_ns += int(latency_ns.sum() + GAP_NS * count)

    def _noisy(self, seconds: NDArray[np.float64]) -> Ints:
        noise = self.rng.normal(0.0, float(self.phone.noise_cv[0]), len(seconds))
        return np.maximum(1, seconds * np.exp(noise) * 1e9).astype(np.int64)

    def _measure(self) -> tuple[Ints, Ints, str]:
        """Simulate the measured part; write samples, telemetry and clocks in the order of their times."""
        settings = self.settings
        longest_s = max(settings["min_time_s"], settings["min_count"] * self.base_s * 4)
        rate = settings.get("rate_hz")
        run = simulated.simulate(self.phone, min(longest_s, 90_000.0) + 2.0, rate)
        start_ns, latency_ns, late_ns = self._inferences(run, rate)
        enough = max(
            int(np.searchsorted(start_ns + latency_ns, settings["min_time_s"] * 1e9)) + 1, settings["min_count"]
        )
        stopped_by = "min"
        limit = self._limit_ns(run, settings.get("max_temperature_milli_c"))
        if limit is not None and limit < start_ns[min(enough, len(start_ns)) - 1]:
            enough, stopped_by = int(np.searchsorted(start_ns, limit)) + 1, "max_temperature"
        start_ns, latency_ns = start_ns[:enough], latency_ns[:enough]
        late_ns = None if late_ns is None else late_ns[:enough]
        self._write(run, start_ns, latency_ns, late_ns)
        return start_ns, latency_ns, stopped_by

    def _inferences(self, run: simulated.PhoneRun, rate: float | None) -> tuple[Ints, Ints, Ints | None]:
        """Return start (ns since measuring began), latency and, at a fixed rate, lateness of every inference."""
        clock = run.clock[0]
        grid_s = np.arange(len(clock)) * simulated.STEP_S
        if rate is None:
            done = np.concatenate(([0.0], np.cumsum(clock[:-1] * simulated.STEP_S))) / self.base_s
            at_s = np.interp(np.arange(int(done[-1])), done, grid_s)
            latency_ns = self._noisy(np.diff(np.append(at_s, np.interp(len(at_s), done, grid_s))))
            start_ns = np.concatenate(([0], np.cumsum(latency_ns + GAP_NS)[:-1]))
            return start_ns, latency_ns, None
        period_ns = 1e9 / rate
        slots = np.arange(int(grid_s[-1] * rate))
        share = np.interp(slots / rate, grid_s, clock)
        each_ns = self._noisy(self.base_s / share)
        taken: list[tuple[int, int, int]] = []
        slot, free_ns = 0, 0
        while slot < len(slots):
            due_ns = int(slot * period_ns)
            begin_ns = max(due_ns, free_ns)
            taken.append((begin_ns, int(each_ns[slot]), begin_ns - due_ns))
            free_ns = begin_ns + int(each_ns[slot]) + GAP_NS
            slot = max(slot + 1, int(free_ns / period_ns))
        start_ns, latency_ns, late_ns = np.array(taken, np.int64).T
        return start_ns, latency_ns, late_ns

    @staticmethod
    def _limit_ns(run: simulated.PhoneRun, limit_milli_c: int | None) -> int | None:
        """Return when the skin reaches the limit, ``None`` when it does not."""
        if limit_milli_c is None:
            return None
        reached = np.flatnonzero(run.skin_c[0] * 1000 >= limit_milli_c)
        return int(reached[0] * simulated.STEP_S * 1e9) if reached.size else None

    def _write(self, run: simulated.PhoneRun, start_ns: Ints, latency_ns: Ints, late_ns: Ints | None) -> None:
        origin_ns = self.out.now_ns
        edges = np.searchsorted(start_ns, np.arange(0, int(start_ns[-1]) + BATCH_NS, BATCH_NS))
        edges = np.unique(np.append(edges, len(start_ns)))
        telemetry = self._telemetry(run, origin_ns)
        whole = round((start_ns[-1] + latency_ns[-1]) / 1e9 / simulated.STEP_S) + 1
        self.out.ran = (
            self.phone,
            simulated.PhoneRun(run.clock[:, :whole], run.die_c[:, :whole], run.skin_c[:, :whole]),
        )
        rows = next(telemetry, None)
        next_clock_ns = origin_ns + 60_000_000_000
        for low, high in pairwise(edges.tolist()):
            end_ns = origin_ns + int(start_ns[high - 1] + latency_ns[high - 1])
            while rows is not None and rows[0][0] <= end_ns:
                self.out.emit("telemetry", t_ns=rows[0][0], rows=rows)
                rows = next(telemetry, None)
            self.out.now_ns = end_ns
            late = None if late_ns is None else late_ns[low:high]
            self._samples("measured", origin_ns + start_ns[low:high], latency_ns[low:high], late)
            if end_ns >= next_clock_ns:
                next_clock_ns += 60_000_000_000
                self.out.clock()
            if self.out.stopped:
                raise _Stopped

    def _telemetry(self, run: simulated.PhoneRun, origin_ns: int) -> Iterator[list[list[Any]]]:
        """Yield the rows of each reading, twice a second: what simulated.py gives, and the battery's gauge."""
        group: list[list[Any]] = []
        for row in simulated.telemetry_rows(self.phone, run, 0, FULL_KHZ):
            if group and row[0] + origin_ns != group[0][0]:
                yield group
                group = []
            group.append([row[0] + origin_ns, *row[1:]])
            if len(group) == 1:
                group += self._battery(run, row[0], origin_ns)
        if group:
            yield group

    def _battery(self, run: simulated.PhoneRun, t_ns: int, origin_ns: int) -> list[list[Any]]:
        step = round(t_ns / 1e9 / simulated.STEP_S)
        if step % 40:
            return []
        watts = float(
            self.phone.power_full_w[0] * run.clock[0, step] ** self.phone.power_exponent[0]
            + self.phone.power_other_w[0]
        )
        at = t_ns + origin_ns
        return [
            [at, "battery_ua", "battery", -int(watts / (BATTERY_UV / 1e6) * 1e6)],
            [at, "battery_uv", "battery", BATTERY_UV],
            [at, "battery_charging", "battery", 0],
        ]

    def _samples(self, phase: str, start_ns: Ints, latency_ns: Ints, late_ns: Ints | None = None) -> None:
        gaps = np.concatenate(([0], start_ns[1:] - start_ns[:-1] - latency_ns[:-1]))
        members: Json = {"latency_ns": latency_ns.tolist(), "gap_ns": gaps.tolist()}
        if late_ns is not None:
            members["late_ns"] = late_ns.tolist()
        self.out.emit("samples", phase=phase, start_ns=int(start_ns[0]), **members)

    def _done(self, start_ns: Ints, latency_ns: Ints, stopped_by: str) -> None:
        measured_ns = int(start_ns[-1] + latency_ns[-1])
        busy_cores = self.settings.get("busy_cores")
        self.out.emit(
            "done",
            measured_count=len(start_ns),
            measured_ns=measured_ns,
            stopped_by=stopped_by,
            peak_memory_bytes=None,
            cpu_ns=None,
            voluntary_switches=None,
            involuntary_switches=None,
            busy_ns=None,
            quota_throttled_ns=None,
            second_load_ns=busy_cores * measured_ns if busy_cores else None,
            power={"source": "battery", "battery_permille": 820, "battery_saver": False},
        )


def probe(runtimes: list[str]) -> Json:
    """Return the capabilities: the plain CPU delegate of every runtime that is asked for."""
    found = []
    for name in runtimes or list(_CPU):
        delegate = {"delegate": _CPU.get(name, "cpu"), "available": True, "accelerator": "simulated"}
        delegate |= {"emulated": False, "precisions": None, "reason": None, "fix": None}
        formats = list(FORMATS_OF_RUNTIME.get(name, ()))
        entry = {"runtime": name, "version": "simulated", "environment": "host", "formats": formats, "error": None}
        found.append({**entry, "delegates": [delegate]})
    return {"runtimes": found}


def supervise(number: int, job_dir: Path) -> int:
    """Work off a job in this process; the pid file is locked as long as that lasts."""
    job = json.loads((job_dir / "job.json").read_text(encoding="utf-8"))
    with (job_dir / "pid").open("w", encoding="ascii") as pid:
        fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid.write(f"{os.getpid()}\n")
        pid.flush()
        run = FakeRun(number, job_dir, job)

        def stop(signal_number: int, frame: FrameType | None) -> None:
            run.stopped = True

        signal.signal(signal.SIGTERM, stop)
        return 0 if run.run() == "complete" else 1


def start(number: int, job_dir: Path) -> Json:
    """Start a detached process for a job; returns once its event file is there."""
    command = [sys.executable, str(Path(__file__).resolve()), str(number), "run", str(job_dir)]
    with (job_dir / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    events = job_dir / "events.jsonl"
    while not (events.exists() and events.stat().st_size):
        if process.poll() is not None:
            said = (job_dir / "agent.log").read_text(encoding="utf-8", errors="replace")[-500:]
            return {"error": {"code": "run_failed", "message": f"the fake phone ended at once: {said}", "advice": None}}
        time.sleep(0.01)
    process.returncode = 0  # it goes on without us
    return {"pid": process.pid}


def running_pid(job_dir: Path) -> int | None:
    """Return the process that works on a job, ``None`` when there is none."""
    try:
        with (job_dir / "pid").open(encoding="ascii") as pid:
            try:
                fcntl.flock(pid, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(pid.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def status(job_dir: Path) -> Json:
    """Return what is known of a job."""
    events = job_dir / "events.jsonl"
    data = events.read_bytes() if events.exists() else b""
    pid = running_pid(job_dir)
    ended = b'"type":"end"' in data[-4096:]
    return {"running": pid is not None, "pid": pid, "events_bytes": len(data), "ended": ended}


def stop(job_dir: Path) -> Json:
    """End a job."""
    pid = running_pid(job_dir)
    if pid is None:
        return {"stopped": False}
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while running_pid(job_dir) is not None:
        time.sleep(0.01)
    return {"stopped": True}


def main(argv: list[str]) -> int:
    """Run one command of the agent: ``NUMBER COMMAND [ARGUMENT ...]``."""
    number, command, rest = int(argv[0]), argv[1], argv[2:]
    if command == "run":
        return supervise(number, Path(rest[0]))
    if command == "start":
        answer = start(number, Path(rest[0]))
    elif command == "status":
        answer = status(Path(rest[0]))
    elif command == "stop":
        answer = stop(Path(rest[0]))
    elif command == "probe":
        answer = probe(rest[1::2])
    else:
        answer = {"agent": "fake", "version": "simulated", "protocols": [PROTOCOL_VERSION]}
    print(json.dumps(answer), flush=True)
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
