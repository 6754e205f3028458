"""ONNX Runtime's execution providers: those built in, those that come as plugin libraries, and what is behind each.

A plugin is registered once a process. Some providers take a device that is none: Qualcomm's plugin brings an emulator
of its NPU for x86-64, the WebGPU plugin runs on a software Vulkan. Those are named for what they are.
"""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any, Dict, List, Optional, Tuple

from socbench_runtime_base import (  # type: ignore[import-not-found]
    RuntimeProblem,
    cpu_name,
    delegate_entry,
    delegate_missing,
    part,
)

Json = Dict[str, Any]
CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
PROVIDERS = {
    "cpu:mlas": CPU,
    "cpu:xnnpack": "XnnpackExecutionProvider",
    "cpu:openvino": OPENVINO,
    "gpu:cuda": "CUDAExecutionProvider",
    "gpu:tensorrt": "TensorrtExecutionProvider",
    "gpu:nv_tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
    "gpu:webgpu": "WebGpuExecutionProvider",
    "gpu:openvino": OPENVINO,
    "gpu:coreml": "CoreMLExecutionProvider",
    "gpu:directml": "DmlExecutionProvider",
    "npu:qnn": "QNNExecutionProvider",
    "npu:openvino": OPENVINO,
    "nnapi": "NnapiExecutionProvider",
}
PLUGINS = {
    "WebGpuExecutionProvider": ("onnxruntime_ep_webgpu",),
    "QNNExecutionProvider": ("onnxruntime_qnn",),
    "NvTensorRTRTXExecutionProvider": ("onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime_ep_nv_tensorrt_rtx_cu13"),
    OPENVINO: ("onnxruntime_ep_openvino",),
}
ELSEWHERE = {"gpu:coreml": "macOS", "gpu:directml": "Windows", "nnapi": "Android"}
"""Operating systems that alone have what a provider needs."""
HTP_EMULATOR = "Qualcomm HTP emulator (x86-64 software)"
_registered: Dict[str, Any] = {}


def plugin(ort: Any, provider: str) -> Optional[Any]:
    """Return the module of the installed plugin of ``provider``, its library registered, or None.

    Registered under the provider's own name: Qualcomm's offers no device under any other.
    """
    if provider in _registered:
        return _registered[provider]
    if not hasattr(ort, "register_execution_provider_library"):
        return None
    for name in PLUGINS.get(provider, ()):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        try:
            ort.register_execution_provider_library(provider, module.get_library_path())
        except Exception as error:  # pybind's exceptions share no base below Exception
            raise RuntimeProblem("runtime_broken", f"the plugin {name} does not load: {_short(error)}") from None
        _registered[provider] = module
        return module
    return None


def plugin_device(ort: Any, provider: str, kind: str) -> Optional[Any]:
    """Return the plugin's device for a class of delegate: one of that kind, else whatever it offers, or None.

    What it offers otherwise is the CPU in the part of an accelerator; :func:`accelerator` says so.
    """
    wanted = {"gpu": "GPU", "npu": "NPU", "cpu": "CPU"}.get(kind, "")
    mine = [device for device in ort.get_ep_devices() if device.ep_name == provider]
    return next((device for device in mine if str(device.device.type).endswith(wanted)), next(iter(mine), None))


def accelerator(delegate: str) -> Tuple[Optional[str], bool]:
    """Return the name of what does the work of a delegate that is there, and whether that is an emulation."""
    if delegate == "npu:qnn":
        emulated = platform.machine().lower() in ("x86_64", "amd64")
        return (HTP_EMULATOR if emulated else "Qualcomm Hexagon NPU"), emulated
    if delegate == "gpu:webgpu":
        device = part("vulkan").chosen()
        return (device["name"], device["software"]) if device else (None, False)
    if delegate.startswith("cpu:"):
        return cpu_name(), False
    return None, False


