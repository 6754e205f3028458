"""Writes a report in the format that the target's ending asks for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from socbench.errors import FailedError, UsageError
from socbench.records import ComparedPair, ReportData
from socbench.render import compare as comparison
from socbench.render import names, ranking, sentences, tables
from socbench.render.conclusion import compare_answer

if TYPE_CHECKING:
    from socbench.render.figure_base import Figure

ENDINGS: Final = (".html", ".md", ".csv", ".json", ".png", ".svg", ".pdf")


Compared = Sequence[ComparedPair] | None
Sides = tuple[str, str] | None


def write_report(
    data: ReportData,
    target: Path,
    *,
    compare: Compared = None,
    sides: Sides = None,
    pictures_of: Literal["all", "comparison"] = "all",
) -> list[Path]:
    """Write ``data`` to ``target`` (.html .md .csv .json .png .svg .pdf by its ending); return every file written.

    ``compare`` adds a comparison, ``sides`` what its two sides are called (default: arms, or labels).

    A picture ending writes the leading figure (the comparison's, if there is one) to ``target`` and the others beside
    it (``STEM-NAME.png``); ``pictures_of="comparison"`` leaves the others out.
    Raises ``UsageError`` for another ending or nothing to show, ``FailedError`` if the target cannot be written.
    """
    ending = target.suffix.lower()
    if ending not in ENDINGS:
        what = f"ends in {ending!r}" if ending else "has no ending"
        raise UsageError(
            f"{str(target)!r} {what}: a report can be {names.listing(ENDINGS, 9).replace(' and ', ' or ')}."
        )
    _check_writable(target)
    if ending in (".png", ".svg"):
        pictures = _pictures(data, compare, sides, pictures_of)
        return _write_pictures(target, ending[1:], pictures)
    contents = _CONTENTS[ending](data, compare, sides)
    _write(target, contents)
    return [target]


def _html(data: ReportData, compare: Compared, sides: Sides) -> bytes:
    from socbench.render.html import report_html

    return report_html(data, compare=compare, sides=sides).encode("utf-8")


def _markdown(data: ReportData, compare: Compared, sides: Sides) -> bytes:
    return report_markdown(data, compare, sides).encode("utf-8")


def _csv(data: ReportData, compare: Compared, sides: Sides) -> bytes:
    return tables.rows_csv(data.rows).encode("utf-8")


def _json(data: ReportData, compare: Compared, sides: Sides) -> bytes:
    return tables.report_json(data, compare).encode("utf-8")


def _pdf(data: ReportData, compare: Compared, sides: Sides) -> bytes:
    from socbench.render.pdf import report_pdf

    return report_pdf(data, _conclusion(compare, sides), _comparison_picture(compare, sides))


_CONTENTS: Final[dict[str, Callable[[ReportData, Compared, Sides], bytes]]] = {
    ".html": _html,
    ".md": _markdown,
    ".csv": _csv,
    ".json": _json,
    ".pdf": _pdf,
}


def report_markdown(data: ReportData, compare: Compared = None, sides: Sides = None) -> str:
    """The report as Markdown: the answer, one table a model, what not to trust, the command that repeats it."""
    import shlex

    from socbench.render import concerns
    from socbench.render.html import page_title

    lines = [f"# {tables.escape_markdown(page_title(data))}", ""]
    for said in sentences.answer(data):
        lines += [tables.escape_markdown(said), ""]
    if compare is not None:
        lines += [_compare_markdown(compare, sides), ""]
    for section in ranking.sections(data):
        lines += [tables.section_markdown(section), ""]
    found = concerns.gathered(ranking.concerning_rows(data.rows))
    if found:
        lines += ["## What not to trust, and why", ""]
    for concern in found:
        rows = "; ".join(f"{who}: {what}" if what else who for who, what in concern.seen[:6])
        more = f"; and {len(concern.seen) - 6} more" if len(concern.seen) > 6 else ""
        lines.append(f"- **{tables.escape_markdown(concern.title)}.** {tables.escape_markdown(concern.advice)}")
        lines.append(f"  {tables.escape_markdown(rows + more)}")
    commands = [shlex.join(names.plain(word) for word in session.argv) for session in data.sessions if session.argv]
    if commands:
        lines += ["", "## Repeat it", "", *(f"    {command}" for command in commands)]
    return "\n".join(lines) + "\n"


def _compare_markdown(compare: Sequence[ComparedPair], sides: Sides) -> str:
    base, candidate = sides or comparison.side_names(compare)
    return comparison.compare_markdown(compare, base=base, candidate=candidate)


def _conclusion(compare: Compared, sides: Sides) -> list[str]:
    if compare is None:
        return []
    base, candidate = sides or comparison.side_names(compare)
    return compare_answer(compare, base=base, candidate=candidate)


def _comparison_picture(compare: Compared, sides: Sides) -> Figure | None:
    from socbench.render.figure_compare import ratios

    return None if compare is None else ratios(compare, *(sides or comparison.side_names(compare)))


def _pictures(data: ReportData, compare: Compared, sides: Sides, of: str) -> list[Figure]:
    from socbench.render import figures

    first = _comparison_picture(compare, sides)
    if first is not None and of == "comparison":
        return [first]
    return [*([] if first is None else [first]), *figures.figures(data)]


def _write_pictures(target: Path, kind: str, pictures: Sequence[Figure]) -> list[Path]:
    from socbench.render import figures

    if not pictures:
        raise UsageError("There is nothing to draw: no row was measured; write .html or .md to see why.")
    written = []
    for number, figure in enumerate(pictures):
        path = target if number == 0 else target.with_name(f"{target.stem}-{figure.name}.{kind}")
        _write(path, figures.rendered(figure, kind))
        written.append(path)
    return written


def _check_writable(target: Path) -> None:
    """Find out before the work that ``target`` cannot be written."""
    folder = target.parent
    if target.is_dir():
        raise FailedError(f"{str(target)!r} is a folder: name a file.")
    if not folder.is_dir():
        raise FailedError(
            f"{str(target)!r} cannot be written: the folder {str(folder)!r} does not exist, make it first."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FailedError(f"{str(target)!r} cannot be written: no permission in {str(folder)!r}, name another place.")


def _write(target: Path, contents: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise FailedError(
            f"{str(target)!r} cannot be written: {reason}; free some space or name another place."
        ) from error
