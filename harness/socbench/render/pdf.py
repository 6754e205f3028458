"""A PDF: the answer and the tables as text, then one figure a page."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, Final

from socbench.records import ReportData
from socbench.render import concerns, figure_base, figures, ranking, sentences
from socbench.render.html import page_title
from socbench.render.terminal import results_lines

_LINES: Final = 78
_PAGE: Final = (8.27, 11.69)


def report_pdf(data: ReportData, conclusion: Sequence[str] = (), comparison: figure_base.Figure | None = None) -> bytes:
    """The report as a PDF file (A4); ``conclusion`` and ``comparison`` are those of a comparison, if there is one."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    out = io.BytesIO()
    with matplotlib.rc_context(figure_base.RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        with PdfPages(out, metadata={"Title": page_title(data), "CreationDate": None}) as pages:
            for page in _text_pages(data, conclusion):
                pages.savefig(page)
            for figure in [*([] if comparison is None else [comparison]), *figures.figures(data)]:
                drawn = figure.draw()
                figure_base.add_title(drawn, figure)
                figure_base.settle(drawn)
                pages.savefig(drawn)
    return out.getvalue()


def _text_pages(data: ReportData, conclusion: Sequence[str]) -> list[Any]:
    from matplotlib.figure import Figure

    lines = _lines(data, conclusion)
    pages = []
    for start in range(0, len(lines), _LINES):
        page = Figure(figsize=_PAGE)
        if start == 0:
            title = textwrap.wrap(page_title(data), 60)[:3]
            page.text(0.07, 0.955, "\n".join(title), fontsize=15, fontweight="bold", va="top")
        text = "\n".join(lines[start : start + _LINES])
        page.text(0.07, 0.88, text, fontsize=7, family="DejaVu Sans Mono", va="top", linespacing=1.25)
        pages.append(page)
    return pages


def _lines(data: ReportData, conclusion: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for said in [*conclusion, *sentences.answer(data)]:
        lines += [*textwrap.wrap(said, 100), ""]
    lines += results_lines(data)
    for concern in concerns.gathered(ranking.concerning_rows(data.rows)):
        lines += textwrap.wrap(f"{concern.title}. {concern.advice}", 100)
        for who, what in concern.seen[:6]:
            lines += textwrap.wrap(f"{who}: {what}" if what else who, 98, initial_indent="  ", subsequent_indent="  ")
        if len(concern.seen) > 6:
            lines.append(f"  and {len(concern.seen) - 6} more")
        lines.append("")
    return lines
