"""The public results API: what a notebook, the command line and the renderers read sessions with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.errors import SelectorError, StoreError, UsageError
from socbench.records import (
    ComparedPair,
    Json,
    OpRow,
    RepetitionSamples,
    ReportData,
    SessionInfo,
    TelemetrySeries,
    TrialRow,
)
from socbench.store import reader
from socbench.store.manage import default_store
from socbench.store.reader import StoreWarning

if TYPE_CHECKING:
    import pandas as pd

    from socbench.analysis.compare import Across

__all__ = [
    "Results",
    "StoreWarning",
    "compare_rows",
    "history",
    "open_results",
    "report_comparison",
    "report_data",
    "session_info",
    "session_list",
    "trial_rows",
]


class Results:
    """A results store. Selectors are a session id, a unique prefix, a label or ``latest``; ``None`` is all sessions."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def sessions(self) -> pd.DataFrame:
        """One row a session: session, label, status, started, ended, devices (names), trials (how many)."""
        import pandas as pd

        rows = []
        for info in session_list(self.store):
            facts = {name: getattr(info, name) for name in ("session", "label", "status", "started", "ended")}
            devices = [device.device for device in info.devices]
            rows.append({**facts, "devices": devices, "trials": sum(info.trial_counts.values())})
        columns = ["session", "label", "status", "started", "ended", "devices", "trials"]
        return pd.DataFrame(rows, columns=columns)

    def trials(self, selector: str | None = None) -> pd.DataFrame:
        """One row a trial, columns as TrialRow; ``reasons`` and ``error`` are codes, ``fidelity`` is a dictionary."""
        import pandas as pd

        rows = []
        with self._database(selector) as database:
            for folder in database.folders:
                rows.extend(_rows(database, folder))
        flat = [
            {
                **{name: getattr(row, name) for name in TrialRow.__dataclass_fields__},
                "reasons": [reason.code for reason in row.reasons],
                "error": None if row.error is None else row.error.code,
                "fidelity": None if row.fidelity is None else asdict(row.fidelity),
            }
            for row in rows
        ]
        return pd.DataFrame(flat, columns=list(TrialRow.__dataclass_fields__))

    def samples(self, selector: str | None = None, trial: str | None = None) -> pd.DataFrame:
        """Every single latency: session, trial, repetition, phase, start_ns, latency_ns, late_ns."""
        query = "SELECT * FROM samples WHERE coalesce(trial = ?, true) ORDER BY session, trial, repetition, start_ns"
        return self._frame(selector, query, [trial])

    def telemetry(self, selector: str | None = None) -> pd.DataFrame:
        """What was read off the devices: session, device, trial, repetition, t_ns, kind, source, value, reason."""
        return self._frame(selector, "SELECT * FROM telemetry ORDER BY session, device, t_ns, kind, source", [])

    def sql(self, query: str) -> pd.DataFrame:
        """Answer of one SELECT over the views of results/schema.sql; nothing outside the store can be read."""
        with self._database(None) as database:
            frame = database.sql(query)
            _warn(database)
            return frame

    def _frame(self, selector: str | None, query: str, parameters: list[object]) -> pd.DataFrame:
        with self._database(selector) as database:
            frame = database.frame(query, parameters)
            _warn(database)
            return frame

    def _database(self, selector: str | None) -> reader.Database:
        return reader.connect(_readable(self.store) if selector is None else [reader.resolve(self.store, selector)])


def open_results(store: str | Path | None = None) -> Results:
    """Open a results store; the default is ``SOCBENCH_STORE``, else the user's data folder."""
    return Results(default_store() if store is None else Path(store))


def session_info(store: Path, selector: str | None = None) -> SessionInfo:
    """Return what session.json says of one session (default ``latest``)."""
    folder = reader.resolve(store, selector)
    return _infos([folder])[0]


def session_list(store: Path) -> list[SessionInfo]:
    """Return all sessions, oldest first; damaged or newer ones are left out with a StoreWarning."""
    return _infos(_readable(store))


def trial_rows(store: Path, selector: str | None = None) -> list[TrialRow]:
    """Return every row of one session (default ``latest``), by trial id, with statistics and verdicts."""
    folder = reader.resolve(store, selector)
    with reader.connect([folder]) as database:
        rows = _rows(database, folder)
        _warn(database)
        return rows


def report_data(store: Path, selectors: Sequence[str] = ()) -> ReportData:
    """Return everything that a renderer needs of sessions (default ``latest``)."""
    folders = reader.resolve_many(store, selectors)
    with reader.connect(folders) as database:
        rows = [row for folder in folders for row in _rows(database, folder)]
        samples: dict[tuple[str, str], tuple[RepetitionSamples, ...]] = {}
        ops: dict[tuple[str, str], tuple[OpRow, ...]] = {}
        for row in rows:
            key = (row.session, row.trial)
            samples[key] = _samples(database, *key)
            ops[key] = _ops(database, *key)
        telemetry = {folder.name: _telemetry(database, folder.name) for folder in folders}
        _warn(database)
    infos = tuple(_infos(folders))
    full = {key: value for key, value in samples.items() if value}
    return ReportData(infos, tuple(rows), full, telemetry, {key: value for key, value in ops.items() if value})