def provider_options(ort: Any, delegate: str, trial: Json) -> Dict[str, str]:
    """Return the options of a delegate's provider; ``options.provider_options`` of the trial are put over them."""
    options: Dict[str, str] = {}
    if delegate == "npu:qnn":
        module = plugin(ort, PROVIDERS[delegate])
        options["backend_path"] = module.get_qnn_htp_path() if module else "libQnnHtp.so"
        options["htp_performance_mode"] = "burst"
    elif PROVIDERS[delegate] == OPENVINO:
        options["device_type"] = delegate.split(":")[0].upper()
        if delegate.startswith("cpu:"):
            options["num_of_threads"] = str(trial["threads"])
    given = (trial.get("options") or {}).get("provider_options") or {}
    options.update({str(name): str(value) for name, value in given.items()})
    return options


def choose(ort: Any, options: Any, delegate: str, trial: Json) -> List[Any]:
    """Put the delegate's provider into the session options where it is a plugin, else return the provider list.

    Raises RuntimeProblem ``delegate_missing`` with what is there.
    """
    provider = PROVIDERS.get(delegate)
    if provider is not None:
        built_in = provider in ort.get_available_providers() and provider not in _registered
        if provider == CPU:
            return [CPU]
        if built_in:
            return [(provider, provider_options(ort, delegate, trial)), CPU]
        if plugin(ort, provider) is not None:
            device = plugin_device(ort, provider, delegate.split(":")[0])
            if device is not None:
                options.add_provider_for_devices([device], provider_options(ort, delegate, trial))
                return []
    have = [entry["delegate"] for entry in entries(ort) if entry["available"]]
    raise delegate_missing("onnxruntime", delegate, have, "install a build or a plugin of onnxruntime that carries it")


def entries(ort: Any) -> List[Json]:
    """Return the probe's entries of every delegate: is the provider built in, does its plugin find a device."""
    return [_entry(ort, delegate, provider) for delegate, provider in PROVIDERS.items()]


def _entry(ort: Any, delegate: str, provider: str) -> Json:
    fix = "install a build or a plugin of onnxruntime that carries it"
    try:
        built_in = provider in ort.get_available_providers() and provider not in _registered
        module = None if built_in else plugin(ort, provider)
    except RuntimeProblem as problem:
        return delegate_entry(delegate, None, problem.message, fix=problem.advice or fix)
    if not built_in and module is None:
        fix = f"run on {ELSEWHERE[delegate]}" if delegate in ELSEWHERE else fix
        return delegate_entry(delegate, None, f"this build of onnxruntime has no {provider}", fix=fix)
    if module is not None and plugin_device(ort, provider, delegate.split(":")[0]) is None:
        return delegate_entry(delegate, None, f"{module.__name__} finds no device here", fix="install its driver")
    against = _no_device(delegate)
    if against is not None:
        return delegate_entry(delegate, None, against, fix="install the device's driver")
    name, emulated = accelerator(delegate)
    precisions = ["fp32", "int8"] if delegate == "cpu:mlas" else None
    return delegate_entry(delegate, name, emulated=emulated, precisions=precisions)


def _no_device(delegate: str) -> Optional[str]:
    """Return why a provider that is built in cannot have a device here, where that can be told without trying."""
    if delegate == "gpu:webgpu" and part("vulkan").chosen() is None:
        return str(part("vulkan").reason())
    if delegate in ("gpu:cuda", "gpu:tensorrt", "gpu:nv_tensorrt_rtx") and not _nvidia():
        return "there is no NVIDIA GPU here, or its driver is not installed"
    if delegate == "gpu:openvino" and not os.path.exists("/dev/dri"):
        return "there is no GPU device (/dev/dri) for OpenVINO here"
    if delegate == "npu:openvino" and not os.path.exists("/dev/accel"):
        return "there is no NPU device (/dev/accel) for OpenVINO here"
    return None


def _nvidia() -> bool:
    return os.name == "nt" or any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu"))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
