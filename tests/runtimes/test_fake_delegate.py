"""An external delegate that lies: it takes every node and answers with zeros, quickly. Compiled here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake_delegate(tmp_path: Path) -> Path:
    """A library that LiteRT loads as a delegate; its first inference takes 300 ms."""
    library = tmp_path / "libfake_delegate.so"
    source = Path(__file__).parent / "fake_delegate.c"
    argv = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-DFIRST_MS=300", "-o", str(library), str(source)]
    subprocess.run(argv, check=True, capture_output=True)
    return library


def test_an_external_delegate_is_counted_by_the_nodes_that_it_took(place, tiny, tmp_path, fake_delegate) -> None:
    answer = place("host").adapter("litert", f"npu:{fake_delegate}", tiny.write_tflite(tmp_path / "m.tflite"))
    described = answer["described"]
    assert (described["delegation"], described["delegation_evidence"]) == ("full", "counted")
    assert (described["nodes_total"], described["nodes_delegated"], described["partitions"]) == (2, 2, 1)
    assert described["accelerator"] == "libfake_delegate.so"


def test_a_delegate_that_answers_zeros_is_void_and_what_its_first_run_took_is_no_latency(
    tmp_path, fake_delegate
) -> None:
    """It has every operation and the shortest latency of all, and no row is worth less."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "harness"), "SOCBENCH_STORE": str(tmp_path / "store")}
    words = f"run resnet8 --runtime litert --precision fp32 --scenario single_stream --delegate npu:{fake_delegate}"
    quick = "--repeat 1 --min-time 0.05 --min-count 20 --json"
    done = subprocess.run(
        [sys.executable, "-m", "socbench", *words.split(), *quick.split()], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert (row["status"], row["delegation"], row["nodes_delegated"]) == ("done", "full", 14)
    assert (row["verdict"], row["fidelity"]["cosine"], row["fidelity"]["within_tolerance"]) == ("invalid", 0.0, False)
    assert "output_constant" in row["reasons"]
    assert row["first_ns"] >= 300e6 > 100 * row["latency_p50_ns"]


def test_a_library_that_is_no_delegate_is_refused_by_name(place, tiny, tmp_path) -> None:
    library = tmp_path / "libnothing.so"
    library.write_bytes(b"no library")
    answer = place("host").adapter("litert", f"npu:{library}", tiny.write_tflite(tmp_path / "m.tflite"))
    assert answer["error"]["code"] == "delegate_missing"
    assert str(library) in answer["error"]["message"]
