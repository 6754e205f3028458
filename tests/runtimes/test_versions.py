"""Two versions of one runtime against each other, from the command line; the older one is made when it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runtimes.conftest import CACHE, ROOT

pytestmark = pytest.mark.runtimes
OLDER = "1.24.4"


def test_an_older_onnxruntime_is_made_measured_in_turn_with_this_one_and_both_versions_are_named(
    tmp_path: Path,
) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "harness"), "SOCBENCH_STORE": str(tmp_path / "store")}
    env |= {"SOCBENCH_DEVICE_ROOT": str(tmp_path / "device")} | ({"SOCBENCH_CACHE": CACHE} if CACHE else {})

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "socbench", *words],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("runtimes", "install", f"onnxruntime=={OLDER}")
    arms = ("environment=host", f"environment=onnxruntime-{OLDER}")
    model = str(ROOT / "models" / "resnet8" / "resnet8-fp32.onnx")
    rows: list[dict[str, Any]] = json.loads(
        call("run", model, "--ab", *arms, "--repeat", "2", "--min-time", "0.1", "--label", "versions", "--json")
    )
    found = {row["environment"]: (row["runtime"], row["status"], row["runtime_version"]) for row in rows}
    assert len(rows) == 2
    assert found[f"onnxruntime-{OLDER}"] == ("onnxruntime", "done", OLDER)
    assert found["host"][:2] == ("onnxruntime", "done")
    assert found["host"][2] != OLDER
    (pair,) = json.loads(call("compare", "versions", "--json"))
    assert "paired" in pair["reasons"]
    assert f"subject:runtime_version: {found['host'][2]} -> {OLDER}" in pair["reasons"]
