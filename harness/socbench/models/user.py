"""Models that are the user's own: a bare file, measured as it is; or a network added with ``models add``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from socbench.models.cards import Card
from socbench.records import Variant


def user_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[Card, Variant]:
    """Return a card made from the file (no data, no metric) and its one variant; nothing is converted.

    Raises ModelError: no model, or a dimension is open and ``shapes`` does not give it.
    """
    raise NotImplementedError


def add(path: Path, calibration: Path | None = None, *, name: str | None = None) -> Card:
    """Make a card of the user's fp32 file in the user's own models folder, so that its variants can be built.

    ``calibration`` is a folder of pictures, needed by int8. Raises ModelError.
    """
    raise NotImplementedError
