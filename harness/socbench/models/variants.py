"""The files of a model: which there are, and making those that are missing, content-addressed in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from socbench.models.cards import Card
from socbench.records import Device, Variant

Progress = Callable[[str], None]
"""Told one sentence at the start of every step that takes time."""


def variants_of(card: Card) -> list[Variant]:
    """Return the variants that the card declares, in its order; ``path`` is ``None`` for what is not built yet.

    An int8 variant whose arithmetic saturates on x86 without VNNI comes twice: ``onnx-int8`` and ``onnx-int8-reduced``.
    Light: hashes, no imports of converters.
    """
    raise NotImplementedError


def build(card: Card, variant: Variant, *, progress: Progress | None = None) -> Variant:
    """Return the variant with its file made (path, hash, size, inputs and outputs set); a second build does no work.

    Raises ModelError when the card's own files or data are not usable, and FailedError, naming the tool and the
    operation where it says one, when a converter fails.
    """
    raise NotImplementedError


def pick_recipe(device: Device, variants: Sequence[Variant]) -> list[Variant]:
    """Return one variant for each format and precision: the recipe that suits the device's CPU.

    ``reduced`` (weights of 7 bits) on x86 without VNNI, where the 8-bit multiply-add saturates at 16 bits and costs
    up to 9 points of accuracy; the plain one where VNNI, AMX or ARM make that needless.
    """
    raise NotImplementedError
