"""The rows of one model on one device: which combinations there are, and why one can't be run."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from socbench.errors import UsageError
from socbench.models.variants import for_delegate, pick_recipe
from socbench.placement import HOST, Place, delegates_of, entries_of, places_of, proving_places, to_install
from socbench.records import (
    DELEGATE_CLASSES,
    FORMATS_OF_RUNTIME,
    RUNTIMES,
    Failure,
    Json,
    MeasuringSettings,
    TrialPlan,
    Variant,
)

if TYPE_CHECKING:
    from socbench.models.suites import Suite
    from socbench.plan import DeviceAbilities, ModelChoice, RunRequest

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
}


_ENDLESS: Final = 1_000_000_000
"""A sustained run ends by its time; this many inferences of 0.1 ms would take a day."""
_SUSTAINED_WARMUP_S: Final = 2.0
"""Warming up warms the device as well: a sustained run is to begin cold."""


def is_external(delegate: str) -> bool:
    """``npu:FILE``: an external delegate of LiteRT, a shared library."""
    return delegate.startswith("npu:") and ("/" in delegate or delegate.endswith(".so"))


def check_words(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for a word of ``given`` that is not among ``known``, with the nearest that is."""
    names = sorted(known)
    for name in given:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            meant = f"did you mean {nearest[0]}? " if nearest else ""
            listed = ", ".join(names) if len(names) <= 12 else f"for instance {', '.join(names[:8])}"
            raise UsageError(f"there is no {what} {name!r}: {meant}socbench knows {listed}")


def settings_of(request: RunRequest, suite: Suite | None, scenario: str) -> MeasuringSettings:
    """Return when measuring ends: the suite's settings, put over by what the command line says."""
    settings = request.settings or (suite.settings if suite else MeasuringSettings())
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
        limit_c = request.max_temperature_c
        settings = dataclasses.replace(
            settings,
            min_time_s=duration,
            max_time_s=duration,
            min_count=1,
            max_count=_ENDLESS,
            warmup_max_s=min(settings.warmup_max_s, _SUSTAINED_WARMUP_S),
            max_temperature_milli_c=None if limit_c is None else round(1000 * limit_c),
            busy_cores=request.busy_cores,
        )
    return settings


