"""What only the Python agent has: its parsers and sensors, tested on texts and on a made-up /sys."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

AGENTS = Path(__file__).resolve().parents[2] / "device_agents" / "python"


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def agent_module() -> ModuleType:
    return _load(AGENTS / "agent.py", "socbench_agent_in_tests")


@pytest.fixture
def sysfs(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write files below a root that stands before /sys and /proc."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "root"

    return write


@pytest.fixture
def telemetry_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModuleType]:
    """Load the telemetry module on a root of its own."""

    def load(root: Path) -> ModuleType:
        monkeypatch.setenv("SOCBENCH_SYSFS_ROOT", str(root))
        return _load(AGENTS / "telemetry.py", "socbench_telemetry_in_tests")

    return load
