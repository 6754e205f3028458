"""What the agent's timed loop costs over the runtime's own calls in bare loops, and when a result is finished.

    python benchmarks/agent_loop.py [--json FILE] [--blocks N] [--case RUNTIME:DELEGATE ...]

Each runtime's loops are alternated in one process, in the environment that socbench made for it, on one core, a
process a case and model:
  * cost an inference: the time of the agent's loop less that of ``for _ in range(n): run()`` over n; medians of many
    blocks of about a millisecond, short enough that other processes seldom fall into one;
  * the median: what the agent's loop recorded against the fastest of the loops that anyone would write around the
    runtime's public calls, on the same loaded model: within 1 % or a microsecond;
  * on a delegate that works asynchronously those loops read the output, and the goal is 2 %: the latency is that of
    the finished result. How long the call alone takes, without the reading, is shown for comparison.
Models are chains of fully connected layers, made here, and ResNet-8 of the zoo where a format has a converter only.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"tiny": (4, 1), "5 ms": (768, 20)}
CHAINS = tuple(MODELS)
ZOO = ("resnet8",)
BLOCK_NS = 1_000_000
"""How long a block of a loop takes at least; one inference where that takes longer."""
Loops = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """A runtime's delegate; ``environment`` is where socbench put the runtime, ``None`` this interpreter."""

    delegate: str
    form: str
    models: tuple[str, ...]
    environment: str | None = None
    asynchronous: bool = False


CASES = {
    "null:cpu": Case("cpu:null", "null", CHAINS),
    "litert:cpu": Case("cpu:xnnpack", "tflite", CHAINS),
    "onnxruntime:cpu": Case("cpu:mlas", "onnx", CHAINS),
    "openvino:cpu": Case("cpu:openvino", "onnx", CHAINS),
    "ncnn:cpu": Case("cpu:ncnn", "ncnn", ZOO, "ncnn"),
    "mnn:cpu": Case("cpu:mnn", "mnn", ZOO, "mnn"),
    "executorch:cpu": Case("cpu:xnnpack", "executorch", ZOO, "executorch"),
    "litert:gpu": Case("gpu:webgpu", "tflite", ZOO, "litert-gpu", asynchronous=True),
    "onnxruntime:gpu": Case("gpu:webgpu", "onnx", ZOO, "onnxruntime-webgpu", asynchronous=True),
    "ncnn:gpu": Case("gpu:vulkan", "ncnn", ZOO, "ncnn", asynchronous=True),
}


def load_module(path: Path, name: str) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_model(form: str, kind: str, folder: Path) -> Path:
    """Write the model of a case, or have it made of the zoo's network."""
    if kind in ZOO:
        from socbench.models import cards, variants

        card = cards.load_card(kind)
        wanted = next(one for one in variants.variants_of(card) if one.variant == f"{form}-fp32")
        return Path(str(variants.build(card, wanted).path))
    size, layers = MODELS[kind]
    path = folder / f"model.{form}"
    if form == "null":
        latency_ns = 0 if size < 100 else 1_500_000
        path.write_text(json.dumps({"clock": "real", "spin": True, "latency_ns": latency_ns}))
        return path
    tiny = load_module(ROOT / "tests" / "conformance" / "runtime" / "tiny_models.py", "tiny_models")
    written: Path = {"onnx": tiny.write_onnx, "tflite": tiny.write_tflite}[form](path, size, layers)
    return written


# --- each runtime's public calls, on what the adapter loaded and bound --------------------------------------------
def _null(session: Any) -> Loops:
    return {"run": session.run}


def _litert(session: Any) -> Loops:
    if not hasattr(session, "interpreter"):
        return _litert_compiled(session)
    return {"Invoke": session.interpreter._interpreter.Invoke}  # the public invoke() adds checks to it


