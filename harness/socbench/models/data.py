"""Labelled data and calibration data of a card, preprocessed as the card says."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from socbench.cache import digest_of, sha256_of_file
from socbench.errors import ModelError
from socbench.models.cards import Card, DataSource, Input

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
IDX_LIMIT_BYTES = 256 * 1024 * 1024
Part = Literal["evaluation", "calibration"]


@dataclass(frozen=True)
class Dataset:
    """Inputs as the card has them, float32 ``(count, *shape)`` in its layout; labels int64 ``(count,)`` or ``None``.

    ``more``: the arrays of the card's further inputs. ``truth``: what metrics other than class labels compare with, as
    JSON (``texts``, ``pairs``, ``boxes``); ``targets``: uint8 pictures or masks ``(count, *shape)``. ``skipped`` names
    each item that could not be read and why; ``sha256`` has a digest of each item's own bytes.
    """

    name: str
    inputs: Any
    labels: Any = None
    skipped: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    more: tuple[Any, ...] = ()
    truth: dict[str, Any] = field(default_factory=dict)
    targets: Any = None

    @property
    def count(self) -> int:
        """How many items there are."""
        return len(self.inputs)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The arrays of all inputs, in the card's order."""
        return (self.inputs, *self.more)

    @property
    def has_truth(self) -> bool:
        """Whether there is anything to compare answers with."""
        return self.labels is not None or self.targets is not None or bool(self.truth)

    @property
    def told_skipped(self) -> str | None:
        """The items that could not be read, counted and the first three named; ``None`` where all could be."""
        if not self.skipped:
            return None
        named = "; ".join(self.skipped[:3]) + (" ..." if len(self.skipped) > 3 else "")
        return f"{self.name}: {len(self.skipped)} of {self.count + len(self.skipped)} were left out ({named})"


def evaluation(card: Card) -> Dataset | None:
    """Return the labelled data of the card, ``None`` where it names none.

    Raises ModelError (not as the card says, a label is missing) and FailedError (a package cannot be fetched).
    """
    data = _load(card, "evaluation")
    if data is not None and not data.has_truth:
        raise ModelError(f"the evaluation data of {card.model} ({data.name}) have no labels, so there is no accuracy")
    return data


def calibration(card: Card) -> Dataset | None:
    """Return the calibration data of the card, ``None`` where it names none; raises as ``evaluation`` does."""
    return _load(card, "calibration")


def fingerprint(card: Card, part: Part) -> str | None:
    """Return a digest of what decides the tensors of a data set, without decoding one picture.

    Raises ModelError when files that it needs are not there.
    """
    source: DataSource | None = getattr(card.data, part)
    if source is None:
        return None
    files: list[str | None]
    if source.package is not None:
        files = [source.sha256]
    elif source.kind == "idx":
        files = [sha256_of_file(_file(card, name)) for name in (source.images, source.labels) if name]
    elif source.kind in ("text_lines", "tones"):
        files = [f"{source.kind} of {source.seed}"]
    elif source.kind in ("coco", "masks"):
        files = [sha256_of_file(path) for path in sorted(_file(card, source.images or "").iterdir()) if path.is_file()]
    else:
        files = [sha256_of_file(path) for path, _ in _listed(card, source)]
    wanted = [msgspec.to_builtins(item) for item in (source, card.inputs[0])]
    for name in ("name", "note", "licence"):
        wanted[0].pop(name, None)
    return digest_of({"files": files, "wanted": wanted})


def _load(card: Card, part: Part) -> Dataset | None:
    source: DataSource | None = getattr(card.data, part)
    if source is None:
        return None
    name = source.name or source.package or Path(source.path or source.images or part).name
    if source.kind == "idx":
        return _idx(card, source, name)
    if source.kind in ("pypi_pictures", "packaged_pictures"):
        if source.downscaled is not None:
            from socbench.models.data_pairs import downscaled

            return downscaled(card, source, name, _packaged(source))
        return _decoded(card, name, _packaged(source))
    if source.kind in ("imagenet_folder", "csv"):
        stop = None if source.count is None else source.first + source.count
        listed = islice(_listed(card, source), source.first, stop)
        return _decoded(card, name, ((str(path), path.read_bytes(), label) for path, label in listed))
    return _other(card, source, name)


def _other(card: Card, source: DataSource, name: str) -> Dataset:
    """Load a data set that is no list of labelled pictures."""
    from socbench.models import data_made, data_pairs, data_text

    if source.kind == "text_lines":
        return data_made.text_lines(card, source, name)
    if source.kind == "tones":
        return data_made.tones(card, source, name)
    if source.kind == "word_pairs":
        return data_text.word_pairs(card, source, name)
    if source.kind == "packaged_files":
        return data_text.packaged_files(card, source, name)
    root = _file(card, source.images or "")
    if source.kind == "coco":
        return data_pairs.coco(card, source, name, root, _file(card, source.path or ""))
    return data_pairs.masks(card, source, name, root, _file(card, source.labels or ""))