@dataclass(frozen=True)
class Matrix:
    """The rows of one model on one device in one arm."""

    request: RunRequest
    abilities: DeviceAbilities
    model: ModelChoice
    suite: Suite | None
    arm: str | None

    def trials(self) -> Iterator[TrialPlan]:
        """Yield the rows, without an id yet; those that can't be run say why."""
        if self.arm is not None and self.request.targets and not self._is_asked_for():
            return
        suited = {v.variant: v for v in pick_recipe(self.abilities.device, self.model.variants)}
        for runtime in self._runtimes():
            for precision in self._precisions(runtime):
                usual, why_not = self._variant(runtime, precision, list(suited.values()))
                for delegate, environment, reason in self._delegates(runtime):
                    variant, why = self._for_delegate(usual, why_not, delegate)
                    excluded = self._emulated_device() or self._runtime_missing(runtime) or why or reason
                    for scenario in self._scenarios():
                        row = self._row(runtime, precision, variant, delegate, scenario, excluded)
                        yield dataclasses.replace(row, environment=environment)

    def _is_asked_for(self) -> bool:
        """Whether this is a model of the arm: by its name, a file of the user's by its path."""
        targets = self.request.targets
        if not self.model.own_file:
            return self.model.card.model in targets
        paths = {os.path.realpath(target) for target in targets}
        return any(v.path is not None and os.path.realpath(v.path) in paths for v in self.model.variants)

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
        found = takes if self.request.every_environment else there or takes
        # A sustained run takes its time for every row: it is one row unless more are asked for.
        return found[:1] if self.request.duration_s is not None else found

    def _precisions(self, runtime: str) -> list[str]:
        if self.request.precisions:
            return list(self.request.precisions)
        if self.model.own_file:
            return [variant.precision for variant in self.model.variants]
        declared = {variant.precision for variant in self.model.variants}
        if self.request.duration_s is not None:
            return [name for name in ("fp32", "fp16", "int8", *sorted(declared)) if name in declared][:1]
        return [name for name in ("fp32", "fp16", "int8") if name in declared] or sorted(declared)

    def _variant(self, runtime: str, precision: str, suited: list[Variant]) -> tuple[Variant, Failure | None]:
        """Return the file of a row and why it can't be had; a stand-in without a path where there is none."""
        formats = FORMATS_OF_RUNTIME.get(runtime, ())
        takes = {f for entry in self._entries(runtime) for f in entry.get("formats") or ()}
        accepted = [f for f in formats if not takes or f in takes]
        name = self.model.card.model
        first = accepted[0] if accepted else ""
        left_out: dict[Any, dict[Any, str]] = self.model.card.left_out
        reason = left_out.get(first, {}).get(precision)
        if reason is not None:
            return Variant(name, f"{first}-{precision}", first, precision), Failure("left_out", reason)
        if not self.model.own_file:  # the zoo's rows of a runtime are of one format, its own where the card has that
            accepted = [form for form in accepted if any(v.format == form for v in suited)][:1] or accepted
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

    def _entries(self, runtime: str) -> list[Json]:
        """Return what the probe found of a runtime, by environment, in the one that is asked for."""
        return entries_of(self.abilities.runtimes, runtime, self.request.environment)

    def _runtime_missing(self, runtime: str) -> Failure | None:
        entries = self._entries(runtime)
        device = self.abilities.device.device
        if not entries:
            return Failure("runtime_missing", f"the agent on {device} does not know {runtime}", self._install(runtime))
        error = entries[0].get("error")
        if not isinstance(error, dict):
            return None
        code, message = str(error.get("code", "runtime_broken")), str(error.get("message", "it does not import"))
        advice = self._install(runtime) or error.get("advice")
        return Failure(code, f"{runtime} can't be used on {device}: {message}"[:1000], str(advice) if advice else None)

    def _install(self, runtime: str, delegate: str | None = None) -> str | None:
        """Return the command that brings a runtime, or one delegate of it, where there is one."""
        if self.abilities.device.device != "local":
            return f"socbench devices setup {self.abilities.device.device}" if delegate is None else None
        if delegate is None and runtime in PACKAGES:
            return f"pip install '{PACKAGES[runtime]}'"
        environment = to_install(runtime, delegate, (str(e.get("environment")) for e in self._entries(runtime)))
        return f"socbench runtimes install {environment.name}" if environment else None

    def _for_delegate(self, usual: Variant, why: Failure | None, delegate: str) -> tuple[Variant, Failure | None]:
        """Return the file that a delegate takes in the place of the usual one, or why there is none."""
        if self.model.own_file or why is not None:
            return usual, why
        variant = for_delegate(usual, delegate, self.model.variants)
        if variant is None:
            text = f"there is no {usual.format} {usual.precision} of {self.model.card.model} for {delegate}"
            return usual, Failure("precision_not_in_card", text)
        return variant, self.model.missing.get(variant.variant)

    def _delegates(self, runtime: str) -> list[tuple[str, str, Failure | None]]:
        """Return delegate, environment and why it can't be run, for each row."""
        known = list(DELEGATES.get(runtime, ()))
        entries = self._entries(runtime)
        probed = delegates_of(entries)
        rows: dict[tuple[str, str], Failure | None] = {}
        for asked in self.request.delegates or self._default_delegate(known, probed):
            names = self._named(asked, known, probed)
            for name in names:
                for place in self._places(entries, runtime, name):
                    key = (name, place.environment if place else HOST)
                    rows.setdefault(key, self._delegate_problem(runtime, name, known, probed, place))
            if not names and not self.request.every_environment:
                rows.setdefault((asked, HOST), self._no_such_class(runtime, asked))
        return [(name, environment, problem) for (name, environment), problem in rows.items()]

    def _places(self, entries: list[Json], runtime: str, delegate: str) -> Sequence[Place | None]:
        places = places_of(entries, runtime, delegate)
        if self.request.every_environment:
            return proving_places(places, delegate) or [None]
        return places[:1] or [None]

    @staticmethod
    def _default_delegate(known: list[str], probed: dict[str, Json]) -> tuple[str, ...]:
        names = [*known, *probed]
        return (names[0] if names else "cpu",)

    def _named(self, asked: str, known: list[str], probed: dict[str, Json]) -> list[str]:
        """Return the delegates that a word means: itself, or for a class every one that the device knows of.

        ``cpu`` is the runtime's plain CPU path alone: its reference kernels are for checking, not for racing.
        """
        if asked not in DELEGATE_CLASSES or asked in probed:
            return [asked]
        of_class = [name for name in [*known, *probed] if name.split(":")[0] == asked]
        if asked == "cpu" and not self.request.every_environment:
            return of_class[:1]
        there = [name for name in dict.fromkeys(of_class) if name in probed]
        return there if probed else list(dict.fromkeys(of_class))

    def _no_such_class(self, runtime: str, asked: str) -> Failure:
        return Failure("delegate_missing", f"{runtime} on {self.abilities.device.device} has no {asked} delegate")

    def _delegate_problem(
        self, runtime: str, name: str, known: list[str], probed: dict[str, Json], place: Place | None
    ) -> Failure | None:
        said = place.delegate if place else None
        device = self.abilities.device.device
        where = f" (environment {place.environment})" if place and place.environment != HOST else ""
        if said is None:
            if is_external(name) and runtime == "litert":
                return None
            fitting = f"it has {', '.join(probed or known)}" if probed or known else "it has none"
            return Failure(
                "delegate_missing",
                f"{runtime} on {device} has no delegate {name}: {fitting}",
                self._install(runtime, name),
            )
        if not said.get("available"):
            reason = str(said.get("reason") or "the probe did not say why")[:1000]
            fix = self._install(runtime, name) or said.get("fix")
            return Failure("delegate_missing", f"{name} of {runtime} is not available on {device}: {reason}", fix)
        if said.get("emulated") and not self.request.allow_emulated:
            accelerator = said.get("accelerator") or name
            return Failure(
                "emulated",
                f"{name} of {runtime} on {device} is emulated in software ({accelerator}{where}): "
                "its latency says nothing",
                "--allow-emulated runs it to check the answers",
            )
        return None
