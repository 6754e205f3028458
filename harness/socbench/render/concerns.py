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
    for row in rows:
        for reason in row.reasons:
            key = (reason.level, names.plain(reason.code.replace("_", " "), 60), names.plain(reason.advice, 400))
            found.setdefault(key, []).append((_who(row, rows), names.plain(reason.text, 400)))
    order = sorted(found, key=lambda key: (_LEVELS.get(key[0], 3), -len(found[key]), key[1]))
    out = [Concern(key[0], f"{_TITLES.get(key[0], 'Note')}: {key[1]}", key[2], tuple(found[key])) for key in order]  # type: ignore[arg-type]
    return out + _absences(rows)


def _absences(rows: Sequence[TrialRow]) -> list[Concern]:
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        if row.error is not None:
            key = (columns.absent_text(row), names.plain(row.error.advice or "", 400))
            found.setdefault(key, []).append((_who(row, rows), ""))
    order = sorted(found, key=lambda key: (key[0].startswith("left out"), -len(found[key]), key[0]))
    return [Concern("absent", key[0][:1].upper() + key[0][1:], key[1], tuple(found[key])) for key in order]


def _who(row: TrialRow, rows: Sequence[TrialRow]) -> str:
    who = names.row_name(row)
    first = rows[0]
    if row.model != first.model or any(other.model != row.model for other in rows):
        who = f"{names.plain(row.model, 60)}, {who}"
    if any(other.device_key != row.device_key for other in rows):
        who = f"{names.plain(row.device_name, 60)}: {who}"
    if row.scenario == "accuracy":
        who += " (accuracy)"
    return who
