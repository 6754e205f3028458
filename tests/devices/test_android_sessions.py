"""A session on a device that is shaped like a phone: provisioning, telemetry, lease and clean-up by its own few tools.

The native agent is the one for Linux, so this device has /lib besides: Android's own loader is not to be had here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from android_root import AndroidRoot
from device_rig import RealAdbServer
from session_home import ROOT, Heard, Home, make_home
from socbench.errors import FailedError

SCRIPT = [1_000_000 + 1000 * number for number in range(97)]


@pytest.fixture
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AndroidRoot]:
    device = AndroidRoot(tmp_path_factory.mktemp("phone"), glibc=True)
    yield device
    device.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adb_server: RealAdbServer) -> Home:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.port))
    return make_home(tmp_path, monkeypatch)


def cleaned(home: Home, device: str, *options: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "socbench", "devices", "clean", device, "--json", *options],
        env={**os.environ, **home.environment, "PYTHONPATH": str(ROOT / "harness")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return list(json.loads(done.stdout))


def test_a_phone_is_given_what_it_needs_once_tells_its_heat_has_one_holder_and_is_cleaned(
    home: Home, phone: AndroidRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOCBENCH_DEVICE_ROOT")
    device = f"adb:{phone.serial}"
    choices = {"devices": (device,), "repeat": 1, "min_count": 150}  # which agent is found out
    folder = phone.root / "data/local/tmp/socbench"
    folder.mkdir(parents=True)
    (folder / "lease").write_text('{"host": "elsewhere", "pid": 1, "session": "20200101-0000-else", "user": "x"}')
    with pytest.raises(FailedError, match=r"in use by session 20200101-0000-else \(process 1 of x on elsewhere\)"):
        home.run(home.null("m"), wait=False, **choices)
    os.utime(folder / "lease", (0, 0))

    heard = Heard()
    result = home.run(home.null("m", latency_ns=SCRIPT), wait=False, heard=heard, **choices)
    assert any("20200101-0000-else" in text and "taken over" in text for text in heard.messages)
    assert f"{device} has no Python: the native agent measures there" in heard.steps
    assert not (folder / "lease").exists()
    (row,) = home.rows(result.session, "trials")
    assert row["status"] == "done", row["error"]
    samples = [one["latency_ns"] for one in home.rows(result.session, "samples") if one["phase"] == 2]
    assert samples[:97] == SCRIPT
    told = {(one["kind"], one["source"]): one["value"] for one in home.rows(result.session, "telemetry")}
    assert told["temperature_milli_c", "thermalservice:cpu:BIG"] == 31_700
    assert told["temperature_milli_c", "thermalservice:skin:VIRTUAL-SKIN"] == 28_300
    assert told["temperature_milli_c", "dumpsys:battery"] == 28_100
    assert told["thermal_status", "thermalservice"] == 1
    assert told["battery_permille", "dumpsys:battery"] == 150

    blobs = {path.name: path.stat().st_ino for path in (folder / "blobs").iterdir()}
    assert len(blobs) == 3  # agent, model, input
    home.run(home.null("m", latency_ns=SCRIPT), **choices)
    assert {path.name: path.stat().st_ino for path in (folder / "blobs").iterdir()} == blobs, "nothing is pushed again"

    things = cleaned(home, device)
    assert {thing["kind"] for thing in things if thing["kept"] is None} == {"file"}
    assert list((folder / "blobs").iterdir()) == []
    assert {thing["kept"] for thing in things if thing["kind"] == "agent"} == {"the agent in use"}
