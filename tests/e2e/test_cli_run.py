"""A user's day with the real command: run, look, compare, report, and everything that can be wrong with a run.

What is measured is the null runtime on a fake device (its digits are scripted), and ONNX Runtime and LiteRT on the
small network where a real runtime has to say no.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from device_rig import with_small_disk
from socbench.cli.outermost import call

ROOT = Path(__file__).resolve().parents[2]
RESNET8 = ROOT / "models" / "resnet8"
FAKE = ("-d", "fake:one", "--allow-emulated", "--repeat", "1", "--min-time", "0.05", "--min-count", "5")
# DESIGN.md's names: they only ever get more.
TRIALS = {
    "session", "trial", "device", "soc", "model", "variant", "recipe", "size_bytes", "runtime",
    "runtime_version", "environment", "delegate", "delegate_effective", "accelerator", "delegation",
    "delegation_evidence", "nodes_total", "nodes_delegated", "precision", "precision_effective", "threads",
    "cores", "batch", "scenario", "status", "error", "verdict", "reasons", "repetitions", "samples",
    "latency_p50_ns", "latency_p50_low_ns", "latency_p50_high_ns", "latency_p90_ns", "latency_p99_ns",
    "first_ns", "load_ns", "peak_memory_bytes", "accuracy", "accuracy_metric", "fidelity",
}  # fmt: skip
PAIRS = ["base_p50_ns", "candidate_p50_ns", "ratio", "ratio_low", "ratio_high", "decision", "reasons"]


@dataclass(frozen=True)
class Home:
    """A user's folders, and the command run in them."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT / "harness"),
            "SOCBENCH_STORE": str(self.folder / "store"),
            "SOCBENCH_CACHE": str(self.folder / "cache"),
            "SOCBENCH_CONFIG": str(self.folder / "config"),
            "SOCBENCH_FAKE_ROOT": str(self.folder / "fake"),
            "SOCBENCH_DEVICE_ROOT": str(self.folder / "device"),
            "COLUMNS": "100",
        }

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "socbench", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=180, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "socbench", *arguments],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    def script(self, name: str, **members: Any) -> str:
        (self.folder / f"{name}.null.json").write_text(json.dumps({"clock": "fake", **members}))
        return f"{name}.null.json"


