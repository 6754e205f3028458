"""socbench results: list, show, query, label, move and remove sessions"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from socbench.cli import complete, options
from socbench.cli.application import command_group, examples
from socbench.cli.output import message, print_json, printable
from socbench.cli.report import check_target
from socbench.errors import UsageError

app, command = command_group(
    "List, show, query, label, move and remove sessions of the results store.",
    default="list",
    epilog=examples(
        "socbench results  # all sessions",
        "socbench results show latest",
        "socbench results trials before --json  # every row, for scripts",
        "socbench results history resnet8 -d local -o history.svg",
        "socbench results label latest before",
        "socbench results export latest -o run.zip",
        "socbench results attach-power latest meter.csv",
        "socbench results sql 'SELECT session, count(*) FROM samples GROUP BY ALL'",
    ),
)

SessionWord = Annotated[
    str,
    typer.Argument(
        metavar="SESSION", help="Id, unique prefix, label, or latest.", autocompletion=complete.sessions,
        show_default=False,
    ),
]  # fmt: skip
SessionWords = Annotated[
    list[str],
    typer.Argument(
        metavar="SESSION ...", help="Ids, unique prefixes, labels, or latest.", autocompletion=complete.sessions,
        show_default=False,
    ),
]  # fmt: skip


@command("list")
def list_sessions(store: options.Store = None, as_json: options.Json = False) -> None:
    """List the sessions of the store, newest first."""
    from socbench import results

    folder = options.store_folder(store)
    # Before the first run there is no store, and nothing in it is true; a folder that was named and isn't there is not.
    sessions = results.session_list(folder) if store is not None or folder.is_dir() else []
    if as_json:
        from socbench.render.tables import sessions_json

        print_json(sessions_json(sessions))
        return
    if not sessions:
        message(f"No sessions in {folder} yet: socbench run makes one.")
        return
    from socbench.render.terminal import make_console, print_sessions

    print_sessions(make_console(), sessions)


@command()
def show(session: options.Session = None, store: options.Store = None, as_json: options.Json = False) -> None:
    """Show one session: what it ran on, the answer in sentences, its tables and its warnings."""
    from socbench import results

    folder = options.store_folder(store)
    info = results.session_info(folder, session)
    if as_json:
        print_json([asdict(info)])
        return
    from socbench.render.terminal import make_console, print_results

    print(printable(f"Session {info.session}" + (f" ({info.label})" if info.label else "") + f": {info.status}"))
    print(printable(f"  started {info.started}, by socbench {info.socbench_version}"))
    print(printable(f"  {' '.join(info.argv)}"))
    for device in info.devices:
        about = ", ".join(part for part in (device.name, device.soc, device.os) if part)
        print(printable(f"  {device.device}: {about}"))
    print()
    print_results(make_console(), results.report_data(folder, [info.session]))


@command()
def trials(session: options.Session = None, store: options.Store = None, as_json: options.Json = False) -> None:
    """Print every row of one session: latency, memory, accuracy, what ran, verdict."""
    from socbench.cli.running import show_results

    show_results(session or "latest", store=options.store_folder(store), as_json=as_json)


@command()
def samples(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id (see results trials).")],
    session: Annotated[
        str, typer.Option(metavar="SESSION", help="The trial's session.", autocompletion=complete.sessions)
    ] = "latest",
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Print every single inference of a trial: repetition, phase, start and latency, in nanoseconds (CSV, or JSON)."""
    from socbench import results

    folder = options.store_folder(store)
    frame = results.open_results(folder).samples(session, trial)
    if frame.empty:
        known = {row.trial for row in results.trial_rows(folder, session)}
        if trial not in known:
            from socbench.cli.outermost import nearest

            raise UsageError(
                f"session {session} has no trial {trial!r}{nearest(trial, known)} (see socbench results trials)"
            )
    _print_frame(frame, as_json=as_json, as_csv=True)


@command()
def history(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.", autocompletion=complete.models)],
    device: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--device",
            metavar="DEVICE",
            help="Only this device.",
            autocompletion=complete.devices,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Draw it: .svg, .png or .pdf.", show_default=False),
    ] = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Follow a model's rows over all sessions: medians in time, the steps found in them and what changed with them."""
    from socbench import results

    if output is not None:
        check_target(output)
    found = results.history(options.store_folder(store), model, device=device)
    if as_json:
        print_json(found)
        return
    if not found:
        message(f"No row of {model} in the store yet: socbench run {model} measures it.")
        return
    from socbench.render.history import history_lines

    for entry in found:
        for line in history_lines(entry):
            print(printable(line))
    if output is not None:
        _draw_history(found, output)


