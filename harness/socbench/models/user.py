"""Models that are the user's own: a bare file, measured as it is; or a network added with ``models add``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from socbench.cache import sha256_of_file, sha256_of_files
from socbench.errors import FailedError, ModelError
from socbench.models.cards import (
    Card,
    Input,
    Licence,
    Output,
    Precision,
    Preprocess,
    Probe,
    Reference,
    SourceFile,
    Tolerance,
    load_card,
    model_names,
    parse_card,
    user_models_folder,
)
from socbench.models.inputs import resolve_shapes
from socbench.models.inspect import FileFacts, format_of, inspect_file
from socbench.records import TensorSpec, Variant

_RUNTIME = {"tflite": "litert", "onnx": "onnxruntime", "openvino": "openvino", "null": "null"}
_TO_ITSELF: dict[Precision, Tolerance] = {
    "fp32": Tolerance(cosine=0.9999, max_relative=1e-2),
    "fp16": Tolerance(cosine=0.999),
    "bf16": Tolerance(cosine=0.99),
    "int8": Tolerance(cosine=0.98),
    "int8_dynamic": Tolerance(cosine=0.98),
    "int8_weights": Tolerance(cosine=0.98),
    "int16x8": Tolerance(cosine=0.98),
    "int4_weights": Tolerance(cosine=0.98),
}
"""How far one file may be from itself when only the kernels differ."""
_TO_FP32: dict[str, dict[str, float]] = {
    "fp32": {"cosine": 0.9999, "max_relative": 1e-3},
    "fp16": {"cosine": 0.999},
    "int8": {"cosine": 0.95},
    "int8_dynamic": {"cosine": 0.95},
}
_MADE_FROM = {
    "onnx": {"onnx": ["fp32", "fp16", "int8"], "openvino": ["fp32", "fp16", "int8"]},
    "tflite": {"tflite": ["fp32", "fp16", "int8", "int8_dynamic"]},
}


def user_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[Card, Variant]:
    """Return a card made from the file (no data, no metric) and its one variant; nothing is converted.

    Raises ModelError: no model, or a dimension is open and ``shapes`` does not give it.
    """
    facts = inspect_file(path)
    if facts.format not in _RUNTIME:
        raise ModelError(
            f"{path}: a .{facts.format} file of yours has no reference to hold its answers against; "
            "use socbench models add with the .onnx file that it was made from"
        )
    name = _name_of(path)
    form: Any = facts.format
    precision: Any = facts.precision
    card = Card(
        model=name,
        title=path.name,
        task="none",
        licence=Licence(weights="unknown", redistribute=False),
        inputs=tuple(Input(name=spec.name, shape=_words(spec), dtype=spec.dtype) for spec in facts.inputs),
        outputs=tuple(Output(name=spec.name, shape=_words(spec)) for spec in facts.outputs),
        files={form: SourceFile(path=str(path.resolve()), sha256=sha256_of_file(path), precision=precision)},
        tolerance=_TO_ITSELF,
        variants={form: (precision,)},
        probe=Probe(source="seeded", count=1),
        reference=Reference(
            format=form, runtime=_RUNTIME[form], precision=precision, independent=facts.format != "openvino"
        ),
    )
    variant = Variant(
        model=name,
        variant=f"{facts.format}-{facts.precision}",
        format=facts.format,
        precision=facts.precision,
        path=str(path.resolve()),
        companions=facts.companions,
        size_bytes=facts.size_bytes,
        sha256=sha256_of_files([path, *map(Path, facts.companions)]),
        inputs=facts.inputs,
        outputs=facts.outputs,
    )
    resolve_shapes(card, variant, shapes=shapes)
    return card, variant


def _name_of(path: Path) -> str:
    """Return the model's name: that of the file without its ending, in letters that are safe everywhere."""
    ending = ".null.json" if path.name.lower().endswith(".null.json") else path.suffix
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.name[: -len(ending)]).lstrip("._-") or "model"


def _words(spec: TensorSpec) -> tuple[int | str, ...]:
    return tuple(f"dimension{axis}" if size is None else size for axis, size in enumerate(spec.shape))


