"""ONNX or TFLite -> OpenVINO IR: fp32, fp16 (stored), and int8 from the int8 file of that format."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from socbench.errors import ModelError


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` (.xml) and its .bin from ``source``: the fp32 ONNX or TFLite file, for int8 the quantised one.

    Raises ModelError for a precision that this format does not have.
    """
    if precision not in ("fp32", "fp16", "int8"):
        raise ModelError(f"OpenVINO files of precision {precision} are not made by socbench")
    if source.endswith(".tflite"):
        from socbench.models.convert.tflite_source import inlined

        with tempfile.TemporaryDirectory() as folder:
            readable = str(Path(folder) / "inline.tflite")
            inlined(source, readable)
            _save(readable, target, precision)
    else:
        _save(source, target, precision)
    return {"companions": [str(Path(target).with_suffix(".bin"))]}


def _save(source: str, target: str, precision: str) -> None:
    import openvino

    model = openvino.convert_model(source)  # not read_model(): that leaves out the clean-up that fuses Q/DQ pairs
    openvino.save_model(model, target, compress_to_fp16=precision == "fp16")
