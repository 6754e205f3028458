"""socbench sustained from the command line to the report: fake phones in seconds, this machine for real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from session_home import ROOT, Home, make_home, processes_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


def socbench(home: Home, *words: str, code: int = 0) -> str:
    """Run a command to its end; returns standard output (standard error when it fails, as it should)."""
    done = subprocess.run(
        [sys.executable, "-m", "socbench", *words],
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout if code == 0 else done.stderr


@pytest.mark.slow
def test_six_fake_phones_change_their_order_within_half_an_hour_and_are_called_fake(home: Home) -> None:
    model = home.null("resnet8")
    phones = [word for number in range(1, 7) for word in ("-d", f"fake:phone-{number}")]
    rows = json.loads(socbench(home, "sustained", model, *phones, "--duration", "30m", "--json"))
    found = {row["device"]: row for row in rows}
    assert len(rows) == 6
    assert all("Fake phone" in row["device_name"] and row["reasons"] == ["emulated"] for row in rows)
    by_first = sorted(found, key=lambda device: found[device]["minute_p50_ns"][0])
    by_last = sorted(found, key=lambda device: found[device]["minute_p50_ns"][29])
    assert [int(device[-1]) for device in by_first] == [1, 3, 2, 6, 4, 5]
    assert [int(device[-1]) for device in by_last] == [2, 6, 1, 5, 4, 3]
    throttled = {device: row["cause"] for device, row in found.items() if row["throttled"]}
    assert throttled == {f"fake:phone-{number}": "clock_cap" for number in (1, 2, 3, 4)}
    assert found["fake:phone-3"]["slowdown"] == pytest.approx(1 / 0.36, rel=0.01)
    assert found["fake:phone-5"]["throttle_at_s"] is None
    assert found["fake:phone-5"]["energy"]["trust"] == "indicative"
    assert all(row["complete"] for row in rows)

    page = home.path / "report.html"
    socbench(home, "report", "latest", "-o", str(page))
    text = page.read_text(encoding="utf-8")
    assert "is fastest in minute 1 (9.00 ms), but in minute 30 it is Fake phone 2" in text
    assert "5 of 6 devices change places between minute 1 and minute 30" in text
    assert "4 of 6 devices slow down, 2 keep their speed" in text
    assert "Fake phone 5 (slow phone) takes least energy an inference: 46.0 mJ" in text
    assert text.index("change places between") < text.index('<section class="model">'), "seen before any table"
    assert "All of these devices are fake: simulated." in text
    picture = re.search(r'<svg [^>]*aria-label="(Fake phone 1 [^"]*)"', text)
    assert picture is not None
    assert "Fake phone 3 (flagship, cliff, simulated): place 2, then 6" in picture[1]


def test_a_rate_that_a_hot_phone_cannot_hold_is_counted(home: Home) -> None:
    model = home.null()
    words = ("sustained", model, "-d", "fake:phone-3", "--duration", "5m", "--json")
    (row,) = json.loads(socbench(home, *words, "--rate", "90", "--cool-down", "5m"))
    assert (row["cool_down"]["source"], row["cool_down"]["seconds"]) == (
        "thermal_zone0:cpu-big",
        pytest.approx(300, abs=5),
    )
    assert row["cool_down"]["fall_milli_c"] > 10_000
    assert row["deadlines"] == pytest.approx(27_000, abs=10)
    assert 0.4 < row["deadline_missed_share"] < 0.9
    (row,) = json.loads(socbench(home, *words, "--rate", "20"))
    assert (row["deadlines_missed"], row["throttle_at_s"]) == (0, None)


def test_a_second_load_heats_a_fake_phone_and_the_report_says_that_it_ran(home: Home) -> None:
    words = ("sustained", home.null(), "-d", "fake:phone-1", "--duration", "20m", "--json")
    (alone,) = json.loads(socbench(home, *words, "--label", "alone"))
    (beside,) = json.loads(socbench(home, *words, "--label", "beside", "--busy-cores", "2"))
    assert (alone["busy_cores"], alone["busy_cores_average"]) == (None, None)
    assert (beside["busy_cores"], beside["busy_cores_average"]) == (2, pytest.approx(2.0, abs=0.01))
    assert beside["throttle_at_s"] < alone["throttle_at_s"] - 10, "more heat, sooner"
    assert ("second_load" in alone["reasons"], "second_load" in beside["reasons"]) == (False, True)
    page = home.path / "both.md"
    socbench(home, "report", "alone", "beside", "-o", str(page))
    assert "ran beside a second load" in page.read_text(encoding="utf-8")


def test_a_second_load_of_this_machine_is_on_record_and_its_row_not_compared_with_one_alone(home: Home) -> None:
    """For real: an inference that waits leaves the cores to the second load."""
    words = ("sustained", home.null(clock="real", latency_ns=5_000_000), "--duration", "2s", "--json")
    (alone,) = json.loads(socbench(home, *words, "--label", "alone"))
    (row,) = json.loads(socbench(home, *words, "--busy-cores", "1", "--label", "beside"))
    assert (alone["status"], row["status"]) == ("done", "done")
    written = home.path / "compared.md"
    socbench(home, "compare", "alone", "beside", "--markdown", str(written), code=2)
    said = written.read_text()
    assert "not comparable" in said.lower()
    assert "settings busy cores null → 1" in " ".join(said.split()), said
    assert 0.1 < row["busy_cores_average"] < 1.1
    assert "second_load" in row["reasons"]
    assert not processes_of(home)


def test_a_run_ends_at_its_temperature_and_says_so(home: Home) -> None:
    model = home.null()
    (row,) = json.loads(
        socbench(home, "sustained", model, "-d", "fake:phone-2", "--duration", "20m", "--max-temp", "40", "--json")
    )
    assert (row["status"], row["complete"], row["ended"]) == ("done", False, "max_temperature")
    assert 60 < row["duration_s"] < 900
    said = socbench(home, "report", "latest", "-o", str(home.path / "r.md"))
    assert "it was as warm as it may be" in " ".join((home.path / "r.md").read_text().split()), said


def test_more_busy_cores_than_there_are_is_refused_before_anything_runs(home: Home) -> None:
    said = socbench(home, "sustained", home.null(), "--duration", "10s", "--busy-cores", "200", code=2)
    have = os.cpu_count()
    assert said.endswith(f"socbench: --busy-cores 200: local has {have} cores; ask for {have} or fewer\n")


@pytest.mark.parametrize("length", ["0m", "365d", "9000h"])
def test_a_senseless_duration_is_one_sentence(home: Home, length: str) -> None:
    said = socbench(home, "sustained", home.null(), "--duration", length, code=2)
    assert said.count("\n") == 1
    assert said.startswith("socbench: --duration: ")
    assert length in said


@pytest.mark.slow
def test_a_run_that_is_stopped_is_kept_and_analysed(home: Home) -> None:
    model = home.null(clock="real", latency_ns=2_000_000)
    command = [sys.executable, "-m", "socbench", "sustained", model, "--duration", "10m", "--max-temp", "90", "--json"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sessions = Path(home.environment["SOCBENCH_DEVICE_ROOT"]) / "sessions"
    until = time.monotonic() + 60
    while sum(path.read_text().count('"phase":"measured"') for path in sessions.glob("*/events.jsonl")) < 25:
        assert time.monotonic() < until, "it did not measure"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    (row,) = json.loads(out)
    assert (row["status"], row["complete"], row["ended"]) == ("interrupted", False, "stopped")
    assert row["duration_s"] > 10
    assert row["baseline_p50_ns"] > 2_000_000
    assert "interrupted" in row["reasons"]
    assert not processes_of(home)


def real_runs() -> Any:
    path = ROOT / "benchmarks" / "sustained_real.py"
    spec = importlib.util.spec_from_file_location("sustained_real", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.alone
def test_another_process_on_the_core_is_found_dated_and_named(home: Home) -> None:
    """For real: two busy loops on the core of the repetition; it then gets a third of it."""
    found = real_runs().run(
        "contention", 60.0, 20.0, home.null(clock="real", latency_ns=1_000_000, spin=True), home.path
    )
    assert found["status"] == "done"
    assert found["throttle_at_s"] == pytest.approx(found["injected_at_s"], abs=2.0)
    assert found["cause"] == "contention", found["evidence"]
    assert found["throttled"] is False
    assert max(found["slowdown"], found["pace_slowdown"]) > 1.2
