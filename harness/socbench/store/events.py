"""Turns agent events (docs/protocol.md) into the tables of a session. Pure but for :func:`read_events`.

What a device sends is hostile: every member's type is checked, and what doesn't fit is a ProtocolError that names the
device and the event, never a traceback.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from socbench.devices.program_output import PROGRAMS, StockResult, read_program
from socbench.errors import ProtocolError
from socbench.records import PHASE_FIRST, PHASE_MEASURED, PHASE_WARMUP, Failure, Json, Status, TrialPlan
from socbench.store.members import Event

if TYPE_CHECKING:
    import pyarrow as pa

Raw = Callable[[str], bytes | None]
"""Gives the raw output bytes of a sha256 (from ``journal/``), ``None`` where they were not fetched."""

LINE_LIMIT_BYTES: Final = 256 * 1024 * 1024
_PHASES: Final = {"first": PHASE_FIRST, "warmup": PHASE_WARMUP, "measured": PHASE_MEASURED}
_LOADED_INTEGERS: Final = ("import_ns", "load_ns", "compile_ns", "nodes_total", "nodes_delegated", "partitions")
_LOADED_TEXTS: Final = ("runtime_version", "delegate_effective", "accelerator", "precision_effective")
_LOADED_JSON: Final = ("cores_effective", "inputs", "outputs", "details")
_DONE_INTEGERS: Final = (
    "measured_count",
    "measured_ns",
    "peak_memory_bytes",
    "cpu_ns",
    "voluntary_switches",
    "involuntary_switches",
    "busy_ns",
    "quota_throttled_ns",
    "run_delay_ns",
    "second_load_ns",
)
_TOLD: Final = (
    "runner",
    "count",
    "warmup_mean_ns",
    "mean_ns",
    "minimum_ns",
    "maximum_ns",
    "deviation_ns",
    "accelerator_api",
)
DELEGATIONS: Final = ("full", "partial", "fell_back", "unknown")
EVIDENCES: Final = ("reported", "counted", "inferred", "none")


def read_events(path: Path, device: str) -> Iterator[Json]:
    """Yield the events of a journal file, one JSON object a line; a last line without its newline is not yet one.

    Raises ProtocolError naming device and line when a line is no JSON object.
    """
    import msgspec

    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LINE_LIMIT_BYTES):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) >= LINE_LIMIT_BYTES:
                    raise ProtocolError(f"device {device} sent line {number} of over {LINE_LIMIT_BYTES} bytes")
                return
            try:
                event = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ProtocolError(
                    f"device {device} sent line {number} that is no JSON object ({str(error)[:200]}); "
                    "the agent or something between is broken: run `socbench devices setup` and try again"
                ) from error
            yield event


@dataclass
class _Attempt:
    """One try at a repetition, as its events come in."""

    row: dict[str, Any]
    samples: list[tuple[Any, ...]] = field(default_factory=list)
    telemetry: list[Json] = field(default_factory=list)
    ops: list[Json] = field(default_factory=list)
    outputs: list[Json] = field(default_factory=list)
    ended: bool = False
    refused: Failure | None = None


class _Translator:
    """Follows the events of one device and keeps those of one trial."""

    def __init__(self, trial: TrialPlan) -> None:
        self.trial = trial
        self.attempts: dict[int, _Attempt] = {}
        self.power: Json | None = None

    def feed(self, raw_event: Json) -> None:
        event = Event(raw_event, self.trial.device)
        kind = event.text("type")
        if kind == "hello":
            self.power = event.object("power")
            # A new agent: what the one before it left unfinished is void and will be run again.
            self.attempts = {number: attempt for number, attempt in self.attempts.items() if attempt.ended}
            return
        if kind == "clock" and event.integer("gap_ns"):
            self._clock_gap(event)
            return
        if raw_event.get("trial") != self.trial.trial:
            return
        handler = _HANDLERS.get(kind or "")
        if handler is not None:
            handler(event, self._attempt(event, kind or ""))
        if kind == "done":
            self.power = event.object("power") or self.power

    def _attempt(self, event: Event, kind: str) -> _Attempt:
        number = event.integer("repetition", limit=32767)
        if number is None:
            raise event.nonsense("repetition", "has none")
        attempt = self.attempts.get(number)
        if attempt is None or (attempt.ended and kind == "phase"):
            row = {"trial": self.trial.trial, "repetition": number, "status": "interrupted"}
            row["power_before"] = _text(self.power)
            row["started_ns"] = event.integer("t_ns")
            attempt = self.attempts[number] = _Attempt(row)
        return attempt

    def _clock_gap(self, event: Event) -> None:
        """A jump of the device's clock counts against the repetition that was under way."""
        for attempt in self.attempts.values():
            if not attempt.ended:
                attempt.row["clock_jump_ns"] = max(attempt.row.get("clock_jump_ns") or 0, event.integer("gap_ns") or 0)


