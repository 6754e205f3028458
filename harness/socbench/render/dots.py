"""Dot and whisker of one row on a scale that the whole table shares, as small SVG elements. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from socbench.records import TrialRow
from socbench.render import figure_base, names, numbers, ranking

_WIDTH: Final = 184
_HEIGHT: Final = 22
_LEFT: Final = 6
_RIGHT: Final = 178
_DIGIT: Final = 6.5
"""The width of a figure of the axis' type, in the same units."""
_SHAPES: Final = {
    "o": "M{x0} {y}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z",
    "s": "M{x0} {y0}h{d}v{d}h-{d}z",
    "^": "M{x} {y0}l{r} {d}h-{d}z",
    "D": "M{x} {y0}l{r} {r}l-{r} {r}l-{r} -{r}z",
    "P": "M{x} {y0}v{d}M{x0} {y}h{d}",
}


@dataclass(frozen=True)
class Scale:
    """Values in a unit to pixels: from zero, or logarithmic over two decades."""

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Pixels from the left, held within the cell."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return _LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0)


def scale(rows: Sequence[TrialRow], unit: numbers.Unit) -> Scale | None:
    """The scale of a table; ``None`` where nothing was measured."""
    values = [row.latency_p50_ns / unit.factor for row in rows if ranking.is_measured(row) and row.latency_p50_ns]
    if not values:
        return None
    low, high = min(values), max(values)
    tails = [row.latency_p99_ns / unit.factor for row in rows if row.latency_p99_ns is not None]
    high = max([high, *(min(tail, 1.6 * high) for tail in tails)])
    if high / low > 100:
        start, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return Scale(10.0**start, 10.0**end, True, tuple(10.0**power for power in range(start, end + 1)))
    power = 10.0 ** (math.floor(math.log10(high)) - 1)
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50) if high / (power * factor) <= 4)
    ticks = [step * number for number in range(math.ceil(high / step) + 1)]
    return Scale(0.0, ticks[-1], False, tuple(ticks))


def axis_svg(used: Scale) -> str:
    """The scale's ticks, for the head of the column."""
    parts = []
    free = 0.0
    for tick in used.ticks:
        x, text = used.at(tick), f"{tick:g}"
        width = _DIGIT * len(text)
        anchor = "start" if x < _LEFT + 4 else "end" if x > _RIGHT - 4 else "middle"
        left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
        if left >= free:  # many decades: what would run into the number before it is left out
            parts.append(f'<text x="{x:.1f}" y="15" text-anchor="{anchor}">{text}</text>')
            free = left + width + _DIGIT
        parts.append(f'<path class="rule" d="M{x:.1f} 18v4"/>')
    word = ", logarithmic" if used.logarithmic else ""
    return (
        f'<svg class="dot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="scale{word}">{"".join(parts)}</svg>'
    )


def row_svg(row: TrialRow, used: Scale, unit: numbers.Unit) -> str:
    """The row's median as its mark, the interval as a thick line, p99 as a tick at the end of a thin one."""
    if not ranking.is_measured(row) or row.latency_p50_ns is None:
        return ""
    y = _HEIGHT / 2
    x = used.at(row.latency_p50_ns / unit.factor)
    parts = [f'<path class="rule" d="M{_LEFT} {y:g}H{x:.1f}"/>']
    if row.latency_p99_ns is not None:
        tail = row.latency_p99_ns / unit.factor
        end = used.at(tail)
        tick = "" if tail > used.high else f"M{end:.1f} {y - 3:g}v6"
        parts.append(f'<path class="tail" d="M{x:.1f} {y:g}H{end:.1f}{tick}"/>')
    if row.latency_p50_low_ns is not None and row.latency_p50_high_ns is not None:
        low, high = used.at(row.latency_p50_low_ns / unit.factor), used.at(row.latency_p50_high_ns / unit.factor)
        parts.append(f'<path stroke="var(--c-{_known(row)})" stroke-width="3" d="M{low:.1f} {y:g}H{high:.1f}"/>')
    parts.append(_mark_path(row, x, y, 4.5))
    return f'<svg class="dot" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'


def key_svg(row: TrialRow, *, coloured: bool) -> str:
    """The row's mark alone, for a legend; grey where the colour is not what it explains."""
    path = _mark_path(row, 6, 6, 4.5)
    if not coloured:
        path = path.replace(f"var(--c-{_known(row)})", "var(--muted)")
    return f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{path}</svg>'


def marker_of(row: TrialRow) -> str:
    """The letter of the mark's shape, by the delegate that ran."""
    return figure_base.MARKERS.get((row.delegate_effective or row.delegate).partition(":")[0], "o")


def bits_of(row: TrialRow) -> int:
    """8, 16 or 32, by the precision that ran."""
    return figure_base.bits_of(figure_base.executed(row))


def _known(row: TrialRow) -> str:
    return row.runtime if row.runtime in names.RUNTIME_TITLES else "null"


def _mark_path(row: TrialRow, x: float, y: float, r: float) -> str:
    shape = _SHAPES[marker_of(row)].format(
        x=f"{x:.1f}", y=f"{y:g}", x0=f"{x - r:.1f}", y0=f"{y - r:g}", r=f"{r:g}", d=f"{2 * r:g}"
    )
    colour = f"var(--c-{_known(row)})"
    bits = bits_of(row)
    fill = "var(--page)" if bits == 8 else colour
    under = f'<path d="{shape}" fill="var(--page)"/>' if bits == 16 else ""
    opacity = ' fill-opacity=".4"' if bits == 16 else ""
    return f'{under}<path d="{shape}" fill="{fill}"{opacity} stroke="{colour}" stroke-width="1.6"/>'
