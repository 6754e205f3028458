"""Builds the rows of ``results trials``: facts from the store, statements from ``analysis``."""

from __future__ import annotations

import json
import re
import statistics as plain
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from socbench.analysis import accuracy as metrics
from socbench.analysis import cooling, statistics, verdicts
from socbench.records import Device, Failure, Json, TelemetrySeries, TrialRow
from socbench.store.outputs import Outputs
from socbench.store.reader import Database, read_document
from socbench.store.thermal import sustained_of

_DELEGATION_ORDER = ("fell_back", "partial", "unknown", "full")
_DONE_FACTS = tuple(verdicts.RepetitionFacts.__dataclass_fields__)


def trial_rows_of(database: Database, folder: Path, *, latency_only: bool = False) -> list[TrialRow]:
    """Return the rows of one session of the database, by trial id. ``latency_only`` leaves out all but key and p50."""
    return _Session(database, folder, latency_only=latency_only).rows()


def devices_of(document: Json) -> tuple[Device, ...]:
    """Return the devices of a session; entries that make no sense are left out."""
    found = []
    for entry in document.get("devices") or []:
        try:
            found.append(msgspec.convert(entry, Device))
        except msgspec.ValidationError:
            continue
    return tuple(found)


def parsed(text: str | None) -> Any:
    """Return JSON text of the store as a value; ``None`` for null and for what is no JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def failure_of(text: str | None) -> Failure | None:
    """Return the failure in a column ``error``."""
    value = parsed(text)
    if not isinstance(value, dict):
        return None
    advice = value.get("advice")
    return Failure(str(value.get("code")), str(value.get("message")), None if advice is None else str(advice))


_BLOB = re.compile(r"[0-9a-f]{64}(?:\.\w+)+")


def _readable(failure: Failure | None, trial: Json) -> Failure | None:
    """Return what a device said of a trial with the model's name for its file, which is called by its hash there."""
    if failure is None:
        return None
    message = _BLOB.sub(f"{trial['model']} {trial['variant']}", failure.message)
    return replace(failure, message=message.removeprefix(f"{trial['trial']} "))


class _Told(msgspec.Struct):
    """``details.program`` of a repetition: what a vendor's program said of itself."""

    runner: str | None = None
    count: int | None = None
    mean_ns: int | None = None
    percentiles_ns: dict[str, int | None] = {}
    latencies_ns: list[int] = []

    def median_ns(self) -> float | None:
        """The median of the latencies where all were told, else the one that was told."""
        found = plain.median(self.latencies_ns) if self.latencies_ns else self.percentiles_ns.get("50")
        return None if found is None else float(found)


