"""The log of a power meter in a session that has ended: where it lands, what it says, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from scripted_session import DEVICE, Script, plan, write_session
from socbench import results
from socbench.cli.results import attach_power
from socbench.errors import StoreError, UsageError
from socbench.records import MeasuringSettings
from socbench.render.sentences import answer
from socbench.store import power
from socbench.store.manage import export, import_archive
from socbench.store.writer import SessionWriter

S = 1_000_000_000
MS = 1_000_000
WALL_S = 1_764_000_000
"""The device's time of day when its monotonic clock showed 0."""


def measured(store: Path, *, seal: bool = True, **fields: Any) -> Path:
    """A sustained run of 100 s, 1,000 inferences of 100 ms, and one reading of a sensor that can't be read."""
    script = Script()
    script.now_ns = 10 * S
    script.repetition("t001", 1, [100 * MS - 10] * 1000, telemetry=[("temperature_milli_c", "zone0", 40_000)])
    trial = plan(scenario="sustained", settings=MeasuringSettings(min_time_s=100.0))
    clocks = {"local": [{"monotonic_ns": t * S, "wall_ns": (WALL_S + t) * S, "gap_ns": None} for t in (0, 60)]}
    return write_session(store, "s-01", [trial], script, seal=seal, **{"clocks": clocks, **fields})


def log(path: Path, watts: float = 3.0, *, first: int = 0, last: int = 130, step: int = 1) -> Path:
    lines = [f"{WALL_S + second},{watts}" for second in range(first, last, step)]
    path.write_text("time,watts\n" + "\n".join(lines) + "\n")
    return path


def energy(store: Path) -> Any:
    (row,) = results.trial_rows(store)
    assert row.thermal is not None
    return row.thermal["energy"]


def test_a_log_added_to_a_sealed_session_gives_the_energy_of_an_inference(tmp_path: Path) -> None:
    folder = measured(tmp_path)
    before = results.open_results(tmp_path).telemetry()
    assert energy(tmp_path) is None
    found = power.attach(tmp_path, "latest", log(tmp_path / "meter.csv", first=-500))
    assert (found.session, found.device, found.readings, found.of) == ("s-01", "local", 130, 630)
    taken = energy(tmp_path)
    assert (taken["average_power_uw"], taken["energy_per_inference_uj"]) == (3e6, pytest.approx(300_000, rel=1e-6))
    assert (taken["source"], taken["scope"], taken["trust"], taken["reason"]) == (
        *("external:meter.csv", "device", "measured"),
        None,
    )
    said = " ".join(answer(results.report_data(tmp_path)))
    assert "At 3.00 W on average an inference takes 300 mJ (device, measured)." in said
    after = results.open_results(tmp_path).telemetry()
    assert len(after) == len(before) + 130, "what was there is still there"
    assert json.loads((folder / "session.json").read_text())["power_logs"][0]["readings"] == 130
    assert all(os.stat(path).st_mode & 0o222 == 0 for path in folder.glob("*.parquet"))
    assert not (folder / "lock").exists()


def test_a_log_of_the_same_name_replaces_the_earlier_one_and_travels_with_the_session(tmp_path: Path) -> None:
    measured(tmp_path)
    power.attach(tmp_path, "latest", log(tmp_path / "meter.csv", 3.0))
    power.attach(tmp_path, "latest", log(tmp_path / "meter.csv", 5.0))
    assert energy(tmp_path)["average_power_uw"] == 5e6
    archive = tmp_path / "one.zip"
    export(tmp_path, ["latest"], archive)
    import_archive(tmp_path / "other", archive)
    assert energy(tmp_path / "other")["average_power_uw"] == 5e6


def test_an_interrupted_session_takes_a_log_and_is_sealed_with_it(tmp_path: Path) -> None:
    folder = measured(tmp_path, seal=False)
    power.attach(tmp_path, "latest", log(tmp_path / "meter.csv"))
    assert energy(tmp_path)["average_power_uw"] == 3e6
    with SessionWriter.open(folder) as writer:
        writer.seal("interrupted")
    assert energy(tmp_path)["average_power_uw"] == 3e6


def test_a_log_with_a_hole_is_indicative_and_one_that_covers_too_little_tells_nothing(tmp_path: Path) -> None:
    measured(tmp_path)
    path = log(tmp_path / "meter.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:40] + lines[60:]))
    power.attach(tmp_path, "latest", path)
    assert (energy(tmp_path)["trust"], energy(tmp_path)["reason"]) == (
        "indicative",
        "the meter's log says nothing for 21 s of the run",
    )
    power.attach(tmp_path, "latest", log(path, last=50))
    assert energy(tmp_path) is None


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(tmp_path)
    attach_power("latest", log(tmp_path / "meter.csv"), store=tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "130 of 130 readings of meter.csv belong to session s-01." in said
    assert "3.00 W on average, an inference takes 300 mJ (device, measured)." in said
    attach_power("latest", log(tmp_path / "meter.csv", last=50), store=tmp_path)
    assert "covers less than nine tenths of this run" in " ".join(capsys.readouterr().err.split())


def test_a_log_that_can_not_be_used_is_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    folder = measured(tmp_path)
    before = (folder / "telemetry.parquet").read_bytes()
    path = tmp_path / "meter.csv"
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 100)
    (tmp_path / "empty.csv").write_text("")
    with (tmp_path / "large.csv").open("wb") as stream:
        stream.truncate(power.LIMIT_BYTES + 1)
    for name, said in (
        ("no.csv", "is not there"),
        ("pipe.csv", "is no file"),
        ("binary.csv", "can't be read as text"),
        ("empty.csv", "holds no reading"),
        ("large.csv", "has over 64 MB"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            power.attach(tmp_path, "latest", tmp_path / name)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="has 10 readings and none was taken while local was measured"):
        power.attach(tmp_path, "latest", log(path, first=5000, last=5010))
    assert (folder / "telemetry.parquet").read_bytes() == before


def test_a_session_that_runs_or_has_no_such_device_or_no_time_of_day_takes_no_log(tmp_path: Path) -> None:
    path = log(tmp_path / "meter.csv")
    two = [DEVICE, {**DEVICE, "device": "ssh:board"}]
    measured(tmp_path / "two", devices=two)
    with pytest.raises(UsageError, match=re.escape("has 2 devices: name the one that the meter was on, -d local, ssh")):
        power.attach(tmp_path / "two", "latest", path)
    with pytest.raises(UsageError, match="has no device 'adb:1'"):
        power.attach(tmp_path / "two", "latest", path, "adb:1")
    with pytest.raises(UsageError, match="ssh:board told no time of day"):
        power.attach(tmp_path / "two", "latest", path, "ssh:board")
    assert power.attach(tmp_path / "two", "latest", path, "local").readings == 130
    folder = measured(tmp_path / "open", seal=False)
    with SessionWriter.open(folder), pytest.raises(StoreError, match="is running; attach the power log when"):
        power.attach(tmp_path / "open", "latest", path)


def test_a_damaged_table_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    folder = measured(tmp_path)
    table = folder / "telemetry.parquet"
    table.chmod(0o644)
    table.write_bytes(table.read_bytes()[:-20])
    before = table.read_bytes()
    with pytest.raises(StoreError, match=r"telemetry.parquet is damaged .*; nothing was changed"):
        power.attach(tmp_path, "latest", log(tmp_path / "meter.csv"))
    assert table.read_bytes() == before
