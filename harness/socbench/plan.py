"""Turns what was asked for into an ordered, seeded list of repetitions; what is left out is named with its reason.

Pure: everything that it must know of devices, models and suites is handed in (``socbench.session.prepare`` gathers it).
"""

from __future__ import annotations

import dataclasses
import difflib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from socbench.errors import UsageError
from socbench.models.cards import Card
from socbench.models.suites import Suite
from socbench.models.variants import pick_recipe
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

DELEGATES: Final[dict[str, tuple[str, ...]]] = {
    "litert": (
        *("cpu:xnnpack", "cpu:builtin", "cpu:reference", "gpu:webgpu", "gpu:opencl", "gpu:gl"),
        *("npu:qualcomm", "npu:mediatek", "npu:google", "npu:samsung", "npu:intel", "nnapi"),
    ),
    "onnxruntime": (
        *("cpu:mlas", "cpu:xnnpack", "cpu:openvino", "gpu:webgpu", "gpu:cuda", "gpu:tensorrt", "gpu:nv_tensorrt_rtx"),
        *("gpu:openvino", "gpu:coreml", "gpu:directml", "npu:qnn", "npu:openvino", "nnapi"),
    ),
    "openvino": ("cpu:openvino", "gpu:intel", "npu:intel", "auto:openvino", "hetero:openvino"),
    "tensorrt": ("gpu:cuda", "npu:dla"),
    "ncnn": ("cpu:ncnn", "gpu:vulkan", "gpu:opencl"),
    "mnn": ("cpu:mnn", "gpu:vulkan", "gpu:opencl"),
    "executorch": ("cpu:xnnpack", "cpu:portable", "gpu:vulkan", "npu:qnn"),
    "null": ("cpu:null", "gpu:null", "npu:null", "nnapi"),
}
"""Delegates by runtime, the plain CPU path first: that is what ``cpu`` means, and what is run when none is named."""

PACKAGES: Final = {
    "litert": "socbench[litert]",
    "onnxruntime": "socbench[onnxruntime]",
    "openvino": "socbench[openvino]",
    "ncnn": "socbench[ncnn]",
    "mnn": "socbench[mnn]",
}
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
    agent: str = "python"
    profile: bool = True
    duration_s: float | None = None
    rate_hz: float | None = None
    max_temperature_c: float | None = None
    argv: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceAbilities:
    """A device and what its agent's ``probe`` found (``runtimes``: entries of docs/protocol.md, Capabilities)."""

    device: Device
    runtimes: tuple[Json, ...]

    def runtime(self, name: str, environment: str | None = None) -> Json | None:
        """Return the entry of a runtime, ``None`` when the probe did not name it."""
        fitting = (
            entry
            for entry in self.runtimes
            if entry.get("runtime") == name and environment in (None, entry.get("environment", "host"))
        )
        return next(fitting, None)


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
    arms = [(None, request)] if request.ab is None else [(arm, _arm(request, arm, devices)) for arm in request.ab]
    names = dict(zip([arm for arm, _ in arms], ("A", "B"), strict=False))
    trials: list[TrialPlan] = []
    for abilities in devices:
        for model in models:
            for arm, asked in arms:
                row = _Matrix(asked, abilities, model, suite, names[arm] if arm else None)
                trials += row.trials()
    numbered = tuple(dataclasses.replace(trial, trial=f"t{number:03d}") for number, trial in enumerate(trials, 1))
    order = {abilities.device.device: _order(request, numbered, abilities.device.device, seed) for abilities in devices}
    by_id = {trial.trial: trial for trial in numbered}
    estimates = [sum(_seconds(by_id[entry.trial]) for entry in entries) for entries in order.values()]
    return Plan(numbered, order, seed, round(max(estimates, default=0.0), 1))


def runtimes_needed(request: RunRequest, models: Sequence[ModelChoice], suite: Suite | None) -> tuple[str, ...]:
    """Return the runtimes that a device must be asked about: those named, else those that take a file of the models.

    Raises UsageError for a runtime, precision or scenario that nobody knows, before any device is touched.
    """
    request = _with_suite(request, suite)
    _check("runtime", request.runtimes, RUNTIMES)
    _check("precision", request.precisions, PRECISIONS)
    _check("scenario", request.scenarios, SCENARIOS)
    words = [pair.partition("=") for arm in request.ab or () for pair in arm.split(",")]
    named = [*request.runtimes, *(value.strip() for name, _, value in words if name.strip() == "runtime")]
    _check("runtime", named, RUNTIMES)
    if named and (request.runtimes or all("runtime=" in arm for arm in request.ab or ())):
        return tuple(dict.fromkeys(named))
    formats = {variant.format for model in models for variant in model.variants}
    return tuple(name for name in RUNTIMES if formats & set(FORMATS_OF_RUNTIME[name]))


