"""The words that people say for what records call by identifiers, and text made safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from socbench.records import TrialRow

RUNTIME_TITLES: Final = {
    "litert": "LiteRT",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "executorch": "ExecuTorch",
    "null": "null runtime",
}
_CLASS_TITLES: Final = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU", "nnapi": "NNAPI", "auto": "AUTO", "hetero": "HETERO"}
_NAME_TITLES: Final = {
    "xnnpack": "XNNPACK",
    "mlas": "MLAS",
    "openvino": "OpenVINO",
    "webgpu": "WebGPU",
    "opencl": "OpenCL",
    "gl": "OpenGL",
    "cuda": "CUDA",
    "tensorrt": "TensorRT",
    "vulkan": "Vulkan",
    "qnn": "QNN",
    "coreml": "Core ML",
    "directml": "DirectML",
    "builtin": "built-in kernels",
    "reference": "reference kernels",
    "dla": "DLA",
}
_METRIC_TITLES: Final = {"top1": "top-1", "top5": "top-5", "miou": "mean IoU", "map": "mAP"}
_SCENARIO_TITLES: Final = {
    "single_stream": "one inference after the other",
    "sustained": "continuous inference",
    "accuracy": "accuracy",
}
_VERDICT_TITLES: Final = {"valid": "valid", "suspect": "suspect", "invalid": "void"}


def plain(text: object, limit: int | None = None) -> str:
    """Return ``text`` as one printable line: control, format and unpaired characters become spaces or go.

    Names come from devices and files, so they may hold escape sequences, line breaks and marks that turn the
    direction of writing around. With ``limit``, what is longer ends in an ellipsis.
    """
    kept = []
    for character in str(text):
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif category not in ("Cf", "Cs", "Co", "Cn"):
            kept.append(character)
    line = " ".join("".join(kept).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return line


def runtime_title(runtime: str) -> str:
    """``onnxruntime`` -> ``ONNX Runtime``; an unknown one as it is."""
    return RUNTIME_TITLES.get(runtime, plain(runtime))


def delegate_title(delegate: str | None, *, short: bool = False) -> str:
    """``cpu:xnnpack`` -> ``CPU (XNNPACK)``, or ``CPU`` when ``short``."""
    if delegate is None:
        return "unknown"
    kind, _, name = delegate.partition(":")
    title = _CLASS_TITLES.get(kind, plain(kind))
    if short or not name:
        return title
    return f"{title} ({_NAME_TITLES.get(name, plain(name, 40))})"


def ambiguous_delegates(rows: Iterable[TrialRow]) -> bool:
    """Whether a delegate's class alone does not tell the rows of one runtime apart."""
    names: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for delegate in (row.delegate, row.delegate_effective or row.delegate):
            names.setdefault((row.runtime, delegate.partition(":")[0]), set()).add(delegate)
    return any(len(found) > 1 for found in names.values())


def metric_title(metric: str | None) -> str:
    """``top1`` -> ``top-1``."""
    return "accuracy" if metric is None else _METRIC_TITLES.get(metric, plain(metric, 40))


def scenario_title(scenario: str) -> str:
    """What a scenario does, in words."""
    return _SCENARIO_TITLES.get(scenario, plain(scenario, 40))


def verdict_title(verdict: str | None) -> str:
    """``invalid`` -> ``void``; no verdict is ``not measured``."""
    return "not measured" if verdict is None else _VERDICT_TITLES.get(verdict, plain(verdict))


def row_name(row: TrialRow) -> str:
    """``LiteRT on the GPU at fp16``: what was asked for, as one says it."""
    extra = ""
    if row.environment != "host":
        extra = f" in {plain(row.environment, 40)}"
    recipe = f" ({plain(row.recipe, 40)})" if row.recipe else ""
    return (
        f"{runtime_title(row.runtime)} on the {delegate_title(row.delegate)} at {plain(row.precision)}{recipe}{extra}"
    )


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``1,000 rows``."""
    return f"{number:,} {one if number == 1 else (many or one + 's')}"


def listing(names: Iterable[str], limit: int = 4) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 7 more``."""
    found = list(names)
    if len(found) > limit:
        return f"{', '.join(found[:limit])} and {len(found) - limit} more"
    if len(found) < 2:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"
