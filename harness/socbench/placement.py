"""Where a runtime's delegate runs: beside socbench, or in an environment of its own. Pure.

Real hardware goes before an emulation, socbench's own environment (``host``) before the others, so that one row does
not silently change its runtime's version when another environment is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from socbench.environments.catalogue import Environment, catalogue, environments_for
from socbench.records import Json

HOST: Final = "host"


@dataclass(frozen=True)
class Place:
    """An environment, what the probe said of the runtime there, and of the delegate (``None``: it did not name it)."""

    environment: str
    runtime: Json
    delegate: Json | None


def entries_of(runtimes: Iterable[Json], runtime: str, environment: str | None = None) -> list[Json]:
    """Return the probe's entries of a runtime, ``host`` first, those that can be used before those with an error."""
    fitting = [
        entry
        for entry in runtimes
        if entry.get("runtime") == runtime and environment in (None, entry.get("environment", HOST))
    ]
    return sorted(fitting, key=lambda entry: (bool(entry.get("error")), entry.get("environment", HOST) != HOST))


def delegates_of(entries: Iterable[Json]) -> dict[str, Json]:
    """Return the delegates that any of the entries names, an available one before one that is not."""
    found: dict[str, Json] = {}
    for entry in entries:
        for delegate in entry.get("delegates", ()):
            if isinstance(delegate, dict):
                name = str(delegate.get("delegate"))
                if name not in found or (delegate.get("available") and not found[name].get("available")):
                    found[name] = delegate
    return found


def places_of(entries: Iterable[Json], runtime: str, delegate: str) -> list[Place]:
    """Return where a delegate could run, the best place first; an entry that does not name it comes last."""
    meant = {environment.name for environment in environments_for(runtime, delegate)}
    places = []
    for entry in entries:
        named = [d for d in entry.get("delegates", ()) if isinstance(d, dict) and d.get("delegate") == delegate]
        places.append(Place(str(entry.get("environment", HOST)), entry, named[0] if named else None))

    def rank(place: Place) -> tuple[bool, ...]:
        said = place.delegate or {}
        available = bool(said.get("available"))
        return (
            not available,
            bool(place.runtime.get("error")),
            available and bool(said.get("emulated")),
            not available and place.environment not in meant,
            place.environment != HOST,
            place.environment not in meant,
        )

    return sorted(places, key=rank)


def proving_places(places: Iterable[Place], delegate: str) -> list[Place]:
    """Return the places in which a doctor tries a delegate: where it is there, and where it was meant to be."""
    known = catalogue()
    chosen = []
    for place in places:
        made = known.get(place.environment)
        here = bool((place.delegate or {}).get("available")) and made is None
        if here or (made is not None and delegate in made.delegates):
            chosen.append(place)
    return chosen or list(places)[:1]


def to_install(runtime: str, delegate: str | None, installed: Iterable[str]) -> Environment | None:
    """Return the environment that would bring a runtime or a delegate and is not installed, or ``None``."""
    there = set(installed)
    wanted = environments_for(runtime, delegate)
    if any(environment.name in there for environment in wanted):
        return None
    return next(iter(wanted), None)