def _litert_compiled(session: Any) -> Loops:
    model, inputs, outputs = session.model, session.buffers, session.results
    sizes = [(buffer, _elements(spec)) for buffer, spec in zip(outputs, session.output_specs, strict=True)]

    def read() -> None:
        import numpy as np

        model.run_by_index(0, inputs, outputs)
        for buffer, count in sizes:
            buffer.read(count, np.float32)

    return {"run_by_index, read": read, ALONE: lambda: model.run_by_index(0, inputs, outputs)}


def _onnxruntime(session: Any) -> Loops:
    raw, binding = session.session, session.binding
    feeds = {spec["name"]: array for spec, array in zip(session.inputs, session.arrays, strict=True)}
    return {
        "run_with_iobinding": lambda: raw.run_with_iobinding(binding),
        "run": lambda: raw.run(None, feeds),
    }


def _openvino(session: Any) -> Loops:
    request = session.request
    return {
        "infer": request.infer,
        "infer, outputs shared": lambda: request.infer(share_outputs=True),
    }


def _ncnn(session: Any) -> Loops:
    net, mats, outputs = session.net, session.mats, [spec["name"] for spec in session.outputs_specs]

    def extract() -> None:
        extractor = net.create_extractor()
        for name, mat in mats:
            extractor.input(name, mat)
        for name in outputs:
            extractor.extract(name)

    def read() -> None:
        import numpy as np

        extractor = net.create_extractor()
        for name, mat in mats:
            extractor.input(name, mat)
        for name in outputs:
            np.array(extractor.extract(name)[1])

    return {"extract, read": read, ALONE: extract} if session.vulkan else {"extract": extract}


def _mnn(session: Any) -> Loops:
    net, variables = session.net, session.variables

    def read() -> None:
        for result in net.forward(variables):
            result.read()

    return {"forward": lambda: net.forward(variables), "forward, read": read}


def _executorch(session: Any) -> Loops:
    method, tensors = session.method, session.tensors
    return {"execute": lambda: method.execute(tensors)}


ALONE = "without reading"
LOOPS = {
    "null": _null,
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "mnn": _mnn,
    "executorch": _executorch,
}


def _elements(spec: dict[str, Any]) -> int:
    count = 1
    for size in spec["shape"]:
        count *= size
    return count


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


def measure(name: str, kind: str, model: str, blocks: int) -> dict[str, Any]:
    """Measure one case on one model in this process."""
    agent = load_module(ROOT / "device_agents" / "python" / "agent.py", "socbench_agent")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    case, runtime = CASES[name], name.split(":")[0]
    adapter = agent.load_adapter(runtime)
    adapter.import_runtime()
    trial = {"runtime": runtime, "delegate": case.delegate, "precision": "fp32", "threads": 1, "batch": 1, "shapes": {}}
    session = adapter.load(model, {**trial, "options": {}})
    described = session.describe()
    inputs = agent.Inputs(None, "probe", {"input_seed": 7}, described)
    session.bind(inputs.one(0))
    if hasattr(session, "on_phase"):
        session.on_phase("measure")
    figures = alternate(agent, session.run, LOOPS[runtime](session), blocks)
    return {"case": name, "model": kind, **judge(figures, case.asynchronous), "accelerator": described["accelerator"]}


def alternate(agent: ModuleType, run: Any, loops: Loops, blocks: int) -> dict[str, Any]:
    """Alternate the loops; the order within a round turns, so that drift hits all alike."""
    for _ in range(20):  # shaders are compiled, threads made
        run()
    count = max(1, round(BLOCK_NS / max(1, statistics.median(plain_loop(run, 20)))))
    buffers = agent.Buffers()
    bare, ours, recorded = [], [], []
    plain: dict[str, list[int]] = {name: [] for name in loops}
    never = time.perf_counter_ns() + 10**15

    def agent_block() -> None:
        begin = time.perf_counter_ns()
        used = agent.timed_block(run, time.perf_counter_ns, buffers.starts, buffers.ends, 0, count, never)
        ours.append(time.perf_counter_ns() - begin)
        recorded.extend([buffers.ends[i] - buffers.starts[i] for i in range(used)])

    def plain_block(name: str) -> Callable[[], None]:
        return lambda: plain[name].extend(plain_loop(loops[name], count))

    steps = [lambda: bare.append(bare_block(run, count)), agent_block, *(plain_block(name) for name in loops)]
    for step in steps:
        step()
    bare, ours, recorded = [], [], []
    plain = {name: [] for name in loops}
    gc.collect()
    gc.disable()
    for index in range(blocks):
        turn = index % len(steps)
        for step in steps[turn:] + steps[:turn]:
            step()
    gc.enable()
    return {
        "blocks": blocks,
        "inferences_a_block": count,
        "bare_ns": statistics.median(bare) / count,
        "cost_ns": (statistics.median(ours) - statistics.median(bare)) / count,
        "agent_median_ns": statistics.median(recorded),
        "loops_ns": {name: statistics.median(times) for name, times in plain.items()},
    }


