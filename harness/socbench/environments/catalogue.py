"""The environments that runtimes need: which packages live together, and why some cannot.

``host`` is the environment that runs socbench. Every other one is a virtual environment that socbench makes and
caches; an agent's child process is started with its interpreter, so no import of the host can leak into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from socbench.errors import UsageError


@dataclass(frozen=True)
class Environment:
    """Packages pinned together, for the sake of the ``delegates`` of a runtime.

    ``env`` is set for the children; ``{site}`` in it is the environment's site-packages.

    ``system`` names Debian packages whose files are fetched and unpacked beside the environment, never installed;
    ``{system}`` in ``env`` is where they lie. ``alone`` are packages installed without what they say they need (tools
    of which only a part is used); ``index`` are packages that come from another package index, by its address.
    """

    name: str
    runtime: str
    packages: tuple[str, ...]
    why: str
    download_mb: int
    env: dict[str, str] = field(default_factory=dict)
    system: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    part_of_all: bool = True
    alone: tuple[str, ...] = ()
    index: dict[str, tuple[str, ...]] = field(default_factory=dict)


# Software Vulkan: SwiftShader from Debian's chromium-common, unpacked beside the environment and found by its manifest.
_SWIFTSHADER = {"VK_ICD_FILENAMES": "{system}/usr/lib/chromium/vk_swiftshader_icd.json"}
_SWIFTSHADER_PACKAGES = ("chromium-common", "libvulkan1")
_VULKAN_LOADER = {"LD_LIBRARY_PATH": "{system}/usr/lib/{multiarch}"}

_ALL = (
    Environment(
        "litert-gpu",
        "litert",
        ("ai-edge-litert==2.3.0", "numpy==2.4.6"),
        "the WebGPU accelerator of the wheel, on a software Vulkan where there is no GPU",
        90,
        env={**_SWIFTSHADER, **_VULKAN_LOADER},
        system=_SWIFTSHADER_PACKAGES,
        delegates=("gpu:webgpu",),
    ),
    Environment(
        "litert-npu-intel",
        "litert",
        ("ai-edge-litert==2.3.0", "openvino==2026.3.1", "numpy==2.4.6"),
        "LiteRT's Intel plugin needs exactly the OpenVINO that it was built with",
        170,
        env={"LD_LIBRARY_PATH": "{site}/openvino/libs"},
        delegates=("npu:intel",),
    ),
    Environment(
        "onnxruntime-webgpu",
        "onnxruntime",
        ("onnxruntime==1.31.1", "onnxruntime-ep-webgpu==0.4.0", "numpy==2.4.6"),
        "the WebGPU plugin, on a software Vulkan where there is no GPU",
        100,
        env={"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1", **_SWIFTSHADER, **_VULKAN_LOADER},
        system=_SWIFTSHADER_PACKAGES,
        delegates=("gpu:webgpu",),
    ),
    Environment(
        "onnxruntime-qnn",
        "onnxruntime",
        ("onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0", "numpy==2.4.6"),
        "Qualcomm's plugin; on x86-64 it carries an emulator of the Hexagon NPU",
        160,
        delegates=("npu:qnn",),
    ),
    Environment(
        "onnxruntime-openvino",
        "onnxruntime",
        ("onnxruntime-openvino==1.24.1", "numpy==2.4.6"),
        "has the same module name as onnxruntime",
        110,
        delegates=("cpu:openvino", "gpu:openvino", "npu:openvino"),
    ),
    Environment("ncnn", "ncnn", ("ncnn==1.0.20261020", "numpy==2.4.6"), "CPU and Vulkan in one wheel", 75,
                alone=("pnnx==20261020",),
                env={**_SWIFTSHADER, **_VULKAN_LOADER}, system=_SWIFTSHADER_PACKAGES,
                delegates=("cpu:ncnn", "gpu:vulkan")),
    Environment("mnn", "mnn", ("MNN==3.6.1", "numpy==2.4.6"), "kept apart from the others' protobuf", 40,
                delegates=("cpu:mnn",)),
    Environment(
        "executorch",
        "executorch",
        ("executorch==1.5.1", "numpy==2.4.6"),
        "needs PyTorch, here the build for CPUs (1.3 GB installed)",
        330,
        delegates=("cpu:xnnpack", "cpu:portable"),
        index={"https://download.pytorch.org/whl/cpu": ("torch==2.13.0",)},
    ),
    Environment(
        "convert-torch",
        "",
        (
            *("onnx==1.23.2", "onnxscript==0.7.2", "litert-torch==0.10.0", "ai-edge-litert==2.3.0"),
            *("ai-edge-quantizer==0.10.0", "numpy==2.4.6"),
        ),
        "recipes of models convert their weights in it; no runtime (2 GB installed)",
        700,
        part_of_all=False,
        index={"https://download.pytorch.org/whl/cpu": ("torch==2.13.0",)},
    ),
    Environment(
        "onnxruntime-gpu", "onnxruntime", ("onnxruntime-gpu[cuda,cudnn]==1.31.1", "numpy==2.4.6"),
        "the CUDA and TensorRT providers; has the same module name as onnxruntime", 2500, part_of_all=False,
        delegates=("gpu:cuda", "gpu:tensorrt"),
    ),
    Environment("tensorrt-rtx", "tensorrt", ("tensorrt-rtx==1.7.1.116", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "builds engines without a GPU and runs them on RTX GPUs", 120, delegates=("gpu:cuda",)),
    Environment("tensorrt", "tensorrt", ("tensorrt==11.4.0.106", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "its libraries come from NVIDIA's own index", 2000, part_of_all=False,
                delegates=("gpu:cuda",)),
    Environment("tensorrt-lean", "tensorrt", ("tensorrt-lean==11.4.0.106", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "runs engines and builds none", 70, part_of_all=False, delegates=("gpu:cuda",)),
)  # fmt: skip


def catalogue() -> dict[str, Environment]:
    """Return every environment that socbench knows how to make, by name."""
    return {environment.name: environment for environment in _ALL}


def environments_for(runtime: str, delegate: str | None = None) -> list[Environment]:
    """Return the environments that were made for a runtime, or for one delegate of it, in the catalogue's order."""
    return [one for one in _ALL if one.runtime == runtime and (delegate is None or delegate in one.delegates)]


