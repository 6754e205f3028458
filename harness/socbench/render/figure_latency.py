"""Figures of latency: against accuracy, and as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from socbench.records import PHASE_MEASURED, ReportData, TrialRow
from socbench.render import columns, figure_base, names, numbers, ranking
from socbench.render.figure_base import Figure

MOST_LANES: Final = 24
_MOST_PANELS: Final = 6
_MOST_MARKS: Final = 80


def accuracy_against_latency(section: ranking.Section, slug: str) -> Figure | None:
    """Each row at its latency and accuracy, with the Pareto front; one panel a device. ``None`` without accuracy."""
    devices = [(device, [row for row in device.rows if _has_both(row)]) for device in section.devices]
    devices = [(device, rows) for device, rows in devices if rows][:_MOST_PANELS]
    everything = [row for _, rows in devices for row in rows]
    if len(everything) < 2:
        return None
    ctx = columns.context(section.rows)
    factor = 100.0 if ctx.metric_is_fraction else 1.0
    fronts = {device.key: front(rows) for device, rows in devices}

    def draw() -> Any:
        across = 1 if len(devices) == 1 else 2
        down = -(-len(devices) // across)
        figure, grid = figure_base.new_figure(3.7 if down == 1 else 2.7 * down, down, across, sharex=True, sharey=True)
        for axes in grid.ravel()[len(devices) :]:
            axes.set_visible(False)
        highest = 1.08 * max(row.latency_p50_ns or 0 for row in everything) / ctx.time.factor
        lowest = min(row.latency_p50_ns or 0 for row in everything) / ctx.time.factor
        values = [factor * (row.accuracy or 0) for row in everything]
        span = max(max(values) - min(values), 1.0 if factor == 100 else 1e-3)
        for axes, (device, rows) in zip(grid.ravel(), devices, strict=False):
            axes.set_ylim(min(values) - 0.25 * span, max(values) + 0.35 * span)
            figure_base.latency_axis(axes, lowest, highest, ctx.time.symbol, "median latency")
            axes.grid(axis="y")
            if len(devices) > 1:
                axes.set_title(names.device_title(device.device, 44), loc="left", color=figure_base.TEXT)
            _panel(axes, rows, fronts[device.key], ctx, factor)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{ctx.metric}, %" if factor == 100 else ctx.metric)
        for axes in grid[:-1, :].ravel():
            axes.set_xlabel("")
        for axes, (device, rows) in zip(grid.ravel(), devices, strict=False):
            _label_panel(figure, axes, rows, fronts[device.key], ctx, factor)
        return figure

    counts = {row.accuracy_count for row in everything if row.accuracy_count}
    inputs = f"{max(counts):,} labelled inputs" if counts else "the labelled data"
    halves = [half for row in everything if (half := numbers.half_width(row.accuracy_low, row.accuracy_high))]
    own = (
        f" Accuracy's own 95 % interval reaches ± {factor * max(halves):.0f} points (not drawn)."
        if halves and factor == 100
        else ""
    )
    return Figure(
        name=f"accuracy-latency-{slug}",
        title=_accuracy_title(fronts, devices, ctx),
        caption=f"{section.title}: {names.count(len(everything), 'row')}, accuracy on {inputs}; whiskers are the "
        f"95 % interval of the median. The steps are the best accuracy within a latency.{own}",
        alt=f"Accuracy against median latency of {names.count(len(everything), 'row')}; the Pareto front is "
        + names.listing([figure_base.short_name(row) for found in fronts.values() for row in found], 6)
        + ".",
        draw=draw,
        heads=("row", f"median {ctx.time.symbol}", columns.accuracy_head(ctx)),
        cells=tuple(
            (_behind(row, section), columns.median_cell(row, ctx), columns.accuracy_cell(row, ctx))
            for row in everything
        ),
    )


def _has_both(row: TrialRow) -> bool:
    return ranking.is_measured(row) and row.accuracy is not None and ranking.group_of(row) != "void"


def _behind(row: TrialRow, section: ranking.Section) -> str:
    device = next(one.device for one in section.devices if one.key == row.device_key)
    device = f"{names.device_title(device, 60)}, " if len(section.devices) > 1 else ""
    return device + figure_base.short_name(row)


def front(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The trusted rows that no other trusted row beats or equals in both latency and accuracy, the fastest first."""
    kept: list[TrialRow] = []
    for row in sorted((row for row in rows if ranking.is_trusted(row)), key=lambda row: row.latency_p50_ns or 0):
        if not kept or (row.accuracy or 0) > (kept[-1].accuracy or 0):
            kept.append(row)
    return kept


