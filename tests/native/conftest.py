"""The native agent's own tests: its builds, malformed input under sanitizers, real and fake vendor libraries."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "device_agents" / "native"
PYTHON_AGENT = [sys.executable, str(ROOT / "device_agents" / "python" / "agent.py")]
SETTINGS = {
    "min_time_s": 0.0,
    "min_count": 3,
    "max_time_s": 20.0,
    "warmup_max_s": 0.0,
    "warmup_min_count": 1,
    "max_count": 100,
    "rate_hz": None,
}


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build_module() -> ModuleType:
    """The build script."""
    return _load(NATIVE / "build.py", "socbench_native_build")


@pytest.fixture(scope="session")
def native_agent() -> list[str]:
    """The agent as it is shipped for this machine; `make native` builds it."""
    program = NATIVE / "build" / "socbench-agent-linux-x86_64"
    assert program.exists(), "build it first: make native"
    return [str(program)]


@pytest.fixture(scope="session")
def python_agent() -> list[str]:
    """The other agent."""
    return PYTHON_AGENT


@pytest.fixture(scope="session")
def sanitized_agent() -> list[str]:
    """The agent under AddressSanitizer and UBSan; any report of theirs ends it with status 99."""
    subprocess.run([sys.executable, str(NATIVE / "build.py"), "--sanitize"], check=True, capture_output=True)
    os.environ["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=0:abort_on_error=0"
    os.environ["UBSAN_OPTIONS"] = "halt_on_error=1:exitcode=99"
    return [str(NATIVE / "build" / "obj" / "socbench-agent-sanitized")]


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compile a shared library from C; returns the folder that holds it."""

    def compile_one(source: str, name: str) -> Path:
        folder = tmp_path_factory.mktemp("library")
        (folder / "source.c").write_text(source)
        command = ["cc", "-shared", "-fPIC", "-w", "-o", str(folder / name), str(folder / "source.c")]
        subprocess.run(command, check=True, capture_output=True)
        return folder

    return compile_one


@pytest.fixture
def trial() -> Callable[..., Json]:
    """Make a trial that measures three inferences."""

    def make(runtime: str, delegate: str, model: Path | str, **changes: Any) -> Json:
        trial: Json = {
            "runtime": runtime,
            "delegate": delegate,
            "format": {"onnxruntime": "onnx", "litert": "tflite"}.get(runtime, runtime),
            "precision": "fp32",
            "model": str(model),
            "python": None,
            "runtime_dir": None,
            "threads": 1,
            "cores": None,
            "batch": 1,
            "shapes": {},
            "scenario": "single_stream",
            "settings": SETTINGS,
            "probe": None,
            "dataset": None,
            "input_seed": 7,
            "profile": False,
            "options": {},
        }
        return {**trial, **changes}

    return make


@pytest.fixture
def run_job(tmp_path: Path) -> Callable[..., list[Json]]:
    """Run one repetition of a trial in the foreground; returns its events. The folder is ``tmp_path / name``."""

    def run(agent: list[str], trial: Json, name: str = "job") -> list[Json]:
        folder = tmp_path / name
        folder.mkdir()
        document = {
            "protocol": 1,
            "session": "s",
            "orphan_after_s": None,
            "telemetry": None,
            "trials": {"t": trial},
            "repetitions": [{"trial": "t", "repetition": 1, "deadline_s": 120.0, "cool_down": None}],
        }
        (folder / "job.json").write_text(json.dumps(document))
        subprocess.run([*agent, "run", str(folder)], check=False, capture_output=True, timeout=180)
        return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]

    return run


@pytest.fixture
def only() -> Callable[[list[Json], str], Json]:
    """Select the last event of a type; what went wrong instead is shown."""

    def select(events: list[Json], kind: str) -> Json:
        found = [event for event in events if event["type"] == kind]
        assert found, [event for event in events if event["type"] in ("error", "log")]
        return found[-1]

    return select


@pytest.fixture
def wheel_folder() -> Callable[[str], str]:
    """Return the folder of this machine's package that holds a runtime's C library."""

    def find(runtime: str) -> str:
        package, inside = {"onnxruntime": ("onnxruntime", "capi"), "litert": ("ai_edge_litert", "")}[runtime]
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        return str(Path(next(iter(spec.submodule_search_locations))) / inside)

    return find
