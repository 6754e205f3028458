"""The disk of the store fills while something is measured: the device keeps what was not stored, and it is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from session_home import Heard, Home, make_home, processes_of
from socbench.errors import StoreError
from socbench.session import DeviceProgress
from socbench.session.journal import DeviceJournal


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


class FullJournal(Heard):
    """Puts the journal of the first job on /dev/full, the device that answers every write with "no space left"."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self.path = Path()

    def update(self, state: DeviceProgress) -> None:
        super().update(state)
        if state.phase == "provision":
            folder = self.home.store / "sessions" / self.session / "journal"
            self.path = DeviceJournal.of(folder, "local").job_path(1)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.symlink_to("/dev/full")


def test_a_store_that_fills_leaves_the_session_open_and_resuming_fetches_what_the_device_has(home: Home) -> None:
    heard = FullJournal(home)
    result = home.run(home.null("m"), heard=heard, scenarios=("sustained",), duration_s=5.0, repeat=1)
    assert (result.status, result.exit_code) == ("interrupted", 1)
    said = " ".join(heard.messages)
    assert "what local sends can't be stored in" in said
    assert "No space left on device; make room there, nothing that was measured is lost" in said
    assert f"go on with: socbench run --resume {result.session}" in said
    assert not processes_of(home), "the agent does not go on for nobody"

    heard.path.unlink()
    heard.path.touch()
    again = home.resume(result.session)
    assert again.status == "complete"
    (row,) = home.rows(result.session, "repetitions")
    assert (row["status"], row["stopped_by"]) == ("done", "min")
    assert row["measured_count"] == 5000


def test_a_part_that_does_not_fit_leaves_the_session_open_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from socbench.store import writer

    def full(*_: object, **__: object) -> None:
        raise StoreError("cannot write a part: No space left on device")

    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_tables", full)
        result = home.run(home.null("m"), heard=heard, repeat=1)
    assert (result.status, result.exit_code) == ("interrupted", 1)
    assert "cannot write a part: No space left on device; make room there" in " ".join(heard.messages)
    assert home.resume(result.session).status == "complete"
