"""The figure of what an inference takes in energy, and on average in power: continuous runs of one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from socbench.records import TrialRow
from socbench.render import figure_base, names, numbers, ranking
from socbench.render.figure_base import Figure

_MOST_ROWS = 24
_UNITS = ((1e6, "J"), (1e3, "mJ"), (1.0, "µJ"))


def energy_words(thermal: dict[str, Any]) -> str | None:
    """``23 mJ (device, indicative)``: the energy of an inference, of what, and how far to trust it."""
    energy = thermal.get("energy")
    if not isinstance(energy, dict) or not energy.get("energy_per_inference_uj"):
        return None
    value = float(energy["energy_per_inference_uj"])
    factor, unit = unit_of(value)
    trust = str(energy.get("trust")).replace("_", " ")
    return f"{numbers.significant(value / factor)} {unit} ({names.plain(energy.get('scope'), 40)}, {trust})"


def power_words(thermal: dict[str, Any]) -> str:
    """``3.07 W``: the average power of a run whose energy is known."""
    return f"{numbers.significant(float(thermal['energy']['average_power_uw']) / 1e6)} W"


def unit_of(microjoules: float) -> tuple[float, str]:
    """The unit in which an energy is at least 1, with its microjoules."""
    return next(pair for pair in _UNITS if microjoules >= pair[0] or pair[0] == 1.0)


def energy(section: ranking.Section, slug: str) -> Figure | None:
    """Energy an inference of each row that tells any, as bars from zero; hollow where it is not to be trusted."""
    rows = [
        (device.device, row) for device in section.devices for row in device.rows if energy_words(row.thermal or {})
    ][:_MOST_ROWS]
    if not rows:
        return None
    told: list[dict[str, Any]] = [(row.thermal or {})["energy"] for _, row in rows]
    factor, unit = unit_of(max(float(one["energy_per_inference_uj"]) for one in told))
    values = [float(one["energy_per_inference_uj"]) / factor for one in told]
    labels = _labels(rows, len(section.devices) > 1)

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.75 + 0.34 * len(rows))
        axes = grid[0, 0]
        for number, ((_, row), value, one) in enumerate(zip(rows, values, told, strict=True)):
            colour = figure_base.colour_of(row.runtime)
            face = "none" if one.get("trust") == "not_trusted" else colour
            alpha = 1.0 if one.get("trust") == "measured" else 0.55
            axes.barh([-number], [value], height=0.6, facecolor=face, edgecolor=colour, alpha=alpha)
            text = f"{numbers.significant(value)} {unit} at {power_words(row.thermal or {})}"
            axes.annotate(text, (value, -number), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks([-number for number in range(len(rows))], labels)
        axes.tick_params(axis="y", labelcolor=figure_base.TEXT)
        axes.set_xlim(0, 1.35 * max(values))
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.set_xlabel(f"energy an inference, {unit}")
        axes.spines["left"].set_visible(False)
        return figure

    return Figure(
        name=f"energy-{slug}",
        title=_title(labels, values, unit),
        caption=_caption(told),
        alt="; ".join(f"{label}: {numbers.significant(v)} {unit}" for label, v in zip(labels, values, strict=True)),
        draw=draw,
        heads=("row", f"energy an inference, {unit}", "average power, W", "of what", "trust", "source", "doubt"),
        cells=tuple(
            (label, numbers.significant(value), numbers.significant(float(one["average_power_uw"]) / 1e6),
             names.plain(one.get("scope"), 60), str(one.get("trust")).replace("_", " "),
             names.plain(one.get("source"), 60), names.plain(one.get("reason"), 120))
            for label, value, one in zip(labels, values, told, strict=True)
        ),
    )  # fmt: skip


def _labels(rows: Sequence[tuple[str, TrialRow]], many: bool) -> list[str]:
    short = figure_base.short_names([row for _, row in rows])
    several = len({short[row.session, row.trial] for _, row in rows}) > 1
    labels = []
    for device, row in rows:
        own = short[row.session, row.trial]
        labels.append(
            ", ".join(
                part
                for part in (
                    names.plain(device.replace(", simulated)", ")"), 40) if many else "",
                    own if several else "",
                )
                if part
            )
        )
    return [label or short[row.session, row.trial] for label, (_, row) in zip(labels, rows, strict=True)]


def _title(labels: Sequence[str], values: Sequence[float], unit: str) -> str:
    least = min(range(len(values)), key=values.__getitem__)
    if len(values) == 1:
        return f"An inference takes {numbers.significant(values[0])} {unit}"
    return f"{labels[least]} takes least energy an inference: {numbers.significant(values[least])} {unit}"


def _caption(told: Sequence[dict[str, Any]]) -> str:
    trusts = {str(one.get("trust")) for one in told}
    parts = ["Average power of the whole run over its inferences, idle power included."]
    if "measured" in trusts and len(trusts) > 1:
        parts.append("Full colour: measured.")
    if "indicative" in trusts:
        parts.append("Pale: indicative.")
    if "not_trusted" in trusts:
        parts.append("Hollow: not to be trusted.")
    reasons = dict.fromkeys(names.plain(one.get("reason"), 120) for one in told if one.get("reason"))
    said = names.listing(list(reasons), 3)
    scopes = names.listing(list(dict.fromkeys(names.plain(one.get("scope"), 40) for one in told)), 4)
    return " ".join([*parts, f"What takes it: {scopes}.", *([said[:1].upper() + said[1:] + "."] if said else [])])
