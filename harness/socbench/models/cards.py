"""Model cards: ``models/NAME/card.yaml`` read into frozen structs, every field checked by name and type."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_args

import msgspec
import msgspec.inspect

from socbench.content import content
from socbench.errors import ModelError
from socbench.models.card_fields import (
    Data,
    DataSource,
    Format,
    Input,
    Licence,
    Metric,
    Output,
    Part,
    Precision,
    Prepare,
    Preprocess,
    Probe,
    Quantise,
    Reference,
    Source,
    SourceFile,
    Tolerance,
)
from socbench.records import PRECISIONS

FORMATS: tuple[str, ...] = get_args(Format)
__all__ = [
    "CARD_LIMIT_BYTES",
    "FORMATS",
    "Card",
    "Data",
    "DataSource",
    "Format",
    "Input",
    "Licence",
    "Metric",
    "Output",
    "Precision",
    "Prepare",
    "Preprocess",
    "Probe",
    "Quantise",
    "Reference",
    "Source",
    "SourceFile",
    "Tolerance",
    "all_cards",
    "check_card",
    "load_card",
    "model_names",
    "nearest",
    "parse_card",
    "parse_yaml",
    "user_models_folder",
]
CARD_LIMIT_BYTES = 256 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_T = TypeVar("_T")


class Card(Part, frozen=True):
    """One model as its card says; see docs/add-a-model.md for every field."""

    model: str
    title: str
    task: str
    licence: Licence
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    tolerance: dict[Precision, Tolerance]
    variants: dict[Format, tuple[Precision, ...]]
    metric: str | Metric | None = None
    description: str | None = None
    source: Source | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    left_out: dict[Format, dict[Precision, str]] = msgspec.field(default_factory=dict)
    quantise: Quantise = Quantise()
    recipe: str | None = None
    files: dict[Format, SourceFile] = msgspec.field(default_factory=dict)
    data: Data = Data()
    probe: Probe = Probe()
    reference: Reference = Reference()

    @property
    def metric_name(self) -> str | None:
        """The name of its metric."""
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    @property
    def folder(self) -> Path:
        """The folder of the card: in the content folder ``models``, or among the models that the user added."""
        return next((root / self.model for root in _roots() if (root / self.model).is_dir()), _roots()[0] / self.model)


def model_names() -> list[str]:
    """Return the names of the models that have a card: shipped ones, then those that the user added."""
    names = {path.parent.name for root in _roots() if root.is_dir() for path in root.glob("*/card.yaml")}
    return sorted(names)


def load_card(name: str) -> Card:
    """Return the card of the model ``name``. Raises ModelError: unknown (with the nearest name), or a bad card."""
    places = [root / name / "card.yaml" for root in _roots()] if _NAME.fullmatch(name) else []
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        known = model_names()
        hint = nearest(name, known)
        raise ModelError(
            f"there is no model {name!r}" + (f"; did you mean {hint}?" if hint else f"; there are: {', '.join(known)}")
        )
    return parse_card(place.read_bytes(), name)


def parse_card(text: bytes, name: str) -> Card:
    """Return the card that ``text`` (YAML) declares. Raises ModelError naming the card and the field."""
    card = parse_yaml(text, Card, f"the card of {name}")
    for problem in _inconsistent(card, name):
        raise ModelError(problem)
    return card


def all_cards() -> list[Card]:
    """Return every card, by name. Raises ModelError for the first bad one."""
    return [load_card(name) for name in model_names()]


def check_card(name: str, *, fetch: bool = False) -> list[str]:
    """Return what is wrong with a card, one sentence each: its fields, files, hashes, data and licence.

    ``fetch``: packaged data that are not in the cache are fetched, so that all of them can be compared.
    Raises ModelError for a model that does not exist.
    """
    from socbench.models.check import problems_of

    return problems_of(name, fetch=fetch)


def user_models_folder() -> Path:
    """Return the folder of the models that the user added (their cards are the user's to edit); it need not exist."""
    root = os.environ.get("SOCBENCH_CONFIG")
    if not root:
        import platformdirs

        root = platformdirs.user_config_dir("socbench", appauthor=False)
    return Path(root).expanduser() / "models"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` is most likely a misspelling of."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def parse_yaml(text: bytes, kind: type[_T], what: str) -> _T:
    """Return YAML ``text`` as the struct ``kind``; ``what`` names it in errors ("the card of resnet8").

    Raises ModelError: no YAML, too long, or a field that is unknown, missing or of the wrong type.
    """
    import yaml

    if len(text) > CARD_LIMIT_BYTES:
        raise ModelError(f"{what} is longer than {CARD_LIMIT_BYTES} bytes, which no such file is")
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        first_line = " ".join(str(problem).split())
        raise ModelError(f"{what} is no YAML: {first_line}") from problem
    try:
        return msgspec.convert(loaded, kind)
    except msgspec.ValidationError as problem:
        raise ModelError(f"{what}: {_explain(str(problem), kind)}") from problem


def _explain(message: str, kind: type) -> str:
    """Say what msgspec found in the words of a card: where, what is wrong, and the nearest name."""
    text, _, place = message.partition(" - at ")
    place = place.replace("`key` in ", "").strip("`").removeprefix("$").lstrip(".")
    where = f"{place}: " if place else ""
    if match := re.match(r"Object contains unknown field `(.*)`", text):
        hint = nearest(match[1], _fields_at(kind, place))
        return f"{where}unknown field {match[1]!r}" + (f"; did you mean {hint}?" if hint else "")
    if match := re.match(r"Object missing required field `(.*)`", text):
        return f"{where}the field {match[1]!r} is missing"
    if match := re.match(r"Invalid enum value '(.*)'", text):
        known = (*FORMATS, *PRECISIONS)
        hint = nearest(match[1], known)
        return f"{where}{match[1]!r} is unknown" + (f"; did you mean {hint}?" if hint else "")
    return f"{where}{text[:1].lower()}{text[1:]}"


def _fields_at(kind: type, place: str) -> list[str]:
    """Return the names of the fields that are allowed at ``place`` (``data.evaluation``, ``inputs[0]``)."""
    node: Any = msgspec.inspect.type_info(kind)
    for step in [part for part in re.split(r"[.\[]", place) if part]:
        node = _without_none(node)
        if isinstance(node, msgspec.inspect.StructType):
            node = next((item.type for item in node.fields if item.encode_name == step), None)
        elif isinstance(node, msgspec.inspect.DictType):
            node = node.value_type
        else:
            node = getattr(node, "item_type", None)
    node = _without_none(node)
    return [item.encode_name for item in node.fields] if isinstance(node, msgspec.inspect.StructType) else []


def _without_none(node: Any) -> Any:
    if isinstance(node, msgspec.inspect.UnionType):
        return next((item for item in node.types if not isinstance(item, msgspec.inspect.NoneType)), node)
    return node


def _inconsistent(card: Card, name: str) -> Iterator[str]:
    """Yield what the types cannot say: names that must agree, fields that go together."""
    what = f"the card of {name}"
    if card.model != name:
        yield f"{what}: model is {card.model!r}; it must be the name of its folder, {name!r}"
    if not card.inputs or not card.outputs:
        yield f"{what}: it needs at least one input and one output"
    if not card.variants:
        yield f"{what}: variants names no format"
    for precision in sorted({precision for made in card.variants.values() for precision in made}):
        if precision not in card.tolerance:
            yield f"{what}: tolerance has no entry for {precision}, which variants names"
    for form, source in card.files.items():
        if not _inside(source.path):
            yield f"{what}: files.{form}.path {source.path!r} leads out of the card's folder"
        if source.source is not None and not (source.source.package or source.source.url or source.source.file):
            yield f"{what}: files.{form}.source names no package, url or file"
    for form, reasons in card.left_out.items():
        for precision in reasons:
            if precision in card.variants.get(form, ()):
                yield f"{what}: {form} {precision} is in variants and in left_out"
    for place in ("evaluation", "calibration"):
        data = getattr(card.data, place)
        if data is not None:
            yield from _incomplete_data(data, f"{what}: data.{place}")
    if card.probe.source != "seeded" and getattr(card.data, card.probe.source) is None:
        yield f"{what}: probe is taken from {card.probe.source}, and data.{card.probe.source} is not there"


_NEEDS: dict[str, tuple[str, ...]] = {
    "idx": ("images", "labels"),
    "pypi_pictures": ("package", "sha256", "pattern"),
    "packaged_pictures": ("package", "sha256", "pattern"),
    "packaged_files": ("package", "sha256", "pattern"),
    "coco": ("path", "images"),
    "masks": ("images", "labels"),
    "word_pairs": ("package", "sha256", "path", "vocabulary"),
    "text_lines": ("count",),
    "tones": ("count",),
}
_IN_FOLDER = ("idx", "word_pairs")
"""Kinds whose files come with the card; those of the user's own data may be anywhere."""


def _incomplete_data(data: DataSource, what: str) -> Iterator[str]:
    for field in _NEEDS.get(data.kind, ("path",)):
        if getattr(data, field) is None:
            yield f"{what}: the kind {data.kind} needs the field {field!r}"
    for field in ("images", "labels", "vocabulary"):
        value = getattr(data, field)
        if value is not None and data.kind in _IN_FOLDER and not _inside(value):
            yield f"{what}.{field} {value!r} leads out of the card's folder"
    if data.pattern is not None:
        try:
            re.compile(data.pattern)
        except re.error as problem:
            yield f"{what}.pattern is no regular expression: {problem}"


def _inside(path: str) -> bool:
    """Say whether a relative path stays in its folder."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\\" not in path and bool(parts.parts)


def _roots() -> tuple[Path, ...]:
    return (content("models"), user_models_folder())
