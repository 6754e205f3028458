"""The content folders are found in a checkout, in an editable install and in a wheel."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL_LIMIT_BYTES = 15_000_000
PROBE = (
    "import json, socbench; from socbench.content import content;"
    "print(json.dumps({'file': socbench.__file__, 'version': socbench.__version__,"
    " **{k: str(content(k)) for k in ('models', 'results', 'reports', 'device_agents')}}))"
)


def probe(python: Path | str, cwd: Path, **extra_env: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | extra_env
    done = subprocess.run([str(python), "-c", PROBE], cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True
    )
    (built,) = out.glob("*.whl")
    return built


def test_a_checkout_on_the_path_finds_its_content(tmp_path: Path) -> None:
    found = probe(sys.executable, tmp_path, PYTHONPATH=str(ROOT / "harness"))
    assert found["models"] == str(ROOT / "models")
    assert found["device_agents"] == str(ROOT / "device_agents")


def test_a_hostile_working_directory_does_not_hide_the_content(tmp_path: Path) -> None:
    for name in ("models", "results", "reports", "harness"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported the user's own folder')")
    found = probe(sys.executable, tmp_path, PYTHONPATH=str(ROOT / "harness"))
    assert Path(found["models"]) == ROOT / "models"


def test_the_wheel_carries_the_content_and_stays_small(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "socbench/py.typed",
        "socbench/_content/device_agents/python/agent.py",
        "socbench/_content/models/resnet8/card.yaml",
        "socbench/_content/models/resnet8/resnet8-fp32.onnx",
        "socbench/_content/models/resnet8/resnet8-fp32.tflite",
        "socbench/_content/models/efficientnet_lite0/card.yaml",
        "socbench/_content/models/suites/quick.yaml",
        "socbench/_content/reports/style.css",
    ):
        assert needed in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("models/", "tests/"))]
    assert not [name for name in names if "efficientnet_lite0" in name and name.endswith((".onnx", ".tflite"))]
    assert wheel.stat().st_size <= WHEEL_LIMIT_BYTES


def test_the_wheel_runs_from_another_folder_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    # --system-site-packages would find the editable install; the dependencies are lent by a .pth to this
    # interpreter's site-packages instead, after the wheel's own, and the editable hook is left out.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    import numpy as np

    (site / "zz_dependencies.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = probe(python, elsewhere)
    assert Path(found["file"]).is_relative_to(site)
    assert Path(found["models"]) == site / "socbench" / "_content" / "models"
    listed = subprocess.run(
        [str(python), "-m", "socbench", "models", "list", "--json"],
        cwd=elsewhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"resnet8", "efficientnet_lite0"} <= {row["model"] for row in json.loads(listed.stdout)}


def test_changelog_and_version_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    import socbench

    assert socbench.__version__ == version
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in text or "## [Unreleased]" in text
