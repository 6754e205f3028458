"""The environments that runtimes need: which packages live together, and why some cannot.

``host`` is the environment that runs socbench. Every other one is a virtual environment that socbench makes and
caches; an agent's child process is started with its interpreter, so no import of the host can leak into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from socbench.errors import UsageError


@dataclass(frozen=True)
class Environment:
    """Packages pinned together. ``env`` is set for the children; ``{site}`` in it is the environment's site-packages.

    ``system`` names Debian packages whose files are fetched and unpacked beside the environment, never installed;
    ``{system}`` in ``env`` is where they lie. ``options`` go into the trials that run here (docs/protocol.md).
    """

    name: str
    runtime: str
    packages: tuple[str, ...]
    why: str
    download_mb: int
    env: dict[str, str] = field(default_factory=dict)
    system: tuple[str, ...] = ()
    emulates: str | None = None
    part_of_all: bool = True


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
        emulates="gpu:webgpu",
    ),
    Environment(
        "litert-npu-intel",
        "litert",
        ("ai-edge-litert==2.3.0", "openvino==2026.3.1", "numpy==2.4.6"),
        "LiteRT's Intel plugin needs exactly the OpenVINO that it was built with",
        170,
        env={"LD_LIBRARY_PATH": "{site}/openvino/libs"},
        emulates="npu:intel",
    ),
    Environment(
        "onnxruntime-webgpu",
        "onnxruntime",
        ("onnxruntime==1.31.1", "onnxruntime-ep-webgpu==0.4.0", "numpy==2.4.6"),
        "the WebGPU plugin, on a software Vulkan where there is no GPU",
        100,
        env={"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1", **_SWIFTSHADER, **_VULKAN_LOADER},
        system=_SWIFTSHADER_PACKAGES,
        emulates="gpu:webgpu",
    ),
    Environment(
        "onnxruntime-qnn",
        "onnxruntime",
        ("onnxruntime==1.31.1", "onnxruntime-qnn==2.7.0", "numpy==2.4.6"),
        "Qualcomm's plugin; on x86-64 it carries an emulator of the Hexagon NPU",
        160,
        emulates="npu:qnn",
    ),
    Environment(
        "onnxruntime-openvino",
        "onnxruntime",
        ("onnxruntime-openvino==1.24.1", "numpy==2.4.6"),
        "has the same module name as onnxruntime",
        110,
    ),
    Environment("ncnn", "ncnn", ("ncnn==1.0.20261020", "numpy==2.4.6"), "CPU and Vulkan in one wheel", 45,
                env={**_SWIFTSHADER, **_VULKAN_LOADER}, system=_SWIFTSHADER_PACKAGES, emulates="gpu:vulkan"),
    Environment("mnn", "mnn", ("MNN==3.6.1", "numpy==2.4.6"), "kept apart from the others' protobuf", 40),
    Environment(
        "executorch",
        "executorch",
        ("torch==2.13.0", "executorch==1.5.1", "numpy==2.4.6"),
        "needs PyTorch (0.9 GB and more)",
        450,
    ),
    Environment(
        "onnxruntime-gpu", "onnxruntime", ("onnxruntime-gpu[cuda,cudnn]==1.31.1", "numpy==2.4.6"),
        "the CUDA and TensorRT providers; has the same module name as onnxruntime", 2500, part_of_all=False,
    ),
    Environment("tensorrt", "tensorrt", ("tensorrt==11.4.0.106", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "its libraries come from NVIDIA's own index", 2000, part_of_all=False),
    Environment("tensorrt-rtx", "tensorrt", ("tensorrt-rtx==1.7.1.116", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "builds engines without a GPU and runs them on RTX GPUs", 120),
    Environment("tensorrt-lean", "tensorrt", ("tensorrt-lean==11.4.0.106", "cuda-bindings==13.5.0", "numpy==2.4.6"),
                "runs engines and builds none", 70, part_of_all=False),
)  # fmt: skip


def catalogue() -> dict[str, Environment]:
    """Return every environment that socbench knows how to make, by name."""
    return {environment.name: environment for environment in _ALL}


def environment(name: str) -> Environment:
    """Return one environment. UsageError with the nearest name when there is none of that name."""
    known = catalogue()
    if name in known:
        return known[name]
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise UsageError(f"there is no environment called {name!r}; {hint}")
