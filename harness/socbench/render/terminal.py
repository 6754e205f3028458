"""Prints to a terminal: at most 100 columns, no colour when piped or under NO_COLOR."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from socbench.records import ComparedPair, Device, Json, ReportData, SessionInfo, TrialRow
from socbench.render import columns, compare, concerns, conclusion, names, numbers, ranking, sentences

WIDTH = 100
_GAP = 2
_STYLES = {"suspect": "yellow", "void": "red", "told": "dim", "absent": "dim"}
_DECISION_STYLES = {
    "faster": "green",
    "slower": "red",
    "no_difference": "",
    "cannot_tell": "yellow",
    "not_comparable": "dim",
    "missing": "red",
    "failed": "red",
}


def make_console(stream: TextIO | None = None) -> Console:
    """A console on ``stream`` (standard output) of at most 100 columns; 100 when it is no terminal."""
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    return console


def print_results(console: Console, data: ReportData) -> None:
    """The answer in sentences, one table a model, and each warning with its advice."""
    for said in sentences.answer(data):
        console.print(Text(said))
        console.print()
    for section in ranking.sections(data):
        _print_section(console, section)
        console.print()
    _print_concerns(console, ranking.concerning_rows(data.rows))


def results_lines(data: ReportData) -> list[str]:
    """The tables of ``print_results`` as lines of plain text, 100 columns wide at most."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, no_color=True, force_terminal=False, highlight=False, markup=False)
    for section in ranking.sections(data):
        _print_section(console, section)
        console.print()
    return out.getvalue().splitlines()


def _print_section(console: Console, section: ranking.Section) -> None:
    ctx = columns.context(section.rows)
    shown = columns.visible(section.rows, ctx)
    heads = [column.head(ctx) for column in shown]
    texts = columns.cells(section.rows, shown, ctx, wide=False)
    kept = _fitting(shown, heads, texts, console.width)
    widths = {index: _width(index, heads, texts, section.rows) for index in kept}
    parts = [section.title]
    if len(section.devices) == 1:
        parts.append(section.devices[0].device)
    parts += [f"{head} {text}" for head, text in columns.constants(section.rows, ctx)]
    console.print(Text(" · ".join(parts)), style="bold")
    _line(console, [_fit(heads[index], widths[index], shown[index].right) for index in kept], "dim")
    number = 0
    folded = ranking.folded(section)
    for device in section.devices:
        if len(section.devices) > 1:
            console.print(Text(device.device), style="bold", no_wrap=True, overflow="ellipsis")
        for group, rows in device.groups:
            for row in rows:
                style = _STYLES.get(group, "")
                if folded and row.status == "excluded":
                    pass
                elif group == "absent":
                    _print_absent(console, row, kept, shown, texts[number], widths)
                else:
                    cells = [_fit(texts[number][index], widths[index], shown[index].right) for index in kept]
                    mark = {"suspect": " ?", "void": " ✗", "loses": " ↓"}.get(group, "")
                    _line(console, cells, style, mark)
                number += 1
    if folded:
        console.print(Text(f"{folded} combinations were left out: the reasons stand below."), style="dim")
    _print_marks(console, section)


def _print_marks(console: Console, section: ranking.Section) -> None:
    found = {group for device in section.devices for group, _ in device.groups}
    said = {
        "loses": "↓ may lose accuracy",
        "suspect": "? suspect, not ranked",
        "void": "✗ void, not ranked",
        "told": "mean: no median was told, not ranked",
    }
    marks = [text for group, text in said.items() if group in found]
    if marks:
        console.print(Text("   ".join(marks)), style="dim")


def _print_absent(
    console: Console,
    row: TrialRow,
    kept: Sequence[int],
    shown: Sequence[columns.Column],
    texts: Sequence[str],
    widths: dict[int, int],
) -> None:
    identity = [index for index in kept if shown[index].kind != "measure"]
    cells = [_fit(texts[index], widths[index], False) for index in identity]
    room = console.width - sum(widths[index] + _GAP for index in identity)
    reason = columns.absent_text(row)
    if cell_len(reason) > room:
        reason = set_cell_size(reason, max(room - 1, 1)).rstrip() + "…"
    _line(console, [*cells, reason], "dim")


def _width(index: int, heads: Sequence[str], texts: Sequence[Sequence[str]], rows: Sequence[TrialRow]) -> int:
    most = max((cell_len(cells[index]) for cells in texts), default=0)
    return min(max(cell_len(heads[index]), most), 28)


def _fitting(
    shown: Sequence[columns.Column], heads: Sequence[str], texts: Sequence[Sequence[str]], room: int
) -> list[int]:
    """Indices of the columns that fit into ``room``; those of high priority number go first, ``notes`` always."""
    kept = [index for index, column in enumerate(shown) if column.key not in ("notes", "version", "accelerator")]

    def needed() -> int:
        return sum(_width(index, heads, texts, ()) + _GAP for index in kept) + 2

    while needed() > room and len(kept) > 1:
        worst = max(kept, key=lambda index: (shown[index].priority, index))
        if shown[worst].priority == 0:
            break
        kept.remove(worst)
    return kept


