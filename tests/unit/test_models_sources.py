"""Getting weights: packages, addresses, the user's own files, recipes; and everything that can be wrong with them."""

from __future__ import annotations

import hashlib
import http.server
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_network
import yaml
from socbench.environments import install
from socbench.errors import FailedError, ModelError
from socbench.models import cards, check, download, packages, sources, variants
from socbench.records import Variant

ABOUT = {
    "METADATA": b"Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n",
    "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": b"",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content folder, a cache and a folder that pip finds wheels in; no registry can be reached."""
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for module in (cards, check, sources):
        monkeypatch.setattr(module, "content", lambda kind: tmp_path / kind)
    return tmp_path


def wheel(folder: Path, files: dict[str, bytes]) -> tuple[Path, str]:
    path = folder / "tinyweights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, **{f"tinyweights-1.0.dist-info/{n}": text for n, text in ABOUT.items()}}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path, sha256(path.read_bytes())


def packaged_card(home: Path, **changes: Any) -> cards.Card:
    """A model whose ONNX file comes from a wheel, with no file in its folder."""
    tiny_network.write_model(home / "models" / "tiny", licence={"weights": "Apache-2.0", "redistribute": False})
    folder = home / "models" / "tiny"
    weights = (folder / "tiny.onnx").read_bytes()
    (folder / "tiny.onnx").unlink()
    (folder / "tiny.tflite").unlink()
    path, archive = wheel(home, {"tinyweights/net.onnx": weights})
    source = {"package": "pypi:tinyweights==1.0", "archive_sha256": archive, "path": "tinyweights/net.onnx"}
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["files"] = {
        "onnx": {"path": "net.onnx", "sha256": sha256(weights), "source": {**source, "sha256": sha256(weights)}}
    }
    card["variants"] = {"onnx": ["fp32", "fp16", "int8"]}
    for place, value in changes.items():
        card["files"]["onnx"]["source"][place] = value
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    assert path.is_file()
    return cards.load_card("tiny")


def fp32(card: cards.Card) -> Variant:
    return next(item for item in variants.variants_of(card) if item.variant == "onnx-fp32")


def test_a_file_is_fetched_once_and_then_built_without_any_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = packaged_card(home)
    assert fp32(card).path is None
    said: list[str] = []
    built = variants.build(card, fp32(card), progress=said.append)
    assert said == ["fetching pypi:tinyweights==1.0 for tiny"]
    assert built.sha256 == card.files["onnx"].sha256
    assert fp32(card).path == built.path
    (home / "tinyweights-1.0-py3-none-any.whl").unlink()
    monkeypatch.setattr(packages, "_pip_download", None)
    assert variants.build(card, fp32(card), progress=said.append) == built
    assert len(said) == 1
    # The licence forbids handing it on: nothing of it lies in the content folder, and the card is in order.
    assert sorted(path.name for path in card.folder.iterdir()) == ["card.yaml", "labels.gz", "pictures.gz"]
    assert cards.check_card("tiny") == []


def test_a_licence_that_forbids_handing_on_keeps_the_file_out_of_the_repository(home: Path) -> None:
    card = packaged_card(home)
    built = variants.build(card, fp32(card))
    (card.folder / "net.onnx").write_bytes(Path(built.path or "").read_bytes())
    (problem,) = cards.check_card("tiny")
    assert "licence.redistribute is false, so net.onnx (files.onnx) must not lie in the repository; fetch it" in problem


def test_a_member_with_another_hash_is_not_used(home: Path) -> None:
    card = packaged_card(home, sha256="0" * 64)
    with pytest.raises(FailedError, match=r"tinyweights/net\.onnx of pypi:tinyweights==1\.0 has not the sha256 0{64}"):
        variants.build(card, fp32(card))
    assert not list((home / "cache" / "weights").rglob("*.onnx"))


def test_a_member_that_is_not_in_the_archive_is_named(home: Path) -> None:
    card = packaged_card(home, path="tinyweights/other.onnx")
    with pytest.raises(FailedError, match=r"tinyweights-1\.0-py3-none-any\.whl has no file tinyweights/other\.onnx"):
        variants.build(card, fp32(card))


def test_half_a_download_in_the_cache_is_fetched_again(home: Path) -> None:
    card = packaged_card(home)
    variants.build(card, fp32(card))
    archive = str(card.files["onnx"].source.archive_sha256)  # type: ignore[union-attr]
    (kept,) = (home / "cache" / "packages" / archive).iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    (weights,) = (home / "cache" / "weights").rglob("net.onnx")
    weights.write_bytes(b"cut off")
    assert variants.build(card, fp32(card)).sha256 == card.files["onnx"].sha256
    assert kept.read_bytes() == whole


def test_without_a_network_pip_is_quoted_and_nothing_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = packaged_card(home)
    (home / "tinyweights-1.0-py3-none-any.whl").unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pypi.org/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_PROXY", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(FailedError, match=r"tinyweights==1\.0 cannot be fetched: there is no way to the registry"):
        variants.build(card, fp32(card))
    assert list((home / "cache" / "packages").iterdir()) == []


def test_without_a_network_npm_is_quoted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = home / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ECONNREFUSED' >&2\nexit 1\n")  # a fake npm that meets no network
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    with pytest.raises(
        FailedError, match=r"small@1\.0\.0 cannot be fetched: there is no way to the registry .*ECONNREFUSED"
    ):
        packages.archive_of("npm:small@1.0.0", "0" * 64)


def test_without_npm_the_error_says_so_and_how_to_do_without(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(FailedError, match=r"it comes from npm, which is not installed here; .* --from FILE\.tgz"):
        packages.archive_of("npm:small@1.0.0", "0" * 64)


def test_a_tarball_of_npm_with_another_hash_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = home / "npm"  # a fake npm that packs what it was told to, into --pack-destination
    npm.write_text('#!/bin/sh\necho changed > "$4/small-1.0.0.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    with pytest.raises(FailedError, match=r"small@1\.0\.0 cannot be fetched: its archive has not the sha256 0{64}"):
        packages.archive_of("npm:small@1.0.0", "0" * 64)
    fetched = packages.archive_of("npm:small@1.0.0", sha256(b"changed\n"))
    assert fetched.read_bytes() == b"changed\n"


def test_an_archive_that_the_user_has_is_taken_in_place_of_fetching(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = packaged_card(home)
    elsewhere = home / "downloads"
    elsewhere.mkdir()
    (home / "tinyweights-1.0-py3-none-any.whl").rename(elsewhere / "renamed.whl")
    with pytest.raises(FailedError, match="cannot be fetched"):
        variants.build(card, fp32(card))
    (elsewhere / "other.whl").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"other\.whl is none of the files that the card of tiny names"):
        sources.bring(card, elsewhere / "other.whl")
    assert sources.bring(card, elsewhere / "renamed.whl") == "the archive of pypi:tinyweights==1.0"
    assert variants.build(card, fp32(card)).sha256 == card.files["onnx"].sha256


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves ``body``, from an offset where one is asked for; breaks off after ``cut`` bytes the first time."""

    body = b""
    cut: int | None = None
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Ranges.asked.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.body) - begin))
        self.end_headers()
        end, Ranges.cut = Ranges.cut, None
        self.wfile.write(self.body[begin:end])

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        Ranges.body, Ranges.cut, Ranges.asked = bytes(range(256)) * 4096, None, []
        yield f"http://127.0.0.1:{listening.server_port}/net.onnx"
        listening.shutdown()


