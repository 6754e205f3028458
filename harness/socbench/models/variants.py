"""The files of a model: which there are, and making those that are missing, content-addressed in the cache."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from socbench.cache import cache_folder, digest_of, sha256_of_files
from socbench.errors import EnvironmentsError, FailedError, ModelError
from socbench.models import child
from socbench.models.cards import Card
from socbench.models.convert import CONVERTED, MADE_FROM, TOOLS, VERSION, tool_missing, version_of
from socbench.models.inspect import inspect_file
from socbench.models.sources import decides, digest, own_file, own_file_there
from socbench.records import Device, Variant

Progress = Callable[[str], None]
"""Told one sentence at the start of every step that takes time."""

ENDINGS = {
    "onnx": ".onnx",
    "tflite": ".tflite",
    "openvino": ".xml",
    "ncnn": ".param",
    "mnn": ".mnn",
    "executorch": ".pte",
}
REDUCED = "reduced"
PORTABLE = "portable"
_SATURATING = ("onnx", "openvino")
_X86 = ("x86_64", "amd64", "i686", "i386", "x86")
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


def variants_of(card: Card) -> list[Variant]:
    """Return the variants that the card declares, in its order; ``path`` is ``None`` for what is not built yet.

    An int8 variant whose arithmetic saturates on x86 without VNNI comes twice: ``onnx-int8`` and ``onnx-int8-reduced``;
    ExecuTorch's fp32 too: a program is lowered for its back end when it is made, and ``-portable`` for none.
    Light: hashes, no imports of converters.
    """
    planned = [
        Variant(card.model, "-".join(filter(None, (form, precision, recipe))), form, precision, recipe)
        for form, precisions in card.variants.items()
        for precision in precisions
        for recipe in _recipes(card, form, precision)
    ]
    return [_if_built(card, variant) for variant in planned]


def build(card: Card, variant: Variant, *, progress: Progress | None = None) -> Variant:
    """Return the variant with its file made (path, hash, size, inputs and outputs set); a second build does no work.

    What the card's own files need (fetching, converting, preparing) is done first. Raises ModelError when the card's
    own files or data are not usable, and FailedError, naming the tool and the operation where it says one, when
    something cannot be fetched or a converter fails.
    """
    if _is_source(card, variant):
        return _own(card, variant, own_file(card, variant.format, progress))
    if variant.format not in CONVERTED:
        raise ModelError(f"{variant.variant} of {card.model} cannot be made: there is no converter to {variant.format}")
    source = _source_of(card, variant)
    _need_tools(card, variant)
    folder = cache_folder("variants") / _key(card, variant)
    found = _load(folder, variant)
    if found is not None and sha256_of_files(_files(found)) == found.sha256:
        return found
    path = Path(build(card, source, progress=progress).path or "")
    if progress is not None:
        progress(f"making {variant.variant} of {card.model}")
    return _make(card, variant, path, folder, progress)


def pick_recipe(device: Device, variants: Sequence[Variant]) -> list[Variant]:
    """Return one variant for each format and precision: the recipe that suits the device's CPU.

    ``reduced`` (weights of 7 bits) on x86 without VNNI, where the 8-bit multiply-add saturates at 16 bits and costs
    up to 9 points of accuracy; the plain one where VNNI, AMX or ARM make that needless.
    """
    wanted = REDUCED if saturates(device) else None
    kept: dict[tuple[str, str, str], Variant] = {}
    for variant in variants:
        key = (variant.model, variant.format, variant.precision)
        if key not in kept or variant.recipe == wanted:
            kept[key] = variant
    return list(kept.values())


def for_delegate(variant: Variant, delegate: str, variants: Sequence[Variant]) -> Variant | None:
    """Return the variant that a delegate takes in the place of ``variant``; None where there is none.

    ``cpu:portable`` of ExecuTorch takes a program that is lowered for no back end, every other delegate any.
    """
    if delegate != "cpu:portable" or variant.recipe == PORTABLE:
        return variant
    same = (variant.format, variant.precision, PORTABLE)
    return next((one for one in variants if (one.format, one.precision, one.recipe) == same), None)


def saturates(device: Device) -> bool:
    """Say whether the device's CPU multiplies bytes with an instruction that saturates (x86 without VNNI or AMX)."""
    features = {feature.lower() for feature in device.cpu_features}
    return (device.abi or "").lower() in _X86 and not features.intersection(_DOT_PRODUCTS)