def _panel(axes: Any, rows: Sequence[TrialRow], best: Sequence[TrialRow], ctx: columns.Context, factor: float) -> None:
    def at(row: TrialRow) -> tuple[float, float]:
        return (row.latency_p50_ns or 0) / ctx.time.factor, factor * (row.accuracy or 0)

    if len(best) > 1:
        axes.plot(
            *zip(*map(at, best), strict=True), color=figure_base.MUTED, linewidth=1, zorder=1, drawstyle="steps-post"
        )
    crowd = [row for row in rows if row not in best][_MOST_MARKS:]
    for runtime in sorted({row.runtime for row in crowd}):
        xs, ys = zip(*(at(row) for row in crowd if row.runtime == runtime), strict=True)
        figure_base.specks(axes, xs, ys, color=figure_base.colour_of(runtime), linewidth=3, alpha=0.3, zorder=1)
    for row in [row for row in rows if row not in best][:_MOST_MARKS] + list(best):
        x, y = at(row)
        faint = row not in best
        if row.latency_p50_low_ns is not None and row.latency_p50_high_ns is not None:
            ends = [row.latency_p50_low_ns / ctx.time.factor, row.latency_p50_high_ns / ctx.time.factor]
            colour = figure_base.colour_of(row.runtime)
            axes.plot(ends, [y, y], color=colour, linewidth=1.2, alpha=_whisker(row, faint), zorder=2)
        axes.plot([x], [y], zorder=3, **figure_base.marks(row, faint=faint))


def _whisker(row: TrialRow, faint: bool) -> float:
    """Opacity of a whisker: one that spans the whole picture must not hide it."""
    wide = (row.latency_p50_high_ns or 0) > numbers.WIDE * (row.latency_p50_ns or 1)
    return 0.2 if wide else 0.45 if faint else 1.0


def _label_panel(
    figure: Any, axes: Any, rows: Sequence[TrialRow], best: Sequence[TrialRow], ctx: columns.Context, factor: float
) -> None:
    order = [*best, *(row for row in rows if row not in best)][: max(16, len(best))]
    points = [((row.latency_p50_ns or 0) / ctx.time.factor, factor * (row.accuracy or 0), figure_base.short_name(row)
               + ("" if not best or ranking.is_trusted(row) else " (suspect)")) for row in order]  # fmt: skip
    others = [((row.latency_p50_ns or 0) / ctx.time.factor, factor * (row.accuracy or 0)) for row in rows]
    for first, second in pairwise(best):
        corner = ((second.latency_p50_ns or 0) / ctx.time.factor, factor * (first.accuracy or 0))
        for start, end in ((points[order.index(first)][:2], corner), (corner, points[order.index(second)][:2])):
            others += [_between(start, end, share / 20) for share in range(21)]
    figure_base.place_labels(figure, axes, points, others)


def _between(start: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _accuracy_title(fronts: dict[str, list[TrialRow]], devices: Sequence[Any], ctx: columns.Context) -> str:
    if len(devices) > 1:
        leaders = {figure_base.short_name(found[0]) for found in fronts.values() if found}
        if len(leaders) == 1:
            return f"{leaders.pop()} is the fastest on every device that has it measured"
        if not leaders:
            return "No trusted row: accuracy against latency of the suspect ones"
        return f"Which row is fastest depends on the device: {names.listing(sorted(leaders), 3)}"
    best = next(iter(fronts.values()))
    if not best:
        return "No trusted row: accuracy against latency of the suspect ones"
    if len(best) == 1:
        return f"{figure_base.short_name(best[0])} is the fastest, and no trusted row is more accurate"
    fast, exact = best[0], best[-1]
    ratio = numbers.times((exact.latency_p50_ns or 1) / (fast.latency_p50_ns or 1))
    lost = (exact.accuracy or 0) - (fast.accuracy or 0)
    loss = f"{numbers.points(lost, signed=False)} points" if ctx.metric_is_fraction else numbers.fixed(lost, 3)
    return (
        f"{figure_base.short_name(fast)} is {ratio} faster than {figure_base.short_name(exact)} and scores {loss} lower"
    )


def distributions(data: ReportData, section: ranking.Section, slug: str) -> Figure | None:
    """One lane a row: the shape of all measured samples, median, p90 and p99 marked, the slowest samples as dots."""
    import numpy as np

    lanes = []
    for device in section.devices:
        for row in device.rows:
            latency = measured_ns(data, row)
            if latency.size:
                lanes.append((device, row, latency))
    total = len(lanes)
    lanes = lanes[:MOST_LANES]
    if not lanes:
        return None
    ctx = columns.context(section.rows)
    labels = figure_base.short_names([row for _, row, _ in lanes])
    quantiles = [np.percentile(latency, (0.5, 50, 90, 99, 99.5)) / ctx.time.factor for _, _, latency in lanes]

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.75 + 0.31 * len(lanes))
        axes = grid[0, 0]
        limits = _relative_axis(axes, quantiles)
        for number, (_, row, latency) in enumerate(lanes):
            median = quantiles[number][1]
            _lane(axes, -number, latency / (ctx.time.factor * median), quantiles[number] / median, row, limits)
        ticks = [
            f"{labels[row.session, row.trial]}{_lane_suffix(row, device, section)}  {numbers.significant(float(q[1]))}"
            for (device, row, _), q in zip(lanes, quantiles, strict=True)
        ]
        axes.set_yticks([-number + 0.25 for number in range(len(lanes))], ticks)
        axes.tick_params(axis="y", labelcolor=figure_base.TEXT)
        axes.set_ylim(-len(lanes) + 0.6, 1.1)
        axes.set_title(f"median {ctx.time.symbol}  ", loc="right", x=0, color=figure_base.MUTED, pad=2)
        axes.spines["left"].set_visible(False)
        return figure

    samples = sum(latency.size for _, _, latency in lanes)
    left = f" The first {len(lanes)} of {total:,} rows in the table's order." if total > len(lanes) else ""
    return Figure(
        name=f"latency-{slug}",
        title=_tail_title([(row, q) for (_, row, _), q in zip(lanes, quantiles, strict=True)]),
        caption=f"{section.title}: {samples:,} measured inferences, warm-up left out, all repetitions together. Long "
        f"mark: median of all of these, in the table of the repetitions' medians; short marks: p90 and p99; dots: "
        f"single inferences slower than p99, as far as the axis goes.{left}",
        alt=f"Distributions of latency, one lane for each of {names.count(len(lanes), 'row')}, from "
        f"{numbers.significant(min(q[1] for q in quantiles))} to {numbers.significant(max(q[1] for q in quantiles))} "
        f"{ctx.time.symbol} in the median.",
        draw=draw,
        heads=("row", "samples", *(f"{name} {ctx.time.symbol}" for name in ("median", "p90", "p99"))),
        cells=tuple(
            (_behind(row, section), f"{latency.size:,}", *(numbers.significant(float(q[i])) for i in (1, 2, 3)))
            for (_, row, latency), q in zip(lanes, quantiles, strict=True)
        ),
    )


