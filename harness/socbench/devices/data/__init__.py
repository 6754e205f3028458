"""The tables that devices are identified by, with the source of each fact beside it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class SocFacts:
    """One row of ``socs.csv``: a SoC as ``ro.soc.model`` names it, its other names, where the facts are from."""

    vendor: str
    model: str
    name: str
    aliases: tuple[str, ...]
    cpu_clusters: str
    gpu: str | None
    npu: str | None
    source: str


def _rows(name: str) -> list[dict[str, str]]:
    with (files(__package__) / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@cache
def socs() -> tuple[SocFacts, ...]:
    """Return every SoC in the table; "-" (the SoC has none) and "" (not known) are both None."""
    return tuple(
        SocFacts(
            vendor=row["vendor"],
            model=row["model"],
            name=row["name"],
            aliases=tuple(alias for alias in row["aliases"].split(";") if alias),
            cpu_clusters=row["cpu_clusters"],
            gpu=_known(row["gpu"]),
            npu=_known(row["npu"]),
            source=row["source"],
        )
        for row in _rows("socs.csv")
    )


def _known(text: str) -> str | None:
    return None if not text or text.startswith("-") else text


@cache
def _parts() -> dict[tuple[int, int], str]:
    return {(int(row["implementer"], 16), int(row["part"], 16)): row["name"] for row in _rows("cpu_parts.csv")}


def cpu_part_name(implementer: int, part: int) -> str | None:
    """Return the name of an Arm core by its two identification numbers, None when it is not in the table."""
    return _parts().get((implementer, part))
