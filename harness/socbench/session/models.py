"""Gathers what a plan needs of models: cards, files, inputs, labelled data, reference outputs."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from socbench.agents.job import InputFile, TrialFiles
from socbench.agents.provision import DeviceFile
from socbench.cache import cache_folder, sha256_of_file
from socbench.devices.cores import resolve_cores
from socbench.errors import EnvironmentsError, FailedError, ModelError, UsageError
from socbench.models.cards import load_card
from socbench.models.inspect import ENDINGS
from socbench.models.suites import Suite, load_suite
from socbench.models.user import user_model
from socbench.models.variants import build, variants_of
from socbench.plan import DeviceAbilities, ModelChoice, RunRequest
from socbench.records import Failure, Json, Plan, TrialPlan, Variant

if TYPE_CHECKING:
    from socbench.models.cards import Card
    from socbench.models.data import Dataset
    from socbench.models.inputs import InputData

DEFAULT_SUITE: Final = "quick"


def choose_models(request: RunRequest) -> tuple[list[ModelChoice], Suite | None]:
    """Return the models that are asked for, and the suite; without either, suite ``quick``. Light: builds nothing.

    Raises ModelError: an unknown model or suite (with the nearest name), a file that is none.
    """
    named = request.suite or (None if request.targets or request.ab else DEFAULT_SUITE)
    suite = load_suite(named) if named else None
    targets = request.targets or (suite.models if suite else ())
    arms = [pair.partition("=")[2] for arm in request.ab or () for pair in arm.split(",") if pair.startswith("model=")]
    targets = tuple(dict.fromkeys((*targets, *arms)))
    if not targets:
        raise UsageError("--ab needs a model: name one, for instance socbench run resnet8 --ab A B")
    return [_choose(target, request) for target in targets], suite


def _choose(target: str, request: RunRequest) -> ModelChoice:
    path = Path(target)
    if target.lower().endswith(tuple(ENDINGS)) or os.sep in target or path.is_file():
        card, variant = user_model(path, request.shapes or None)
        return ModelChoice(card, (variant,), own_file=True)
    card = load_card(target)
    return ModelChoice(card, tuple(variants_of(card)))


def build_missing(models: list[ModelChoice], plan: Plan, say: Callable[[str], None]) -> list[ModelChoice]:
    """Return the models with every file made that the plan runs; what can't be made is excluded with the reason."""
    wanted = {(trial.model, trial.variant) for trial in plan.trials if trial.excluded is None}
    labelled = {trial.model for trial in plan.trials if trial.excluded is None and trial.scenario == "accuracy"}
    built = []
    for model in models:
        variants, missing = [], dict(model.missing)
        for variant in model.variants:
            if variant.path is None and (variant.model, variant.variant) in wanted:
                try:
                    variant = build(model.card, variant, progress=say)
                except (ModelError, FailedError) as problem:
                    missing[variant.variant] = Failure("build_failed", str(problem), _advice(problem))
            variants.append(variant)
        unlabelled = _unlabelled(model, say) if model.card.model in labelled else None
        built.append(dataclasses.replace(model, variants=tuple(variants), missing=missing, unlabelled=unlabelled))
    return built


def _advice(problem: Exception) -> str | None:
    return "pip install 'socbench[convert]'" if isinstance(problem, EnvironmentsError) else None


def _unlabelled(model: ModelChoice, say: Callable[[str], None]) -> Failure | None:
    """Return why the labelled data can't be had, ``None`` when it is there."""
    from socbench.models.data import evaluation

    say(f"reading the labelled data of {model.card.model}")
    try:
        return None if evaluation(model.card) else Failure("no_evaluation_data", "the card names no labelled data")
    except (ModelError, FailedError) as problem:
        return Failure("no_evaluation_data", str(problem))


@dataclass
class Gathered:
    """What a session was given beside its plan: files by trial, references, and what session.json says of models.

    ``unchecked`` says of a reference that could not be computed why: rows that are compared with it have no fidelity.
    ``references`` are pairs as ``socbench.store.events.reference_tables`` takes them; ``raw`` their bytes by sha256.
    """

    files: dict[str, TrialFiles] = field(default_factory=dict)
    references: dict[str, list[Json]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, Json] = field(default_factory=dict)
    truth: dict[str, Json] = field(default_factory=dict)
    fidelity_to: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


