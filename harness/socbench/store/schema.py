"""PyArrow schemas of docs/results-format.md. Imported late: PyArrow is heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from socbench.records import FORMAT_VERSION

FORMAT_KEY: Final = b"socbench_format"
"""Key of the format version in the metadata of every Parquet file."""

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_TYPES: Final = {
    "text": pa.string(),
    "name": _DICTIONARY,
    "i8": pa.int8(),
    "i16": pa.int16(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "bool": pa.bool_(),
    "ints": pa.list_(pa.int64()),
    "bytes": pa.large_binary(),
}
_COLUMNS: Final = {
    "trials": "trial:text device:text model:text variant:text recipe:text format:text precision:text size_bytes:i64 "
    "model_sha256:text runtime:text delegate:text environment:text threads:i32 cores:text batch:i32 shapes:text "
    "scenario:text fidelity_to:text ab_arm:text settings:text status:text error:text",
    "repetitions": "trial:text repetition:i16 status:text error:text started_ns:i64 ended_ns:i64 import_ns:i64 "
    "load_ns:i64 compile_ns:i64 first_ns:i64 warmup_count:i64 warmup_ns:i64 warmup_steady:bool measured_count:i64 "
    "measured_ns:i64 stopped_by:text peak_memory_bytes:i64 cpu_ns:i64 voluntary_switches:i64 "
    "involuntary_switches:i64 busy_ns:i64 quota_throttled_ns:i64 run_delay_ns:i64 second_load_ns:i64 "
    "runtime_version:text "
    "delegate_effective:text accelerator:text emulated:bool delegation:text delegation_evidence:text nodes_total:i64 "
    "nodes_delegated:i64 partitions:i64 precision_effective:text threads_effective:i32 cores_effective:text "
    "inputs:text outputs:text details:text power_before:text power_after:text cool_down:text clock_jump_ns:i64",
    "samples": "trial:name repetition:i16 phase:i8 start_ns:i64 latency_ns:i64 late_ns:i64",
    "telemetry": "device:name trial:name repetition:i16 t_ns:i64 kind:name source:name value:i64 reason:text",
    "ops": "trial:text repetition:i16 index:i32 op_type:text name:text unit:text time_ns:i64 count:i64",
    "outputs": "trial:text repetition:i16 stage:text index:i32 name:text dtype:text shape:ints count:i64 sha256:text "
    "data:bytes",
}
TABLES: Final = tuple(_COLUMNS)
ADDED: Final = {"repetitions": frozenset({"run_delay_ns", "second_load_ns"})}
"""Columns that files of format 1 may lack, because they came later; they read as null."""


def schema(table: str) -> pa.Schema:
    """Return the schema of ``table`` with the format version in its metadata."""
    fields = [pa.field(name, _TYPES[kind]) for name, kind in (c.split(":") for c in _COLUMNS[table].split())]
    return pa.schema(fields, metadata={FORMAT_KEY: str(FORMAT_VERSION).encode()})


def from_rows(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table; absent members become null."""
    wanted = schema(table)
    columns = list(rows)
    return pa.table(
        [pa.array([row.get(field.name) for row in columns], type=field.type) for field in wanted], schema=wanted
    )


def empty(table: str) -> pa.Table:
    """Return ``table`` without rows."""
    return schema(table).empty_table()
