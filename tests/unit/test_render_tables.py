"""JSON, CSV, Markdown, terminal and files: one schema, hostile text, whole files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import re
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import synthetic_report as synthetic
from rich.console import Console
from socbench.errors import FailedError, UsageError
from socbench.records import TrialRow
from socbench.render import columns, concerns, dots, ranking, tables, terminal, write
from socbench.render.compare import compare_junit, compare_markdown
from socbench.render.write import write_report

PUBLIC = {
    "session", "trial", "device", "soc", "model", "variant", "recipe", "size_bytes", "runtime", "runtime_version",
    "environment", "delegate", "delegate_effective", "accelerator", "delegation", "delegation_evidence",
    "nodes_total", "nodes_delegated", "precision", "precision_effective", "threads", "cores", "batch", "scenario",
    "status", "error", "verdict", "reasons", "repetitions", "samples", "latency_p50_ns", "latency_p50_low_ns",
    "latency_p50_high_ns", "latency_p90_ns", "latency_p99_ns", "first_ns", "load_ns", "peak_memory_bytes",
    "accuracy", "accuracy_metric", "fidelity",
}  # fmt: skip


def _printed(data: object, width: int = 100, **options: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False, **options)
    terminal.print_results(console, data)
    return out.getvalue()


def test_json_has_the_public_names_and_never_nan() -> None:
    [one] = tables.rows_json([synthetic.row(latency_p99_ns=math.nan, reasons=synthetic.hostile().rows[0].reasons)])
    assert set(one) >= PUBLIC
    assert one["latency_p99_ns"] is None
    assert one["reasons"] == ["noisy"]
    assert set(one["fidelity"]) >= {"cosine", "max_abs", "max_relative", "top1_agreement", "within_tolerance"}
    json.dumps(one, allow_nan=False)


def test_json_of_an_excluded_row_says_why_and_has_no_zeros_for_what_is_not_known() -> None:
    one = tables.rows_json(synthetic.all_failed().rows)[-1]
    assert one["error"] == {"code": "format", "message": "no fp16 variant for ncnn", "advice": None}
    assert one["latency_p50_ns"] is None
    assert one["verdict"] is None
    assert one["fidelity"] is None


def test_json_takes_numpy_numbers() -> None:
    import numpy as np

    [one] = tables.rows_json([synthetic.row(latency_p50_ns=np.float64(5.0), samples=np.int64(7))])
    assert json.loads(json.dumps(one))["samples"] == 7


def test_json_of_a_comparison_starts_with_its_key() -> None:
    one = tables.compare_json(synthetic.pairs())[0]
    assert list(one)[:5] == ["model", "runtime", "delegate", "precision", "scenario"]
    assert one["ratio"] == pytest.approx(1.21)
    assert one["decision"] == "slower"


def test_csv_holds_every_field_in_raw_units_and_reads_back() -> None:
    rows = synthetic.quick().rows
    lines = list(csv.DictReader(io.StringIO(tables.rows_csv(rows))))
    assert len(lines) == len(rows)
    flat = {"error", "fidelity"}
    assert {field.name for field in dataclasses.fields(TrialRow)} - flat <= set(lines[0])
    assert float(lines[0]["latency_p50_ns"]) == rows[0].latency_p50_ns
    absent = next(line for line in lines if line["status"] == "excluded")
    assert absent["latency_p50_ns"] == ""
    assert absent["error_code"] == "not_built"


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_csv_text_never_starts_a_formula(start: str) -> None:
    [line] = csv.DictReader(io.StringIO(tables.rows_csv([synthetic.row(device_name=start)])))
    assert line["device_name"] == "'" + start


def test_markdown_of_hostile_names_keeps_its_columns() -> None:
    text = tables.rows_markdown(synthetic.hostile().rows)
    table = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert len(widths) == 1
    assert "<script>" not in text


def test_markdown_keeps_a_row_that_was_not_measured_with_its_reason() -> None:
    text = tables.rows_markdown(synthetic.quick().rows, synthetic.session().models)
    assert "### Digits CNN" in text
    [line] = [line for line in text.splitlines() if "left out" in line]
    assert "is not in this installation" in line


def test_only_columns_that_vary_are_shown_and_the_rest_is_said_once() -> None:
    rows = [row for row in synthetic.quick().rows if row.model == "mobilenet_v2" and row.scenario == "single_stream"]
    ctx = columns.context(rows)
    shown = {column.key for column in columns.visible(rows, ctx)}
    assert "threads" not in shown
    assert ("threads", "1") in columns.constants(rows, ctx)
    more = [*rows, dataclasses.replace(rows[0], threads=4, threads_effective=4)]
    assert "threads" in {column.key for column in columns.visible(more, columns.context(more))}


def test_an_environment_is_a_column_only_where_it_tells_two_rows_apart() -> None:
    own = [synthetic.row(environment="host"), synthetic.row(delegate="gpu:webgpu", environment="litert-gpu")]
    two = [synthetic.row(environment="host"), synthetic.row(environment="litert-2.1.0")]
    shown = [[column.key for column in columns.visible(rows, columns.context(rows))] for rows in (own, two)]
    assert ["environment" in keys for keys in shown] == [False, True]
    assert shown[1].index("environment") > shown[1].index("median")


def test_asked_and_effective_stand_side_by_side_when_they_differ() -> None:
    fell = synthetic.several_devices().rows[-1]
    ctx = columns.context([fell])
    assert columns.ran_on(fell, ctx) == "CPU (asked NPU, Qualcomm)"
    assert columns.ran_as(synthetic.row("openvino", "fp16", precision_effective="fp32"), ctx) == "fp32 (asked fp16)"
    part = dataclasses.replace(fell, delegate_effective=fell.delegate, delegation="partial", nodes_delegated=60)
    assert columns.ran_on(part, ctx) == "NPU (Qualcomm), 60 of 66 nodes"


@pytest.mark.parametrize("make", [synthetic.quick, synthetic.hostile, synthetic.all_failed, synthetic.several_devices])
@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_stays_within_its_width(make: object, width: int) -> None:
    text = _printed(make(), width)  # type: ignore[operator]
    assert max(map(len, text.splitlines())) <= width


def test_piped_output_has_no_colour_and_no_escape_of_a_hostile_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = io.StringIO()
    terminal.print_results(terminal.make_console(out), synthetic.hostile())
    assert "\x1b" not in out.getvalue()
    assert "[b]bold[/b]" in out.getvalue()


def test_no_color_is_honoured_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in _printed(synthetic.quick(), force_terminal=True)


def test_the_terminal_shows_every_row_and_each_warning_with_its_advice() -> None:
    data = synthetic.quick()
    text = _printed(data)
    assert text.count("OpenVINO      CPU") == 6
    assert "left out: tflite-fp16 of digits_cnn is not in this installati…" in text
    flat = " ".join(text.split())
    for concern in concerns.gathered(ranking.concerning_rows(data.rows)):
        assert concern.advice in flat


def test_many_combinations_left_out_are_one_line_of_the_table_and_all_of_the_reasons() -> None:
    data = synthetic.quick()
    excluded = next(row for row in data.rows if row.status == "excluded")
    more = tuple(dataclasses.replace(excluded, trial=f"x{number}", threads=number) for number in range(100, 113))
    text = _printed(dataclasses.replace(data, rows=(*data.rows, *more)))
    assert text.count("left out: tflite-fp16") == 0
    assert "14 combinations were left out: the reasons stand below." in text
    assert "(14 rows)" in text.partition("reasons stand below.")[2]


def test_many_combinations_left_out_are_folded_by_reason_and_what_failed_keeps_its_line(tmp_path: Path) -> None:
    data = synthetic.quick()
    excluded = next(row for row in data.rows if row.status == "excluded")
    opencl = dataclasses.replace(excluded, delegate="gpu:opencl")
    more = [dataclasses.replace(opencl, trial=f"x{number}", precision=f"p{number:02}") for number in range(12)]
    failed = dataclasses.replace(excluded, trial="y", status="failed", delegate="gpu:gl")
    write_report(dataclasses.replace(data, rows=(*data.rows, *more, failed)), tmp_path / "r.html")
    main, _, folded = (tmp_path / "r.html").read_text().partition("13 combinations left out, and why")
    assert "left out: tflite-fp16" not in main
    assert main.count("failed: tflite-fp16") == 1
    table = folded.partition("</details>")[0]
    assert table.count("left out: tflite-fp16") == 2
    assert ", ".join(f"p{number:02}" for number in range(12)) in table


def test_numbers_of_an_axis_do_not_run_into_each_other() -> None:
    rows = [synthetic.row(latency_p50_ns=value) for value in (1e6, 3e10)]
    used = dots.scale(rows, columns.context(rows).time)
    assert used is not None
    texts = re.findall(r'<text x="([0-9.]+)" y="15" text-anchor="(\w+)">([^<]+)<', dots.axis_svg(used))
    spans = []
    for at, anchor, text in texts:
        width = 6.5 * len(text)
        left = float(at) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        spans.append((left, left + width))
    assert len(spans) >= 3
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


def test_the_terminal_drops_the_least_important_columns_first() -> None:
    narrow, wide = _printed(synthetic.quick(), 72), _printed(synthetic.quick(), 100)
    assert "median ms ± 95 %" in narrow
    assert "load ms" in wide
    assert "load ms" not in narrow


def test_a_comparison_in_the_terminal_names_what_cannot_be_compared() -> None:
    out = io.StringIO()
    terminal.print_compare(terminal.make_console(out), synthetic.pairs(), base="nightly", candidate="patch")
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "ONNX Runtime on the CPU at int8: threads differ: 1 and 4" in text


def test_small_tables_print_and_say_when_there_is_nothing() -> None:
    out = io.StringIO()
    console = terminal.make_console(out)
    terminal.print_sessions(console, [synthetic.session()])
    terminal.print_sessions(console, [])
    terminal.print_devices(console, [dataclasses.replace(synthetic.LOCAL, state="offline", advice="Plug it in.")])
    variants = [
        {"format": "tflite", "precision": "fp32", "sha256": "ab"},
        {"format": "tflite", "precision": "int8", "sha256": None},
    ]
    terminal.print_models(
        console,
        [
            {
                "model": "tiny",
                "task": "image_classification",
                "metric": "top1",
                "licence": "MIT",
                "variants": variants,
                "input": "224x224 RGB",
                "multiply_adds": 300_774_272,
                "runtimes": ["litert", "onnxruntime", "openvino"],
                "size_bytes": 13_971_150,
            }
        ],
    )
    terminal.print_doctor(
        console,
        [{"device": "local", "runtime": "onnxruntime", "runtime_version": None, "delegate": "gpu:cuda",
          "state": "unavailable", "accelerator": None, "reason": "no CUDA device", "fix": "Install the driver."}],
    )  # fmt: skip
    text = out.getvalue()
    for said in (
        "18 done",
        "No sessions yet",
        "local: Plug it in.",
        "image classification",
        "224x224 RGB",
        "0.30 G  14.0 MB  yes         3  top-1",
        "GPU (CUDA)",
        "→ Install the driver.",
    ):
        assert said in text


def test_markdown_of_a_comparison_says_whether_the_gate_held() -> None:
    text = compare_markdown(synthetic.pairs(), base="nightly", candidate="patch", fail_above=0.05)
    assert text.startswith("### patch against nightly")
    assert "**Gate failed**: 3 rows slower by more than 5 %, missing, failed or void." in text
    assert "▲ slower" in text
    assert "**Gate passed**" in compare_markdown(synthetic.pairs()[2:4], fail_above=0.05)


def test_junit_is_xml_with_one_case_a_pair() -> None:
    root = ElementTree.fromstring(compare_junit(synthetic.pairs(), fail_above=0.05))
    assert root.attrib == {"tests": "7", "failures": "3", "skipped": "2"}
    assert len(root.findall(".//testcase")) == 7
    failed = {case.attrib["name"] for case in root.iter("testcase") if case.find("failure") is not None}
    assert "mobilenet_v2, LiteRT on the CPU at fp32" in failed
    hostile = dataclasses.replace(
        synthetic.pairs()[0], candidate=synthetic.hostile().rows[0], reasons=(synthetic.HOSTILE,)
    )
    ElementTree.fromstring(compare_junit([hostile]))


@pytest.mark.parametrize("ending", [".html", ".md", ".csv", ".json", ".pdf"])
@pytest.mark.parametrize("make", [synthetic.one_row, synthetic.hostile, synthetic.all_failed])
def test_every_ending_is_written_whole_and_alone(ending: str, make: object, tmp_path: Path) -> None:
    target = tmp_path / f"report{ending}"
    assert write_report(make(), target) == [target]  # type: ignore[operator]
    assert os.listdir(tmp_path) == [target.name]
    assert stat.S_IMODE(target.stat().st_mode) & 0o400
    start = target.read_bytes()[:15].decode("utf-8", "replace")
    begins = {".html": "<!doctype html>", ".md": "# ", ".csv": "session,", ".json": "{", ".pdf": "%PDF"}
    assert start.startswith(begins[ending])


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_picture_ending_writes_one_file_a_figure(ending: str, tmp_path: Path) -> None:
    written = write_report(synthetic.one_row(), tmp_path / f"r{ending}")
    assert written[0].name == f"r{ending}"
    magic = b"\x89PNG" if ending == ".png" else b"<?xml"
    assert all(path.read_bytes().startswith(magic) for path in written)
    with pytest.raises(UsageError, match="nothing to draw"):
        write_report(synthetic.all_failed(), tmp_path / f"r{ending}")


@pytest.mark.parametrize("name", ["report.docx", "report", "report.html.gz"])
def test_an_unknown_ending_names_those_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.html, \.md, \.csv, \.json, \.png, \.svg or \.pdf"):
        write_report(synthetic.one_row(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> bytes:
        raise AssertionError("the work began")

    monkeypatch.setitem(write._CONTENTS, ".html", work)
    with pytest.raises(FailedError, match="does not exist, make it first"):
        write_report(synthetic.one_row(), tmp_path / "no" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(FailedError, match="is a folder"):
        write_report(synthetic.one_row(), tmp_path / "folder.html")


def test_a_failed_write_leaves_the_old_report_and_no_scrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.csv"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FailedError, match="No space left on device"):
        write_report(synthetic.one_row(), target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.csv"]


def test_the_page_of_the_quick_suite_is_under_two_megabytes_and_loads_nothing(tmp_path: Path) -> None:
    [path] = write_report(synthetic.quick(count=3000), tmp_path / "q.html")
    text = path.read_text(encoding="utf-8")
    assert len(text) < 2_000_000
    assert not re.search(r"<script|<link|<img|<iframe|url\((?!#)|@import|src=", text)
    addresses = set(re.findall(r"https?://[^\"' <]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}


def test_hostile_text_never_becomes_markup(tmp_path: Path) -> None:
    [path] = write_report(synthetic.hostile(), tmp_path / "h.html")
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_ids_in_a_page_are_its_own(tmp_path: Path) -> None:
    [path] = write_report(synthetic.quick(), tmp_path / "q.html")
    found = re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8"))
    assert len(found) == len(set(found))


def test_a_report_is_the_same_when_it_is_made_twice(tmp_path: Path) -> None:
    for ending in (".html", ".svg"):
        first, second = (write_report(synthetic.one_row(), tmp_path / f"{name}{ending}")[0] for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_printing_a_table_does_not_import_matplotlib() -> None:
    code = "import socbench.render.terminal, socbench.render.write, sys; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