def measured_ns(data: ReportData, row: TrialRow) -> Any:
    """All measured latencies of a row as one float array in nanoseconds, repetitions one after the other."""
    import numpy as np

    parts = [
        np.asarray(one.latency_ns)[np.asarray(one.phase) == PHASE_MEASURED]
        for one in data.samples.get((row.session, row.trial), ())
    ]
    return np.concatenate(parts).astype(float) if parts else np.empty(0)


def _relative_axis(axes: Any, quantiles: Sequence[Any]) -> tuple[float, float]:
    """An axis of latency over the row's own median, so that shapes of fast and slow rows compare."""
    from matplotlib.ticker import FuncFormatter

    low = min(float(q[0] / q[1]) for q in quantiles)
    high = min(max(float(q[4] / q[1]) for q in quantiles), 4.0)
    margin = 0.04 * (high - low)
    limits = (low - margin, high + 2 * margin)
    axes.set_xlim(*limits)
    axes.set_xlabel("latency over the row's median")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return limits


def _lane_suffix(row: TrialRow, device: ranking.DeviceRows, section: ranking.Section) -> str:
    mark = {"suspect": " (suspect)", "void": " (void)"}.get(ranking.group_of(row), "")
    return mark + (f", {names.device_title(device.device, 30)}" if len(section.devices) > 1 else "")


def _lane(axes: Any, base: float, values: Any, quantiles: Any, row: TrialRow, limits: tuple[float, float]) -> None:
    import numpy as np

    colour = figure_base.colour_of(row.runtime)
    faint = 0.5 if ranking.is_trusted(row) else 0.2
    low, high = quantiles[0], max(min(quantiles[3], limits[1]), quantiles[0] * 1.0001)
    counts, edges = np.histogram(values, bins=60, range=(low, high))
    heights = 0.62 * counts / max(counts.max(), 1)
    axes.stairs(base + heights, edges, baseline=base, fill=True, color=colour, alpha=faint, linewidth=0)
    axes.plot(limits, [base, base], color=figure_base.GRID, linewidth=0.6, zorder=0)
    for value, height in ((quantiles[1], 0.72), (quantiles[2], 0.3), (quantiles[3], 0.3)):
        axes.plot([value, value], [base - 0.06, base + height], color=figure_base.TEXT, linewidth=1.3)
    beyond = np.sort(values[(values > high) & (values <= limits[1])])
    beyond = beyond[np.unique(np.linspace(0, beyond.size - 1, 60).astype(int))] if beyond.size else beyond
    if beyond.size:
        figure_base.specks(axes, beyond, np.full(beyond.size, base + 0.12), color=colour, linewidth=2.2, alpha=0.6)


def _tail_title(found: Sequence[tuple[TrialRow, Any]]) -> str:
    tails = [(float(q[3] / q[1]), row) for row, q in found if ranking.is_trusted(row)]
    if not tails:
        return "Latency of each row, one inference at a time (no row is trusted)"
    worst, row = max(tails, key=lambda pair: pair[0])
    if len(tails) == 1:
        return f"One inference in a hundred takes more than {worst:.2f} times the median"
    if worst < 1.1:
        return f"Steady: in every trusted row p99 is within {100 * (worst - 1):.0f} % of the median"
    best, _ = min(tails, key=lambda pair: pair[0])
    return f"Tails: p99 is {best:.2f} to {worst:.2f} times the median; the longest is {figure_base.short_name(row)}"
