"""socbench compare: pair the rows of two sessions and say what is faster"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from socbench.cli import complete, options
from socbench.cli.application import examples, single_command
from socbench.cli.output import message, print_json
from socbench.cli.report import check_target
from socbench.errors import FailedError, UsageError

if TYPE_CHECKING:
    from socbench.records import ComparedPair

app, command = single_command(
    epilog=examples(
        "socbench compare before after  # two sessions by their labels",
        "socbench compare latest --by runtime  # the runtimes of one session",
        "socbench compare latest  # the arms of run --ab",
        "socbench compare before after -o c.html  # with a picture",
        "socbench compare main latest --fail-above 5% --junit gate.xml",
    )
)


@command
def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="The session that is compared with.",
            autocompletion=complete.sessions,
            show_default=False,
        ),
    ],
    candidate: Annotated[
        str | None,
        typer.Argument(
            metavar="[CANDIDATE]",
            help="The session that is judged; left away with --by or after run --ab.",
            autocompletion=complete.sessions,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS",
            help="Compare rows along runtime, delegate, precision, variant or device.",
            autocompletion=lambda incomplete: [a for a in _AXES if a.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="A condition that may differ (threads, os_build ...); repeat or separate by commas.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=options.fraction,
            help="Differences inside this share are no difference.  [default: 3%]",
            show_default=False,
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=options.fraction,
            help="Exit with 1 when a row is slower by more than this, missing, failed or void.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --fail-above: fail on rows that cannot be told, too.")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, one case a pair.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write Markdown, for a pull request.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write a report of the comparison: .html, .md, .json, .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> int:
    """Compare sessions row by row: the ratio of the medians with its interval, and a decision for each pair."""
    if strict and fail_above is None:
        raise UsageError("--strict tightens the gate of --fail-above: add --fail-above, for instance --fail-above 5%")
    for target in (junit, markdown, output):
        if target is not None:
            check_target(target)
    from socbench import results

    folder = options.store_folder(store)
    pairs = results.compare_rows(
        folder, base, candidate,
        by=by, allow=options.listed(allow), margin=margin,
    )  # fmt: skip
    names = _sides(pairs, base, candidate, by)
    if as_json:
        from socbench.render.tables import compare_json

        print_json(compare_json(pairs))
    else:
        from socbench.render.terminal import make_console, print_compare

        print_compare(make_console(), pairs, **names)
    if markdown is not None:
        from socbench.render.compare import compare_markdown

        _write(markdown, compare_markdown(pairs, fail_above=fail_above, strict=strict, **names))
    if junit is not None:
        from socbench.render.compare import compare_junit

        _write(junit, compare_junit(pairs, fail_above=fail_above or 0.0, strict=strict))
    if output is not None:
        from socbench.render.write import write_report

        sessions = [base] if candidate is None else [base, candidate]
        sides = (names["base"], names["candidate"])
        data = results.report_data(folder, sessions)
        for path in write_report(data, output, compare=pairs, sides=sides, pictures_of="comparison"):
            message(f"Wrote {path}.")
    if fail_above is not None and not _gate(pairs, fail_above, strict=strict):
        return 1
    if all(pair.decision == "not_comparable" for pair in pairs if pair.base and pair.candidate):
        message("socbench: not one row can be compared, for the reasons given (--allow FIELD frees a condition)")
        return 2
    return 0


def _gate(pairs: Sequence[ComparedPair], fail_above: float, *, strict: bool) -> bool:
    """Say on standard error whether the gate holds, and return it."""
    from socbench.render.compare import gate_sentence, several_models
    from socbench.render.names import listing
    from socbench.render.ranking import gate_failures
    from socbench.render.sentences import pair_name

    passed, sentence = gate_sentence(pairs, fail_above, strict=strict)
    many = several_models(pairs)
    failing = gate_failures(pairs, fail_above, strict=strict)
    rows = listing((pair_name(pair, model=many) for pair in failing), by="; ")
    message(f"socbench: the gate {'passed' if passed else 'failed'}: {sentence}" + (f": {rows}" if rows else ""))
    return passed


_AXES = ("runtime", "delegate", "precision", "variant", "device")


def _sides(pairs: Sequence[ComparedPair], base: str, candidate: str | None, by: str | None) -> dict[str, str]:
    """Return what the two sides are called: sessions as the user wrote them, values of the axis, arms of --ab."""
    if candidate is not None:
        return {"base": base, "candidate": candidate}
    if by is None:
        from socbench.render.compare import side_names

        return dict(zip(("base", "candidate"), side_names(pairs), strict=True))
    field = by
    bases = {str(getattr(pair.base, field, None)) for pair in pairs if pair.base}
    others = {str(getattr(pair.candidate, field, None)) for pair in pairs if pair.candidate}
    return {
        "base": bases.pop() if len(bases) == 1 else "base",
        "candidate": others.pop() if len(others) == 1 else "other",
    }


def _write(target: Path, text: str) -> None:
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise FailedError(f"{target} cannot be written: {problem.strerror}") from problem
