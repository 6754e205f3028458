"""Writes the parts of a device's trials from its journal; for a remote device beside the following of its events."""

from __future__ import annotations

from concurrent.futures import Future

from socbench.errors import ProtocolError
from socbench.records import Failure
from socbench.session.journal import DeviceJournal
from socbench.session.state import SessionState


class PartsWriter:
    """``beside``: write in the session's own writing thread, since a slow disk must not hold up the device's events.

    ``written`` are the trials whose part was written or is being written.
    """

    def __init__(self, state: SessionState, journal: DeviceJournal, *, beside: bool) -> None:
        self.written: set[str] = set()
        self._state = state
        self._journal = journal
        self._beside = beside
        self._under_way: list[Future[None]] = []

    def write(self, trial: str, planned: int, failure: Failure | None) -> None:
        """Write a trial's part, which may be over only after :meth:`wait`; ``planned`` repetitions make it whole."""
        self.written.add(trial)
        if self._beside:
            self._under_way.append(self._state.pool.submit(self._write, trial, planned, failure))
        else:
            self._write(trial, planned, failure)

    def wait(self) -> None:
        """Wait until everything is written. StoreError when something could not be."""
        while self._under_way:
            self._under_way.pop(0).result()

    def _write(self, trial: str, planned: int, failure: Failure | None) -> None:
        from socbench.store.events import trial_tables, untried_tables

        plan = self._state.trials[trial]
        try:
            tables = trial_tables(
                plan,
                self._journal.events(trial),
                raw=self._journal.raw,
                planned=planned,
                status="failed" if failure else None,
                error=failure,
            )
        except ProtocolError as problem:
            advice = f"socbench devices setup {self._journal.device}"
            tables = untried_tables(plan, "failed", Failure("protocol_version", str(problem), advice))
        self._state.write_part(trial, tables)
        self._state.statuses[trial] = str(tables["trials"]["status"][0].as_py())

    def write_device(self) -> None:
        """Write what concerns the device and no trial: telemetry between repetitions, pairs of clocks."""
        from socbench.store.events import clock_pairs, device_tables

        address = self._journal.device
        try:
            self._state.write_part(f"device:{address}", device_tables(address, self._journal.events(None)))
        except ProtocolError as problem:
            self._state.progress.message(f"telemetry of {address} was left out: {problem}")
        self._state.clocks[address] = clock_pairs(self._journal.events(None))
