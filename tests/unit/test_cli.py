"""The command line's parts: sentences of errors, readers of values, JSON, completion, live lines."""

import errno
import io
import json
import math
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import typer.core
from hypothesis import given
from hypothesis import strategies as st
from socbench.cli import complete, options
from socbench.cli.application import command_summaries, root
from socbench.cli.diagnosis import check
from socbench.cli.doctor import with_settings
from socbench.cli.outermost import explain, nearest
from socbench.cli.output import print_json, printable
from socbench.cli.plan_table import duration, plan_json, print_plan
from socbench.cli.progress import LiveProgress, PlainProgress, device_line, is_live
from socbench.cli.reference import reference
from socbench.errors import AgentError, ChannelError, Interrupted, StoreError, UsageError
from socbench.records import Failure, Plan, PlannedRepetition, Reason, TrialPlan, TrialRow
from socbench.session import DeviceProgress

TRIAL = TrialPlan("t001", "local", "resnet8", "onnx-int8-reduced", "onnx", "int8", "onnxruntime", "cpu:mlas")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no model x"), 2),
        (StoreError("disk full"), 1),
        (AgentError("crashed"), 1),
        (ChannelError("cable"), 1),
        (Interrupted("stopped"), 130),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "/store/x"), 1),
        (ValueError("odd"), 1),
    ],
)
def test_every_error_has_the_exit_code_of_its_class(error: BaseException, code: int) -> None:
    text, found = explain(error)
    assert found == code
    assert text
    assert "\n" not in text


def test_a_bug_asks_for_a_report_and_names_debug() -> None:
    text, _ = explain(ValueError("odd"))
    assert "bug in socbench" in text
    assert "ValueError: odd" in text
    assert "--debug" in text


def test_a_full_disk_is_no_bug_and_names_the_file() -> None:
    assert (
        explain(OSError(errno.ENOSPC, "No space left on device", "/store/x"))[0] == "/store/x: no space left on device"
    )


def test_a_phones_settings_stand_in_each_of_its_checks() -> None:
    settings = [{"device": "adb:1", "setting": "screen", "value": "on", "prepared": "off"}]
    checks = [{"device": "adb:1", "state": "works"}, {"device": "local", "state": "works"}]
    assert [one["settings"] for one in with_settings(checks, settings)] == [{"screen": "on"}, None]


def test_the_nearest_name_is_named_and_a_far_one_is_not() -> None:
    assert nearest("--devcie", ["--device", "--delegate"]) == "; did you mean --device?"
    assert nearest("zzz", ["--device"]) == ""


def test_values_may_be_repeated_or_take_commas_and_count_once() -> None:
    assert options.listed(["cpu,gpu", "npu", " cpu ", ""]) == ("cpu", "gpu", "npu")
    assert options.listed(None) == ()


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("30m", 1800), ("1.5h", 5400), (".5", 0.5)])
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "m", "1d", "1e3", "nan", "inf", "1 m 2", "99999999h"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="30m"):
        options.seconds(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0), ("1.5 %", 0.015)])
def test_shares_are_read_in_per_cent_or_as_fraction(text: str, share: float) -> None:
    assert math.isclose(options.fraction(text), share)


@pytest.mark.parametrize("text", ["5", "100%", "-1%", "x", "", "%", "1e-2"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="5%"):
        options.fraction(text)


def test_shapes_are_read_by_input_even_when_the_name_has_an_equals_sign() -> None:
    assert options.shapes(["image=1,3,224,224", "a=b=7"]) == {"image": (1, 3, 224, 224), "a=b": (7,)}


@pytest.mark.parametrize("word", ["image", "=1,2", "image=", "image=1,x", "image=0,3", "image=1,,3", "image=-1"])
def test_what_is_no_shape_is_refused(word: str) -> None:
    with pytest.raises(typer.BadParameter, match="image=1,3,224,224"):
        options.shapes([word])


def test_an_input_with_two_shapes_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="'x' is given two shapes"):
        options.shapes(["x=1", "x=2"])


