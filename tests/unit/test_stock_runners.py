"""Stock benchmark programs: what they are told, and what they print, in the shapes of each generation."""

# ruff: noqa: E501  (lines as the programs print them)

from __future__ import annotations

import pytest
from socbench.agents.stock import (
    StockOptions,
    benchmark_model_command,
    executor_runner_command,
    litert_benchmark_command,
    perf_test_command,
)
from socbench.devices.program_output import (
    parse_benchmark_model,
    parse_executor_runner,
    parse_litert_benchmark,
    parse_perf_test,
)
from socbench.errors import UsageError

NEW_OUT = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: Use gpu: [1]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 delegate kernels.
INFO: The input model file size (MB): 16.9
INFO: Initialized session in 812.377ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=17 first=90210 curr=28111 min=27001 max=90210 avg=31456.2 std=14875 p5=27001 median=28111 p95=90210
INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=28003 curr=28555 min=26888 max=1234570 avg=1.23457e+06 std=512 p5=26999 median=28100 p95=29500
INFO: Inference timings in us: Init: 812377, First inference: 90210, Warmup (avg): 31456.2, Inference (avg): 1.23457e+06
INFO: Memory footprint delta from the start of the tool (MB): init=120.5 overall=130.25
INFO: Overall peak memory footprint (MB) via periodic monitoring: 152.5
"""
NEW_ERR = """INFO: Created TensorFlow Lite delegate for GPU.
INFO: Initialized OpenCL-based API.
INFO: Created 2 GPU delegate kernels.
VERBOSE: Replacing 61 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 partitions for subgraph 0 (main).
VERBOSE: Replacing 3 out of 5 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0 (main).
"""
OLD_OUT = """STARTING!
Min num runs: [50]
Loaded model m.tflite
Applied NNAPI delegate, and the model graph will be completely executed w/ the delegate.
Initialized session in 33.3ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=5 first=120000 curr=101000 min=100500 max=120000 avg=104600 std=7700

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=101000 curr=100800 min=100100 max=105000 avg=100912 std=700

