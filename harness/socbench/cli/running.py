"""What ``run`` and its kin share: run a session with live progress, then say what came out and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from socbench.cli.output import message, print_json
from socbench.cli.plan_table import plan_json, print_plan
from socbench.cli.progress import watching
from socbench.errors import UsageError
from socbench.plan import RunRequest
from socbench.records import ComparedPair

if TYPE_CHECKING:
    from socbench.session import SessionResult


def show_plan(request: RunRequest, *, as_json: bool) -> int:
    """Print what ``request`` would measure, its time and what is left out and why; returns the exit code."""
    from socbench.session import plan_session

    with watching() as progress:
        plan = plan_session(request, progress=progress)
    if as_json:
        print_json(plan_json(plan))
    else:
        from socbench.render.terminal import make_console

        print_plan(make_console(), plan)
    return 0


def run_and_show(request: RunRequest, *, resume: str | None, store: Path, as_json: bool) -> int:
    """Run (or resume) a session and print its results; returns the exit code.

    Results come after an interruption too: what was finished is kept, so it is shown.
    """
    from socbench.session import resume_session, run_session

    with watching() as progress:
        if resume is None:
            result = run_session(request, store=store, progress=progress)
        else:
            result = resume_session(resume, store=store, progress=progress, wait=request.wait)
    return show_ended(result, argv=request.argv, store=store, as_json=as_json)


def collect_and_show(session: str, *, argv: Sequence[str], wait: bool, store: Path, as_json: bool) -> int:
    """Fetch what a detached run measured and print it; returns the exit code."""
    from socbench.session import resume_session

    with watching() as progress:
        result = resume_session(session, store=store, progress=progress, collect=True, wait=wait)
    return show_ended(result, argv=argv, store=store, as_json=as_json)


def show_ended(result: SessionResult, *, argv: Sequence[str], store: Path, as_json: bool) -> int:
    """Print what came of a session, and how to get its report; returns the exit code."""
    from socbench.session import store_option

    if result.status == "detached":
        if as_json:
            print_json([{"session": result.session, "status": "running"}])
        return result.exit_code
    show_results(result.session, store=store, as_json=as_json)
    if not as_json and result.status.startswith("complete"):  # otherwise the session has said how to go on with it
        report = f"socbench report {result.session} -o report.html{store_option(argv, store)}"
        message(f"Session {result.session}. Report: {report}")
    return result.exit_code


def run_lasting(request: RunRequest, *, store: Path, as_json: bool) -> int:
    """Run a sustained session and print what came of it; returns the exit code.

    JSON is one object a trial: what identifies it, then the members of its ``thermal`` (without its segments).
    """
    if not as_json:
        return run_and_show(request, resume=None, store=store, as_json=False)
    from socbench import results
    from socbench.render.tables import sustained_json
    from socbench.session import run_session

    with watching() as progress:
        result = run_session(request, store=store, progress=progress)
    print_json(sustained_json(results.trial_rows(store, result.session)))
    return result.exit_code


def show_results(session: str, *, store: Path, as_json: bool) -> None:
    """Print a session's rows: JSON, or the answer in sentences, a table a model and the warnings.

    A session of ``--ab`` ends with what its comparison says; in JSON the rows of arm B have it as ``comparison``.
    """
    from socbench import results

    if as_json:
        from socbench.render.tables import compare_json, rows_json

        found = results.trial_rows(store, session)
        rows = rows_json(found)
        if any(row.ab_arm for row in found):
            decided = {one["candidate_trial"]: one for one in compare_json(_decided(session, store))}
            rows = [{**row, "comparison": decided.get(row["trial"])} for row in rows]
        print_json(rows)
        return
    from socbench.render.terminal import make_console, print_compare, print_results

    console = make_console()
    data = results.report_data(store, [session])
    print_results(console, data)
    pairs = _decided(session, store) if any(row.ab_arm for row in data.rows) else []
    if pairs:
        from socbench.render.compare import side_names

        base, candidate = side_names(pairs)
        console.print()
        print_compare(console, pairs, base=base, candidate=candidate)


def _decided(session: str, store: Path) -> list[ComparedPair]:
    """Return the comparison of a session's arms; none where not both were measured."""
    from socbench import results

    try:
        return results.compare_rows(store, session)
    except UsageError:
        return []
