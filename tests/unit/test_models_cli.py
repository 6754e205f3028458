"""``socbench models`` as it is called: list, show, build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_network
import yaml

HARNESS = Path(__file__).resolve().parents[2] / "harness"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose own model ``tiny`` can be built."""
    folder = tmp_path / "config" / "models" / "tiny"
    tiny_network.write_model(folder, licence={"weights": "MIT", "redistribute": False})
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["left_out"] = {"mnn": {"fp32": "it was never tried"}}
    card["parameters"] = tiny_network.PARAMETERS
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return tmp_path


def socbench(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SOCBENCH_CACHE": str(home / "cache"), "SOCBENCH_CONFIG": str(home / "config")}
    env |= {"PYTHONPATH": str(HARNESS), "COLUMNS": "120"}
    argv = [sys.executable, "-m", "socbench", "models", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def test_the_list_is_a_table_to_choose_from(home: Path) -> None:
    done = socbench(home, "list")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert (
        lines["model"]
        == "model               task                  input           MACs     size  int8  runs in  metric"
    )
    said = ["48x320", "BGR", "0.70", "G", "10.9", "MB", "yes", "5", "characters"]
    assert lines["ppocr_v4_rec"].split()[-len(said) :] == said
    assert "fidelity" in lines["modnet"]
    listed = json.loads(socbench(home, "list", "--json").stdout)
    one = next(item for item in listed if item["model"] == "minilm_l6_v2")
    assert one["runtimes"] == ["litert", "onnxruntime", "openvino", "tensorrt", "mnn", "executorch"]
    assert (one["input"], one["metric"], one["parameters"]) == ("32 int64 x2", "spearman", 22380293)


def test_what_can_be_built_is_built_though_a_card_has_a_wrong_file(home: Path) -> None:
    (home / "config" / "models" / "tiny" / "tiny.onnx").write_bytes(b"another one")
    done = socbench(home, "build", "tiny", "--precision", "fp16", "--json")
    assert done.returncode == 1
    assert [item["variant"] for item in json.loads(done.stdout)] == ["tflite-fp16"]
    assert "tiny onnx-fp16 was not built: tiny: " in done.stderr
    assert "is not the file that its card means" in done.stderr
    assert "tiny openvino-fp16 was not built: " in done.stderr


def test_build_makes_only_what_a_runtime_takes(home: Path) -> None:
    done = socbench(home, "build", "tiny", "--precision", "int8", "--for", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["onnx-int8", "onnx-int8-reduced"]
    wrong = socbench(home, "build", "tiny", "--for", "onnx-runtime")
    assert wrong.returncode == 2
    assert "there is no runtime 'onnx-runtime'" in wrong.stderr
    assert "onnxruntime" in wrong.stderr


def test_a_file_that_the_card_does_not_name_is_not_taken(home: Path) -> None:
    (home / "x.whl").write_bytes(b"x")
    done = socbench(home, "build", "tiny", "--from", str(home / "x.whl"))
    assert done.returncode == 2
    assert "x.whl is none of the files that the card of tiny names" in done.stderr


def test_show_says_what_it_costs_who_takes_it_and_what_is_left_out(home: Path) -> None:
    text = socbench(home, "show", "tiny").stdout
    assert f"parameters {tiny_network.PARAMETERS}" in text
    assert "operations 5 (onnx): " in text
    assert "runtimes   litert, onnxruntime, openvino, tensorrt" in text
    assert "left out   mnn fp32: it was never tried" in text
