"""What a network costs by its own numbers: parameters, multiply-adds, bytes, operations by type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socbench.models.inspect import inspect_file


@dataclass(frozen=True)
class ModelFacts:
    """``multiply_adds`` an inference at batch 1 (convolutions and matrix products), ``None`` where a shape is open."""

    parameters: int
    multiply_adds: int | None
    size_bytes: int
    ops: dict[str, int]


def model_facts(path: Path) -> ModelFacts:
    """Return the facts of a model file, operations most frequent first. Raises ModelError as ``inspect_file`` does."""
    facts = inspect_file(path)
    return ModelFacts(facts.parameters, facts.multiply_adds, facts.size_bytes, dict(facts.ops.most_common()))
