"""What many devices at once cost the host: 64 that sleep instead of computing, against one, alternated in one run.

    python benchmarks/many_devices.py [--devices 64] [--seconds 15] [--repeat 2] [--rounds 2]

The devices are fake (``fake:NAME``, folders of this machine) and so is their agent (below: it speaks the protocol and
sleeps), since 64 real agents would compute on the very cores that the host needs. Everything of the host's is real:
plan, provisioning, followed event files, journal, store. Prints for both: how long opening and the plan took, how late
events reached the host (the clock is the same), the host's largest memory, and the host's own time a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

BATCH_S = 0.5
LATENCY_NS = 10_000_000
MODELS = 3
EVENT_RATIO, EVENT_LATE_S, MEMORY_BYTES, HOST_S = 1.15, 1.0, 1 << 30, 1.0


def fake_agent(command: str, folder: str) -> None:
    """Speak the agent's commands (docs/protocol.md); ``run`` writes what a job asks for and sleeps meanwhile."""
    job = Path(folder)
    if command == "version":
        print(json.dumps({"agent": "fake", "version": "1", "protocols": [1]}))
    elif command == "start":
        (job / "events.jsonl").touch()
        if os.fork() == 0:
            os.setsid()
            for descriptor in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            _sleep_through(job)
            os._exit(0)
        print(json.dumps({"pid": 1}))
    elif command == "status":
        size = (job / "events.jsonl").stat().st_size if (job / "events.jsonl").exists() else 0
        print(json.dumps({"running": True, "pid": 1, "events_bytes": size, "ended": False}))
    elif command == "stop":
        print(json.dumps({"stopped": False}))


def _sleep_through(job: Path) -> None:
    plan = json.loads((job / "job.json").read_text())
    with (job / "events.jsonl").open("a") as file:
        seq = 0

        def say(kind: str, **members: object) -> None:
            nonlocal seq
            seq += 1
            file.write(json.dumps({"seq": seq, "t_ns": time.monotonic_ns(), "type": kind, **members}) + "\n")
            file.flush()

        power = {"source": None, "battery_permille": None, "battery_saver": None}
        say("hello", protocol=1, agent="fake", agent_version="1", pid=os.getpid(), session=plan["session"],
            boot_id=None, power=power)  # fmt: skip
        say("clock", monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns())
        for entry in plan["repetitions"]:
            where = {"trial": entry["trial"], "repetition": entry["repetition"]}
            settings = plan["trials"][entry["trial"]]["settings"]
            say("phase", **where, phase="import", detail=None)
            say("loaded", **where, import_ns=1, load_ns=1, compile_ns=None, runtime_version="1",
                delegate_effective="cpu:null", accelerator="fake", emulated=True, delegation="full",
                delegation_evidence="reported", nodes_total=1, nodes_delegated=1, partitions=1,
                precision_effective="fp32", threads_effective=1, cores_effective=[], inputs=[], outputs=[],
                details={})  # fmt: skip
            say("phase", **where, phase="measure", detail=None)
            end, count = time.monotonic() + settings["min_time_s"], 0
            while time.monotonic() < end:
                start = time.monotonic_ns()
                time.sleep(min(BATCH_S, max(0.0, end - time.monotonic())))
                say("samples", **where, phase="measured", start_ns=start, latency_ns=[LATENCY_NS] * 50,
                    gap_ns=[0] * 50)  # fmt: skip
                say("telemetry", **where, rows=[[time.monotonic_ns(), "temperature_milli_c", "fake", 40_000]])
                count += 50
            say("done", **where, measured_count=count, measured_ns=count * LATENCY_NS, stopped_by="min",
                peak_memory_bytes=1, cpu_ns=0, voluntary_switches=0, involuntary_switches=0, busy_ns=None,
                quota_throttled_ns=None, run_delay_ns=None, power=power)  # fmt: skip
        say("end", reason="complete")


class Watched:
    """A progress that says nothing and remembers when the plan began."""

    def __init__(self) -> None:
        self.planned_s = 0.0

    def planned(self, *_: object) -> None:
        """Remember the moment."""
        self.planned_s = time.monotonic()

    def step(self, *_: object) -> None:
        """Say nothing."""

    update = trial_ended = message = step


