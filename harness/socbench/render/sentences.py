"""The answer in sentences, written from the rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from socbench.records import ComparedPair, ReportData, TrialRow
from socbench.render import columns, names, numbers, ranking
from socbench.render.figure_energy import energy_words, power_words
from socbench.render.figure_sustained import order_sentence
from socbench.render.steps import cause_words, step_words


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
    out = []
    for section in found:
        subject = ", ".join(_subject(section, found, many_models))
        if len(section.devices) > 1 and section.scenario == "single_stream":
            out += [Answer(subject, tuple(said)) for said in [_over_devices(section)] if said]
        if section.scenario == "sustained":
            changes = order_sentence(section)
            out += [Answer(subject, (changes,))] if changes else []
        for device in section.devices:
            where = " on ".join(filter(None, (subject, device.device))) if len(section.devices) > 1 else subject
            about = _sustained(device.rows) if section.scenario == "sustained" else _about(device.rows)
            out.append(Answer(where[:1].upper() + where[1:], tuple(about)))
    return out


def _subject(section: ranking.Section, found: Sequence[ranking.Section], many_models: bool) -> list[str]:
    subject = [section.title] if many_models else []
    others = [other for other in found if other.model == section.model and other is not section]
    if any(other.scenario != section.scenario for other in others) and section.scenario != "single_stream":
        subject.append(names.scenario_title(section.scenario))
    row = section.rows[0]
    if any(other.rows[0].batch != row.batch for other in others):
        subject.append(f"batch {row.batch:,}")
    if any(other.rows[0].shapes != row.shapes for other in others) and row.shapes:
        subject.append(f"input {columns.shapes_text(row)}")
    return subject


def _over_devices(section: ranking.Section) -> list[str]:
    best = {}
    for device in section.devices:
        keeping = [row for row in device.rows if ranking.is_trusted(row) and ranking.group_of(row) == "trusted"]
        if keeping:
            best[device.device] = min(keeping, key=_latency)
    if len(best) < 2:
        return []
    order = sorted(best, key=lambda name: _latency(best[name]))
    first, second, last = best[order[0]], best[order[1]], best[order[-1]]
    said = f"Of {len(section.devices):,} devices, each at its best, {order[0]} is fastest"
    said += f": {names.row_name(first)}, {_said(first)}"
    if ranking.tied(second, first):
        return [f"{said}; {order[1]} can't be told apart from it ({_said(second)})."]
    ratio = numbers.times(_latency(last) / _latency(first))
    return [f"{said}, {ratio} faster than {order[-1]} ({_said(last)})."]


def _sustained(rows: Sequence[TrialRow]) -> list[str]:
    said = []
    named = names.row_names(rows)
    for row in rows:
        if not ranking.is_measured(row):
            continue
        thermal, who = row.thermal or {}, named[row.session, row.trial]
        start, end = thermal.get("baseline_p50_ns"), thermal.get("sustained_p50_ns")
        cut = _cut(thermal)
        step = step_words(thermal)
        if start is None or end is None:
            rest = f"its beginning could not be told from the rest{'; ' + step if step else ''}"
            said.append(f"{who}: {_said(row)} over the whole run{cut}; {rest}.")
            continue
        lead = f"{who} begins at {numbers.in_sentence(start)} and"
        at, slowdown = thermal.get("throttle_at_s"), thermal.get("slowdown") or end / start
        pace = thermal.get("pace_slowdown") or 1.0
        if pace >= 1.1 > slowdown:
            took = f"gets {numbers.times(pace)} less done, though single inferences take as long"
        else:
            took = f"takes {numbers.in_sentence(end)}, {numbers.times(slowdown)} as long"
        if step:
            said.append(f"{lead} in the end {took}{cut}: {step}.")
        elif at is None:
            said.append(f"{lead} ends at {numbers.in_sentence(end)}{cut}: no lasting slow-down of 10 % was found.")
        else:
            said.append(f"{lead}, from {at:,.0f} s on, {took}{cut}: {cause_words(thermal)}.")
        said += _besides(thermal)
    return said or _nothing(rows)


def _cut(thermal: dict[str, Any]) -> str:
    """Say that a run did not last as long as it was to."""
    duration, planned = thermal.get("duration_s"), thermal.get("planned_s")
    if thermal.get("complete") is not False or not duration or not planned:
        return ""
    why = {
        "max_temperature": "it was as warm as it may be",
        "crashed": "it crashed",
        "disk_full": "the device's disk was full",
        "orphaned": "its host was gone",
        "deadline": "it took too long",
        "out_of_memory": "it ran out of memory",
        "run_failed": "it failed",
    }
    reason = why.get(str(thermal.get("ended")), "it was stopped")
    return f" (cut after {duration / 60:.1f} of {planned / 60:.1f} minutes: {reason})"


def _besides(thermal: dict[str, Any]) -> list[str]:
    """Deadlines and energy of a continuous run, where they are known."""
    said = []
    if thermal.get("busy_cores"):
        had = thermal.get("busy_cores_average")
        kept = "" if had is None else f" ({had:.1f} on average)"
        said.append(f"It ran beside a second load that was to keep {thermal['busy_cores']} cores busy{kept}.")
    if thermal.get("deadlines"):
        share = thermal.get("deadline_missed_share") or 0.0
        rate = numbers.significant(thermal.get("rate_hz") or 0.0)
        missed = f"{thermal.get('deadlines_missed'):,} of {thermal['deadlines']:,} deadlines ({100 * share:.2g} %)"
        said.append(f"At {rate} a second it misses {missed}.")
    rested = thermal.get("cool_down") or {}
    if rested.get("fall_milli_c", 0) >= 1000:
        tau = f", time constant {rested['tau_s']:,.0f} s" if rested.get("tau_s") else ""
        said.append(
            f"Afterwards it cools by {rested['fall_milli_c'] / 1000:.1f} °C in {rested['seconds']:,.0f} s "
            f"({names.plain(rested.get('source'), 40)}{tau})."
        )
    energy = energy_words(thermal)
    if energy:
        reason = (thermal.get("energy") or {}).get("reason")
        doubt = f": {names.plain(reason, 120)}" if reason else ""
        said.append(f"At {power_words(thermal)} on average an inference takes {energy}{doubt}.")
    return said


def power_sentences(rows: Sequence[TrialRow]) -> list[str]:
    """Say of each continuous run of a device what its meter's log tells of it, or why it tells nothing."""
    lasting = [row for row in rows if row.scenario == "sustained" and row.thermal]
    if not lasting:
        return ["No run there was continuous, so no energy of an inference follows; the report shows the power."]
    said = []
    for row in lasting:
        energy = (row.thermal or {}).get("energy")
        lead = f"{names.plain(row.model, 60)}, {names.row_name(row)}"
        if not energy or not str(energy.get("source")).startswith("external:"):
            said.append(f"{lead}: the log covers less than nine tenths of this run, so its energy is not told from it.")
            continue
        reason = energy.get("reason")
        power = numbers.significant(energy["average_power_uw"] / 1e6)
        doubt = f": {names.plain(reason, 120)}" if reason else ""
        said.append(f"{lead}: {power} W on average, an inference takes {energy_words(row.thermal or {})}{doubt}.")
    return said


