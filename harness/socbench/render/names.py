"""The words that people say for what records call by identifiers, and text made safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
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
USUAL_CPU: Final = {
    "litert": "cpu:xnnpack",
    "onnxruntime": "cpu:mlas",
    "openvino": "cpu:openvino",
    "ncnn": "cpu:ncnn",
    "mnn": "cpu:mnn",
    "executorch": "cpu:xnnpack",
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
    "qualcomm": "Qualcomm",
    "mediatek": "MediaTek",
    "google": "Google",
    "samsung": "Samsung",
    "intel": "Intel",
}
_METRIC_TITLES: Final = {
    "top1": "top-1",
    "top5": "top-5",
    "miou": "mean IoU",
    "map": "mAP",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "character_accuracy": "characters",
    "spearman": "Spearman",
    "keypoint_error": "keypoint error",
}
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


def device_title(title: object, limit: int) -> str:
    """Return a device's title cut to ``limit``; the address in brackets, which tells two of one name apart, stays."""
    text = plain(title)
    start = text.rfind(" (") if text.endswith(")") else -1
    if len(text) <= limit or start < 0:
        return plain(text, limit)
    address = text[start:]
    if len(address) > limit - 4:
        return f"{text[:2]}… (…{address[3 - limit + 4 :]}" if limit > 12 else plain(text, limit)
    return text[: limit - len(address) - 1].rstrip() + "…" + address


def runtime_title(runtime: str) -> str:
    """``onnxruntime`` -> ``ONNX Runtime``; an unknown one as it is."""
    return RUNTIME_TITLES.get(runtime, plain(runtime))


def delegate_title(delegate: str | None, runtime: str | None = None) -> str:
    """``gpu:opencl`` -> ``GPU (OpenCL)``; the engine that ``runtime`` always uses on a CPU goes without saying."""
    if delegate is None:
        return "unknown"
    kind, _, name = delegate.partition(":")
    title = _CLASS_TITLES.get(kind, plain(kind, 40))
    if not name or (runtime is not None and delegate == USUAL_CPU.get(runtime)):
        return title
    return f"{title} ({_NAME_TITLES.get(name, plain(name, 40))})"


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
    """``LiteRT on the GPU (OpenCL) at fp16``: what was asked for, as one says it."""
    where = delegate_title(row.delegate, row.runtime)
    name = f"{runtime_title(row.runtime)} on the {where} at {plain(row.precision)}"
    if row.precision_effective not in (None, row.precision):
        name += f" (run as {plain(row.precision_effective)})"
    if row.recipe:
        name += f", {plain(row.recipe, 40)}"
    # An environment of the runtime's own name is where that runtime always is.
    return name if row.environment in ("host", row.runtime) else f"{name}, in {plain(row.environment, 40)}"


_CONDITIONS: Final[dict[str, Callable[[TrialRow], str]]] = {
    "threads": lambda row: count(row.threads, "thread"),
    "cores": lambda row: f"cores {plain(row.cores or 'any', 24)}",
    "batch": lambda row: f"batch {row.batch}",
    "ab_arm": lambda row: f"arm {plain(row.ab_arm or 'none', 24)}",
    "session": lambda row: plain(row.label or row.session, 24),
}


def row_names(rows: Sequence[TrialRow]) -> dict[tuple[str, str], str]:
    """A name for each ``(session, trial)``, with the conditions that tell rows of one name apart."""
    by_name: dict[str, list[TrialRow]] = {}
    for row in rows:
        by_name.setdefault(row_name(row), []).append(row)
    named = {}
    for name, group in by_name.items():
        vary = [say for field, say in _CONDITIONS.items() if len({getattr(row, field) for row in group}) > 1]
        for row in group:
            named[row.session, row.trial] = ", ".join([name, *(say(row) for say in vary)])
    return named


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``1,000 rows``."""
    return f"{number:,} {one if number == 1 else (many or one + 's')}"


def sentence(text: str) -> str:
    """``text`` with a capital at its start (a command stays as it is typed) and a full stop at its end; "" stays ""."""
    if not text:
        return ""
    start = text[0] if text.startswith("socbench ") else text[0].upper()
    return start + text[1:] + ("" if text[-1] in ".!?:…" else ".")


def listing(names: Iterable[str], limit: int = 4, by: str = ", ") -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 7 more``; ``by``: between names with commas."""
    found = list(names)
    if len(found) > limit:
        return f"{by.join(found[:limit])} and {len(found) - limit} more"
    if len(found) < 2:
        return "".join(found)
    return f"{by.join(found[:-1])} and {found[-1]}"
