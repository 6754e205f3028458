"""The suite that every runtime adapter passes, run on tiny models with answers known from NumPy."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUNTIMES = ("litert", "onnxruntime", "openvino")


def _load(path: Path, name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


AGENT = _load(ROOT / "device_agents" / "python" / "agent.py", "socbench_agent_under_test")
TINY = _load(Path(__file__).parent / "tiny_models.py", "socbench_tiny_models")


def _imports(runtime: str) -> bool:
    try:
        AGENT.load_adapter(runtime).import_runtime()
    except Exception as error:
        if getattr(error, "code", "") == "runtime_missing":
            return False
        raise
    return True


@dataclass(frozen=True)
class Case:
    """One runtime with the files that it is tried on."""

    runtime: str
    delegate: str
    format: str
    folder: Path

    @property
    def adapter(self) -> Any:
        return AGENT.load_adapter(self.runtime)

    def model(self, kind: str = "fp32") -> str:
        path = self.folder / f"{kind}.{self.format}"
        onnx: dict[str, Callable[[], Path]] = {
            "fp32": lambda: TINY.write_onnx(path),
            "fp16": lambda: TINY.write_onnx(path, dtype="float16", size=16),
            "int8": lambda: TINY.write_onnx_int8(path, size=16),
            "dynamic": lambda: TINY.write_onnx(path, batch="n"),
            "unsupported": lambda: TINY.write_onnx(path, op="NoSuchOperator"),
        }
        tflite: dict[str, Callable[[], Path]] = {
            "fp32": lambda: TINY.write_tflite(path),
            "fp16": lambda: TINY.write_tflite(path, dtype="float16", size=16),
            "int8": lambda: TINY.write_tflite_int8(path, size=16),
            "dynamic": lambda: TINY.write_tflite(path, batch=-1),
            "unsupported": lambda: TINY.write_tflite(path, tail="NoSuchOperator"),
            "partial": lambda: TINY.write_tflite(path, tail="CUMSUM"),
        }
        return str({"onnx": onnx, "tflite": tflite}[self.format][kind]())

    def trial(self, precision: str = "fp32", **changes: Any) -> dict[str, Any]:
        trial = {
            "runtime": self.runtime,
            "delegate": self.delegate,
            "format": self.format,
            "precision": precision,
            "threads": 1,
            "batch": 1,
            "shapes": {},
            "options": {},
            "repetition": 1,
        }
        return {**trial, **changes}

    def load(self, kind: str = "fp32", **changes: Any) -> Any:
        precision = kind if kind in ("fp16", "int8") else "fp32"
        return self.adapter.load(self.model(kind), self.trial(precision, **changes))


CASES = {
    "litert": ("cpu:xnnpack", "tflite"),
    "onnxruntime": ("cpu:mlas", "onnx"),
    "openvino": ("cpu:openvino", "onnx"),
}


@pytest.fixture(params=[runtime for runtime in RUNTIMES if _imports(runtime)])
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Each runtime that imports, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Case(request.param, *CASES[request.param], tmp_path)


@pytest.fixture
def case_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    """Make a case of one runtime and delegate."""
    monkeypatch.chdir(tmp_path)
    return lambda runtime, delegate, form: Case(runtime, delegate, form, tmp_path)


@pytest.fixture
def tiny() -> ModuleType:
    return TINY


@pytest.fixture
def agent_module() -> ModuleType:
    return AGENT