def _draw_history(found: list[dict[str, Any]], output: Path) -> None:
    """Write one picture a key: the first to ``output``, the others beside it with a number."""
    from socbench.render.figure_base import rendered
    from socbench.render.history import picture

    kind = output.suffix[1:].lower()
    if kind not in ("svg", "png", "pdf"):
        raise UsageError(f"{output} can't be drawn: name a file that ends in .svg, .png or .pdf")
    for number, entry in enumerate(found, 1):
        path = output if number == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")
        path.write_bytes(rendered(picture(entry), kind))
        message(f"Wrote {path}.")


@command()
def label(
    session: SessionWord,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The label; none takes it away.")] = None,
    store: options.Store = None,
) -> None:
    """Give a session a label, under which every command then finds it."""
    from socbench.store import manage

    found = manage.label(options.store_folder(store), session, text)
    message(f"Session {found} is now called {text!r}." if text else f"Session {found} has no label now.")


@command()
def rm(
    sessions: SessionWords,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove it even while it runs.")] = False,
    store: options.Store = None,
) -> None:
    """Remove sessions for good. Asks first on a terminal."""
    from socbench.store import manage, reader

    folder = options.store_folder(store)
    # All are found before the first is removed: a typo in the second removes nothing.
    names = [found.name for found in reader.resolve_many(folder, sessions)]
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Remove {', '.join(names)} for good?", err=True):
        message("Nothing removed.")
        return
    for name in names:
        message(f"Removed session {manage.remove(folder, name, force=force)}.")


@command()
def seal(session: SessionWord, store: options.Store = None) -> None:
    """Close an interrupted session as it is: it can't be resumed afterwards and never changes again."""
    from socbench.store import manage

    message(f"Sealed session {manage.seal(options.store_folder(store), session)}.")


@command("attach-power")
def attach_power(
    session: SessionWord,
    log: Annotated[
        Path, typer.Argument(metavar="FILE.csv", help="The meter's log: lines time,watts.", show_default=False)
    ],
    device: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--device",
            metavar="DEVICE",
            help="The device that the meter was on, where the session has several.",
            autocompletion=complete.devices,
            show_default=False,
        ),
    ] = None,
    store: options.Store = None,
) -> None:
    """Add the log of an external power meter to a session that has ended: energy per inference then shows.

    Times are seconds since 1970 or ISO 8601 with a time zone. A log of the same name replaces the earlier one.
    """
    from socbench import results
    from socbench.render.sentences import power_sentences
    from socbench.store import power

    folder = options.store_folder(store)
    found = power.attach(folder, session, log, device)
    message(f"{found.readings:,} of {found.of:,} readings of {log.name} belong to session {found.session}.")
    rows = [row for row in results.trial_rows(folder, found.session) if row.device == found.device]
    for sentence in power_sentences(rows):
        message(printable(sentence))


@command()
def export(
    sessions: SessionWords,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help=".zip, .tar or .tar.gz.", show_default=False)
    ],
    store: options.Store = None,
) -> None:
    """Write sessions to one archive, every sample included."""
    from socbench.store import manage

    check_target(output)
    found = manage.export(options.store_folder(store), sessions, output)
    message(f"Wrote {', '.join(found)} to {output}.")


@command("import")
def import_(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="What results export wrote.", show_default=False)],
    store: options.Store = None,
) -> None:
    """Take the sessions of an archive into the store."""
    from socbench.store import manage

    if not archive.is_file():
        raise UsageError(f"there is no file {archive} to import: name what socbench results export wrote")
    found = manage.import_archive(options.store_folder(store), archive)
    message(f"Imported {', '.join(found)}." if found else f"{archive} holds no session that the store lacks.")


@command()
def merge(
    other: Annotated[Path, typer.Argument(metavar="DIR", help="Another results store.", show_default=False)],
    store: options.Store = None,
) -> None:
    """Copy the sessions of another store that this one lacks."""
    from socbench.store import manage

    if not other.is_dir():
        raise UsageError(f"there is no folder {other} to merge: name another results store")
    found = manage.merge(options.store_folder(store), other)
    message(f"Merged {', '.join(found)}." if found else f"{other} holds no session that this store lacks.")


@command()
def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One DuckDB query.", show_default=False)],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Query all sessions with SQL: views sessions, trials, repetitions, samples, telemetry, ops, outputs."""
    from socbench import results

    _print_frame(results.open_results(options.store_folder(store)).sql(query), as_json=as_json, as_csv=as_csv)


def _print_frame(frame: Any, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_json(_records(frame))
    elif as_csv:
        frame.to_csv(sys.stdout, index=False)
    else:
        print(printable(frame.to_string(index=False, na_rep="")))


def _records(frame: Any) -> list[dict[str, Any]]:
    # pandas has several words for "not known" (NaN, NaT, NA); JSON has null.
    import pandas as pd

    return [
        {str(name): None if pd.api.types.is_scalar(value) and pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]
