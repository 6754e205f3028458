"""The answer in sentences, written from the rows. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from socbench.records import ComparedPair, ReportData, TrialRow
from socbench.render import names, numbers, ranking


@dataclass(frozen=True)
class Answer:
    """What can be said of one model on one device; ``subject`` is empty where there is only one of both."""

    subject: str
    sentences: tuple[str, ...]


def answer(data: ReportData) -> list[str]:
    """Two to five sentences for each model and device: what to pick, how sure that is, what can't be told."""
    return [
        " ".join((f"{part.subject}: " if part.subject else "") + sentence if index == 0 else sentence
                 for index, sentence in enumerate(part.sentences))
        for part in answers(data)
    ]  # fmt: skip


def answers(data: ReportData) -> list[Answer]:
    """The same, one record for each model and device."""
    found = ranking.sections(data)
    if not found:
        return [Answer("", ("There are no rows: nothing was planned, or the selection holds no session with trials.",))]
    many_models = len({section.model for section in found}) > 1
    many_scenarios = len({section.scenario for section in found}) > 1
    out = []
    for section in found:
        for device in section.devices:
            subject = section.title if many_models else ""
            if many_scenarios:
                subject = ", ".join(filter(None, (subject, names.scenario_title(section.scenario))))
            if len(section.devices) > 1:
                subject = f"{subject} on {device.device}" if subject else device.device
            out.append(Answer(subject, tuple(_about(device.rows))))
    return out


def _about(rows: Sequence[TrialRow]) -> list[str]:
    trusted = [row for row in rows if ranking.is_trusted(row)]
    if not any(ranking.is_measured(row) for row in rows):
        return _nothing(rows)
    if not trusted:
        return [*_only_doubtful(rows), *_tally(rows)]
    return [
        *_pick(trusted),
        *_faster_still(trusted),
        *_doubtful_leader(rows, trusted),
        *_limits(trusted),
        *_tally(rows),
    ]


def _latency(row: TrialRow) -> float:
    return row.latency_p50_ns if row.latency_p50_ns is not None else float("inf")


def _said(row: TrialRow) -> str:
    return numbers.in_sentence(_latency(row), row.latency_p50_low_ns, row.latency_p50_high_ns)


def _nothing(rows: Sequence[TrialRow]) -> list[str]:
    failed = sum(row.status == "failed" for row in rows)
    left_out = sum(row.status == "excluded" for row in rows)
    other = len(rows) - failed - left_out
    parts = [f"{failed:,} failed" if failed else "", f"{left_out:,} left out" if left_out else ""]
    parts.append(f"{other:,} without a measurement" if other else "")
    reasons = Counter(names.plain(row.error.message, 200) for row in rows if row.error)
    said = [f"Nothing was measured: of {names.count(len(rows), 'row')}, {names.listing(filter(None, parts))}."]
    for reason, how_often in reasons.most_common(1):
        said.append(f"The most frequent reason ({how_often:,} of {len(rows):,}): {reason.rstrip('.')}.")
    return said


def _only_doubtful(rows: Sequence[TrialRow]) -> list[str]:
    suspects = [row for row in rows if ranking.group_of(row) == "suspect"]
    said = ["No row can be trusted, so nothing is ranked and nothing is recommended."]
    if suspects:
        first = min(suspects, key=_latency)
        said.append(
            f"The fastest of the suspect rows is {names.row_name(first)} at {_said(first)}; what disturbed it is below."
        )
    return said


def _pick(trusted: Sequence[TrialRow]) -> list[str]:
    keeping = [row for row in trusted if ranking.accuracy_state(row) == "keeps"]
    lead = "Fastest that keeps its accuracy"
    if not keeping:
        unknown = [row for row in trusted if ranking.accuracy_state(row) == "unknown"]
        if not unknown:
            best = min(trusted, key=_latency)
            return [
                f"No row is known to keep its accuracy; the fastest is {names.row_name(best)} at {_said(best)}, "
                f"{_loss(best)}."
            ]
        keeping, lead = unknown, "Fastest"
    best = min(keeping, key=_latency)
    ties = [row for row in keeping if row is not best and ranking.tied(row, best)]
    said = [f"{lead}: {names.row_name(best)}, {_said(best)}{_against(best, trusted)}."]
    if ties:
        said.append(_tie_sentence(best, ties))
    return said