def make_home(folder: Path) -> Home:
    folder.mkdir(exist_ok=True)
    return Home(folder)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with two sessions of a scripted network: 1 ms, and 1.2 ms of the same file name."""
    home = make_home(tmp_path_factory.mktemp("used"))
    for label, latency_ns in (("before", 1_000_000), ("after", 1_200_000)):
        model = home.script("net", latency_ns=latency_ns, load_ns=2_000_000)
        repeat = ("-d", "fake:one", "--allow-emulated", "--repeat", "3", "--min-time", "0.05", "--label", label)
        done = home.call("run", model, *repeat)
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def test_a_run_prints_results_on_stdout_and_its_progress_and_the_way_to_a_report_on_stderr(home: Home) -> None:
    done = home.call("run", home.script("net", latency_ns=1_000_000), *FAKE, "--label", "first")
    assert done.returncode == 0
    assert "null runtime" in done.stdout
    assert "[1/1] fake:one net fp32 null cpu #1" in done.stderr
    assert "socbench report" not in done.stdout
    assert done.stderr.splitlines()[-1].endswith("-o report.html")
    assert "\x1b" not in done.stdout + done.stderr


def test_json_of_a_run_is_its_rows_with_the_scripted_digits_and_nothing_else_on_stdout(home: Home) -> None:
    (row,) = home.json("run", home.script("net", latency_ns=1_000_000, load_ns=2_000_000), *FAKE)
    assert set(row) >= TRIALS
    assert row["latency_p50_ns"] == 1_000_000
    assert row["load_ns"] == 2_000_000
    assert row["latency_p50_low_ns"] is None
    assert row["status"] == "done"
    assert row["verdict"] == "invalid"
    assert "emulated" in row["reasons"]


def test_a_plan_is_printed_with_its_time_and_what_is_left_out_and_nothing_is_run(home: Home) -> None:
    arguments = ("run", "resnet8", "-d", "fake:one", "--runtime", "litert,ncnn", "--precision", "fp32", "--plan-only")
    rows = home.json(*arguments, "--allow-emulated")
    assert {(row["runtime"], row["status"]) for row in rows} == {("litert", "planned"), ("ncnn", "excluded")}
    for row in rows:
        assert (row["error"] is None) == (row["status"] == "planned")
        assert (row["repetitions"] > 0) == (row["status"] == "planned")
        assert row["plan_estimate_s"] > 0
    shown = home.call(*arguments, "--allow-emulated").stdout
    assert "tflite-fp32" in shown
    assert "Left out:" in shown
    assert "runtime_missing" in shown
    assert home.json("results") == []


def test_sessions_are_listed_newest_first_on_screen_and_all_of_them_as_json(used: Home) -> None:
    sessions = used.json("results")
    assert {"session", "label", "started", "devices", "trials", "status"} <= set(sessions[0])
    assert [session["label"] for session in sessions] == ["before", "after"] or [
        session["label"] for session in sessions
    ] == ["after", "before"]
    shown = used.call("results").stdout
    assert shown.index("after") < shown.index("before")


def test_a_session_is_found_by_id_prefix_label_and_latest(used: Home) -> None:
    name = next(session["session"] for session in used.json("results") if session["label"] == "after")
    found = {used.json("results", "show", word)[0]["session"] for word in (name, name[:-1], "after", "latest")}
    assert found == {name}
    assert name in used.call("results", "show", "after").stdout


def test_every_sample_is_printed_as_csv_and_as_json(used: Home) -> None:
    rows = list(csv.DictReader(io.StringIO(used.call("results", "samples", "t001", "--session", "before").stdout)))
    measured = [row for row in rows if row["phase"] == "2"]
    assert {row["latency_ns"] for row in measured} == {"1000000"}
    assert {row["repetition"] for row in measured} == {"1", "2", "3"}
    as_json = used.json("results", "samples", "t001", "--session", "before")
    assert len(as_json) == len(rows)
    assert as_json[0]["late_ns"] is None


def test_a_trial_that_is_not_there_is_named_with_the_nearest(used: Home) -> None:
    done = used.call("results", "samples", "t01", "--session", "before")
    assert done.returncode == 2
    assert (
        done.stderr == "socbench: session before has no trial 't01'; did you mean t001? (see socbench results trials)\n"
    )


def test_sql_answers_over_all_sessions(used: Home) -> None:
    query = (
        "SELECT label, median(latency_ns) AS p50 FROM samples JOIN sessions USING (session) "
        "WHERE phase = 2 GROUP BY ALL"
    )
    rows = used.json("results", "sql", query)
    assert {row["label"]: row["p50"] for row in rows} == {"before": 1_000_000, "after": 1_200_000}
    bad = used.call("results", "sql", "SELEKT 1")
    assert bad.returncode in (1, 2)
    assert bad.stderr.startswith("socbench: ")
    assert "a bug in socbench" not in bad.stderr


def test_the_report_is_written_where_it_was_asked_for_and_its_path_is_all_that_is_printed(used: Home) -> None:
    done = used.call("report", "before", "after", "-o", "r.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "r.html\n"
    assert "<html" in (used.folder / "r.html").read_text()[:500]
    (written,) = used.json("report", "-o", "r.csv")
    assert written == {"path": "r.csv", "size_bytes": (used.folder / "r.csv").stat().st_size}


def test_a_report_of_an_unknown_ending_names_those_there_are(used: Home) -> None:
    done = used.call("report", "-o", "r.docx")
    assert done.returncode == 2
    assert done.stderr.startswith("socbench: ")
    assert ".html" in done.stderr
    assert done.stderr.count("\n") == 1


def test_two_sessions_are_compared_and_the_gate_decides_the_exit_code(used: Home) -> None:
    pairs = used.json("compare", "before", "after")
    assert [set(PAIRS) <= set(pair) for pair in pairs] == [True]
    assert pairs[0]["base_p50_ns"] == 1_000_000
    assert pairs[0]["candidate_p50_ns"] == 1_200_000
    done = used.call("compare", "before", "after", "--fail-above", "5%", "--junit", "g.xml", "--markdown", "g.md")
    # Both rows are emulated, so void: a gate fails on what is void.
    assert done.returncode == 1
    assert done.stderr.startswith("socbench: the gate failed: 1 row slower by more than 5 %, missing, failed or void: ")
    assert "<failure" in (used.folder / "g.xml").read_text()
    assert "before" in (used.folder / "g.md").read_text()
    assert used.call("compare", "before", "after").returncode == 0


def test_what_cannot_be_compared_is_wrong_usage(used: Home) -> None:
    done = used.call("compare", "before", "before", "--by", "runtime")
    assert done.returncode == 2
    assert done.stderr.startswith("socbench: ")
    assert done.stderr.count("\n") == 1


def test_sessions_are_labelled_moved_and_removed(home: Home) -> None:
    assert home.call("run", home.script("net"), *FAKE).returncode == 0
    assert home.call("results", "label", "latest", "mine").returncode == 0
    (session,) = home.json("results")
    assert session["label"] == "mine"
    assert home.call("results", "export", "mine", "-o", "mine.zip").returncode == 0
    nothing = home.call("results", "rm", "mine", "no-such")
    assert nothing.returncode == 2
    assert len(home.json("results")) == 1, "a typo in the second name removes nothing"
    assert home.call("results", "rm", "mine").returncode == 0
    assert home.json("results") == []
    assert home.call("results", "import", "mine.zip").returncode == 0
    assert home.json("results")[0]["session"] == session["session"]
    assert home.json("results")[0]["status"] == "imported" or home.json("results")[0]["label"] == "mine"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with files that are no models."""
    home = make_home(tmp_path_factory.mktemp("bad"))
    (home.folder / "text.tflite").write_text("hello, I am no model")
    (home.folder / "text.onnx").write_text("hello, I am no model")
    (home.folder / "page.xml").write_text("<html/>")
    (home.folder / "empty.onnx").write_bytes(b"")
    (home.folder / "cut.onnx").write_bytes((RESNET8 / "resnet8-fp32.onnx").read_bytes()[:20_000])
    (home.folder / "cut.tflite").write_bytes((RESNET8 / "resnet8-fp32.tflite").read_bytes()[:20_000])
    (home.folder / "folder.onnx").mkdir()
    (home.folder / "typo.yaml").write_text("modles: [net.null.json]")
    (home.folder / "wrong.yaml").write_text("models: [net.null.json]\nrepetitions: many")
    (home.folder / "setting.yaml").write_text("models: [net.null.json]\nsettings: {min_tim_s: 1}")
    home.script("net")
    return home


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("missing.onnx", "there is no file missing.onnx"),
        ("text.tflite", "text.tflite is no TFLite model"),
        ("text.onnx", "text.onnx is no ONNX model"),
        ("page.xml", "page.xml is XML, but no OpenVINO IR"),
        ("empty.onnx", "empty.onnx is empty"),
        ("cut.onnx", "cut.onnx is no ONNX model, or one that is cut off"),
        ("cut.tflite", "cut.tflite is a TFLite model that is cut off"),
        ("folder.onnx", "folder.onnx is a folder"),
        ("resnet9", "there is no model 'resnet9'; did you mean resnet8?"),
        ("--suite quik", "there is no suite 'quik'; did you mean quick?"),
        ("net.null.json --runtime litrt", "there is no runtime 'litrt': did you mean litert?"),
        ("net.null.json --delegate gpuu", "there is no delegate 'gpuu': did you mean gpu?"),
        ("net.null.json --cores huge", "--cores 'huge' is neither big, little, a mask such as 0xf0 nor a list"),
        ("net.null.json --cores 4000", "names CPU 4000, which fake:one does not have"),
        ("net.null.json --ab delegate=cpu delegate=gpuu", "there is no delegate 'gpuu': did you mean gpu?"),
        ("net.null.json --detach --precision-target 1%", "--detach can't go with --precision-target"),
        ("missing.yaml", "there is no file missing.yaml"),
        ("typo.yaml", "the plan typo.yaml: unknown field 'modles'; did you mean models?"),
        ("wrong.yaml", "the plan wrong.yaml: repetitions"),
        ("setting.yaml", "the plan setting.yaml: settings: unknown field 'min_tim_s'; did you mean min_time_s?"),
        ("typo.yaml net.null.json", "typo.yaml is a plan: it names its own models, so it stands alone"),
        ("net.null.json --precision int7", "there is no precision 'int7': did you mean int8?"),
        ("net.null.json --scenario acuracy", "there is no scenario 'acuracy': did you mean accuracy?"),
        ("net.null.json -d usb:one", "'usb:one' is not a device"),
        ("net.null.json --shape y=1,4", "no input 'y'"),
        ("net.null.json --shape x=1,9", "x"),
        ("--resume no-such", "no sessions in "),
    ],
)
def test_bad_input_of_a_run_is_one_sentence_that_names_it_and_exit_code_2(bad: Home, line: str, says: str) -> None:
    done = bad.call("run", *line.split(), *FAKE)
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("socbench: ")
    assert says in last
    assert done.stderr.count("socbench: ") == 1
    assert "Traceback" not in done.stderr
    assert not list((bad.folder / "store").glob("sessions/*")), "nothing was run"


