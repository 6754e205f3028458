"""Loads stored outputs and has them judged: fidelity to the reference, accuracy on the data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from socbench.analysis import accuracy as metrics
from socbench.analysis import fidelity
from socbench.records import Fidelity, Json
from socbench.store.output_bytes import OutputBytes
from socbench.store.reader import Database

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Tensor = npt.NDArray[np.float64]

_SHA256_LENGTH = 64


class Outputs:
    """The outputs of one session. What was not fetched or does not fit its type counts as not known."""

    def __init__(self, database: Database, session: str, document: Json) -> None:
        self._bytes = OutputBytes(database, session)
        self._document = document
        self._groups: dict[tuple[str, int, str], list[Json]] = {}
        self._compared: dict[Any, Fidelity | None] = {}
        self._references: dict[str, tuple[list[str], list[Tensor], int] | None] = {}
        query = (
            'SELECT trial, repetition, stage, "index", name, dtype, shape, count, sha256 FROM outputs '
            'WHERE session = ? ORDER BY trial, repetition, stage, "index"'
        )
        for row in database.rows(query, [session]):
            self._groups.setdefault((row["trial"], row["repetition"], row["stage"]), []).append(row)

    def fidelity_of(self, trial: Json, repetitions: Mapping[int, Json]) -> Fidelity | None:
        """Return the worst fidelity over the finished repetitions, both before and after measuring."""
        reference = self._reference_id(trial)
        if reference is None:
            return None
        card = self._document.get("models", {}).get(trial["model"]) or {}
        tolerance = (card.get("tolerance") or {}).get(trial["precision"])
        found = []
        for (name, repetition, stage), tensors in self._groups.items():
            if name == trial["trial"] and stage in ("before", "after") and repetition in repetitions:
                specs = _specs(repetitions[repetition].get("outputs"))
                one = self._compare(tensors, specs, reference, tolerance, trial["model"])
                if one is not None:
                    found.append(one)
        return fidelity.worst(found)

    def accuracy_of(self, trial: Json, repetitions: Mapping[int, Json]) -> metrics.Accuracy | None:
        """Return the accuracy of a trial of the scenario ``accuracy``; ``None`` where it cannot be told."""
        truth = self._document.get("truth", {}).get(trial["model"])
        if not truth:
            return None
        for number in sorted(repetitions):
            tensors = self._groups.get((trial["trial"], number, "dataset"))
            if tensors:
                loaded = self._load(tensors, _specs(repetitions[number].get("outputs")), self._declared(trial["model"]))
                try:
                    return None if loaded is None else metrics.accuracy(loaded, truth, self._targets(trial, truth))
                except ValueError:
                    return None
        return None

    def _targets(self, trial: Json, truth: Json) -> Any:
        """Return the pictures or masks of the truth ``(count, *shape)``, ``None`` where it has none."""
        rows = self._groups.get((f"truth:{trial['model']}", 0, "reference"))
        values = self._load(rows, []) if rows else None
        if not rows or values is None:
            return None
        return values[0].reshape(-1, *(rows[0]["shape"] or ()))

    def _reference_id(self, trial: Json) -> str | None:
        named = trial.get("fidelity_to") or "reference"
        guesses = [named]
        if not named.startswith("reference:"):
            guesses = [f"reference:{trial['model']}", f"reference:{trial.get('model_sha256')}"]
        return next((guess for guess in guesses if (guess, 0, "reference") in self._groups), None)

    def _compare(
        self,
        tensors: list[Json],
        specs: list[Json],
        reference: str,
        tolerance: Mapping[str, float] | None,
        model: str,
    ) -> Fidelity | None:
        key = (tuple(tensor["sha256"] for tensor in tensors), json.dumps(specs), reference, json.dumps(tolerance))
        if key not in self._compared:
            self._compared[key] = self._compare_now(tensors, specs, reference, tolerance, model)
        return self._compared[key]

    def _compare_now(
        self,
        tensors: list[Json],
        specs: list[Json],
        reference: str,
        tolerance: Mapping[str, float] | None,
        model: str,
    ) -> Fidelity | None:
        if reference not in self._references:
            rows = self._groups[(reference, 0, "reference")]
            values = self._load(rows, [])
            names = [row["name"] for row in rows]
            self._references[reference] = None if values is None else (names, values, rows[0]["count"])
        expected = self._references[reference]
        measured = self._load(tensors, specs, self._declared(model))
        if expected is None or measured is None:
            return None
        names, values, _ = expected
        by_name = {tensor["name"]: value for tensor, value in zip(tensors, measured, strict=True)}
        if len(by_name) == len(names) and set(by_name) == set(names):
            measured = [by_name[name] for name in names]
        suffix = reference.removeprefix("reference:").split(":")[0]
        named = "self" if len(suffix) == _SHA256_LENGTH else "reference"
        return fidelity.compare_outputs(measured, values, tensors[0]["count"] or 1, tolerance, named)

    def _declared(self, model: str) -> list[Json]:
        """Return the outputs that the model's card declares."""
        outputs = (self._document.get("models", {}).get(model) or {}).get("outputs")
        return [item for item in outputs if isinstance(item, dict)] if isinstance(outputs, list) else []

    def _load(self, tensors: list[Json], specs: list[Json], declared: Sequence[Json] = ()) -> list[Tensor] | None:
        """Return output tensors as real numbers; ``None`` when the bytes of one are not there or do not fit.

        One that has its channels last where its card has them first is turned round.
        """
        loaded = []
        for place, tensor in enumerate(tensors):
            spec = next((one for one in specs if one.get("name") == tensor["name"]), None)
            spec = spec if spec is not None else specs[place] if place < len(specs) else {}
            if spec.get("dtype") not in (None, tensor["dtype"]):
                spec = {}  # reduced on the device (indices): no longer what the file's output is
            data = self._bytes.get(tensor["sha256"])
            if data is None:
                return None
            scale, zero_point = spec.get("scale"), spec.get("zero_point")
            numbers = isinstance(scale, int | float) and not isinstance(scale, bool)
            try:
                values = fidelity.real_values(
                    data,
                    str(tensor["dtype"]),
                    float(scale) if numbers and scale else None,
                    zero_point if isinstance(zero_point, int) else None,
                )
                card = next((one for one in declared if one.get("name") == tensor["name"]), None)
                card = card or (declared[place] if place < len(declared) else {})
                loaded.append(_channels_first(values, tensor["shape"], card))
            except ValueError:
                return None
        return loaded


def _channels_first(values: Tensor, shape: Sequence[int] | None, declared: Json) -> Tensor:
    """Return elements of outputs of ``shape`` in the card's order; unchanged where it is that, or another thing."""
    wanted, given = declared.get("shape"), list(shape or ())
    if declared.get("layout") != "NCHW" or not isinstance(wanted, list) or len(given) != 4 or len(wanted) != 4:
        return values
    if given[1:] == wanted[1:] or given[1:] != [*wanted[2:], wanted[1]] or 0 in given:
        return values
    turned: Tensor = values.reshape(-1, *given[1:]).transpose(0, 3, 1, 2).ravel()
    return turned


def _specs(text: str | None) -> list[Json]:
    """Return the output specifications of a repetition (device's words, so anything may be in there)."""
    value = json.loads(text) if text else []
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []
