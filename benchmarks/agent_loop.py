"""What the agent's timed loop costs over a bare loop of the same runtime's fastest call.

    python benchmarks/agent_loop.py [--json FILE] [--blocks N]

Two questions, each answered by alternating both loops in one process, a process a runtime and model:
  * cost an inference: the wall time of a block of the agent's loop less that of a block of ``for _ in range(n): run()``,
    over n, on the tiny model;
  * the median: what the agent's loop recorded against what a plain loop of two clock readings around the same call
    recorded, on a model of at least a millisecond.
Models are chains of fully connected layers, made here.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "null": ("cpu:null", "null"),
    "litert": ("cpu:xnnpack", "tflite"),
    "onnxruntime": ("cpu:mlas", "onnx"),
    "openvino": ("cpu:openvino", "onnx"),
}
MODELS = {"tiny": (4, 1), "1 ms": (1024, 8)}


def load_module(path: Path, name: str) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_model(form: str, size: int, layers: int, folder: Path) -> Path:
    """Write the model of a case."""
    tiny = load_module(ROOT / "tests" / "conformance" / "runtime" / "tiny_models.py", "tiny_models")
    path = folder / f"model.{form}"
    if form == "null":
        latency_ns = 0 if size < 100 else 1_500_000
        path.write_text(json.dumps({"clock": "real", "spin": True, "latency_ns": latency_ns}))
        return path
    written: Path = {"onnx": tiny.write_onnx, "tflite": tiny.write_tflite}[form](path, size, layers)
    return written


def bare_block(run: Any, count: int) -> int:
    """Return the wall time in ns of a bare loop."""
    begin = time.perf_counter_ns()
    for _ in range(count):
        run()
    return time.perf_counter_ns() - begin


def plain_median(run: Any, count: int) -> float:
    """Return the median latency of a loop that anyone would write."""
    clock = time.perf_counter_ns
    times = [0] * count
    for index in range(count):
        begin = clock()
        run()
        times[index] = clock() - begin
    return statistics.median(times)


def measure(runtime: str, kind: str, blocks: int) -> dict[str, Any]:
    """Measure one runtime on one model in this process."""
    agent = load_module(ROOT / "device_agents" / "python" / "agent.py", "socbench_agent")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    delegate, form = CASES[runtime]
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(form, *MODELS[kind], Path(folder))
        adapter = agent.load_adapter(runtime)
        adapter.import_runtime()
        trial = {"runtime": runtime, "delegate": delegate, "precision": "fp32", "threads": 1, "batch": 1, "shapes": {}}
        session = adapter.load(str(model), {**trial, "options": {}})
        inputs = agent.Inputs(None, "probe", {"input_seed": 7}, session.describe())
        session.bind(inputs.one(0))
        if hasattr(session, "on_phase"):
            session.on_phase("measure")
        return alternate(agent, session.run, 20 if kind != "tiny" else 5000, blocks) | {
            "runtime": runtime,
            "model": kind,
        }


def alternate(agent: ModuleType, run: Any, count: int, blocks: int) -> dict[str, Any]:
    """Alternate the loops; the order within a round turns, so that drift hits all alike."""
    buffers = agent.Buffers()
    bare, ours, ours_median, plain = [], [], [], []
    never = time.perf_counter_ns() + 10**15

    def agent_block() -> None:
        begin = time.perf_counter_ns()
        used = agent.timed_block(run, time.perf_counter_ns, buffers.starts, buffers.ends, 0, count, never)
        ours.append(time.perf_counter_ns() - begin)
        ours_median.append(statistics.median([buffers.ends[i] - buffers.starts[i] for i in range(used)]))

    steps = [lambda: bare.append(bare_block(run, count)), agent_block, lambda: plain.append(plain_median(run, count))]
    bare_block(run, count)
    gc.collect()
    gc.disable()
    for index in range(blocks):
        for step in steps[index % 3 :] + steps[: index % 3]:
            step()
    gc.enable()
    costs = [(a - b) / count for a, b in zip(ours, bare, strict=True)]
    ratios = [a / b for a, b in zip(ours_median, plain, strict=True)]
    return {
        "blocks": blocks,
        "inferences_a_block": count,
        "bare_ns": statistics.median(bare) / count,
        "cost_ns": statistics.median(costs),
        "agent_median_ns": statistics.median(ours_median),
        "plain_median_ns": statistics.median(plain),
        "median_ratio": statistics.median(ratios),
    }


def main() -> int:
    """Run every case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--one", nargs=2, metavar=("RUNTIME", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.blocks)))
        return 0
    rows = []
    for runtime in CASES:
        for kind in MODELS:
            argv = [sys.executable, __file__, "--blocks", str(options.blocks), "--one", runtime, kind]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{runtime}, {kind}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("| runtime | model | bare call | agent's loop costs | agent's median | plain loop's median | ratio |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['runtime']} | {row['model']} | {row['bare_ns'] / 1e3:.2f} us | {row['cost_ns'] / 1e3:+.3f} us "
            f"| {row['agent_median_ns'] / 1e3:.2f} us | {row['plain_median_ns'] / 1e3:.2f} us | {row['median_ratio']:.4f} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