def test_an_unwritable_store_is_said_before_anything_is_measured(home: Home) -> None:
    (home.folder / "file").write_text("in the way")
    done = home.call("run", home.script("net"), *FAKE, "--store", "file/store")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("socbench: the results store file/store can't be written")
    assert done.stderr.count("\n") == 1


def test_words_that_nobody_knows_are_refused_before_a_device_is_asked_or_anything_is_built(bad: Home) -> None:
    for words in (("--cores", "huge"), ("--delegate", "gpuu"), ("--ab", "delegate=cpu", "delegate=gpuu")):
        done = bad.call("run", "resnet8", *words, *FAKE)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_run_for_a_runtime_that_is_not_there_says_that_nothing_was_measured_and_how_to_get_it(home: Home) -> None:
    only = ("resnet8", "--precision", "fp32", "--scenario", "single_stream", "--allow-emulated")
    done = home.call("run", *only, "-d", "local", "--runtime", "mnn")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("nothing was measured")]
    assert said.startswith("nothing was measured, every row was left out: mnn can't be used on local: ")
    assert said.endswith(("; pip install 'socbench[mnn]'", "; socbench runtimes install mnn"))
    (row,) = home.json("results", "trials")
    assert (row["status"], row["error"]["code"]) == ("excluded", "runtime_missing")
    assert home.json("results")[0]["status"] == "complete"


