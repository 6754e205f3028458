"""Which SoC a device has: its names, looked up in the table; core counts and clocks decide ties. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from socbench.devices.data import SocFacts, socs
from socbench.devices.parse import clean
from socbench.records import CoreCluster, Json

_MODEL_PROPERTIES = (
    "ro.soc.model",
    "ro.vendor.soc.model",
    "ro.vendor.qti.soc_model",
    "ro.vendor.soc.model.part_name",
    "ro.hardware.chipname",
    "ro.vendor.mediatek.platform",
    "ro.chipname",
)
"""Where Android names the chip, the most exact one first."""

_PLATFORM_PROPERTIES = ("ro.board.platform", "ro.hardware", "ro.boot.hardware", "ro.product.board")
"""Where Android names the platform, which several chips may share, or the vendor, or the device."""

_VENDORS = {
    "qti": "Qualcomm",
    "qcom": "Qualcomm",
    "qualcomm": "Qualcomm",
    "mediatek": "MediaTek",
    "mtk": "MediaTek",
    "google": "Google",
    "samsung": "Samsung",
    "slsi": "Samsung",
    "hisilicon": "HiSilicon",
    "unisoc": "Unisoc",
    "spreadtrum": "Unisoc",
    "sprd": "Unisoc",
    "nvidia": "NVIDIA",
    "rockchip": "Rockchip",
    "brcm": "Broadcom",
    "amlogic": "Amlogic",
    "allwinner": "Allwinner",
    "fsl": "NXP",
    "nxp": "NXP",
    "ti": "TI",
    "apple": "Apple",
    "cix": "CIX",
}


@dataclass(frozen=True)
class SocMatch:
    """What was found: vendor and a name to show (both None: nothing); ``facts`` only when it is one row for certain."""

    vendor: str | None = None
    name: str | None = None
    facts: SocFacts | None = None


def match_soc(facts: Json, clusters: Sequence[CoreCluster]) -> SocMatch:
    """Return the SoC of a device from its raw facts and its core clusters.

    The first name that the table knows decides. When it stands for several SoCs (``taro``, ``pineapple``), other
    names, then core names, counts and clocks narrow it down; what stays ambiguous is said as such, with all
    candidates. A name that the table does not know is shown as the device gave it, with the vendor if that shows.
    """
    names = list(_names(facts))
    candidates: list[SocFacts] = []
    for name, exact in names:
        found = _rows_named(name, exact)
        narrowed = [row for row in candidates if row in found]
        candidates = narrowed or candidates or found
        if len(candidates) == 1:
            break
    if len(candidates) > 1:
        candidates = _by_cores(candidates, clusters)
    if len(candidates) == 1:
        row = candidates[0]
        return SocMatch(row.vendor, _title(row), row)
    if candidates:
        vendors = {row.vendor for row in candidates}
        options = " or ".join(_title(row) for row in candidates)
        return SocMatch(vendors.pop() if len(vendors) == 1 else None, f"ambiguous: {options}")
    shown = next((name for name, _ in names if facts.get("getprop") or "," in name), None)
    return SocMatch(_vendor(facts, [name for name, _ in names]), clean(shown, 60))


def _names(facts: Json) -> Iterable[tuple[str, bool]]:
    """Yield the names that the device gives, and whether each is a chip's (a platform's may stand for several)."""
    properties = facts.get("getprop") or {}
    soc0 = facts.get("soc0") or {}
    tree = facts.get("device_tree") or {}
    hardware = re.search(r"^Hardware\s*:\s*(.+)$", str(facts.get("cpuinfo") or ""), re.MULTILINE)
    said = [
        *((properties.get(key), True) for key in _MODEL_PROPERTIES),
        *((soc0.get(key), True) for key in ("chip_name", "soc_id", "machine")),
        (hardware[1] if hardware else None, True),
        *((properties.get(key), False) for key in _PLATFORM_PROPERTIES),
        *((entry, False) for entry in tree.get("compatible") or ()),
        (tree.get("model"), True),
    ]
    for text, exact in said:
        name = clean(str(text), 80) if text else None
        if name:
            yield name, exact


def _rows_named(name: str, exact: bool) -> list[SocFacts]:
    """Return the rows that ``name`` may mean: for a chip's name its model, else its aliases; for a platform's both."""
    for wanted in _forms(name):
        model = [row for row in socs() if wanted == row.model.lower()]
        if model and exact:
            return model
        rows = [row for row in socs() if row in model or wanted in (alias.lower() for alias in row.aliases)]
        if rows:
            return rows
    return []


def _forms(name: str) -> Iterable[str]:
    """Yield ways to read a name: as it is, without the vendor, without package suffixes (``MT6781V/CDZAMB-H``)."""
    low = name.lower().strip(" ;")
    yield low
    if "," in low:
        yield low.split(",", 1)[1].strip()
    part = re.search(r"\b(mt\d{4}|s[dcmx]m?\d{3,4}[a-z]*|sm\d{4}|qc[ms]\d{4}|sdm\d{3}|msm\d{4}|ums\d{3,4})", low)
    if part:
        yield part[1]
    bare = re.search(r"\b(mt\d{4})", low)
    if bare:
        yield bare[1]
    exynos = re.search(r"exynos ?(\d{3,4})", low)
    if exynos:
        yield f"exynos{exynos[1]}"


def _by_cores(rows: list[SocFacts], clusters: Sequence[CoreCluster]) -> list[SocFacts]:
    """Keep the rows that have the cores seen, then those with the right counts, then with the highest clock (3 %)."""
    kinds = {kind for cluster in clusters for kind in _core_kinds(cluster.name or "")}
    seen = sorted((len(cluster.cpus), cluster.max_khz or 0) for cluster in clusters)
    total, top = sum(count for count, _ in seen), max((khz for _, khz in seen), default=0) / 1e6

    def has(row: SocFacts) -> bool:
        whole = total == sum(count for count, _ in _table_clusters(row))
        return (
            not kinds or kinds == _core_kinds(row.cpu_clusters) or (not whole and kinds < _core_kinds(row.cpu_clusters))
        )

    rows = [row for row in rows if has(row)] or rows
    if not top:
        return rows
    fitting = [row for row in rows if sum(n for n, _ in _table_clusters(row)) == total] or rows
    shapes = [row for row in fitting if sorted(n for n, _ in _table_clusters(row)) == [n for n, _ in seen]] or fitting
    close = [row for row in shapes if any(abs(ghz / top - 1) < 0.03 for ghz in _top_clocks(row))]
    return close or shapes


def _core_kinds(text: str) -> set[str]:
    """Return the Arm cores named in a text: ``Kryo 2xx Gold (A73 based)`` is an A73."""
    return set(re.findall(r"\b(?:A\d{2,3}|X\d{1,3})\b", text))


def _table_clusters(row: SocFacts) -> list[tuple[int, float]]:
    plain = re.sub(r"\[.*?\]|\(.*?\)", "", row.cpu_clusters)
    return [(int(n), float(ghz)) for n, ghz in re.findall(r"(\d+)x [^+]*?(\d+\.\d+)", plain)]


def _top_clocks(row: SocFacts) -> list[float]:
    first = row.cpu_clusters.split(" + ")[0]
    span = re.search(r"(\d+\.\d+)-(\d+\.\d+)", first)
    if span:
        low, high = float(span[1]), float(span[2])
        return [low, (low + high) / 2, high]
    return [float(ghz) for ghz in re.findall(r"\d+\.\d+", first)]


def _title(row: SocFacts) -> str:
    return row.name if row.model.lower() in row.name.lower() else f"{row.name} ({row.model})"


def _vendor(facts: Json, names: Sequence[str]) -> str | None:
    properties = facts.get("getprop") or {}
    said = [properties.get("ro.soc.manufacturer") or "", *(n.split(",")[0] for n in names if "," in n), *names]
    for word in said:
        known = _VENDORS.get(word.strip().lower())
        if known:
            return known
    return None