class _Session:
    """What is read once for all rows of a session."""

    def __init__(self, database: Database, folder: Path, *, latency_only: bool) -> None:
        self.database = database
        self.session = folder.name
        self.document = read_document(folder)
        self.latency_only = latency_only
        self.devices = {device.device: device for device in devices_of(self.document)}
        self.trials = self._query("SELECT * FROM trials WHERE session = ? ORDER BY trial")
        self.repetitions = self._repetitions()
        self.medians = self._query("SELECT * FROM repetition_latency WHERE session = ? ORDER BY trial, repetition")
        self.tails = (
            {}
            if latency_only
            else {row["trial"]: row for row in self._query("SELECT * FROM trial_latency WHERE session = ?")}
        )
        self.outputs = None if latency_only else Outputs(database, self.session, self.document)
        self.accuracies = {} if latency_only else self._accuracies()
        self.heat = {} if latency_only else self._heat()
        self.temperature_seen = {} if latency_only else self._temperature_seen()

    def _query(self, query: str) -> list[Json]:
        return self.database.rows(query, [self.session])

    def _repetitions(self) -> dict[str, dict[int, Json]]:
        found: dict[str, dict[int, Json]] = {}
        for row in self._query("SELECT * FROM repetitions WHERE session = ? AND status = 'done' ORDER BY repetition"):
            found.setdefault(row["trial"], {})[row["repetition"]] = row
        return found

    def _accuracies(self) -> dict[tuple[str, ...], metrics.Accuracy]:
        assert self.outputs is not None
        found = {}
        for trial in self.trials:
            if trial["scenario"] == "accuracy" and trial["status"] == "done":
                one = self.outputs.accuracy_of(trial, self.repetitions.get(trial["trial"], {}))
                if one is not None:
                    found[_accuracy_key(trial)] = one
        return found

    def rows(self) -> list[TrialRow]:
        """Return all rows."""
        return [self._row(trial) for trial in self.trials]

    def _row(self, trial: Json) -> TrialRow:
        done = self.repetitions.get(trial["trial"], {})
        row = self._facts(trial, list(done.values()))
        if trial["status"] in ("done", "interrupted") and trial["scenario"] != "accuracy":
            row = self._with_latency(row)
        if self.latency_only:
            return row
        row = self._with_answers(row, trial, done)
        if row.scenario == "sustained":
            row, arrays = self._lasting(row, trial, done)
        else:
            arrays = self._arrays(trial["trial"]) if row.latency_p50_ns is not None else {}
        found = verdicts.verdict(self._verdict_facts(row, trial, done, arrays))
        return row if found is None else replace(row, verdict=found.verdict, reasons=found.reasons)

    def _facts(self, trial: Json, done: list[Json]) -> TrialRow:
        worst = min(done, key=lambda one: _DELEGATION_ORDER.index(one["delegation"] or "unknown"), default={})
        device = self.devices.get(trial["device"])
        memory = [one["peak_memory_bytes"] for one in done if one["peak_memory_bytes"] is not None]
        shapes = parsed(trial["shapes"]) or {}
        taken: dict[str, Any] = {name: trial[name] for name in _TAKEN.split()}
        taken.update(dict.fromkeys(_UNKNOWN.split()))
        return TrialRow(
            **taken,
            session=self.session,
            soc=device.soc if device else None,
            runtime_version=worst.get("runtime_version"),
            delegate_effective=worst.get("delegate_effective"),
            accelerator=worst.get("accelerator"),
            delegation=worst.get("delegation") or "unknown",
            delegation_evidence=worst.get("delegation_evidence") or "none",
            nodes_total=worst.get("nodes_total"),
            nodes_delegated=worst.get("nodes_delegated"),
            partitions=worst.get("partitions"),
            precision_effective=worst.get("precision_effective"),
            threads_effective=worst.get("threads_effective"),
            shapes={str(name): tuple(shape) for name, shape in shapes.items()},
            error=_readable(failure_of(trial["error"]), trial),
            verdict=None,
            reasons=(),
            repetitions=len(done),
            samples=0,
            first_ns=_median(one["first_ns"] for one in done),
            load_ns=_median(one["load_ns"] for one in done),
            import_ns=_median(one["import_ns"] for one in done),
            peak_memory_bytes=max(memory, default=None),
            os_build=device.os_build if device else None,
            device_name=device.name if device else trial["device"],
            device_key=device.key if device else trial["device"],
            device_emulated=device.emulated if device else False,
            label=self.document.get("label"),
            started=str(self.document.get("started") or ""),
            socbench_version=self.document.get("socbench_version"),
            settings=parsed(trial["settings"]) or {},
            power_source=next((source for one in done if isinstance(source := _power(one).get("source"), str)), None),
        )

    def _with_latency(self, row: TrialRow) -> TrialRow:
        medians = [one for one in self.medians if one["trial"] == row.trial]
        centre = statistics.centre([one["latency_p50_ns"] for one in medians])
        if centre is None:
            return _as_told(row, self.repetitions.get(row.trial, {}))
        tail = self.tails.get(row.trial, {})
        return replace(
            row,
            samples=sum(one["samples"] for one in medians),
            latency_p50_ns=centre.value,
            latency_p50_low_ns=centre.low,
            latency_p50_high_ns=centre.high,
            latency_p90_ns=tail.get("latency_p90_ns"),
            latency_p99_ns=tail.get("latency_p99_ns"),
            latency_mean_ns=sum(float(one["total_ns"]) for one in medians) / sum(one["samples"] for one in medians),
            repetition_medians_ns=tuple(float(one["latency_p50_ns"]) for one in medians),
            repetition_numbers=tuple(int(one["repetition"]) for one in medians),
        )

    def _with_answers(self, row: TrialRow, trial: Json, done: Mapping[int, Json]) -> TrialRow:
        assert self.outputs is not None
        row = replace(row, fidelity=self.outputs.fidelity_of(trial, done))
        found = self.accuracies.get(_accuracy_key(trial))
        if found is None:
            return row
        row = replace(
            row,
            accuracy=found.value,
            accuracy_low=found.low,
            accuracy_high=found.high,
            accuracy_metric=found.metric,
            accuracy_count=found.count,
        )
        base = self._fp32(trial)
        delta = None if base is None or base is found else metrics.paired_difference(base, found)
        if delta is None:
            return row
        return replace(row, accuracy_delta=delta.value, accuracy_delta_low=delta.low, accuracy_delta_high=delta.high)

    def _fp32(self, trial: Json) -> metrics.Accuracy | None:
        """Return the accuracy of the fp32 row of the same runtime: on the same delegate, else on a CPU one."""
        near = [
            other
            for other in self.trials
            if other["precision"] == "fp32"
            and all(other[name] == trial[name] for name in ("device", "model", "runtime", "environment"))
            and _accuracy_key(other) in self.accuracies
        ]
        same = [other for other in near if other["delegate"] == trial["delegate"]]
        cpu = [other for other in near if other["delegate"].startswith("cpu")]
        chosen = next(iter(same or cpu), None)
        return None if chosen is None else self.accuracies[_accuracy_key(chosen)]

    def _arrays(self, trial: str) -> dict[int, tuple[Any, Any]]:
        """Return ``{repetition: (start_ns, latency_ns)}`` of the measured samples of finished repetitions."""
        import numpy as np

        query = (
            "SELECT repetition, start_ns, latency_ns FROM samples WHERE session = ? AND trial = ? AND phase = 2 "
            "ORDER BY repetition, start_ns"
        )
        columns = self.database.arrays(query, [self.session, trial])
        numbers, firsts = np.unique(columns["repetition"], return_index=True)
        starts, latencies = (np.split(columns[name], firsts[1:]) for name in ("start_ns", "latency_ns"))
        return {
            int(number): (starts[place], latencies[place])
            for place, number in enumerate(numbers)
            if int(number) in self.repetitions.get(trial, {})
        }

    def _lasting(
        self, row: TrialRow, trial: Json, done: Mapping[int, Json]
    ) -> tuple[TrialRow, dict[int, tuple[Any, Any]]]:
        """Return a sustained row with its analysis; one that was cut has the latency of what was measured."""
        import numpy as np

        found = sustained_of(
            self.database,
            self.session,
            trial,
            lambda from_ns, to_ns: telemetry_series(self.database, self.session, row.device, from_ns, to_ns),
        )
        if found is None:
            return row, {}
        row = replace(row, thermal=found.thermal)
        if row.latency_p50_ns is None:
            centre = float(np.median(found.latency_ns))
            row = replace(row, samples=len(found.latency_ns), latency_p50_ns=centre, repetition_medians_ns=(centre,))
        return row, dict.fromkeys(list(done)[:1], (found.start_ns, found.latency_ns))

    def _verdict_facts(
        self, row: TrialRow, trial: Json, done: Mapping[int, Json], arrays: Mapping[int, tuple[Any, Any]]
    ) -> verdicts.TrialFacts:
        device = self.devices.get(row.device)
        return verdicts.TrialFacts(
            status=row.status,
            scenario=row.scenario,
            device=row.device,
            delegate=row.delegate,
            precision=row.precision,
            threads=row.threads,
            repetitions=tuple(_repetition_facts(one, arrays.get(number)) for number, one in done.items()),
            device_cores=sum(len(cluster.cpus) for cluster in device.cores) or None if device else None,
            device_emulated=row.device_emulated,
            min_count=row.settings.get("min_count"),
            busy_cores=row.settings.get("busy_cores"),
            program=row.program,
            fidelity=row.fidelity,
            temperature_seen=self.temperature_seen.get(row.device),
            **self.heat.get(row.trial, {}),
        )

    def _heat(self) -> dict[str, Json]:
        """Return by trial what telemetry says of caps and thermal status while it was measured."""
        query = """
            WITH timed AS (
                SELECT unnest($2::TEXT[]) AS trial, unnest($3::BIGINT[]) AS repetition,
                       unnest($4::BIGINT[]) AS start_ns, unnest($5::BIGINT[]) AS end_ns),
            during AS (
                SELECT trial, telemetry.device, kind, source, value
                FROM telemetry JOIN timed USING (trial, repetition)
                WHERE telemetry.session = $1 AND t_ns BETWEEN start_ns AND end_ns),
            highest AS (
                SELECT device, source, max(value) AS highest FROM telemetry
                WHERE session = $1 AND kind IN ('clock_cap_khz', 'gpu_clock_cap_khz') GROUP BY ALL),
            caps AS (
                SELECT trial, source, min(value / highest) AS share FROM during JOIN highest USING (device, source)
                WHERE kind IN ('clock_cap_khz', 'gpu_clock_cap_khz') AND highest > 0 GROUP BY ALL)
            SELECT trial, min(share) AS lowest_cap, arg_min(source, share) AS capped_source,
                   max(value) AS highest_thermal_status
            FROM (SELECT trial, source, share, NULL AS value FROM caps
                  UNION ALL SELECT trial, NULL, NULL, value FROM during WHERE kind = 'thermal_status')
            GROUP BY trial
        """
        spans = [[row[name] for row in self.medians] for name in ("trial", "repetition", "start_ns", "end_ns")]
        return {row.pop("trial"): row for row in self.database.rows(query, [self.session, *spans])}

    def _temperature_seen(self) -> dict[str, bool]:
        """Return by device whether any temperature could be read; a device that never tried is not in there.

        What can't be a temperature (0, -274, 128 degrees) is none.
        """
        query = (
            "SELECT device, bool_or(coalesce(value <> 0 AND value > ? AND value < ?, false)) AS seen FROM telemetry "
            "WHERE session = ? AND kind = 'temperature_milli_c' GROUP BY device"
        )
        limits = [cooling.COLDEST_MILLI_C, cooling.HOTTEST_MILLI_C]
        return {row["device"]: row["seen"] for row in self.database.rows(query, [*limits, self.session])}


