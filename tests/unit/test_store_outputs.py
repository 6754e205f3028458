"""Stored outputs: where their bytes are found, and in which order their elements are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from socbench import results
from socbench.store import reader
from socbench.store.output_bytes import OutputBytes
from socbench.store.outputs import _channels_first

from tests.support.scripted_session import Script, plan, write_session

LOGITS = np.float32([[9, 1, 0], [1, 9, 0]])

CARD = {"name": "picture", "shape": [1, 3, 2, 4], "layout": "NCHW"}


def test_a_picture_with_its_channels_last_is_turned_to_the_cards_order() -> None:
    pictures = np.arange(48.0).reshape(2, 3, 2, 4)
    stored = pictures.transpose(0, 2, 3, 1).ravel()
    np.testing.assert_array_equal(_channels_first(stored, [1, 2, 4, 3], CARD), pictures.ravel())


@pytest.mark.parametrize(
    ("shape", "card"),
    [
        ([1, 3, 2, 4], CARD),
        ([3, 2, 4], CARD),
        ([1, 2, 4, 3], {**CARD, "layout": None}),
        ([1, 4, 2, 3], CARD),
        (None, CARD),
        ([1, 2, 4, 3], {}),
    ],
)
def test_what_is_in_order_or_of_another_shape_stays_as_it_is(shape: list[int] | None, card: dict[str, object]) -> None:
    values = np.arange(24.0)
    assert _channels_first(values, shape, card) is values


def _session(store: Path, trials: int = 3) -> Path:
    """Several trials with the same outputs, so that a sealed session has their bytes once."""
    script = Script()
    for number in range(1, trials + 1):
        script.repetition(f"t00{number}", 1, [1000] * 60, outputs={"y": LOGITS}, count=2)
    reference = [("reference:mobiletest", [script.tensor("y", LOGITS, 2)])]
    plans = [plan(f"t00{number}", fidelity_to="reference:mobiletest") for number in range(1, trials + 1)]
    return write_session(store, "s-01", plans, script, references=reference)


def test_bytes_are_found_by_sha256_whichever_row_holds_them_and_each_row_group_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _session(tmp_path)
    reads = []
    once = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, **choices: Any) -> Any:
        reads.extend([group] if "data" in choices["columns"] else [])
        return once(file, group, **choices)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    with reader.connect([folder]) as database:
        known = OutputBytes(database, "s-01")
        held = database.rows("SELECT sha256, data FROM outputs WHERE data IS NOT NULL")
        for _ in range(3):
            assert [bytes(known.get(row["sha256"]) or b"") for row in held] == [row["data"] for row in held]
        assert known.get("0" * 64) is None
    assert len(held) == 1  # the reference's and the trials' outputs are the same
    assert len(reads) == len(set(reads)) > 0
    assert [row.fidelity.cosine for row in results.trial_rows(tmp_path) if row.fidelity] == [1.0, 1.0, 1.0]


def test_damaged_outputs_are_named_and_the_latencies_stay(tmp_path: Path) -> None:
    path = _session(tmp_path) / "outputs.parquet"
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "data")
    at = column.data_page_offset
    data[at : at + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.warns(results.StoreWarning, match=r"outputs.parquet is damaged and was skipped"):
        rows = results.trial_rows(tmp_path)
    assert [(row.latency_p50_ns, row.fidelity) for row in rows] == [(1000.0, None)] * 3