def test_a_download_that_breaks_off_goes_on_where_it_was(home: Path, server: str) -> None:
    Ranges.cut = 500_000
    path = download.download(server, sha256(Ranges.body))
    assert path.read_bytes() == Ranges.body
    assert Ranges.asked == [None, "bytes=500000-"]
    assert download.download(server, sha256(Ranges.body)) == path
    assert len(Ranges.asked) == 2


def test_a_download_with_another_hash_is_not_kept(home: Path, server: str) -> None:
    with pytest.raises(FailedError, match=rf"{server} has not the sha256 0{{64}} that the card names"):
        download.download(server, "0" * 64)
    assert list((home / "cache" / "downloads").iterdir()) == []


def test_a_download_without_a_network_says_what_to_look_at(home: Path) -> None:
    with pytest.raises(FailedError, match=r"cannot be fetched: .*refused.*is there a network \(or a proxy"):
        download.download(f"http://127.0.0.1:{closed_port()}/net.onnx", "0" * 64)
    with pytest.raises(ModelError, match="is no address that socbench fetches from"):
        download.download("file:///etc/passwd", "0" * 64)


RECIPE = """
import argparse, pathlib, shutil, sys
parser = argparse.ArgumentParser()
parser.add_argument("--weights"), parser.add_argument("--out")
given = parser.parse_args()
with open(pathlib.Path(__file__).parent / "runs.txt", "a") as file:
    file.write("run\\n")
import zipfile
pathlib.Path(given.out, "net.onnx").write_bytes(zipfile.ZipFile(given.weights).read("tinyweights/net.onnx"))
"""


