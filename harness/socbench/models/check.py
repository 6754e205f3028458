"""Looks for what is wrong with a card beyond its fields: files, hashes, shapes, licence, data that overlap."""

from __future__ import annotations

from collections.abc import Iterator

from socbench.cache import cache_folder, sha256_of_file
from socbench.content import content
from socbench.errors import FailedError, ModelError
from socbench.models.cards import Card, DataSource, SourceFile, load_card, model_names, nearest
from socbench.models.data import Dataset, calibration, evaluation
from socbench.models.inputs import with_layouts
from socbench.models.inspect import inspect_file


def problems_of(name: str, *, fetch: bool) -> list[str]:
    """Return the problems of a card; see ``cards.check_card``."""
    if name not in model_names():
        hint = nearest(name, model_names())
        raise ModelError(f"there is no model {name!r}" + (f"; did you mean {hint}?" if hint else ""))
    try:
        card = load_card(name)
    except ModelError as problem:
        return [str(problem)]
    return [*_files(card), *_texts(card), *_licence(card), *_data(card, fetch)]


def _files(card: Card) -> Iterator[str]:
    if not card.files:
        yield f"{card.model}: files is empty, so no variant can be made"
    for form, source in card.files.items():
        path = card.folder / source.path
        if not path.is_file() and _comes_from_elsewhere(card, source):
            continue
        if not path.is_file():
            yield f"{card.model}: files.{form}: {source.path} is not there"
            continue
        digest = sha256_of_file(path)
        if digest != source.sha256:
            yield f"{card.model}: files.{form}: sha256 of {source.path} is {digest}, the card says {source.sha256}"
        if source.size_bytes is not None and path.stat().st_size != source.size_bytes:
            yield f"{card.model}: files.{form}: {source.path} has {path.stat().st_size} bytes, not {source.size_bytes}"
        try:
            facts = inspect_file(path)
            with_layouts(card, facts.inputs)
        except ModelError as problem:
            yield str(problem)
            continue
        if facts.precision != source.precision:
            yield f"{card.model}: files.{form}: {source.path} is {facts.precision}, the card says {source.precision}"
        for kind, declared, found in (("inputs", card.inputs, facts.inputs), ("outputs", card.outputs, facts.outputs)):
            if len(declared) != len(found):
                yield f"{card.model}: {kind}: the card has {len(declared)}, {source.path} has {len(found)}"
    if card.reference.format not in card.files:
        yield f"{card.model}: reference.format is {card.reference.format}, and files has no such file"


def _comes_from_elsewhere(card: Card, source: SourceFile) -> bool:
    """Say whether a file that is not in the folder is fetched or made by the card's recipe."""
    made = card.recipe is not None and card.source is not None and card.source.package is not None
    return source.source is not None or made


def _texts(card: Card) -> Iterator[str]:
    """Check the files that the card names beside the weights, and that there is a label for every class."""
    names = [output.labels for output in card.outputs if output.labels]
    for name in [*names, *([card.recipe] if card.recipe else [])]:
        if not (card.folder / name).is_file():
            yield f"{card.model}: {name} is not there"
    for output in card.outputs:
        path = card.folder / (output.labels or "")
        if output.labels and path.is_file():
            count = len(path.read_text(encoding="utf-8").splitlines())
            classes = output.shape[-1] if output.shape else None
            if output.meaning == "class_logits" and isinstance(classes, int) and count != classes:
                yield f"{card.model}: {output.labels} has {count} lines for {output.shape[-1]} classes"


def _licence(card: Card) -> Iterator[str]:
    shipped = card.folder.is_relative_to(content("models"))
    for form, source in card.files.items():
        if shipped and not card.licence.redistribute and (card.folder / source.path).is_file():
            yield (
                f"{card.model}: licence.redistribute is false, so {source.path} (files.{form}) must not lie in the "
                "repository; fetch it instead"
            )


def _data(card: Card, fetch: bool) -> Iterator[str]:
    try:
        parts = [
            _loaded(card, "evaluation", card.data.evaluation, fetch),
            _loaded(card, "calibration", card.data.calibration, fetch),
        ]
    except (ModelError, FailedError) as problem:
        yield str(problem)
        return
    for part in (part for part in parts if part is not None):
        yield from (f"{card.model}: data {part.name}: {skipped}" for skipped in part.skipped)
    tested, measured = parts
    if tested is not None and measured is not None:
        common = set(tested.sha256) & set(measured.sha256)
        if common:
            yield (
                f"{card.model}: {len(common)} calibration pictures are also evaluation pictures; the accuracy of int8 "
                "would be too good"
            )


def _loaded(card: Card, part: str, source: DataSource | None, fetch: bool) -> Dataset | None:
    """Load a data set; packaged ones that are not in the cache only when asked."""
    if source is None:
        return None
    if source.package is not None and not fetch and not (cache_folder("packages") / (source.sha256 or "-")).is_dir():
        return None
    return evaluation(card) if part == "evaluation" else calibration(card)
