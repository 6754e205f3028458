"""What the results store costs: writing a million samples, and a percentile over a hundred such sessions.

    python benchmarks/store.py [--sessions 100] [--samples 1000000] [--rounds 5] [--folder DIR]

Writing is compared with ``pyarrow.parquet.write_table`` of the same columns, with PyArrow's defaults and with the
encodings that the store uses; querying with DuckDB over the same rows in one Parquet file. Both sides alternate and
the medians of the rounds count. Prints one JSON object; needs about 5 MB of disk a session.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from socbench.records import TrialPlan
from socbench.store import events, reader
from socbench.store.schema import schema
from socbench.store.writer import SessionWriter, _options

QUERY = (
    "SELECT {group}, quantile_cont(latency_ns, [0.5, 0.9, 0.99]) FROM {source} WHERE phase = 2 "
    "GROUP BY {group} ORDER BY 1"
)


def samples(trial: str, count: int, seed: int) -> pa.Table:
    """A million latencies as a real run has them: log-normal around 1 ms, now and then a spike."""
    random = np.random.default_rng(seed)
    latency = (1e6 * np.exp(0.02 * random.standard_normal(count))).astype(np.int64)
    latency[random.random(count) < 0.002] *= 3
    start = np.cumsum(latency + 700) - latency
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([trial])),
            pa.array((np.arange(count) * 5 // count + 1).astype(np.int16)),
            pa.array(np.full(count, 2, np.int8)),
            pa.array(start),
            pa.array(latency),
            pa.nulls(count, pa.int64()),
        ],
        schema=schema("samples"),
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def write_session(store: Path, session: str, table: pa.Table) -> None:
    """Write one session the way a run does: part, then sealing."""
    trial = TrialPlan("t001", "local", "m", "onnx-fp32", "onnx", "fp32", "onnxruntime", "cpu:mlas")
    document = {"session": session, "status": "running", "started": "2026-11-24T10:00:00Z"}
    with SessionWriter.create(store, document) as writer:
        writer.write_part("t001", {**events.untried_tables(trial, "done"), "samples": table})
        writer.seal("complete")


def writing(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Median seconds of writing one session, of PyArrow alone by its defaults, and with the store's encodings."""
    table = samples("t001", count, 1)
    took: dict[str, list[float]] = {"session_s": [], "pyarrow_s": [], "pyarrow_same_encodings_s": []}
    for number in range(rounds + 1):
        store = folder / f"write-{number}"
        once = {
            "session_s": timed(lambda store=store: write_session(store, "s", table)),
            "pyarrow_s": timed(lambda: pq.write_table(table, folder / "alone.parquet")),
            "pyarrow_same_encodings_s": timed(
                lambda: pq.write_table(table, folder / "alone.parquet", **_options("samples", sealed=True))
            ),
        }
        shutil.rmtree(store)
        if number:  # the first round warms up
            for name, seconds in once.items():
                took[name].append(seconds)
    return {name: statistics.median(values) for name, values in took.items()}


def querying(folder: Path, sessions: int, count: int, rounds: int) -> dict[str, float]:
    """Median seconds of the percentile query over many sessions and over one file of the same rows."""
    store, one = folder / "many", folder / "one.parquet"
    base = samples("t001", count, 2)
    with pq.ParquetWriter(one, schema("samples"), **_options("samples", sealed=True)) as writer:
        for number in range(sessions):
            trial = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([f"t{number:03d}"]))
            table = base.set_column(0, base.schema.field(0), trial)
            write_session(store, f"s-{number:03d}", table)
            writer.write_table(table)
    took: dict[str, list[float]] = {"connect_s": [], "sessions_s": [], "one_file_s": []}
    for number in range(rounds + 1):
        began = time.perf_counter()
        database = reader.connect(reader.find_sessions(store))
        once = {"connect_s": time.perf_counter() - began}
        once["sessions_s"] = timed(
            lambda database=database: database.rows(QUERY.format(group="session", source="samples"))
        )
        database.connection.close()
        alone = duckdb.connect()
        query = QUERY.format(group="trial", source=f"read_parquet('{one}')")
        once["one_file_s"] = timed(lambda alone=alone, query=query: alone.execute(query).fetchall())
        alone.close()
        if number:
            for name, seconds in once.items():
                took[name].append(seconds)
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> int:
    """Run both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: the temporary folder)")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="socbench-store-", dir=chosen.folder))
    try:
        wrote = writing(folder, chosen.samples, chosen.rounds)
        asked = querying(folder, chosen.sessions, chosen.samples, max(2, chosen.rounds // 2))
    finally:
        shutil.rmtree(folder)
    figures = {
        "samples": chosen.samples,
        "sessions": chosen.sessions,
        **wrote,
        "write_ratio": wrote["session_s"] / wrote["pyarrow_s"],
        "write_ratio_same_encodings": wrote["session_s"] / wrote["pyarrow_same_encodings_s"],
        **asked,
        "query_ratio": asked["sessions_s"] / asked["one_file_s"],
        "query_ratio_with_connect": (asked["sessions_s"] + asked["connect_s"]) / asked["one_file_s"],
    }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
