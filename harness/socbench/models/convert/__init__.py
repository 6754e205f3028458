"""Converters, one file a target format: ``TOOLS``, ``SOURCE`` and ``make(source, target, precision, recipe, ...)``.

``make`` runs in a process of its own (``socbench.models.child``) and returns ``{"companions": [...]}``.
"""

from __future__ import annotations

VERSION = 1
"""Part of every cache key: raised whenever a converter here makes other bytes than before."""

CONVERTED = ("onnx", "tflite", "openvino")
"""Formats that have a converter."""

TOOLS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("ai-edge-quantizer", "ai-edge-litert"),
    "openvino": ("openvino",),
}
"""Packages whose versions decide what the bytes are."""
