"""What a comparison says in words: its conclusion, what holds for all of its rows, and why for each. Pure."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from socbench.analysis.compare import MARGIN
from socbench.analysis.statistics import UNKNOWN_SESSIONS
from socbench.records import ComparedPair, TrialRow
from socbench.render import names, numbers
from socbench.render.sentences import pair_name

_SUBJECTS: Final = {
    "environment": "environment",
    "runtime_version": "runtime version",
    "recipe": "recipe",
    "model_sha256": "model file, sha256",
    "accelerator": "accelerator",
    "precision_effective": "precision that ran",
    "socbench_version": "socbench",
}
_CONDITIONS: Final = {"device_key": "device", "os_build": "OS build", "power_source": "power source"}
_IMPLIED: Final = ("model_sha256", "runtime_version", "recipe", "accelerator", "precision_effective")
_MOST_PAIRS: Final = 200


def compare_answer(pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate") -> list[str]:
    """The conclusion of a comparison: what changed, what did not, what can't be told and why, what can't be compared,
    and whether the measurements behind it were disturbed.
    """
    base, candidate = names.plain(base, 60), names.plain(candidate, 60)
    if not pairs:
        return [f"{base} and {candidate} have no rows in common: there is nothing to compare."]
    by: dict[str, list[ComparedPair]] = defaultdict(list)
    for pair in pairs:
        by[pair.decision].append(pair)
    said = []
    many = len({pair.key.get("model") for pair in pairs}) > 1
    for decision, pick in (("slower", max), ("faster", min)):
        found = [pair for pair in by[decision] if pair.ratio is not None]
        if found:
            worst = pick(found, key=lambda pair: pair.ratio or 1.0)
            said.append(_changed(worst, decision, len(found), len(pairs), base, candidate, many))
    if by["no_difference"]:
        said.append(_alike(by["no_difference"]))
    said += _untold(by["cannot_tell"], len(pairs))
    if by["not_comparable"]:
        said.append(f"{names.count(len(by['not_comparable']), 'row')} can't be compared, for the reasons given.")
    gone = len(by["missing"]) + len(by["failed"])
    if gone:
        said.append(f"{names.count(gone, 'row is', 'rows are')} missing or failed in {candidate}.")
    return said + _disturbed(pairs)


def notes(pairs: Sequence[ComparedPair]) -> list[str]:
    """What every row has in common, so that no row has to say it: the way of comparing, what changed everywhere."""
    said = []
    common = shared(pairs)
    spread = next((reason for reason in common if reason.startswith("session_spread:")), None)
    if "paired" in common:
        paired = [len(pair.base.repetition_numbers) for pair in pairs if pair.base]
        count = f" ({max(paired)} pairs)" if any(paired) else ""
        said.append(f"Both sides alternated in one session and are compared pair by pair{count}.")
    elif spread is not None:
        earlier = int(spread.partition(":")[2])
        said.append(
            f"Two sessions: how far sessions differ was learned from {earlier} earlier ones and is in the intervals."
        )
    elif "no_session_history" in common:
        said.append("Two sessions, and fewer than three earlier ones to learn from: 10 % is added to the intervals.")
    changed = [text for reason in common if reason.startswith("subject:") and (text := _text(reason, pairs[0]))]
    if changed:
        said.append(f"In {'every row' if len(pairs) > 1 else 'this row'} changed: {'; '.join(changed)}.")
    return said


def shared(pairs: Sequence[ComparedPair]) -> frozenset[str]:
    """The reasons that every pair with a ratio has; what is suspect never counts as shared."""
    found = [frozenset(pair.reasons) for pair in pairs if pair.base and pair.candidate and pair.ratio is not None]
    common = frozenset.intersection(*found) if found else frozenset()
    return frozenset(reason for reason in common if "_suspect:" not in reason)


def gathered(pairs: Sequence[ComparedPair]) -> list[tuple[str, list[ComparedPair]]]:
    """What speaks of single pairs, each text once with the pairs that it holds for, less what every row shares."""
    common = shared(pairs)
    found: dict[str, list[ComparedPair]] = {}
    for pair in pairs:
        text = why(pair, common)
        if text:
            found.setdefault(text, []).append(pair)
    return list(found.items())


def why(pair: ComparedPair, without: frozenset[str] = frozenset()) -> str:
    """The pair's reasons as one line of words, less those in ``without``."""
    kept = [reason for reason in pair.reasons if reason not in without]
    texts = [_text(reason, pair) for reason in kept if "_suspect:" not in reason]
    return "; ".join(text for text in [*texts, _suspect(kept)] if text)


