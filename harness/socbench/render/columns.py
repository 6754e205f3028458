"""The columns of a table of results, shared by every printer that people read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from socbench.records import TrialRow
from socbench.render import names, numbers, ranking


@dataclass(frozen=True)
class Context:
    """What the cells of one table agree on: units, the tail percentile, names of sessions."""

    time: numbers.Unit
    load: numbers.Unit
    size: numbers.Unit
    memory: numbers.Unit
    tail: Literal["p99", "p90"]
    sessions: dict[str, str]
    metric: str
    metric_is_fraction: bool
    shared_codes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Column:
    """One column: its head with the unit, the cell's text, and what goes first when there is no room (high goes)."""

    key: str
    head: Callable[[Context], str]
    cell: Callable[[TrialRow, Context], str]
    priority: int
    kind: Literal["identity", "condition", "measure"] = "measure"

    @property
    def right(self) -> bool:
        """Whether cells are numbers, aligned right on the decimal point."""
        return self.kind == "measure" and self.key not in ("fidelity", "notes")


def context(rows: Sequence[TrialRow]) -> Context:
    """Choose the units of a table from all of its rows."""
    metrics = {row.accuracy_metric for row in rows if row.accuracy_metric}
    values = [value for row in rows for value in (row.accuracy, row.accuracy_delta) if value is not None]
    return Context(
        time=numbers.time_unit(row.latency_p50_ns or row.latency_mean_ns for row in rows),
        load=numbers.time_unit(row.load_ns for row in rows),
        size=numbers.size_unit(row.size_bytes for row in rows),
        memory=numbers.size_unit(row.peak_memory_bytes for row in rows),
        tail="p99" if any(row.latency_p99_ns is not None for row in rows) else "p90",
        sessions=_session_names(rows),
        metric=names.metric_title(metrics.pop()) if len(metrics) == 1 else "accuracy",
        metric_is_fraction=all(abs(value) <= 1 for value in values),
        shared_codes=_shared_codes(rows),
    )


def _shared_codes(rows: Sequence[TrialRow]) -> frozenset[str]:
    """Reasons that every measured row of a table of three and more has: said once above it, not in each row."""
    measured = [{reason.code for reason in row.reasons} for row in rows if ranking.is_measured(row)]
    return frozenset(set.intersection(*measured)) if len(measured) >= 3 else frozenset()


def ran_on(row: TrialRow, ctx: Context) -> str:
    """The delegate that ran, with what was asked for where that differs, and how much of the model it took."""
    asked = names.delegate_title(row.delegate, row.runtime)
    effective = row.delegate_effective
    if effective is not None and effective != row.delegate:
        return f"{names.delegate_title(effective, row.runtime)} (asked {asked.replace(' (', ', ').rstrip(')')})"
    if row.program is not None and row.delegation == "unknown" and effective is None:
        return f"{asked}, unconfirmed"
    if row.delegation == "fell_back":
        return f"not {asked}: fell back"
    if row.delegation == "partial" and row.nodes_total:
        return f"{asked}, {row.nodes_delegated or 0:,} of {row.nodes_total:,} nodes"
    if row.delegation == "partial":
        return f"{asked}, in part"
    return asked


def ran_as(row: TrialRow, ctx: Context) -> str:
    """The precision that was executed, with what was asked for where that differs."""
    asked = names.plain(row.precision)
    if row.precision_effective is None or row.precision_effective == row.precision:
        return asked
    return f"{names.plain(row.precision_effective)} (asked {asked})"


def accuracy_cell(row: TrialRow, ctx: Context) -> str:
    """Accuracy in percent (or as the metric is), with half of its interval."""
    factor = 100.0 if ctx.metric_is_fraction else 1.0
    value, low, high = row.accuracy, row.accuracy_low, row.accuracy_high
    if value is None:
        return ""
    half = numbers.half_width(low, high)
    decimals = 1 if factor == 100 else 3
    if half is None:
        return numbers.fixed(value * factor, decimals)
    decimals = min(decimals, numbers.decimals_of(half * factor))
    return f"{numbers.fixed(value * factor, decimals)} ± {numbers.fixed(half * factor, decimals)}"


def _delta_cell(row: TrialRow, ctx: Context) -> str:
    if row.accuracy_delta is None:
        return ""
    if ctx.metric_is_fraction:
        return numbers.points(row.accuracy_delta)
    return numbers.fixed(row.accuracy_delta, 3, signed=True)


def _second_load(row: TrialRow) -> str:
    busy = row.settings.get("busy_cores")
    return f"{busy} busy" if isinstance(busy, int) else ""


def _tail(row: TrialRow, ctx: Context) -> str:
    value = row.latency_p99_ns if ctx.tail == "p99" else row.latency_p90_ns
    return like_median(value, row, ctx)


