"""What a person and a CI job get from the comparing commands, on scripted sessions; the command is the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from socbench import results
from socbench.cli.report import _sides as report_sides

from tests.support.scripted_session import Script, plan, simple_session, write_session

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
FLAT = [MS, MS + 2000, MS - 2000, MS + 1000, MS - 1000]
SLOW = [round(1.2 * value) for value in FLAT]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions of every kind; their ids are their days."""
    folder = tmp_path_factory.mktemp("store")
    both = {"onnxruntime": FLAT, "openvino": FLAT}
    simple_session(folder, "s-01", both, label="before")
    simple_session(folder, "s-02", {"onnxruntime": SLOW, "openvino": FLAT}, label="after")
    simple_session(folder, "s-03", {"onnxruntime": FLAT}, label="partly")
    simple_session(folder, "s-04", {"onnxruntime": FLAT[:1]}, label="once")
    simple_session(folder, "s-05", {}, label="empty")
    simple_session(folder, "s-06", {"litert": FLAT}, label="foreign")
    simple_session(folder, "s-07", both, label="twice")
    simple_session(folder, "s-08", both, label="twice")
    newer = simple_session(folder, "s-09", both, label="newer")
    document = json.loads((newer / "session.json").read_text())
    (newer / "session.json").write_text(json.dumps({**document, "format": 99}))
    damaged = simple_session(folder, "s-10", both, label="damaged")
    (damaged / "ops.parquet").write_bytes(b"PAR1 this is no table")
    arms(folder, "s-11")
    threads = Script()
    for number, latency_ns in enumerate(FLAT, 1):
        threads.repetition("t001", number, [latency_ns] * 60)
    write_session(folder, "s-12", [plan("t001", threads=4)], threads, label="threads")
    return folder


def arms(folder: Path, session: str) -> None:
    script = Script()
    for number in range(1, 15):
        wobble = 3000 * (-1) ** number
        script.repetition("t001", number, [MS + wobble] * 60)
        script.repetition("t002", number, [round(1.05 * (MS + wobble))] * 60)
    trials = [plan("t001", ab_arm="A"), plan("t002", ab_arm="B", threads=2)]
    write_session(folder, session, trials, script, label="arms")


def call(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "socbench", *words, "--store", str(store)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "harness")},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180, check=False,
    )  # fmt: skip


def told(store: Path, *words: str) -> list[Any]:
    done = call(store, "compare", *words, "--json")
    assert done.returncode == 0, done.stderr
    pairs: list[Any] = json.loads(done.stdout)
    return pairs


def test_the_conclusion_comes_first_and_fits_a_terminal(store: Path) -> None:
    done = call(store, "compare", "before", "after")
    assert done.stdout.startswith("after is slower on 1 row of 2: ONNX Runtime on the CPU at fp32: +20.0 %")
    assert "fewer than three earlier ones to learn from: 10 % is added" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "_" not in done.stdout, "no code of a reason is shown to a person"


def test_the_gate_fails_with_junit_and_markdown_and_strict_never_passes_what_cannot_be_told(
    store: Path, tmp_path: Path
) -> None:
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    files = ("--junit", str(junit), "--markdown", str(markdown))
    done = call(store, "compare", "before", "after", "--fail-above", "5%", *files)
    assert done.returncode == 1
    assert "socbench: the gate failed: 1 row slower by more than 5 %, missing, failed or void: " in done.stderr
    suite = ElementTree.parse(junit).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("2", "1", "1")
    assert "**Gate failed**: 1 row slower" in markdown.read_text()
    # 20 % slower passes a gate of 25 %; the other row can't be told without history, which --strict fails on.
    done = call(store, "compare", "before", "after", "--fail-above", "25%", *files)
    assert (done.returncode, "**Gate passed**" in markdown.read_text()) == (0, True)
    assert "1 row can't be told, which --strict would fail" in done.stderr
    done = call(store, "compare", "before", "after", "--fail-above", "25%", "--strict", *files)
    assert (done.returncode, "**Gate passed**" in markdown.read_text()) == (1, False)


def test_rows_that_one_side_lacks_are_named_and_fail_the_gate_when_the_base_has_them(store: Path) -> None:
    decisions = {pair["runtime"]: pair["decision"] for pair in told(store, "before", "partly")}
    assert decisions == {"onnxruntime": "cannot_tell", "openvino": "missing"}
    assert call(store, "compare", "before", "partly", "--fail-above", "50%").returncode == 1
    assert {pair["runtime"]: pair["decision"] for pair in told(store, "partly", "before")}["openvino"] == (
        "not_comparable"
    )
    assert call(store, "compare", "partly", "before", "--fail-above", "50%").returncode == 0


def test_what_differs_in_a_condition_only_is_shown_with_the_field_and_ends_with_two(store: Path) -> None:
    for gate in ((), ("--fail-above", "5%")):
        done = call(store, "compare", "partly", "threads", *gate)
        assert done.returncode == 2
        assert "threads" in done.stdout
        assert "not one row can be compared" in done.stderr
    assert call(store, "compare", "partly", "threads", "--allow", "threads").returncode == 0


