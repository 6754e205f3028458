"""Pairs rows and decides: faster, slower, no difference, or it cannot be told. Three lists of fields (rule 10).

``reasons`` of a pair are codes, some with a detail after a colon: ``condition:threads: 1 -> 4`` (why it is not
comparable), ``subject:runtime_version: 1.30 -> 1.31`` (what may differ and did), ``paired``, ``single_repetition``,
``no_session_history``, ``session_spread:5`` (earlier sessions that it was learned from), ``many_comparisons``,
``base_suspect:noisy``, ``candidate_suspect:noisy``, ``candidate_void:output_wrong``, ``base_void:...``,
``candidate_failed:crashed``, ``base_failed:...``, ``excluded:delegate_missing``, ``only_in_candidate``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from socbench.analysis import statistics
from socbench.analysis.history import levels
from socbench.errors import UsageError
from socbench.records import ComparedPair, TrialRow

MARGIN: Final = 0.03
"""What counts as no difference: an interval of the ratio that lies within it."""
KEY: Final = ("model", "format", "runtime", "delegate", "precision", "scenario")
CONDITIONS: Final = (
    "device_key",
    "os_build",
    "threads",
    "cores",
    "batch",
    "shapes",
    "power_source",
    "settings",
    "program",
)
SUBJECT: Final = (
    "environment",
    "runtime_version",
    "recipe",
    "model_sha256",
    "accelerator",
    "precision_effective",
    "socbench_version",
)
FREED: Final[dict[str, tuple[str, ...]]] = {
    "runtime": ("runtime", "format", "delegate"),
    "delegate": ("delegate",),
    "precision": ("precision",),
    "format": ("format",),
    "variant": ("precision", "format", "recipe"),
    "device": ("device_key", "os_build", "power_source"),
    "model": ("model",),
    "threads": ("threads",),
    "cores": ("cores",),
    "batch": ("batch",),
    "shapes": ("shapes",),
    "environment": ("environment",),
    "recipe": ("recipe",),
}
"""Axis of ``--by`` -> fields that it frees; ``runtime`` keeps the delegate's class."""
LEVEL: Final = 1 - statistics.CONFIDENCE
NEEDED_HISTORY: Final = 3

Key = tuple[str, ...]


@dataclass(frozen=True)
class Across:
    """How two sessions are compared: earlier headlines of each row's key and conditions, oldest first, by
    :func:`identity`.
    """

    earlier: Mapping[Key, Sequence[float]]


def identity(row: TrialRow) -> Key:
    """Return what makes rows of different sessions the same thing measured again: key and conditions."""
    return tuple(_plain(row, field) for field in (*KEY, *CONDITIONS))


def compare(
    base: Sequence[TrialRow],
    candidate: Sequence[TrialRow],
    *,
    by: str | None = None,
    allow: Sequence[str] = (),
    margin: float = MARGIN,
    across: Across | None = None,
) -> list[ComparedPair]:
    """Compare rows of two sessions, or with ``by`` rows that differ along an axis (base and candidate may be one list).

    ``across``: given when the two lists come from different sessions (rule 11). UsageError for an unknown axis or
    condition. Pairs come in the order of the base's rows.
    """
    freed = _freed(by, allow)
    first, second = _timed(base), _timed(candidate)
    if by is None:
        matched = _matched(first, second, freed)
    else:
        matched = _along(first, second, by, freed, same=base is candidate)
    pairs = [_pair(one, two, freed, margin, across) for one, two in matched]
    return _corrected([pair for pair in pairs if pair is not None], margin)


def compare_arms(rows: Sequence[TrialRow], *, margin: float = MARGIN) -> list[ComparedPair]:
    """Compare the arms of a session run with ``--ab``: A is the base; repetitions are paired by their number."""
    arms: dict[str, list[TrialRow]] = {"A": [], "B": []}
    for row in _timed(rows):
        if row.ab_arm is not None:
            arms.setdefault(row.ab_arm.upper(), []).append(row)
    # Combinations that an arm leaves out beside those that it has were never meant to be compared.
    arms = {name: [row for row in of if row.status != "excluded"] or of for name, of in arms.items()}
    # What the arms differ in is what is compared; in what both have (two precisions, say) equal meets equal.
    differing = {
        field
        for field in (*KEY, *CONDITIONS)
        if {_plain(row, field) for row in arms["A"]} != {_plain(row, field) for row in arms["B"]}
    }
    freed = frozenset(differing - {"scenario", "device_key"})
    matched = _matched(arms["A"], arms["B"], freed)
    pairs = [_pair(one, two, freed, margin, None, paired=True) for one, two in matched]
    return _corrected([pair for pair in pairs if pair is not None], margin)