def _changed(worst: ComparedPair, decision: str, found: int, total: int, base: str, candidate: str, many: bool) -> str:
    low, high = worst.ratio_low, worst.ratio_high
    interval = ""
    if low is not None and high is not None:
        interval = f" ({numbers.percent_change(low)} to {numbers.percent_change(high)})"
    change = f"{numbers.percent_change(worst.ratio or 1.0)}{interval}"
    name = pair_name(worst, model=many)
    if total == 1:
        return f"{candidate} is {decision} than {base}: {change} on {name}."
    most = f", most on {name}" if found > 1 else f": {name}"
    return f"{candidate} is {decision} on {names.count(found, 'row')} of {total:,}{most}: {change}."


def _alike(pairs: Sequence[ComparedPair]) -> str:
    lows = [pair.ratio_low for pair in pairs if pair.ratio_low is not None]
    highs = [pair.ratio_high for pair in pairs if pair.ratio_high is not None]
    said = names.count(len(pairs), "row shows", "rows show")
    if not lows or not highs:
        return f"{said} no difference."
    return (
        f"{said} no difference: the intervals reach from {numbers.percent_change(min(lows))} "
        f"to {numbers.percent_change(max(highs))}, inside the margin."
    )


def _untold(pairs: Sequence[ComparedPair], total: int) -> list[str]:
    """One sentence for each cause for which rows can't be told, with the way out."""
    causes: dict[str, list[ComparedPair]] = defaultdict(list)
    for pair in pairs:
        causes[_cause(pair)].append(pair)
    return [
        f"{names.count(len(found), 'row')} can't be told: {_CAUSES[cause](found, total)}"
        for cause, found in causes.items()
    ]


def _cause(pair: ComparedPair) -> str:
    codes = [reason.partition(":")[0] for reason in pair.reasons]
    for code in ("base_failed", "base_void"):
        if code in codes:
            return "base"
    cause = next((code for code in codes if code in _CAUSES), "wide")
    return "wide" if cause == "no_session_history" and not _told_with_history(pair) else cause


def _told_with_history(pair: ComparedPair) -> bool:
    """Whether the pair would be told without the 10 % that stand for unknown sessions: else its own spread hides it."""
    if not pair.ratio or not pair.ratio_low or not pair.ratio_high:
        return False
    own = math.log(pair.ratio_high / pair.ratio_low) / 2 - math.log1p(UNKNOWN_SESSIONS)
    change = abs(math.log(pair.ratio))
    return change > own or change + own <= math.log1p(MARGIN)


def _pairs_needed(pairs: Sequence[ComparedPair]) -> str:
    """How many pairs would show 3 % nine times in ten, from the spread that these had."""
    most = 0.0
    for pair in pairs:
        if pair.ratio_low and pair.ratio_high and pair.base:
            half = math.log(pair.ratio_high / pair.ratio_low) / 2
            most = max(most, len(pair.base.repetition_numbers) * (1.65 * half / math.log1p(MARGIN)) ** 2)
    if not most:
        return "the interval is wider than the difference; run more pairs with --repeat."
    if most > _MOST_PAIRS:
        return "the interval is wider than the difference; find what disturbs the device, more pairs won't do."
    return f"the interval is wider than the difference; --repeat {math.ceil(most)} would show one of 3 %."


_CAUSES: Final[dict[str, Callable[[Sequence[ComparedPair], int], str]]] = {
    "single_repetition": lambda found, total: "one repetition on a side has no interval; measure with --repeat 5.",
    "no_session_history": lambda found, total: (
        "with fewer than three earlier sessions in the store nobody knows how far days differ, so nothing under 10 % "
        "is claimed; measure both in one session, where that limit is gone: socbench run MODEL --ab A B."
    ),
    "session_spread": lambda found, total: (
        "earlier sessions differ by as much without a change; measure both in one: socbench run MODEL --ab A B."
    ),
    "many_comparisons": lambda found, total: (
        f"of {total:,} comparisons some differ by this much by chance; measure these again by themselves."
    ),
    "base": lambda found, total: "the base has no number for them that could be trusted.",
    "paired": lambda found, total: _pairs_needed(found),
    "wide": lambda found, total: (
        "the interval is wider than the difference; measure both in turn: socbench run MODEL --ab A B."
    ),
}


