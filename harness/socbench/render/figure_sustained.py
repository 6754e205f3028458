"""Figures of continuous runs on several devices: their order at first and at the end, and their curves side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from socbench.records import PHASE_MEASURED, ReportData, TrialRow
from socbench.render import figure_base, names, numbers, ranking
from socbench.render.figure_base import Figure
from socbench.render.figure_energy import energy_words

CAUSES: Final = {
    "clock_cap": "clock limit",
    "thermal_status": "thermal status",
    "cpu_quota": "CPU quota",
    "contention": "other load",
    "unknown": "cause not known",
}
_MOST_PANELS: Final = 12


@dataclass(frozen=True)
class Place:
    """A row's place among the devices: its latency in minute 1 and minute N (ns), and its rank in each (1 is first)."""

    row: TrialRow
    name: str
    first_ns: float
    last_ns: float
    first_rank: int
    last_rank: int


def places(section: ranking.Section) -> tuple[int, list[Place]]:
    """Return (N, places of the devices' fastest rows in minute 1 and in minute N); empty when nothing can be ranked.

    N is the last minute that every device finished. A device is there once, with the row that began fastest. Rows at
    different rates or beside different loads are not ranked together, but those of the most frequent kind, alone first.
    """
    kind = _kind(row for device in section.devices for row in device.rows)
    best: dict[str, tuple[str, TrialRow, tuple[float | None, ...]]] = {}
    for device in section.devices:
        for row in device.rows:
            minutes = tuple((row.thermal or {}).get("minute_p50_ns") or ())
            if len(minutes) < 2 or minutes[0] is None or _asked(row) != kind:
                continue
            known = best.get(device.key)
            if known is None or minutes[0] < (known[2][0] or 0.0):
                best[device.key] = (device.device, row, minutes)
    if len(best) < 2:
        return 0, []
    count = min(len(minutes) for _, _, minutes in best.values())
    pairs = [(name, row, minutes[0], minutes[count - 1]) for name, row, minutes in best.values()]
    whole = [(name, row, first, last) for name, row, first, last in pairs if first is not None and last is not None]
    by_first = sorted(whole, key=lambda one: one[2])
    by_last = sorted(whole, key=lambda one: one[3])
    return count, [
        Place(one[1], one[0], one[2], one[3], number, by_last.index(one) + 1) for number, one in enumerate(by_first, 1)
    ]


def _asked(row: TrialRow) -> tuple[float, int]:
    """What a continuous run was to keep up with: rate (0: as fast as it goes) and busy cores beside it."""
    return row.settings.get("rate_hz") or 0.0, row.settings.get("busy_cores") or 0


def _kind(rows: Iterable[TrialRow]) -> tuple[float, int]:
    counted = Counter(_asked(row) for row in rows if (row.thermal or {}).get("minute_p50_ns"))
    return min(counted, key=lambda kind: (-counted[kind], kind), default=(0.0, 0))


def order_sentence(section: ranking.Section) -> str | None:
    """Say in one sentence how the order of the devices changes from minute 1 to minute N; ``None`` for one device."""
    count, found = places(section)
    if len(found) < 2:
        return None
    first, last = found[0], min(found, key=lambda one: one.last_rank)
    begins = f"Of {len(found)} devices {first.name} is fastest in minute 1 ({numbers.in_sentence(first.first_ns)})"
    if all(one.first_rank == one.last_rank for one in found):
        return f"{begins}, and the order is still the same in minute {count}."
    if last is first:
        moved = sum(one.first_rank != one.last_rank for one in found)
        return f"{begins} and in minute {count} ({numbers.in_sentence(first.last_ns)}); {moved} others change places."
    return (
        f"{begins}, but in minute {count} it is {last.name} ({numbers.in_sentence(last.last_ns)}): {first.name} has "
        f"fallen to place {first.last_rank} ({numbers.in_sentence(first.last_ns)})."
    )


