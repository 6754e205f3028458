"""Environments by name: those of the catalogue, and those of one version of a runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from socbench.environments import install
from socbench.environments.catalogue import catalogue, environment
from socbench.errors import UsageError


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
