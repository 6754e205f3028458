"""Suites: ``models/suites/NAME.yaml``, a matrix of models, runtimes, delegates and precisions with its settings."""

from __future__ import annotations

import msgspec

from socbench.records import MeasuringSettings


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A suite; ``version`` changes when anything in it does. Results of different versions are not compared by name."""

    suite: str
    version: int
    title: str
    models: tuple[str, ...]
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    delegates: tuple[str, ...] = ("cpu",)
    scenarios: tuple[str, ...] = ("single_stream", "accuracy")
    repetitions: int = 5
    threads: int | None = None
    settings: MeasuringSettings = MeasuringSettings()
    description: str | None = None


def load_suite(name: str) -> Suite:
    """Return the suite ``name``. Raises ModelError: unknown (with the nearest name), or not as it should be."""
    raise NotImplementedError


def suite_names() -> list[str]:
    """Return the names of the shipped suites."""
    raise NotImplementedError