def _decoded(card: Card, name: str, pictures: Iterator[tuple[str, bytes, int | None]]) -> Dataset:
    """Decode pictures one by one; what cannot be read is named and counted, not fatal."""
    import numpy as np

    from socbench.models.pictures import UnreadablePicture, tensor_of

    tensors, labels, skipped, digests = [], [], [], []
    for place, data, label in pictures:
        try:
            tensors.append(tensor_of(data, place, card.inputs[0]))
        except UnreadablePicture as problem:
            skipped.append(str(problem))
            continue
        labels.append(label)
        digests.append(hashlib.sha256(data).hexdigest())
    if not tensors:
        raise ModelError(f"the data of {card.model} ({name}) hold no picture that can be read")
    known = [label for label in labels if label is not None]
    return Dataset(
        name,
        np.stack(tensors),
        np.asarray(known, np.int64) if len(known) == len(labels) else None,
        tuple(skipped),
        tuple(digests),
    )


def _packaged(source: DataSource) -> Iterator[tuple[str, bytes, int | None]]:
    from socbench.models.packages import archive_of, members

    archive = archive_of(source.package or "", source.sha256 or "", source.built_for)
    stop = None if source.count is None else source.first + source.count
    for name, match, data in islice(members(archive, source.pattern or ""), source.first, stop):
        label = match.groupdict().get("label")
        if label is not None and not label.isdecimal():
            raise ModelError(f"{name} of {source.package}: its label {label!r} is no class number")
        yield name, data, None if label is None else int(label)


def _file(card: Card, name: str) -> Path:
    path = card.folder / Path(name).expanduser()
    if not path.exists():
        raise ModelError(f"the data of {card.model} are not there: {path}")
    return path


def _listed(card: Card, source: DataSource) -> Iterator[tuple[Path, int | None]]:
    """Yield each picture with its class, by its folder or the CSV; ``None`` in a folder without classes."""
    root = _file(card, source.path or "")
    if source.kind == "csv":
        yield from _csv(root)
        return
    folders = sorted(item for item in root.iterdir() if item.is_dir())
    for index, folder in enumerate(folders):
        yield from ((path, index) for path in _pictures(folder))
    if not folders:
        yield from ((path, None) for path in _pictures(root))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS)


def _csv(table: Path) -> Iterator[tuple[Path, int]]:
    """Read ``file`` and ``class_index`` (or ``label``) of each line; files are relative to the table."""
    with table.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        column = next((name for name in ("class_index", "label", "class") if name in (reader.fieldnames or ())), None)
        if "file" not in (reader.fieldnames or ()) or column is None:
            raise ModelError(f"{table} needs the columns file and class_index (or label)")
        for number, row in enumerate(reader, start=2):
            label = (row[column] or "").strip()
            path = table.parent / (row["file"] or "")
            if not label.isdecimal():
                raise ModelError(f"{table}, line {number}: {row['file']} has no label (a class number)")
            if not path.is_file():
                raise ModelError(f"{table}, line {number}: there is no file {path}")
            yield path, int(label)


def _idx(card: Card, source: DataSource, name: str) -> Dataset:
    """Read a pair of IDX files: http://yann.lecun.com/exdb/mnist/ (big-endian, type and rank come first)."""
    import numpy as np

    from socbench.models.pictures import normalised

    images = _idx_array(_file(card, source.images or ""))
    labels = _idx_array(_file(card, source.labels or "")).astype(np.int64)
    if len(images) != len(labels):
        raise ModelError(f"the data of {card.model} ({name}) have {len(images)} pictures and {len(labels)} labels")
    stop = len(images) if source.count is None else source.first + source.count
    if stop > len(images) or source.first >= stop:
        raise ModelError(
            f"the data of {card.model} ({name}) have {len(images)} pictures; the card asks for {source.first} to {stop}"
        )
    images, labels = images[source.first : stop], labels[source.first : stop]
    digests = tuple(hashlib.sha256(picture.tobytes()).hexdigest() for picture in images)
    wanted: Input = card.inputs[0]
    return Dataset(name, normalised(images, name, wanted), labels, (), digests)


def _idx_array(path: Path) -> Any:
    """Return the uint8 array of an IDX file, gzipped or not. Raises ModelError: cut off, or no such file."""
    import numpy as np

    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                raw = stream.read(IDX_LIMIT_BYTES)
    except (EOFError, zlib.error, OSError) as problem:
        raise ModelError(f"{path} cannot be read ({problem})") from problem
    if len(raw) < 8 or raw[:3] != b"\x00\x00\x08":
        raise ModelError(f"{path} is no IDX file of bytes")
    dimensions = raw[3]
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    body = raw[4 + 4 * dimensions :]
    if len(body) != int(np.prod(shape, dtype=np.int64)):
        raise ModelError(f"{path} says that it holds {shape}, and has {len(body)} bytes")
    return np.frombuffer(body, np.uint8).reshape(shape)
