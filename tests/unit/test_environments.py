"""Environments by name: those of the catalogue, and those of one version of a runtime."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from socbench.environments import install
from socbench.environments.catalogue import catalogue, environment
from socbench.errors import EnvironmentsError, UsageError


@pytest.mark.parametrize(
    ("name", "runtime", "package"),
    [
        ("onnxruntime-1.24.4", "onnxruntime", "onnxruntime==1.24.4"),
        ("onnxruntime==1.24.4", "onnxruntime", "onnxruntime==1.24.4"),
        ("litert-2.1.0rc1", "litert", "ai-edge-litert==2.1.0rc1"),
        ("mnn-3.5.0", "mnn", "MNN==3.5.0"),
    ],
)
def test_an_environment_of_one_version_is_made_from_its_name(name: str, runtime: str, package: str) -> None:
    made = environment(name)
    assert (made.runtime, made.packages[0], made.part_of_all) == (runtime, package, False)
    assert environment(made.name) == made


@pytest.mark.parametrize("name", ["onnxruntime-", "onnxruntime==", "onnxruntime==1 --pre", "pandas==2.0", "mnn-../x"])
def test_what_is_no_version_of_a_runtime_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no environment called"):
        environment(name)


def test_an_installed_version_is_known_beside_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path))
    assert [one.name for one in install.known_environments()] == list(catalogue())
    made = environment("onnxruntime-1.24.4")
    folder = install.folder_of(made)
    folder.mkdir(parents=True)
    assert install.installed() == {}, "half made is not made"
    (folder / install.MARKER).write_text(json.dumps({"size_bytes": 5}))
    other = folder.with_name("onnxruntime-1.24.4-of-another-python")
    other.mkdir()
    (other / install.MARKER).write_text("{}")
    assert install.installed() == {"onnxruntime-1.24.4": folder / "bin" / "python"}
    assert [one.name for one in install.known_environments()] == [*catalogue(), "onnxruntime-1.24.4"]


def test_an_index_that_cannot_be_reached_is_said_and_pips_own_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real virtual environment and a real pip; nothing listens on the port of the index."""
    about = "fake_part-1.0.dist-info"
    folder = tmp_path / "simple" / "fake-part"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text('<a href="fake_part-1.0-py3-none-any.whl">fake_part-1.0-py3-none-any.whl</a>')
    with zipfile.ZipFile(folder / "fake_part-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: fake-part\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    index = {"http://127.0.0.1:9/simple": ("fake-part==1.0",)}
    one = replace(environment("mnn"), name="fake", packages=("fake-part",), index=index, system=(), alone=())
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(EnvironmentsError, match=r"could not install fake-part==1\.0 from .* or from pip's own index"):
        install.install(one, lambda text: None)
    assert install.installed() == {}
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    said: list[str] = []
    python = install.install(one, said.append)
    assert python.exists()
    assert any("127.0.0.1:9/simple gives no fake-part==1.0: trying pip's own index" in text for text in said)