def _against(best: TrialRow, trusted: Sequence[TrialRow]) -> str:
    plain = [row for row in trusted if (row.precision_effective or row.precision) == "fp32"
             and row.delegate.startswith("cpu") and row is not best]  # fmt: skip
    if (best.precision_effective or best.precision) == "fp32" and best.delegate.startswith("cpu"):
        others = [row for row in plain if row.runtime != best.runtime]
        plain, what = others, "the next runtime at fp32"
    else:
        what = "the fastest at fp32 on the CPU"
    plain = [row for row in plain if not ranking.tied(row, best) and _latency(row) > _latency(best)]
    if not plain:
        return ""
    other = min(plain, key=_latency)
    ratio = numbers.times(_latency(other) / _latency(best))
    return f", {ratio} faster than {what} ({names.runtime_title(other.runtime)}, {_said(other)})"


def _tie_sentence(best: TrialRow, ties: Sequence[TrialRow]) -> str:
    who = names.listing((names.row_name(row) for row in ties), 3)
    intervals = [interval for row in ties if (interval := ranking.ratio_interval(row, best))]
    if not intervals:
        return f"It can't be told apart from {who}: one repetition gives no interval."
    low, high = min(one[1] for one in intervals), max(one[2] for one in intervals)
    return f"It can't be told apart from {who} (ratio {low:.2f} to {high:.2f})."


def _loss(row: TrialRow) -> str:
    delta = row.accuracy_delta or 0.0
    lost = numbers.points(abs(delta), signed=False)
    inputs = f"{row.accuracy_count:,} labelled inputs" if row.accuracy_count else "the labelled inputs"
    if ranking.accuracy_state(row) == "unclear" and row.accuracy_delta_low is not None:
        low, high = numbers.points(row.accuracy_delta_low), numbers.points(row.accuracy_delta_high or 0.0)
        return f"which lost {lost} points, and {inputs} are too few to tell that from none ({low} to {high})"
    return f"which loses {lost} points of {names.metric_title(row.accuracy_metric)}"


def _faster_still(trusted: Sequence[TrialRow]) -> list[str]:
    keeping = [row for row in trusted if ranking.accuracy_state(row) == "keeps"]
    if not keeping:
        return []
    best = min(keeping, key=_latency)
    faster = [row for row in trusted if ranking.accuracy_state(row) in ("loses", "unclear")
              and _latency(row) < _latency(best) and not ranking.tied(row, best)]  # fmt: skip
    if not faster:
        return []
    first = min(faster, key=_latency)
    more = f"; {names.count(len(faster) - 1, 'more row does', 'more rows do')} the like" if len(faster) > 1 else ""
    return [f"Faster still is {names.row_name(first)} ({_said(first)}), {_loss(first)}{more}."]


def _doubtful_leader(rows: Sequence[TrialRow], trusted: Sequence[TrialRow]) -> list[str]:
    best = min(trusted, key=_latency)
    suspects = [row for row in rows if ranking.group_of(row) == "suspect" and _latency(row) < _latency(best)]
    if not suspects:
        return []
    first = min(suspects, key=_latency)
    return [
        f"{names.row_name(first)} may be faster ({_said(first)}), but that row is suspect: measure it again to know."
    ]