def order(section: ranking.Section, slug: str) -> Figure | None:
    """The devices ranked in minute 1 and in minute N side by side, a line from place to place."""
    count, found = places(section)
    if len(found) < 2:
        return None
    unit = numbers.time_unit([one.first_ns for one in found])

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.8 + 0.36 * len(found))
        axes = grid[0, 0]
        for one in found:
            colour, width = _colour(one)
            ranks = (one.first_rank, one.last_rank)
            axes.plot([0, 1], ranks, color=colour, linewidth=width, marker="o", markersize=14, solid_capstyle="round")
            for x, rank in enumerate(ranks):
                axes.annotate(
                    f"{rank}", (x, rank), ha="center", va="center_baseline", color=figure_base.PAGE, fontweight="bold"
                )
            name = _short(one.name)
            left = f"{name}, {one.first_ns / unit.factor:.3g} {unit.symbol}"
            right = f"{one.last_ns / unit.factor:.3g} {unit.symbol}, {name}{_change(one)}"
            axes.annotate(left, (0, one.first_rank), (-13, 0), textcoords="offset points", ha="right", va="center")
            axes.annotate(right, (1, one.last_rank), (13, 0), textcoords="offset points", va="center")
        axes.set_xlim(-1.75, 2.85)
        axes.set_ylim(len(found) + 0.6, 0.1)
        for x, words in ((0, "minute 1"), (1, f"minute {count}")):
            axes.annotate(words, (x, 0.3), ha="center", va="center", fontweight="bold")
        axes.set_axis_off()
        return figure

    return Figure(
        name=f"order-{slug}",
        title=_order_title(count, found),
        caption="Each device's median latency in its first minute and in its last, fastest on top; orange falls back, "
        "blue comes forward. " + _fakes(found),
        alt="; ".join(f"{one.name}: place {one.first_rank}, then {one.last_rank}" for one in found),
        draw=draw,
        heads=(
            "device", f"minute 1, {unit.symbol}", f"minute {count}, {unit.symbol}", "place", "then", "slows by",
            "from, s", "cause", "warms by, °C", "energy an inference",
        ),
        cells=tuple(_cells(one, unit.factor) for one in found),
    )  # fmt: skip


def _order_title(count: int, found: Sequence[Place]) -> str:
    moved = sum(one.first_rank != one.last_rank for one in found)
    if not moved:
        return f"The order of {len(found)} devices is the same in minute 1 and in minute {count}"
    return f"{moved} of {len(found)} devices change places between minute 1 and minute {count}"


def _cells(one: Place, factor: float) -> tuple[str, ...]:
    thermal = one.row.thermal or {}
    at, rise = thermal.get("throttle_at_s"), thermal.get("temperature_rise_milli_c")
    return (
        names.plain(one.name, 80), f"{one.first_ns / factor:.4g}", f"{one.last_ns / factor:.4g}", f"{one.first_rank}",
        f"{one.last_rank}", f"{100 * (one.last_ns / one.first_ns - 1):.0f} %", "" if at is None else f"{at:,.0f}",
        CAUSES.get(str(thermal.get("cause")), ""), "" if rise is None else f"{rise / 1000:.1f}",
        energy_words(thermal) or "",
    )  # fmt: skip


def _short(name: str) -> str:
    return names.plain(name.replace(", simulated)", ")"), 32)


def _change(one: Place) -> str:
    if one.first_rank == one.last_rank:
        return ""
    return f"  {'▼' if one.last_rank > one.first_rank else '▲'} {abs(one.last_rank - one.first_rank)}"


def _colour(one: Place) -> tuple[str, float]:
    if one.last_rank > one.first_rank:
        return figure_base.BAND, 2.2
    return (figure_base.HEAT, 2.2) if one.last_rank < one.first_rank else (figure_base.MUTED, 1.4)