def _is_source(card: Card, variant: Variant) -> bool:
    """Say whether the variant is a file of the card itself."""
    source = card.files.get(variant.format)  # type: ignore[call-overload]
    return source is not None and variant.precision == source.precision and variant.recipe is None


def _recipes(card: Card, form: str, precision: str) -> tuple[str | None, ...]:
    """Return the recipes that a precision of a format comes in, the plain one first."""
    if precision == "int8" and _saturating(card, form):
        return None, REDUCED
    return (None, PORTABLE) if (form, precision) == ("executorch", "fp32") else (None,)


def _saturating(card: Card, form: str) -> bool:
    """Say whether int8 of a format comes in two recipes: ONNX, and OpenVINO where it is made from that."""
    return form in _SATURATING and "onnx" in card.files


def _made_from(card: Card, form: str) -> str:
    """Return the format that files of another one are made from: the first of which the card has a file."""
    known = MADE_FROM.get(form, (form,))
    return next((item for item in known if item in card.files), known[0])


def _source_of(card: Card, variant: Variant) -> Variant:
    """Return what a variant is made from: the fp32 file of its format, for OpenVINO's int8 the int8 one.

    Where the card's own file is fp16, fp32 is made from that, and everything else from fp32.
    """
    form = _made_from(card, variant.format)
    if variant.format == "openvino" and variant.precision == "int8":
        name = variant.variant.replace("openvino", form, 1)
        return replace(variant, variant=name, format=form)
    source = card.files.get(form)  # type: ignore[call-overload]
    precision = "fp32"
    if source is not None and source.precision != "fp32" and (variant.format, variant.precision) == (form, "fp32"):
        precision = source.precision
    return Variant(card.model, f"{form}-{precision}", form, precision)


def _key(card: Card, variant: Variant) -> str:
    """Return the name of the variant in the cache: everything that decides its bytes, hashed. Raises ModelError."""
    source = _source_of(card, variant)
    inputs: dict[str, Any] = {
        "source": decides(card, source.format) if _is_source(card, source) else _key(card, source),
        "variant": variant.variant,
        "version": VERSION,
        "tools": {name: version_of(name) for name in TOOLS[variant.format]},
    }
    if _calibrated(variant):
        from socbench.models.data import fingerprint

        inputs["calibration"] = fingerprint(card, "calibration")
        if variant.format == "onnx" and card.quantise.op_types:
            inputs["op_types"] = list(card.quantise.op_types)
    return digest_of(inputs)[:40]


def _calibrated(variant: Variant) -> bool:
    """Say whether making the variant takes calibration data (OpenVINO's int8 takes over that of its source)."""
    return variant.precision == "int8" and variant.format in ("onnx", "tflite", "executorch")


def _need_tools(card: Card, variant: Variant) -> None:
    missing = {name: how for name in TOOLS[variant.format] if (how := tool_missing(name)) is not None}
    if missing:
        raise EnvironmentsError(
            f"{variant.variant} of {card.model} cannot be made: {' and '.join(missing)} not installed; "
            f"install what converters need with: {' and '.join(dict.fromkeys(missing.values()))}"
        )


def _if_built(card: Card, variant: Variant) -> Variant:
    """Return the variant with what is known of its file without making it."""
    try:
        if _is_source(card, variant):
            there = own_file_there(card, variant.format)
            return variant if there is None else _own(card, variant, there)
        if variant.format not in CONVERTED or _made_from(card, variant.format) not in card.files:
            return variant
        return _load(cache_folder("variants") / _key(card, variant), variant) or variant
    except (ModelError, FailedError):  # it is not built, and build() says why it cannot be
        return variant


