"""Agent events become tables; what a device sends wrong is named, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socbench.errors import ProtocolError
from socbench.records import Failure
from socbench.store import events

from tests.support.scripted_session import NO_DELEGATE, Script, plan


def tables(script: Script, **fields: Any) -> dict[str, list[dict[str, Any]]]:
    made = events.trial_tables(plan(), script.events, raw=script.raw.get, **fields)
    return {name: table.to_pylist() for name, table in made.items()}


def test_starts_are_rebuilt_from_gaps() -> None:
    script = Script()
    script.say("loaded", "t001", 1, delegation="full")
    for phase, start, latency, gap in (("warmup", 100, [5], [0]), ("measured", 200, [10, 20, 30], [0, 1, 2])):
        script.say("samples", "t001", 1, phase=phase, start_ns=start, latency_ns=latency, gap_ns=gap)
    rows = tables(script)["samples"]
    assert [(row["phase"], row["start_ns"], row["latency_ns"]) for row in rows] == [
        (1, 100, 5),
        (2, 200, 10),
        (2, 211, 20),
        (2, 233, 30),
    ]
    assert {row["late_ns"] for row in rows} == {None}


def test_a_whole_repetition_keeps_every_fact() -> None:
    script = Script()
    script.repetition("t001", 1, [100, 200], telemetry=[("clock_khz", "cpu0", 1_800_000)])
    script.say("ops", "t001", 1, rows=[[0, "CONV_2D", "conv1", "cpu", 40, 1]])
    script.repetition("t002", 1, [1])
    made = tables(script, planned=1)
    assert made["trials"][0]["status"] == "done"
    assert json.loads(made["trials"][0]["settings"])["min_count"] == 50
    (row,) = made["repetitions"]
    assert (row["status"], row["first_ns"], row["load_ns"], row["warmup_count"], row["warmup_steady"]) == (
        "done", 5000, 2000, 5, True,
    )  # fmt: skip
    assert (row["measured_count"], row["measured_ns"], row["cores_effective"]) == (2, 300, "[0]")
    assert json.loads(row["power_before"]) == {"source": None, "battery_permille": None, "battery_saver": None}
    assert [(row["trial"], row["kind"], row["source"], row["value"]) for row in made["telemetry"]] == [
        ("t001", "clock_khz", "cpu0", 1_800_000)
    ]
    assert made["ops"] == [
        {"trial": "t001", "repetition": 1, "index": 0, "op_type": "CONV_2D", "name": "conv1", "unit": "cpu",
         "time_ns": 40, "count": 1}
    ]  # fmt: skip


def test_an_attempt_that_a_dead_agent_left_is_void() -> None:
    script = Script()
    script.say("loaded", "t001", 1, delegation="full")
    script.say("samples", "t001", 1, phase="measured", start_ns=1, latency_ns=[999], gap_ns=[0])
    script.say("hello", power=None)
    script.repetition("t001", 1, [10])
    assert [row["latency_ns"] for row in tables(script)["samples"]] == [5000, 10]


def test_a_repetition_that_was_run_again_counts_once() -> None:
    script = Script()
    script.say("phase", "t001", 1, phase="load")
    script.say("error", "t001", 1, code="agent_died", message="gone", advice=None)
    script.repetition("t001", 1, [10])
    made = tables(script, planned=1)
    assert [row["status"] for row in made["repetitions"]] == ["done"]
    assert made["trials"][0]["status"] == "done"


def test_the_status_follows_from_the_repetitions() -> None:
    script = Script()
    script.repetition("t001", 1, [10])
    assert tables(script, planned=2)["trials"][0]["status"] == "interrupted"
    script.say("phase", "t001", 2, phase="load")
    script.say("error", "t001", 2, code="crashed", message="SIGSEGV", advice="use cpu")
    (trial,) = tables(script, planned=2)["trials"]
    assert trial["status"] == "failed"
    assert json.loads(trial["error"]) == {"code": "crashed", "message": "SIGSEGV", "advice": "use cpu"}
    given_from_outside = Failure("deadline", "no answer", None)
    assert (
        json.loads(tables(script, status="failed", error=given_from_outside)["trials"][0]["error"])["code"]
        == "deadline"
    )


def test_an_excluded_trial_has_its_reason() -> None:
    made = events.untried_tables(plan(excluded=NO_DELEGATE), "excluded")
    (row,) = made["trials"].to_pylist()
    assert list(made) == ["trials"]
    assert (row["status"], json.loads(row["error"])["code"]) == ("excluded", "delegate_missing")


def test_telemetry_between_repetitions_belongs_to_the_device() -> None:
    script = Script()
    script.say("telemetry", rows=[[5, "temperature_milli_c", "thermal", None, "no sensor"]])
    script.repetition("t001", 1, [10], telemetry=[("clock_khz", "cpu0", 1)])
    (row,) = events.device_tables("local", script.events)["telemetry"].to_pylist()
    assert row == {"device": "local", "trial": None, "repetition": None, "t_ns": 5, "kind": "temperature_milli_c",
                   "source": "thermal", "value": None, "reason": "no sensor"}  # fmt: skip


def test_a_gap_of_the_clock_counts_against_the_repetition_under_way() -> None:
    script = Script()
    script.repetition("t001", 1, [10])
    script.say("loaded", "t001", 2, delegation="full")
    script.say("clock", monotonic_ns=5, wall_ns=6, gap_ns=3_000_000_000)
    assert [row["clock_jump_ns"] for row in tables(script)["repetitions"]] == [None, 3_000_000_000]
    assert events.clock_pairs(script.events) == [{"monotonic_ns": 5, "wall_ns": 6, "gap_ns": 3_000_000_000}]


BROKEN = [
    ({"latency_ns": [1, "2"]}, "latency_ns is not a list of"),
    ({"latency_ns": [1.5, 2]}, "latency_ns is not a list of non-negative integers"),
    ({"latency_ns": [-1, 2]}, "latency_ns is not a list of non-negative integers"),
    ({"latency_ns": [[1], [2]]}, "latency_ns is not a list of non-negative integers"),
    ({"latency_ns": [[1], 2]}, "latency_ns is not a list of"),
    ({"latency_ns": [2**70, 2]}, "latency_ns is not a list of"),
    ({"latency_ns": "12"}, "latency_ns is not a list"),
    ({"latency_ns": [1]}, "latency_ns and gap_ns are not two lists of one length"),
    ({"start_ns": True}, "start_ns is 'True', not an integer"),
    ({"start_ns": 2**64}, "start_ns is '18446744073709551616', not an integer"),
    ({"phase": "other"}, "phase is 'other', not one of first, warmup, measured"),
    ({"repetition": None}, "repetition has none"),
    ({"repetition": 40_000}, "repetition is '40000', not an integer up to 32767"),
]


@pytest.mark.parametrize(("wrong", "said"), BROKEN)
def test_nonsense_is_refused_by_device_and_member(wrong: dict[str, Any], said: str) -> None:
    script = Script()
    script.say("samples", "t001", 1, phase="measured", start_ns=1, latency_ns=[1, 2], gap_ns=[0, 0])
    script.events[-1].update(wrong)
    with pytest.raises(ProtocolError) as caught:
        tables(script)
    assert str(caught.value).startswith("device local sent a broken 'samples' event (seq 2): ")
    assert said in str(caught.value)
    assert "socbench devices setup local" in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = sorted({"phase", "detail", "latency_ns", "gap_ns", "start_ns", "late_ns", "rows", "tensors", "stage", "count",
                  "power", "cpu_ns", "code", "message", "delegation", "threads_effective", "details", "steady",
                  "repetition", "load_ns"})  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["hello", "clock", *sorted(events._HANDLERS), "log", "end", ""]),
    st.dictionaries(st.sampled_from(MEMBERS), JSON_VALUES, max_size=8),
)
def test_whatever_a_device_sends_is_a_table_or_a_protocol_error(kind: str, members: dict[str, Any]) -> None:
    event = {"seq": 1, "t_ns": 1, "type": kind, "trial": "t001", "repetition": 1, **members}
    try:
        made = events.trial_tables(plan(), [event], raw=lambda _: None)
    except ProtocolError:
        return
    assert made["trials"].num_rows == 1


def test_a_journal_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"type":"hello"}\n{"type":"clock"}\n{"type":"cl')
    assert [event["type"] for event in events.read_events(path, "local")] == ["hello", "clock"]


@pytest.mark.parametrize("line", [b"WARNING: linker", b"[1]", b'{"a":', b"\xff\xfe", b"", b"1", b"[" * 99_999])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"type":"hello"}\n' + line + b"\n")
    with pytest.raises(ProtocolError, match="device ssh:board sent line 2 that is no JSON object"):
        list(events.read_events(path, "ssh:board"))


def test_outputs_without_their_bytes_are_kept_by_hash() -> None:
    script = Script()
    script.repetition("t001", 1, [5], outputs={"y": np.float32([1, 2])})
    script.raw.clear()
    rows = tables(script)["outputs"]
    assert [row["stage"] for row in rows] == ["before", "after"]
    assert {row["data"] for row in rows} == {None}
    assert (rows[0]["dtype"], rows[0]["shape"], rows[0]["count"]) == ("float32", [1, 2], 1)
