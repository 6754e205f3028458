"""Figures over time: repetitions of a session, and continuous runs, with telemetry under them on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from socbench.analysis.change_points import bin_paces
from socbench.analysis.cooling import credible
from socbench.analysis.energy import power_series
from socbench.records import PHASE_MEASURED, Device, ReportData, SessionInfo, TelemetrySeries, TrialRow
from socbench.render import figure_base, names, numbers, ranking
from socbench.render.figure_base import Figure
from socbench.render.steps import cause_words, largest_step

_PANELS: Final = (
    (("temperature_milli_c",), "°C", 1e-3),
    (("clock_khz", "clock_cap_khz"), "GHz", 1e-6),
    (("thermal_status",), "status", 1.0),
    (("power_uw",), "W", 1e-6),
)
_MOST_LINES: Final = 6
_BINS: Final = 120


def over_session(data: ReportData, session: SessionInfo, device: Device, slug: str) -> Figure | None:
    """Each repetition's median over its row's median, in the order in which they ran."""
    found = _repetitions(data, session, device)
    if len(found) < 3 or len({(row.session, row.trial) for row, *_ in found}) == len(found):
        return None
    first = min(start for _, _, start, _ in found)
    panels = _telemetry(data, session, device)

    def draw() -> Any:
        figure, axes = _stacked(panels, first)
        for row, repetition_ratio, start, _ in found:
            x = (start - first) / 1e9
            axes.plot([x], [100 * (repetition_ratio - 1)], zorder=2, **figure_base.marks(row))
        axes.axhline(0, color=figure_base.MUTED, linewidth=0.8, zorder=1)
        worst = max(abs(100 * (ratio - 1)) for _, ratio, _, _ in found)
        axes.set_ylim(-max(1.2 * worst, 1), max(1.2 * worst, 1))
        axes.set_ylabel("deviation, %")
        axes.grid(axis="y")
        return figure

    ratios = [ratio for _, ratio, _, _ in found]
    low, high = 100 * (min(ratios) - 1), 100 * (max(ratios) - 1)
    span = f"{numbers.fixed(low, 1)} to {numbers.fixed(high, 1, signed=True)} %"
    title = f"Repetitions lie {span} off their row's median"
    if max(-low, high) < 5:
        title = f"Repetitions stay within {span} of their row's median"
    warmth = _warmth(panels)
    rows = len({(row.session, row.trial) for row, *_ in found})
    where = names.plain(device.name, 60)
    return Figure(
        name=f"session-{slug}",
        title=title + warmth,
        caption=f"{where}: {names.count(len(found), 'repetition')} of {names.count(rows, 'row')} in the order in which "
        f"they ran, each mark the repetition's median over the row's. {_sensors(panels)}",
        alt=f"{names.count(len(found), 'repetition')} over time, {low:.1f} to {high:.1f} % off their row's median.",
        draw=draw,
        heads=("s", "row", "repetition", "median over the row's"),
        cells=tuple(
            (f"{(start - first) / 1e9:,.1f}", names.row_name(row), f"{number}", f"{ratio:.4f}")
            for row, ratio, start, number in sorted(found, key=lambda one: one[2])
        )[:400],
    )


def _repetitions(data: ReportData, session: SessionInfo, device: Device) -> list[tuple[TrialRow, float, int, int]]:
    import numpy as np

    found = []
    for row in ranking.shown_rows(data.rows):
        if row.session != session.session or row.device != device.device or not row.latency_p50_ns:
            continue
        if row.scenario == "sustained":
            continue
        for one in data.samples.get((row.session, row.trial), ()):
            measured = np.asarray(one.phase) == PHASE_MEASURED
            if measured.any():
                median = float(np.median(np.asarray(one.latency_ns)[measured]))
                start = int(np.asarray(one.start_ns)[measured][0])
                found.append((row, median / row.latency_p50_ns, start, one.repetition))
    return found


def _telemetry(
    data: ReportData, session: SessionInfo, device: Device
) -> list[tuple[str, float, list[TelemetrySeries]]]:
    told = [credible(one) for one in data.telemetry.get(session.session, ()) if one.device == device.device]
    series = [one for one in told if len(one.t_ns) and one.kind != "power_uw"] + power_series(told)
    panels = []
    for kinds, unit, factor in _PANELS:
        chosen = [one for one in series if one.kind in kinds]
        chosen.sort(key=lambda one: (kinds.index(one.kind), -float(max(one.value)), one.source))
        if chosen:
            panels.append((unit, factor, chosen[:_MOST_LINES]))
    return panels


def _stacked(panels: Sequence[tuple[str, float, list[TelemetrySeries]]], first: int) -> tuple[Any, Any]:
    ratios = [2.4] + [1.0] * len(panels)
    figure, grid = figure_base.new_figure(
        2.5 + 1.0 * len(panels), len(ratios), 1, sharex=True, gridspec_kw={"height_ratios": ratios}
    )
    for axes, (unit, factor, series) in zip(grid[1:, 0], panels, strict=True):
        for number, one in enumerate(series):
            capped = one.kind.endswith("_cap_khz")
            style = {"color": figure_base.MUTED if number or capped else figure_base.TEXT, "linewidth": 1.1}
            axes.plot((one.t_ns - first) / 1e9, one.value * factor, linestyle="--" if capped else "-", **style)
        axes.set_ylabel(unit)
        axes.locator_params(axis="y", nbins=3)
        axes.margins(y=0.15)
        if unit == "status":  # a whole number from 0 on
            axes.set_ylim(-0.3, max(2, *(float(max(one.value)) for one in series)) + 0.3)
        axes.grid(axis="y")
        _name_lines(axes, series, factor)
    grid[-1, 0].set_xlabel("seconds since the first measured inference")
    return figure, grid[0, 0]


def _name_lines(axes: Any, series: Sequence[TelemetrySeries], factor: float) -> None:
    """Name lines at their ends, leaving out those that would lie on a name already written."""
    low, high = axes.get_ylim()
    taken: list[float] = []
    for one in series:
        y = float(one.value[-1]) * factor
        if any(abs(y - other) < 0.22 * (high - low) for other in taken):
            continue
        taken.append(y)
        label = names.plain(one.source.rpartition(":")[2] or one.source, 20) + (" limit" if "cap" in one.kind else "")
        axes.annotate(
            label, (1, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            fontsize=figure_base.FONT - 1, color=figure_base.TEXT,
        )  # fmt: skip


def _warmth(panels: Sequence[tuple[str, float, list[TelemetrySeries]]]) -> str:
    for unit, factor, series in panels:
        if unit == "°C":
            start, end = float(series[0].value[0]) * factor, float(max(series[0].value)) * factor
            if end - start >= 1:
                return f", while it warmed from {start:.0f} to {end:.0f} °C"
    return ""


def _sensors(panels: Sequence[tuple[str, float, list[TelemetrySeries]]]) -> str:
    if not panels:
        return "No temperature or clock could be read."
    read = [names.plain(one.source, 40) for _, _, series in panels for one in series]
    return f"Below: {names.listing(dict.fromkeys(read), 4)}."


def continuous(data: ReportData, row: TrialRow, slug: str) -> Figure | None:
    """A continuous run: inferences as faint dots, the rolling median as a line, the throttled part shaded."""
    import numpy as np

    from socbench.render.figure_latency import measured_ns

    latency = measured_ns(data, row)
    if latency.size < 20:
        return None
    parts = data.samples[row.session, row.trial]
    start = np.concatenate([np.asarray(one.start_ns)[np.asarray(one.phase) == PHASE_MEASURED] for one in parts])
    order = np.argsort(start, kind="stable")
    start, latency = start[order], latency[order]
    first = int(start[0])
    seconds = (start - first) / 1e9
    unit = numbers.time_unit([float(np.median(latency))])
    session = next((one for one in data.sessions if one.session == row.session), None)
    device = next((one for one in session.devices if one.device == row.device), None) if session else None
    panels = _telemetry(data, session, device) if session and device else []
    line_x, line_y = rolling_median(seconds, latency / unit.factor)
    thermal = row.thermal or {}
    waits = _with_waits(start, latency, thermal)

    def draw() -> Any:
        figure, axes = _stacked(panels, first)
        picked = np.unique(np.linspace(0, latency.size - 1, 1500).astype(int))
        colour = figure_base.colour_of(row.runtime)
        figure_base.specks(
            axes, seconds[picked], latency[picked] / unit.factor, color=colour, linewidth=1.8, alpha=0.25
        )
        axes.plot(line_x, line_y, color=figure_base.TEXT, linewidth=1.4)
        if waits is not None:
            axes.plot(waits[0], waits[1] / unit.factor, color=figure_base.TEXT, linewidth=1.4, linestyle=":")
        # A few late inferences must not press the lines to the ground.
        highest = float(max(line_y.max(), 0 if waits is None else waits[1].max() / unit.factor))
        axes.set_ylim(0, min(float(np.percentile(latency, 99.5)) / unit.factor * 1.25, 2.5 * highest))
        axes.set_ylabel(f"latency, {unit.symbol}")
        axes.grid(axis="y")
        _mark(axes, thermal, float(seconds[-1]))
        return figure

    where = names.plain(row.device_name, 60)
    said = (
        "" if waits is None else ", the dotted one the time that an inference took in all, waits between them included"
    )
    return Figure(
        name=f"over-time-{slug}",
        title=f"{where}: {_thermal_title(thermal)}",
        caption=f"{names.row_name(row)}: {latency.size:,} inferences over {seconds[-1]:,.0f} s, "
        f"{min(latency.size, 1500):,} of them drawn; the line is the rolling median{said}. {_sensors(panels)}",
        alt=f"Latency over {seconds[-1]:,.0f} seconds, from {line_y[0]:.3g} to {line_y[-1]:.3g} {unit.symbol}.",
        draw=draw,
        heads=("s", f"rolling median {unit.symbol}"),
        cells=tuple((f"{x:,.1f}", f"{y:.4g}") for x, y in zip(line_x, line_y, strict=True)),
    )


def _mark(axes: Any, thermal: dict[str, Any], end_s: float) -> None:
    """Draw where the run slowed down, its largest step, and where the load ended and the cooling began."""
    at, step, rested = thermal.get("throttle_at_s"), largest_step(thermal), thermal.get("cool_down") or {}
    axes.set_xlim(0, end_s + float(rested.get("seconds") or 0.0))
    notes = []
    if rested:
        axes.axvline(end_s, color=figure_base.MUTED, linewidth=0.8, linestyle=":")
        notes.append((end_s, "cools down", -4))
    if at is not None:
        axes.axvspan(at, end_s, color=figure_base.BAND, alpha=0.1, linewidth=0)
        word = "throttled" if thermal.get("throttled") else "slowed down"
        notes.append((at, f"{word} from {at:,.0f} s", -4))
    if step is not None:
        axes.axvline(step["at_s"], color=figure_base.TEXT, linewidth=1, linestyle="--")
        size = numbers.times(step["lasting_ratio"])
        notes.append((step["at_s"], f"{size} the time from {step['at_s']:,.0f} s", -16))
    for x, text, down in notes:
        axes.annotate(
            text, (x, 1), (4, down), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", fontsize=figure_base.FONT - 1,
        )  # fmt: skip


def _with_waits(start_ns: Any, latency_ns: Any, thermal: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return the middles (s) of spans of a run and the mean time (ns) from one start to the next in each, where that
    tells more than the medians: another process or a quota holds inferences back between each other. None elsewhere.
    """
    pace, slowdown = thermal.get("pace_slowdown"), thermal.get("slowdown")
    if thermal.get("rate_hz") or not pace or not slowdown or 1 / 1.1 < pace / slowdown < 1.1:
        return None
    span_s = float(start_ns[-1] - start_ns[0]) / 1e9 / _BINS
    at_s, paces = bin_paces(start_ns, latency_ns, span_s)
    return at_s + span_s / 2, paces


def rolling_median(seconds: Any, values: Any, bins: int = _BINS) -> tuple[Any, Any]:
    """Medians of ``bins`` equal spans of time: their middles and the medians; empty spans are left out."""
    import numpy as np

    edges = np.linspace(float(seconds[0]), float(seconds[-1]), bins + 1)
    place = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, bins - 1)
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(bins + 1))
    x, y = [], []
    for number in range(bins):
        inside = values[order[bounds[number] : bounds[number + 1]]]
        if inside.size:
            x.append((edges[number] + edges[number + 1]) / 2)
            y.append(float(np.median(inside)))
    return np.array(x), np.array(y)


def _thermal_title(thermal: dict[str, Any]) -> str:
    at, slowdown, step = thermal.get("throttle_at_s"), thermal.get("slowdown"), largest_step(thermal)
    if step is not None:
        return f"{numbers.times(step['lasting_ratio'])} the time from {step['at_s']:,.0f} s on: {cause_words(step)}"
    if at is None or slowdown is None:
        return "no lasting slow-down was found"
    more = max(slowdown, thermal.get("pace_slowdown") or 0.0)
    return f"{numbers.times(more)} the time from {at:,.0f} s on: {cause_words(thermal)}"
