"""Reference outputs: computed once on the host in a process of its own, cached by hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socbench.models.cards import Card


def reference_outputs(
    card: Card, *, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return ``{name: float32 (count, *shape)}``: the card's reference file on its probe inputs.

    Computed once by the card's reference runtime and cached. Raises ModelError, FailedError.
    """
    raise NotImplementedError


def self_reference(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Return ``{name: (1, *shape)}``: a user's file by its own format's plainest arithmetic, on the seeded inputs.

    .tflite: LiteRT's reference kernels; .onnx: ONNX Runtime with graph optimisation off; .xml: OpenVINO at f32 in its
    accuracy mode with one thread (no independent reference). Integer outputs are raw.
    """
    raise NotImplementedError