def _disturbed(pairs: Sequence[ComparedPair]) -> list[str]:
    """Say when what is compared was measured under disturbance, and by what."""
    told = [pair for pair in pairs if pair.ratio is not None]
    doubtful = [pair for pair in told if _codes(pair.reasons)]
    if not doubtful:
        return []
    counted: dict[str, int] = defaultdict(int)
    for pair in doubtful:
        for code in _codes(pair.reasons):
            counted[code] += 1
    most = [_words(code) for code in sorted(counted, key=lambda code: -counted[code])][:3]
    if len(doubtful) == len(told):
        where = "" if len(told) == 1 else f" on all {names.count(len(told), 'row')}"
    else:
        where = f" on {len(doubtful):,} of {names.count(len(told), 'row')}"
    return [f"Something disturbed the measurement{where} ({', '.join(most)}): repeat it before you act on it."]


def _codes(reasons: Sequence[str]) -> dict[str, str]:
    """Suspect reasons with the side that has them: ``both``, ``base`` or ``candidate``."""
    found: dict[str, set[str]] = {}
    for reason in reasons:
        side, marked, code = reason.partition("_suspect:")
        if marked:
            found.setdefault(code, set()).add(side)
    return {code: "both sides" if len(sides) == 2 else sides.pop() for code, sides in found.items()}


def _suspect(reasons: Sequence[str]) -> str:
    by_side: dict[str, list[str]] = defaultdict(list)
    for code, side in _codes(reasons).items():
        by_side[side].append(_words(code))
    parts = [f"{', '.join(codes)} ({side})" for side, codes in by_side.items()]
    return "suspect: " + "; ".join(parts) if parts else ""


def _text(reason: str, pair: ComparedPair) -> str:
    """One reason in words; one that is no code is passed on as it is."""
    code, _, detail = reason.partition(":")
    field, _, change = detail.partition(": ")
    if code == "subject":
        hidden = field in _IMPLIED and any(" -> " in str(pair.key.get(name)) for name in ("runtime", "precision"))
        hidden = hidden or (field in _IMPLIED and " -> " in str(pair.key.get("model")))
        return "" if hidden else subject_text(detail)
    if code == "condition":
        name = _CONDITIONS.get(field, _words(field))
        shown = _settings(pair) if field == "settings" else _arrow(change)
        return f"{name} {shown} (--allow {'device' if field == 'device_key' else field} compares them all the same)"
    if code in ("candidate_failed", "excluded"):
        verb = "failed" if code == "candidate_failed" else "left out"
        return f"{verb}: {_message(pair.candidate) or _words(detail)}"
    if code == "base_failed":
        return f"failed in the base: {_message(pair.base) or _words(detail)}"
    if code in ("candidate_void", "base_void"):
        return f"{'void' if code == 'candidate_void' else 'void in the base'}: {_words(detail)}"
    if code == "session_spread":
        return f"session spread from {detail} earlier sessions"
    return _TEXTS.get(code, names.plain(reason, 120))


def subject_text(change: str) -> str:
    """``runtime_version: 1.30 -> 1.31`` as ``runtime version 1.30 → 1.31``."""
    field, _, values = change.partition(": ")
    name = _SUBJECTS.get(field) or _CONDITIONS.get(field) or _words(field)
    return f"{name} {_arrow(_short(field, values))}"


_TEXTS: Final = {
    "missing": "",  # the decision says it
    "only_in_candidate": "the base has no such row",
    "single_repetition": "one repetition on a side",
    "no_session_history": "no history of sessions",
    "many_comparisons": "one of many comparisons",
    "paired": "paired",
}


def _message(row: TrialRow | None) -> str:
    return names.plain(row.error.message, 110) if row is not None and row.error is not None else ""


def _words(code: str) -> str:
    return names.plain(code, 40).replace("_", " ")


def _short(field: str, change: str) -> str:
    if field != "model_sha256":
        return change
    return " -> ".join(side[:8] for side in change.split(" -> "))


def _arrow(change: str) -> str:
    before, arrow, after = (names.plain(part, 40) for part in change.partition(" -> "))
    return f"{'none' if before == '-' else before} → {'none' if after == '-' else after}" if arrow else before


def _settings(pair: ComparedPair) -> str:
    """Which of the measuring settings differ, and how."""
    one: dict[str, Any] = pair.base.settings if pair.base else {}
    two: dict[str, Any] = pair.candidate.settings if pair.candidate else {}
    fields = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    said = [f"{_words(name)} {json.dumps(one.get(name))} → {json.dumps(two.get(name))}" for name in fields]
    return names.plain(", ".join(said), 110)