def test_rows_that_are_all_left_out_are_no_failure_but_are_said(home: Home) -> None:
    done = home.call("run", home.script("net"), "-d", "fake:one", "--repeat", "1")
    assert done.returncode == 0
    assert "nothing was measured, every row was left out: fake:one is emulated" in done.stderr
    assert "Nothing was measured" in done.stdout


def test_a_full_disk_of_the_store_is_said_before_anything_is_measured(home: Home) -> None:
    line = [sys.executable, "-m", "socbench", "run", home.script("net"), *FAKE, "--store", str(home.folder / "small")]
    done = subprocess.run(
        with_small_disk(home.folder / "small", "1m", line),
        env=home.environment, cwd=home.folder, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"socbench: the disk of the results store {home.folder / 'small'} is full (1 MB free)"
    )
    assert done.stderr.count("\n") == 1


def test_a_model_that_hangs_is_a_failed_row_with_its_deadline_and_exit_code_1(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # The command runs in this process: its deadline of a minute and more is cut down to what a test may take.
    monkeypatch.setattr("socbench.agents.job.deadline_s", lambda trial, files: 1.0)
    monkeypatch.setattr("signal.signal", lambda *_: signal.SIG_DFL)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.chdir(home.folder)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    hangs = home.script("hangs", fail={"at": "first", "how": "hang"})
    assert call(["run", hangs, *FAKE, "--json"]) == 1
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["status"], row["error"]["code"]) == ("failed", "deadline")


