"""The channel breaks, stalls, refuses; the disk is full: no event is lost, none is taken twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from session_home import ROOT, Heard, Home, processes_of, wait_until
from socbench.errors import AgentError, ChannelError, DeviceStateError, StoreError, UsageError
from socbench.transports.fake import FakeTransport

SCRIPTED = [1_000_000 + 1000 * number for number in range(97)]


def _measured(home: Home, session: str) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in home.rows(session, "samples"):
        if row["phase"] == 2:
            found.setdefault(row["repetition"], []).append(row["latency_ns"])
    return found


def _whole(home: Home, device: str) -> dict[int, list[int]]:
    """What an undisturbed run of the same script gives."""
    result = home.run(home.null("digits", latency_ns=SCRIPTED), devices=(device,), repeat=2, min_count=150)
    return _measured(home, result.session)


def test_events_are_read_on_where_the_channel_broke_each_exactly_once(home: Home) -> None:
    whole = _whole(home, "fake:undisturbed")
    home.script(cut={"cut_events_at_bytes": [1, 700, 701, 2000, 5000, 9001]})
    heard = Heard()
    result = home.run(
        home.null("digits", latency_ns=SCRIPTED), devices=("fake:cut",), repeat=2, min_count=150, heard=heard
    )
    assert result.status == "complete"
    assert sum("reconnecting" in text for text in heard.messages) == 6
    assert _measured(home, result.session) == whole
    assert [row["status"] for row in home.rows(result.session, "repetitions")] == ["done", "done"]


def test_a_channel_that_delivers_nothing_more_is_found_out_and_opened_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socbench.agents.follow._FIRST_DOUBT_S", 0.5)
    whole = _whole(home, "fake:undisturbed")
    home.script(stalls={"stall_events_at_bytes": [1500]})
    heard = Heard()
    result = home.run(
        home.null("digits", latency_ns=SCRIPTED), devices=("fake:stalls",), repeat=2, min_count=150, heard=heard
    )
    assert result.status == "complete"
    assert any("do not arrive" in text for text in heard.messages)
    assert _measured(home, result.session) == whole


@pytest.mark.parametrize("every", [2, 3])
def test_a_channel_that_breaks_in_any_command_is_opened_again(home: Home, every: int) -> None:
    # Every second: each command breaks once, and the one that repeats it does not.
    home.script(one={"cut_commands": list(range(1, 60, every))})
    result = home.run(home.null("m"), devices=("fake:one",), repeat=1)
    assert FakeTransport("one")._count.opens >= 18 / every
    assert result.status == "complete"
    assert [row["status"] for row in home.rows(result.session, "repetitions")] == ["done"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_channel_that_breaks_in_a_push_leaves_no_half_file_that_counts(home: Home, number: int) -> None:
    home.script(one={"cut_pushes": [number]})
    result = home.run(home.null("m"), devices=("fake:one",), repeat=1)
    assert result.status == "complete"
    assert FakeTransport("one")._count.pushes == 5  # agent, model, input, job, and the one that broke


def test_a_device_that_stays_away_is_given_up_and_its_session_can_be_gone_on_with(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCBENCH_RECONNECT_S", "0.3")
    home.script(gone={"cut_events_at_bytes": [900]})
    opened: list[str] = []
    original = FakeTransport.__init__

    def vanishing(self: FakeTransport, name: str) -> None:
        opened.append(name)
        if len(opened) > 1 and name == "gone":
            raise ChannelError("fake:gone can't be reached")
        original(self, name)

    heard = Heard()
    with monkeypatch.context() as away:
        away.setattr(FakeTransport, "__init__", vanishing)
        result = home.run(home.null("m"), devices=("fake:gone", "local"), heard=heard)
    assert (result.status, result.exit_code) == ("interrupted", 1)
    assert any("fake:gone was given up" in text for text in heard.messages)
    states = {row["device"]: row["status"] for row in home.rows(result.session, "trials")}
    assert states == {"fake:gone": "interrupted", "local": "done"}
    assert home.resume(result.session).status == "complete"
    assert {row["status"] for row in home.rows(result.session, "trials")} == {"done"}


def test_a_device_that_may_not_be_used_says_so_before_anything_runs(home: Home) -> None:
    home.script(locked={"refuse": "unauthorized"})
    with pytest.raises(DeviceStateError, match="fake:locked is unauthorized"):
        home.run(home.null("m"), devices=("fake:locked", "local"))
    assert not (home.store / "sessions").exists()
    assert home.run(home.null("m"), wait=False).status == "complete"


def test_a_device_that_never_answers_runs_into_the_deadline(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socbench.session.devices._SETUP_S", 0.5)
    home.script(silent={"stall_commands": list(range(2, 100))})
    with pytest.raises(ChannelError, match="fake:silent did not answer in time"):
        home.run(home.null("m"), devices=("fake:silent",))


def test_a_full_device_is_said_before_anything_is_copied(home: Home) -> None:
    home.script(full={"disk_bytes": 10_000})
    with pytest.raises(AgentError, match=r"fake:full has no room for 0\.\d MB.*socbench devices clean fake:full") as no:
        home.run(home.null("m"), devices=("fake:full",))
    assert no.value.code == "disk_full"
    assert FakeTransport("full")._count.pushes == 0


def test_a_disk_that_fills_up_while_it_runs_fails_the_row_and_keeps_what_was_measured(home: Home) -> None:
    (home.path / "device").mkdir()
    mount = f'mount -t tmpfs -o size=18m tmpfs "{home.path}/device" && exec "$@"'
    command = [
        sys.executable,
        "-m",
        "socbench",
        "run",
        home.null("long", latency_ns=[1000]),
        "--store",
        str(home.store),
    ]
    command += ["--repeat", "2", "--min-time", "0.001", "--min-count", "1500000"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", *command],
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    session = home.session()
    assert home.document(session)["status"] == "complete_with_failures"
    (row,) = home.rows(session, "trials")
    assert json.loads(row["error"])["code"] == "disk_full"
    states = {row["repetition"]: row["status"] for row in home.rows(session, "repetitions")}
    assert states == {1: "done", 2: "failed"}
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    samples = pq.read_table(home.store / "sessions" / session / "samples.parquet")
    first = samples.filter((pc.field("repetition") == 1) & (pc.field("phase") == 2))
    assert len(first) >= 1_500_000


def test_a_store_that_can_not_be_written_is_said_before_the_first_inference(home: Home) -> None:
    (home.path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"can't be written .*--store"):
        home.run(home.null("m"))
    assert not (home.path / "device").exists()


def test_a_store_whose_disk_is_full_is_said_before_the_first_inference(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socbench.session.run._LEAST_FREE_BYTES", 1 << 80)
    with pytest.raises(StoreError, match=r"disk of the results store .* is full"):
        home.run(home.null("m"))


def test_a_device_that_sends_garbage_fails_its_rows_and_no_other_device(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeTransport.follow

    def garbage(self: FakeTransport, *arguments: object, **named: object):
        if self.address == "fake:mad":
            yield b"\x00\xffnot json\n" * 1000
        yield from original(self, *arguments, **named)

    monkeypatch.setattr(FakeTransport, "follow", garbage)
    result = home.run(home.null("m"), devices=("fake:mad", "fake:sane"))
    rows = {row["device"]: row for row in home.rows(result.session, "trials")}
    assert (rows["fake:mad"]["status"], rows["fake:sane"]["status"]) == ("failed", "done")
    assert "sent an event that is none" in json.loads(rows["fake:mad"]["error"])["message"]


def test_a_second_run_copies_nothing_and_costs_one_look(home: Home) -> None:
    model = home.null("m")
    home.run(model, devices=("fake:one",), repeat=1)
    before = FakeTransport("one")._count.pushes
    heard = Heard()
    home.run(model, devices=("fake:one",), repeat=1, heard=heard)
    assert FakeTransport("one")._count.pushes - before == 1  # the job document
    assert not any("copying" in step for step in heard.steps)


def test_what_arrived_damaged_is_copied_again_and_the_second_time_is_an_error(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeTransport.push
    damaged: list[str] = []

    def damaging(self: FakeTransport, source: Path, target, *, deadline):
        original(self, source, target, deadline=deadline)
        if target.name.endswith(".null.json.new") and len(damaged) < limit:
            damaged.append(target.name)
            Path(target).write_bytes(b"damaged")

    monkeypatch.setattr(FakeTransport, "push", damaging)
    limit = 1
    assert home.run(home.null("m"), devices=("fake:one",), repeat=1).status == "complete"
    damaged.clear()
    limit = 2
    result = home.run(home.null("m", latency_ns=[7]), devices=("fake:one",), repeat=1)
    (row,) = home.rows(result.session, "trials")
    assert "arrived damaged on fake:one twice" in json.loads(row["error"])["message"]


def test_a_device_that_is_another_one_now_is_not_gone_on_with(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_RECONNECT_S", "0.1")
    monkeypatch.setenv("SOCBENCH_ORPHAN_AFTER_S", "1")
    home.script(one={"cut_events_at_bytes": [900], "unreachable_opens": 0})
    from socbench.transports import fake

    original = fake.FakeTransport.__init__
    calls = []

    def once(self: FakeTransport, name: str) -> None:
        calls.append(name)
        if len(calls) == 2:
            time.sleep(0.2)
        if 2 <= len(calls) <= 6:
            raise ChannelError("away")
        original(self, name)

    with monkeypatch.context() as away:
        away.setattr(fake.FakeTransport, "__init__", once)
        result = home.run(home.null("m"), devices=("fake:one",))
    assert result.status == "interrupted"
    document = home.store / "sessions" / result.session / "session.json"
    document.write_text(document.read_text().replace('"fake-one"', '"another"'))
    with pytest.raises(UsageError, match="is another device than the one"):
        home.resume(result.session)
    wait_until(lambda: processes_of(home) == [])  # its agent ends by itself: nobody could tell it to
