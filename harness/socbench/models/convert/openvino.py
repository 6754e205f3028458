"""ONNX -> OpenVINO IR: fp32, fp16 (stored), and int8 from the int8 QDQ ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from socbench.errors import ModelError

_NOTES = re.compile(rb"\s*<rt_info>\s*<info name=.*?</rt_info>\s*(?=</net>)", re.DOTALL)


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
    for number, node in enumerate(model.get_ordered_ops()):
        if re.search(r"_\d+$", node.get_friendly_name()):  # a counter of the process: other bytes in every run
            node.set_friendly_name(f"{node.get_type_name()}.{number}")
    openvino.save_model(model, target, compress_to_fp16=precision == "fp16")
    path = Path(target)
    path.write_bytes(_NOTES.sub(b"\n", path.read_bytes()))  # the notes hold the path that it was made from
    return {"companions": [str(path.with_suffix(".bin"))]}
