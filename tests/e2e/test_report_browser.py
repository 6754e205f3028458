"""The HTML report in a real Chromium: nothing loaded, nothing complained about, readable at every width and scheme."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic_report as synthetic
from chromium import Browser, browser
from socbench.records import ReportData
from socbench.render.write import write_report

CONTRAST = """
(() => {
  const parse = text => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = rgb => {
    const [r, g, b] = rgb.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = parse(getComputedStyle(document.body).backgroundColor);
  const behind = element => {
    let colour = page;
    const chain = [];
    for (let e = element; e && e.namespaceURI.endsWith('xhtml'); e = e.parentElement) chain.unshift(e);
    for (const e of chain) colour = over(parse(getComputedStyle(e).backgroundColor), colour);
    const svg = element.closest('svg');
    if (svg) {
      const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
      for (const shape of svg.querySelectorAll('path')) {
        const style = getComputedStyle(shape), b = shape.getBoundingClientRect();
        const holds = b.x <= x && x <= b.right && b.y <= y && y <= b.bottom && b.width > 40 && b.height > 8;
        if (!holds || !style.fill.startsWith('rgb')) continue;
        const fill = parse(style.fill);
        fill[3] *= Number(style.opacity) * Number(style.fillOpacity);
        colour = over(fill, colour);
      }
    }
    return colour;
  };
  let worst = [99, ''];
  let counted = 0;
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), under = behind(element);
    const paint = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const a = light(over(parse(paint), under)), b = light(under);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    counted += 1;
    if (ratio < worst[0]) worst = [ratio, element.textContent.trim().slice(0, 60)];
  }
  return [...worst, counted];
})()
"""
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
CASES = {
    "quick": synthetic.quick,
    "one": synthetic.one_row,
    "hostile": synthetic.hostile,
    "failed": synthetic.all_failed,
    "devices": lambda: synthetic.several_devices(sustained=True),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ReportData, Path]]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, make in CASES.items():
        data = make()
        [path] = write_report(data, folder / f"{name}.html", compare=synthetic.pairs() if name == "quick" else None)
        found[name] = (data, path)
    return found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_the_page_loads_nothing_and_complains_about_nothing(
    name: str, reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    _, path = reports[name]
    chromium.open(path)
    assert chromium.requests() == [path.resolve().as_uri()]
    assert chromium.complaints() == []
    assert chromium.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_the_page_never_scrolls_sideways(
    name: str, width: int, reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    chromium.open(reports[name][1], width=width)
    content, window = chromium.evaluate(WIDTHS)
    assert window == width
    assert content <= width


@pytest.mark.parametrize("name", CASES)
def test_every_row_stands_in_a_main_table(
    name: str, reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    data, path = reports[name]
    chromium.open(path)
    shown = chromium.evaluate("[...document.querySelectorAll('table.main tr[data-trial]')].map(r => r.dataset.trial)")
    assert sorted(shown) == sorted(row.trial for row in data.rows if row.scenario != "accuracy")
    visible = chromium.evaluate("[...document.querySelectorAll('tr[data-trial]')].every(r => r.offsetHeight > 10)")
    assert visible


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(
    name: str, dark: bool, reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    chromium.open(reports[name][1], dark=dark)
    chromium.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    background = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")
    ratio, where, counted = chromium.evaluate(CONTRAST)
    assert counted > 30
    assert ratio >= 4.5, where


def test_hostile_names_are_text(reports: dict[str, tuple[ReportData, Path]], chromium: Browser) -> None:
    chromium.open(reports["hostile"][1])
    assert "<script>alert('x')</script>" in chromium.evaluate("document.title")
    assert "{{ 7*7 }}" in chromium.evaluate("document.querySelector('h1').textContent")
    assert "49" not in chromium.evaluate("document.querySelector('h1').textContent")


def test_print_is_black_on_white_even_where_the_screen_is_dark(
    reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    chromium.open(reports["quick"][1], dark=True, media="print")
    assert chromium.evaluate("getComputedStyle(document.body).color") == "rgb(22, 24, 29)"
    assert (
        chromium.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#ffffff"
    )


def test_no_table_is_clipped_on_a_printed_page(reports: dict[str, tuple[ReportData, Path]], chromium: Browser) -> None:
    # 182 mm of an A4 page between the margins are 688 CSS pixels.
    chromium.open(reports["quick"][1], width=688, media="print")
    wide = chromium.evaluate(
        "[...document.querySelectorAll('table')].filter(t => !t.closest('details:not([open])'))"
        ".map(t => t.getBoundingClientRect().right).filter(r => r > innerWidth + 1)"
    )
    assert wide == []


def test_labels_of_the_scatter_do_not_cover_each_other(
    reports: dict[str, tuple[ReportData, Path]], chromium: Browser
) -> None:
    chromium.open(reports["quick"][1])
    overlaps = chromium.evaluate("""
      (() => {
        const scatter = f => f.textContent.includes('best accuracy within a latency');
        const svg = [...document.querySelectorAll('figure')].find(scatter).querySelector('svg');
        const boxes = [...svg.querySelectorAll('text')].filter(t => /fp|int/.test(t.textContent))
          .map(t => [t.getBoundingClientRect(), t.textContent]);
        const found = [];
        for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
          const [a, b] = [boxes[i][0], boxes[j][0]];
          const across = Math.min(a.right, b.right) - Math.max(a.x, b.x);
          const down = Math.min(a.bottom, b.bottom) - Math.max(a.y, b.y);
          if (across > 1 && down > 2) found.push([boxes[i][1], boxes[j][1]]);
        }
        return [boxes.length, found];
      })()
    """)
    assert overlaps[0] >= 8
    assert overlaps[1] == []
