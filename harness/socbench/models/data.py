"""Labelled pictures and calibration data of a card, preprocessed as the card says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socbench.models.cards import Card


@dataclass(frozen=True)
class Dataset:
    """Inputs as the card has them, float32 ``(count, *shape)`` in its layout; labels int64 ``(count,)`` or ``None``.

    ``skipped`` names each picture that could not be read and why; ``sha256`` has a digest of each picture's own bytes.
    """

    name: str
    inputs: Any
    labels: Any
    skipped: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self.inputs)


def evaluation(card: Card) -> Dataset | None:
    """Return the labelled data of the card, ``None`` where it names none. Raises ModelError, FailedError (fetching)."""
    raise NotImplementedError


def calibration(card: Card) -> Dataset | None:
    """Return the calibration data of the card, ``None`` where it names none."""
    raise NotImplementedError