@given(st.text() | st.integers().map(str))
def test_a_count_is_a_whole_number_above_zero_or_refused(text: str) -> None:
    plain = text.isascii() and text.isdigit() and 0 < int(text) < 10**9
    if plain:
        assert options.count(text) == int(text)
    else:
        with pytest.raises(typer.BadParameter, match="whole number above 0"):
            options.count(text)


def _commands() -> list[tuple[str, typer.core.TyperCommand]]:
    root_command = typer.main.get_command(root)
    with typer.Context(root_command, info_name="socbench") as context:
        found = [(name, root_command.get_command(context, name)) for name in root_command.list_commands(context)]
    return found + [
        (f"{name} {sub}", command) for name, group in found for sub, command in getattr(group, "commands", {}).items()
    ]


def _example_lines() -> list[str]:
    texts = [command.epilog for _, command in _commands() if command.epilog]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.startswith("  ")]
    return [line for line in lines if line.startswith("socbench ")]


@pytest.mark.parametrize("line", _example_lines())
def test_every_example_of_the_help_is_a_line_that_parses(line: str) -> None:
    words = shlex.split(line.split(">")[0], comments=True)[1:]
    command = typer.main.get_command(root)
    context = typer.Context(command, info_name="socbench")
    chosen = command.get_command(context, words[0])
    sub = chosen.make_context(words[0], words[1:], parent=context)
    while sub._protected_args:
        rest = [*sub._protected_args, *sub.args]
        name, following, rest = sub.command.resolve_command(sub, rest)
        sub = following.make_context(name, rest, parent=sub)
    assert sub.command.name


def test_no_example_is_cut_off_in_a_terminal_of_80_columns() -> None:
    for name, command in _commands():
        for line in (command.epilog or "").splitlines():
            assert len(line) <= 76, f"{name}: {line}"


def test_every_option_and_argument_says_what_it_is() -> None:
    for name, command in _commands():
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", None), f"{name}: {param.name}"


def test_the_page_of_the_documentation_says_what_the_commands_say_of_themselves() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
    assert page.read_text(encoding="utf-8") == reference(), "python -m socbench.cli.reference > docs/cli.md"


def test_json_knows_no_nan_and_writes_numpy_and_paths_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"a": math.nan, "b": [math.inf, 1.5], "c": np.int64(7), "d": Path("x/y"), "e": (None, True), "f": "é"}])
    assert json.loads(capsys.readouterr().out) == [
        {"a": None, "b": [None, 1.5], "c": 7, "d": "x/y", "e": [None, True], "f": "é"}
    ]


def test_json_of_nothing_is_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([])
    assert json.loads(capsys.readouterr().out) == []


def test_control_characters_of_devices_never_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}\nc"


def test_every_module_that_says_it_is_a_command_has_an_application() -> None:
    import importlib

    summaries = command_summaries()
    assert list(summaries)[:5] == ["run", "report", "compare", "results", "models"]
    for name, summary in summaries.items():
        assert isinstance(importlib.import_module(f"socbench.cli.{name}").app, typer.Typer)
        assert 10 < len(summary) <= 62, f"{name}: the summary must fit on one line of 80 columns"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("device", ["local", "ssh:somebody@a-board-with-a-long-name.example.org"])
def test_a_live_line_never_reaches_the_last_column(width: int, device: str) -> None:
    state = DeviceProgress(device, "measure", 3, 54, TRIAL, 2, 1234.5, 54300, 169.0)
    line = device_line(state, width)
    assert len(line) < width
    assert "\n" not in line


def test_a_wide_live_line_says_everything_and_a_narrow_one_keeps_place_and_time() -> None:
    state = DeviceProgress("local", "measure", 3, 54, TRIAL, 2, 1234.5, 54300, 169.0)
    assert device_line(state, 200) == (
        "local  4/54  resnet8 int8-reduced onnxruntime cpu:mlas #2  1,234/s  54 °C  2:49 left"
    )
    assert device_line(state, 44) == "local  4/54  resnet8 int8-reduc…  2:49 left"
    unknown = DeviceProgress("local", "load", 0, 2, TRIAL, 1)
    assert device_line(unknown, 200) == "local  1/2  resnet8 int8-reduced onnxruntime cpu:mlas #1  loading"