def _fit(text: str, width: int, right: bool) -> str:
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - length) + text if right else text + " " * (width - length)


def _line(console: Console, cells: Sequence[str], style: str = "", mark: str = "") -> None:
    text = (" " * _GAP).join(cells) + mark
    console.print(Text(text.rstrip()), style=style, no_wrap=True, overflow="ellipsis", crop=True)


def _print_concerns(console: Console, rows: Sequence[TrialRow]) -> None:
    for concern in concerns.gathered(rows):
        style = {"invalid": "red", "suspect": "yellow", "absent": ""}.get(concern.level, "dim")
        where = f" ({names.count(len(concern.seen), 'row')})" if len(concern.seen) > 1 else ""
        console.print(Text(f"{concern.title}{where}"), style=style)
        for who, what in concern.seen[:3]:
            console.print(Text(f"  {who}{': ' if what else ''}{what}"), no_wrap=False)
        if len(concern.seen) > 3:
            console.print(Text(f"  and {names.count(len(concern.seen) - 3, 'row')} more"))
        if concern.advice:
            console.print(Text(f"  → {concern.advice}"))


def print_compare(
    console: Console, pairs: Sequence[ComparedPair], *, base: str = "base", candidate: str = "candidate"
) -> None:
    """The conclusion, the table of pairs, and what could not be compared and why."""
    for said in conclusion.compare_answer(pairs, base=base, candidate=candidate):
        console.print(Text(said))
    if not pairs:
        return
    console.print()
    unit = compare.unit_of(pairs)
    many = compare.several_models(pairs)
    order = compare.ordered(pairs)
    lines = [compare.cells(pair, unit, model=many) for pair in order]
    for position in (1, 2, 3):
        column = numbers.aligned([line[position] for line in lines], figure=" ", point=" ")
        for line, text in zip(lines, column, strict=True):
            line[position] = text
    heads = compare.heads(names.plain(base, 18), names.plain(candidate, 18), unit)
    styles = [_DECISION_STYLES[pair.decision] for pair in order]
    _print_table(console, heads, lines, right=(1, 2, 3, 4), styles=styles)
    reasons = conclusion.gathered(order)
    remarks = conclusion.notes(pairs)
    if reasons or remarks:
        console.print()
    for note in remarks:
        console.print(Text(note))
    for text, found in reasons:
        called = [sentences.pair_name(pair, model=many) for pair in found]
        who = called[0] if len(found) == 1 else f"{names.count(len(found), 'row')} ({names.listing(called, 2, '; ')})"
        console.print(Text(f"{who}: {text}"))


def _print_table(
    console: Console,
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    styles: Sequence[str] = (),
) -> None:
    widths = [max(cell_len(row[index]) for row in (heads, *lines)) for index in range(len(heads))]
    over = sum(widths) + _GAP * (len(widths) - 1) - console.width
    while over > 0 and max(widths) > 8:
        widest = widths.index(max(widths))
        cut = min(over, max(1, widths[widest] - 8))
        widths[widest] -= cut
        over -= cut
    if any(heads):
        _line(console, [_fit(head, widths[index], index in right) for index, head in enumerate(heads)], "dim")
    for number, line in enumerate(lines):
        style = styles[number] if styles else ""
        _line(console, [_fit(text, widths[index], index in right) for index, text in enumerate(line)], style)


def print_sessions(console: Console, sessions: Sequence[SessionInfo]) -> None:
    """One line a session, newest first."""
    if not sessions:
        console.print(Text("No sessions yet: `socbench run` makes one."))
        return
    newest = sorted(sessions, key=lambda session: session.started, reverse=True)
    lines = [
        [
            names.plain(session.session, 40),
            names.plain(session.label or "", 24),
            names.plain(session.started)[:16].replace("T", " "),
            names.listing((names.plain(device.name, 24) for device in session.devices), 2),
            ", ".join(
                f"{number:,} {names.plain(status, 12)}" for status, number in session.trial_counts.items() if number
            ),
            names.plain(session.status, 24).replace("_", " "),
        ]
        for session in newest
    ]
    _print_table(console, ["session", "label", "started (UTC)", "devices", "trials", "status"], lines)


def print_devices(console: Console, devices: Sequence[Device]) -> None:
    """One line a device: ready, or why not and what to do."""
    if not devices:
        console.print(Text("No device is attached."))
        return
    lines = [
        [
            names.plain(device.device, 32),
            names.plain(device.name, 40),
            names.plain(device.soc or "", 30) if device.soc != device.name else "",
            names.plain(device.os or "", 24),
            names.plain(device.state, 20) + (", emulated" if device.emulated else ""),
        ]
        for device in devices
    ]
    _print_table(console, ["device", "name", "SoC", "system", "state"], lines)
    for device in devices:
        if device.advice:
            name, advice = names.plain(device.device, 60), names.plain(device.advice, 400)
            console.print(Text(advice if advice.startswith(name) else f"{name}: {advice}"))


