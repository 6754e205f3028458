"""The fetcher of vendors' libraries: hashes, archives of each kind, and what a hostile archive cannot do."""

from __future__ import annotations

import functools
import http.server
import io
import json
import struct
import tarfile
import threading
import zipfile

import pytest
from socbench.environments import vendor
from socbench.errors import EnvironmentsError, UsageError


def library(machine: int = 183, wide: bool = True) -> bytes:
    return b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + b"\0" * 9 + struct.pack("<HH", 3, machine) + b"code"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """A real HTTP server on a folder; returns the folder and its address."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def aar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive(**changes) -> vendor.Archive:
    members = {
        "id": "lib",
        "runtime": "litert",
        "version": "1.2.3",
        "source": "maven:org.example:lib:1.2.3",
        "sha256": None,
        "licence": "MIT",
        "standard": True,
        "files": {"android-arm64": {"libx.so": "jni/arm64-v8a/libx.so"}},
    }
    return vendor.Archive(**{**members, **changes})


def serve(monkeypatch, server, data: bytes):
    folder, address = server
    path = folder / "org/example/lib/1.2.3/lib-1.2.3.aar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    monkeypatch.setattr(vendor, "_MAVEN_CENTRAL", address)
    return path


def test_the_lock_file_names_what_it_knows_of_every_archive():
    archives = vendor.lock()
    assert len({one.id for one in archives}) == len(archives)
    assert {"android-arm64", "android-armv7", "android-x86_64", "linux-arm64"} <= set(vendor.platforms())
    for one in archives:
        assert one.licence
        assert one.sha256 is None or len(bytes.fromhex(one.sha256)) == 32
        assert one.url is None or one.url.startswith("https://")
    urls = {one.id: one.url for one in archives}
    assert urls["tensorflow-lite"] == (
        "https://repo1.maven.org/maven2/org/tensorflow/tensorflow-lite/2.17.0/tensorflow-lite-2.17.0.aar"
    )
    assert str(urls["litert"]).startswith("https://dl.google.com/android/maven2/com/google/ai/edge/litert/litert/")


def test_an_unverified_hash_is_told_and_recorded_and_holds_from_then_on(monkeypatch, server, cache):
    serve(monkeypatch, server, aar({"jni/arm64-v8a/libx.so": library()}))
    said: list[str] = []
    folder = vendor.fetch("android-arm64", archives=[archive()], say=said.append)
    assert (folder / "libx.so").read_bytes() == library()
    assert (folder / "litert.version").read_text() == "1.2.3\n"
    assert any("recorded; nobody verified it" in line for line in said)
    (digest,) = json.loads((cache / "vendor" / "recorded.json").read_text()).values()
    assert any(digest in line for line in said)
    assert vendor.library_folder("android-arm64") == folder
    for kept in (cache / "vendor" / "archives").iterdir():
        kept.unlink()
    serve(monkeypatch, server, aar({"jni/arm64-v8a/libx.so": library() + b"changed"}))
    with pytest.raises(EnvironmentsError, match="an earlier fetch says"):
        vendor.fetch("android-arm64", archives=[archive()])
    assert (folder / "libx.so").read_bytes() == library(), "what was there stays"


def test_a_hash_of_the_lock_file_must_be_met(monkeypatch, server):
    serve(monkeypatch, server, aar({"jni/arm64-v8a/libx.so": library()}))
    with pytest.raises(EnvironmentsError, match="the lock file says"):
        vendor.fetch("android-arm64", archives=[archive(sha256="0" * 64)])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"jni/arm64-v8a/other.so": library()}, "holds no jni/arm64-v8a/libx.so"),
        ({"jni/arm64-v8a/libx.so": library(62)}, "is no library for android-arm64"),
        ({"jni/arm64-v8a/libx.so": library(40, wide=False)}, "is no library for android-arm64"),
        ({"jni/arm64-v8a/libx.so": b"text"}, "is no library for android-arm64"),
    ],
)
def test_an_archive_with_something_else_in_it_is_refused(monkeypatch, server, members, words):
    serve(monkeypatch, server, aar(members))
    with pytest.raises(EnvironmentsError, match=words):
        vendor.fetch("android-arm64", archives=[archive()])


def test_what_cannot_be_fetched_says_where_and_how_to_go_on(monkeypatch):
    monkeypatch.setattr(vendor, "_MAVEN_CENTRAL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentsError, match="cannot be fetched"):
        vendor.fetch("android-arm64", archives=[archive()])
    with pytest.raises(EnvironmentsError, match="--from FILE"):
        vendor.fetch("android-arm64", archives=[archive(), archive(id="two")])
    with pytest.raises(UsageError, match="no runtimes for 'windows'"):
        vendor.fetch("windows")
    with pytest.raises(UsageError, match="no archive 'three'"):
        vendor.fetch("android-arm64", only=["three"], archives=[archive()])


def test_a_local_file_is_taken_by_its_name_or_for_its_libraries(tmp_path):
    path = tmp_path / "lib-1.2.3.aar"
    path.write_bytes(aar({"jni/arm64-v8a/libx.so": library()}))
    folder = vendor.fetch("android-arm64", local=[path], archives=[archive()])
    assert (folder / "litert.version").exists()
    other = tmp_path / "mine.zip"
    hostile = {
        "jni/arm64-v8a/liby.so": library(),
        "../../arm64-v8a/../liby2.so": library(),
        "x/arm64-v8a/..so": library(),
    }
    other.write_bytes(aar({name: data for name, data in hostile.items() if not name.endswith("/..so")}))
    vendor.fetch("android-arm64", local=[other], archives=[archive()])
    assert sorted(item.name for item in folder.iterdir()) == ["libx.so", "liby.so", "liby2.so", "litert.version"]
    assert not (folder.parent / "liby2.so").exists()
    other.write_bytes(aar({"x/arm64-v8a/..so": library()}))
    with pytest.raises(EnvironmentsError, match="name of a library"):
        vendor.fetch("android-arm64", local=[other], archives=[archive()])
    other.write_bytes(b"neither")
    with pytest.raises(UsageError, match="neither a zip file"):
        vendor.fetch("android-arm64", local=[other], archives=[archive()])


def test_an_npm_package_is_read_too(tmp_path):
    path = tmp_path / "lib-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as package:
        entry = tarfile.TarInfo("package/lib/arm64-v8a/libx.so")
        entry.size = len(library())
        package.addfile(entry, io.BytesIO(library()))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(link)
    one = archive(
        source="npm:lib:1.0.0",
        files={"android-arm64": {"libx.so": "package/lib/arm64-v8a/libx.so", "liblink.so": "package/link"}},
    )
    with pytest.raises(EnvironmentsError, match="is no library"):
        vendor.fetch("android-arm64", local=[path], archives=[one])
    one = archive(source="npm:lib:1.0.0", files={"android-arm64": {"libx.so": "package/lib/arm64-v8a/libx.so"}})
    assert (vendor.fetch("android-arm64", local=[path], archives=[one]) / "libx.so").read_bytes() == library()