Who = Callable[[TrialRow], str]


def _about(rows: Sequence[TrialRow]) -> list[str]:
    trusted = [row for row in rows if ranking.is_trusted(row)]
    named = names.row_names(rows)

    def who(row: TrialRow) -> str:
        return named[row.session, row.trial]

    if not any(ranking.is_measured(row) for row in rows):
        return _told(who, rows) if any(ranking.is_told(row) for row in rows) else _nothing(rows)
    if not trusted:
        return [*_only_doubtful(who, rows), *_tally(rows)]
    return [
        *_pick(who, trusted, len(rows) == 1),
        *_faster_still(who, trusted),
        *_doubtful_leader(who, rows, trusted),
        *_limits(trusted, rows),
        *_tally(rows),
    ]


def _latency(row: TrialRow) -> float:
    return row.latency_p50_ns if row.latency_p50_ns is not None else float("inf")


def _said(row: TrialRow) -> str:
    return numbers.in_sentence(_latency(row), row.latency_p50_low_ns, row.latency_p50_high_ns)


def _told(who: Who, rows: Sequence[TrialRow]) -> list[str]:
    """What is said where a vendor's program told means alone: they are not ranked as if they were medians."""
    told = sorted((row for row in rows if ranking.is_told(row)), key=lambda row: row.latency_mean_ns or 0.0)
    first = told[0]
    mean = numbers.in_sentence(first.latency_mean_ns or 0.0)
    lead = "The lowest mean" if len(told) > 1 else "The mean"
    said = f"{lead} that {names.plain(first.program or '', 60)} told is {mean}, {who(first)}; it told no median."
    return [said, *_tally(rows)]


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


def _only_doubtful(who: Who, rows: Sequence[TrialRow]) -> list[str]:
    suspects = [row for row in rows if ranking.group_of(row) == "suspect"]
    reasons = Counter((reason.code, reason.advice) for row in rows for reason in row.reasons if reason.level != "note")
    said = ["No row can be trusted, so nothing is ranked and nothing is recommended."]
    if suspects:
        first = min(suspects, key=_latency)
        said.append(f"The fastest of the suspect rows is {who(first)}, {_said(first)}.")
    for (code, advice), often in reasons.most_common(1):
        what = names.plain(code.replace("_", " "), 60)
        told = names.sentence(names.plain(advice, 300))
        said.append(f"The most frequent reason is {what}, {often:,} of {len(rows):,}. {told}".rstrip())
    return said