def print_models(console: Console, models: Sequence[Json]) -> None:
    """One line a model; the dicts are those of ``models list --json``."""
    if not models:
        console.print(Text("No model is known."))
        return
    # What one chooses by comes first; a narrow terminal leaves out what `models show` says as well.
    task_width = 24 if console.width >= 104 else 20
    kept = [name for name, least in _MODEL_COLUMNS.items() if console.width >= least]
    lines = [[_model_cell(model, name, task_width) for name in kept] for model in models]
    right = tuple(kept.index(name) for name in ("MACs", "size", "runs in", "weights") if name in kept)
    _print_table(console, kept, lines, right=right)


_MODEL_COLUMNS = {
    "model": 0, "task": 0, "input": 88, "MACs": 0, "size": 0, "int8": 0, "runs in": 96, "metric": 0, "licence": 116,
    "weights": 126, "built": 136,
}  # fmt: skip
"""Columns with the width of a terminal that has room for them."""


def _model_cell(model: Json, column: str, task_width: int) -> str:
    """Return what one column of the list of models says of one."""
    variants = model.get("variants") or []
    made = {variant.get("precision") for variant in variants}
    metric, licence, runtimes = model.get("metric"), model.get("licence"), model.get("runtimes")
    if column == "task":
        return names.plain(model.get("task") or "", task_width).replace("_", " ")
    if column == "int8":  # static, or of the weights alone with activations quantised while it runs
        return "yes" if "int8" in made else "dyn." if "int8_dynamic" in made else "no"
    if column == "runs in":
        return "" if runtimes is None else str(len(runtimes))
    if column == "metric":
        kind = metric.get("kind") if isinstance(metric, dict) else metric
        return "fidelity" if kind is None else names.metric_title(kind)
    if column == "licence":
        return names.plain((licence.get("weights") if isinstance(licence, dict) else licence) or "", 16)
    if column == "built":
        return f"{sum(variant.get('sha256') is not None for variant in variants)}/{len(variants)}"
    number = {"MACs": "multiply_adds", "size": "size_bytes", "weights": "parameters"}.get(column)
    if number is None:
        return names.plain(model.get(column) or "", 32 if column == "model" else 14)
    value = model.get(number)
    unit, form = {"MACs": (1e9, "{:.2f} G"), "size": (1e6, "{:.1f} MB"), "weights": (1e6, "{:.2f} M")}[column]
    return form.format(value / unit) if isinstance(value, int) else ""


_STATES = {"works": "green", "partial": "yellow", "emulated": "yellow", "wrong_answer": "red", "unavailable": "dim"}


def print_doctor(console: Console, checks: Sequence[Json]) -> None:
    """One line a runtime and delegate with what it says, and how to fix what fails."""

    def said(check: Json, key: str, say: Callable[[str], str] = names.plain) -> str:
        return say(str(check[key])) if check.get(key) is not None else ""

    many = len({check.get("device") for check in checks}) > 1
    lines = []
    for check in checks:
        line = [names.plain(check.get("device"), 24)] if many else []
        line += [
            said(check, "runtime", names.runtime_title),
            said(check, "runtime_version"),
            said(check, "delegate", names.delegate_title),
            said(check, "state").replace("_", " "),
            said(check, "accelerator") or said(check, "reason"),
        ]
        lines.append(line)
    if not lines:
        console.print(Text("No runtime was found: `socbench runtimes install all` installs them."))
        return
    heads = (["device"] if many else []) + ["runtime", "version", "on", "state", ""]
    _print_table(console, heads, lines, styles=[_STATES.get(str(check.get("state")), "") for check in checks])
    fixes = {
        (names.plain(check.get("reason") or "", 300), names.plain(check["fix"], 300)): check
        for check in checks
        if check.get("fix")
    }
    for (reason, fix), check in fixes.items():
        where = f"{said(check, 'runtime', names.runtime_title)} {said(check, 'delegate', names.delegate_title)}".strip()
        console.print(Text(f"{where}: {reason + '. ' if reason else ''}→ {fix}"))


def print_settings(console: Console, settings: Sequence[Json]) -> None:
    """One line a setting of a phone: what it is, and what ``run --prepare`` would make of it."""
    if not settings:
        return
    many = len({one["device"] for one in settings}) > 1
    lines = []
    for one in settings:
        wanted = one["prepared"]
        says = "" if wanted is None else "as it is" if wanted == one["value"] else names.plain(wanted, 24)
        line = [names.plain(one["setting"], 40), names.plain(one["value"], 24).replace("null", "not set"), says]
        lines.append([names.plain(one["device"], 24), *line] if many else line)
    console.print()
    _print_table(console, (["device"] if many else []) + ["setting", "is", "with run --prepare"], lines)
