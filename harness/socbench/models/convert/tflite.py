"""TFLite fp32 -> fp16, int8, dynamic int8, int8 weights, by AI Edge Quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socbench.errors import ModelError


def make(
    source: str, target: str, precision: str, recipe: str | None, calibration: str | None = None, input: str = ""
) -> dict[str, Any]:
    """Write ``target`` from the fp32 file ``source``; arguments as for ONNX, the calibration data in the file's layout.

    Raises ModelError for a precision that this format does not have.
    """
    if precision == "fp32":  # of a file whose weights are stored as fp16
        from socbench.models.convert.tflite_source import widened

        widened(source, target)
        return {"companions": []}
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager
    from ai_edge_quantizer import recipe as ready
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    made = quantizer.Quantizer(source)
    if precision == "fp16":  # no ready recipe: the weights of every operation, cast
        own = recipe_manager.RecipeManager()
        own.add_weight_only_config(
            ".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
        made.load_quantization_recipe(own.get_quantization_recipe())
        result = made.quantize()
    elif precision in ("int8_dynamic", "int8_weights"):
        dynamic = precision == "int8_dynamic"
        made.load_quantization_recipe(ready.dynamic_wi8_afp32() if dynamic else ready.weight_only_wi8_afp32())
        result = made.quantize()
    elif precision == "int8":
        made.load_quantization_recipe(ready.static_wi8_ai8())
        result = made.quantize(_ranges(source, made, calibration or "", input))
    else:
        raise ModelError(f"TFLite files of precision {precision} are not made by socbench")
    result.export_model(target, overwrite=True)
    return {"companions": []}


def _ranges(source: str, made: Any, calibration: str, name: str) -> Any:
    """Return the smallest and largest value of every tensor over the calibration data.

    Not ``Quantizer.calibrate()``: that takes a moving average of the ranges, which costs MobileNetV2 three points.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    signatures = Interpreter(model_path=source).get_signature_list()
    if not signatures:
        raise ModelError(f"{Path(source).name} has no signature, and calibration needs one; export the network again")
    key = next(iter(signatures))
    names = signatures[key]["inputs"]
    data = {key: [{names[0]: picture[None]} for picture in np.load(calibration, allow_pickle=False)]}
    found = calibrator.Calibrator(source, num_threads=2, qsv_update_func=qsv_utils.min_max_update)
    found.calibrate(data, made._recipe_manager)  # there is no public way to give the update function
    return found.get_model_qsvs()
