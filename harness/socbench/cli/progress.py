"""Live progress of a session on standard error: one line a device while a terminal watches, plain lines otherwise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from socbench.cli.output import failure_text, printable
from socbench.records import Failure, Plan, TrialPlan
from socbench.session import DeviceProgress, LogProgress, Progress

if TYPE_CHECKING:
    from rich.text import Text

_PHASES = {
    "cool_down": "cooling",
    "import": "importing",
    "load": "loading",
    "first": "first run",
    "check": "checking",
    "warmup": "warming up",
    "measure": "measuring",
    "profile": "profiling",
    "dataset": "accuracy",
    "provision": "copying",
    "ended": "done",
}


def is_live(stream: Any = None, environment: Any = None) -> bool:
    """Say whether a live line may be drawn: a terminal that can move its cursor, and nobody asked for plain text."""
    stream = sys.stderr if stream is None else stream
    environment = os.environ if environment is None else environment
    return bool(stream.isatty()) and environment.get("TERM") != "dumb" and not environment.get("NO_COLOR")


@contextmanager
def watching() -> Iterator[Progress]:
    """Give the progress for this process: live on a terminal, a log elsewhere; the live lines are gone afterwards."""
    if not is_live():
        yield PlainProgress(sys.stderr)
        return
    live = LiveProgress()
    try:
        yield live
    finally:
        live.close()


class PlainProgress(LogProgress):
    """The session's own log, with a line when a repetition begins, so that a CI log shows where it stands."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._shown: dict[str, tuple[str, int | None]] = {}
        self._minutes: dict[str, int] = {}

    def _line(self, text: str) -> None:
        super()._line(printable(text))

    def update(self, state: DeviceProgress) -> None:
        """Print one line for each repetition, when its device first reports it."""
        if state.trial is None:
            return
        self._tell_lasting(state)
        now = (state.trial.trial, state.repetition)
        if self._shown.get(state.device) != now:
            self._shown[state.device] = now
            left = f", {_left(state.left_s)}" if state.left_s is not None else ""
            self._line(f"[{min(state.done + 1, state.total)}/{state.total}] {state.device} {what(state)}{left}")

    def _tell_lasting(self, state: DeviceProgress) -> None:
        """Print where a sustained run is, once a minute of its own time."""
        if state.latency_ns is None or state.left_s is None or state.left_s < 1:
            return
        minute = int(state.left_s // 60)
        if self._minutes.get(state.device) not in (None, minute):
            warm = "" if state.temperature_milli_c is None else f", {state.temperature_milli_c / 1000:.0f} °C"
            self._line(f"{state.device} {_lasting(state)}{warm}, {_left(state.left_s)}")
        self._minutes[state.device] = minute

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Print a trial that failed, why and what to do; the others have had their lines."""
        if failure is not None:
            self._line(f"{trial.device} {name(trial)}: {status}: {failure_text(failure)}")


class LiveProgress:
    """Draws one line a device and keeps it up to date; sentences scroll above it. Implements ``Progress``."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console(stderr=True, highlight=False)
        self._states: dict[str, tuple[DeviceProgress, float]] = {}
        self._step = ""
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._live.start()

    def close(self) -> None:
        """Take the live lines away."""
        self._live.stop()

    def step(self, text: str) -> None:
        """Show the step of the preparation in the live line."""
        self._step = text

    def planned(self, session: str, plan: Plan) -> None:
        """Print the size of the plan and its time above the live lines."""
        from socbench.cli.plan_table import count, duration

        self._step = ""
        excluded = sum(trial.excluded is not None for trial in plan.trials)
        repetitions = sum(len(order) for order in plan.order.values())
        left_out = f", {excluded} left out" if excluded else ""
        self._say(
            f"Session {session}: {count(len(plan.trials) - excluded, 'trial')}, {count(repetitions, 'repetition')}"
            f"{left_out}, {duration(plan.estimate_s)}"
        )

    def update(self, state: DeviceProgress) -> None:
        """Remember where a device is; the line is drawn from it a few times a second."""
        self._states[state.device] = (state, time.monotonic())
        if self._step and all(one.phase != "provision" for one, _ in list(self._states.values())):
            self._step = ""  # what was copied for one device is no news once all of them are at work

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Print what failed, above the live lines; what went well is in the table at the end."""
        if failure is not None:
            self._say(f"{name(trial)}: {status}: {failure_text(failure)}", style="yellow")

    def message(self, text: str) -> None:
        """Print a sentence above the live lines."""
        self._say(text, style="yellow")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(printable(text), style=style, markup=False)

    def _render(self) -> Text:
        from rich.text import Text

        width = self._console.width
        # A snapshot: workers' threads add devices while this one draws.
        states = list(self._states.values())
        lines = [device_line(state, width, age_s=time.monotonic() - at) for state, at in states]
        if self._step or not lines:
            lines.insert(0, f"{self._step or 'starting'} ..."[: width - 1])
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


def device_line(state: DeviceProgress, width: int, *, age_s: float = 0.0) -> str:
    """Return the line of one device in fewer than ``width`` columns; what matters least is left away first.

    ``age_s`` is how old ``state`` is: the time left goes on while nothing is reported.
    """
    left = None if state.left_s is None else max(0.0, state.left_s - age_s)
    device = _cut(printable(state.device), max(8, width // 3))
    place = f"{min(state.done + 1, state.total) if state.trial else state.done}/{state.total}"
    doing = _PHASES.get(state.phase, state.phase.replace("_", " "))
    away = state.phase == "reconnecting"
    lasting = not away and state.latency_ns is not None
    if lasting:
        doing = _lasting(state)
    elif not away and state.inferences_per_s:
        doing = f"{_rate(state.inferences_per_s)}/s"
    warm = "" if away or state.temperature_milli_c is None else f"{state.temperature_milli_c / 1000:.0f} °C"
    subject = printable(what(state) or state.detail)
    parts = [device, place, subject, doing, warm, _left(left)]
    if lasting and state.trial is not None:  # how it goes matters more than what it is, which does not change
        for parts[2], parts[3] in (
            (subject, doing),
            (printable(state.trial.model), doing),
            (printable(state.trial.model), _lasting(state, short=True)),
            ("", _lasting(state, short=True)),
        ):
            line = "  ".join(part for part in parts if part)
            if len(line) < width:
                return line
    for dropped in (None, 4, 3):
        if dropped is not None:
            parts[dropped] = ""
        line = "  ".join(part for part in parts if part)
        if len(line) < width:
            return line
    room = width - 1 - (len(line) - len(subject))
    parts[2] = _cut(subject, room)
    return "  ".join(part for part in parts if part)[: width - 1]


def what(state: DeviceProgress) -> str:
    """Return what is being measured: model, precision, runtime, delegate, and which repetition."""
    if state.trial is None:
        return ""
    repetition = f" #{state.repetition}" if state.repetition else ""
    return f"{name(state.trial)}{repetition}"


def name(trial: TrialPlan) -> str:
    """Return a trial's name without what follows from its runtime: the format, a delegate named like it."""
    variant = trial.variant.removeprefix(f"{trial.format}-")
    delegate = trial.delegate.removesuffix(f":{trial.runtime}")
    scenario = "" if trial.scenario == "single_stream" else f" {trial.scenario}"
    return f"{trial.model} {variant} {trial.runtime} {delegate}{scenario}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…" * (room > 0)


def _lasting(state: DeviceProgress, *, short: bool = False) -> str:
    """Return what a sustained run shows of itself: the latency now, whether it is slower than at first and throttled,
    and the second load beside it; ``short`` without why and how much."""
    from socbench.render.numbers import in_sentence

    said = [in_sentence(state.latency_ns or 0.0)]
    if state.slowdown is not None:
        said.append(f"{state.slowdown:.2f} times as slow" if state.slowdown >= 1.1 else "not slowed")
        why = "" if short or not state.throttled else f": {state.throttled}"
        said.append(f"throttled{why}" if state.throttled else "not throttled")
    busy = state.trial.settings.busy_cores if state.trial else None
    if busy:
        said.append(f"{busy} busy" if short else f"{busy} {'core' if busy == 1 else 'cores'} busy beside it")
    return ", ".join(said)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = round(seconds)
    return f"{whole} s left" if whole < 60 else f"{whole // 60}:{whole % 60:02d} left"
