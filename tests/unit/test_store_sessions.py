"""Sessions in the store: written, sealed, found, damaged, too new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from socbench.errors import SelectorError, StoreError
from socbench.store import events, reader
from socbench.store.schema import TABLES, from_rows
from socbench.store.writer import SessionWriter

from tests.support.scripted_session import Script, document, plan, simple_session, write_session


def two_trials() -> Script:
    script = Script()
    script.repetition("t001", 1, [100, 200, 300])
    script.repetition("t002", 1, [7, 9])
    return script


def samples(folder: Path) -> list[dict[str, object]]:
    with reader.connect([folder]) as database:
        return database.rows("SELECT * FROM samples ORDER BY trial, start_ns")


def test_an_open_session_reads_the_same_before_and_after_sealing(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "s-01", [plan(), plan("t002")], two_trials(), seal=False)
    before = samples(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["journal", "lock", "parts", "session.json"]
    with SessionWriter.open(folder) as writer:
        writer.seal("complete")
    assert samples(folder) == before
    assert [row["latency_ns"] for row in before] == [5000, 100, 200, 300, 5000, 7, 9]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{t}.parquet" for t in TABLES), "session.json"])
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())


def test_a_part_written_again_replaces_what_was_there(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "s-01", [plan(), plan("t002")], two_trials(), seal=False)
    again = Script()
    again.repetition("t001", 1, [1, 2])
    with SessionWriter.open(folder) as writer:
        assert writer.parts() == {"t001", "t002"}
        writer.write_part("t001", events.trial_tables(plan(), again.events, raw=again.raw.get))
        writer.seal("complete")
        writer.seal("complete")
    assert [row["latency_ns"] for row in samples(folder)] == [5000, 1, 2, 5000, 7, 9]


def test_a_part_without_its_trials_table_is_not_complete(tmp_path: Path) -> None:
    with SessionWriter.create(tmp_path, document("s-01")) as writer:
        writer.write_part("t001", {"samples": from_rows("samples", [{"trial": "t001", "latency_ns": 1}])})
        writer.write_part("device:adb:1/2", {"telemetry": from_rows("telemetry", [{"device": "adb:1/2"}])})
        assert writer.parts() == set()
        assert {path.name for path in (writer.folder / "parts").iterdir()} == {
            "t001.samples.parquet",
            "device%3Aadb%3A1%2F2.telemetry.parquet",
        }


def test_two_writers_cannot_have_one_session(tmp_path: Path) -> None:
    writer = SessionWriter.create(tmp_path, document("s-01"))
    with pytest.raises(StoreError, match="session s-01 is being written by another process"):
        SessionWriter.open(writer.folder)
    assert reader.read_document(writer.folder)["status"] == "running"
    writer.close()
    assert reader.read_document(writer.folder)["status"] == "interrupted"
    SessionWriter.open(writer.folder).close()
    with pytest.raises(StoreError, match="session s-01 exists already"):
        SessionWriter.create(tmp_path, document("s-01"))


def test_a_killed_writer_leaves_an_interrupted_session_that_can_go_on(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, signal\n"
        "from tests.support.scripted_session import *\n"
        "w = SessionWriter.create(pathlib.Path(sys.argv[1]), document('s-01'))\n"
        "s = Script(); s.repetition('t001', 1, [5])\n"
        "w.write_part('t001', events.trial_tables(plan(), s.events, raw=s.raw.get))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "harness"), str(root)])}
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert ended.returncode == -9
    folder = reader.resolve(tmp_path)
    assert reader.read_document(folder)["status"] == "interrupted"
    with SessionWriter.open(folder) as writer:
        assert writer.parts() == {"t001"}
        writer.seal("interrupted")
    assert [row["latency_ns"] for row in samples(folder)] == [5000, 5]


def test_a_sealed_session_is_never_opened_for_writing(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "s-01", [plan()], two_trials())
    with pytest.raises(StoreError, match="session s-01 is sealed and never changes"):
        SessionWriter.open(folder)


@pytest.mark.parametrize("session", ["../x", "a/b", "", ".hidden", "a b"])
def test_an_id_that_is_no_folder_name_is_refused(tmp_path: Path, session: str) -> None:
    with pytest.raises(StoreError, match="cannot be a folder's name"):
        SessionWriter.create(tmp_path, {"session": session, "status": "running"})


def test_an_unwritable_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write .*store/sessions/s-01: Not a directory; free some space"):
        SessionWriter.create(tmp_path / "store", document("s-01"))


def test_the_same_output_is_stored_once_a_session(tmp_path: Path) -> None:
    script = Script()
    for trial in ("t001", "t002"):
        script.repetition(trial, 1, [5], outputs={"y": [1.0, 2.0]})
    folder = write_session(tmp_path, "s-01", [plan(), plan("t002")], script)
    with reader.connect([folder]) as database:
        rows = database.rows("SELECT trial, stage, sha256, data IS NOT NULL AS there FROM outputs")
    assert [(row["trial"], row["stage"], row["there"]) for row in rows] == [
        ("t001", "before", True),
        ("t001", "after", False),
        ("t002", "before", False),
        ("t002", "after", False),
    ]
    assert len({row["sha256"] for row in rows}) == 1


def test_every_file_carries_the_format_version(tmp_path: Path) -> None:
    folder = write_session(tmp_path, "s-01", [plan()], two_trials())
    for table in TABLES:
        assert pq.read_schema(folder / f"{table}.parquet").metadata[b"socbench_format"] == b"1"
    assert json.loads((folder / "session.json").read_text())["format"] == 1


def test_selectors_are_ids_prefixes_labels_and_latest(tmp_path: Path) -> None:
    for session, label in (("20261101-a-02", "main"), ("20261101-b-03", "twice"), ("20261102-01", "twice")):
        simple_session(tmp_path, session, {"litert": [5]}, label=label)
    assert reader.resolve(tmp_path, "20261101-a-02").name == "20261101-a-02"
    assert reader.resolve(tmp_path, "20261102").name == "20261102-01"
    assert reader.resolve(tmp_path, "main").name == "20261101-a-02"
    assert reader.resolve(tmp_path, "latest").name == "20261101-b-03"  # by its start, not by its name
    assert reader.resolve(tmp_path).name == "20261101-b-03"
    assert [path.name[:10] for path in reader.find_sessions(tmp_path)] == ["20261102-0", "20261101-a", "20261101-b"]
    with pytest.raises(SelectorError, match=r"label 'twice' fits 2 sessions \(20261102-01, 20261101-b-03\)"):
        reader.resolve(tmp_path, "twice")
    with pytest.raises(SelectorError, match=r"prefix '20261101' fits 2 sessions"):
        reader.resolve(tmp_path, "20261101")
    with pytest.raises(SelectorError, match=r"no session, prefix or label 'x' in .*; the last are 20261102-01"):
        reader.resolve(tmp_path, "x")
    with pytest.raises(SelectorError, match="measure something first: socbench run"):
        reader.resolve(tmp_path / "nothing")


def test_a_newer_session_is_refused_by_name(tmp_path: Path) -> None:
    folder = simple_session(tmp_path, "s-01", {"litert": [5]})
    path = folder / "session.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match=r"session s-01 has format 2 and this socbench reads up to 1; update socbench"):
        reader.connect([folder])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}', '{"format": true}', "[" * 100_000])
def test_a_damaged_session_json_is_named(tmp_path: Path, text: str) -> None:
    folder = simple_session(tmp_path, "s-01", {"litert": [5]})
    (folder / "session.json").chmod(0o644)
    (folder / "session.json").write_text(text)
    with pytest.raises(StoreError, match=r"s-01/session.json is damaged"):
        reader.read_document(folder)


def test_a_truncated_table_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    good = simple_session(tmp_path, "s-01", {"litert": [5]})
    bad = simple_session(tmp_path, "s-02", {"litert": [7]})
    path = bad / "samples.parquet"
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[: len(data) // 2])
    with reader.connect([good, bad]) as database:
        assert len(database.warnings) == 1
        assert str(path) in database.warnings[0]
        assert "is damaged and was skipped" in database.warnings[0]
        assert database.rows("SELECT session, count(*) AS n FROM samples GROUP BY ALL") == [
            {"session": "s-01", "n": 61}
        ]
        assert database.rows("SELECT count(*) AS n FROM trials") == [{"n": 2}]


def test_damage_inside_a_table_is_found_when_it_is_read(tmp_path: Path) -> None:
    good = simple_session(tmp_path, "s-01", {"litert": [5]})
    bad = simple_session(tmp_path, "s-02", {"litert": [7]})
    path = bad / "samples.parquet"
    data = bytearray(path.read_bytes())
    first = pq.ParquetFile(path).metadata.row_group(0).column(3)
    at = first.data_page_offset
    data[at : at + first.total_compressed_size] = b"\xff" * first.total_compressed_size
    path.chmod(0o644)
    path.write_bytes(data)
    with reader.connect([good, bad]) as database:
        assert database.warnings == []
        rows = database.rows("SELECT session, max(start_ns) > 0 AS any FROM samples GROUP BY ALL")
        assert rows == [{"session": "s-01", "any": True}]
        assert [str(path) in text for text in database.warnings] == [True]


def test_a_table_of_a_newer_format_is_skipped_and_named(tmp_path: Path) -> None:
    folder = simple_session(tmp_path, "s-01", {"litert": [5]})
    table = pq.read_table(folder / "ops.parquet").replace_schema_metadata({b"socbench_format": b"9"})
    (folder / "ops.parquet").unlink()
    pq.write_table(table, folder / "ops.parquet")
    with reader.connect([folder]) as database:
        assert "has format 9, newer than this socbench reads; skipped" in database.warnings[0]


def test_nothing_outside_the_sessions_can_be_read_or_written(tmp_path: Path) -> None:
    folder = simple_session(tmp_path / "it's [a] *store?", "s-01", {"litert": [5]})
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nx\n")
    with reader.connect([folder]) as database:
        assert database.sql("SELECT latency_p50_ns FROM results")["latency_p50_ns"].tolist() == [5.0]
        inside = str(folder).replace("'", "''")
        for query in (
            f"SELECT * FROM read_csv('{secret}')",
            f"SELECT * FROM read_text('{inside}/../../../secret.csv')",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM '/etc/passwd'",
        ):
            with pytest.raises(StoreError, match="the query failed"):
                database.sql(query)
        for query in (
            f"COPY (SELECT 1) TO '{inside}/x.csv'",
            "CREATE TABLE x AS SELECT 1",
            "SET enable_external_access = true",
            "SELECT 1; SELECT 2",
            "DROP VIEW samples",
            "ATTACH 'x.db'",
            "INSTALL httpfs",
            "",
        ):
            with pytest.raises(SelectorError, match="the store is read-only: give one SELECT"):
                database.sql(query)
        with pytest.raises(SelectorError, match="the query is no SQL"):
            database.sql("SELEC 1")
    assert not (folder / "x.csv").exists()