def judge(figures: dict[str, Any], asynchronous: bool) -> dict[str, Any]:
    """Add the fastest loop, the ratio of the agent's median to its, and whether that is within the goal."""
    finished = {name: value for name, value in figures["loops_ns"].items() if name != ALONE}
    fastest = min(finished, key=lambda name: finished[name])
    excess_ns = figures["agent_median_ns"] - finished[fastest]
    share = excess_ns / finished[fastest]
    within = abs(share) <= 0.02 if asynchronous else share <= 0.01 or excess_ns <= 1000
    alone_ns = figures["loops_ns"].get(ALONE)
    return {**figures, "fastest_loop": fastest, "ratio": 1 + share, "within_goal": within, "alone_ns": alone_ns}


def interpreter(case: Case) -> tuple[str, dict[str, str]] | None:
    """Return the interpreter that has the runtime and what its environment sets, None when it is not installed."""
    if case.environment is None:
        return sys.executable, {}
    from socbench.environments.catalogue import environment
    from socbench.environments.install import child_env, python_of

    python = python_of(environment(case.environment))
    return None if python is None else (str(python), child_env(environment(case.environment)))


def run_case(name: str, kind: str, blocks: int, folder: Path) -> dict[str, Any] | str:
    """Measure a case in a process of its own; return its figures or why there are none."""
    case = CASES[name]
    place = interpreter(case)
    if place is None:
        return f"not installed: socbench runtimes install {case.environment}"
    python, env = place
    model = str(write_model(case.form, kind, folder))
    argv = [python, __file__, "--blocks", str(blocks), "--one", name, kind, model]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **env}, cwd=folder)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(row: dict[str, Any]) -> str:
    """Return a row of the table."""

    def cell(value_ns: float | None) -> str:
        return "" if value_ns is None else f"{value_ns / 1e3:,.2f} us"

    numbers = [cell(row[key]) for key in ("bare_ns", "cost_ns", "agent_median_ns")]
    fastest = f"{cell(row['loops_ns'][row['fastest_loop']])} ({row['fastest_loop']})"
    words = [row["case"], row["model"], *numbers, fastest, f"{row['ratio']:.4f}", cell(row["alone_ns"])]
    return "| " + " | ".join([*words, "yes" if row["within_goal"] else "NO"]) + " |"


def main() -> int:
    """Run the cases in processes of their own and print the table; 1 when a figure misses its goal or is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--blocks", type=int, default=300, help="blocks of each loop (GPUs: a tenth)")
    parser.add_argument("--case", action="append", choices=CASES, help="one case; may be repeated")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "KIND", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.blocks)))
        return 0
    print(
        "| case | model | bare call | agent's loop costs | agent's median | fastest loop | ratio | call alone | goal |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.case or CASES:
            for kind in CASES[name].models:
                blocks = max(10, options.blocks // 10) if CASES[name].asynchronous else options.blocks
                row = run_case(name, kind, blocks, Path(folder))
                if isinstance(row, str):
                    print(f"{name}, {kind}: {row}", file=sys.stderr)
                    wrong += 1
                    continue
                print(show(row), flush=True)
                wrong += not row["within_goal"]
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
