"""What is stored of the answers to a data set: all, indices of the largest elements, or nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

AGENT = Path(__file__).resolve().parents[2] / "device_agents" / "python" / "agent.py"
ANSWERS = {
    "scores": np.array([[[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]]], np.float32),
    "boxes": np.ones((1, 4), np.float32),
    "rest": np.zeros((1, 1000), np.float32),
}


class FakeSession:
    """A session whose answers are known."""

    def bind(self, one: Any) -> None:
        """Take an input."""

    def run(self) -> None:
        """Compute nothing."""

    def outputs(self) -> dict[str, Any]:
        return ANSWERS


class FakeInputs:
    count = 2

    def one(self, index: int) -> int:
        return index


class FakeEmitter:
    def emit(self, kind: str, **members: Any) -> None:
        self.members = members


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("socbench_agent_under_test", AGENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_argmax_stores_indices_and_none_stores_nothing(agent: Any, tmp_path: Path) -> None:
    out = FakeEmitter()
    agent.write_outputs(FakeSession(), FakeInputs(), "dataset", out, ["argmax", "all", "none"])
    scores, boxes = out.members["tensors"]
    assert (scores["name"], scores["dtype"], scores["shape"]) == ("scores", "int32", [1, 2])
    assert np.frombuffer((tmp_path / scores["file"]).read_bytes(), "<i4").tolist() == [1, 0, 1, 0]
    assert (boxes["name"], boxes["dtype"], boxes["shape"]) == ("boxes", "float32", [1, 4])


def test_without_a_wish_everything_is_stored(agent: Any) -> None:
    out = FakeEmitter()
    agent.write_outputs(FakeSession(), FakeInputs(), "before", out)
    assert [tensor["shape"] for tensor in out.members["tensors"]] == [[1, 2, 3], [1, 4], [1, 1000]]


def test_a_wish_that_is_none_is_refused(agent: Any) -> None:
    given = {"count": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": [1], "file": "a.bin"}], "keep": ["half"]}
    with pytest.raises(agent.Problem, match="keep"):
        agent._check_inputs("trials.t1.dataset", given)