def add(path: Path, calibration: Path | None = None, *, name: str | None = None) -> Card:
    """Make a card of the user's fp32 file among the user's own models, so that its variants can be built.

    ``calibration`` is a folder of pictures (flat, or one folder a class), needed by int8; they are read where they
    are. How pictures are scaled cannot be read off a file: the card says 0 to 1 and is there to be corrected.
    Raises ModelError: not fp32, not .onnx or .tflite, the name is taken, or a calibration folder without pictures.
    """
    form = format_of(path)
    if form not in _MADE_FROM:
        raise ModelError(f"{path}: variants are made from .onnx and .tflite files; measure this one as it is")
    facts = inspect_file(path)
    if facts.precision != "fp32":
        raise ModelError(f"{path} is {facts.precision}: variants are made from fp32; measure this one as it is")
    if facts.companions:
        raise ModelError(f"{path} keeps its weights in files beside it; save it as one file first")
    model = re.sub(r"[^a-z0-9_.-]+", "_", (name or _name_of(path)).lower())
    if model in model_names():
        raise ModelError(f"there is a model {model} already; name this one with --name")
    card = _card_text(model, form, path, facts, calibration)
    parse_card(card, model)
    folder = user_models_folder() / model
    try:
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / path.name)
        (folder / "card.yaml").write_bytes(card)
    except OSError as problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise FailedError(f"{model} cannot be added in {folder.parent}: {problem.strerror}") from problem
    return load_card(model)


def _card_text(model: str, form: str, path: Path, facts: FileFacts, calibration: Path | None) -> bytes:
    import yaml

    if calibration is not None and not calibration.is_dir():
        raise ModelError(f"the calibration data must be a folder of pictures, and {calibration} is none")
    variants = {
        target: [precision for precision in precisions if calibration is not None or precision != "int8"]
        for target, precisions in _MADE_FROM[form].items()
    }
    wanted: dict[str, Any] = {
        "model": model,
        "title": path.name,
        "task": "none",
        "licence": {"weights": "unknown", "redistribute": False},
        "files": {form: {"path": path.name, "sha256": sha256_of_file(path)}},
        "inputs": [msgspec.to_builtins(_input_of(spec, calibration is not None)) for spec in facts.inputs],
        "outputs": [{"name": spec.name, "shape": list(_words(spec))} for spec in facts.outputs],
        "probe": {"from": "calibration", "count": 8} if calibration is not None else {"from": "seeded", "count": 1},
        "reference": {"format": form, "runtime": _RUNTIME[form], "precision": "fp32"},
        "tolerance": {
            name: limits for name, limits in _TO_FP32.items() if any(name in made for made in variants.values())
        },
        "variants": variants,
    }
    if calibration is not None:
        wanted["data"] = {"calibration": {"kind": "imagenet_folder", "path": str(calibration.resolve()), "count": 128}}
    text: str = yaml.safe_dump(wanted, sort_keys=False)
    return text.encode()


def _input_of(spec: TensorSpec, pictures: bool) -> Input:
    """Return the card's input; where pictures are to fill it, how: cut to its size, scaled to 0 to 1."""
    shape = tuple("batch" if size is None and axis == 0 else size for axis, size in enumerate(spec.shape))
    if not pictures:
        return Input(name=spec.name, shape=_words(spec), dtype=spec.dtype)
    for layout, channels, side in (("NCHW", 1, 2), ("NHWC", 3, 1)):
        if len(shape) == 4 and shape[channels] in (1, 3) and isinstance(shape[side], int):
            size = shape[side]
            colour: Any = "grey" if shape[channels] == 1 else "RGB"
            return Input(
                name=spec.name,
                shape=tuple(item if item is not None else "size" for item in shape),
                dtype=spec.dtype,
                layout=layout,
                preprocess=Preprocess(resize=size, crop=size, colour=colour),  # type: ignore[arg-type]
            )
    raise ModelError(
        f"the input {spec.name} {list(spec.shape)} takes no pictures, so int8 cannot be calibrated by them"
    )
