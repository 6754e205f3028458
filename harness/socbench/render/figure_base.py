"""What every figure shares: colours, marks, the themed SVG, labels that do not collide."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from socbench.records import TrialRow
from socbench.render import names

TEXT: Final = "#16181d"
MUTED: Final = "#5d626c"
GRID: Final = "#dfe1e6"
PAGE: Final = "#fffffe"
HEAT: Final = "#0072b3"
BAND: Final = "#d55e01"
RUNTIME_COLOURS: Final = {
    "litert": "#0072b2",
    "onnxruntime": "#d55e00",
    "openvino": "#009e73",
    "tensorrt": "#cc79a7",
    "ncnn": "#e69f00",
    "mnn": "#56b4e9",
    "executorch": "#9c8f00",
    "null": "#777777",
}
"""Okabe and Ito's set, its yellow darkened to show on white; one runtime has one colour everywhere."""

_THEME: Final = {
    TEXT: "--text",
    MUTED: "--muted",
    GRID: "--rule",
    PAGE: "--page",
    HEAT: "--c-heat",
    BAND: "--c-band",
    **{colour: f"--c-{runtime}" for runtime, colour in RUNTIME_COLOURS.items()},
}
MARKERS: Final = {"cpu": "o", "gpu": "s", "npu": "^", "nnapi": "D", "auto": "P", "hetero": "P"}
FONT: Final = 9.0
WIDTH: Final = 7.6
"""Inches; the page scales it, 1 inch is 72 of the SVG's units."""

RC: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "socbench",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "text.color": TEXT,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": PAGE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Figure:
    """One figure: the finding as its title, how it was measured with n, the text alternative, the numbers behind it.

    ``draw`` returns a new ``matplotlib.figure.Figure`` without a title.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Any]
    heads: tuple[str, ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of the common width with a grid of axes (always a two-dimensional array)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def colour_of(runtime: str) -> str:
    """The runtime's colour, grey for one that is not in the list."""
    return RUNTIME_COLOURS.get(runtime, RUNTIME_COLOURS["null"])


def bits_of(precision: str | None) -> int:
    """8, 16 or 32: what decides whether a mark is hollow, half or full."""
    if precision in ("fp16", "bf16", "int16x8"):
        return 16
    return 32 if precision in (None, "fp32") else 8


def executed(row: TrialRow) -> str:
    """The precision that ran, as far as it is known."""
    return row.precision_effective or row.precision


def marks(row: TrialRow, *, faint: bool = False) -> dict[str, Any]:
    """Arguments for ``Axes.plot``: colour for the runtime, shape for the delegate, fill for the precision."""
    colour = colour_of(row.runtime)
    bits = bits_of(executed(row))
    from matplotlib.colors import to_rgba

    face: Any = colour if bits == 32 else PAGE if bits == 8 else to_rgba(colour, 0.4)
    return {
        "marker": MARKERS.get((row.delegate_effective or row.delegate).partition(":")[0], "o"),
        "markersize": 7,
        "markerfacecolor": face,
        "markeredgecolor": colour,
        "markeredgewidth": 1.4,
        "linestyle": "none",
        "alpha": 0.45 if faint else 1.0,
    }


def short_name(row: TrialRow) -> str:
    """``OpenVINO CPU int8``, for a label in a figure."""
    where = names.delegate_title(row.delegate, row.runtime)
    name = f"{names.runtime_title(row.runtime)} {where} {names.plain(row.precision)}"
    return names.plain(name + (f" {row.recipe}" if row.recipe else ""), 44)


def short_names(rows: Sequence[TrialRow]) -> dict[tuple[str, str], str]:
    """Labels by ``(session, trial)``, threads and the like added where labels would be the same."""
    long = names.row_names(rows)
    out = {}
    for row in rows:
        key = (row.session, row.trial)
        extra = long[key].removeprefix(names.row_name(row))
        out[key] = names.plain(short_name(row) + extra, 56)
    return out


def specks(axes: Any, x: Any, y: Any, **options: Any) -> None:
    """Many points as one path of dots: a hundredth of the size of as many marks."""
    import numpy as np

    gap = np.full(len(x), np.nan)
    axes.plot(
        np.column_stack((x, x, gap)).ravel(),
        np.column_stack((y, y, gap)).ravel(),
        solid_capstyle="round",
        **options,
    )