def _freed(by: str | None, allow: Sequence[str]) -> frozenset[str]:
    if by is not None and by not in FREED:
        raise UsageError(f"cannot compare by {by!r}; there are {', '.join(FREED)}")
    named = {"device": "device_key"}
    allowed = [named.get(field, field) for field in allow]
    for field in allowed:
        if field not in CONDITIONS:
            raise UsageError(f"{field!r} is no condition that --allow can free; there are {', '.join(CONDITIONS)}")
    return frozenset([*(FREED[by] if by else ()), *allowed])


def _timed(rows: Sequence[TrialRow]) -> list[TrialRow]:
    return [row for row in rows if row.scenario != "accuracy"]


def _plain(row: TrialRow, field: str) -> str:
    """Return a field as text that can be compared and shown; ``-`` where it is not known."""
    value: Any = getattr(row, field)
    if value is None:
        return "-"
    if isinstance(value, dict):  # a setting that is null is one that an older socbench did not know
        return json.dumps({name: one for name, one in value.items() if one is not None}, sort_keys=True)
    return str(value)


def _key(row: TrialRow, freed: frozenset[str]) -> Key:
    kept = [_plain(row, field) for field in KEY if field not in freed]
    if "delegate" in freed and "runtime" in freed and "precision" not in freed:
        kept.append(row.delegate.split(":")[0])  # by runtime: the class of the delegate stays
    return tuple(kept)


def _differing(one: TrialRow, two: TrialRow, fields: Sequence[str], freed: frozenset[str]) -> list[str]:
    return [field for field in fields if field not in freed and _plain(one, field) != _plain(two, field)]


def _distance(one: TrialRow, two: TrialRow, freed: frozenset[str]) -> tuple[int, int, int, bool]:
    """Return how far two rows are apart that may be a pair: what of the key differs (as it may), then conditions,
    then subjects, then whether one never ran.
    """
    key = len(_differing(one, two, KEY, frozenset()))
    conditions = len(_differing(one, two, CONDITIONS, freed))
    return key, conditions, len(_differing(one, two, SUBJECT, freed)), two.latency_p50_ns is None


Matched = list[tuple[TrialRow | None, TrialRow | None]]


def _matched(base: list[TrialRow], candidate: list[TrialRow], freed: frozenset[str]) -> Matched:
    """Pair each base row with the nearest free candidate row of its key, equal conditions first."""
    partner: dict[int, int] = {}
    taken: set[int] = set()
    near = sorted(
        (_distance(one, two, freed), i, k)
        for i, one in enumerate(base)
        for k, two in enumerate(candidate)
        if _key(one, freed) == _key(two, freed)
    )
    for _, i, k in near:
        if i not in partner and k not in taken:
            partner[i] = k
            taken.add(k)
    pairs: Matched = [(one, candidate[partner[i]] if i in partner else None) for i, one in enumerate(base)]
    return pairs + [(None, two) for k, two in enumerate(candidate) if k not in taken]


def _along(base: list[TrialRow], candidate: list[TrialRow], by: str, freed: frozenset[str], *, same: bool) -> Matched:
    """Pair rows of one key that differ on the axis. In one session the first of a key is the base of the others."""
    axis = FREED[by][0]
    pairs: Matched = []
    groups: dict[Key, list[TrialRow]] = {}
    for row in base:
        groups.setdefault(_key(row, freed), []).append(row)
    for key, rows in groups.items():
        others = rows if same else [row for row in candidate if _key(row, freed) == key]
        bases = [row for row in rows if _plain(row, axis) == _plain(rows[0], axis)] if same else rows
        for other in others:
            fitting = [row for row in bases if _plain(row, axis) != _plain(other, axis)]
            if fitting:
                nearest = min(fitting, key=lambda row: _distance(row, other, freed))
                pairs.append((nearest, other))
    return pairs


def _pair(
    base: TrialRow | None,
    candidate: TrialRow | None,
    freed: frozenset[str],
    margin: float,
    across: Across | None,
    *,
    paired: bool = False,
) -> tuple[ComparedPair, float | None] | None:
    """Return a pair and its p-value (``None`` where no test was made); ``None`` where neither side was to run."""
    shown = base or candidate
    if shown is None or all(row is None or row.status == "excluded" for row in (base, candidate)):
        return None
    subject = _differing(base, candidate, SUBJECT, frozenset()) if base and candidate else []
    reasons = [f"subject:{_change(base, candidate, field)}" for field in subject]
    key = {field: getattr(shown, field) for field in ("device", *KEY, "threads", "batch", "environment")}
    for field in FREED_SHOWN & freed:
        if base and candidate and _plain(base, field) != _plain(candidate, field):
            key[field] = f"{_plain(base, field)} -> {_plain(candidate, field)}"
    if base and candidate and base.device != candidate.device:
        key["device"] = f"{base.device} -> {candidate.device}"
    none = ComparedPair(
        key, base, candidate, _p50(base), _p50(candidate), None, None, None, "not_comparable", tuple(reasons)
    )
    hindered = _hindered(base, candidate, freed)
    if hindered is not None:
        decision, why = hindered
        return replace(none, decision=decision, reasons=(*why, *reasons)), None
    assert base is not None
    assert candidate is not None
    return _measured(none, base, candidate, margin, across, paired=paired)