class Gatherer:
    """Collects, each thing once, what the trials of a plan need."""

    def __init__(
        self,
        models: list[ModelChoice],
        seed: int,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        answers: bool = True,
    ) -> None:
        self._models = {model.card.model: model for model in models}
        self._seed = seed
        self._say = say
        self._warn = warn
        self._answers = answers  # false where the agent gives none: then neither inputs nor a reference are needed
        self._datasets: dict[str, Dataset] = {}
        self._probes: dict[Any, tuple[InputFile, ...]] = {}
        self._sets: dict[Any, tuple[InputFile, ...]] = {}
        self._failed: set[str] = set()
        self.found = Gathered()

    def gather(self, plan: Plan, devices: Mapping[str, DeviceAbilities]) -> Gathered:
        """Return everything that the plan's trials need.

        Raises UsageError for cores that a device does not have or a shape that does not fit, FailedError when an
        input can't be kept.
        """
        for model in self._models.values():
            self._describe(model)
        for trial in plan.trials:
            if trial.excluded is None:
                self._trial(trial, devices[trial.device])
        return self.found

    def _describe(self, model: ModelChoice) -> None:
        import msgspec

        card = model.card
        builtins = msgspec.to_builtins(card)
        names = ("title", "task", "metric", "tolerance", "licence", "outputs", "reference")
        described = {name: builtins.get(name) for name in names}
        self.found.models[card.model] = described | {"metric": card.metric_name}

    def _trial(self, trial: TrialPlan, abilities: DeviceAbilities) -> None:
        model = self._models[trial.model]
        variant = next(v for v in model.variants if v.variant == trial.variant)
        clusters = abilities.device.cores
        accuracy = trial.scenario == "accuracy"
        python, env = _environment(trial)
        self.found.files[trial.trial] = TrialFiles(
            python=python,
            env=env,
            model=model_files(variant),
            probe=() if accuracy or not self._answers else self._probe(model, variant, trial),
            dataset=self._dataset(model, variant) if accuracy else (),
            keep=kept_outputs(model.card, variant) if accuracy else (),
            cores=resolve_cores(trial.cores, clusters, trial.device) if trial.cores else None,
        )
        if self._answers:
            self.found.fidelity_to[trial.trial] = self._reference(model, variant, trial)

    def _probe(self, model: ModelChoice, variant: Variant, trial: TrialPlan) -> tuple[InputFile, ...]:
        from socbench.models.inputs import probe_inputs

        key = (variant.sha256, trial.batch, str(sorted(trial.shapes.items())))
        if key not in self._probes:
            made = probe_inputs(model.card, variant, batch=trial.batch, shapes=trial.shapes or None, seed=self._seed)
            self._probes[key] = tuple(input_file(one, f"inputs of {trial.model}") for one in made)
        return self._probes[key]

    def _dataset(self, model: ModelChoice, variant: Variant) -> tuple[InputFile, ...]:
        from socbench.models.data import evaluation
        from socbench.models.inputs import dataset_inputs

        name = model.card.model
        if name not in self._datasets:
            dataset = evaluation(model.card)
            assert dataset is not None  # build_missing excluded the rows of what can't be had
            self._datasets[name] = dataset
            if dataset.told_skipped is not None:
                self._warn(f"labelled data of {name}, {dataset.told_skipped}")
            self.found.truth[name] = truth_of(model.card, dataset)
            if dataset.targets is not None:
                self.found.references[f"truth:{name}"] = [self._tensor("targets", dataset.targets)]
        if variant.sha256 not in self._sets:
            made = dataset_inputs(model.card, variant, self._datasets[name])
            self._sets[variant.sha256] = tuple(input_file(one, f"labelled data of {name}") for one in made)
        return self._sets[variant.sha256]

    def _reference(self, model: ModelChoice, variant: Variant, trial: TrialPlan) -> str:
        """Return the name of the outputs that the trial is compared with, computed where they were not yet."""
        shape = ";".join(f"{name}={'x'.join(map(str, size))}" for name, size in sorted(trial.shapes.items()))
        shape = ";".join(filter(None, (shape, f"batch={trial.batch}" if trial.batch != 1 else "")))
        name = f"reference:{variant.sha256 if model.own_file else model.card.model}" + (f":{shape}" if shape else "")
        if name in self.found.references or name in self._failed or variant.format == "null":
            return name
        self._say(f"computing the reference outputs of {model.card.model}")
        try:
            outputs = self._compute(model, variant, trial)
        except FailedError as problem:
            self._failed.add(name)
            self.found.unchecked[name] = str(problem)
            self._warn(f"the answers of {model.card.model} will not be checked: {problem}")
            return name
        self.found.references[name] = [self._tensor(output, array) for output, array in outputs.items()]
        return name

    def _compute(self, model: ModelChoice, variant: Variant, trial: TrialPlan) -> dict[str, Any]:
        from socbench.models.inputs import resolve_shapes
        from socbench.models.reference import reference_outputs, self_reference

        if model.own_file:
            whole = resolve_shapes(model.card, variant, batch=trial.batch, shapes=trial.shapes or None)
            return self_reference(Path(variant.path or ""), whole, self._seed)
        return reference_outputs(model.card, batch=trial.batch, shapes=trial.shapes or None, seed=self._seed)

    def _tensor(self, name: str, array: Any) -> Json:
        data = array.tobytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self.found.raw[sha256] = data
        shape = [int(size) for size in array.shape[1:]]
        return {"name": name, "dtype": str(array.dtype), "shape": shape, "count": len(array), "sha256": sha256}


