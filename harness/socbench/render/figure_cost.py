"""Figures of what a row costs beside time an inference, and the map of all combinations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from socbench.records import PRECISIONS, TrialRow
from socbench.render import columns, figure_base, names, numbers, ranking
from socbench.render.figure_base import Figure
from socbench.render.figure_latency import MOST_LANES

_MOST_ROWS = 40


def cost(section: ranking.Section, slug: str) -> Figure | None:
    """Size of the file, time to load, first inference and peak memory: four panels of dots over the same rows."""
    everything = [row for row in section.rows if ranking.is_measured(row)]
    rows = everything[:MOST_LANES]
    ctx = columns.context(section.rows)
    panels = [panel for panel in _panels(ctx) if _tells(panel, rows)]
    if len(rows) < 2 or not panels:
        return None
    labels = figure_base.short_names(rows)
    many = len(section.devices) > 1
    device_of = {device.key: device.device for device in section.devices}

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.7 + 0.26 * len(rows), 1, len(panels), sharey=True)
        for axes, (title, unit, value) in zip(grid[0], panels, strict=True):
            _dots(axes, rows, [value(row) for row in rows], unit, title)
        suffix = [f", {names.device_title(device_of[row.device_key], 26)}" if many else "" for row in rows]
        ticks = [labels[row.session, row.trial] + extra for row, extra in zip(rows, suffix, strict=True)]
        grid[0, 0].set_yticks([-number for number in range(len(rows))], ticks)
        grid[0, 0].tick_params(axis="y", labelcolor=figure_base.TEXT)
        grid[0, 0].set_ylim(-len(rows) + 0.4, 0.6)
        return figure

    left = f" The first {len(rows)} of {len(everything):,} rows." if len(everything) > len(rows) else ""
    return Figure(
        name=f"cost-{slug}",
        title=_cost_title(rows),
        caption=f"{section.title}: medians of the repetitions of {names.count(len(rows), 'row')}; memory is the "
        f"peak of the whole process, the runtime's own included. Every axis starts at zero.{left}",
        alt=f"Dots of {names.listing((title for title, _, _ in panels), 4)} for {names.count(len(rows), 'row')}.",
        draw=draw,
        heads=("row", *(f"{title} {unit.symbol}" for title, unit, _ in panels)),
        cells=tuple(
            (
                (f"{names.device_title(device_of[row.device_key], 60)}, " if many else "")
                + labels[row.session, row.trial],
                *(_text(value(row), unit) for _, unit, value in panels),
            )
            for row in rows
        ),
    )


def _tells(panel: Panel, rows: Sequence[TrialRow]) -> bool:
    """Whether a panel shows anything: values that differ."""
    values = {panel[2](row) for row in rows} - {None}
    return len(values) > 1


Panel = tuple[str, numbers.Unit, Callable[[TrialRow], float | None]]


def _panels(ctx: columns.Context) -> list[Panel]:
    return [
        ("size", ctx.size, lambda row: row.size_bytes),
        ("load", ctx.load, lambda row: row.load_ns),
        ("first", ctx.time, lambda row: row.first_ns),
        ("peak memory", ctx.memory, lambda row: row.peak_memory_bytes),
    ]


def _text(value: float | None, unit: numbers.Unit) -> str:
    return "not known" if value is None else numbers.significant(value / unit.factor)


def _dots(axes: Any, rows: Sequence[TrialRow], values: Sequence[float | None], unit: numbers.Unit, title: str) -> None:
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is None:
            continue
        scaled = value / unit.factor
        axes.plot([0, scaled], [-number, -number], color=figure_base.GRID, linewidth=1, zorder=1)
        axes.plot([scaled], [-number], zorder=2, **figure_base.marks(row, faint=not ranking.is_trusted(row)))
    highest = max((value for value in values if value is not None), default=1.0) / unit.factor
    axes.set_xlim(0, (highest or 1.0) * 1.12)
    axes.set_xlabel(f"{title}, {unit.symbol}")
    axes.locator_params(axis="x", nbins=3)
    axes.spines["left"].set_visible(False)


def _cost_title(rows: Sequence[TrialRow]) -> str:
    trusted = [row for row in rows if ranking.is_trusted(row)] or list(rows)
    said = []
    sized = [row for row in trusted if row.size_bytes]
    if len({row.size_bytes for row in sized}) > 1:
        smallest = min(sized, key=lambda row: row.size_bytes or 0)
        said.append(f"the smallest file is {smallest.precision} ({numbers.size_in_sentence(smallest.size_bytes or 0)})")
    loaded = [row for row in trusted if row.load_ns is not None]
    if len({row.load_ns for row in loaded}) > 1:
        quickest = min(loaded, key=lambda row: row.load_ns or 0)
        name = figure_base.short_name(quickest)
        said.append(f"{name} loads quickest ({numbers.in_sentence(quickest.load_ns or 0)})")
    text = "; ".join(said) or "What each row costs beside time"
    return text[:1].upper() + text[1:]


def heat(section: ranking.Section, slug: str) -> Figure | None:
    """A map of runtime and delegate against precision, the median in each cell, or why there is none."""
    lines: dict[tuple[str, str, str], dict[str, TrialRow]] = {}
    for device in section.devices:
        for row in device.rows:
            cells = lines.setdefault((device.key, row.runtime, row.delegate), {})
            cells.setdefault(row.precision, row)
    precisions = [name for name in PRECISIONS if any(name in cells for cells in lines.values())]
    if len(lines) < 2 or len(precisions) < 2 or not any(map(ranking.is_measured, section.rows)):
        return None
    total, shown = len(lines), list(lines.items())[:_MOST_ROWS]
    ctx = columns.context(section.rows)
    many = len(section.devices) > 1
    device_of = {device.key: device.device for device in section.devices}
    heads = [
        (f"{names.device_title(device_of[key], 30)}, " if many else "")
        + f"{names.runtime_title(runtime)} {names.delegate_title(delegate, runtime)}"
        for (key, runtime, delegate), _ in shown
    ]

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.5 + 0.34 * len(shown))
        _map(grid[0, 0], [cells for _, cells in shown], precisions, ctx)
        grid[0, 0].set_yticks(range(len(shown)), heads)
        return figure

    left = f" The first {len(shown)} of {total:,} lines." if total > len(shown) else ""
    texts = [[_cell_text(cells.get(name), ctx) for name in precisions] for _, cells in shown]
    return Figure(
        name=f"heat-{slug}",
        title=_heat_title(section),
        caption=f"{section.title}: median latency in {ctx.time.symbol}; the stronger the colour, the faster. "
        f"Columns are the precision that was asked for; a star marks where another was executed. Where rows differ in "
        f"threads or other conditions, the best is shown.{left}",
        alt=f"Table of median latency for {len(shown)} runtimes and delegates by {len(precisions)} precisions.",
        draw=draw,
        heads=("runtime and delegate", *(f"{name}, {ctx.time.symbol}" for name in precisions)),
        cells=tuple((head, *line) for head, line in zip(heads, texts, strict=True)),
    )


def _map(axes: Any, lines: Sequence[dict[str, TrialRow]], precisions: Sequence[str], ctx: columns.Context) -> None:
    import math

    from matplotlib.patches import Rectangle

    ranked = [row.latency_p50_ns or 1 for cells in lines for row in cells.values() if ranking.is_trusted(row)]
    low, high = (math.log(min(ranked)), math.log(max(ranked))) if ranked else (0.0, 1.0)
    for down, cells in enumerate(lines):
        for across, precision in enumerate(precisions):
            row = cells.get(precision)
            box = (across - 0.48, down - 0.46)
            if row is not None and ranking.is_trusted(row) and row.latency_p50_ns:
                speed = (high - math.log(row.latency_p50_ns)) / (high - low) if high > low else 1.0
                shade: Any = {"facecolor": figure_base.HEAT, "alpha": 0.06 + 0.34 * speed, "linewidth": 0}
                axes.add_patch(Rectangle(box, 0.96, 0.92, **shade))
            known = row is not None and ranking.is_measured(row)
            colour = figure_base.TEXT if known else figure_base.MUTED
            axes.text(across, down, _cell_text(row, ctx), ha="center", va="center", color=colour)
    axes.set_xlim(-0.5, len(precisions) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xticks(range(len(precisions)), list(precisions))
    axes.tick_params(length=0, labelcolor=figure_base.TEXT, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cell_text(row: TrialRow | None, ctx: columns.Context) -> str:
    if row is None:
        return "not asked"
    if not ranking.is_measured(row):
        return {"excluded": "left out", "failed": "failed"}.get(row.status, "not measured")
    text = numbers.significant((row.latency_p50_ns or 0) / ctx.time.factor)
    if row.precision_effective not in (None, row.precision):
        text += "*"
    return text + {"suspect": " (suspect)", "void": " (void)"}.get(ranking.group_of(row), "")


def _heat_title(section: ranking.Section) -> str:
    fastest: dict[str, TrialRow] = {}
    for row in sorted(section.rows, key=lambda row: row.latency_p50_ns or float("inf")):
        if ranking.is_trusted(row):
            fastest.setdefault(row.precision, row)
    if not fastest:
        return "All combinations at a glance: none can be trusted"
    order = [name for name in PRECISIONS if name in fastest]
    parts = [f"{name} {names.runtime_title(fastest[name].runtime)}"
             f" {names.delegate_title(fastest[name].delegate, fastest[name].runtime)}" for name in order]  # fmt: skip
    return f"Fastest at each precision: {names.listing(parts, 4)}"