def _limits(trusted: Sequence[TrialRow]) -> list[str]:
    said = []
    if all(row.repetitions < 2 for row in trusted):
        said.append("Each row has one repetition, so how sure these figures are can't be said.")
    if all(ranking.accuracy_state(row) == "unknown" for row in trusted):
        checked = [row for row in trusted if row.fidelity and row.fidelity.within_tolerance]
        if len(checked) == len(trusted):
            said.append(
                "Accuracy was not measured; every ranked row's answers agree with the reference within tolerance."
            )
        else:
            said.append("Accuracy was not measured, so which rows keep it can't be said.")
        return said
    counts = {row.accuracy_count for row in trusted if row.accuracy_count}
    if counts and max(counts) < 300:
        most = max(counts)
        said.append(
            f"Accuracy comes from {most:,} labelled inputs, one of which is {numbers.points(1 / most, signed=False)} "
            "points: small losses can't be seen."
        )
    return said


def _tally(rows: Sequence[TrialRow]) -> list[str]:
    groups = Counter(ranking.group_of(row) for row in rows)
    doubtful, absent = groups["suspect"] + groups["void"], groups["absent"]
    parts = []
    if doubtful:
        parts.append(f"{doubtful:,} can't be trusted")
    if absent:
        parts.append(f"{absent:,} {'was' if absent == 1 else 'were'} not measured")
    return [f"Of {names.count(len(rows), 'row')}, {' and '.join(parts)}: see the reasons below."] if parts else []


def compare_answer(pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate") -> list[str]:
    """The conclusion of a comparison: what changed, what did not, what can't be told and what can't be compared."""
    base, candidate = names.plain(base, 60), names.plain(candidate, 60)
    if not pairs:
        return [f"{base} and {candidate} have no rows in common: there is nothing to compare."]
    by: dict[str, list[ComparedPair]] = defaultdict(list)
    for pair in pairs:
        by[pair.decision].append(pair)
    said = []
    for decision, pick in (("slower", max), ("faster", min)):
        found = [pair for pair in by[decision] if pair.ratio is not None]
        if found:
            worst = pick(found, key=lambda pair: pair.ratio or 1.0)
            said.append(_changed(worst, decision, len(found), len(pairs), candidate))
    if by["no_difference"]:
        said.append(f"{names.count(len(by['no_difference']), 'row shows', 'rows show')} no difference.")
    if by["cannot_tell"]:
        count = names.count(len(by["cannot_tell"]), "row")
        said.append(
            f"{count} can't be told: the interval is wider than the difference; measure both with `socbench run --ab`."
        )
    if by["not_comparable"]:
        said.append(f"{names.count(len(by['not_comparable']), 'row')} can't be compared, for the reasons given.")
    gone = len(by["missing"]) + len(by["failed"])
    if gone:
        said.append(f"{names.count(gone, 'row is', 'rows are')} missing or failed on one side.")
    return said


def _changed(worst: ComparedPair, decision: str, found: int, total: int, candidate: str) -> str:
    ratio = worst.ratio or 1.0
    low, high = worst.ratio_low, worst.ratio_high
    interval = ""
    if low is not None and high is not None:
        interval = f" ({numbers.percent_change(low)} to {numbers.percent_change(high)})"
    most = f", most on {pair_name(worst)}" if found > 1 else f": {pair_name(worst)}"
    what = names.count(found, "row")
    return f"{candidate} is {decision} on {what} of {total:,}{most}: {numbers.percent_change(ratio)}{interval}."


def pair_name(pair: ComparedPair) -> str:
    """A pair as one says it: from its rows, or from its key where both are gone."""
    row = pair.candidate or pair.base
    key = {str(name): value for name, value in pair.key.items()}
    if row is not None and {"runtime", "precision"} <= set(key):
        return f"{names.plain(row.model, 60)}, {names.row_name(row)}"
    titles = []
    for name, value in key.items():
        if name == "runtime":
            titles.append(names.runtime_title(str(value)))
        elif name == "delegate":
            titles.append(names.delegate_title(str(value)))
        elif name != "scenario" or value != "single_stream":
            titles.append(names.plain(value, 60))
    return ", ".join(titles)
