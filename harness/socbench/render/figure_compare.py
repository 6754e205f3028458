"""The picture of a comparison: each pair's ratio with its interval, on a logarithmic axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from socbench.records import ComparedPair
from socbench.render import figure_base, names, numbers
from socbench.render.compare import DECISION_TITLES, ordered, several_models
from socbench.render.figure_base import Figure
from socbench.render.sentences import pair_name

_MOST_ROWS: Final = 40
# Shape and fill say the same as the colour, so that nobody depends on telling colours apart.
_MARKS: Final = {
    "slower": (figure_base.RUNTIME_COLOURS["onnxruntime"], ">", True),
    "faster": (figure_base.RUNTIME_COLOURS["litert"], "<", True),
    "no_difference": (figure_base.MUTED, "o", True),
    "cannot_tell": (figure_base.MUTED, "o", False),
}
_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 0.98, 0.99,
                 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100)  # fmt: skip


def ratios(pairs: Sequence[ComparedPair], base: str, candidate: str) -> Figure | None:
    """Dot and whisker of every pair that has a ratio; ``None`` where none has."""
    shown = [pair for pair in ordered(pairs) if pair.ratio is not None and pair.decision in _MARKS]
    if not shown:
        return None
    base, candidate = names.plain(base, 40), names.plain(candidate, 40)
    many = several_models(pairs)
    left = len(shown) - _MOST_ROWS
    shown = sorted(shown[:_MOST_ROWS], key=lambda pair: -(pair.ratio or 1.0))
    labels = [names.plain(pair_name(pair, model=many), 60) for pair in shown]

    counted = Counter(pair.decision for pair in ordered(pairs))

    def draw() -> Any:
        figure, grid = figure_base.new_figure(0.9 + 0.27 * len(shown))
        _panel(grid[0, 0], shown, labels, base, candidate)
        return figure

    said = [f"{label}: {_change(pair)}" for pair, label in zip(shown, labels, strict=True)]
    return Figure(
        name="comparison",
        title=names.listing(f"{number:,} {DECISION_TITLES[name]}" for name, number in counted.items()),
        caption=f"{names.count(len(shown), 'row')}: ratio of the medians, {candidate} over {base}, with its 95 % "
        "interval, on a logarithmic axis. Arrows: faster or slower; full dots: no difference; hollow: can't tell."
        + (f" {left} more rows are not drawn." if left > 0 else ""),
        alt=f"Changes of latency: {names.listing(said, 8)}.",
        draw=draw,
        heads=("row", "change", "95 %", "decision"),
        cells=tuple(
            (label, numbers.percent_change(pair.ratio or 1.0), _interval(pair), DECISION_TITLES[pair.decision])
            for pair, label in zip(shown, labels, strict=True)
        ),
    )


def _change(pair: ComparedPair) -> str:
    interval = _interval(pair)
    return numbers.percent_change(pair.ratio or 1.0) + (f" ({interval})" if interval else "")


def _interval(pair: ComparedPair) -> str:
    if pair.ratio_low is None or pair.ratio_high is None:
        return ""
    return f"{numbers.percent_change(pair.ratio_low)} to {numbers.percent_change(pair.ratio_high)}"


def _panel(axes: Any, shown: Sequence[ComparedPair], labels: Sequence[str], base: str, candidate: str) -> None:
    dots = [pair.ratio or 1.0 for pair in shown]
    # Whiskers count up to three times beyond the dots: one row without a usable interval must not squeeze the others.
    lowest, highest = min(1.0, *dots) / 3, max(1.0, *dots) * 3
    ends = [end for pair in shown for end in (pair.ratio_low, pair.ratio_high) if end]
    low = max(lowest, min([0.97, *dots, *ends])) / 1.01
    high = min(highest, max([1.03, *dots, *ends])) * 1.01
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvline(1.0, color=figure_base.TEXT, linewidth=0.9)
    for place, pair in enumerate(shown):
        colour, marker, full = _MARKS[pair.decision]
        if pair.ratio_low and pair.ratio_high:
            axes.plot([pair.ratio_low, pair.ratio_high], [place, place], color=colour, linewidth=1.6)
        axes.plot(
            [pair.ratio], [place], marker=marker, markersize=6.5, linestyle="none", markeredgecolor=colour,
            markerfacecolor=colour if full else figure_base.PAGE, markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(axis="y", labelcolor=figure_base.TEXT)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    _ticks(axes, low, high)
    axes.set_xlabel(f"change of latency, {candidate} over {base} (logarithmic); to the right is slower")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _ticks(axes: Any, low: float, high: float) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    # A label needs about a tenth of the axis; "same" is placed first, then what lies far enough from all others.
    room = math.log(high / low) / 10
    inside: list[float] = []
    for tick in sorted(_TICKS, key=lambda tick: (tick != 1, -abs(math.log(tick)) if tick in (0.5, 2) else 0)):
        if low <= tick <= high and all(abs(math.log(tick / other)) >= room for other in inside):
            inside.append(tick)
    axes.set_xticks(inside, [f"{100 * (tick - 1):+.0f} %".replace("-", numbers.MINUS) if tick != 1 else "same"
                             for tick in inside])  # fmt: skip
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