def compare_rows(
    store: Path,
    base: str | None = None,
    candidate: str | None = None,
    *,
    by: str | None = None,
    allow: Sequence[str] = (),
    margin: float | None = None,
) -> list[ComparedPair]:
    """Compare two sessions, or with ``by`` (``runtime``, ``delegate``, ``precision``, ``device``, ``variant`` ...) the
    rows of one session with each other; a session run with ``--ab`` compares its two arms. ``allow`` names
    conditions that may differ; ``margin`` is what counts as no difference (3 % when ``None``). SelectorError for what
    isn't found, UsageError when no two rows have a counterpart.
    """
    from socbench.analysis import compare

    first = reader.resolve(store, base)
    second = first if candidate is None else reader.resolve(store, candidate)
    margin = compare.MARGIN if margin is None else margin
    one = trial_rows(store, first.name)
    if second == first:
        if by is None and not any(row.ab_arm for row in one):
            raise UsageError(
                f"session {first.name} has nothing to compare with: name a second session, an axis with --by, "
                "or measure two candidates with socbench run --ab A B"
            )
        pairs = (
            compare.compare_arms(one, margin=margin)
            if by is None
            else compare.compare(one, one, by=by, allow=allow, margin=margin)
        )
    else:
        across = _across(store, first, second)
        two = trial_rows(store, second.name)
        pairs = compare.compare(one, two, by=by, allow=allow, margin=margin, across=across)
    if not any(pair.base and pair.candidate for pair in pairs):
        names = first.name if second == first else f"{first.name} and {second.name}"
        along = "" if by is None else f" along {by}"
        raise UsageError(f"{names} have no two rows that could be compared{along}; see socbench results trials")
    return pairs


def report_comparison(store: Path, data: ReportData) -> list[ComparedPair]:
    """Return the pairs of rows that a report of two sessions has (the first is the base), or the arms of its one.

    Empty where not one pair can be compared, and for more sessions: there is no telling which is meant as the base.
    """
    from socbench.analysis import compare

    rows = list(data.rows)
    if len(data.sessions) == 1:
        pairs = compare.compare_arms(rows) if any(row.ab_arm for row in rows) else []
    elif len(data.sessions) == 2:
        first, second = (reader.resolve(store, info.session) for info in data.sessions)
        sides = ([row for row in rows if row.session == folder.name] for folder in (first, second))
        pairs = compare.compare(*sides, across=_across(store, first, second))
    else:
        pairs = []
    both = [pair for pair in pairs if pair.base is not None and pair.candidate is not None]
    return both if any(pair.ratio is not None for pair in both) else []


def history(store: Path, model: str, *, device: str | None = None) -> list[dict[str, Any]]:
    """Return the keys of ``model`` over all sessions: each with its ``points`` in time and the ``steps`` in them.

    A point has ``session, label, started, latency_p50_ns``, its interval and what may differ; a step has ``session``
    (the first after it), ``ratio, ratio_low, ratio_high`` and ``changed`` (what changed with it). ``device`` is an
    address, a key or a name.
    """
    from socbench.analysis import compare
    from socbench.analysis.history import steps

    keys: dict[compare.Key, list[TrialRow]] = {}
    with reader.connect(_readable(store)) as database:
        for folder in database.folders:
            for row in _rows(database, folder, latency_only=True):
                wanted = device is None or device in (row.device, row.device_key, row.device_name)
                if row.model == model and wanted and row.latency_p50_ns is not None:
                    keys.setdefault(_lasting(row), []).append(row)
        _warn(database)
    names = (*compare.SUBJECT, "os_build")
    result = []
    for rows in keys.values():
        facts = [{name: getattr(row, name) for name in names} for row in rows]
        found = steps([row.latency_p50_ns or 0.0 for row in rows], facts)
        shown = ("model", "device_name", "runtime", "delegate", "precision", "scenario", "threads", "batch")
        result.append(
            {
                **{name: getattr(rows[0], name) for name in shown},
                "points": [{**_point(row), **fact} for row, fact in zip(rows, facts, strict=True)],
                "steps": [
                    {
                        "session": rows[step.index].session,
                        "started": rows[step.index].started,
                        "ratio": step.change.ratio,
                        "ratio_low": step.change.low,
                        "ratio_high": step.change.high,
                        "changed": list(step.changed),
                    }
                    for step in found
                ],
            }
        )
    return result