def test_arms_are_compared_pair_by_pair_and_named_by_what_tells_them_apart(store: Path, tmp_path: Path) -> None:
    (pair,) = told(store, "arms")
    assert (pair["decision"], pair["ratio"], pair["reasons"][0]) == ("slower", pytest.approx(1.05), "paired")
    text = call(store, "compare", "arms").stdout
    assert text.startswith("B (2) is slower than A (1): +5.0 %")
    assert "compared pair by pair (14 pairs)" in text
    picture = tmp_path / "arms.svg"
    page = tmp_path / "arms.html"
    assert call(store, "compare", "arms", "-o", str(picture)).returncode == 0
    assert "change of latency, B (2) over A (1)" in picture.read_text()
    assert call(store, "compare", "arms", "-o", str(page)).returncode == 0
    assert page.read_text().index("B (2) against A (1)") < page.read_text().index('id="answer"')


def test_a_session_of_arms_shows_its_decision_with_its_rows(store: Path) -> None:
    assert "B (2) is slower than A (1): +5.0 %" in call(store, "results", "trials", "arms").stdout
    rows = json.loads(call(store, "results", "trials", "arms", "--json").stdout)
    assert [row["comparison"] and row["comparison"]["decision"] for row in rows] == [None, "slower"]


def test_one_repetition_has_no_interval_and_says_how_to_get_one(store: Path) -> None:
    text = call(store, "compare", "before", "once").stdout
    assert "one repetition on a side has no interval; measure with --repeat 5" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("before", "foreign"), "have no two rows that could be compared"),
        (("before", "empty"), "have no two rows that could be compared"),
        (("before", "twice"), "label 'twice' fits 2 sessions (s-07, s-08); give one's id"),
        (("before", "s-09"), "session s-09 has format 99 and this socbench reads up to 1"),
        (("before",), "has nothing to compare with"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(store: Path, words: tuple[str, ...], said: str) -> None:
    done = call(store, "compare", *words)
    errors = [line for line in done.stderr.splitlines() if "s-09" not in line or said in line]
    assert (done.returncode in (1, 2), done.stdout) == (True, "")
    assert len(errors) == 1, done.stderr
    assert said in errors[0]


def test_a_damaged_file_is_named_once_in_one_line_and_the_rest_is_used(store: Path) -> None:
    done = call(store, "compare", "before", "damaged", "--json")
    assert [pair["ratio"] for pair in json.loads(done.stdout)] == [pytest.approx(1)] * 2
    (line,) = [line for line in done.stderr.splitlines() if "ops.parquet" in line]
    assert line.startswith("socbench: ")
    assert "s-10/ops.parquet is damaged and was skipped" in line
    assert "Warning" not in done.stderr


def test_history_names_the_step_and_what_changed_with_it(tmp_path: Path) -> None:
    for day in range(1, 11):
        script = Script()
        version = "1.30" if day < 6 else "1.31"
        for number in (1, 2, 3):
            value = round((MS if day < 6 else 1.1 * MS) + 900 * ((7 * day + 3 * number) % 5))
            script.repetition("t001", number, [value] * 60, loaded={"runtime_version": version})
        write_session(tmp_path, f"s-{day:02d}", [plan()], script)
    text = call(tmp_path, "results", "history", "mobiletest", "-d", "local", "-o", str(tmp_path / "h.svg")).stdout
    steps = [line.strip() for line in text.splitlines() if "step:" in line]
    assert len(steps) == 1
    assert steps[0].startswith("step: slower from here, +10.")
    assert steps[0].endswith("runtime version 1.30 → 1.31")
    assert text.splitlines()[text.splitlines().index("  " + steps[0]) + 1].startswith("  2026-11-06 10:00")
    assert "runtime version 1.30" in (tmp_path / "h.svg").read_text()


def test_a_report_of_two_sessions_has_the_rows_of_both_and_the_comparison_first(store: Path, tmp_path: Path) -> None:
    page, facts, drawn = tmp_path / "both.html", tmp_path / "both.json", tmp_path / "both.svg"
    for target in (page, facts, drawn):
        done = call(store, "report", "before", "after", "-o", str(target))
        assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.index("after against before") < text.index("change of latency, after over before")
    assert text.index("change of latency, after over before") < text.index('id="answer"')
    document = json.loads(facts.read_text())
    assert [row["session"] for row in document["rows"]] == ["s-01", "s-01", "s-02", "s-02"]
    assert {pair["runtime"]: pair["decision"] for pair in document["compare"]} == {
        "onnxruntime": "slower",
        "openvino": "cannot_tell",
    }
    assert "change of latency, after over before" in drawn.read_text()
    assert "both-comparison" not in " ".join(path.name for path in tmp_path.iterdir())
    assert len(list(tmp_path.glob("both-*.svg"))) > 0, "the other figures lie beside it"


@pytest.mark.filterwarnings("ignore::socbench.results.StoreWarning")  # of the session of a newer format
def test_a_report_compares_only_rows_that_pair_and_names_sessions_that_share_a_label(store: Path) -> None:
    def compared(*sessions: str) -> tuple[list[str], tuple[str, str] | None]:
        data = results.report_data(store, sessions)
        return [pair.key["runtime"] for pair in results.report_comparison(store, data)], report_sides(data)

    assert compared("before", "partly") == (["onnxruntime"], ("before", "partly"))
    assert compared("before", "foreign")[0] == []
    assert compared("before", "after", "partly") == ([], None)
    assert compared("arms") == (["onnxruntime"], None)
    assert compared("s-07", "s-08")[1] == ("s-07", "s-08")
