"""Labels, removal, archives: what leads out of an archive never leaves it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from socbench.errors import SelectorError, StoreError, UsageError
from socbench.store import manage, reader
from socbench.store.writer import SessionWriter

from tests.support.scripted_session import document, simple_session


def medians(folder: Path) -> list[float]:
    with reader.connect([folder]) as database:
        return [row["latency_p50_ns"] for row in database.rows("SELECT latency_p50_ns FROM results")]


def test_the_default_store_is_the_variable_or_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_STORE", "/tmp/some/store")
    assert manage.default_store() == Path("/tmp/some/store")
    monkeypatch.delenv("SOCBENCH_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", "/tmp/data")
    assert manage.default_store() == Path("/tmp/data/socbench")


def test_a_label_can_be_given_moved_and_taken_away(tmp_path: Path) -> None:
    simple_session(tmp_path, "s-01", {"litert": [5]})
    assert manage.label(tmp_path, "latest", "before") == "s-01"
    assert reader.resolve(tmp_path, "before").name == "s-01"
    manage.label(tmp_path, "before", None)
    with pytest.raises(SelectorError):
        reader.resolve(tmp_path, "before")
    for word in ("latest", " "):
        with pytest.raises(UsageError, match="cannot be a label"):
            manage.label(tmp_path, "s-01", word)


def test_a_running_session_is_only_removed_by_force(tmp_path: Path) -> None:
    with SessionWriter.create(tmp_path, document("s-01")):
        with pytest.raises(StoreError, match="session s-01 is running; wait for its end or remove it with --force"):
            manage.remove(tmp_path, "s-01")
        with pytest.raises(StoreError, match="session s-01 is running"):
            manage.seal(tmp_path, "s-01")
        assert manage.remove(tmp_path, "s-01", force=True) == "s-01"
    assert list((tmp_path / "sessions").iterdir()) == []


def test_a_detached_session_counts_as_running_without_its_host(tmp_path: Path) -> None:
    SessionWriter.create(tmp_path, document("s-01", detached=True)).close()
    with pytest.raises(StoreError, match="session s-01 is running"):
        manage.remove(tmp_path, "s-01")


def test_an_interrupted_session_is_sealed_as_it_is(tmp_path: Path) -> None:
    folder = simple_session(tmp_path, "s-01", {"litert": [5]}, seal=False)
    assert manage.seal(tmp_path, "s-01") == "s-01"
    assert reader.read_document(folder)["status"] == "interrupted"
    assert not (folder / "parts").exists()
    assert medians(folder) == [5.0]


@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tgz"])
def test_what_is_exported_comes_back_the_same(tmp_path: Path, name: str) -> None:
    for session in ("s-01", "s-02"):
        simple_session(tmp_path / "one", session, {"litert": [5, 6], "onnxruntime": [7]})
    assert manage.export(tmp_path / "one", ["s-01", "latest"], tmp_path / name) == ["s-01", "s-02"]
    assert manage.import_archive(tmp_path / "two", tmp_path / name) == ["s-01", "s-02"]
    assert manage.import_archive(tmp_path / "two", tmp_path / name) == []
    for session in ("s-01", "s-02"):
        one, two = (tmp_path / store / "sessions" / session for store in ("one", "two"))
        assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}
    assert sorted(path.name for path in (tmp_path / "two" / "sessions").iterdir()) == ["s-01", "s-02"]


def test_an_unfinished_session_is_imported_as_such(tmp_path: Path) -> None:
    simple_session(tmp_path / "one", "s-01", {"litert": [5]}, seal=False)
    manage.export(tmp_path / "one", ["s-01"], tmp_path / "x.zip")
    manage.import_archive(tmp_path / "two", tmp_path / "x.zip")
    folder = reader.resolve(tmp_path / "two")
    assert reader.read_document(folder)["status"] == "imported"
    assert medians(folder) == [5.0]


def test_merging_takes_what_is_not_there_yet(tmp_path: Path) -> None:
    simple_session(tmp_path / "one", "s-01", {"litert": [5]}, label="mine")
    simple_session(tmp_path / "two", "s-01", {"litert": [99]})
    simple_session(tmp_path / "two", "s-02", {"litert": [7]})
    assert manage.merge(tmp_path / "one", tmp_path / "two") == ["s-02"]
    assert [medians(folder) for folder in reader.find_sessions(tmp_path / "one")] == [[5.0], [7.0]]
    with pytest.raises(UsageError, match="is no results store"):
        manage.merge(tmp_path / "one", tmp_path / "three")


def test_an_unknown_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot export to 'x.rar'; its ending must be one of .zip, .tar"):
        manage.export(tmp_path, ["latest"], tmp_path / "x.rar")


SESSION = json.dumps({"format": 1, "session": "s-01", "status": "complete"}).encode()
ESCAPES = ["../evil", "/evil", "s-01/../../evil", "s-01\\..\\..\\evil", "C:evil", "s-01/a\0b"]


@pytest.mark.parametrize("name", ESCAPES[:-1])
def test_a_zip_cannot_write_outside_the_store(tmp_path: Path, name: str) -> None:
    source = tmp_path / "x.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("s-01/session.json", SESSION)
        archive.writestr(zipfile.ZipInfo(name), b"evil")
    with pytest.raises(StoreError, match="leads out of the archive; not imported"):
        manage.import_archive(tmp_path / "store", source)
    assert list((tmp_path / "store" / "sessions").iterdir()) == []
    assert [path.name for path in tmp_path.rglob("*evil*")] == []


@pytest.mark.parametrize("name", ESCAPES[:-1])
def test_a_tar_cannot_write_outside_the_store(tmp_path: Path, name: str) -> None:
    source = tmp_path / "x.tar"
    with tarfile.open(source, "w") as archive:
        for path, data in (("s-01/session.json", SESSION), (name, b"evil")):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(StoreError, match="leads out of the archive; not imported"):
        manage.import_archive(tmp_path / "store", source)
    assert [path.name for path in tmp_path.rglob("*evil*")] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = tmp_path / "x.tar"
    with tarfile.open(source, "w") as archive:
        member = tarfile.TarInfo("s-01/samples.parquet")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(StoreError, match=r"'s-01/samples\.parquet', which is no plain file; not imported"):
        manage.import_archive(tmp_path / "store", source)


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    with zipfile.ZipFile(source, "w") as archive:
        entry = zipfile.ZipInfo("s-01/samples.parquet")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(StoreError, match="which is no plain file"):
        manage.import_archive(tmp_path / "store", source)


def test_an_archive_that_unpacks_to_too_much_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manage, "IMPORT_LIMIT_BYTES", 3 << 20)
    source = tmp_path / "bomb.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s-01/samples.parquet", bytes(8 << 20))
    with pytest.raises(StoreError, match="unpacks to over"):
        manage.import_archive(tmp_path / "store", source)
    assert list((tmp_path / "store" / "sessions").iterdir()) == []


def test_an_archive_of_too_many_files_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manage, "IMPORT_LIMIT_FILES", 3)
    source = tmp_path / "many.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(4):
            archive.writestr(f"s-01/{number}", b"")
    with pytest.raises(StoreError, match="holds over 3 files"):
        manage.import_archive(tmp_path / "store", source)


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "x.zip"
    source.write_bytes(data)
    with pytest.raises(StoreError, match=r"x.zip is damaged or no archive"):
        manage.import_archive(tmp_path / "store", source)


def test_a_missing_archive_and_one_without_sessions_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give the path of an exported archive"):
        manage.import_archive(tmp_path / "store", tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", b"")
    with pytest.raises(StoreError, match="holds no session"):
        manage.import_archive(tmp_path / "store", tmp_path / "x.zip")


def test_a_session_that_names_itself_after_a_path_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/session.json", json.dumps({"format": 1, "session": "../../evil", "status": "complete"}))
    with pytest.raises(StoreError, match="that cannot be a folder; not imported"):
        manage.import_archive(tmp_path / "store", tmp_path / "x.zip")
    assert list((tmp_path / "store" / "sessions").iterdir()) == []
