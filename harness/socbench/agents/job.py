"""Makes the job document (docs/protocol.md) that an agent is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from socbench.agents.provision import DeviceFile
from socbench.records import PROTOCOL_VERSION, Json, PlannedRepetition, TrialPlan

_BLOBS = "../../blobs/"
_SLACK_S = 180.0
"""What a repetition may take beside its inferences before it counts as hung: import, load, compile."""
_INPUT_S = 10.0
"""For an inference that is made however slow the device is: a software GPU takes that long for a small network."""


@dataclass(frozen=True)
class InputFile:
    """``count`` inputs of one tensor in one file; ``name``, ``dtype``, ``shape`` as the model's file has them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    file: DeviceFile

    def member(self) -> Json:
        """Return the entry of ``probe.inputs`` or ``dataset.inputs``."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "file": _BLOBS + self.file.name}


@dataclass(frozen=True)
class TrialFiles:
    """What a trial needs on its device: the model (first) with its companions, probe inputs, evaluation data.

    ``keep``: by output, what of the answers to the evaluation data is wanted: ``all``, ``argmax``, ``none``.
    """

    model: tuple[DeviceFile, ...]
    probe: tuple[InputFile, ...] = ()
    dataset: tuple[InputFile, ...] = ()
    keep: tuple[str, ...] = ()
    cores: tuple[int, ...] | None = None
    python: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)

    def files(self) -> list[DeviceFile]:
        """Return every file, in the order in which they are pushed."""
        return [*self.model, *(i.file for i in self.probe), *(i.file for i in self.dataset)]


def job_document(
    session: str,
    trials: Mapping[str, TrialPlan],
    files: Mapping[str, TrialFiles],
    repetitions: Sequence[PlannedRepetition],
    *,
    orphan_after_s: float | None,
    seed: int,
    profile: bool,
    cool_down: Json | None,
    watch_cooling_s: float = 0.0,
) -> Json:
    """Return the job of one device: the trials that ``repetitions`` name, in that order.

    A trial is profiled in its first repetition only: the profile is a session of its own and tells the same each time.
    """
    named = {planned.trial for planned in repetitions}
    return {
        "protocol": PROTOCOL_VERSION,
        "session": session,
        "orphan_after_s": orphan_after_s,
        "telemetry": {"interval_s": 0.5, "slow_interval_s": 10.0, "after_s": watch_cooling_s},
        "trials": {
            trial.trial: _trial(trial, files[trial.trial], seed, profile)
            for trial in trials.values()
            if trial.trial in named
        },
        "repetitions": [
            {
                "trial": planned.trial,
                "repetition": planned.repetition,
                "deadline_s": deadline_s(trials[planned.trial], files[planned.trial]),
                "cool_down": cool_down,
                "profile": planned.repetition == 1,
            }
            for planned in repetitions
        ],
    }


def deadline_s(trial: TrialPlan, files: TrialFiles) -> float:
    """Return how long a repetition may take: its own times, doubled, three minutes, and 10 s for each inference whose
    number is fixed: a data set's, or the first, those of the two checks and of the shortest warm-up.
    """
    settings = trial.settings
    if files.dataset:
        fixed = files.dataset[0].count
    else:
        fixed = 1 + 2 * (files.probe[0].count if files.probe else 1) + settings.warmup_min_count
    own = 2 * (settings.warmup_max_s + max(settings.max_time_s, settings.min_time_s))
    return round(own + fixed * _INPUT_S + _SLACK_S, 1)


def _inputs(inputs: Sequence[InputFile]) -> Json | None:
    return {"count": inputs[0].count, "inputs": [entry.member() for entry in inputs]} if inputs else None


def _dataset(files: TrialFiles) -> Json | None:
    """Return the member ``dataset``; ``keep`` says what is wanted of each output where that is not all of it."""
    made = _inputs(files.dataset)
    if made is not None and any(word != "all" for word in files.keep):
        made["keep"] = list(files.keep)
    return made


def _trial(trial: TrialPlan, files: TrialFiles, seed: int, profile: bool) -> Json:
    return {
        "runtime": trial.runtime,
        "delegate": trial.delegate,
        "format": trial.format,
        "precision": trial.precision,
        "model": _BLOBS + files.model[0].name,
        "python": files.python,
        "runtime_dir": None,
        "threads": trial.threads,
        "cores": None if files.cores is None else list(files.cores),
        "batch": trial.batch,
        "shapes": {name: list(shape) for name, shape in trial.shapes.items()},
        "scenario": trial.scenario,
        "settings": asdict(trial.settings),
        "probe": _inputs(files.probe) if trial.scenario != "accuracy" else None,
        "dataset": _dataset(files),
        "input_seed": seed,
        "profile": profile and trial.scenario == "single_stream",
        "env": dict(files.env),
        "options": dict(files.options),
    }
