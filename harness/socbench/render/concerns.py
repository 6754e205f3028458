"""What not to trust and why, gathered by reason so that each advice is read once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from socbench.records import TrialRow
from socbench.render import columns, names

_LEVELS: Final = {"invalid": 0, "suspect": 1, "note": 2}
_TITLES: Final = {"invalid": "Void", "suspect": "Suspect", "note": "Note"}


@dataclass(frozen=True)
class Concern:
    """One reason with every row that it holds for: (row's name, what was seen there)."""

    level: Literal["invalid", "suspect", "note", "absent"]
    title: str
    advice: str
    seen: tuple[tuple[str, str], ...]


def gathered(rows: Sequence[TrialRow]) -> list[Concern]:
    """Concerns of all rows, void first, notes last; then why rows failed or were left out, most frequent first."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    who = _named(rows)
    for row in rows:
        for reason in row.reasons:
            key = (
                reason.level,
                names.plain(reason.code.replace("_", " "), 60),
                names.sentence(names.plain(reason.advice, 400)),
            )
            found.setdefault(key, []).append((who[row.session, row.trial], names.plain(reason.text, 400)))
    order = sorted(found, key=lambda key: (_LEVELS.get(key[0], 3), -len(found[key]), key[1]))
    out = [Concern(key[0], f"{_TITLES.get(key[0], 'Note')}: {key[1]}", key[2], tuple(found[key])) for key in order]  # type: ignore[arg-type]
    return out + _absences(rows, who)


def _absences(rows: Sequence[TrialRow], who: dict[tuple[str, str], str]) -> list[Concern]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        if row.error is not None:
            key = (columns.absent_text(row), names.sentence(names.plain(row.error.advice or "", 400)))
            found.setdefault(key, []).append((who[row.session, row.trial], ""))
    order = sorted(found, key=lambda key: (key[0].startswith("left out"), -len(found[key]), key[0]))
    return [Concern("absent", key[0][:1].upper() + key[0][1:], key[1], tuple(found[key])) for key in order]


def _named(rows: Sequence[TrialRow]) -> dict[tuple[str, str], str]:
    named = {}
    by_place: dict[tuple[str, str, str], list[TrialRow]] = {}
    for row in rows:
        by_place.setdefault((row.device_key, row.model, row.scenario), []).append(row)
    for group in by_place.values():
        named.update(names.row_names(group))
    many_models = len({row.model for row in rows}) > 1
    many_devices = len({row.device_key for row in rows}) > 1
    for row in rows:
        name = named[row.session, row.trial] + (" (accuracy)" if row.scenario == "accuracy" else "")
        lead = [names.plain(row.device_name, 60)] if many_devices else []
        lead += [names.plain(row.model, 60)] if many_models else []
        named[row.session, row.trial] = ", ".join([*lead, name])
    return named
