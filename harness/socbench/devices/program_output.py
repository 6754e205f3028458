"""Reads what stock benchmark programs print. Both streams are read, in any order, with and without log prefixes.

What a program does not tell stays None or ``unknown``; nothing is filled in.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

_NUMBER: Final = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_PREFIX: Final = r"^(?:(?:VERBOSE|INFO|WARN|WARNING|ERROR|FATAL): )?"
_STATISTICS: Final = re.compile(_PREFIX + r"count=(\d+)(.*)$", re.M)
_FIELD: Final = re.compile(rf"\b(\w+)={_NUMBER}")
_TIMINGS: Final = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_OLDEST: Final = re.compile(
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, (?:no stats|Inference): {_NUMBER}"
)
_APPLIED: Final = re.compile(
    r"[Aa]pplied (\S+) delegate, and the model graph will be (completely|partially) executed"
    r"(?:.*?w/ (\d+) delegate kernels)?"
)
_NOT_APPLIED: Final = re.compile(r"Though (\S+) delegate is explicitly applied, the model graph will not be executed")
_REPLACING: Final = re.compile(
    r"^(?![VDIWEF]/).*Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, yielding (\d+) partitions",
    re.M,
)
_DELEGATES: Final = {"XNNPACK": "cpu:xnnpack", "NNAPI": "nnapi", "GPU": "gpu", "EXTERNAL": "npu", "HEXAGON": "npu"}


@dataclass(frozen=True)
class StockResult:
    """What a stock runner printed. Times are nanoseconds; ``latencies_ns`` is empty where it keeps none.

    ``delegation``: ``full``, ``partial``, ``fell_back`` or ``unknown``. ``error``: why there is no result.
    """

    runner: str
    count: int | None = None
    init_ns: int | None = None
    first_ns: int | None = None
    warmup_mean_ns: int | None = None
    mean_ns: int | None = None
    minimum_ns: int | None = None
    maximum_ns: int | None = None
    deviation_ns: int | None = None
    percentiles_ns: Mapping[int, int] = field(default_factory=dict)
    latencies_ns: tuple[int, ...] = ()
    peak_memory_bytes: int | None = None
    delegate_effective: str | None = None
    delegation: str = "unknown"
    nodes_total: int | None = None
    nodes_delegated: int | None = None
    partitions: int | None = None
    accelerator_api: str | None = None
    error: str | None = None


def _us(text: str | float) -> int:
    return round(float(text) * 1_000)


def _ms(text: str | float) -> int:
    return round(float(text) * 1_000_000)


def _s(text: str | float) -> int:
    return round(float(text) * 1_000_000_000)


def _last_error(text: str, exit_code: int | None) -> str | None:
    found = re.findall(r"^(?:ERROR|FATAL): (.*)$", text, re.M)
    if found:
        return str(found[-1])[:500]
    return f"it ended with status {exit_code}" if exit_code else None


def parse_benchmark_model(stdout: str, stderr: str, *, exit_code: int | None = 0) -> StockResult:
    """Read TFLite's ``benchmark_model``, every generation since 2019.

    The statistics line comes twice, for the warm-up first: only a second one counts. A last line of the oldest builds
    has the mean alone.
    """
    text = f"{stdout}\n{stderr}"
    members: dict[str, Any] = {}
    timings = _TIMINGS.search(text)
    if timings:
        init, first, warmup, mean = timings.groups()
        members.update(init_ns=_us(init), first_ns=_us(first), warmup_mean_ns=_us(warmup), mean_ns=_us(mean))
    oldest = None if timings else _OLDEST.search(text)
    if oldest:
        members.update(warmup_mean_ns=_us(oldest[1]), init_ns=_us(oldest[2]), mean_ns=_us(oldest[3]))
    lines = _STATISTICS.findall(text)
    if len(lines) >= 2:
        members.update(_statistics(int(lines[-1][0]), dict(_FIELD.findall(lines[-1][1]))))
    peak = re.search(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}", text)
    if peak and float(peak[1]) > 0:
        members["peak_memory_bytes"] = round(float(peak[1]) * 1024 * 1024)
    members.update(_delegation(text))
    if members.get("mean_ns") is None:
        members["error"] = _last_error(text, exit_code) or "it printed no timings"
    elif exit_code or "Disallowed CPU fallback detected" in text:
        members["error"] = _last_error(text, exit_code)
    return StockResult("benchmark_model", **members)


def _statistics(count: int, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the members of one statistics line; where all values are equal it has ``curr`` alone."""
    if count == 0 or not fields:
        return {"count": count}
    if "min" not in fields:
        same = _us(fields["curr"])
        return {"count": count, "mean_ns": same, "minimum_ns": same, "maximum_ns": same, "deviation_ns": 0}
    percentiles = {5: "p5", 50: "median", 95: "p95"}
    return {
        "count": count,
        "mean_ns": _us(fields["avg"]),
        "minimum_ns": _us(fields["min"]),
        "maximum_ns": _us(fields["max"]),
        "deviation_ns": _us(fields["std"]) if "std" in fields else None,
        "percentiles_ns": {number: _us(fields[name]) for number, name in percentiles.items() if name in fields},
    }


