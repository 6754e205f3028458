"""Vendors' own benchmark programs as agents, end to end on this machine: fake programs print what the real ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from socbench.errors import ProtocolError
from socbench.records import TrialPlan
from socbench.store.events import trial_tables

ROOT = Path(__file__).resolve().parents[2]
OLD = """STARTING!
Loaded model m.tflite
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=5 first=120000 curr=101000 min=100500 max=120000 avg=104600 std=7700
Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=101000 curr=100800 min=100100 max=105000 avg=100912 std=700
Average inference timings in us: Warmup: 104600, Init: 33300, Inference: 100912
"""
NEW = """INFO: STARTING!
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate.
INFO: count=17 first=90210 curr=28111 min=27001 max=90210 avg=31456.2 std=14875 p5=27001 median=28111 p95=90210
INFO: count=50 first=28003 curr=28555 min=26888 max=1234570 avg=1.23457e+06 std=512 p5=26999 median=28100 p95=29500
INFO: Inference timings in us: Init: 812377, First inference: 90210, Warmup (avg): 31456.2, Inference (avg): 1.23457e+06
"""
COMPILED = """========== BENCHMARK RESULTS ==========
Model initialization: 12.34 ms
Warmup (first):       9.87 ms
Inference (avg):      2.50 ms (400 runs)
Fully accelerated:     True
"""
PERF = """Session creation time cost: 0.25 s
First inference time cost: 196 ms
Average inference time cost: 2 ms
Peak working set size: 1000 bytes
"""
EXECUTOR = """I 00:00:00.001 executorch:executor_runner.cpp:123] Model loaded in 12.5 ms.
I 00:00:00.101 executorch:executor_runner.cpp:301] Iteration 1 of 3: 5.5 ms
I 00:00:00.111 executorch:executor_runner.cpp:301] Iteration 2 of 3: 4.25 ms
I 00:00:00.121 executorch:executor_runner.cpp:301] Iteration 3 of 3: 4.15 ms
I 00:00:00.131 executorch:executor_runner.cpp:310] Model executed successfully 3 time(s) in 13.9 ms.
"""


class Home:
    """A home of its own with a fake vendor's program in it. ``socbench`` runs there."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "harness"),
            "SOCBENCH_STORE": str(folder / "store"),
            "SOCBENCH_CACHE": str(cache),
            "SOCBENCH_DEVICE_ROOT": str(folder / "device"),
        }

    def fake(self, name: str, printed: str, script: str = "", usage: str = "--graph") -> Path:
        """Put a fake program on the device that prints what a real one would and keeps its command line."""
        program = self.folder / "device" / name
        program.parent.mkdir(exist_ok=True)
        said = self.folder / f"{name}.printed"
        said.write_text(printed, encoding="utf-8")
        body = f'#!/bin/sh\n[ "$1" = --help ] && {{ echo "{usage}"; exit 1; }}\n'
        body += f"printf '%s\\n' \"$@\" > '{self.folder}/argv'\ncat '{said}'\n{script}\n"
        program.write_text(body, encoding="utf-8")
        program.chmod(0o755)
        return program

    def run(self, *words: str, exit_code: int = 0) -> str:
        command = [sys.executable, "-m", "socbench", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120, check=False)
        assert done.returncode == exit_code, done.stderr[-3000:]
        return done.stdout or done.stderr

    def row(self, agent: str, *words: str, exit_code: int = 0) -> dict:
        quick = ("--repeat", "1" if exit_code else "2", "--min-time", "0.1", "--min-count", "5", "--precision", "fp32")
        command = ("run", "resnet8", "--agent", agent, *quick, *words, "--json")
        (row,) = json.loads(self.run(*command, exit_code=exit_code))
        return row

    @property
    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model that all tests use is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, cache: Path) -> Home:
    return Home(tmp_path, cache)