FREED_SHOWN: Final = frozenset((*KEY, "threads", "batch", "environment"))
Decision = Literal["faster", "slower", "no_difference", "cannot_tell", "not_comparable", "missing", "failed"]


def _change(base: TrialRow | None, candidate: TrialRow | None, field: str) -> str:
    sides = [_plain(row, field) if row is not None else "-" for row in (base, candidate)]
    if field == "model_sha256":
        sides = [side[:12] for side in sides]
    return f"{field}: {sides[0]} -> {sides[1]}"


def _p50(row: TrialRow | None) -> float | None:
    return None if row is None else row.latency_p50_ns


def _hindered(
    base: TrialRow | None, candidate: TrialRow | None, freed: frozenset[str]
) -> tuple[Decision, list[str]] | None:
    """Return why two rows have no ratio; ``None`` when they have one. A gate fails for the candidate's sake only."""
    if base is None or base.status == "excluded":
        return "not_comparable", ["only_in_candidate"]
    if candidate is None:
        return "missing", ["missing"]
    if candidate.status == "excluded":
        return "missing", [f"excluded:{candidate.error.code if candidate.error else 'unknown'}"]
    for name, row in (("candidate", candidate), ("base", base)):
        decision: Decision = "failed" if name == "candidate" else "cannot_tell"
        if row.status == "failed" or row.latency_p50_ns is None:
            return decision, [f"{name}_failed:{row.error.code if row.error else row.status}"]
        void = [reason.code for reason in row.reasons if reason.level == "invalid"]
        if void:
            return decision, [f"{name}_void:{code}" for code in void]
    differing = _differing(base, candidate, CONDITIONS, freed)
    if differing:
        return "not_comparable", [f"condition:{_change(base, candidate, field)}" for field in differing]
    return None


def _measured(
    none: ComparedPair, base: TrialRow, candidate: TrialRow, margin: float, across: Across | None, *, paired: bool
) -> tuple[ComparedPair, float | None]:
    reasons = list(none.reasons)
    for name, row in (("base", base), ("candidate", candidate)):
        reasons += [f"{name}_suspect:{reason.code}" for reason in row.reasons if reason.level == "suspect"]
    found = _ratio(base, candidate, paired=paired)
    if found is None or found.low is None:
        reasons.insert(0, "single_repetition")
    elif paired:
        reasons.insert(0, "paired")
    elif across is not None:
        earlier = across.earlier.get(identity(base), ())
        if len(earlier) >= NEEDED_HISTORY:
            found = statistics.across_sessions(found, levels(earlier))
            reasons.insert(0, f"session_spread:{len(earlier)}")
        else:
            found = statistics.without_history(found)
            reasons.insert(0, "no_session_history")
    if found is None:
        return replace(none, decision="cannot_tell", reasons=tuple(reasons)), None
    decided = decide(found, margin)
    pair = replace(
        none, ratio=found.ratio, ratio_low=found.low, ratio_high=found.high, decision=decided, reasons=tuple(reasons)
    )
    return pair, found.p_value


def _ratio(base: TrialRow, candidate: TrialRow, *, paired: bool) -> statistics.Ratio | None:
    if not paired:
        return statistics.ratio(base.repetition_medians_ns, candidate.repetition_medians_ns)
    one = dict(zip(base.repetition_numbers, base.repetition_medians_ns, strict=True))
    two = dict(zip(candidate.repetition_numbers, candidate.repetition_medians_ns, strict=True))
    both = sorted(one.keys() & two.keys())
    return statistics.paired_ratio([one[number] for number in both], [two[number] for number in both])


def decide(found: statistics.Ratio, margin: float) -> Literal["faster", "slower", "no_difference", "cannot_tell"]:
    """Return the decision from an interval: inside the margin first, then on which side of 1 it lies."""
    if found.low is None or found.high is None:
        return "cannot_tell"
    limit = math.log1p(margin)
    if -limit <= math.log(found.low) and math.log(found.high) <= limit:
        return "no_difference"
    if found.high < 1:
        return "faster"
    return "slower" if found.low > 1 else "cannot_tell"


def _corrected(pairs: list[tuple[ComparedPair, float | None]], margin: float) -> list[ComparedPair]:
    """Take back claims that the number of comparisons explains (Holm); intervals stay those of one comparison."""
    tested = [index for index, (_, p_value) in enumerate(pairs) if p_value is not None]
    adjusted = dict(zip(tested, statistics.holm([pairs[index][1] or 0.0 for index in tested]), strict=True))
    result = []
    for index, (pair, _) in enumerate(pairs):
        if pair.decision in ("faster", "slower") and adjusted.get(index, 0.0) >= LEVEL:
            result.append(replace(pair, decision="cannot_tell", reasons=("many_comparisons", *pair.reasons)))
        else:
            result.append(pair)
    return result
