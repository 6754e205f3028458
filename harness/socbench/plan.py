"""Turns what was asked for into an ordered, seeded list of repetitions; what is left out is named with its reason.

Pure: everything that it must know of devices, models and suites is handed in (``socbench.session.prepare`` gathers it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from socbench.records import Device, Failure, Json, MeasuringSettings, Plan, Variant


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


@dataclass(frozen=True)
class ModelChoice:
    """What a plan knows of one model: the card's, or that of a user's own file (``own_file``).

    ``variants`` are the files that exist or can be built; ``missing`` says for a variant's name why it can't be had.
    ``declared`` maps a format to the precisions the card names. ``evaluation`` is the number of labelled inputs, or 0.
    ``recipe_features`` maps a recipe to the CPU features of which a device must have one to be given it.
    """

    model: str
    variants: tuple[Variant, ...]
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, Failure] = field(default_factory=dict)
    evaluation: int = 0
    own_file: bool = False
    fidelity_to: str = "reference"


@dataclass(frozen=True)
class Suite:
    """Defaults that a suite sets: its models and the measuring choices that the command line leaves open."""

    name: str
    models: tuple[str, ...]
    repeat: int = 5
    precisions: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    settings: MeasuringSettings = MeasuringSettings()


def expand(
    request: RunRequest,
    devices: Sequence[DeviceAbilities],
    models: Sequence[ModelChoice],
    *,
    suite: Suite | None = None,
    seed: int,
) -> Plan:
    """Return the plan of ``request``: matrix models x variants x runtimes x delegates x scenarios on every device.

    Combinations that can't run stay in the plan as excluded trials with a true reason and advice.

    Raises:
        UsageError: a runtime, delegate, precision, scenario or arm that nobody knows, with the nearest name.
    """
    raise NotImplementedError