def test_a_plan_file_says_what_the_command_line_does_and_the_command_line_has_the_last_word(home: Home) -> None:
    (home.folder / "plans").mkdir()
    home.script("net", latency_ns=1_000_000)
    shutil.move(home.folder / "net.null.json", home.folder / "plans" / "net.null.json")
    (home.folder / "plans" / "night.yaml").write_text(
        "models: [net.null.json]\ndevices: [fake:one, fake:two]\nrepetitions: 2\nallow_emulated: true\n"
        "settings: {min_time_s: 0.01, min_count: 7}\nlabel: nightly\nthreads: 2\n"
    )
    rows = home.json("run", "plans/night.yaml", "--plan-only", "--threads", "3")
    assert [(row["device"], row["repetitions"], row["threads"]) for row in rows] == [
        ("fake:one", 2, 3),
        ("fake:two", 2, 3),
    ]
    assert {(row["settings"]["min_time_s"], row["settings"]["min_count"]) for row in rows} == {(0.01, 7)}
    assert home.call("run", "plans/night.yaml", "-d", "fake:two").returncode == 0
    (session,) = home.json("results")
    assert (session["label"], session["devices"]) == ("nightly", ["fake:two"])
    (row,) = home.json("results", "trials")
    assert (row["repetitions"], row["latency_p50_ns"]) == (2, 1_000_000)


def test_a_detached_run_is_collected_by_the_next_command(home: Home) -> None:
    begun = home.call("run", home.script("net", latency_ns=1_000_000), *FAKE, "--detach")
    assert begun.returncode == 0
    assert begun.stdout == ""
    assert "fetch it later with: socbench collect" in begun.stderr.splitlines()[-1]
    assert home.json("results")[0]["status"] == "running"
    (row,) = home.json("collect")
    assert (row["status"], row["latency_p50_ns"]) == ("done", 1_000_000)
    assert home.json("results")[0]["status"] == "complete"


def test_a_runtime_that_is_not_there_is_a_row_that_says_how_to_get_it(home: Home) -> None:
    only = ("--runtime", "ncnn", "--precision", "fp32", "--scenario", "single_stream", "--plan-only")
    for device, command in (("local", "install"), ("fake:one", "socbench devices setup fake:one")):
        (row,) = home.json("run", "resnet8", "-d", device, *only, "--allow-emulated")
        assert row["status"] == "excluded"
        assert row["error"]["code"] == "runtime_missing"
        assert "ncnn can't be used on" in row["error"]["message"]
        assert command in row["error"]["advice"]


def test_an_op_that_the_runtime_lacks_is_a_failed_row_that_names_it(home: Home) -> None:
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Wobble", ["x"], ["y"], domain="example.org")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("example.org", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(home.folder / "wobble.onnx"))
    done = home.call("run", "wobble.onnx", *FAKE, "--runtime", "onnxruntime", "--json")
    assert done.returncode == 1, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["status"] == "failed"
    assert row["error"]["code"] == "op_unsupported"
    assert "Wobble" in row["error"]["message"]


def test_a_crash_is_a_failed_row_and_exit_code_1_and_the_other_model_is_measured(home: Home) -> None:
    crash = home.script("crash", fail={"at": "measure", "how": "segfault"})
    done = home.call("run", crash, home.script("good", latency_ns=1_000_000), *FAKE, "--json")
    assert done.returncode == 1
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert rows["crash"]["status"] == "failed"
    assert rows["crash"]["error"]["code"] == "crashed"
    assert "SIGSEGV" in rows["crash"]["error"]["message"]
    assert rows["good"]["latency_p50_ns"] == 1_000_000
    assert "crash fp32 null cpu: failed: " in done.stderr


def slow(home: Home, repeat: int = 4) -> tuple[str, ...]:
    model = home.script("slow", clock="real", latency_ns=20_000_000)
    return ("run", model, "-d", "fake:one", "--allow-emulated", "--repeat", str(repeat), "--min-time", "1")


def test_a_run_stopped_by_ctrl_c_shows_what_it_has_says_how_to_go_on_and_goes_on(home: Home) -> None:
    with home.start(*slow(home), "--store", "my store") as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("[2/4]"):
                break
        child.send_signal(signal.SIGINT)
        shown, said = child.communicate(timeout=60)
    assert child.returncode == 130
    at_store = ("--store", "my store")
    (session,) = home.json("results", *at_store)
    assert session["status"] == "interrupted"
    assert f"socbench run --resume {session['session']} --store 'my store'" in said
    assert "slow.null.json" in shown
    resumed = home.call("run", "--resume", "latest", "--json", *at_store)
    assert resumed.returncode == 0, resumed.stderr
    (row,) = json.loads(resumed.stdout)
    assert row["repetitions"] == 4
    assert home.json("results", *at_store)[0]["status"] == "complete"


