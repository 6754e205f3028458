"""Suites: ``models/suites/NAME.yaml``, a matrix of models, runtimes, delegates and precisions with its settings."""

from __future__ import annotations

import dataclasses

import msgspec

from socbench.cache import digest_of
from socbench.content import content
from socbench.errors import ModelError
from socbench.models.cards import load_card, nearest, parse_yaml
from socbench.records import FORMATS_OF_RUNTIME, PRECISIONS, RUNTIMES, SCENARIOS, MeasuringSettings

VERSIONS = "versions.yaml"
_FOR_PEOPLE = ("title", "description", "note", "version", "left_out", "parameters", "multiply_adds")


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A suite; ``version`` changes when anything in it does. Results of different versions are not compared by name."""

    suite: str
    version: int
    title: str
    models: tuple[str, ...]
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    delegates: tuple[str, ...] = ("cpu",)
    scenarios: tuple[str, ...] = ("single_stream", "accuracy")
    repetitions: int = 5
    threads: int | None = None
    settings: MeasuringSettings = MeasuringSettings()
    description: str | None = None


def load_suite(name: str) -> Suite:
    """Return the suite ``name``. Raises ModelError: unknown (with the nearest name), or not as it should be."""
    known = suite_names()
    if name not in known:
        hint = nearest(name, known)
        raise ModelError(
            f"there is no suite {name!r}" + (f"; did you mean {hint}?" if hint else f"; there are: {', '.join(known)}")
        )
    return parse_suite((content("models") / "suites" / f"{name}.yaml").read_bytes(), name)


def parse_suite(text: bytes, name: str) -> Suite:
    """Return the suite that ``text`` (YAML) declares. Raises ModelError naming the field and the nearest name."""
    what = f"the suite {name}"
    suite = parse_yaml(text, Suite, what)
    _check_settings(text, what)
    if suite.suite != name:
        raise ModelError(f"{what}: suite is {suite.suite!r}; it must be the name of its file, {name!r}")
    for field, allowed in (("runtimes", RUNTIMES), ("precisions", PRECISIONS), ("scenarios", SCENARIOS)):
        for value in getattr(suite, field):
            if value not in allowed:
                hint = nearest(value, allowed)
                raise ModelError(
                    f"{what}: {field} has {value!r}, which is unknown"
                    + (f"; did you mean {hint}?" if hint else f"; known are {', '.join(allowed)}")
                )
    for field in ("models", "runtimes", "precisions", "delegates", "scenarios"):
        if not getattr(suite, field):
            raise ModelError(f"{what}: {field} is empty")
    if suite.repetitions < 1:
        raise ModelError(f"{what}: repetitions is {suite.repetitions}; it must be at least 1")
    return suite


def content_of(suite: Suite) -> str:
    """Return a digest of what a suite measures: itself and its cards, less what is only there to be read by people and
    what its runtimes and precisions do not touch.

    ``models/suites/versions.yaml`` holds the digest of each version, so that none changes unseen.
    """
    own = {name: value for name, value in msgspec.to_builtins(suite).items() if name not in _FOR_PEOPLE}
    formats = {form for runtime in suite.runtimes for form in FORMATS_OF_RUNTIME[runtime]}
    cards = {}
    for name in suite.models:
        card = msgspec.to_builtins(load_card(name))
        card["variants"] = {
            form: [precision for precision in made if precision in suite.precisions]
            for form, made in card["variants"].items()
            if form in formats
        }
        cards[name] = _measured(card)
    return digest_of({"suite": own, "cards": cards})[:16]


def recorded_versions() -> dict[str, dict[int, str]]:
    """Return the digests of the versions of the shipped suites: ``{suite: {version: digest}}``. Raises ModelError."""
    place = content("models") / "suites" / VERSIONS
    return parse_yaml(place.read_bytes(), dict[str, dict[int, str]], VERSIONS)


def _measured(value: object) -> object:
    """Return a card without titles, descriptions, notes and licences, all the way down."""
    if isinstance(value, dict):
        return {name: _measured(item) for name, item in value.items() if name not in (*_FOR_PEOPLE, "licence", "name")}
    return [_measured(item) for item in value] if isinstance(value, list | tuple) else value


def suite_names() -> list[str]:
    """Return the names of the shipped suites."""
    return sorted(path.stem for path in (content("models") / "suites").glob("*.yaml") if path.name != VERSIONS)


def _check_settings(text: bytes, what: str) -> None:
    """Refuse a setting that MeasuringSettings does not have (a dataclass takes no notice of unknown names)."""
    import yaml

    known = [field.name for field in dataclasses.fields(MeasuringSettings)]
    for name in yaml.safe_load(text).get("settings", {}):
        if name not in known:
            hint = nearest(name, known)
            raise ModelError(
                f"{what}: settings: unknown field {name!r}"
                + (f"; did you mean {hint}?" if hint else f"; known are {', '.join(known)}")
            )
