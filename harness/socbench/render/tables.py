"""Tables for machines and for text: JSON and CSV with every field, Markdown with what people read."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from socbench.records import ComparedPair, Device, Json, ReportData, SessionInfo, TrialRow
from socbench.render import columns, names, numbers, ranking

_FIDELITY: Final = ("cosine", "max_abs", "max_relative", "top1_agreement", "within_tolerance")


def rows_json(rows: Sequence[TrialRow]) -> list[Json]:
    """The rows as ``results trials --json`` prints them; not known is ``None``, never NaN.

    ``reasons`` holds codes; what was seen and the advice are under ``reason_details``.
    """
    return [_row_json(row) for row in rows]


def _row_json(row: TrialRow) -> Json:
    out = {field.name: getattr(row, field.name) for field in fields(row)}
    out["error"] = None if row.error is None else asdict(row.error)
    out["reasons"] = [reason.code for reason in row.reasons]
    out["reason_details"] = [asdict(reason) for reason in row.reasons]
    out["fidelity"] = None if row.fidelity is None else asdict(row.fidelity)
    cleaned = numbers.clean(out)
    assert isinstance(cleaned, dict)
    return cleaned


_SUSTAINED: Final = (
    *("session", "trial", "device", "device_name", "soc", "model", "variant", "runtime", "delegate", "precision"),
    *("threads", "cores", "status", "error", "verdict", "reasons", "samples", "latency_p50_ns"),
)


def sustained_json(rows: Sequence[TrialRow]) -> list[Json]:
    """The rows of sustained runs as ``sustained --json`` prints them: the row's key, then its thermal analysis."""
    out = []
    for one in rows_json(rows):
        thermal = {name: value for name, value in (one["thermal"] or {}).items() if name != "segments"}
        out.append({**{name: one[name] for name in _SUSTAINED}, **thermal})
    return out


def compare_json(pairs: Sequence[ComparedPair]) -> list[Json]:
    """The pairs as ``compare --json`` prints them: the key's fields first, then the ratio and the decision."""
    out = []
    for pair in pairs:
        one: dict[str, Any] = dict(pair.key)
        for field in fields(pair):
            if field.name not in ("key", "base", "candidate"):
                one[field.name] = getattr(pair, field.name)
        for side, row in (("base", pair.base), ("candidate", pair.candidate)):
            one[f"{side}_session"] = None if row is None else row.session
            one[f"{side}_trial"] = None if row is None else row.trial
            one[f"{side}_verdict"] = None if row is None else row.verdict
        cleaned = numbers.clean(one)
        assert isinstance(cleaned, dict)
        out.append(cleaned)
    return out


def sessions_json(sessions: Sequence[SessionInfo]) -> list[Json]:
    """The sessions as ``results list --json`` prints them."""
    return [
        {
            "session": session.session,
            "label": session.label,
            "started": session.started,
            "ended": session.ended,
            "devices": [device.device for device in session.devices],
            "trials": dict(session.trial_counts),
            "status": session.status,
            "socbench_version": session.socbench_version,
        }
        for session in sessions
    ]


def devices_json(devices: Sequence[Device]) -> list[Json]:
    """The devices as ``devices --json`` prints them."""
    return [asdict(device) for device in devices]


def report_json(data: ReportData, compare: Sequence[ComparedPair] | None = None) -> str:
    """Sessions, rows and, where there is one, the comparison as one JSON document."""
    document: Json = {"sessions": [numbers.clean(asdict(session)) for session in data.sessions]}
    document["rows"] = rows_json(data.rows)
    if compare is not None:
        document["compare"] = compare_json(compare)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def rows_csv(rows: Sequence[TrialRow]) -> str:
    """Every field of every row as CSV (header line, raw units, empty where not known).

    Text that a spreadsheet would run as a formula is given a leading apostrophe.
    """
    heads = [field.name for field in fields(TrialRow) if field.name not in ("error", "fidelity")]
    heads += ["error_code", "error_message", "error_advice", *(f"fidelity_{name}" for name in _FIDELITY)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    for row in rows:
        one = _row_json(row)
        error, fidelity = one.pop("error") or {}, one.pop("fidelity") or {}
        one.update({f"error_{name}": error.get(name) for name in ("code", "message", "advice")})
        one.update({f"fidelity_{name}": fidelity.get(name) for name in _FIDELITY})
        one["reasons"] = ";".join(one["reasons"])
        writer.writerow([_csv_cell(one[head]) for head in heads])
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, allow_nan=False) if value else ""
    if isinstance(value, str):
        return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return value


def rows_markdown(rows: Sequence[TrialRow], models: Json | None = None) -> str:
    """The main tables as Markdown, one a model; ``models`` is ``SessionInfo.models`` (for titles)."""
    return "\n".join(
        section_markdown(section) for section in ranking.sections(ReportData((), tuple(rows)), models=models)
    )


def section_markdown(section: ranking.Section) -> str:
    """One table under its heading, what is the same everywhere above it."""
    ctx = columns.context(section.rows)
    shown = columns.visible(section.rows, ctx)
    lines = [f"### {escape_markdown(section.title)}", ""]
    same = [f"{head} {text}" for head, text in columns.constants(section.rows, ctx)]
    if same:
        lines += [escape_markdown(", ".join(same)), ""]
    many = len(section.devices) > 1
    heads = (["device"] if many else []) + [column.head(ctx) for column in shown]
    rules = (["---"] if many else []) + ["--:" if column.right else "---" for column in shown]
    lines += [_line(heads), "|" + "|".join(rules) + "|"]
    for device in section.devices:
        for row in device.rows:
            lines.append(_line(([device.device] if many else []) + _markdown_cells(row, shown, ctx)))
    return "\n".join(lines) + "\n"


def _markdown_cells(row: TrialRow, shown: Sequence[columns.Column], ctx: columns.Context) -> list[str]:
    texts = [column.cell(row, ctx) for column in shown]
    group = ranking.group_of(row)
    first = next(index for index, column in enumerate(shown) if column.kind != "identity" or index == len(shown) - 1)
    if group == "absent":
        position = next((index for index, column in enumerate(shown) if column.key in ("median", "size")), first)
        texts[position] = columns.absent_text(row)
    elif group in ("suspect", "void"):
        texts[0] += f" ({names.verdict_title(row.verdict)})"
    return texts


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    """Text that stays text in Markdown and in the HTML that it becomes."""
    text = names.plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~@#])", r"\\\1", text)
