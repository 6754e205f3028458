"""What the native agent measures against the Python agent: the same library, model and inputs, alternated.

    python benchmarks/native_agent.py [PAIRS]

Prints for each runtime the medians of both agents and how far they lie apart, with the spread of the pairs: on a busy
machine the spread is the larger number, and the difference means nothing below it. Needs `make native`.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable, str(ROOT / "device_agents" / "python" / "agent.py")]
NATIVE = [str(ROOT / "device_agents" / "native" / "build" / "socbench-agent-linux-x86_64")]
MODEL = ROOT / "models" / "efficientnet_lite0" / "efficientnet_lite0-fp32"
CASES = (
    ("litert", "cpu:xnnpack", "tflite", "ai_edge_litert", ""),
    ("onnxruntime", "cpu:mlas", "onnx", "onnxruntime", "capi"),
)
SETTINGS = {
    "min_time_s": 2.0,
    "min_count": 30,
    "max_time_s": 20.0,
    "warmup_max_s": 3.0,
    "warmup_min_count": 10,
    "max_count": 10_000,
    "rate_hz": None,
}


def library_folder(package: str, inside: str) -> str:
    """Return the folder of a package that holds its C library."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(next(iter(spec.submodule_search_locations))) / inside)


def measure(agent: list[str], trial: dict[str, object]) -> list[int]:
    """Return the latencies (ns) of one repetition."""
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "protocol": 1,
            "session": "benchmark",
            "orphan_after_s": None,
            "telemetry": None,
            "trials": {"t": trial},
            "repetitions": [{"trial": "t", "repetition": 1, "deadline_s": 120.0, "cool_down": None}],
        }
        (Path(folder) / "job.json").write_text(json.dumps(job))
        subprocess.run([*agent, "run", folder], check=True)
        events = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
    errors = [event for event in events if event["type"] == "error"]
    assert not errors, errors
    batches = [event for event in events if event["type"] == "samples" and event["phase"] == "measured"]
    return [latency for batch in batches for latency in batch["latency_ns"]]


def main(pairs: int) -> None:
    """Alternate the two agents, each first in every other pair, and print what came out."""
    for runtime, delegate, form, package, inside in CASES:
        trial = {
            "runtime": runtime,
            "delegate": delegate,
            "format": form,
            "precision": "fp32",
            "model": f"{MODEL}.{form}",
            "python": None,
            "runtime_dir": library_folder(package, inside),
            "threads": 1,
            "cores": [0],
            "batch": 1,
            "shapes": {},
            "scenario": "single_stream",
            "settings": SETTINGS,
            "probe": None,
            "dataset": None,
            "input_seed": 7,
            "profile": False,
            "options": {},
        }
        medians: dict[str, list[float]] = {"python": [], "native": []}
        fastest: dict[str, list[float]] = {"python": [], "native": []}
        agents = {"python": PYTHON, "native": NATIVE}
        for pair in range(pairs):
            for name in sorted(agents, reverse=pair % 2 == 0):
                latencies = measure(agents[name], trial)
                medians[name].append(statistics.median(latencies) / 1e6)
                fastest[name].append(min(latencies) / 1e6)
        for label, found in (("median", medians), ("minimum", fastest)):
            ratios = sorted(n / p for n, p in zip(found["native"], found["python"], strict=True))
            middle = statistics.median(ratios)
            print(
                f"{runtime} {delegate}, {label}: python {statistics.median(found['python']):.2f} ms, "
                f"native {statistics.median(found['native']):.2f} ms, native/python {middle:.4f} "
                f"(pairs {ratios[0]:.4f} to {ratios[-1]:.4f}, n={pairs})"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