def _own(card: Card, variant: Variant, path: Path) -> Variant:
    """Return a file of the card itself as a variant; what it says of itself is kept, so that it is read only once.

    Raises ModelError when a file in the card's folder is not the one that the card means.
    """
    source = card.files[variant.format]  # type: ignore[index]
    if path == card.folder / source.path and digest(path) != source.sha256:
        raise ModelError(f"{card.model}: {path} is not the file that its card means")
    key = digest_of([digest(path), str(path), variant.variant, msgspec.to_builtins(card.inputs), VERSION])[:40]
    kept = cache_folder("facts") / f"{key}.json"
    try:
        found = msgspec.json.decode(kept.read_bytes(), type=Variant)
        if all(item.is_file() for item in _files(found)):
            return found
    except (OSError, msgspec.MsgspecError):
        pass
    made = _described(card, replace(variant, path=str(path)))
    work = kept.with_name(f".{key}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        work.write_bytes(msgspec.json.encode(made))
        work.replace(kept)
    except OSError as problem:
        raise FailedError(
            f"the cache {kept.parent} cannot be written: {problem.strerror}; make room there"
        ) from problem
    return made


def _described(card: Card, variant: Variant) -> Variant:
    """Return the variant with the facts of its file. Raises FailedError when the file is of another precision."""
    facts = inspect_file(Path(variant.path or ""))
    if facts.precision != variant.precision:
        raise FailedError(
            f"{variant.variant} of {card.model} came out as {facts.precision}: the tensors of {variant.path} are not "
            f"{variant.precision}, so nothing is called that"
        )
    from socbench.models.inputs import with_layouts

    files = [Path(variant.path or ""), *map(Path, facts.companions)]
    return replace(
        variant,
        companions=facts.companions,
        size_bytes=facts.size_bytes,
        sha256=sha256_of_files(files),
        inputs=with_layouts(card, facts.inputs),
        outputs=facts.outputs,
    )


def _make(card: Card, variant: Variant, source: Path, folder: Path, progress: Progress | None) -> Variant:
    """Run the converter in a child process and put what it made into the cache under one rename."""
    what = f"making {variant.variant} of {card.model}"
    work = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        work.mkdir()
        name = f"{card.model}-{variant.variant}{ENDINGS[variant.format]}"
        arguments: dict[str, Any] = {
            "source": str(source),
            "target": str(work / name),
            "precision": variant.precision,
            "recipe": variant.recipe,
        }
        with tempfile.TemporaryDirectory() as scratch:
            if _calibrated(variant):
                arguments |= _calibration_file(card, variant, source, Path(scratch), progress)
                if variant.format == "onnx" and card.quantise.op_types:
                    arguments["op_types"] = list(card.quantise.op_types)
            child.call(variant.format, arguments, what=what)
        made = _described(card, replace(variant, path=str(work / name)))
        made = replace(
            made,
            path=str(folder / name),
            companions=tuple(str(folder / Path(item).name) for item in made.companions),
        )
        (work / "variant.json").write_bytes(msgspec.json.encode(made))
        if folder.exists():  # damaged, or another process was quicker with the same bytes
            shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as problem:
        raise FailedError(f"{what} failed: {problem.strerror} ({problem.filename})") from problem
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return made


def _calibration_file(
    card: Card, variant: Variant, source: Path, folder: Path, progress: Progress | None
) -> dict[str, str]:
    """Write the calibration data in the layout of the source file. Raises ModelError when the card names none."""
    import numpy as np

    from socbench.models.data import calibration
    from socbench.models.inputs import arranged, with_layouts

    data = calibration(card)
    if data is None or data.count == 0:
        raise ModelError(f"{variant.variant} of {card.model} needs calibration data, and its card names none")
    if len(card.inputs) != 1:
        raise ModelError(f"{variant.variant} of {card.model} cannot be calibrated: it has {len(card.inputs)} inputs")
    if progress is not None and data.told_skipped is not None:
        progress(f"calibration data {data.told_skipped}")
    (spec,) = with_layouts(card, inspect_file(source).inputs)[:1]
    path = folder / "calibration.npy"
    np.save(path, np.ascontiguousarray(arranged(data.inputs, card.inputs[0], spec)), allow_pickle=False)
    return {"calibration": str(path), "input": spec.name}


def _load(folder: Path, variant: Variant) -> Variant | None:
    """Return the variant that lies in the cache, ``None`` when it does not or is not whole."""
    try:
        found = msgspec.json.decode((folder / "variant.json").read_bytes(), type=Variant)
        # The cache may have been moved since: its files lie beside this one.
        found = replace(
            found,
            path=str(folder / Path(found.path or "").name),
            companions=tuple(str(folder / Path(item).name) for item in found.companions),
        )
        sizes = sum(path.stat().st_size for path in _files(found))
    except (OSError, msgspec.MsgspecError):
        return None
    same = sizes == found.size_bytes and found.variant == variant.variant
    return replace(found, model=variant.model) if same else None


def _files(variant: Variant) -> list[Path]:
    return [Path(variant.path or ""), *map(Path, variant.companions)]
