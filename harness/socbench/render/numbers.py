"""Numbers as people read them: digits end where the interval ends, one unit a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

FIGURE_SPACE: Final = "\u2007"
PUNCTUATION_SPACE: Final = "\u2008"
MINUS: Final = "\u2212"


@dataclass(frozen=True)
class Unit:
    """A unit of a column: its symbol and how many base units (ns, bytes) make one."""

    symbol: str
    factor: float


NANOSECONDS: Final = Unit("ns", 1)
MICROSECONDS: Final = Unit("µs", 1e3)
MILLISECONDS: Final = Unit("ms", 1e6)
SECONDS: Final = Unit("s", 1e9)
MEGABYTES: Final = Unit("MB", 1e6)
KILOBYTES: Final = Unit("kB", 1e3)


WIDE: Final = 1.5
WITHIN: Final = "\u00d7/÷"
"""Before a factor: the interval reaches from the value over it to the value times it."""


def is_number(value: float | int | None) -> bool:
    """Whether ``value`` is known and finite."""
    return value is not None and math.isfinite(value)


def time_unit(values_ns: Iterable[float | None]) -> Unit:
    """One unit for a column of times: µs when all are below 1 ms, s when all are over 10 s, else ms."""
    known = [value for value in values_ns if value is not None and math.isfinite(value)]
    if not known:
        return MILLISECONDS
    if max(known) < MILLISECONDS.factor:
        return MICROSECONDS
    return SECONDS if min(known) >= 10 * SECONDS.factor else MILLISECONDS


def size_unit(values_bytes: Iterable[float | None]) -> Unit:
    """kB when all are below 1 MB, else MB (decimal: 10^6 bytes)."""
    known = [value for value in values_bytes if value is not None and math.isfinite(value)]
    return KILOBYTES if known and max(known) < MEGABYTES.factor else MEGABYTES


def decimals_of(half_width: float) -> int:
    """Decimals at which a number with this half-width ends: two digits of it if it starts with 1, else one.

    0.0387 -> 2 (0.04), 0.112 -> 2 (0.11), 3.4 -> 0 (3), 140 -> 0.
    """
    if not math.isfinite(half_width) or half_width <= 0:
        return 3
    exponent = math.floor(math.log10(half_width))
    rounded = round(half_width / 10**exponent, 1)
    return max(0, -exponent + (1 if rounded < 2 else 0))


def fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """``value`` with ``decimals`` digits after the point, thousands apart, a true minus and never ``-0.0``."""
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and no exponent: 0.0123, 12.3, 12,300."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "not finite"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if decimals < 0:
        value = round(value, decimals)
    return fixed(value, max(0, decimals))


def half_width(low: float | None, high: float | None) -> float | None:
    """Half of an interval's width, or ``None`` where it is not known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return abs(high - low) / 2


def measured(value: float | None, low: float | None, high: float | None, unit: Unit) -> str:
    """``3.12 ± 0.04`` in ``unit``; three significant digits where there is no interval, "" where no value.

    An interval that reaches over ``WIDE`` times the value is given as the factor that it is, after ``WITHIN``.
    """
    if value is None or not math.isfinite(value):
        return ""
    half = half_width(low, high)
    if half is None or half == 0:
        return significant(value / unit.factor)
    half /= unit.factor
    if low is not None and high is not None and low > 0 and high / value > WIDE:
        factor = max(high / value, value / low)
        return f"{significant(value / unit.factor, 2)} {WITHIN} {'1000+' if factor > 1000 else significant(factor, 2)}"
    decimals = min(decimals_of(half), 4)
    return f"{fixed(value / unit.factor, decimals)} ± {fixed(half, decimals)}"


def in_sentence(value_ns: float, low: float | None = None, high: float | None = None) -> str:
    """A time with its unit for running text: ``3.12 ms``, as many digits as the interval allows (four at most)."""
    unit = time_unit([value_ns])
    half = half_width(low, high)
    value = value_ns / unit.factor
    if half:
        most = max(0, 3 - math.floor(math.log10(max(abs(value), 1e-12))))
        return f"{fixed(value, min(decimals_of(half / unit.factor), most))} {unit.symbol}"
    return f"{significant(value)} {unit.symbol}"


def size_in_sentence(value_bytes: float) -> str:
    """``14.2 MB``."""
    for symbol, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value_bytes >= factor:
            return f"{significant(value_bytes / factor)} {symbol}"
    return f"{value_bytes:,.0f} bytes"


def times(ratio: float) -> str:
    """A ratio of one or more as it is spoken: ``2.4 x``, ``14 x``."""
    if ratio >= 10:
        return f"{ratio:,.0f} x"
    return f"{ratio:.1f} x" if ratio >= 1.5 else f"{ratio:.2f} x"


def points(fraction: float, *, signed: bool = True) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return fixed(100 * fraction, 1, signed=signed)


def percent_change(ratio: float) -> str:
    """A ratio of latencies as a change: 1.052 -> ``+5.2 %``."""
    return f"{fixed(100 * (ratio - 1), 1, signed=True)} %"


def aligned(cells: Sequence[str], *, figure: str = FIGURE_SPACE, point: str = PUNCTUATION_SPACE) -> list[str]:
    """Pad cells on the right so that, right-aligned in tabular figures, their decimal points stand in one line.

    A cell ``3.12 ± 0.04`` is aligned on the first number; the part after it is padded on its own.
    """
    parts = [cell.split(" ", 1) for cell in cells]
    heads = _pad([part[0] for part in parts], figure, point)
    halves = _pad([part[1][2:] if len(part) > 1 and part[1].startswith("± ") else "" for part in parts], figure, point)
    room = max((len(half) for half in halves), default=0)
    tails = []
    for part, half in zip(parts, halves, strict=True):
        tails.append("" if len(part) < 2 else f"± {half.rjust(room, figure)}" if half else part[1])
    if not any(len(part) > 1 for part in parts):
        return heads
    width = max(len(tail) for tail in tails)
    out = []
    for part, head, tail in zip(parts, heads, tails, strict=True):
        if not part[0]:
            out.append("")
        elif len(part) > 1:
            out.append(f"{head} {tail.ljust(width, figure)}")
        else:
            out.append(head + figure * (width + 1))
    return out


def _pad(cells: Sequence[str], figure: str, point: str) -> list[str]:
    decimals = [len(cell.partition(".")[2]) for cell in cells]
    most = max(decimals, default=0)
    padded = []
    for cell, have in zip(cells, decimals, strict=True):
        missing = figure * (most - have) + (point if most and not have else "")
        padded.append(cell + missing if cell else "")
    return padded


def clean(value: object) -> object:
    """A value for JSON or CSV: not finite numbers become ``None``, NumPy scalars become Python's."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(inner) for inner in value]
    return value