def test_a_program_that_tells_a_mean_has_no_median_and_its_mean_is_called_one(home):
    home.fake("benchmark_model", OLD)
    row = home.row("benchmark_model")
    assert (row["status"], row["program"], row["repetitions"], row["samples"]) == ("done", "benchmark_model", 2, 100)
    assert (row["latency_mean_ns"], row["load_ns"]) == (100_912_000, 33_300_000)
    unknown = "latency_p50_ns latency_p50_low_ns latency_p90_ns latency_p99_ns first_ns peak_memory_bytes fidelity"
    unknown += " runtime_version delegate_effective nodes_total precision_effective threads_effective accelerator"
    assert {name: row[name] for name in unknown.split()} == dict.fromkeys(unknown.split())
    assert (row["delegation"], row["delegation_evidence"], row["repetition_medians_ns"]) == ("unknown", "none", [])
    assert "vendor_program" in row["reasons"]
    shown = home.run("results", "trials", "latest")
    assert "mean 101" in shown
    assert "unconfirmed" in shown
    assert "Nothing was measured" not in shown
    home.run("report", "latest", "-o", str(home.folder / "report.html"))
    page = (home.folder / "report.html").read_text(encoding="utf-8")
    assert "mean 101" in page
    assert "Only a mean is known" in page
    assert home.argv[1:6] == ["--num_threads=1", "--num_runs=5", "--min_secs=0.1", "--max_secs=20", "--warmup_runs=5"]
    assert home.argv[0].startswith("--graph=../../blobs/")


def test_a_newer_program_tells_its_median_and_what_its_delegate_took(home):
    home.fake("benchmark_model", NEW)
    row = home.row("benchmark_model", "--threads", "2")
    assert (row["latency_p50_ns"], row["latency_mean_ns"], row["first_ns"]) == (28_100_000, 1_234_570_000, 90_210_000)
    assert (row["delegate_effective"], row["delegation"], row["delegation_evidence"]) == (
        "cpu:xnnpack", "full", "reported",
    )  # fmt: skip
    assert row["latency_p90_ns"] is None, "p95 is not p90"
    assert {"--num_threads=2", "--use_xnnpack=true"} <= set(home.argv)


def test_the_program_for_compiled_models_of_the_same_name_is_told_apart(home):
    home.fake("benchmark_model", COMPILED, usage="--use_npu=false")
    row = home.row("benchmark_model")
    assert (row["program"], row["latency_mean_ns"], row["latency_p50_ns"]) == (
        "litert_benchmark_model",
        2_500_000,
        None,
    )
    assert (row["delegation"], row["samples"]) == ("full", 800)
    assert "--use_cpu=true" in home.argv


def test_every_latency_of_a_result_file_is_taken_and_an_old_file_is_not(home):
    home.fake(
        "onnxruntime_perf_test",
        PERF,
        'for f; do :; done; printf "m,0.001,1,2,0\\nm,0.003,1,2,1\\nm,0.004,1,2,2\\n" >> "$f"',
    )
    row = home.row("onnxruntime_perf_test")
    assert (row["latency_p50_ns"], row["latency_mean_ns"], row["samples"]) == (3_000_000, 2_000_000, 6)
    assert (row["runtime"], row["delegate"], row["peak_memory_bytes"]) == ("onnxruntime", "cpu:mlas", 1000)
    assert home.argv[-1] == "results.csv"


def tables(name: str, printed: str, exit_code: int = 0, **members) -> tuple[dict, dict]:
    """Return the trial and its repetition that the host makes of what a fake program printed."""
    trial = TrialPlan("t1", "local", "m", "v", "tflite", "fp32", "litert", "cpu:xnnpack", "single_stream")
    about = {"trial": "t1", "repetition": 1, "t_ns": 1}
    program = {"name": name, "argv": [name], "results": None}
    event = {"type": "program", **about, "program": program, "printed": printed, "exit_code": exit_code, **members}
    phase = {"type": "phase", "phase": "measure", **about}
    found = trial_tables(trial, [phase, event, {"type": "done", **about}], raw=lambda _: None)
    return found["trials"].to_pylist()[0], found["repetitions"].to_pylist()[0]


