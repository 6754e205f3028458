"""Command lines of vendors' own benchmark programs. Pure: nothing is run here.

Google's ``benchmark_model`` (of TFLite, old and new, and of LiteRT), ``onnxruntime_perf_test`` and ExecuTorch's
``executor_runner``. What they print is read by :mod:`socbench.devices.program_output`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from socbench.errors import UsageError


@dataclass(frozen=True)
class StockOptions:
    """What a stock runner is asked for; it keeps to it as far as it knows the option."""

    threads: int = 1
    delegate: str = "cpu:xnnpack"
    min_count: int = 50
    min_time_s: float = 1.0
    max_time_s: float = 150.0
    warmup_min_count: int = 1
    warmup_time_s: float = 0.5
    exact_fp32: bool = True
    library_dir: str | None = None
    input_files: Mapping[str, str] = field(default_factory=dict)
    output_file: str | None = None


_EXTERNAL = {"npu:qualcomm": "libQnnTFLiteDelegate.so", "npu:mediatek": "libneuron_delegate.so"}
_PROVIDERS = {"cpu:mlas": "cpu", "cpu:xnnpack": "xnnpack", "npu:qnn": "qnn", "nnapi": "nnapi", "gpu:cuda": "cuda"}


def benchmark_model_command(program: str, model: str, options: StockOptions) -> list[str]:
    """Return the command line of TFLite's ``benchmark_model``.

    Leaving ``--use_xnnpack`` out applies XNNPACK too, so that it is always said. Without input files it makes inputs
    of its own, others each time. Raises UsageError for a delegate that it does not have.
    """
    command = [program, f"--graph={model}", f"--num_threads={options.threads}"]
    command += [
        f"--num_runs={options.min_count}",
        f"--min_secs={options.min_time_s:g}",
        f"--max_secs={options.max_time_s:g}",
    ]
    command += [f"--warmup_runs={options.warmup_min_count}", f"--warmup_min_secs={options.warmup_time_s:g}"]
    command += _tflite_delegate(options)
    if options.input_files:
        pairs = (f"{name.replace(':', chr(92) + ':')}:{path}" for name, path in options.input_files.items())
        command.append("--input_layer_value_files=" + ",".join(pairs))
    if options.output_file is not None:
        command.append(f"--output_filepath={options.output_file}")
    return command


def _tflite_delegate(options: StockOptions) -> list[str]:
    delegate = options.delegate
    if delegate == "cpu:xnnpack":
        return ["--use_xnnpack=true"]
    if delegate == "cpu:builtin":
        return ["--use_xnnpack=false"]
    if delegate in ("gpu:opencl", "gpu:gl"):
        backend = "cl" if delegate == "gpu:opencl" else "gl"
        loss = str(not options.exact_fp32).lower()
        return ["--use_gpu=true", f"--gpu_backend={backend}", f"--gpu_precision_loss_allowed={loss}"]
    if delegate == "nnapi":
        return [
            "--use_nnapi=true",
            "--disable_nnapi_cpu=true",
            f"--nnapi_allow_fp16={str(not options.exact_fp32).lower()}",
        ]
    name = _EXTERNAL.get(delegate, delegate.removeprefix("npu:"))
    if delegate.startswith("npu:") and name and "/" not in name:
        path = f"{options.library_dir}/{name}" if options.library_dir else name
        extra = ["--external_delegate_options=backend_type:htp"] if delegate == "npu:qualcomm" else []
        return [f"--external_delegate_path={path}", *extra]
    raise UsageError(f"benchmark_model has no delegate {delegate}")


def litert_benchmark_command(program: str, model: str, options: StockOptions) -> list[str]:
    """Return the command line of LiteRT's ``benchmark_model`` (compiled models): cpu, gpu or npu as a whole.

    It takes no input files and writes no outputs. Raises UsageError for a delegate that it does not have.
    """
    kind = options.delegate.partition(":")[0]
    if kind not in ("cpu", "gpu", "npu"):
        raise UsageError(f"LiteRT's benchmark_model has no delegate {options.delegate}")
    command = [
        program,
        f"--graph={model}",
        f"--num_threads={options.threads}",
        f"--use_cpu={str(kind == 'cpu').lower()}",
    ]
    command += [
        f"--num_runs={options.min_count}",
        f"--min_secs={options.min_time_s:g}",
        f"--max_secs={options.max_time_s:g}",
    ]
    command += [f"--warmup_runs={options.warmup_min_count}", f"--warmup_min_secs={options.warmup_time_s:g}"]
    if kind == "gpu":
        command += ["--use_gpu=true", f"--gpu-precision={'fp32' if options.exact_fp32 else 'fp16'}"]
    if kind == "npu":
        command.append("--use_npu=true")
        command += [f"--dispatch_library_path={options.library_dir}"] if options.library_dir else []
    return command


def perf_test_command(program: str, model: str, result: str, options: StockOptions) -> list[str]:
    """Return the command line of ``onnxruntime_perf_test``; ``result`` is the file that gets every latency.

    Fallback to the CPU is made an error. Raises UsageError for a delegate that it does not have.
    """
    provider = _PROVIDERS.get(options.delegate)
    if provider is None:
        raise UsageError(f"onnxruntime_perf_test has no provider for {options.delegate}")
    command = [program, "-I", "-s", "-m", "times", "-r", str(options.min_count), "-x", str(options.threads), "-y", "1"]
    command += ["-e", provider]
    if provider == "qnn":
        backend = f"{options.library_dir}/libQnnHtp.so" if options.library_dir else "libQnnHtp.so"
        command += ["-i", f"backend_path|{backend}"]
    if provider != "cpu":
        command += ["-C", "session.disable_cpu_ep_fallback|1"]
    return [*command, model, result]


def executor_runner_command(program: str, model: str, options: StockOptions) -> list[str]:
    """Return the command line of ExecuTorch's ``executor_runner``; the model's file decides on the backend."""
    command = [
        program,
        f"--model_path={model}",
        f"--num_executions={options.min_count}",
        f"--cpu_threads={options.threads}",
    ]
    if options.input_files:
        command.append("--inputs=" + ",".join(options.input_files.values()))
    if options.output_file is not None:
        command.append(f"--output_file={options.output_file}")
    return command
