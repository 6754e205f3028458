"""Inputs as a variant's file wants them (layout, dtype, quantisation), and outputs back as the reference has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from socbench.models.cards import Card
from socbench.models.data import Dataset
from socbench.records import TensorSpec, Variant


@dataclass(frozen=True)
class InputData:
    """``count`` inputs of one tensor one after the other: raw little-endian bytes, C order, each of ``shape``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    data: bytes


def resolve_shapes(
    card: Card, variant: Variant, *, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the whole shape of every input of the variant's file, from its own, ``--batch`` and ``--shape``.

    Raises ModelError naming the input and the dimension: left open and not given, or fixed and asked to be another.
    """
    raise NotImplementedError


def probe_inputs(
    card: Card,
    variant: Variant,
    count: int | None = None,
    *,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
) -> list[InputData]:
    """Return the inputs of the fidelity check for this file (``count`` of them, the card's own number by default)."""
    raise NotImplementedError


def dataset_inputs(card: Card, variant: Variant, dataset: Dataset) -> list[InputData]:
    """Return a whole data set as this file wants it (batch 1), for scenario ``accuracy``."""
    raise NotImplementedError


def seeded_inputs(inputs: tuple[TensorSpec, ...], seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return ``{name: ndarray}`` of the SplitMix64 inputs of docs/protocol.md, the same bytes as the agents make."""
    raise NotImplementedError


def to_reference(outputs: Mapping[str, Any], variant: Variant, card: Card) -> dict[str, Any]:
    """Return raw outputs ``{name: (count, *shape)}`` as float32 under the reference's names, order and layout."""
    raise NotImplementedError
