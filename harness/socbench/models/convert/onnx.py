"""ONNX fp32 -> fp16, int8 (QDQ per channel, with and without reduced range), dynamic int8, by ONNX Runtime's tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socbench.errors import ModelError

_OPSET_PER_CHANNEL = 13


def make(
    source: str,
    target: str,
    precision: str,
    recipe: str | None,
    calibration: str | None = None,
    input: str = "",
    op_types: list[str] | None = None,
) -> dict[str, Any]:
    """Write ``target`` from the fp32 file ``source``.

    ``calibration``: a .npy file ``(count, *shape)`` float32 for the tensor ``input``. ``recipe``: ``reduced`` takes
    weights of 7 bits. ``op_types``: only these operations are quantised. Raises ModelError for a precision that this
    format does not have.
    """
    if precision == "fp16":
        _fp16(source, target)
    elif precision == "int8":
        _int8(source, target, recipe == "reduced", calibration or "", input, op_types)
    elif precision == "int8_dynamic":
        _dynamic(source, target)
    else:
        raise ModelError(f"ONNX files of precision {precision} are not made by socbench")
    return {"companions": []}


def _fp16(source: str, target: str) -> None:
    """Weights and operations in fp16; inputs and outputs stay float32, so that every variant is fed the same."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def _int8(source: str, target: str, reduced: bool, calibration: str, name: str, op_types: list[str] | None) -> None:
    """QDQ with uint8 activations and int8 weights, one scale a channel, ranges by min-max over the calibration data."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opset = next((item.version for item in onnx.load(source).opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET_PER_CHANNEL:
        raise ModelError(
            f"its opset is {opset}, and scales per channel need {_OPSET_PER_CHANNEL}; export the network again"
        )
    pictures = np.load(calibration, allow_pickle=False)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Any] = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self._left, None)
            return None if picture is None else {name: picture[None]}

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduced,
            op_types_to_quantize=op_types,
        )


def _dynamic(source: str, target: str) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
