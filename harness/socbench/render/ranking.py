"""Which rows may be ranked, in what order, and which rows belong to one table. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from socbench.records import ComparedPair, Json, ReportData, TrialRow
from socbench.render import names

AccuracyState = Literal["keeps", "loses", "unclear", "unknown"]
Group = Literal["trusted", "loses", "suspect", "void", "told", "absent"]

GROUP_TITLES: Final[dict[str, str]] = {
    "trusted": "",
    "loses": "Loses accuracy, or the labelled inputs are too few to tell",
    "suspect": "Suspect: measured, and something disturbed it; not ranked",
    "void": "Void: what ran is not what was asked for, or the answers are wrong; not ranked",
    "told": "Only a mean is known, as a vendor's program told it; not ranked, since medians are",
    "absent": "Not measured",
}

MOST_LEFT_OUT = 12
"""More combinations than this are not lines of a table: their reasons, below it, tell the same in fewer."""


@dataclass(frozen=True)
class DeviceRows:
    """The rows of one device in ranked order, as (group, rows), empty groups left out."""

    device: str
    key: str
    groups: tuple[tuple[Group, tuple[TrialRow, ...]], ...]

    @property
    def rows(self) -> tuple[TrialRow, ...]:
        """All rows in the order shown."""
        return tuple(row for _, rows in self.groups for row in rows)


@dataclass(frozen=True)
class Section:
    """What one table shows: a model in a scenario at one batch and input shape, one block of rows a device."""

    model: str
    title: str
    task: str | None
    scenario: str
    devices: tuple[DeviceRows, ...]

    @property
    def rows(self) -> tuple[TrialRow, ...]:
        """All rows in the order shown."""
        return tuple(row for device in self.devices for row in device.rows)


def folded(section: Section) -> int:
    """The number of combinations that were left out where they are too many to be lines of a table, else 0.

    What failed is none of them: it always has its line.
    """
    count = sum(row.status == "excluded" for row in section.rows)
    return count if count > MOST_LEFT_OUT else 0


def is_measured(row: TrialRow) -> bool:
    """Whether the row has a latency at all."""
    return row.latency_p50_ns is not None and math.isfinite(row.latency_p50_ns) and row.latency_p50_ns > 0


def is_told(row: TrialRow) -> bool:
    """Whether a vendor's program told a mean latency and no median."""
    return row.status == "done" and not is_measured(row) and bool(row.latency_mean_ns)


def is_trusted(row: TrialRow) -> bool:
    """Whether the row may be ranked: done, measured and valid."""
    return row.status == "done" and row.verdict == "valid" and is_measured(row)


def accuracy_state(row: TrialRow) -> AccuracyState:
    """Whether the row keeps the reference's accuracy, loses some, or the labelled data are too few to tell.

    A loss of at most the metric's ``tolerated_loss`` keeps it. A larger one is a loss unless the interval of the
    difference reaches zero. Where a metric is an error, more of it is the loss. Without labelled data it is unknown.
    An fp32 row without a difference is the one that the others' differences are taken from (its answers are held to
    the reference by fidelity).
    """
    from socbench.analysis import metrics

    if row.accuracy_delta is None and row.accuracy is not None and row.precision == "fp32":
        return "keeps"
    if row.accuracy_delta is None or not math.isfinite(row.accuracy_delta):
        return "unknown"
    metric = metrics.METRICS.get(row.accuracy_metric or "", metrics.METRICS["top1"])
    gain, best = row.accuracy_delta, row.accuracy_delta_high
    if metric.lower_is_better:
        gain, best = -gain, None if row.accuracy_delta_low is None else -row.accuracy_delta_low
    if gain >= -metric.tolerated_loss - 1e-12:
        return "keeps"
    return "unclear" if best is not None and best >= 0 else "loses"


def group_of(row: TrialRow) -> Group:
    """The part of the table that a row stands in."""
    if not is_measured(row) or row.status in ("excluded", "failed"):
        return "told" if is_told(row) else "absent"
    if row.verdict == "invalid":
        return "void"
    if not is_trusted(row):
        return "suspect"
    return "trusted" if accuracy_state(row) in ("keeps", "unknown") else "loses"