def _delegation(text: str) -> dict[str, Any]:
    """Return what ran, by the three lines about an explicit delegate and by the runtime's own counts."""
    members: dict[str, Any] = {}
    applied, refused = _APPLIED.search(text), _NOT_APPLIED.search(text)
    if applied:
        members["delegate_effective"] = _DELEGATES.get(applied[1].upper())
        members["delegation"] = "full" if applied[2] == "completely" else "partial"
        members["partitions"] = int(applied[3]) if applied[3] else None
    elif refused:
        members.update(delegation="fell_back", delegate_effective="cpu:builtin")
    elif "delegate for CPU" in text:  # XNNPACK by itself: nothing says how much of the graph it took
        members["delegate_effective"] = "cpu:xnnpack"
    counts = _REPLACING.findall(text)
    explicit = [row for row in counts if not (refused or applied) or row[2] != "TfLiteXNNPackDelegate"] or counts
    if applied and applied[1].upper() == "XNNPACK":
        explicit = counts
    if explicit and not refused:
        nodes, total = int(explicit[0][0]), int(explicit[0][1])
        members.update(nodes_delegated=nodes, nodes_total=total, partitions=int(explicit[0][3]))
        if not applied:
            members["delegation"] = "full" if nodes == total else "partial"
    api = re.search(r"Initialized (OpenCL|OpenGL)-based API", text)
    if api:
        members["accelerator_api"] = api[1]
        if members.get("delegate_effective") == "gpu":
            members["delegate_effective"] = "gpu:opencl" if api[1] == "OpenCL" else "gpu:gl"
    return members


_LITERT_ROWS: Final = {
    "init_ns": "Model initialization",
    "first_ns": "(?:Warmup|First inference)(?: \\(first\\))?",
    "warmup_mean_ns": "Warmup \\(avg\\)",
    "mean_ns": "Inference \\(avg\\)",
    "minimum_ns": "Inference \\(min\\)",
    "maximum_ns": "Inference \\(max\\)",
    "deviation_ns": "Inference \\(std\\)",
}


def parse_litert_benchmark(stdout: str, stderr: str, *, exit_code: int | None = 0) -> StockResult:
    """Read the block of LiteRT's ``benchmark_model`` or ``litert-benchmark``: hundredths of milliseconds."""
    text = f"{stdout}\n{stderr}"
    members: dict[str, Any] = {}
    block = text.partition("BENCHMARK RESULTS")[2]
    for name, label in _LITERT_ROWS.items():
        found = re.search(rf"{label}:\s+{_NUMBER}", block)
        members[name] = _ms(found[1]) if found else None
    runs = re.search(rf"Inference \(avg\):\s+{_NUMBER} ms \((\d+) runs\)", block)
    members["count"] = int(runs[2]) if runs else None
    percentiles = {5: "p5", 50: "median", 95: "p95"}
    found_percentiles = {n: re.search(rf"Inference \({name}\):\s+{_NUMBER}", block) for n, name in percentiles.items()}
    members["percentiles_ns"] = {number: _ms(found[1]) for number, found in found_percentiles.items() if found}
    peak = re.search(rf"Peak memory:\s+{_NUMBER} MB", block)
    members["peak_memory_bytes"] = round(float(peak[1]) * 1024 * 1024) if peak and float(peak[1]) > 0 else None
    if "Fully accelerated:" in block:
        members["delegation"] = "full" if re.search(r"Fully accelerated:\s+True", block) else "partial"
    if members["mean_ns"] is None or exit_code:
        members["error"] = _last_error(text, exit_code) or "it printed no results"
    return StockResult("litert_benchmark_model", **members)


