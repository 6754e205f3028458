"""Makes an ONNX file from elsewhere ready: a newer opset, fixed dimensions, nothing that is computed from shapes."""

from __future__ import annotations

from typing import Any

from socbench.errors import ModelError


def prepare(
    source: str, target: str, opset: int | None = None, shapes: list[list[int]] | None = None
) -> dict[str, Any]:
    """Write ``target``: ``source`` at ``opset``, its inputs of the given whole shapes.

    With shapes given, what depends on nothing else than them is computed once (ONNX Runtime's basic optimisation), so
    that every converter sees fixed sizes. Raises ModelError when the shapes are not as many as the inputs.
    """
    import onnx
    from onnx import version_converter

    model = onnx.load(source)
    if opset is not None:
        model = version_converter.convert_version(model, opset)
    if shapes is not None:
        constants = {item.name for item in model.graph.initializer}
        inputs = [item for item in model.graph.input if item.name not in constants]
        if len(inputs) != len(shapes):
            raise ModelError(f"the file has {len(inputs)} inputs and the card {len(shapes)}")
        for item, shape in zip(inputs, shapes, strict=True):
            del item.type.tensor_type.shape.dim[:]
            for size in shape:
                item.type.tensor_type.shape.dim.add().dim_value = size
        for item in model.graph.output:
            item.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        model = _folded(model)
    del model.metadata_props[:]
    model.doc_string = ""
    onnx.save(model, target)
    return {}


def _folded(model: Any) -> Any:
    """Return the model with constants folded and the shapes of its outputs found."""
    import tempfile
    from pathlib import Path

    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save(model, given)
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(made)
        session = onnxruntime.InferenceSession(str(given), settings, providers=["CPUExecutionProvider"])
        found = {item.name: item.shape for item in session.get_outputs()}
        folded = onnx.load(made)
    for item in folded.graph.output:
        shape = found[item.name]
        if all(isinstance(size, int) for size in shape):
            del item.type.tensor_type.shape.dim[:]
            for size in shape:
                item.type.tensor_type.shape.dim.add().dim_value = size
    return folded