def _environment(trial: TrialPlan) -> tuple[str | None, dict[str, str]]:
    """Return the interpreter and the variables of a trial's environment; its agent's own for ``host``.

    Raises EnvironmentsError when the environment was removed after the device was asked.
    """
    from socbench.environments.catalogue import environment
    from socbench.environments.install import child_env, python_of

    if trial.environment == "host":
        return None, {}
    made = environment(trial.environment)
    python = python_of(made)
    if python is None:
        raise EnvironmentsError(
            f"the environment {made.name} is gone: make it again with socbench runtimes install {made.name}"
        )
    return str(python), {"SOCBENCH_ENVIRONMENT": made.name, "PYTHONNOUSERSITE": "1", **child_env(made)}


def kept_outputs(card: Card, variant: Variant) -> tuple[str, ...]:
    """Return what accuracy needs of each output, in the order of the variant's file."""
    by_name = {output.name: output.keep for output in card.outputs}
    in_place = [output.keep for output in card.outputs]
    same = all(spec.name in by_name for spec in variant.outputs)
    return tuple(by_name[spec.name] for spec in variant.outputs) if same else tuple(in_place)


def truth_of(card: Card, dataset: Dataset) -> Json:
    """Return what session.json says of the labelled data: all that accuracy is computed from beside the outputs."""
    import msgspec

    truth: Json = {
        "name": dataset.name,
        "count": dataset.count,
        "metric": msgspec.to_builtins(card.metric),
        "labels": None if dataset.labels is None else [int(label) for label in dataset.labels],
        "output_shapes": [list(output.shape) for output in card.outputs],
        **dataset.truth,
    }
    if "texts" in dataset.truth:
        labels = card.folder / (card.outputs[0].labels or "")
        truth["characters"] = labels.read_text(encoding="utf-8").split("\n")[:-1]
    return truth


def model_files(variant: Variant) -> tuple[DeviceFile, ...]:
    """Return a variant's file and companions as they lie on a device: one folder where there are several."""
    assert variant.path is not None
    assert variant.sha256 is not None
    path = Path(variant.path)
    what = f"{variant.model} {variant.variant}"
    if not variant.companions:
        ending = ".null.json" if path.name.endswith(".null.json") else path.suffix
        return (DeviceFile(path, sha256_of_file(path), f"{variant.sha256}{ending}", what),)
    paths = [path, *(path.parent / companion for companion in variant.companions)]
    return tuple(DeviceFile(file, sha256_of_file(file), f"{variant.sha256}.d/{file.name}", what) for file in paths)


def input_file(made: InputData, what: str) -> InputFile:
    """Return inputs as a file on the host, in the cache by its hash; ``what`` names them for people."""
    sha256 = hashlib.sha256(made.data).hexdigest()
    path = cache_folder("inputs") / f"{sha256}.bin"
    try:
        if not path.exists() or path.stat().st_size != len(made.data):
            partial = path.with_name(f".{sha256}.{os.getpid()}")
            partial.write_bytes(made.data)
            partial.replace(path)
    except OSError as problem:
        raise FailedError(f"inputs can't be kept in {path.parent}: {problem.strerror}; make room there") from problem
    return InputFile(
        made.name, made.dtype, tuple(made.shape), made.count, DeviceFile(path, sha256, f"{sha256}.bin", what)
    )