def parse_perf_test(stdout: str, stderr: str, results: str | None, *, exit_code: int | None = 0) -> StockResult:
    """Read ``onnxruntime_perf_test``; ``results`` is its result file, which has every latency (seconds)."""
    text = f"{stdout}\n{stderr}"
    latencies = _perf_rows(results) if results else ()

    def seconds(label: str) -> int | None:
        found = re.search(rf"{label}: {_NUMBER} s", text)
        return _s(found[1]) if found else None

    def milliseconds(label: str) -> int | None:
        found = re.search(rf"{label}: {_NUMBER} ms", text)
        return _ms(found[1]) if found else None

    percentiles = {number: seconds(f"P{number} Latency") for number in (50, 90, 95, 99)}
    peak = re.search(r"Peak working set size: ?(\d+)", text)
    count = re.search(r"(?:Total inference requests: |Runs:)(\d+)", text)
    mean = milliseconds("Average inference time cost(?: total)?") or milliseconds("Average time cost")
    if mean is None and latencies:
        mean = round(sum(latencies) / len(latencies))
    return StockResult(
        "onnxruntime_perf_test",
        count=len(latencies) or (int(count[1]) if count else None),
        init_ns=seconds("Session creation time cost"),
        first_ns=milliseconds("First inference time cost"),
        mean_ns=mean,
        minimum_ns=seconds("Min Latency"),
        maximum_ns=seconds("Max Latency"),
        percentiles_ns={number: value for number, value in percentiles.items() if value is not None},
        latencies_ns=latencies,
        peak_memory_bytes=int(peak[1]) if peak else None,
        error=(_perf_error(text, exit_code) if exit_code or mean is None else None),
    )


def _perf_error(text: str, exit_code: int | None) -> str:
    lines = [line.strip() for line in text.splitlines() if re.search(r"error|exception|fail", line, re.I)]
    return lines[-1][:500] if lines else f"it ended with status {exit_code} and printed no timings"


def _perf_rows(results: str) -> tuple[int, ...]:
    """Return the latencies of the result file, one row a run: model, seconds, peak working set, load, number."""
    latencies = []
    for row in csv.reader(io.StringIO(results)):
        try:
            latencies.append(_s(row[1]))
        except (IndexError, ValueError):
            continue
    return tuple(latencies)


def parse_executor_runner(stdout: str, stderr: str, *, exit_code: int | None = 0) -> StockResult:
    """Read ExecuTorch's ``executor_runner``: newer builds print every iteration, older ones the total alone."""
    text = f"{stdout}\n{stderr}"
    latencies = tuple(_ms(value) for value in re.findall(rf"Iteration \d+ of \d+: {_NUMBER} ms", text))
    loaded = re.search(rf"Model loaded in {_NUMBER} ms", text)
    total = re.search(rf"Model executed successfully (\d+) time\(s\) in {_NUMBER} ms", text)
    count = len(latencies) or (int(total[1]) if total else None)
    mean = round(sum(latencies) / len(latencies)) if latencies else None
    if mean is None and total and int(total[1]):
        mean = round(_ms(total[2]) / int(total[1]))
    ended = exit_code or not total
    said = re.findall(r"^(?:E|F) .*?\] (.*)$", text, re.M)
    return StockResult(
        "executor_runner",
        count=count,
        init_ns=_ms(loaded[1]) if loaded else None,
        first_ns=latencies[0] if latencies else None,
        mean_ns=mean,
        minimum_ns=min(latencies, default=None),
        maximum_ns=max(latencies, default=None),
        latencies_ns=latencies,
        error=(str(said[-1])[:500] if said else f"it ended with status {exit_code}") if ended else None,
    )


def read_program(
    program: str, printed: str, results: str | None, *, exit_code: int | None, cut: bool = False
) -> StockResult:
    """Return what a program of :data:`PROGRAMS` said: ``printed`` is both streams, ``results`` its result file.

    ``cut``: it printed more than was kept. Raises ValueError for a program that nobody can read.
    """
    if program == "onnxruntime_perf_test":
        found = parse_perf_test(printed, "", results, exit_code=exit_code)
    elif program in _READERS:
        found = _READERS[program](printed, "", exit_code=exit_code)
    else:
        raise ValueError(program)
    if cut:
        return replace(found, error="it printed more than socbench keeps, so that its results may be missing")
    return found


_READERS: Final[dict[str, Callable[..., StockResult]]] = {
    "benchmark_model": parse_benchmark_model,
    "litert_benchmark_model": parse_litert_benchmark,
    "executor_runner": parse_executor_runner,
}
PROGRAMS: Final = (*_READERS, "onnxruntime_perf_test")