def _lasting(row: TrialRow) -> tuple[str, ...]:
    """Return what makes rows one line of history: as for comparing, but an update of the OS is a step, not an end."""
    from socbench.analysis import compare

    fields = [field for field in (*compare.KEY, *compare.CONDITIONS) if field != "os_build"]
    return tuple(str(getattr(row, field)) for field in fields)


def _point(row: TrialRow) -> Json:
    names = ("session", "label", "started", "latency_p50_ns", "latency_p50_low_ns", "latency_p50_high_ns")
    return {name: getattr(row, name) for name in names}


def _across(store: Path, first: Path, second: Path) -> Across:
    """Return how keys differed between the sessions that came before the later of the two."""
    from socbench.analysis import compare

    started = max(str(reader.read_document(folder).get("started") or "") for folder in (first, second))
    others = [folder for folder in _readable(store) if folder not in (first, second)]
    others = [folder for folder in others if str(reader.read_document(folder).get("started") or "") < started]
    earlier: dict[compare.Key, list[float]] = {}
    with reader.connect(others) as database:
        for folder in others:
            for row in _rows(database, folder, latency_only=True):
                if row.status == "done" and row.latency_p50_ns is not None:
                    earlier.setdefault(compare.identity(row), []).append(row.latency_p50_ns)
    return compare.Across(earlier)


def _rows(database: reader.Database, folder: Path, *, latency_only: bool = False) -> list[TrialRow]:
    from socbench.store.rows import trial_rows_of

    return trial_rows_of(database, folder, latency_only=latency_only)


def _readable(store: Path) -> list[Path]:
    """Return all sessions that this socbench can read; the others are warned of."""
    if not store.is_dir():
        raise SelectorError(f"there is no results store in {store}; measure something first: socbench run")
    folders = []
    for folder in reader.find_sessions(store):
        try:
            reader.read_document(folder)
        except StoreError as error:
            warnings.warn(str(error), StoreWarning, stacklevel=3)
        else:
            folders.append(folder)
    return folders


def _warn(database: reader.Database) -> None:
    for text in database.warnings:
        warnings.warn(text, StoreWarning, stacklevel=3)


def _infos(folders: Sequence[Path]) -> list[SessionInfo]:
    from socbench.store.rows import devices_of

    with reader.connect(folders) as database:
        counted = database.rows("SELECT session, status, count(*) AS trials FROM trials GROUP BY ALL ORDER BY ALL")
        _warn(database)
    infos = []
    for folder in folders:
        document = reader.read_document(folder)
        infos.append(
            SessionInfo(
                session=folder.name,
                label=document.get("label"),
                status=str(document.get("status")),
                started=str(document.get("started") or ""),
                ended=document.get("ended"),
                socbench_version=str(document.get("socbench_version") or ""),
                argv=tuple(map(str, document.get("argv") or ())),
                seed=int(document.get("seed") or 0),
                devices=devices_of(document),
                host=document.get("host") or {},
                models=document.get("models") or {},
                plan=document.get("plan") or {},
                trial_counts={row["status"]: row["trials"] for row in counted if row["session"] == folder.name},
                format=int(document["format"]),
            )
        )
    return infos


def _samples(database: reader.Database, session: str, trial: str) -> tuple[RepetitionSamples, ...]:
    import numpy as np

    # Files hold samples in order; to have millions sorted again would cost more than to look.
    query = "SELECT repetition, phase, start_ns, latency_ns FROM samples WHERE session = ? AND trial = ?"
    columns = database.arrays(query, [session, trial])
    steps = np.diff(columns["repetition"])
    if np.any(steps < 0) or np.any((np.diff(columns["start_ns"]) < 0) & (steps == 0)):
        order = np.lexsort((columns["start_ns"], columns["repetition"]))
        columns = {name: values[order] for name, values in columns.items()}
    numbers, firsts = np.unique(columns["repetition"], return_index=True)
    parts = [np.split(columns[name], firsts[1:]) for name in ("phase", "start_ns", "latency_ns")]
    return tuple(RepetitionSamples(int(number), *part) for number, *part in zip(numbers, *parts, strict=False))


def _ops(database: reader.Database, session: str, trial: str) -> tuple[OpRow, ...]:
    query = (
        'SELECT "index", op_type, name, unit, time_ns, count FROM ops WHERE session = $1 AND trial = $2 AND repetition '
        '= (SELECT min(repetition) FROM ops WHERE session = $1 AND trial = $2) ORDER BY "index"'
    )
    return tuple(OpRow(**row) for row in database.rows(query, [session, trial]))


def _telemetry(database: reader.Database, session: str) -> tuple[TelemetrySeries, ...]:
    from socbench.store.rows import telemetry_series

    devices = database.rows("SELECT DISTINCT device FROM telemetry WHERE session = ? ORDER BY device", [session])
    return tuple(series for row in devices for series in telemetry_series(database, session, row["device"]))