def _pick(who: Who, trusted: Sequence[TrialRow], alone: bool) -> list[str]:
    keeping = [row for row in trusted if ranking.accuracy_state(row) == "keeps"]
    if len(trusted) == 1 and alone:
        return [f"{who(trusted[0])} takes {_said(trusted[0])}."]
    lead = "Fastest that keeps its accuracy"
    if not keeping:
        unknown = [row for row in trusted if ranking.accuracy_state(row) == "unknown"]
        if not unknown:
            best = min(trusted, key=_latency)
            return [
                f"No row is known to keep its accuracy; the fastest is {who(best)} at {_said(best)}, {_loss(best)}."
            ]
        keeping, lead = unknown, "Fastest"
    best = min(keeping, key=_latency)
    ties = [row for row in keeping if row is not best and ranking.tied(row, best)]
    said = [f"{lead}: {who(best)}, {_said(best)}{_against(best, trusted)}."]
    if ties:
        said.append(_tie_sentence(who, best, ties))
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


def _tie_sentence(who: Who, best: TrialRow, ties: Sequence[TrialRow]) -> str:
    others = names.listing((who(row) for row in ties), 3)
    intervals = [interval for row in ties if (interval := ranking.ratio_interval(row, best))]
    if not intervals:
        return f"It can't be told apart from {others}: one repetition gives no interval."
    low, high = min(one[1] for one in intervals), max(one[2] for one in intervals)
    return f"It can't be told apart from {others}: their ratio is {low:.2f} to {high:.2f}."


def _loss(row: TrialRow) -> str:
    from socbench.analysis import metrics

    metric = metrics.METRICS.get(row.accuracy_metric or "", metrics.METRICS["top1"])

    def said(change: float, *, signed: bool = True) -> str:
        if metric.unit is None:
            return numbers.points(change, signed=signed)
        return numbers.fixed(change, 2, signed=signed)

    delta, unit = row.accuracy_delta or 0.0, metric.unit or "points"
    verb = ("gained", "gains") if metric.lower_is_better else ("lost", "loses")
    inputs = f"{row.accuracy_count:,} labelled inputs" if row.accuracy_count else "the labelled inputs"
    if ranking.accuracy_state(row) == "unclear" and row.accuracy_delta_low is not None:
        low, high = said(row.accuracy_delta_low), said(row.accuracy_delta_high or 0.0)
        lost = f"{verb[0]} {said(abs(delta), signed=False)} {unit}"
        return f"which {lost}, and {inputs} are too few to tell that from none ({low} to {high})"
    title = names.metric_title(row.accuracy_metric).removesuffix(f" ({unit})")
    return f"which {verb[1]} {said(abs(delta), signed=False)} {unit} of {title}"


def _faster_still(who: Who, trusted: Sequence[TrialRow]) -> list[str]:
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
    return [f"Faster still is {who(first)} ({_said(first)}), {_loss(first)}{more}."]


def _doubtful_leader(who: Who, rows: Sequence[TrialRow], trusted: Sequence[TrialRow]) -> list[str]:
    best = min(trusted, key=_latency)
    suspects = [row for row in rows if ranking.group_of(row) == "suspect" and _latency(row) < _latency(best)]
    if not suspects:
        return []
    first = min(suspects, key=_latency)
    return [f"{who(first)} may be faster ({_said(first)}), but that row is suspect: measure it again to know."]


def _limits(trusted: Sequence[TrialRow], rows: Sequence[TrialRow]) -> list[str]:
    said = []
    if all(row.repetitions < 2 for row in trusted):
        lead = "It has" if len(trusted) == 1 else "Each row has"
        said.append(f"{lead} one repetition, so there is no interval: how sure this is can't be said.")
    if all(ranking.accuracy_state(row) == "unknown" for row in trusted):
        checked = [row for row in trusted if row.fidelity and row.fidelity.within_tolerance]
        if any(row.accuracy is not None for row in rows):
            # The table shows some: what is missing is the full-precision accuracy that losses are measured against.
            said.append("What a row loses in accuracy can't be said: there is none of full precision to compare with.")
        elif len(checked) == len(trusted):
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


def pair_name(pair: ComparedPair, *, model: bool = True) -> str:
    """A pair as one says it: from its rows, or from its key where both are gone; without the model if told so."""
    row = pair.candidate or pair.base
    key = {str(name): value for name, value in pair.key.items()}
    if row is not None and {"runtime", "precision"} <= set(key):
        if pair.base is not None and pair.candidate is not None and pair.base.environment != pair.candidate.environment:
            row = replace(row, environment="host")  # what the sides differ in is no part of the name that they share
        devices = {side.device_key for side in (pair.base, pair.candidate) if side is not None}
        where = f", {names.plain(row.device, 60)}" if len(devices) > 1 else ""
        return (f"{names.plain(row.model, 60)}, " if model else "") + names.row_name(row) + where
    titles = []
    for name, value in key.items():
        if name == "runtime":
            titles.append(names.runtime_title(str(value)))
        elif name == "delegate":
            titles.append(names.delegate_title(str(value)))
        elif (name, value) != ("scenario", "single_stream") and (model or name != "model") and value is not None:
            titles.append(names.plain(value, 60))
    return ", ".join(titles) or "this row"
