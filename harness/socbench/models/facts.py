"""What a network costs by its own numbers: parameters, multiply-adds, bytes, operations by type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelFacts:
    """``multiply_adds`` an inference at batch 1 (convolutions and matrix products), ``None`` where a shape is open."""

    parameters: int
    multiply_adds: int | None
    size_bytes: int
    ops: dict[str, int]


def model_facts(path: Path) -> ModelFacts:
    """Return the facts of a model file. Raises ModelError as ``inspect_file`` does."""
    raise NotImplementedError