def _phase(event: Event, attempt: _Attempt) -> None:
    if event.text("phase") == "cool_down" and event.raw.get("detail") is not None:
        attempt.row["cool_down"] = _text(event.raw["detail"])


def _loaded(event: Event, attempt: _Attempt) -> None:
    row = attempt.row
    row.update({name: event.integer(name) for name in _LOADED_INTEGERS})
    row["threads_effective"] = event.integer("threads_effective", limit=2**31 - 1)
    row.update({name: event.text(name) for name in _LOADED_TEXTS})
    row.update({name: _text(event.raw.get(name)) for name in _LOADED_JSON})
    details = event.raw.get("details")
    if isinstance(details, dict) and "program" in details:  # that name is the host's
        row["details"] = _text({name: value for name, value in details.items() if name != "program"})
    row["emulated"] = event.boolean("emulated")
    row["delegation"] = event.choice("delegation", DELEGATIONS) or "unknown"
    row["delegation_evidence"] = event.choice("delegation_evidence", EVIDENCES) or "none"


def _samples(event: Event, attempt: _Attempt) -> None:
    import numpy as np

    phase = _PHASES[event.choice("phase", tuple(_PHASES)) or "measured"]
    latency = event.integers("latency_ns")
    gap = event.integers("gap_ns")
    start = event.integer("start_ns")
    if latency is None or gap is None or start is None or len(gap) != len(latency):
        raise event.nonsense("latency_ns", "and gap_ns are not two lists of one length with a start_ns")
    if not len(latency):
        return
    starts = np.empty(len(latency), np.int64)
    starts[0] = start
    np.cumsum(latency[:-1] + gap[1:], out=starts[1:])
    starts[1:] += start
    late = event.integers("late_ns")
    if late is not None and len(late) != len(latency):
        raise event.nonsense("late_ns", "is not as long as latency_ns")
    if phase == PHASE_FIRST and attempt.row.get("first_ns") is None:
        attempt.row["first_ns"] = int(latency[0])
    attempt.samples.append((phase, starts, latency, late))


def _warmup(event: Event, attempt: _Attempt) -> None:
    attempt.row.update(
        warmup_count=event.integer("count"),
        warmup_ns=event.integer("duration_ns"),
        warmup_steady=event.boolean("steady"),
    )


def _telemetry(event: Event, attempt: _Attempt) -> None:
    attempt.telemetry.extend(
        {**row, "trial": attempt.row["trial"], "repetition": attempt.row["repetition"]}
        for row in _telemetry_rows(event)
    )


def _telemetry_rows(event: Event) -> list[Json]:
    rows = []
    for row in event.rows("rows", 4, 5):
        item = Event(dict(zip(("t_ns", "kind", "source", "value", "reason"), row, strict=False)), event.device)
        rows.append(
            {
                "device": event.device,
                "t_ns": item.integer("t_ns"),
                "kind": item.text("kind"),
                "source": item.text("source"),
                "value": item.integer("value"),
                "reason": item.text("reason"),
            }
        )
    return rows


def _ops(event: Event, attempt: _Attempt) -> None:
    names = ("index", "op_type", "name", "unit", "time_ns", "count")
    for row in event.rows("rows", 6, 6):
        item = Event(dict(zip(names, row, strict=True)), event.device)
        attempt.ops.append(
            {
                "trial": attempt.row["trial"],
                "repetition": attempt.row["repetition"],
                "index": item.integer("index", limit=2**31 - 1),
                "op_type": item.text("op_type"),
                "name": item.text("name"),
                "unit": item.text("unit"),
                "time_ns": item.integer("time_ns"),
                "count": item.integer("count"),
            }
        )


def _outputs(event: Event, attempt: _Attempt) -> None:
    stage = event.choice("stage", ("before", "after", "dataset"))
    tensors = event.raw.get("tensors")
    if stage is None or not isinstance(tensors, list):
        raise event.nonsense("tensors", "is no list with a stage")
    for index, tensor in enumerate(tensors):
        row = _tensor_row(Event(tensor, event.device), event.integer("count"))
        row.update(trial=attempt.row["trial"], repetition=attempt.row["repetition"], stage=stage, index=index)
        attempt.outputs.append(row)