def test_iterations_of_executor_runner_are_its_latencies():
    trial, repetition = tables("executor_runner", EXECUTOR)
    told = json.loads(repetition["details"])["program"]
    assert (trial["status"], told["latencies_ns"]) == ("done", [5_500_000, 4_250_000, 4_150_000])
    assert (repetition["load_ns"], repetition["first_ns"], repetition["measured_count"]) == (12_500_000, 5_500_000, 3)


@pytest.mark.parametrize(
    ("printed", "exit_code", "cut", "code", "said"),
    [
        ("ERROR: Failed to apply XNNPACK delegate.\n", 1, False, "run_failed", "Failed to apply XNNPACK delegate."),
        (NEW + "ERROR: Disallowed CPU fallback detected.\n", 0, False, "run_failed", "Disallowed CPU fallback"),
        ("count=5 first=1 curr=1 min=1 max=1 avg=1 std=1\n", 139, False, "crashed", "it ended with status 139"),
        ("nonsense\n", 0, False, "run_failed", "it printed no timings"),
        (NEW, 0, True, "run_failed", "it printed more than socbench keeps"),
    ],
)
def test_a_program_that_fails_has_a_failed_row_with_its_own_words(printed, exit_code, cut, code, said):
    trial, repetition = tables("benchmark_model", printed, exit_code, cut=cut)
    error = json.loads(trial["error"])
    assert (trial["status"], repetition["status"], error["code"]) == ("failed", "failed", code)
    assert said in error["message"]


def test_a_device_that_names_another_program_is_nonsense():
    with pytest.raises(ProtocolError, match="not one of benchmark_model"):
        tables("rm", NEW)


def test_a_program_that_crashes_fails_its_run(home):
    home.fake("benchmark_model", NEW, "kill -SEGV $$")
    row = home.row("benchmark_model", exit_code=1)
    assert (row["status"], row["error"]["code"], row["latency_mean_ns"]) == ("failed", "crashed", None)


def test_a_program_that_prints_without_end_is_cut(home):
    home.fake("benchmark_model", NEW, "head -c 1500000 /dev/zero | tr '\\0' x")
    assert "more than socbench keeps" in home.row("benchmark_model", exit_code=1)["error"]["message"]


def test_a_program_that_hangs_ends_with_its_repetition_and_nothing_of_it_is_left(home):
    home.fake("benchmark_model", "", "exec sleep 9418")
    process = subprocess.Popen(
        [sys.executable, "-m", "socbench", "run", "resnet8", "--agent", "benchmark_model", "--precision", "fp32"],
        env=home.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (home.folder / "argv").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(2)
    assert process.wait(60) == 130
    left = [one for one in Path("/proc").glob("[0-9]*/cmdline") if b"9418" in _read(one)]
    assert not left


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_missing_program_is_one_sentence_that_says_where_to_put_it(home):
    said = home.run("run", "resnet8", "--agent", "executor_runner", exit_code=1)
    assert "there is no executor_runner on local" in said
    assert "SOCBENCH_PROGRAM" in said
    home.environment["SOCBENCH_PROGRAM"] = "/nowhere/x"
    assert "names /nowhere/x, which is not on local" in home.run(
        "run", "resnet8", "--agent", "executor_runner", exit_code=1
    )


@pytest.mark.parametrize(
    "words", [("--scenario", "accuracy"), ("--batch", "2"), ("--shape", "a=1,2"), ("--precision-target", "1%")]
)
def test_what_a_program_cannot_do_is_refused_before_anything_runs(home, words):
    said = home.run("run", "resnet8", "--agent", "benchmark_model", *words, exit_code=2)
    assert f"can't go with {words[0]}" in said
