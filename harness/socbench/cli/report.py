"""socbench report: write a report: html, md, csv, json, png, svg, pdf"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from socbench.cli import complete, options
from socbench.cli.application import examples, single_command
from socbench.cli.output import print_json, printable
from socbench.errors import FailedError

if TYPE_CHECKING:
    from socbench.records import ReportData

app, command = single_command(
    epilog=examples(
        "socbench report -o report.html  # the latest session",
        "socbench report before after -o both.html  # two: compared, too",
        "socbench report latest -o table.md  # or .csv, .json",
        "socbench report latest -o figure.png  # or .svg, .pdf",
    )
)


@command
def report(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write; the ending chooses the format.",
            show_default=False,
        ),
    ],
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION ...]",
            help="Ids, unique prefixes, labels, or latest.  [default: latest]",
            autocompletion=complete.sessions,
            show_default=False,
        ),
    ] = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Write a report of one or more sessions; prints the path of every file that it wrote.

    Of two sessions it compares the rows that pair, the first being the base; of one run with --ab its two arms.
    """
    check_target(output)
    from socbench import results
    from socbench.render.write import write_report

    folder = options.store_folder(store)
    data = results.report_data(folder, list(sessions or ()))
    pairs = results.report_comparison(folder, data)
    written = write_report(data, output, compare=pairs or None, sides=_sides(data))
    if as_json:
        print_json({"path": str(path), "size_bytes": path.stat().st_size} for path in written)
    else:
        for path in written:
            print(printable(str(path)))


def _sides(data: ReportData) -> tuple[str, str] | None:
    """What two sessions are called: by their labels, by their ids where these do not tell them apart."""
    if len(data.sessions) != 2:
        return None
    one, two = data.sessions
    if one.label and two.label and one.label != two.label:
        return one.label, two.label
    return one.session, two.session


def check_target(target: Path) -> None:
    """Raise FailedError when ``target`` can't be written: said before the store is read, which may take long."""
    folder = target.parent
    if target.is_dir():
        raise FailedError(f"{target} is a folder: name a file in it, for instance -o {target / 'report.html'}")
    if not folder.is_dir():
        raise FailedError(f"{target} cannot be written: there is no folder {folder}, make it first")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise FailedError(f"{target} cannot be written: no permission, name another file")