def check_names(request: RunRequest, devices: Sequence[DeviceAbilities]) -> None:
    """Raise UsageError for a runtime, delegate, precision or scenario that nobody knows, with the nearest name."""
    probed = {str(entry["runtime"]) for abilities in devices for entry in abilities.runtimes}
    _check("runtime", request.runtimes, {*RUNTIMES, *probed})
    _check("precision", request.precisions, PRECISIONS)
    _check("scenario", request.scenarios, SCENARIOS)
    delegates = {*DELEGATE_CLASSES, *(name for names in DELEGATES.values() for name in names)}
    for abilities in devices:
        for entry in abilities.runtimes:
            delegates |= {str(d.get("delegate")) for d in entry.get("delegates", ())}
    named = [name for name in request.delegates if not _external(name)]
    _check("delegate", named, delegates)
    if request.duration_s is not None and request.duration_s <= 0:
        raise UsageError(f"a sustained run of {request.duration_s:g} s is none: give --duration more than 0")


def _external(delegate: str) -> bool:
    """``npu:FILE``: an external delegate of LiteRT, a shared library."""
    return delegate.startswith("npu:") and ("/" in delegate or delegate.endswith(".so"))


def _check(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = sorted(known)
    for name in given:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            meant = f"did you mean {nearest[0]}? " if nearest else ""
            listed = ", ".join(names) if len(names) <= 12 else f"for instance {', '.join(names[:8])}"
            raise UsageError(f"there is no {what} {name!r}: {meant}socbench knows {listed}")


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


def _arm(request: RunRequest, text: str, devices: Sequence[DeviceAbilities]) -> RunRequest:
    """Return the request of one arm of ``--ab``: ``field=value`` pairs put over the rest."""
    changes: dict[str, object] = {}
    for pair in text.split(","):
        name, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not value:
            raise UsageError(
                f"--ab {text!r} is no list of field=value pairs, such as runtime=litert,delegate=cpu:xnnpack"
            )
        _check("field of --ab", [name], _ARM_FIELDS)
        if name in ("threads", "batch"):
            if not value.isdigit() or int(value) < 1:
                raise UsageError(f"--ab {text!r}: {name} must be a number of at least 1")
            changes[name] = int(value)
        elif name in ("cores", "environment"):
            changes[name] = value
        else:
            plural = {"runtime": "runtimes", "delegate": "delegates", "precision": "precisions", "model": "targets"}
            changes[plural[name]] = (value,)
    environment = changes.pop("environment", None)
    if environment not in (None, "host"):
        raise UsageError(f"--ab {text!r}: there is no environment {environment!r}; this host has only 'host'")
    arm = dataclasses.replace(request, **changes)  # type: ignore[arg-type]
    check_names(arm, devices)
    return arm


def settings_of(request: RunRequest, suite: Suite | None, scenario: str) -> MeasuringSettings:
    """Return when measuring ends: the suite's settings, put over by what the command line says."""
    settings = suite.settings if suite else MeasuringSettings()
    if request.min_time_s is not None:
        settings = dataclasses.replace(
            settings, min_time_s=request.min_time_s, max_time_s=max(settings.max_time_s, 4 * request.min_time_s)
        )
    if request.min_count is not None:
        settings = dataclasses.replace(settings, min_count=request.min_count)
    if request.rate_hz is not None:
        settings = dataclasses.replace(settings, rate_hz=request.rate_hz)
    if scenario == "sustained":
        duration = request.duration_s or 600.0
        settings = dataclasses.replace(settings, min_time_s=duration, max_time_s=duration, min_count=1)
    return settings


@dataclass(frozen=True)
class _Matrix:
    """The rows of one model on one device in one arm."""

    request: RunRequest
    abilities: DeviceAbilities
    model: ModelChoice
    suite: Suite | None
    arm: str | None

    def trials(self) -> Iterator[TrialPlan]:
        others = self.arm is not None and self.request.targets and self.model.card.model not in self.request.targets
        if others and not self.model.own_file:
            return
        suited = {v.variant: v for v in pick_recipe(self.abilities.device, self.model.variants)}
        for runtime in self._runtimes():
            for precision in self._precisions(runtime):
                variant, why = self._variant(runtime, precision, list(suited.values()))
                for delegate, reason in self._delegates(runtime):
                    excluded = self._emulated_device() or self._runtime_missing(runtime) or why or reason
                    for scenario in self._scenarios():
                        yield self._row(runtime, precision, variant, delegate, scenario, excluded)

    def _row(
        self, runtime: str, precision: str, variant: Variant, delegate: str, scenario: str, excluded: Failure | None
    ) -> TrialPlan:
        accuracy = scenario == "accuracy"
        if accuracy and excluded is None and self.model.card.data.evaluation is None:
            excluded = Failure("no_evaluation_data", f"the card of {self.model.card.model} names no labelled data")
        elif accuracy and excluded is None:
            excluded = self.model.unlabelled
        return TrialPlan(
            trial="",
            device=self.abilities.device.device,
            model=self.model.card.model,
            variant=variant.variant,
            format=variant.format,
            precision=precision,
            runtime=runtime,
            delegate=delegate,
            scenario=scenario,
            recipe=variant.recipe,
            model_sha256=variant.sha256,
            size_bytes=variant.size_bytes,
            threads=self.request.threads or 1,
            cores=self.request.cores,
            batch=1 if accuracy else self.request.batch,
            shapes={} if accuracy else dict(self.request.shapes),
            fidelity_to="reference",
            ab_arm=self.arm,
            settings=settings_of(self.request, self.suite, scenario),
            excluded=excluded,
        )

    def _scenarios(self) -> tuple[str, ...]:
        labelled = self.model.card.data.evaluation is not None and not self.model.own_file
        asked = self.request.scenarios
        if not asked:
            return ("single_stream", "accuracy") if labelled and self.arm is None else ("single_stream",)
        if self.suite is not None and not labelled:
            return tuple(scenario for scenario in asked if scenario != "accuracy")
        return asked

    def _runtimes(self) -> list[str]:
        """Return the runtimes of the rows: those asked for, else those there that take a file of this model."""
        if self.request.runtimes:
            return list(self.request.runtimes)
        formats = {variant.format for variant in self.model.variants}
        takes = [name for name in RUNTIMES if formats & set(FORMATS_OF_RUNTIME[name])]
        if "null" not in formats:
            takes = [name for name in takes if name != "null"]
        there = [name for name in takes if self._runtime_missing(name) is None]
        return there or takes

    def _precisions(self, runtime: str) -> list[str]:
        if self.request.precisions:
            return list(self.request.precisions)
        if self.model.own_file:
            return [variant.precision for variant in self.model.variants]
        declared = {variant.precision for variant in self.model.variants}
        return [name for name in ("fp32", "fp16", "int8") if name in declared] or sorted(declared)

    def _variant(self, runtime: str, precision: str, suited: list[Variant]) -> tuple[Variant, Failure | None]:
        """Return the file of a row and why it can't be had; a stand-in without a path where there is none."""
        formats = FORMATS_OF_RUNTIME.get(runtime, ())
        entry = self.abilities.runtime(runtime)
        accepted = [f for f in formats if entry is None or not entry.get("formats") or f in entry["formats"]]
        name = self.model.card.model
        for file_format in accepted:
            for variant in suited:
                if (variant.format, variant.precision) == (file_format, precision):
                    return variant, self.model.missing.get(variant.variant)
        own = next(iter(self.model.variants), None)
        wanted = accepted[0] if accepted else (formats[0] if formats else "unknown")
        if self.model.own_file and own is not None:
            if own.format not in accepted:
                stand_in = dataclasses.replace(own, path=None, precision=precision)
                return stand_in, Failure(
                    "format_not_accepted",
                    f"{runtime} does not take {own.format} files",
                    "a file of yours is measured as it is: use socbench models add to have it converted",
                )
            stand_in = Variant(name, f"{own.format}-{precision}", own.format, precision)
            return stand_in, Failure(
                "precision_not_in_file",
                f"{name} is {own.precision}, not {precision}",
                "a file of yours is measured as it is: use socbench models add to have it converted",
            )
        has = sorted({v.precision for v in suited if v.format in accepted})
        what = f"it has {', '.join(has)}" if has else f"it has no {wanted} file"
        return Variant(name, f"{wanted}-{precision}", wanted, precision), Failure(
            "precision_not_in_card", f"the card of {name} has no {wanted} {precision}: {what}"
        )

    def _emulated_device(self) -> Failure | None:
        if not self.abilities.device.emulated or self.request.allow_emulated:
            return None
        return Failure(
            "emulated",
            f"{self.abilities.device.device} is emulated: its latencies say nothing of a real device",
            "--allow-emulated runs it to check the answers",
        )

    def _runtime_missing(self, runtime: str) -> Failure | None:
        entry = self.abilities.runtime(runtime)
        device = self.abilities.device.device
        if entry is None:
            return Failure("runtime_missing", f"the agent on {device} does not know {runtime}", self._install(runtime))
        error = entry.get("error")
        if not isinstance(error, dict):
            return None
        code, message = str(error.get("code", "runtime_broken")), str(error.get("message", "it does not import"))
        advice = error.get("advice") or self._install(runtime)
        return Failure(code, f"{runtime} can't be used on {device}: {message}"[:1000], str(advice) if advice else None)

    def _install(self, runtime: str) -> str | None:
        if self.abilities.device.device != "local":
            return f"socbench devices setup {self.abilities.device.device}"
        return f"pip install '{PACKAGES[runtime]}'" if runtime in PACKAGES else None

    def _delegates(self, runtime: str) -> list[tuple[str, Failure | None]]:
        known = list(DELEGATES.get(runtime, ()))
        entry = self.abilities.runtime(runtime) or {}
        probed = {str(d.get("delegate")): d for d in entry.get("delegates", ()) if isinstance(d, dict)}
        rows: dict[str, Failure | None] = {}
        for asked in self.request.delegates or self._default_delegate(known, probed):
            names = self._named(asked, known, probed)
            for name in names:
                rows.setdefault(name, self._delegate_problem(runtime, name, known, probed))
            if not names:
                rows.setdefault(asked, self._no_such_class(runtime, asked))
        return list(rows.items())

    @staticmethod
    def _default_delegate(known: list[str], probed: dict[str, Json]) -> tuple[str, ...]:
        names = [*known, *probed]
        return (names[0] if names else "cpu",)

    @staticmethod
    def _named(asked: str, known: list[str], probed: dict[str, Json]) -> list[str]:
        """Return the delegates that a word means: itself, or for a class every one that the device knows of.

        ``cpu`` is the runtime's plain CPU path alone: its reference kernels are for checking, not for racing.
        """
        if asked not in DELEGATE_CLASSES or asked in probed:
            return [asked]
        of_class = [name for name in [*known, *probed] if name.split(":")[0] == asked]
        if asked == "cpu":
            return of_class[:1]
        there = [name for name in dict.fromkeys(of_class) if name in probed]
        return there if probed else list(dict.fromkeys(of_class))

    def _no_such_class(self, runtime: str, asked: str) -> Failure:
        return Failure("delegate_missing", f"{runtime} on {self.abilities.device.device} has no {asked} delegate")

    def _delegate_problem(self, runtime: str, name: str, known: list[str], probed: dict[str, Json]) -> Failure | None:
        entry = probed.get(name)
        device = self.abilities.device.device
        if entry is None:
            if _external(name) and runtime == "litert":
                return None
            fitting = f"it has {', '.join(probed or known)}" if probed or known else "it has none"
            return Failure("delegate_missing", f"{runtime} on {device} has no delegate {name}: {fitting}")
        if not entry.get("available"):
            reason = str(entry.get("reason") or "the probe did not say why")[:1000]
            fix = entry.get("fix")
            return Failure("delegate_missing", f"{name} of {runtime} is not available on {device}: {reason}", fix)
        if entry.get("emulated") and not self.request.allow_emulated:
            accelerator = entry.get("accelerator") or name
            return Failure(
                "emulated",
                f"{name} of {runtime} on {device} is emulated in software ({accelerator}): its latency says nothing",
                "--allow-emulated runs it to check the answers",
            )
        return None


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
    """Return pairs of the two arms of each model, the one that goes first alternating: A B, B A, A B ..."""
    models = list(dict.fromkeys((trial.model, trial.scenario) for trial in trials))
    order = []
    for number in range(1, pairs + 1):
        chooser.shuffle(models)
        for key in models:
            members = [trial for trial in trials if (trial.model, trial.scenario) == key]
            members.sort(key=lambda trial: trial.ab_arm or "", reverse=number % 2 == 0)
            order += [PlannedRepetition(trial.trial, number) for trial in members]
    return tuple(order)


def _seconds(trial: TrialPlan) -> float:
    """Return about how long one repetition takes; what an inference takes is not known yet."""
    settings = trial.settings
    if trial.scenario == "accuracy":
        return _OVERHEAD_S + 3.0
    return _OVERHEAD_S + min(1.0, settings.warmup_max_s) + max(settings.min_time_s, 0.2)