_DISTRIBUTIONS = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "mnn": "MNN",
}
_ONE_VERSION = re.compile(rf"({'|'.join(_DISTRIBUTIONS)})(?:-|==)(\d[\w.]{{0,30}})")


def version_environment(name: str) -> Environment | None:
    """Return the environment that holds one version of a runtime, by its name (``onnxruntime-1.24.4``) or as pip
    spells it (``onnxruntime==1.24.4``); ``None`` for other names. It is never chosen unless it is asked for.
    """
    found = _ONE_VERSION.fullmatch(name)
    if found is None:
        return None
    runtime, version = found.groups()
    packages = (f"{_DISTRIBUTIONS[runtime]}=={version}", "numpy")
    return Environment(f"{runtime}-{version}", runtime, packages, "to compare versions", 100, part_of_all=False)


def environment(name: str) -> Environment:
    """Return one environment, of the catalogue or of one version of a runtime. UsageError with the nearest name when
    there is none of that name.
    """
    known = catalogue()
    made = known.get(name) or version_environment(name)
    if made is not None:
        return made
    import difflib

    # `onnxruntim==1.2` is near a runtime, not near the environment whose name is as long.
    runtime, equals, version = name.partition("==")
    near = difflib.get_close_matches(runtime, _DISTRIBUTIONS if equals else known, n=1)
    if near and equals:
        near = [f"{near[0]}=={version}"]
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise UsageError(f"there is no environment called {name!r}; {hint}")