def measure(
    devices: int, seconds: float, repeat: int, models: tuple[str, ...], store: Path, late: list[float]
) -> tuple[float, ...]:
    """Run one session; return seconds to open the devices and to run the plan, and processor time of the host."""
    from socbench.plan import RunRequest
    from socbench.session import run_session

    request = RunRequest(
        targets=models, devices=tuple(f"fake:d{number}" for number in range(devices)), repeat=repeat,
        min_time_s=seconds, allow_emulated=True, agent="python",
    )  # fmt: skip
    late.clear()
    watched = Watched()
    began, used = time.monotonic(), time.process_time()
    result = run_session(request, store=store, progress=watched)  # type: ignore[arg-type]
    if result.status != "complete":
        raise SystemExit(f"the session ended as {result.status}: nothing can be said")
    return watched.planned_s - began, time.monotonic() - watched.planned_s, time.process_time() - used


def use_the_fake_agent(late: list[float]) -> None:
    """Put the sleeping agent in the place of the Python one, and note how late every event is."""
    from socbench.agents.base import Agent
    from socbench.agents.channel import Channel
    from socbench.records import Json
    from socbench.session import devices
    from socbench.session.journal import DeviceJournal
    from socbench.transports.base import Deadline

    class SleepingAgent:
        name = "python"

        def install(self, channel: Channel, *, deadline: Deadline, say: Callable[[str], None]) -> Agent:
            return Agent(channel, (sys.executable, "-I", "-S", str(Path(__file__).resolve()), "--fake-agent"), "fake")

    delegate = {"delegate": "cpu:null", "available": True, "accelerator": "fake", "emulated": True, "precisions": None}
    entry: Json = {"runtime": "null", "version": "1", "environment": "host", "formats": ["null"], "error": None,
                   "delegates": [delegate]}  # fmt: skip
    devices.KINDS["python"] = SleepingAgent()  # type: ignore[index]
    devices.probe = lambda *_, **__: [entry]  # type: ignore[assignment]
    add = DeviceJournal.add
    lock = threading.Lock()

    def noted(self: DeviceJournal, path: Path, followed: object) -> None:
        with lock:
            late.append((time.monotonic_ns() - followed.head.t_ns) / 1e9)  # type: ignore[attr-defined]
        add(self, path, followed)  # type: ignore[arg-type]

    DeviceJournal.add = noted  # type: ignore[method-assign]


def main() -> int:
    """Run the benchmark; return 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    late: list[float] = []
    found: dict[int, list[tuple[float, ...]]] = {1: [], chosen.devices: []}
    with tempfile.TemporaryDirectory(prefix="socbench-many-") as folder:
        for name in ("STORE", "CACHE", "FAKE_ROOT", "CONFIG"):
            os.environ[f"SOCBENCH_{name}"] = str(Path(folder) / name.lower())
        models = tuple(str(Path(folder) / f"sleeping{number}.null.json") for number in range(MODELS))
        for model in models:
            Path(model).write_text(json.dumps({"clock": "real", "latency_ns": [LATENCY_NS], "name": model}))
        use_the_fake_agent(late)
        for _ in range(chosen.rounds):
            for count in found:
                opened, ran, used = measure(count, chosen.seconds, chosen.repeat, models, Path(folder) / "store", late)
                ordered = sorted(late)
                p99, worst = ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]
                found[count].append((opened, ran, p99, worst))
                print(
                    f"{count:3} devices: opened in {opened:5.1f} s, plan {ran:6.2f} s, host {used:.1f} s of processor"
                )
                print(f"    {len(late)} events, 99 % of them within {p99:.2f} s, all within {worst:.2f} s", flush=True)
    many, one = found[chosen.devices], found[1]
    ratio = statistics.median(row[1] for row in many) / statistics.median(row[1] for row in one)
    host_s = (statistics.median(row[1] for row in one) - MODELS * chosen.repeat * chosen.seconds) / MODELS
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worst = max(row[3] for row in one)
    checks = [
        (f"plan of {chosen.devices} devices over that of one: {ratio:.3f}", ratio <= EVENT_RATIO, EVENT_RATIO),
        (f"latest event of one device, s: {worst:.2f}", worst <= EVENT_LATE_S, EVENT_LATE_S),
        (f"host memory, MB: {memory / 1e6:.0f}", memory < MEMORY_BYTES, MEMORY_BYTES / 1e6),
        (f"host's own time a trial on one device, s: {host_s:.2f}", host_s < HOST_S, HOST_S),
    ]
    for text, good, limit in checks:
        print(f"{text} (at most {limit:g}) {'ok' if good else 'MISSED'}")
    return 0 if all(good for _, good, _ in checks) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fake-agent"]:
        fake_agent(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ".")
    else:
        sys.exit(main())