def recipe_card(home: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> cards.Card:
    """A model that its recipe makes; the conversion environment is a fake one, this very Python."""
    card = packaged_card(home)
    loaded = yaml.safe_load((card.folder / "card.yaml").read_text())
    loaded["source"] = loaded["files"]["onnx"].pop("source")
    loaded["recipe"] = "convert.py"
    (card.folder / "card.yaml").write_text(yaml.safe_dump(loaded))
    (card.folder / "convert.py").write_text(recipe)
    monkeypatch.setattr(install, "install", lambda environment, say: Path(sys.executable))
    return cards.load_card("tiny")


def test_a_recipe_is_run_once_on_the_fetched_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = recipe_card(home, monkeypatch, RECIPE)
    assert cards.check_card("tiny") == []
    said: list[str] = []
    built = variants.build(card, fp32(card), progress=said.append)
    assert said[-1] == "converting tiny from its weights (in the environment convert-torch)"
    assert built.sha256 == card.files["onnx"].sha256
    assert variants.build(card, fp32(card)) == built
    assert (card.folder / "runs.txt").read_text() == "run\n"
    # Another recipe gives another file instead of a changed one.
    (card.folder / "convert.py").write_text(RECIPE + "\n# changed\n")
    variants.build(card, fp32(card))
    assert (card.folder / "runs.txt").read_text() == "run\nrun\n"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("raise SystemExit('the layer Quark is not known')", "converting tiny failed: the layer Quark is not known"),
        ("", "converting tiny failed: it did not make net.onnx"),
    ],
)
def test_a_recipe_that_fails_is_quoted_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, said: str
) -> None:
    card = recipe_card(home, monkeypatch, recipe)
    with pytest.raises(FailedError, match=said):
        variants.build(card, fp32(card))
    assert list((home / "cache" / "converted").iterdir()) == []


def test_a_converter_that_does_not_know_an_operation_names_it(home: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    folder = home / "models" / "odd"
    tiny_network.write_model(folder)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 16, 16])
    node = helper.make_node("Quark", ["image"], ["logits"], domain="example.odd")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.odd", 1)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "odd", [image], [logits]), opset_imports=opsets),
        folder / "tiny.onnx",
    )
    (folder / "card.yaml").write_text(yaml.safe_dump(tiny_network.card_of(folder)))
    card = cards.load_card("odd")
    variant = next(item for item in variants.variants_of(card) if item.variant == "openvino-fp32")
    with pytest.raises(FailedError, match=r"making openvino-fp32 of odd failed: .*Quark"):
        variants.build(card, variant)


def test_calibration_pictures_of_the_wrong_size_are_named(home: Path) -> None:
    tiny_network.write_model(home / "models" / "tiny")
    folder = home / "models" / "tiny"
    loaded = yaml.safe_load((folder / "card.yaml").read_text())
    pictures = home / "pictures"
    pictures.mkdir()
    from PIL import Image

    Image.new("RGB", (20, 24)).save(pictures / "one.png")
    loaded["data"]["calibration"] = {"kind": "imagenet_folder", "path": str(pictures)}
    (folder / "card.yaml").write_text(yaml.safe_dump(loaded))
    card = cards.load_card("tiny")
    int8 = next(item for item in variants.variants_of(card) if item.variant == "tflite-int8")
    with pytest.raises(
        ModelError, match=r"one\.png gives \(3, 24, 20\) and the input image takes \(3, 16, 16\); set resize"
    ):
        variants.build(card, int8)


def test_fp32_weights_are_those_that_the_file_stores_as_fp16(home: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from socbench.models.inspect import inspect_file

    tiny_network.write_model(home / "models" / "tiny")
    card = cards.load_card("tiny")
    half = next(item for item in variants.variants_of(card) if item.variant == "tflite-fp16")
    stored = Path(variants.build(card, half).path or "")
    folder = home / "models" / "half"
    folder.mkdir()
    (folder / "half.tflite").write_bytes(stored.read_bytes())
    loaded = yaml.safe_load((card.folder / "card.yaml").read_text())
    loaded |= {"model": "half", "variants": {"tflite": ["fp32", "fp16", "int8_dynamic"]}}
    loaded |= {"files": {"tflite": {"path": "half.tflite", "sha256": sha256(stored.read_bytes()), "precision": "fp16"}}}
    loaded |= {"data": {}, "probe": {"from": "seeded"}, "reference": {"format": "tflite", "runtime": "litert"}}
    (folder / "card.yaml").write_text(yaml.safe_dump(loaded))
    card = cards.load_card("half")
    wide = variants.build(card, next(item for item in variants.variants_of(card) if item.variant == "tflite-fp32"))
    facts = inspect_file(Path(wide.path or ""))
    assert (facts.precision, facts.parameters, facts.ops["DEQUANTIZE"]) == ("fp32", tiny_network.PARAMETERS, 0)

    def answer(path: Path) -> np.ndarray:
        model = Interpreter(model_path=str(path))
        model.allocate_tensors()
        model.set_tensor(model.get_input_details()[0]["index"], np.full((1, 16, 16, 3), 0.5, np.float32))
        model.invoke()
        made: np.ndarray = model.get_tensor(model.get_output_details()[0]["index"])
        return made

    np.testing.assert_allclose(answer(Path(wide.path or "")), answer(stored), rtol=1e-6)
    dynamic = next(item for item in variants.variants_of(card) if item.variant == "tflite-int8_dynamic")
    assert inspect_file(Path(variants.build(card, dynamic).path or "")).precision == "int8_dynamic"
