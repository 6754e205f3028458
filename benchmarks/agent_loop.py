"""What the agent's timed loop costs over a bare loop of the same runtime's fastest call.

    python benchmarks/agent_loop.py [--json FILE] [--blocks N]

Two questions, each answered by alternating both loops in one process, a process a runtime and model:
  * cost an inference: the time of the agent's loop less that of ``for _ in range(n): run()`` over n, on the tiny model;
    medians of many blocks of about a millisecond, short enough that other processes seldom fall into one;
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
MODELS = {"tiny": (4, 1), "1 ms": (768, 8)}
INFERENCES = {"tiny": 200, "1 ms": 4}


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


def plain_loop(run: Any, count: int) -> list[int]:
    """Return the latencies in ns that the loop anyone would write records."""
    clock = time.perf_counter_ns
    times = [0] * count
    for index in range(count):
        begin = clock()
        run()
        times[index] = clock() - begin
    return times


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
        figures = alternate(agent, session.run, INFERENCES[kind], blocks)
    return {"runtime": runtime, "model": kind, **figures}


def alternate(agent: ModuleType, run: Any, count: int, blocks: int) -> dict[str, Any]:
    """Alternate the loops; the order within a round turns, so that drift hits all alike."""
    buffers = agent.Buffers()
    bare, ours, recorded, plain = [], [], [], []
    never = time.perf_counter_ns() + 10**15

    def agent_block() -> None:
        begin = time.perf_counter_ns()
        used = agent.timed_block(run, time.perf_counter_ns, buffers.starts, buffers.ends, 0, count, never)
        ours.append(time.perf_counter_ns() - begin)
        recorded.extend([buffers.ends[i] - buffers.starts[i] for i in range(used)])

    steps = [lambda: bare.append(bare_block(run, count)), agent_block, lambda: plain.extend(plain_loop(run, count))]
    bare_block(run, count)
    gc.collect()
    gc.disable()
    for index in range(blocks):
        for step in steps[index % 3 :] + steps[: index % 3]:
            step()
    gc.enable()
    return {
        "blocks": blocks,
        "inferences_a_block": count,
        "bare_ns": statistics.median(bare) / count,
        "cost_ns": (statistics.median(ours) - statistics.median(bare)) / count,
        "agent_median_ns": statistics.median(recorded),
        "plain_median_ns": statistics.median(plain),
        "median_ratio": statistics.median(recorded) / statistics.median(plain),
    }


def main() -> int:
    """Run every case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--blocks", type=int, default=300)
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
        cells = (f"{row[name] / 1e3:.3f} us" for name in ("bare_ns", "cost_ns", "agent_median_ns", "plain_median_ns"))
        print(f"| {row['runtime']} | {row['model']} | {' | '.join(cells)} | {row['median_ratio']:.4f} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
