"""One self-contained HTML page: no network, no script, light and dark, readable when printed."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from socbench.content import content
from socbench.records import ComparedPair, Device, ReportData, Scheduling, SessionInfo, TrialRow
from socbench.render import columns, concerns, dots, figures, names, numbers, ranking, sentences, tables
from socbench.render.compare import html_section, side_names

_LARGEST_CSV: Final = 400_000
"""Bytes of CSV that the page carries for download; a larger one is left to ``socbench report -o rows.csv``."""

_METHOD: Final = (
    "Every repetition ran in a process of its own, in an order that was shuffled with a recorded seed. The timed part "
    "is one inference and nothing else: inputs were in place before, results were readable at the end. The first "
    "inferences, up to the point where timings were steady, are kept and not counted.",
    "The headline is the median. Its 95 % interval is Student's t on the logarithms of the repetitions' medians, so "
    "one repetition has none. p99 is given from 300 inferences on. No sample was dropped.",
    "The delegate and the precision are read back from the runtime, not taken from the request. The answers were "
    "compared with a reference on the same inputs before and after timing; a row whose answers are wrong is void, "
    "however fast. A row is trusted when nothing speaks against it; only trusted rows are ranked.",
)


def report_html(
    data: ReportData, *, compare: Sequence[ComparedPair] | None = None, sides: tuple[str, str] | None = None
) -> str:
    """The page as text. Every word that comes from a device, a file or the user is escaped."""
    folder = content("reports")
    environment = Environment(
        loader=FileSystemLoader(folder / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / "style.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(_page(data, compare, sides, style))


def _page(
    data: ReportData, compare: Sequence[ComparedPair] | None, sides: tuple[str, str] | None, style: str
) -> dict[str, Any]:
    found = ranking.sections(data)
    counter = _Counter()
    gathered = concerns.gathered(ranking.concerning_rows(data.rows))
    csv_text = tables.rows_csv(data.rows)
    return {
        "title": page_title(data),
        "meta": _meta(data),
        "version": names.plain(data.sessions[-1].socbench_version, 30) if data.sessions else "",
        "style": Markup(style),
        "answers": sentences.answers(data),
        "comparison": None if compare is None else _comparison(compare, sides or side_names(compare), counter),
        "sections": [_section(data, section, number, counter) for number, section in enumerate(found)],
        "time_figures": [_figure(figure, counter) for figure in figures.time_figures(data)],
        "doubts": [one for one in gathered if one.level != "note"],
        "notes": [one for one in gathered if one.level == "note"],
        "conditions": _conditions(data),
        "method": _METHOD,
        "commands": [
            shlex.join(names.plain(word) for word in session.argv) for session in data.sessions if session.argv
        ],
        "data_words": f"{names.count(len(data.rows), 'trial')} of {names.count(len(data.sessions), 'session')}.",
        "csv_link": _csv_link(csv_text),
        "row_count": names.count(len(data.rows), "row"),
        "trial_heads": [head for head, _ in _TRIAL_COLUMNS],
        "trials": [[say(row) for _, say in _TRIAL_COLUMNS] for row in data.rows],
    }


def _comparison(pairs: Sequence[ComparedPair], sides: tuple[str, str], counter: _Counter) -> dict[str, Any]:
    section = html_section(pairs, *sides)
    return {**section, "picture": None if section["picture"] is None else _figure(section["picture"], counter)}


class _Counter:
    """Numbers figures, so that ids in one page never meet."""

    def __init__(self) -> None:
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number


def page_title(data: ReportData) -> str:
    """``MobileNetV2 on Pixel 9 Pro and 2 more``: what was measured on what."""
    found = ranking.sections(data)
    if not found:
        return "Nothing to report"
    models = list(dict.fromkeys(section.title for section in found))
    devices = list(dict.fromkeys(device.device for section in found for device in section.devices))
    more = f" and {len(devices) - 1} more" if len(devices) > 1 else ""
    return f"{names.listing((names.plain(model, 80) for model in models), 2)} on {devices[0]}{more}"


def _meta(data: ReportData) -> str:
    parts = []
    for session in data.sessions[:4]:
        when = names.plain(session.started, 40)[:16].replace("T", " ") + " UTC"
        label = names.plain(session.label, 60) + ", " if session.label else ""
        status = "" if session.status == "complete" else f" ({names.plain(session.status, 40).replace('_', ' ')})"
        parts.append(f"{label}{when}{status}")
    if len(data.sessions) > 4:
        parts.append(f"and {len(data.sessions) - 4} more sessions")
    return " · ".join(parts)


def _csv_link(text: str) -> str | None:
    raw = text.encode("utf-8")
    return None if len(raw) > _LARGEST_CSV else "data:text/csv;base64," + base64.b64encode(raw).decode("ascii")


def _figure(figure: figures.Figure, counter: _Counter) -> dict[str, Any]:
    return {
        "title": figure.title,
        "caption": figure.caption,
        "svg": Markup(figures.inline_svg(figure, counter.next())),
        "heads": figure.heads,
        "cells": figure.cells,
    }


def _section(data: ReportData, section: ranking.Section, number: int, counter: _Counter) -> dict[str, Any]:
    ctx = columns.context(section.rows)
    shown = [column for column in columns.visible(section.rows, ctx) if column.key != "first"]
    used = dots.scale(section.rows, ctx.time)
    told = any(ranking.is_told(row) for row in section.rows)
    if used is None and not told:
        shown = [column for column in shown if column.kind != "measure"]
    facts = [names.plain(section.task, 60).replace("_", " ")] if section.task else []
    if section.scenario != "single_stream":
        facts.append(names.scenario_title(section.scenario))
    if len(section.devices) == 1:
        facts.append(section.devices[0].device)
    facts += [f"{head} {text}" for head, text in columns.constants(section.rows, ctx)]
    drawn = figures.section_figures(data, section, number)
    counts = {row.accuracy_count for row in section.rows if row.accuracy_count}
    if counts and any(row.accuracy is not None for row in section.rows):
        facts.append(f"{ctx.metric} on {max(counts):,} labelled inputs")
    return {
        "title": section.title,
        "facts": facts,
        "columns": _heads(shown, ctx, used, told),
        "blocks": _blocks(section, shown, ctx, used),
        "left_out": _left_out(section, ctx),
        "key": _key(section.rows) if used else "",
        "lead": [_figure(figure, counter) for figure in drawn if figures.is_answer(figure)],
        "figures": [_figure(figure, counter) for figure in drawn if not figures.is_answer(figure)],
    }


def _kind(column: columns.Column) -> str:
    return column.key if column.key in ("notes", "fidelity") else column.kind


def _heads(
    shown: Sequence[columns.Column], ctx: columns.Context, used: dots.Scale | None, told: bool
) -> list[dict[str, Any]]:
    heads: list[dict[str, Any]] = []
    for column in shown:
        heads.append({"head": column.head(ctx), "kind": _kind(column), "axis": None})
        if column.key == "median" and used is not None:
            heads.append({"head": "", "kind": "plot", "axis": Markup(dots.axis_svg(used))})
    return heads if used is not None or told else [*heads, {"head": "why not", "kind": "notes", "axis": None}]


def _blocks(
    section: ranking.Section, shown: Sequence[columns.Column], ctx: columns.Context, used: dots.Scale | None
) -> list[dict[str, Any]]:
    texts = iter(columns.cells(section.rows, shown, ctx, wide=True))
    folded = ranking.folded(section)
    blocks = []
    for device in section.devices:
        groups = []
        for group, rows in device.groups:
            lines = []
            for row in rows:
                cells = _cells(row, next(texts), shown, ctx, used, group)
                if not (folded and row.status == "excluded"):
                    lines.append({"id": row.trial, "cells": cells})
            if lines:
                groups.append({"name": group, "title": ranking.GROUP_TITLES[group], "rows": lines})
        blocks.append({"device": device.device if len(section.devices) > 1 else "", "groups": groups})
    return blocks


def _left_out(section: ranking.Section, ctx: columns.Context) -> dict[str, Any] | None:
    """The folded table of what was left out, where that is much; precisions that share a reason share a line."""
    if not ranking.folded(section):
        return None
    many = len(section.devices) > 1
    lines: dict[tuple[str, ...], list[str]] = {}
    for device in section.devices:
        for row in device.rows:
            if row.status == "excluded":
                where = (names.runtime_title(row.runtime), columns.ran_on(row, ctx), " ".join(_why_not(row)).strip())
                lines.setdefault(((device.device,) if many else ()) + where, []).append(columns.ran_as(row, ctx))
    return {
        "summary": f"{names.count(ranking.folded(section), 'combination')} left out, and why",
        "heads": (["device"] if many else []) + ["runtime", "on", "precision", "why"],
        "cells": [[*where[:-1], ", ".join(dict.fromkeys(asked)), where[-1]] for where, asked in lines.items()],
    }


def _why_not(row: TrialRow) -> tuple[str, str]:
    """Why a row has no number, and what to do about it ("" where nothing is known)."""
    advice = names.sentence(names.plain(row.error.advice, 400)) if row.error and row.error.advice else ""
    return columns.absent_text(row) + ".", advice


def _cells(
    row: TrialRow,
    texts: Sequence[str],
    shown: Sequence[columns.Column],
    ctx: columns.Context,
    used: dots.Scale | None,
    group: ranking.Group,
) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for column, text in zip(shown, texts, strict=True):
        if group == "absent" and column.kind == "measure":
            break
        cells.append({"text": text, "kind": _kind(column), "span": 0, "advice": ""})
        if column.key == "median" and used is not None:
            cells.append({"text": Markup(dots.row_svg(row, used, ctx.time)), "kind": "plot", "span": 0, "advice": ""})
    total = len(shown) + 1
    if group == "absent":
        text, advice = _why_not(row)
        cells.append({"text": text, "kind": "reason", "span": max(total - len(cells), 1), "advice": advice})
    return cells


def _key(rows: Sequence[TrialRow]) -> Markup:
    """What marks mean, as far as this table uses them."""
    measured = [row for row in rows if ranking.is_measured(row)]
    parts = []
    seen: set[str] = set()
    for row in measured:
        for kind, said in (
            (f"r:{row.runtime}", names.runtime_title(row.runtime)),
            (
                f"d:{dots.marker_of(row)}",
                names.delegate_title((row.delegate_effective or row.delegate).partition(":")[0]),
            ),
            (
                f"p:{dots.bits_of(row)}",
                {32: "full: fp32", 16: "half: 16 bit", 8: "hollow: 8 bit or less"}[dots.bits_of(row)],
            ),
        ):
            if kind not in seen:
                seen.add(kind)
                parts.append((kind, escape(said), dots.key_svg(row, coloured=kind[0] == "r")))
    parts.sort(key=lambda part: "rdp".index(part[0][0]))
    many = {letter: sum(part[0][0] == letter for part in parts) for letter in "rdp"}
    marks = Markup(" ").join(Markup(f"<span>{svg}{said}</span>") for kind, said, svg in parts if many[kind[0]] > 1)
    wide = any("÷" in columns.median_cell(row, columns.context(rows)) for row in measured)
    factor = Markup(f" <span>{numbers.WITHIN} 12: from a twelfth to twelve times</span>") if wide else Markup("")
    return (
        marks
        + factor
        + Markup(" <span>thick line: 95 % interval of the median</span> <span>thin line: up to p99</span>")
    )


_TRIAL_COLUMNS: Final = (
    ("trial", lambda row: names.plain(row.trial, 40)),
    ("session", lambda row: names.plain(row.session, 40)),
    ("device", lambda row: names.plain(row.device, 60)),
    ("model", lambda row: names.plain(row.model, 60)),
    ("variant", lambda row: names.plain(row.variant, 60)),
    ("runtime", lambda row: names.plain(f"{row.runtime} {row.runtime_version or ''}", 60)),
    ("delegate", lambda row: names.plain(row.delegate, 60)),
    ("ran on", lambda row: names.plain(row.delegate_effective or "not known", 60)),
    ("evidence", lambda row: row.delegation_evidence),
    ("nodes", lambda row: "not known" if row.nodes_total is None else f"{row.nodes_delegated} of {row.nodes_total}"),
    ("environment", lambda row: names.plain(row.environment, 40)),
    ("scenario", lambda row: names.plain(row.scenario)),
    ("status", lambda row: row.status),
    ("verdict", lambda row: names.verdict_title(row.verdict)),
    ("inferences", lambda row: f"{row.samples:,}"),
    ("file sha256", lambda row: names.plain(row.model_sha256 or "not known", 64)),
)


def _conditions(data: ReportData) -> list[dict[str, Any]]:
    devices = list({device.key: device for session in data.sessions for device in session.devices}.values())
    found = [
        {"title": "Devices", "heads": ["device", "what is known of it"], "cells": [_device(one) for one in devices]}
    ]
    runtimes = {
        (
            names.runtime_title(row.runtime),
            names.plain(row.runtime_version or "not known", 40),
            names.plain(row.environment, 40),
        )
        for row in data.rows
    }
    found.append(
        {"title": "Runtimes", "heads": ["runtime", "version", "environment"], "cells": sorted(map(list, runtimes))}
    )
    heads = ["session", "label", "started (UTC)", "ended (UTC)", "status", "seed", "socbench"]
    found.append({"title": "Sessions", "heads": heads, "cells": [_session(session) for session in data.sessions]})
    return [table for table in found if table["cells"]]


def _device(device: Device) -> list[str]:
    cores = ", ".join(
        f"{len(cluster.cpus)} x {names.plain(cluster.name or 'core', 40)}"
        + (f" up to {numbers.significant(cluster.max_khz / 1e6)} GHz" if cluster.max_khz else "")
        for cluster in device.cores
    )
    facts = [
        names.plain(device.soc, 80) if device.soc and device.soc != device.name else "",
        cores,
        f"GPU {names.plain(device.gpu, 60)}" if device.gpu else "",
        f"NPU {names.plain(device.npu, 60)}" if device.npu else "",
        f"{numbers.size_in_sentence(device.ram_bytes)} RAM" if device.ram_bytes else "",
        names.plain(device.os or "", 80),
        f"build {names.plain(device.os_build, 80)}" if device.os_build else "",
        "emulated" if device.emulated else "",
        _scheduling(device.scheduling) if device.scheduling else "",
        f"address {names.plain(device.device, 60)}",
    ]
    return [names.plain(device.name, 120), ", ".join(filter(None, facts))]


def _scheduling(found: Scheduling) -> str:
    """What processes of the shell may use and what an app in front may, where the device showed that (Android)."""
    if found.app_cpus is None and found.app_uclamp_min_permille is None:
        return ""

    def used(who: str, cpus: str | None, low: int | None, high: int | None) -> str:
        limits = "" if low is None or high is None else f", uclamp {low / 10:g} to {high / 10:g} %"
        return f"{who} CPUs {names.plain(cpus or 'not known', 60)}{limits}"

    shell = used("the shell's processes have", found.cpus, found.uclamp_min_permille, found.uclamp_max_permille)
    app = used("an app in front", found.app_cpus, found.app_uclamp_min_permille, found.app_uclamp_max_permille)
    return f"{shell}; {app}"


def _moment(text: str | None) -> str:
    return names.plain(text, 40)[:19].replace("T", " ") if text else "not known"


def _session(session: SessionInfo) -> list[str]:
    return [
        names.plain(session.session, 60),
        names.plain(session.label or "none", 60),
        _moment(session.started),
        _moment(session.ended),
        names.plain(session.status, 40).replace("_", " "),
        f"{session.seed}",
        names.plain(session.socbench_version, 40),
    ]