def place_labels(figure: Any, axes: Any, points: Sequence[tuple[float, float, str]], obstacles: Any = None) -> None:
    """Write each label beside its point where it covers neither a point nor another label; leaders where it is far.

    ``points`` are in data coordinates, the most important first; ``obstacles`` are more points to keep clear.
    """
    from matplotlib.transforms import Bbox

    figure.get_layout_engine().execute(figure)
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken = [_square(axes.transData.transform(point), 5) for point in (obstacles or [])]
    taken += [_square(axes.transData.transform((x, y)), 5) for x, y, _ in points]
    scale = figure.dpi / 72
    for x, y, label in points:
        text = axes.annotate(label, (x, y), (0, 0), textcoords="offset points", fontsize=FONT - 1, color=TEXT)
        anchor = axes.transData.transform((x, y))
        size = text.get_window_extent(renderer)
        for dx, dy, align in _offsets():
            left = anchor[0] + dx * scale - {"left": 0.0, "right": size.width, "center": size.width / 2}[align]
            bottom = anchor[1] + dy * scale - size.height / 2
            box = Bbox.from_bounds(left - 4, bottom - 1, size.width + 8, size.height + 2)
            inside = frame.x0 - 2 <= box.x0 and box.x1 <= frame.x1 + 8 and frame.y0 <= box.y0 and box.y1 <= frame.y1 + 8
            if inside and not any(box.overlaps(other) for other in taken):
                break
        else:
            text.remove()
            continue
        taken.append(box)
        text.set(ha=align, va="center")
        text.xyann = (dx, dy)
        if abs(dy) > 14 or abs(dx) > 24:
            axes.annotate(
                "", (x, y), (dx, dy), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5},
            )  # fmt: skip


def _square(centre: Any, half: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(centre[0] - half, centre[1] - half, 2 * half, 2 * half)


def _offsets() -> list[tuple[float, float, str]]:
    found = [(9.0, 0.0, "left"), (-9.0, 0.0, "right"), (0.0, 12.0, "center"), (0.0, -12.0, "center")]
    for radius in (13, 22, 32, 42, 54, 68, 84):
        for dx, align in ((8.0, "left"), (-8.0, "right"), (0.0, "center"), (28.0, "left"), (-28.0, "right")):
            found += [(dx, float(radius), align), (dx, float(-radius), align)]
    return found


def latency_axis(axes: Any, lowest: float, highest: float, unit: str, label: str = "latency") -> None:
    """Start a horizontal axis at zero, or make it logarithmic over two decades and say so."""
    from matplotlib.ticker import FuncFormatter

    if lowest > 0 and highest / lowest > 100:
        axes.set_xscale("log")
        axes.set_xlim(lowest / 1.2, highest * 1.2)
        axes.set_xlabel(f"{label}, {unit} (logarithmic)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_xlim(0, highest * 1.05)
        axes.set_xlabel(f"{label}, {unit}")
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def rendered(figure: Figure, kind: str, *, titled: bool = True) -> bytes:
    """The figure as a PNG, SVG or PDF file; ``titled`` puts the finding above and the caption below."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        drawn = figure.draw()
        if titled:
            add_title(drawn, figure)
        settle(drawn)
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {"Software": None}
        drawn.savefig(out, format=kind, dpi=160, metadata=metadata)
    return out.getvalue()


def settle(drawn: Any) -> None:
    """Lay the figure out once: saving would do it again at every pass."""
    engine = drawn.get_layout_engine()
    if engine is not None:
        engine.execute(drawn)
        drawn.set_layout_engine("none")


def add_title(drawn: Any, figure: Figure) -> None:
    """Write title and caption into the picture, in room of their own."""
    import textwrap

    title = textwrap.wrap(figure.title, 70) or [""]
    caption = textwrap.wrap(figure.caption, 118)
    height = drawn.get_figheight()
    above, below = 0.24 * len(title) + 0.1, 0.16 * len(caption) + 0.1
    total = height + above + below
    drawn.set_figheight(total)
    drawn.get_layout_engine().set(rect=(0, below / total, 1, height / total))
    drawn.text(0.012, 1 - 0.08 / total, "\n".join(title), fontsize=FONT + 3, fontweight="bold", va="top")
    drawn.text(0.012, 0.06 / total, "\n".join(caption), fontsize=FONT - 1, color=MUTED, va="bottom")


def inline_svg(figure: Figure, number: int) -> str:
    """The figure as an SVG element for a page: ids of its own, colours and font as the page's CSS variables."""
    text = rendered(figure, "svg", titled=False).decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text)
    prefix = f"f{number}-"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    text = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'", r"\1var(--font)", text)
    for colour, variable in _THEME.items():
        text = re.sub(rf"((?:fill|stroke): ){colour}\b", rf"\1var({variable})", text)
    label = _attribute(figure.alt)
    return re.sub(
        r"<svg[^>]*viewBox=\"([^\"]+)\"[^>]*>", rf'<svg viewBox="\1" role="img" aria-label="{label}">', text, count=1
    )


def _attribute(text: str) -> str:
    escaped = names.plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return escaped.replace("\\", "&#92;")