def like_median(value: float | None, row: TrialRow, ctx: Context) -> str:
    """A time of the row's latency distribution with as many digits as the row's median has."""
    if value is None:
        return ""
    median = numbers.measured(row.latency_p50_ns, row.latency_p50_low_ns, row.latency_p50_high_ns, ctx.time)
    decimals = len(median.split(" ")[0].partition(".")[2])
    return numbers.fixed(value / ctx.time.factor, decimals)


def _size(value: float | None, unit: numbers.Unit) -> str:
    return "" if value is None else numbers.significant(value / unit.factor)


def _load(value: float | None, unit: numbers.Unit) -> str:
    if value is None:
        return ""
    scaled = value / unit.factor
    return numbers.fixed(scaled, 0 if scaled >= 20 else 1)


def fidelity_cell(row: TrialRow, ctx: Context) -> str:
    """Whether the answers agree with the reference, in a word."""
    fidelity = row.fidelity
    if fidelity is None:
        return ""
    if not fidelity.finite:
        return "not finite"
    if fidelity.constant:
        return "constant"
    if fidelity.within_tolerance is None:
        return "" if fidelity.cosine is None else f"cosine {fidelity.cosine:.4f}"
    return "agree" if fidelity.within_tolerance else "wrong"


def notes_cell(row: TrialRow, ctx: Context) -> str:
    """What speaks against the row, in words; notes are told below the tables, what all rows share above them."""
    codes = [reason.code for reason in row.reasons if reason.level != "note" and reason.code not in ctx.shared_codes]
    said = list(dict.fromkeys(names.plain(code.replace("_", " "), 40) for code in codes))
    return f"{', '.join(said[:2])} and {len(said) - 2} more" if len(said) > 2 else ", ".join(said)


def shapes_text(row: TrialRow) -> str:
    """``image 1x3x224x224``, "" where the model's own shapes were used."""
    return ", ".join(f"{names.plain(name, 40)} {'x'.join(map(str, shape))}" for name, shape in row.shapes.items())


def _session_names(rows: Sequence[TrialRow]) -> dict[str, str]:
    """Sessions as people call them: by label, else by when they started; by both where labels are the same."""
    labels = {row.session: names.plain(row.label or "", 40) for row in rows}
    starts = {row.session: names.plain(row.started)[:16].replace("T", " ") for row in rows}
    taken = Counter(labels.values())
    return {
        session: (label if taken[label] == 1 else f"{label}, {starts[session]}") if label else starts[session]
        for session, label in labels.items()
    }


COLUMNS: tuple[Column, ...] = (
    Column("runtime", lambda c: "runtime", lambda r, c: names.runtime_title(r.runtime), 0, "identity"),
    Column("on", lambda c: "on", ran_on, 0, "identity"),
    Column("ran_as", lambda c: "ran as", ran_as, 0, "identity"),
    Column("session", lambda c: "session", lambda r, c: c.sessions[r.session], 1, "condition"),
    Column("ab_arm", lambda c: "arm", lambda r, c: names.plain(r.ab_arm or "", 30), 1, "condition"),
    Column("recipe", lambda c: "recipe", lambda r, c: names.plain(r.recipe or "", 24), 1, "condition"),
    Column("threads", lambda c: "threads", lambda r, c: _threads(r), 1, "condition"),
    Column("cores", lambda c: "cores", lambda r, c: names.plain(r.cores or "", 24), 1, "condition"),
    Column("batch", lambda c: "batch", lambda r, c: f"{r.batch:,}", 1, "condition"),
    Column("shapes", lambda c: "input", lambda r, c: shapes_text(r), 1, "condition"),
    Column("second_load", lambda c: "second load", lambda r, c: _second_load(r), 1, "condition"),
    Column("median", lambda c: f"median {c.time.symbol} ± 95 %", lambda r, c: median_cell(r, c), 0),
    Column("tail", lambda c: f"{c.tail} {c.time.symbol}", _tail, 2),
    Column("accuracy", lambda c: accuracy_head(c), accuracy_cell, 6),
    Column("delta", lambda c: _delta_head(c), _delta_cell, 1),
    Column("fidelity", lambda c: "answers", fidelity_cell, 5),
    Column("size", lambda c: f"size {c.size.symbol}", lambda r, c: _size(r.size_bytes, c.size), 3),
    Column("load", lambda c: f"load {c.load.symbol}", lambda r, c: _load(r.load_ns, c.load), 4),
    Column("first", lambda c: f"first {c.time.symbol}", lambda r, c: _size(r.first_ns, c.time), 7),
    Column("memory", lambda c: f"peak {c.memory.symbol}", lambda r, c: _size(r.peak_memory_bytes, c.memory), 5),
    Column("environment", lambda c: "environment", lambda r, c: names.plain(r.environment, 30), 2, "condition"),
    Column("version", lambda c: "version", lambda r, c: names.plain(r.runtime_version or "", 24), 8, "condition"),
    Column("accelerator", lambda c: "accelerator", lambda r, c: _accelerator(r), 9, "condition"),
    Column("notes", lambda c: "notes", notes_cell, 10),
)