def _fakes(found: Sequence[Place]) -> str:
    fakes = sum(one.row.device.startswith("fake:") for one in found)
    if not fakes:
        return ""
    return "All of these devices are fake: simulated." if fakes == len(found) else f"{fakes} devices are fake."


def multiples(data: ReportData, section: ranking.Section, slug: str) -> Figure | None:
    """The curves of several devices overlaid, each in front in a panel of its own; the slowed part is shaded."""
    rows = [
        (device.device, row)
        for device in section.devices
        for row in device.rows
        if (row.thermal or {}).get("duration_s") and (row.session, row.trial) in data.samples
    ][:_MOST_PANELS]
    if len(rows) < 2:
        return None
    curves = [(name, row, *_curve(data, row)) for name, row in rows]
    top = max(float(y.max()) for *_, y in curves)
    unit = numbers.time_unit([top])

    def draw() -> Any:
        columns = 2 if len(curves) < 5 else 3
        lines = -(-len(curves) // columns)
        figure, grid = figure_base.new_figure(0.5 + 1.45 * lines, lines, columns, sharex=True, sharey=True)
        for axes, (name, row, x, y) in zip(grid.ravel(), curves, strict=False):
            for _, _, other_x, other_y in curves:
                axes.plot(other_x / 60, other_y / unit.factor, color=figure_base.GRID, linewidth=0.9, zorder=1)
            _panel(axes, name, row, x / 60, y / unit.factor)
        for axes in grid.ravel()[len(curves) :]:
            axes.set_axis_off()
        grid[0, 0].set_ylim(0, 1.22 * top / unit.factor)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"latency, {unit.symbol}")
        for axes in grid[-1, :]:
            axes.set_xlabel("minutes")
        return figure

    slowed = [name for name, row in rows if (row.thermal or {}).get("throttle_at_s") is not None]
    steady = len(rows) - len(slowed)
    return Figure(
        name=f"curves-{slug}",
        title=f"{len(slowed)} of {names.count(len(rows), 'device')} slow down, {steady} keep their speed",
        caption="Rolling median of the latency, the other devices' in grey; shaded from the first lasting slow-down of "
        "10 % on, with its cause.",
        alt="; ".join(f"{name}: {y[0] / unit.factor:.3g} to {y[-1] / unit.factor:.3g} {unit.symbol}"
                      for name, _, _, y in curves),
        draw=draw,
    )  # fmt: skip


def _panel(axes: Any, name: str, row: TrialRow, x: Any, y: Any) -> None:
    import textwrap

    thermal = row.thermal or {}
    at = thermal.get("throttle_at_s")
    axes.plot(x, y, color=figure_base.colour_of(row.runtime), linewidth=1.8, zorder=3)
    axes.set_title("\n".join(textwrap.wrap(names.plain(name, 60), 34)), loc="left", fontsize=figure_base.FONT - 0.5)
    axes.grid(axis="y")
    if at is not None:
        axes.axvspan(at / 60, float(x[-1]), color=figure_base.BAND, alpha=0.1, linewidth=0)
        cause = CAUSES.get(str(thermal.get("cause")), CAUSES["unknown"])
        axes.annotate(
            f"from {at:,.0f} s: {cause}", (0.98, 0.04), xycoords="axes fraction", ha="right",
            fontsize=figure_base.FONT - 1,
        )  # fmt: skip


def _curve(data: ReportData, row: TrialRow) -> tuple[Any, Any]:
    """Return (seconds since the start, rolling median in ns) of a row's measured samples."""
    import numpy as np

    from socbench.render.figure_time import rolling_median

    parts = data.samples[row.session, row.trial]
    measured = [np.asarray(one.phase) == PHASE_MEASURED for one in parts]
    start = np.concatenate([np.asarray(one.start_ns)[keep] for one, keep in zip(parts, measured, strict=True)])
    latency = np.concatenate([np.asarray(one.latency_ns)[keep] for one, keep in zip(parts, measured, strict=True)])
    return rolling_median((start - start[0]) / 1e9, latency)
