"""Converters, one file a target format: ``make(source, target, precision, recipe, ...)``.

``make`` runs in a process of its own (``socbench.models.child``) and returns ``{"companions": [...]}``.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from socbench.errors import EnvironmentsError

VERSION = 3
"""Part of every cache key: raised whenever a converter here makes other bytes than before."""

CONVERTED = ("onnx", "tflite", "openvino", "ncnn", "mnn", "executorch")
"""Formats that have a converter."""

MADE_FROM: dict[str, tuple[str, ...]] = {
    "openvino": ("onnx", "tflite"),
    "ncnn": ("onnx",),
    "mnn": ("onnx", "tflite"),
    "executorch": ("onnx",),
}
"""Formats that files of another format are made from, the best first; a format that is not here from its own fp32."""

TOOLS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("ai-edge-quantizer", "ai-edge-litert"),
    "openvino": ("openvino",),
    "ncnn": ("onnx", "pnnx"),
    "mnn": ("MNN",),
    "executorch": ("onnx", "executorch"),
}
"""Packages whose versions decide what the bytes are."""

ENVIRONMENTS = {"pnnx": "ncnn", "MNN": "mnn", "executorch": "executorch"}
"""Environments that hold a tool which does not live beside socbench."""


def version_of(package: str) -> str | None:
    """Return the version of a tool: the pinned one of its environment, else the installed one, ``None`` without."""
    from socbench.environments.catalogue import environment

    if package in ENVIRONMENTS:
        made = environment(ENVIRONMENTS[package])
        return next((p.partition("==")[2] for p in (*made.packages, *made.alone) if p.startswith(f"{package}==")), None)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def tool_missing(package: str) -> str | None:
    """Return the command that installs a tool which is not there, ``None`` when it is."""
    from socbench.environments.catalogue import environment
    from socbench.environments.install import python_of

    if package not in ENVIRONMENTS:
        return "pip install 'socbench[local]'" if version_of(package) is None else None
    name = ENVIRONMENTS[package]
    return f"socbench runtimes install {name}" if python_of(environment(name)) is None else None


def tool_python(environment_name: str) -> Path:
    """Return the interpreter of the environment that holds a tool. Raises EnvironmentsError when it is not there."""
    from socbench.environments.catalogue import environment
    from socbench.environments.install import python_of

    python = python_of(environment(environment_name))
    if python is None:
        raise EnvironmentsError(f"its converter is not installed: socbench runtimes install {environment_name}")
    return python


def tool_site(environment_name: str) -> Path:
    """Return the folder of the packages of the environment that holds a tool. Raises EnvironmentsError as above."""
    return next(tool_python(environment_name).parent.parent.glob("lib/python*/site-packages"))