Average inference timings in us: Warmup: 104600, Init: 33300, Inference: 100912
"""


def test_the_second_statistics_line_counts_and_its_scientific_notation_is_read():
    result = parse_benchmark_model(NEW_OUT, NEW_ERR)
    assert result.error is None
    assert (result.count, result.mean_ns, result.minimum_ns, result.maximum_ns) == (
        50,
        1_234_570_000,
        26_888_000,
        1_234_570_000,
    )
    assert (result.init_ns, result.first_ns, result.warmup_mean_ns) == (812_377_000, 90_210_000, 31_456_200)
    assert result.deviation_ns == 512_000
    assert result.percentiles_ns == {5: 26_999_000, 50: 28_100_000, 95: 29_500_000}
    assert result.latencies_ns == (), "this program throws them away"
    assert result.peak_memory_bytes == 159_907_840


def test_what_the_delegate_took_is_read_and_the_cpus_share_of_the_rest_is_not_counted():
    result = parse_benchmark_model(NEW_OUT, NEW_ERR)
    assert (result.delegation, result.delegate_effective, result.accelerator_api) == ("partial", "gpu:opencl", "OpenCL")
    assert (result.nodes_delegated, result.nodes_total, result.partitions) == (61, 64, 2)


def test_the_streams_may_come_in_any_order():
    assert parse_benchmark_model(NEW_ERR, NEW_OUT) == parse_benchmark_model(NEW_OUT, NEW_ERR)


def test_an_old_build_without_prefixes_is_read():
    result = parse_benchmark_model(OLD_OUT, "")
    assert (result.count, result.mean_ns, result.init_ns, result.warmup_mean_ns) == (
        50,
        100_912_000,
        33_300_000,
        104_600_000,
    )
    assert result.percentiles_ns == {}
    assert (result.delegation, result.delegate_effective) == ("full", "nnapi")
    assert result.nodes_total is None, "it did not tell"


def test_equal_timings_have_one_value():
    out = "count=3 curr=100 (all same)\ncount=9 curr=42 (all same)\nInference timings in us: Init: 1, First inference: 2, Warmup (avg): 3, Inference (avg): 42"
    result = parse_benchmark_model(out, "")
    assert (result.count, result.minimum_ns, result.maximum_ns, result.deviation_ns) == (9, 42_000, 42_000, 0)


@pytest.mark.parametrize(
    ("line", "delegation", "effective"),
    [
        (
            "INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate.",
            "full",
            "cpu:xnnpack",
        ),
        (
            "INFO: Though EXTERNAL delegate is explicitly applied, the model graph will not be executed by the delegate.",
            "fell_back",
            "cpu:builtin",
        ),
        ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.", "unknown", "cpu:xnnpack"),
        ("INFO: nothing about it", "unknown", None),
    ],
)
def test_the_three_lines_about_a_delegate_and_their_absence(line, delegation, effective):
    result = parse_benchmark_model(line, "")
    assert (result.delegation, result.delegate_effective) == (delegation, effective)


def test_a_fatal_end_gives_its_words_and_the_warm_up_is_no_result():
    out = "\n".join(NEW_OUT.splitlines()[:12])
    result = parse_benchmark_model(out, "ERROR: Failed to apply GPU delegate.\n", exit_code=1)
    assert result.error == "Failed to apply GPU delegate."
    assert (result.count, result.mean_ns) == (None, None), "one statistics line is the warm-up's"
    assert parse_benchmark_model("", "", exit_code=139).error == "it ended with status 139"
    disallowed = parse_benchmark_model(NEW_OUT, "ERROR: Disallowed CPU fallback detected.\n", exit_code=0)
    assert disallowed.error == "Disallowed CPU fallback detected."


LITERT = """========== BENCHMARK RESULTS ==========
Signature name:       serving_default
Model initialization: 12.34 ms
Warmup (first):       9.87 ms
Warmup (avg):         3.21 ms (5 runs)
Inference (avg):      2.50 ms (400 runs)
Inference (min):      2.40 ms
Inference (max):      4.00 ms
Inference (std):      0.12
Throughput:           100.00 MB/s
Memory Usage:
Init footprint:       10.00 MB
Overall footprint:    20.00 MB
Peak memory:          0.00 MB
======================================
"""


def test_the_block_of_litert_is_read_to_its_hundredths():
    result = parse_litert_benchmark(LITERT, "")
    assert (result.count, result.mean_ns, result.minimum_ns, result.maximum_ns) == (
        400,
        2_500_000,
        2_400_000,
        4_000_000,
    )
    assert (result.init_ns, result.first_ns, result.deviation_ns) == (12_340_000, 9_870_000, 120_000)
    assert result.peak_memory_bytes is None, "0.00 is unknown, not nothing"
    assert result.delegation == "unknown"
    newer = LITERT.replace("Warmup (first)", "First inference").replace(
        "Throughput", "Fully accelerated:     True\nThroughput"
    )
    result = parse_litert_benchmark(newer, "")
    assert (result.first_ns, result.delegation) == (9_870_000, "full")
    assert parse_litert_benchmark("", "ERROR: no\n", exit_code=1).error == "no"


PERF = """Session creation time cost: 0.217932 s
First inference time cost: 196 ms
Total inference time cost: 0.49481 s
Total inference requests: 5
{mean}
Total inference run time: 0.494854 s
Number of inferences per second: 10.104
Avg CPU usage: 11 %
Peak working set size: 271122432 bytes
Avg CPU usage:11
Peak working set size:271122432
Runs:5
Min Latency: 0.0958204 s
Max Latency: 0.101519 s
P50 Latency: 0.0995086 s
P90 Latency: 0.101519 s
P95 Latency: 0.101519 s
P99 Latency: 0.101519 s
P999 Latency: 0.101519 s
"""
ROWS = "m.onnx,0.0958204,271122432,11,0\nm.onnx,0.101519,271122432,11,1\nm.onnx,0.0995086,271122432,11,2\n"


@pytest.mark.parametrize(
    "mean",
    [
        "Average inference time cost total: 98.961997 ms",
        "Average inference time cost: 98.961997 ms",
        "Average time cost: 98.961997 ms",
    ],
)
def test_perf_test_of_each_generation_is_read_with_every_latency_of_its_file(mean):
    result = parse_perf_test(PERF.format(mean=mean), "", ROWS)
    assert result.latencies_ns == (95_820_400, 101_519_000, 99_508_600)
    assert (result.count, result.mean_ns, result.init_ns, result.first_ns) == (3, 98_961_997, 217_932_000, 196_000_000)
    assert result.percentiles_ns == {50: 99_508_600, 90: 101_519_000, 95: 101_519_000, 99: 101_519_000}
    assert result.peak_memory_bytes == 271_122_432
    without = parse_perf_test(PERF.format(mean=mean), "", None)
    assert (without.count, without.latencies_ns) == (5, ())


def test_perf_test_that_fails_says_why():
    result = parse_perf_test(
        "", "Exception: This session contains graph nodes assigned to the default CPU EP\n", None, exit_code=255
    )
    assert "default CPU EP" in str(result.error)


EXECUTOR = """I 00:00:00.001234 executorch:executor_runner.cpp:123] Model loaded in 12.500000 ms.
I 00:00:00.101234 executorch:executor_runner.cpp:301] Iteration 1 of 3: 5.500000 ms
I 00:00:00.111234 executorch:executor_runner.cpp:301] Iteration 2 of 3: 4.250000 ms
I 00:00:00.121234 executorch:executor_runner.cpp:301] Iteration 3 of 3: 4.150000 ms
I 00:00:00.131234 executorch:executor_runner.cpp:310] Model executed successfully 3 time(s) in 13.900000 ms.
"""


def test_executor_runner_gives_every_iteration_and_older_ones_the_total():
    result = parse_executor_runner(EXECUTOR, "")
    assert result.latencies_ns == (5_500_000, 4_250_000, 4_150_000)
    assert (result.count, result.init_ns, result.first_ns, result.mean_ns) == (3, 12_500_000, 5_500_000, 4_633_333)
    older = "\n".join(line for line in EXECUTOR.splitlines() if "Iteration" not in line)
    result = parse_executor_runner("", older)
    assert (result.count, result.mean_ns, result.latencies_ns) == (3, 4_633_333, ())
    failed = parse_executor_runner(
        "", "E 00:00:00.001 executorch:method.cpp:88] Missing operator: aten::foo.out\n", exit_code=1
    )
    assert failed.error == "Missing operator: aten::foo.out"


def test_command_lines_say_everything_that_has_a_wrong_default():
    command = benchmark_model_command(
        "/d/benchmark_model", "/d/m.tflite", StockOptions(threads=4, input_files={"a:b": "/d/in"})
    )
    assert command[:3] == ["/d/benchmark_model", "--graph=/d/m.tflite", "--num_threads=4"]
    assert "--use_xnnpack=true" in command, "left out it is applied too, and nobody would know"
    assert "--input_layer_value_files=a\\:b:/d/in" in command
    exact = benchmark_model_command("b", "m", StockOptions(delegate="gpu:opencl"))
    assert {"--use_gpu=true", "--gpu_backend=cl", "--gpu_precision_loss_allowed=false"} <= set(exact)
    qnn = benchmark_model_command("b", "m", StockOptions(delegate="npu:qualcomm", library_dir="/d"))
    assert {
        "--external_delegate_path=/d/libQnnTFLiteDelegate.so",
        "--external_delegate_options=backend_type:htp",
    } <= set(qnn)
    perf = perf_test_command("p", "m.onnx", "out.csv", StockOptions(delegate="npu:qnn", library_dir="/d"))
    assert perf[-2:] == ["m.onnx", "out.csv"]
    assert "session.disable_cpu_ep_fallback|1" in perf
    assert "backend_path|/d/libQnnHtp.so" in perf
    assert "--gpu-precision=fp32" in litert_benchmark_command("l", "m", StockOptions(delegate="gpu:webgpu"))
    assert "--num_executions=50" in executor_runner_command("e", "m.pte", StockOptions())
    assert all(isinstance(word, str) for word in [*command, *exact, *qnn, *perf])


@pytest.mark.parametrize(
    ("build", "delegate"),
    [
        (benchmark_model_command, "gpu:webgpu"),
        (benchmark_model_command, "npu:../x"),
        (litert_benchmark_command, "nnapi"),
    ],
)
def test_a_delegate_that_a_runner_lacks_is_refused(build, delegate):
    with pytest.raises(UsageError, match="has no delegate"):
        build("b", "m", StockOptions(delegate=delegate))
