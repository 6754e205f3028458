"""The history of a model's rows: as lines for a terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from socbench.records import Json
from socbench.render import figure_base, names, numbers
from socbench.render.conclusion import subject_text
from socbench.render.figure_base import Figure

_FEWEST: Final = 6
"""Three sessions on each side of a step."""
_MOST_LINES: Final = 40


def history_lines(entry: Json) -> list[str]:
    """One key's sessions in time with its steps where they happened, at most 100 columns wide."""
    points, steps = entry["points"], entry["steps"]
    unit = numbers.time_unit(point["latency_p50_ns"] for point in points)
    medians = [
        numbers.measured(point["latency_p50_ns"], point["latency_p50_low_ns"], point["latency_p50_high_ns"], unit)
        for point in points
    ]
    room = max(len(text) for text in [*medians, "median"])
    lines = [_name(entry), f"  {'started (UTC)':<16}  {'median ' + unit.symbol:<{room}}  session"]
    after = {step["session"]: step for step in steps}
    first = max(0, len(points) - _MOST_LINES)
    if first:
        lines.append(f"  {first} earlier sessions are not shown (--json has them)")
    for point, median in list(zip(points, medians, strict=True))[first:]:
        if point["session"] in after:
            lines.append("  " + step_sentence(after[point["session"]]))
        called = names.plain(point["label"] or point["session"], 40)
        lines.append(f"  {_moment(point):<16}  {median:<{room}}  {called}")
    if not steps:
        few = len(points) < _FEWEST
        lines.append(
            f"  {names.count(len(points), 'session')}: " + ("too few to look for steps, which takes six." if few else
            "no step of 3 % or more.")
        )  # fmt: skip
    return lines


def step_sentence(step: Json) -> str:
    """What changed, by how much and what went with it."""
    change = numbers.percent_change(step["ratio"])
    if step["ratio_low"] is not None and step["ratio_high"] is not None:
        reach = (numbers.percent_change(step["ratio_low"]), numbers.percent_change(step["ratio_high"]))
        change += f" ({reach[0]} to {reach[1]})"
    kind = "slower" if step["ratio"] > 1 else "faster"
    changed = "; ".join(subject_text(text) for text in step["changed"])
    return f"step: {kind} from here, {change}: {changed or 'nothing that is recorded changed with it'}"


def _moment(point: Json) -> str:
    return names.plain(point["started"], 40)[:16].replace("T", " ")


def _name(entry: Json) -> str:
    parts = [
        f"{names.plain(entry['model'], 40)} on {names.plain(entry['device_name'], 40)}",
        f"{names.runtime_title(entry['runtime'])} {names.delegate_title(entry['delegate'], entry['runtime'])}",
        names.plain(entry["precision"], 24),
        names.count(entry["threads"], "thread"),
        f"batch {entry['batch']}",
    ]
    if entry["scenario"] != "single_stream":
        parts.append(names.scenario_title(entry["scenario"]))
    return ", ".join(parts)


def picture(entry: Json) -> Figure:
    """Medians of one key with their intervals, session by session, steps marked."""
    points, steps = entry["points"], entry["steps"]
    unit = numbers.time_unit(point["latency_p50_ns"] for point in points)
    said = [step_sentence(step) for step in steps]

    def draw() -> Any:
        figure, grid = figure_base.new_figure(3.0)
        _draw(grid[0, 0], points, steps, unit)
        return figure

    return Figure(
        name="history",
        title=_name(entry),
        caption=f"{names.count(len(points), 'session')}: median with its 95 % interval; dashed lines are steps. "
        + (" ".join(names.sentence(text) for text in said) if said else "No step was found."),
        alt=f"Latency over {names.count(len(points), 'session')}; {'; '.join(said) or 'no step'}.",
        draw=draw,
    )


def _draw(axes: Any, points: Sequence[Json], steps: Sequence[Json], unit: numbers.Unit) -> None:
    colour = figure_base.RUNTIME_COLOURS["litert"]
    for place, point in enumerate(points):
        low, high = point["latency_p50_low_ns"], point["latency_p50_high_ns"]
        if low is not None and high is not None:
            axes.plot([place, place], [low / unit.factor, high / unit.factor], color=colour, linewidth=1.2)
    values = [point["latency_p50_ns"] / unit.factor for point in points]
    axes.plot(range(len(points)), values, marker="o", markersize=4, linestyle="none", color=colour)
    sessions = [point["session"] for point in points]
    for step in steps:
        axes.axvline(sessions.index(step["session"]) - 0.5, color=figure_base.MUTED, linestyle="--", linewidth=1)
    # Dots, not bars: the axis need not start at zero. A long whisker must not hide what the medians do.
    span = max(max(values) - min(values), 0.1 * max(values))
    axes.set_ylim(max(0.0, min(values) - 0.6 * span), max(values) + 0.6 * span)
    every = -(-len(points) // 7)
    axes.set_xticks(range(0, len(points), every), [_moment(point)[:10] for point in points[::every]])
    axes.set_ylabel(f"median, {unit.symbol}")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
