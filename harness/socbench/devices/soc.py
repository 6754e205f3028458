"""Which SoC a device has: its names, looked up in the table; core counts and clocks decide ties. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from socbench.devices.data import SocFacts, socs
from socbench.devices.parse import clean
from socbench.records import CoreCluster, Json

_SOC_PROPERTIES = (
    "ro.soc.model",
    "ro.vendor.soc.model",
    "ro.vendor.qti.soc_model",
    "ro.vendor.soc.model.part_name",
    "ro.hardware.chipname",
    "ro.vendor.mediatek.platform",
    "ro.mediatek.platform",
    "ro.board.platform",
    "ro.chipname",
    "ro.hardware",
    "ro.boot.hardware",
    "ro.product.board",
)
"""Where Android says it, the most exact one first; the last ones may hold the vendor or the device's code name."""

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
    names of the device, then clocks and core names narrow it down; what stays ambiguous is said as such, with all
    candidates. A name that the table does not know is shown as the device gave it, with the vendor if that shows.
    """
    names = list(_names(facts))
    candidates: list[SocFacts] = []
    for name in names:
        found = _rows_named(name)
        if not found:
            continue
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
    properties = facts.get("getprop") or {}
    shown = next((names[i] for i in range(len(names)) if properties or "," in names[i]), None)
    return SocMatch(_vendor(facts, names), clean(shown, 60))


def _names(facts: Json) -> Iterable[str]:
    properties = facts.get("getprop") or {}
    soc0 = facts.get("soc0") or {}
    for key in _SOC_PROPERTIES:
        yield from filter(None, [clean(properties.get(key), 60)])
    for key in ("chip_name", "soc_id", "machine"):
        yield from filter(None, [clean(soc0.get(key), 60)])
    for entry in (facts.get("device_tree") or {}).get("compatible") or ():
        yield from filter(None, [clean(str(entry), 80)])
    hardware = re.search(r"^Hardware\s*:\s*(.+)$", str(facts.get("cpuinfo") or ""), re.MULTILINE)
    if hardware:
        yield hardware[1].strip()


def _rows_named(name: str) -> list[SocFacts]:
    """Return the rows that ``name`` may mean: its model, else an alias, else the part number it begins with."""
    for wanted in _forms(name):
        rows = [row for row in socs() if wanted == row.model.lower()]
        rows = rows or [row for row in socs() if wanted in (alias.lower() for alias in row.aliases)]
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
    """Keep the rows whose core counts fit, then the ones whose highest clock does (within 3 %)."""
    seen = sorted((len(cluster.cpus), cluster.max_khz or 0) for cluster in clusters)
    total, top = sum(count for count, _ in seen), max((khz for _, khz in seen), default=0) / 1e6
    if not top:
        return rows
    fitting = [row for row in rows if sum(n for n, _ in _table_clusters(row)) == total] or rows
    shapes = [row for row in fitting if sorted(n for n, _ in _table_clusters(row)) == [n for n, _ in seen]] or fitting
    close = [row for row in shapes if any(abs(ghz / top - 1) < 0.03 for ghz in _top_clocks(row))]
    return close or shapes


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
