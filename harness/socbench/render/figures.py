"""Chooses the figures of a report and renders them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from socbench.records import ReportData
from socbench.render import figure_cost, figure_energy, figure_latency, figure_sustained, figure_time, ranking
from socbench.render.figure_base import Figure, inline_svg, rendered

__all__ = ["Figure", "figures", "inline_svg", "is_answer", "rendered", "section_figures", "time_figures"]

_MOST_CONTINUOUS = 8


def figures(data: ReportData) -> list[Figure]:
    """Every figure that the data carry, in the order of the page."""
    found = []
    for number, section in enumerate(ranking.sections(data)):
        found += section_figures(data, section, number)
    return found + time_figures(data)


def section_figures(data: ReportData, section: ranking.Section, number: int = 0) -> list[Figure]:
    """The figures of one table: accuracy, distributions, costs, map; continuous runs get their curves first."""
    slug = f"{slug_of(section.model)}-{number}" if number else slug_of(section.model)
    if section.scenario == "sustained":
        rows = [row for row in section.rows if ranking.is_measured(row) or row.thermal][:_MOST_CONTINUOUS]
        curves = (figure_time.continuous(data, row, f"{slug}-{index}") for index, row in enumerate(rows))
        together = [
            figure_sustained.order(section, slug),
            figure_sustained.multiples(data, section, slug),
            figure_energy.energy(section, slug),
        ]
        return [one for one in (*together, *curves) if one is not None]
    found = [
        figure_latency.accuracy_against_latency(section, slug),
        figure_latency.distributions(data, section, slug),
        figure_cost.heat(section, slug),
        figure_cost.cost(section, slug),
    ]
    return [one for one in found if one is not None]


def is_answer(figure: Figure) -> bool:
    """Whether a figure says what its table does not, so that it stands before it: the order of devices over time."""
    return figure.name.startswith("order-")


def time_figures(data: ReportData) -> list[Figure]:
    """One figure for each session and device: repetitions in the order in which they ran."""
    return list(_over_sessions(data))


def _over_sessions(data: ReportData) -> Iterator[Figure]:
    number = 0
    for session in data.sessions:
        for device in session.devices:
            found = figure_time.over_session(data, session, device, f"{slug_of(device.name)}-{number}")
            number += 1
            if found is not None:
                yield found


def slug_of(text: str) -> str:
    """A name for a file: small letters, digits and hyphens, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"