def test_the_time_left_goes_on_while_nothing_is_reported() -> None:
    state = DeviceProgress("local", "measure", 3, 54, TRIAL, 2, left_s=30.0)
    assert device_line(state, 100, age_s=12.0).endswith("18 s left")
    assert device_line(state, 100, age_s=99.0).endswith("0 s left")


def test_the_plain_log_has_one_line_a_repetition_and_names_why_a_trial_failed() -> None:
    stream = io.StringIO()
    log = PlainProgress(stream)
    for phase in ("load", "warmup", "measure"):
        log.update(DeviceProgress("local", phase, 0, 2, TRIAL, 1, left_s=61.0))
    log.update(DeviceProgress("local", "load", 1, 2, TRIAL, 2))
    log.trial_ended(TRIAL, "done", None)
    log.trial_ended(TRIAL, "failed", Failure("crashed", "the runtime died of signal 11", "try another version"))
    log.message("a\x1b[2Jb")
    assert stream.getvalue().splitlines() == [
        "[1/2] local resnet8 int8-reduced onnxruntime cpu:mlas #1, 1:01 left",
        "[2/2] local resnet8 int8-reduced onnxruntime cpu:mlas #2",
        "local resnet8 int8-reduced onnxruntime cpu:mlas: failed: the runtime died of signal 11; try another version",
        "a\N{REPLACEMENT CHARACTER}[2Jb",
    ]


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_line_is_drawn_only_on_a_terminal_that_can() -> None:
    assert is_live(FakeTerminal(), {"TERM": "xterm"})
    assert not is_live(FakeTerminal(), {"TERM": "dumb"})
    assert not is_live(FakeTerminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert not is_live(io.StringIO(), {"TERM": "xterm"})


def test_live_progress_draws_each_device_and_leaves_only_the_sentences() -> None:
    from rich.console import Console

    terminal = FakeTerminal()
    live = LiveProgress(Console(file=terminal, force_terminal=True, width=100, highlight=False, color_system=None))
    live.update(DeviceProgress("local", "measure", 0, 2, TRIAL, 1, 50.0, None, 61.0))
    live.message("waiting for local [bold]: 7 has it")
    live._live.refresh()
    live.close()
    drawn = terminal.getvalue()
    assert "local  1/2  resnet8 int8-reduced onnxruntime cpu:mlas #1  50/s  1:0" in drawn
    assert "waiting for local [bold]: 7 has it" in drawn


def test_a_step_is_shown_until_every_device_is_at_work() -> None:
    from rich.console import Console

    live = LiveProgress(Console(file=FakeTerminal(), force_terminal=True, width=100))
    busy, copying = (DeviceProgress(name, "provision", 0, 2) for name in ("local", "ssh:b"))
    live.update(busy)
    live.update(copying)
    live.step("copying a.tflite (1.6 MB) to ssh:b")
    live.update(replace(busy, phase="measure"))
    assert live._render().plain.startswith("copying a.tflite (1.6 MB) to ssh:b ...")
    live.update(replace(copying, phase="import"))
    assert live._render().plain.startswith("local ")
    live.close()


@pytest.fixture
def store_of_sessions(tmp_path: Path) -> Path:
    for number, label in enumerate(["before", "evil$(id)", "two words", None]):
        folder = tmp_path / "sessions" / f"20261124-000{number}-abcd"
        folder.mkdir(parents=True)
        document = {"session": folder.name, "label": label, "devices": [{"device": "adb:R58M"}]}
        (folder / "session.json").write_text(json.dumps(document))
    (tmp_path / "sessions" / "20261124-0009-torn").mkdir()
    (tmp_path / "sessions" / "20261124-0009-torn" / "session.json").write_text("{")
    return tmp_path


class FakeContext:
    def __init__(self, store: Path) -> None:
        self.params = {"store": store}


def test_completion_offers_sessions_and_labels_that_a_shell_takes_as_one_word(store_of_sessions: Path) -> None:
    context = FakeContext(store_of_sessions)
    assert complete.sessions(context, "") == ["latest", "before"] + [
        f"20261124-000{number}-abcd" for number in (3, 2, 1, 0)
    ]
    assert complete.sessions(context, "be") == ["before"]
    assert complete.sessions(FakeContext(store_of_sessions / "missing"), "") == ["latest"]


def test_completion_goes_on_after_a_comma_and_offers_no_value_twice() -> None:
    assert complete.precisions("fp32,fp") == ["fp32,fp16"]
    assert "litert" in complete.runtimes("")


def test_completion_knows_the_devices_of_earlier_sessions(
    store_of_sessions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCBENCH_STORE", str(store_of_sessions))
    assert complete.devices(None, "") == ["local", "adb:R58M"]
    assert complete.devices(None, "local,a") == ["local,adb:R58M"]


PLAN = Plan(
    (
        TRIAL,
        replace(TRIAL, trial="t002", runtime="ncnn", delegate="cpu:ncnn", variant="ncnn-int8",
                excluded=Failure("runtime_missing", "ncnn is not here", "pip install ncnn")),
    ),
    {"local": (PlannedRepetition("t001", 1), PlannedRepetition("t001", 2))},
    7,
    95.0,
)  # fmt: skip


def test_a_plan_as_json_has_the_repetitions_the_estimate_and_why_a_trial_is_left_out() -> None:
    planned, excluded = plan_json(PLAN)
    assert (planned["status"], planned["repetitions"], planned["error"]) == ("planned", 2, None)
    assert (planned["plan_estimate_s"], planned["plan_seed"]) == (95.0, 7)
    assert (excluded["status"], excluded["repetitions"]) == ("excluded", 0)
    assert excluded["error"] == {"code": "runtime_missing", "message": "ncnn is not here", "advice": "pip install ncnn"}


def test_a_plan_on_screen_says_its_size_its_time_and_what_is_left_out() -> None:
    from rich.console import Console

    stream = io.StringIO()
    print_plan(Console(file=stream, width=100), PLAN)
    shown = stream.getvalue()
    assert "1 trial, 2 repetitions, about 1 min 35 s; seed 7" in shown
    assert "Left out: 1\n  resnet8 ncnn-int8 ncnn cpu:ncnn" in shown
    assert "    runtime_missing: ncnn is not here; pip install ncnn" in shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "time not known"), (0.2, "about 1 s"), (59.4, "about 59 s"), (125, "about 2 min 05 s"),
     (7265, "about 2 h 01 min")],
)  # fmt: skip
def test_an_estimate_is_said_in_the_unit_that_people_use(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "works"),
        ({"delegation": "partial", "nodes_delegated": 3}, "partial"),
        ({"delegation": "fell_back", "reasons": (Reason("fell_back", "invalid", "ran on cpu", "x"),)}, "unavailable"),
        ({"reasons": (Reason("emulated", "invalid", "is emulated", "x"),)}, "emulated"),
        ({"reasons": (Reason("output_wrong", "invalid", "far off", "x"), Reason("emulated", "invalid", "e", "x"))},
         "wrong_answer"),
        ({"status": "excluded", "error": Failure("delegate_missing", "no GPU", "install a driver")}, "unavailable"),
        ({"status": "failed", "error": Failure("crashed", "died of SIGSEGV")}, "unavailable"),
    ],
)  # fmt: skip
def test_the_doctor_reads_a_row_as_a_state_and_never_calls_a_wrong_answer_emulated(
    changes: dict[str, Any], state: str
) -> None:
    values: dict[str, Any] = {field.name: None for field in fields(TrialRow)}
    values.update(device="local", runtime="litert", delegate="gpu:gl", status="done", delegation="full", reasons=())
    values.update(nodes_total=9, model="resnet8")
    found = check(TrialRow(**{**values, **changes}))
    assert found["state"] == state
    assert (found["reason"] is None) == (state == "works")


def test_the_doctor_does_not_say_twice_what_is_not_available() -> None:
    values: dict[str, Any] = {field.name: None for field in fields(TrialRow)}
    message = "gpu:gl of litert is not available on local: no driver"
    row = TrialRow(**{**values, "device": "local", "runtime": "litert", "delegate": "gpu:gl", "status": "excluded",
                      "error": Failure("delegate_missing", message, "install one"), "reasons": ()})  # fmt: skip
    assert check(row)["reason"] == "no driver"
    assert check(row)["fix"] == "install one"