def test_of_two_runs_on_one_device_the_second_says_for_whom_it_waits_or_refuses(home: Home) -> None:
    with home.start(*slow(home, repeat=60)) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("[1/60]"):
                break
        refused = home.call("run", home.script("net"), *FAKE, "--no-wait")
        planned = home.call("run", home.script("net"), *FAKE, "--plan-only", "--no-wait")
        with home.start("run", home.script("net"), *FAKE) as second:
            assert second.stderr is not None
            waiting = second.stderr.readline()
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=60)
            second.communicate(timeout=120)
    assert planned.returncode == 0, "a plan alone needs no device for itself"
    assert refused.returncode == 1
    assert refused.stderr.startswith("socbench: fake:one is in use by session ")
    assert f"process {first.pid}" in refused.stderr
    assert waiting.startswith("fake:one is in use by session ")
    assert f"process {first.pid}" in waiting
    assert second.returncode == 0


def test_the_doctor_proves_a_runtime_by_its_answer(home: Home) -> None:
    rows = home.json("doctor", "-d", "fake:one", "--runtime", "onnxruntime")
    names = {"device", "runtime", "runtime_version", "delegate", "accelerator", "state", "reason", "fix"}
    assert all(names <= set(row) for row in rows)
    states = {row["delegate"]: row["state"] for row in rows}
    assert states["cpu:mlas"] == "emulated", "a fake device calls itself emulated"
    assert all(row["reason"] for row in rows if row["state"] == "unavailable")
    assert home.json("results") == [], "a proof leaves no session behind"


def test_models_are_listed_with_their_files_and_hashes(home: Home) -> None:
    models = {model["model"]: model for model in home.json("models")}
    assert {"resnet8", "efficientnet_lite0"} <= set(models)
    names = {"model", "task", "metric", "licence", "variants"}
    assert names <= set(models["resnet8"])
    variants = {variant["variant"]: variant for variant in models["resnet8"]["variants"]}
    ready, unbuilt = variants["onnx-fp32"], variants["onnx-int8"]
    assert ready["size_bytes"] == (RESNET8 / "resnet8-fp32.onnx").stat().st_size
    assert len(ready["sha256"]) == 64
    assert unbuilt["sha256"] is None
    assert unbuilt["size_bytes"] is None
    assert "onnx-int8" in home.call("models", "show", "resnet8").stdout


def test_a_variant_is_built_on_request_and_a_wrong_name_gets_the_nearest(home: Home) -> None:
    wrong = home.call("models", "build", "resnet8", "--variant", "onnx-int")
    assert wrong.returncode == 2
    assert "did you mean onnx-int8" in wrong.stderr
    (built,) = home.json("models", "build", "resnet8", "--variant", "onnx-fp16")
    assert built["precision"] == "fp16"
    assert Path(built["path"]).stat().st_size == built["size_bytes"]


def test_the_live_line_is_drawn_on_a_terminal_and_gone_afterwards(home: Home) -> None:
    tmux = shutil.which("tmux")
    assert tmux is not None, "tmux is in tests/system-packages"
    model = home.script("slow", clock="real", latency_ns=20_000_000)
    line = f"'{sys.executable}' -m socbench run {model} -d fake:one --allow-emulated --repeat 1 --min-time 2; echo END"
    server = [tmux, "-S", str(home.folder / "tmux.socket"), "-f", os.devnull]
    environment = {**home.environment, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    seen: list[str] = []
    try:
        subprocess.run(
            [*server, "new-session", "-d", "-x", "100", "-y", "50", "-c", str(home.folder), f"{line}; sleep 60"],
            env=environment, check=True,
        )  # fmt: skip
        for _ in range(1200):
            done = subprocess.run([*server, "capture-pane", "-p"], capture_output=True, text=True, check=True)
            seen.append(done.stdout)
            if "\nEND" in done.stdout:
                break
            subprocess.run(["sleep", "0.05"], check=True)
    finally:
        subprocess.run([*server, "kill-server"], check=False)
    assert any("fake:one  1/1  slow fp32 null cpu #1" in screen and "/s" in screen for screen in seen)
    assert "fake:one  1/1" not in seen[-1]
    assert "Report: socbench report" in seen[-1].replace("\n", " ")
