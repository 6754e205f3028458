"""ONNX -> OpenVINO IR: fp32, fp16 (stored), and int8 from the int8 QDQ ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socbench.errors import ModelError


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` (.xml) and its .bin from ``source``: the fp32 ONNX file, for int8 the QDQ one.

    Raises ModelError for a precision that this format does not have.
    """
    import openvino

    if precision not in ("fp32", "fp16", "int8"):
        raise ModelError(f"OpenVINO files of precision {precision} are not made by socbench")
    model = openvino.convert_model(source)  # not read_model(): that leaves out the clean-up that fuses Q/DQ pairs
    openvino.save_model(model, target, compress_to_fp16=precision == "fp16")
    return {"companions": [str(Path(target).with_suffix(".bin"))]}