def _accelerator(row: TrialRow) -> str:
    on_cpu = (row.delegate_effective or row.delegate).startswith("cpu")
    return "" if on_cpu else names.plain(row.accelerator or "", 40)


def _threads(row: TrialRow) -> str:
    if row.threads_effective is not None and row.threads_effective != row.threads:
        return f"{row.threads_effective} (asked {row.threads})"
    return f"{row.threads}"


def median_cell(row: TrialRow, ctx: Context) -> str:
    """The median with its interval in the table's unit; ``mean 3.12`` where a vendor's program told that alone."""
    if ranking.is_told(row) and row.latency_mean_ns is not None:
        return f"mean {numbers.significant(row.latency_mean_ns / ctx.time.factor)}"
    return numbers.measured(row.latency_p50_ns, row.latency_p50_low_ns, row.latency_p50_high_ns, ctx.time)


def accuracy_head(ctx: Context) -> str:
    """The head of the column of accuracy."""
    return f"{ctx.metric} %" if ctx.metric_is_fraction else ctx.metric


def _delta_head(ctx: Context) -> str:
    return "Δ points" if ctx.metric_is_fraction else f"Δ {ctx.metric}"


def visible(rows: Sequence[TrialRow], ctx: Context) -> list[Column]:
    """The columns worth showing: identity always, conditions where they vary, measures where one is known."""
    found = []
    for column in COLUMNS:
        cells = {column.cell(row, ctx) for row in rows}
        keep = column.kind == "identity" or (len(cells) > 1 if column.kind == "condition" else any(cells))
        if column.key == "version":
            keep = len({(row.runtime, row.runtime_version) for row in rows}) > len({row.runtime for row in rows})
        if (
            column.key == "environment"
        ):  # where it tells rows apart: most delegates have one environment that they run in
            places = {(row.runtime, row.delegate) for row in rows}
            keep = len({(row.runtime, row.delegate, row.environment) for row in rows}) > len(places)
        if column.key == "fidelity" and cells <= {"agree", ""}:
            keep = False
        if keep:
            found.append(column)
    return found


def constants(rows: Sequence[TrialRow], ctx: Context) -> list[tuple[str, str]]:
    """What is the same in every row, said once above the table: ``("threads", "1")``."""
    said = []
    for column in COLUMNS:
        if column.kind != "condition":
            continue
        cells = {column.cell(row, ctx) for row in rows}
        if len(cells) == 1 and (text := cells.pop()) and not (column.key == "environment" and text == "host"):
            said.append((column.head(ctx), text))
    measured = [row for row in rows if ranking.is_measured(row)]
    repetitions = {row.repetitions for row in measured}
    if repetitions:
        said.append(("repetitions", "1" if repetitions == {1} else _span(repetitions)))
    levels = {reason.code: reason.level for row in rows for reason in row.reasons}
    shared = sorted(code for code in ctx.shared_codes if levels.get(code) != "note")
    if shared:
        said.append(("every row:", ", ".join(names.plain(code.replace("_", " "), 40) for code in shared)))
    return said


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def absent_text(row: TrialRow) -> str:
    """Why there is no number: ``left out: ...`` or ``failed: ...``, the advice after it."""
    lead = {"excluded": "left out", "failed": "failed", "interrupted": "interrupted"}.get(row.status, "not measured")
    if row.error is None:
        return lead if row.status != "done" else "not measured: no sample was recorded"
    message = names.plain(row.error.message, 400).rstrip(".")
    return f"{lead}: {message}"


def cells(rows: Sequence[TrialRow], columns: Sequence[Column], ctx: Context, *, wide: bool) -> list[list[str]]:
    """The text of each cell, by row; numbers padded to stand on one decimal point (``wide``: figure spaces)."""
    space = (
        {"figure": numbers.FIGURE_SPACE, "point": numbers.PUNCTUATION_SPACE} if wide else {"figure": " ", "point": " "}
    )
    by_column = []
    for column in columns:
        texts = [column.cell(row, ctx) for row in rows]
        by_column.append(numbers.aligned(texts, **space) if column.right else texts)
    return [list(texts) for texts in zip(*by_column, strict=True)] if rows else []
