"""Turns what was asked for into an ordered, seeded list of repetitions; what is left out is named with its reason.

Pure: everything that it must know of devices, models and suites is handed in (``socbench.session.prepare`` gathers it).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from socbench.environments.catalogue import catalogue, version_environment
from socbench.environments.catalogue import environment as find_environment
from socbench.errors import UsageError
from socbench.matrix import DELEGATES, Matrix, check_words, is_external
from socbench.models.cards import Card
from socbench.models.suites import Suite
from socbench.placement import HOST, entries_of
from socbench.records import (
    DELEGATE_CLASSES,
    FORMATS_OF_RUNTIME,
    PRECISIONS,
    RUNTIMES,
    SCENARIOS,
    Device,
    Failure,
    Json,
    MeasuringSettings,
    Plan,
    PlannedRepetition,
    TrialPlan,
    Variant,
)

AB_PAIRS: Final = 14
_ARM_FIELDS: Final = ("runtime", "delegate", "precision", "environment", "threads", "cores", "batch", "model")
_REPETITIONS: Final = 5
_OVERHEAD_S: Final = 1.5
"""Starting a process, importing a runtime, loading and checking a model: for the estimate only."""


@dataclass(frozen=True)
class RunRequest:
    """Every choice of ``socbench run`` (and ``sustained``); empty tuples and ``None`` mean "not said".

    ``targets`` are model names or files of the user's. ``shapes`` maps an input's name to its shape. ``ab`` holds the
    two arms as written (``runtime=litert,delegate=cpu:xnnpack``). ``repeat`` is repetitions a trial, for ``ab`` pairs.
    ``settings`` are a plan file's, instead of the suite's. ``environment`` limits the rows to one environment;
    ``every_environment`` makes a row for each place that a delegate has (the doctor's way) instead of the best.
    """

    targets: tuple[str, ...] = ()
    suite: str | None = None
    devices: tuple[str, ...] = ("local",)
    runtimes: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    threads: int | None = None
    cores: str | None = None
    batch: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    repeat: int | None = None
    min_time_s: float | None = None
    min_count: int | None = None
    precision_target: float | None = None
    ab: tuple[str, str] | None = None
    require_full: bool = False
    allow_emulated: bool = False
    label: str | None = None
    seed: int | None = None
    wait: bool = True
    detach: bool = False
    prepare_device: bool = False
    agent: str = "auto"
    profile: bool = True
    environment: str | None = None
    every_environment: bool = False
    duration_s: float | None = None
    rate_hz: float | None = None
    max_temperature_c: float | None = None
    busy_cores: int | None = None
    watch_cooling_s: float = 0.0
    power_log: Path | None = None
    settings: MeasuringSettings | None = None
    argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceAbilities:
    """A device and what its agent's ``probe`` found (``runtimes``: entries of docs/protocol.md, Capabilities).

    ``accelerators``: what its drivers say of themselves, ``None`` where nobody asked them.
    """

    device: Device
    runtimes: tuple[Json, ...]
    accelerators: Json | None = None

    def runtime(self, name: str, environment: str | None = None) -> Json | None:
        """Return the entry of a runtime, ``None`` when the probe did not name it."""
        return next(iter(entries_of(self.runtimes, name, environment)), None)


@dataclass(frozen=True)
class ModelChoice:
    """One model of a plan: its card (made from the file for ``own_file``) and its variants, built or not.

    ``missing`` says for a variant's name why its file can't be had, ``unlabelled`` why the labelled data can't.
    """

    card: Card
    variants: tuple[Variant, ...]
    own_file: bool = False
    missing: Mapping[str, Failure] = field(default_factory=dict)
    unlabelled: Failure | None = None


def expand(
    request: RunRequest,
    devices: Sequence[DeviceAbilities],
    models: Sequence[ModelChoice],
    *,
    suite: Suite | None = None,
    seed: int,
) -> Plan:
    """Return the plan of ``request``: matrix models x runtimes x delegates x precisions x scenarios on every device.

    Combinations that can't run stay in the plan as excluded trials with a true reason and advice.

    Raises:
        UsageError: a runtime, delegate, precision, scenario or arm that nobody knows, with the nearest name.
    """
    request = _with_suite(request, suite)
    check_names(request, devices)
    arms: list[tuple[str | None, RunRequest]] = [(None, request)]
    if request.ab is not None:
        arms = list(zip("AB", _arms(request, request.ab), strict=True))
    for _, asked in arms:
        check_names(asked, devices)
        if asked.environment is not None and asked.environment != request.environment:
            _check_environment(asked.environment, devices)
    trials: list[TrialPlan] = []
    for abilities in devices:
        for model in models:
            for arm, asked in arms:
                row = Matrix(asked, abilities, model, suite, arm)
                trials += row.trials()
    numbered = tuple(dataclasses.replace(trial, trial=f"t{number:03d}") for number, trial in enumerate(trials, 1))
    order = {abilities.device.device: _order(request, numbered, abilities.device.device, seed) for abilities in devices}
    by_id = {trial.trial: trial for trial in numbered}
    estimates = [sum(_seconds(by_id[entry.trial]) for entry in entries) for entries in order.values()]
    return Plan(numbered, order, seed, round(max(estimates, default=0.0), 1))


def runtimes_needed(request: RunRequest, models: Sequence[ModelChoice], suite: Suite | None) -> tuple[str, ...]:
    """Return the runtimes that a device must be asked about: those named, else those that take a file of the models.

    Raises UsageError for a runtime, delegate, precision or scenario that nobody knows, before any device is touched.
    """
    request = _with_suite(request, suite)
    check_names(request, ())
    arms = _arms(request, request.ab) if request.ab is not None else [request]
    for arm in arms:
        check_names(arm, ())
    named = [name for arm in arms for name in arm.runtimes]
    check_words("runtime", named, RUNTIMES)
    if all(arm.runtimes for arm in arms):
        return tuple(dict.fromkeys(named))
    formats = {variant.format for model in models for variant in model.variants}
    return tuple(name for name in RUNTIMES if formats & set(FORMATS_OF_RUNTIME[name]))


def check_names(request: RunRequest, devices: Sequence[DeviceAbilities]) -> None:
    """Raise UsageError for a runtime, delegate, precision or scenario that nobody knows, with the nearest name."""
    probed = {str(entry["runtime"]) for abilities in devices for entry in abilities.runtimes}
    check_words("runtime", request.runtimes, {*RUNTIMES, *probed})
    check_words("precision", request.precisions, PRECISIONS)
    check_words("scenario", request.scenarios, SCENARIOS)
    delegates = {*DELEGATE_CLASSES, *(name for names in DELEGATES.values() for name in names)}
    for abilities in devices:
        for entry in abilities.runtimes:
            delegates |= {str(d.get("delegate")) for d in entry.get("delegates", ())}
    named = [name for name in request.delegates if not is_external(name)]
    check_words("delegate", named, delegates)
    if request.duration_s is not None and request.duration_s <= 0:
        raise UsageError(f"a sustained run of {request.duration_s:g} s is none: give --duration more than 0")


def _with_suite(request: RunRequest, suite: Suite | None) -> RunRequest:
    """Return the request with what it leaves open taken from the suite."""
    if suite is None:
        return request
    return dataclasses.replace(
        request,
        runtimes=request.runtimes or suite.runtimes,
        delegates=request.delegates or suite.delegates,
        precisions=request.precisions or suite.precisions,
        scenarios=request.scenarios or suite.scenarios,
        threads=request.threads or suite.threads,
        repeat=request.repeat or suite.repetitions,
    )


def _arms(request: RunRequest, texts: Iterable[str]) -> list[RunRequest]:
    """Return the requests of the arms of ``--ab``. Arms that differ in their environment measure its runtime alone:
    ``host`` has others, and with them no counterpart.
    """
    arms = [_arm(request, text) for text in texts]
    if any(arm.runtimes for arm in arms):
        return arms
    made = [find_environment(arm.environment) for arm in arms if arm.environment not in (None, HOST)]
    runtimes = tuple(dict.fromkeys(one.runtime for one in made if one.runtime))
    return [dataclasses.replace(arm, runtimes=runtimes) for arm in arms] if runtimes else arms


def _arm(request: RunRequest, text: str) -> RunRequest:
    """Return the request of one arm of ``--ab``: ``field=value`` pairs put over the rest."""
    changes: dict[str, object] = {}
    for pair in text.split(","):
        name, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not value:
            raise UsageError(
                f"--ab {text!r} is no list of field=value pairs, such as runtime=litert,delegate=cpu:xnnpack"
            )
        check_words("field of --ab", [name], _ARM_FIELDS)
        if name in ("threads", "batch"):
            if not value.isdigit() or int(value) < 1:
                raise UsageError(f"--ab {text!r}: {name} must be a number of at least 1")
            changes[name] = int(value)
        elif name in ("cores", "environment"):
            changes[name] = value
        else:
            plural = {"runtime": "runtimes", "delegate": "delegates", "precision": "precisions", "model": "targets"}
            changes[plural[name]] = (value,)
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


def _check_environment(name: str, devices: Sequence[DeviceAbilities]) -> None:
    there = {HOST, *(str(e.get("environment", HOST)) for abilities in devices for e in abilities.runtimes)}
    known = name in catalogue() or version_environment(name) is not None
    if known and name not in there:
        raise UsageError(
            f"the environment {name} is not installed, or its runtime is not in this plan: "
            f"socbench runtimes install {name}"
        )
    check_words("environment", [name], there)


def _order(request: RunRequest, trials: Sequence[TrialPlan], device: str, seed: int) -> tuple[PlannedRepetition, ...]:
    """Return the seeded order: rounds over all trials, accuracy once, in the first; A/B alternates in pairs."""
    mine = [trial for trial in trials if trial.device == device and trial.excluded is None]
    chooser = random.Random(f"{seed}:{device}")
    if request.ab is not None:
        return _paired(mine, request.repeat or AB_PAIRS, chooser)
    order = []
    for number in range(1, (request.repeat or _REPETITIONS) + 1):
        once = number == 1
        members = [trial for trial in mine if once or trial.scenario == "single_stream"]
        chooser.shuffle(members)
        order += [PlannedRepetition(trial.trial, number) for trial in members]
    return tuple(order)


def _paired(trials: Sequence[TrialPlan], pairs: int, chooser: random.Random) -> tuple[PlannedRepetition, ...]:
    """Return pairs: the rows of both arms that differ in nothing else. Which arm goes first is drawn, each as often as
    the other: what drifts through the session, or hangs on being second, then favours none.
    """
    arms = [[trial for trial in trials if trial.ab_arm == arm] for arm in "AB"]
    same = [
        name
        for name in ("model", "precision", "scenario")
        if {getattr(trial, name) for trial in arms[0]} == {getattr(trial, name) for trial in arms[1]}
    ]
    groups: dict[tuple[str, ...], list[TrialPlan]] = {}
    for trial in trials:
        groups.setdefault(tuple(getattr(trial, name) for name in same), []).append(trial)
    keys = list(groups)
    firsts = {key: _balanced(pairs, chooser) for key in keys}
    order = []
    for number in range(1, pairs + 1):
        chooser.shuffle(keys)
        for key in keys:
            swapped = firsts[key][number - 1]
            members = sorted(groups[key], key=lambda trial: trial.ab_arm or "", reverse=swapped)
            order += [PlannedRepetition(trial.trial, number) for trial in members]
    return tuple(order)


def _balanced(count: int, chooser: random.Random) -> list[bool]:
    drawn = [index % 2 == 0 for index in range(count)]
    chooser.shuffle(drawn)
    return drawn


def _seconds(trial: TrialPlan) -> float:
    """Return about how long one repetition takes; what an inference takes is not known yet."""
    settings = trial.settings
    if trial.scenario == "accuracy":
        return _OVERHEAD_S + 3.0
    return _OVERHEAD_S + min(1.0, settings.warmup_max_s) + max(settings.min_time_s, 0.2)