def ranked(rows: Iterable[TrialRow]) -> tuple[tuple[Group, tuple[TrialRow, ...]], ...]:
    """Rows by group, within a group the fastest first; what was not measured in the order of its names."""
    by_group: dict[Group, list[TrialRow]] = {}
    for row in rows:
        by_group.setdefault(group_of(row), []).append(row)
    order: tuple[Group, ...] = ("trusted", "loses", "suspect", "void", "told", "absent")
    return tuple((group, tuple(sorted(by_group[group], key=_order))) for group in order if group in by_group)


def _order(row: TrialRow) -> tuple[float, str, str, str, str, str]:
    latency = row.latency_p50_ns if is_measured(row) and row.latency_p50_ns is not None else math.inf
    return (latency, row.runtime, row.delegate, row.precision, row.session, row.trial)


def shown_rows(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Rows for tables: those of ``accuracy`` are joined to others, so they show only where a model has no others."""
    others = {row.model for row in rows if row.scenario != "accuracy"}
    return [row for row in rows if row.scenario != "accuracy" or row.model not in others]


def concerning_rows(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Rows whose reasons are told: those shown, and accuracy trials that failed (else theirs repeat the others')."""
    shown = shown_rows(rows)
    known = {(row.session, row.trial) for row in shown}
    return shown + [row for row in rows if row.status == "failed" and (row.session, row.trial) not in known]


def device_names(rows: Iterable[TrialRow]) -> dict[str, str]:
    """A printable name for each device key, the address added where two devices have one name."""
    by_key: dict[str, tuple[str, str]] = {}
    for row in rows:
        by_key.setdefault(row.device_key, (names.plain(row.device_name) or names.plain(row.device), row.device))
    taken = [name for name, _ in by_key.values()]
    return {
        key: f"{name} ({names.plain(device, 60)})" if taken.count(name) > 1 else name
        for key, (name, device) in by_key.items()
    }


def sections(data: ReportData, *, models: Json | None = None) -> list[Section]:
    """One section for each model, scenario, batch and input shape, as they appear; ``models`` adds to the sessions'."""
    rows = shown_rows(data.rows)
    name_of = device_names(rows)
    cards = dict(models or {})
    for session in data.sessions:
        cards.update(session.models)
    found: dict[tuple[str, str, str], dict[str, list[TrialRow]]] = {}
    for row in rows:
        asked = f"batch {row.batch}, {sorted(row.shapes.items())}"
        found.setdefault((row.model, row.scenario, asked), {}).setdefault(row.device_key, []).append(row)
    return [
        Section(
            model=model,
            title=names.plain(cards.get(model, {}).get("title") or model, 120),
            task=cards.get(model, {}).get("task"),
            scenario=scenario,
            devices=tuple(DeviceRows(name_of[key], key, ranked(group)) for key, group in devices.items()),
        )
        for (model, scenario, _), devices in found.items()
    ]


def ratio_interval(row: TrialRow, other: TrialRow) -> tuple[float, float, float] | None:
    """The ratio of two medians (``row`` over ``other``) with its interval, or ``None`` where one has no interval.

    From the repetitions' medians, as ``compare`` does it (``analysis.statistics.ratio``).
    """
    from socbench.analysis import statistics

    found = statistics.ratio(other.repetition_medians_ns, row.repetition_medians_ns)
    if found is None or found.low is None or found.high is None:
        return None
    return found.ratio, found.low, found.high


def tied(row: TrialRow, other: TrialRow) -> bool:
    """Whether two rows cannot be told apart: the ratio's interval holds 1 (or, without intervals, within 3 %)."""
    interval = ratio_interval(row, other)
    if interval is not None:
        return interval[1] <= 1 <= interval[2]
    if row.latency_p50_ns is None or other.latency_p50_ns is None:
        return False
    return abs(math.log(row.latency_p50_ns / other.latency_p50_ns)) < math.log(1.03)


def gate_failures(pairs: Sequence[ComparedPair], fail_above: float, *, strict: bool = False) -> list[ComparedPair]:
    """The pairs on which the gate fails: slower by more than ``fail_above``, missing, failed or void.

    With ``strict`` also those that cannot be told or compared.
    """
    failing = []
    for pair in pairs:
        slower = pair.decision == "slower" and pair.ratio is not None and pair.ratio - 1 > fail_above
        gone = pair.decision in ("missing", "failed")
        void = pair.candidate is not None and pair.candidate.verdict == "invalid"
        unknown = strict and pair.decision in ("cannot_tell", "not_comparable")
        if slower or gone or void or unknown:
            failing.append(pair)
    return failing