def _tensor_row(tensor: Event, count: int | None) -> Json:
    shape = tensor.integers("shape")
    sha256 = tensor.text("sha256")
    if sha256 is None or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise tensor.nonsense("sha256", "is no SHA-256 in lower-case hexadecimal")
    return {
        "name": tensor.text("name"),
        "dtype": tensor.text("dtype"),
        "shape": None if shape is None else shape.tolist(),
        "count": count,
        "sha256": sha256,
    }


def program_failure(program: str, exit_code: int | None, result: StockResult) -> Failure | None:
    """Return why a vendor's program gave no result, if so."""
    if result.error is None:
        return None
    code = "crashed" if exit_code is not None and exit_code > 128 else "run_failed"
    return Failure(code, f"{program} failed: {result.error}", "its whole output is in the session's journal")


def read_program_event(event: Event) -> tuple[StockResult, Failure | None]:
    """Return what a ``program`` event says, and why it is a failure, if so."""
    given = event.object("program") or {}
    name = Event(given, event.device).choice("name", PROGRAMS)
    if name is None:
        raise event.nonsense("program", "has no name")
    texts = [event.raw.get("printed"), event.raw.get("results")]
    printed, results = (text if isinstance(text, str) else None for text in texts)
    exit_code = event.integer("exit_code")
    cut = event.boolean("cut") or False
    result = read_program(name, printed or "", results, exit_code=exit_code, cut=cut)
    return result, program_failure(name, exit_code, result)


def _program(event: Event, attempt: _Attempt) -> None:
    """Take what a vendor's program printed; what it did not tell stays unknown."""
    result, attempt.refused = read_program_event(event)
    told = {name: getattr(result, name) for name in _TOLD}
    percentiles = {str(number): value for number, value in result.percentiles_ns.items()}
    argv = (event.object("program") or {}).get("argv")
    program = {"argv": argv, **told, "percentiles_ns": percentiles, "latencies_ns": list(result.latencies_ns)}
    known = result.delegation != "unknown"
    attempt.row.update(
        load_ns=result.init_ns,
        first_ns=result.first_ns,
        measured_count=result.count,
        peak_memory_bytes=result.peak_memory_bytes,
        delegate_effective=result.delegate_effective,
        delegation=result.delegation,
        delegation_evidence=("counted" if result.nodes_total is not None else "reported") if known else "none",
        nodes_total=result.nodes_total,
        nodes_delegated=result.nodes_delegated,
        partitions=result.partitions,
        details=_text({"program": program, "ran_ns": event.integer("ran_ns")}),
    )


def _done(event: Event, attempt: _Attempt) -> None:
    found = {name: event.integer(name) for name in _DONE_INTEGERS}
    attempt.row.update({name: value for name, value in found.items() if value is not None or name not in attempt.row})
    if attempt.refused is not None:
        attempt.row.update(status="failed", error=_text(asdict(attempt.refused)), ended_ns=event.integer("t_ns"))
        attempt.ended = True
        return
    attempt.row.update(
        status="done",
        stopped_by=event.text("stopped_by"),
        power_after=_text(event.object("power")),
        ended_ns=event.integer("t_ns"),
    )
    attempt.ended = True


def _error(event: Event, attempt: _Attempt) -> None:
    failure = Failure(event.text("code") or "run_failed", event.text("message") or "", event.text("advice"))
    interrupted = failure.code in ("stopped", "orphaned", "agent_died")
    attempt.row.update(
        status="interrupted" if interrupted else "failed",
        error=_text(asdict(failure)),
        ended_ns=event.integer("t_ns"),
    )
    attempt.ended = True


_HANDLERS: Final[dict[str, Callable[[Event, _Attempt], None]]] = {
    "phase": _phase,
    "loaded": _loaded,
    "samples": _samples,
    "warmup": _warmup,
    "telemetry": _telemetry,
    "ops": _ops,
    "outputs": _outputs,
    "program": _program,
    "done": _done,
    "error": _error,
}


def trial_tables(
    trial: TrialPlan,
    events: Iterable[Json],
    *,
    raw: Raw,
    planned: int | None = None,
    status: Status | None = None,
    error: Failure | None = None,
) -> dict[str, pa.Table]:
    """Return the six tables of one trial from its device's events (others' events are passed over).

    Of a repetition that was run more than once the last attempt counts (a new ``hello`` voids what was unfinished).
    Status, unless given: ``failed`` when a repetition failed (its error is the trial's), ``interrupted`` when fewer
    than ``planned`` were done, else ``done``. Raises ProtocolError naming the device when an event is nonsense.
    """
    from socbench.store.schema import from_rows

    translator = _Translator(trial)
    for event in events:
        translator.feed(event)
    attempts = [attempt for _, attempt in sorted(translator.attempts.items())]
    found, reason = _outcome(attempts, planned)
    return {
        "trials": from_rows("trials", [_trial_row(trial, status or found, error or reason)]),
        "repetitions": from_rows("repetitions", [attempt.row for attempt in attempts]),
        "samples": _sample_table(trial.trial, attempts),
        "telemetry": from_rows("telemetry", [row for attempt in attempts for row in attempt.telemetry]),
        "ops": from_rows("ops", [row for attempt in attempts for row in attempt.ops]),
        "outputs": _output_table([row for attempt in attempts for row in attempt.outputs], raw),
    }


