"""Prints a plan: what will be measured, how long it takes, and what is left out and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from socbench.cli.output import failure_text, printable
from socbench.records import Failure, Plan, TrialPlan

if TYPE_CHECKING:
    from rich.console import Console


def plan_json(plan: Plan) -> list[dict[str, Any]]:
    """Return one object a trial, names as in ``results trials``; ``error`` says why an excluded one is left out."""
    repetitions = _repetitions(plan)
    return [
        {
            **{name: value for name, value in asdict(trial).items() if name not in ("excluded", "settings")},
            "status": "excluded" if trial.excluded else "planned",
            "error": asdict(trial.excluded) if trial.excluded else None,
            "repetitions": repetitions[trial.trial],
            "settings": asdict(trial.settings),
            "plan_seed": plan.seed,
            "plan_estimate_s": plan.estimate_s,
        }
        for trial in plan.trials
    ]


def print_plan(console: Console, plan: Plan) -> None:
    """Print a table of the trials that will run, the estimate, and the reasons of what is left out."""
    from rich.table import Table

    repetitions = _repetitions(plan)
    running = [trial for trial in plan.trials if not trial.excluded]
    several = len({trial.device for trial in plan.trials}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = [*(["device"] if several else []), "model", "variant", "runtime", "delegate", "scenario"]
    for head in heads:
        table.add_column(head, overflow="fold")
    table.add_column("threads", justify="right")
    table.add_column("repeat", justify="right")
    for trial in running:
        words = [str(getattr(trial, head)) for head in heads]
        table.add_row(*map(printable, words), str(trial.threads), str(repetitions[trial.trial]))
    if running:
        console.print(table, markup=False)
        size = f"{count(len(running), 'trial')}, {count(sum(repetitions.values()), 'repetition')}"
        console.print(f"\n{size}, {duration(plan.estimate_s)}; seed {plan.seed}", markup=False, highlight=False)
    else:
        console.print("Nothing would be measured.", markup=False)
    _print_left_out(console, plan)


def _print_left_out(console: Console, plan: Plan) -> None:
    from rich.padding import Padding
    from rich.text import Text

    groups: dict[Failure, list[TrialPlan]] = defaultdict(list)
    for trial in plan.trials:
        if trial.excluded:
            groups[trial.excluded].append(trial)
    if groups:
        console.print(f"\nLeft out: {sum(map(len, groups.values()))}", style="bold")
    for failure, trials in groups.items():
        names = sorted({f"{trial.model} {trial.variant} {trial.runtime} {trial.delegate}" for trial in trials})
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for text, indent in ((shown, 2), (f"{failure.code}: {failure_text(failure)}", 4)):
            console.print(Padding(Text(printable(text)), (0, 0, 0, indent), expand=False))


def _repetitions(plan: Plan) -> Counter[str]:
    return Counter(place.trial for order in plan.order.values() for place in order)


def count(number: int, what: str) -> str:
    """Return ``1 trial`` or ``2 trials``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def duration(seconds: float | None) -> str:
    """Return ``about 2 min 30 s``, or that the time is not known."""
    if seconds is None:
        return "time not known"
    whole = max(1, round(seconds))
    if whole < 60:
        return f"about {whole} s"
    if whole < 3600:
        return f"about {whole // 60} min {whole % 60:02d} s"
    return f"about {whole // 3600} h {whole % 3600 // 60:02d} min"
