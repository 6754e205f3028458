"""Reference outputs: computed once on the host in a process of its own, cached by hash."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from socbench.cache import cache_folder, digest_of, sha256_of_files
from socbench.errors import FailedError, ModelError
from socbench.models import child
from socbench.models.cards import Card
from socbench.models.inputs import (
    DEFAULT_SEED,
    InputData,
    dequantised,
    is_seeded,
    probe_inputs,
    seeded_inputs,
    to_reference,
)
from socbench.models.inspect import inspect_file
from socbench.models.variants import build
from socbench.records import Variant

VERSION = 1


def reference_outputs(
    card: Card, *, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None, seed: int = DEFAULT_SEED
) -> dict[str, Any]:
    """Return ``{name: float32 (count, *shape)}``: the card's reference file on its probe inputs.

    Computed once by the card's reference runtime, unoptimised, and cached. A batch is computed picture by picture: a
    reference must not depend on what else is in the batch. Nothing for scripts of the null
    runtime. Raises ModelError, FailedError.
    """
    wanted = card.reference
    if wanted.format == "null":
        return {}
    variant = build(card, Variant(card.model, f"{wanted.format}-{wanted.precision}", wanted.format, wanted.precision))
    path = Path(variant.path or "")
    seeded = is_seeded(card, shapes)
    if batch != 1 and seeded and not shapes:
        open_batch = tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in variant.inputs)
        arrays = _arrays(probe_inputs(card, replace(variant, inputs=open_batch), batch=batch, seed=seed))
        singles = {name: array.reshape(batch, 1, *array.shape[2:]) for name, array in arrays.items()}
        answers = to_reference(_computed(path, wanted.format, singles, card.model), variant, card)
        return {name: _with_batch(values).swapaxes(0, 1) for name, values in answers.items()}
    inputs = _arrays(probe_inputs(card, variant, shapes=shapes, seed=seed))
    answers = to_reference(_computed(path, wanted.format, inputs, card.model), variant, card)
    return {name: values if batch == 1 or shapes else _repeated(values, batch) for name, values in answers.items()}


def self_reference(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int = DEFAULT_SEED) -> dict[str, Any]:
    """Return ``{name: (1, *shape)}``: a user's file by its own format's plainest arithmetic, on the seeded inputs.

    .tflite: LiteRT's reference kernels; .onnx: ONNX Runtime with graph optimisation off; .xml: OpenVINO at f32 in its
    accuracy mode with one thread (no independent reference). Quantised outputs are given as the numbers they mean.
    Raises ModelError (a shape that does not fit, an operation that the runtime lacks) and FailedError.
    """
    facts = inspect_file(path)
    if facts.format == "null":
        return {}
    missing = [spec.name for spec in facts.inputs if spec.name not in shapes]
    if missing:
        raise ModelError(f"{path.name}: no shape is given for the input {missing[0]}")
    arrays = seeded_inputs(facts.inputs, seed, shapes)
    outputs = _computed(path, facts.format, {name: array[None] for name, array in arrays.items()}, path.name)
    specs = {spec.name: spec for spec in facts.outputs}
    return {name: dequantised(values, specs.get(name)) for name, values in outputs.items()}


def _arrays(inputs: list[InputData]) -> dict[str, Any]:
    import numpy as np

    return {item.name: np.frombuffer(item.data, item.dtype).reshape(item.count, *item.shape) for item in inputs}


def _with_batch(values: Any) -> Any:
    if values.ndim < 2 or values.shape[1] != 1:
        raise ModelError("this network's outputs have no batch dimension; measure it at a batch of 1")
    return values


def _repeated(values: Any, batch: int) -> Any:
    """Turn the answers to ``count`` pictures into those to ``count`` batches, as probe inputs repeat the pictures."""
    import numpy as np

    taken = _with_batch(values)[np.arange(len(values) * batch) % len(values), 0]
    return taken.reshape(len(values), batch, *values.shape[2:])


def _computed(path: Path, form: str, inputs: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the raw outputs of a file, from the cache when these inputs were computed before."""
    import numpy as np

    files = [path, *map(Path, inspect_file(path).companions)]
    key = digest_of(
        {
            "version": VERSION,
            "file": sha256_of_files(files),
            "inputs": {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in inputs.items()},
            "shapes": {name: list(array.shape) for name, array in inputs.items()},
        }
    )[:40]
    kept = cache_folder("references") / f"{key}.npz"
    found = _load(kept)
    if found is not None:
        return found
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, out = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
            np.savez(given, allow_pickle=False, **inputs)
            arguments = {"form": form, "path": str(path), "inputs": str(given), "out": str(out)}
            answer = child.call("run", arguments, what=f"computing the reference outputs of {model}")
            with np.load(out, allow_pickle=False) as stored:
                made = {name: stored[str(place)] for place, name in enumerate(answer["outputs"])}
    except OSError as problem:
        raise FailedError(f"the reference outputs of {model} cannot be written: {problem.strerror}") from problem
    _keep(kept, made)
    return made


def _load(path: Path) -> dict[str, Any] | None:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {str(name): stored[f"a{place}"] for place, name in enumerate(stored["names"])}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(path: Path, outputs: dict[str, Any]) -> None:
    import numpy as np

    work = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.npz")
    try:
        arrays = {f"a{place}": values for place, values in enumerate(outputs.values())}
        np.savez(work, allow_pickle=False, names=np.asarray(list(outputs)), **arrays)
        work.rename(path)
    except OSError as problem:
        raise FailedError(f"the reference outputs cannot be kept in {path.parent}: {problem.strerror}") from problem
    finally:
        work.unlink(missing_ok=True)