def _outcome(attempts: list[_Attempt], planned: int | None) -> tuple[Status, Failure | None]:
    for attempt in attempts:
        if attempt.row["status"] == "failed":
            return "failed", Failure(**json.loads(attempt.row["error"]))
    done = sum(attempt.row["status"] == "done" for attempt in attempts)
    if done == 0 or (planned is not None and done < planned) or done < len(attempts):
        return "interrupted", None
    return "done", None


def _trial_row(trial: TrialPlan, status: Status, error: Failure | None) -> Json:
    row = asdict(trial)
    row.update(
        shapes=_text(trial.shapes),
        settings=_text(asdict(trial.settings)),
        status=status,
        error=None if error is None else _text(asdict(error)),
    )
    return row


def _sample_table(trial: str, attempts: list[_Attempt]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from socbench.store.schema import empty, schema

    parts = [(attempt.row["repetition"], *batch) for attempt in attempts for batch in attempt.samples]
    if not parts:
        return empty("samples")
    lengths = [len(latency) for _, _, _, latency, _ in parts]
    total = sum(lengths)
    late = [
        pa.nulls(length, pa.int64()) if values is None else pa.array(values)
        for length, (*_, values) in zip(lengths, parts, strict=True)
    ]
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(total, np.int32)), pa.array([trial])),
        pa.array(np.repeat(np.array([part[0] for part in parts], np.int16), lengths)),
        pa.array(np.repeat(np.array([part[1] for part in parts], np.int8), lengths)),
        pa.array(np.concatenate([part[2] for part in parts])),
        pa.array(np.concatenate([part[3] for part in parts])),
        pa.concat_arrays(late),
    ]
    return pa.table(columns, schema=schema("samples"))


def _output_table(rows: list[Json], raw: Raw) -> pa.Table:
    from socbench.store.schema import from_rows

    seen: set[str] = set()
    for row in rows:
        if row["sha256"] not in seen:
            row["data"] = raw(row["sha256"])
            seen.add(row["sha256"])
    return from_rows("outputs", rows)


def untried_tables(trial: TrialPlan, status: Status, error: Failure | None = None) -> dict[str, pa.Table]:
    """Return the tables of a trial that never ran: excluded (``trial.excluded`` is its error) or interrupted."""
    from socbench.store.schema import from_rows

    return {"trials": from_rows("trials", [_trial_row(trial, status, error or trial.excluded)])}


def device_tables(device: str, events: Iterable[Json]) -> dict[str, pa.Table]:
    """Return the ``telemetry`` between repetitions of one device (rows of no trial); part id ``device:NAME``."""
    from socbench.store.schema import from_rows

    rows: list[Json] = []
    for event in events:
        if event.get("type") == "telemetry" and event.get("trial") is None:
            rows.extend(_telemetry_rows(Event(event, device)))
    return {"telemetry": from_rows("telemetry", rows)}


def reference_tables(references: Iterable[tuple[str, list[Json]]], raw: Raw) -> dict[str, pa.Table]:
    """Return the ``outputs`` rows of references: pairs of ``reference:NAME`` and tensors as in an ``outputs`` event.

    A tensor is ``{"name", "dtype", "shape" (of one), "count", "sha256"}``. Part id ``references``.
    """
    rows = []
    for name, tensors in references:
        for index, tensor in enumerate(tensors):
            row = _tensor_row(Event(tensor, name), tensor.get("count"))
            rows.append({**row, "trial": name, "repetition": 0, "stage": "reference", "index": index})
    return {"outputs": _output_table(rows, raw)}


def clock_pairs(events: Iterable[Json]) -> list[Json]:
    """Return ``{"monotonic_ns", "wall_ns", "gap_ns"}`` of the ``clock`` events, for ``session.json`` ``clocks``."""
    names = ("monotonic_ns", "wall_ns", "gap_ns")
    return [{name: event.get(name) for name in names} for event in events if event.get("type") == "clock"]


def _text(value: object) -> str | None:
    """Return a JSON value as text; NaN has no place in JSON, so it becomes null."""
    if value is None:
        return None
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))