_TAKEN = (
    "trial device model variant recipe format size_bytes runtime environment delegate precision threads cores batch "
    "scenario status model_sha256 ab_arm"
)
_UNKNOWN = (
    "latency_p50_ns latency_p50_low_ns latency_p50_high_ns latency_p90_ns latency_p99_ns accuracy accuracy_low "
    "accuracy_high accuracy_metric accuracy_count accuracy_delta accuracy_delta_low accuracy_delta_high fidelity"
)


def _as_told(row: TrialRow, done: Mapping[int, Json]) -> TrialRow:
    """Return a row that a vendor's program measured: its median where it told one, a mean is never taken for one.

    Where it told every latency the medians are taken from those; they have no start times, so they are no samples.
    """
    told = {number: found for number, one in done.items() if (found := _told(one)) is not None}
    if not told:
        return row
    means = [(one.mean_ns, one.count or 1) for one in told.values() if one.mean_ns is not None]
    runs = sum(count for _, count in means)
    row = replace(
        row,
        program=next(iter(told.values())).runner,
        samples=sum(one.count or 0 for one in told.values()),
        latency_mean_ns=sum(mean * count for mean, count in means) / runs if runs else None,
    )
    medians = [median for one in told.values() if (median := one.median_ns()) is not None]
    centre = statistics.centre(medians) if len(medians) == len(told) else None
    if centre is None:
        return row
    return replace(
        row,
        latency_p50_ns=centre.value,
        latency_p50_low_ns=centre.low,
        latency_p50_high_ns=centre.high,
        repetition_medians_ns=tuple(medians),
        repetition_numbers=tuple(told),
    )


