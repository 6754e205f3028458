from __future__ import annotations

from pathlib import Path

import pytest
from session_home import Home, make_home, processes_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def nothing_is_left_running(home: Home):
    """Every fault ends with no process left behind."""
    yield
    assert processes_of(home) == []
