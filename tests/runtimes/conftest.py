"""Runs adapters in the environments that socbench makes: each call a process of its own, as the agent does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from socbench.environments.catalogue import environment
from socbench.environments.install import child_env, python_of

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CACHE = os.environ.get("SOCBENCH_CACHE")


def tiny_models() -> Any:
    """Return the module that writes tiny models."""
    sys.path.insert(0, str(ROOT / "tests" / "conformance" / "runtime"))
    try:
        import tiny_models as module
    finally:
        sys.path.pop(0)
    return module


@pytest.fixture(scope="session")
def tiny() -> Any:
    return tiny_models()


class Place:
    """One environment: what an adapter answers there, and what plain Python says there."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        if name == "host":
            self.python, self.env = sys.executable, {}
            return
        made = environment(name)
        python = python_of(made)
        assert python is not None, f"the environment {name} is not installed: socbench runtimes install {name}"
        self.python, self.env = str(python), child_env(made)

    def run(self, script: str | Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a script file, or a text given to ``-c``."""
        given = [str(script)] if isinstance(script, Path) else ["-c", script]
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.run(
            [self.python, *given, *words], cwd=self.folder, env={**env, **self.env}, capture_output=True, text=True,
            errors="replace", timeout=600, check=False,
        )  # fmt: skip

    def say(self, script: str, *words: str) -> Any:
        """Return the JSON that a script prints last."""
        done = self.run(script, *words)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    def adapter(
        self, runtime: str, delegate: str, model: Path | str, precision: str = "fp32", *, runs: int = 3,
        threads: int = 1, inputs: dict[str, Any] | None = None, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Load, run and describe a model by an adapter; a RuntimeProblem comes back as ``error``."""
        np.savez(self.folder / "in.npz", **(inputs or {}))
        trial = {
            "runtime": runtime, "delegate": delegate, "format": "", "precision": precision, "threads": threads,
            "batch": 1, "shapes": {}, "options": options, "repetition": 1, "input_seed": 7,
        }  # fmt: skip
        done = self.run(HERE / "drive.py", str(ROOT), str(model), json.dumps(trial), str(runs))
        assert (self.folder / "answer.json").exists(), done.stderr[-2000:]
        answer: dict[str, Any] = json.loads((self.folder / "answer.json").read_text())
        (self.folder / "answer.json").unlink()
        if "outputs" in answer:
            with np.load(self.folder / "out.npz") as stored:
                answer["arrays"] = [stored[name] for name in sorted(stored)]
        return answer

    def probe(self, runtime: str) -> dict[str, Any]:
        """Return the delegates of a runtime's probe by name."""
        answer = self.adapter(runtime, "probe", "")
        return {entry["delegate"]: entry for entry in answer["probe"]["delegates"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Place]:
    """Return an environment by name. Tests may have moved the cache; the environments are the machine's own."""
    if CACHE is not None:
        monkeypatch.setenv("SOCBENCH_CACHE", CACHE)
    return lambda name: Place(name, tmp_path)