def _told(repetition: Json) -> _Told | None:
    try:
        return msgspec.convert(_object(repetition["details"]).get("program"), _Told)
    except msgspec.ValidationError:
        return None


def _accuracy_key(trial: Json) -> tuple[str, ...]:
    """Return what joins accuracy to latency within one session."""
    return tuple(str(trial[name]) for name in ("device", "environment", "model", "variant", "runtime", "delegate"))


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(plain.median(known)) if known else None


def _power(repetition: Json) -> Json:
    return _object(repetition["power_before"])


def _object(text: str | None) -> Json:
    value = parsed(text)
    return value if isinstance(value, dict) else {}


def _repetition_facts(row: Json, arrays: tuple[Any, Any] | None) -> verdicts.RepetitionFacts:
    facts = {name: row[name] for name in _DONE_FACTS if name in row}
    for name in ("power_before", "power_after", "cool_down", "details"):
        facts[name] = _object(row[name])
    return verdicts.RepetitionFacts(**facts, shape=None if arrays is None else statistics.shape(arrays[1]))


def telemetry_series(
    database: Database, session: str, device: str, from_ns: int | None = None, to_ns: int | None = None
) -> tuple[TelemetrySeries, ...]:
    """Return the readable sensors of a device, each in time order; from and to are inclusive."""
    import numpy as np

    query = (
        "SELECT kind, source, t_ns, value FROM telemetry WHERE session = ? AND device = ? AND value IS NOT NULL "
        "AND t_ns BETWEEN coalesce(?, t_ns) AND coalesce(?, t_ns) ORDER BY kind, source, t_ns"
    )
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in database.rows(query, [session, device, from_ns, to_ns]):
        found.setdefault((row["kind"], row["source"]), []).append((row["t_ns"], row["value"]))
    series = []
    for (kind, source), points in found.items():
        t_ns, value = cast(Any, np.array(points, np.int64)).T
        series.append(TelemetrySeries(device, kind, source, t_ns.copy(), value.copy()))
    return tuple(series)
