from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_network
from socbench.errors import FailedError, ModelError
from socbench.models import cards, child, data, inputs, reference_runners, variants
from socbench.models.inspect import inspect_file
from socbench.records import Device, Variant

ALL = [
    "tflite-fp32",
    "tflite-fp16",
    "tflite-int8",
    "tflite-int8_dynamic",
    "onnx-fp32",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-reduced",
    "openvino-fp32",
    "openvino-fp16",
    "openvino-int8",
    "openvino-int8-reduced",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model ``tiny`` and a cache that all tests of this file fill."""
    folder = tmp_path_factory.mktemp("variants")
    tiny_network.write_model(folder / "models" / "tiny")
    return folder


@pytest.fixture
def card(place: Path, monkeypatch: pytest.MonkeyPatch) -> cards.Card:
    monkeypatch.setenv("SOCBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(place / "config"))
    monkeypatch.setattr(cards, "content", lambda kind: place / kind)
    return cards.load_card("tiny")


def variant_of(card: cards.Card, name: str) -> Variant:
    return next(variant for variant in variants.variants_of(card) if variant.variant == name)


def no_converters(*_: Any, **__: Any) -> dict[str, Any]:
    raise AssertionError("a converter was started")


def answers(card: cards.Card, variant: Variant, folder: Path) -> Any:
    """Run a file on the probe inputs by its own runtime, unoptimised, and return ``(count, 5)``."""
    made = inputs.probe_inputs(card, variant)
    arrays = {item.name: np.frombuffer(item.data, item.dtype).reshape(item.count, *item.shape) for item in made}
    np.savez(folder / "in.npz", **arrays)
    names = reference_runners.run(variant.format, str(variant.path), str(folder / "in.npz"), str(folder / "out.npz"))[
        "outputs"
    ]
    with np.load(folder / "out.npz") as stored:
        raw = {name: stored[str(index)] for index, name in enumerate(names)}
    return inputs.to_reference(raw, variant, card)["logits"][:, 0]


def test_the_card_gives_every_variant_and_int8_in_two_recipes(card: cards.Card) -> None:
    found = variants.variants_of(card)
    assert [variant.variant for variant in found] == ALL
    assert {variant.variant for variant in found if variant.recipe == "reduced"} == {
        "onnx-int8-reduced",
        "openvino-int8-reduced",
    }
    own = variant_of(card, "onnx-fp32")
    assert own.path == str(card.folder / "tiny.onnx")
    assert own.sha256 == card.files["onnx"].sha256


@pytest.mark.parametrize(
    ("name", "precision", "scheme", "within"),
    [
        ("tflite-fp32", "fp32", None, 1e-6),
        ("tflite-fp16", "fp16", None, 1e-3),
        ("tflite-int8", "int8", "per_channel", 0.02),
        ("tflite-int8_dynamic", "int8_dynamic", "per_channel", 0.02),
        ("onnx-fp32", "fp32", None, 1e-6),
        ("onnx-fp16", "fp16", None, 1e-3),
        ("onnx-int8", "int8", "per_channel", 0.02),
        ("onnx-int8-reduced", "int8", "per_channel", 0.02),
        ("openvino-fp32", "fp32", None, 1e-6),
        ("openvino-fp16", "fp16", None, 1e-3),
        # Not the plain recipe: on a CPU without VNNI its own arithmetic is wrong by more than this.
        ("openvino-int8-reduced", "int8", "per_channel", 0.02),
    ],
)
def test_every_variant_is_what_it_is_called_and_computes_the_network(
    card: cards.Card, tmp_path: Path, name: str, precision: str, scheme: str | None, within: float
) -> None:
    built = variants.build(card, variant_of(card, name))
    assert built.path is not None
    facts = inspect_file(Path(built.path))
    assert (facts.precision, facts.quant_scheme) == (precision, scheme)
    assert (facts.parameters, facts.multiply_adds) == (tiny_network.PARAMETERS, tiny_network.MULTIPLY_ADDS)
    assert built.inputs[0].layout == ("NHWC" if built.format == "tflite" else "NCHW")
    assert built.size_bytes == sum(Path(item).stat().st_size for item in (built.path, *built.companions))
    probe = data.calibration(card)
    assert probe is not None
    expected = tiny_network.forward(probe.inputs[:4])
    made = answers(card, built, tmp_path)
    assert np.abs(made - expected).max() <= within * np.abs(expected).max()
    if precision != "fp32":
        assert np.abs(made - expected).max() > 1e-6, "nothing was lost, so nothing was converted"


def test_a_second_build_does_no_work(card: cards.Card, monkeypatch: pytest.MonkeyPatch) -> None:
    first = variants.build(card, variant_of(card, "onnx-int8"))
    monkeypatch.setattr(child, "call", no_converters)
    assert variants.build(card, replace(first, path=None)) == first
    assert variant_of(card, "onnx-int8") == first


def test_the_same_sources_give_the_same_bytes_in_another_folder(
    card: cards.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("tflite-int8", "openvino-int8", "openvino-fp16")
    first = {name: variants.build(card, variant_of(card, name)).sha256 for name in names}
    shutil.copytree(card.folder, tmp_path / "elsewhere" / "models" / "tiny")
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / "elsewhere" / kind)
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "another cache"))
    other = cards.load_card("tiny")
    assert variant_of(other, "tflite-int8").path is None
    assert {name: variants.build(other, variant_of(other, name)).sha256 for name in names} == first


def test_other_calibration_pictures_give_another_file(
    card: cards.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = variants.build(card, variant_of(card, "onnx-int8"))
    shutil.copytree(card.folder, tmp_path / "models" / "tiny")
    pictures = np.full((32, 16, 16, 3), 9, np.uint8)
    tiny_network.write_idx(tmp_path / "models" / "tiny" / "pictures.gz", pictures)
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    other = variants.build(cards.load_card("tiny"), replace(first, path=None))
    assert other.path != first.path
    assert other.sha256 != first.sha256


def test_a_damaged_cache_is_made_again(card: cards.Card) -> None:
    built = variants.build(card, variant_of(card, "onnx-fp16"))
    assert built.path is not None
    path = Path(built.path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x00")
    assert variants.build(card, variant_of(card, "onnx-fp16")).sha256 == built.sha256
    assert path.read_bytes() == whole
    path.unlink()
    assert variant_of(card, "onnx-fp16").path is None
    assert variants.build(card, variant_of(card, "onnx-fp16")) == built


def test_a_cache_that_was_moved_still_serves(card: cards.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = variants.build(card, variant_of(card, "openvino-fp16"))
    shutil.copytree(os.environ["SOCBENCH_CACHE"], tmp_path / "moved")
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "moved"))
    monkeypatch.setattr(child, "call", no_converters)
    found = variants.build(card, replace(built, path=None, companions=()))
    assert found.sha256 == built.sha256
    assert str(found.path).startswith(str(tmp_path / "moved"))
    assert all(item.startswith(str(tmp_path / "moved")) for item in found.companions)


def test_progress_says_what_is_made(card: cards.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path))
    said: list[str] = []
    variants.build(card, variant_of(card, "onnx-fp16"), progress=said.append)
    assert said == ["making onnx-fp16 of tiny"]


def test_a_source_that_is_not_the_one_of_the_card_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "models" / "tiny", tmp_path / "models" / "tiny")
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    card = cards.load_card("tiny")
    tiny_network.write_onnx(card.folder / "tiny.onnx", batch=1)
    with pytest.raises(ModelError, match=r"tiny\.onnx is not the file that its card means"):
        variants.build(card, variant_of(card, "onnx-fp16"))
    (card.folder / "tiny.onnx").unlink()
    with pytest.raises(ModelError, match=r"the file tiny\.onnx is not in "):
        variants.build(card, variant_of(card, "onnx-fp16"))


def test_an_operation_that_a_converter_does_not_know_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    import onnx
    import yaml

    folder = tmp_path / "models" / "tiny"
    shutil.copytree(place / "models" / "tiny", folder)
    model = onnx.load(folder / "tiny.onnx")
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Frobnicate", "example"
    model.opset_import.add(domain="example", version=1)
    onnx.save(model, folder / "tiny.onnx")
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["files"]["onnx"]["sha256"] = hashlib.sha256((folder / "tiny.onnx").read_bytes()).hexdigest()
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    loaded = cards.load_card("tiny")
    for name in ("onnx-int8", "openvino-fp32"):
        with pytest.raises(FailedError) as caught:
            variants.build(loaded, variant_of(loaded, name))
        assert str(caught.value).startswith(f"making {name} of tiny failed: ")
        assert "Frobnicate" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "cache" / "variants").iterdir()] == []


def test_a_file_that_came_out_as_another_precision_is_refused(
    card: cards.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(task: str, arguments: dict[str, Any], *, what: str) -> dict[str, Any]:
        shutil.copyfile(arguments["source"], arguments["target"])
        return {}

    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(child, "call", copy)
    with pytest.raises(FailedError, match="onnx-fp16 of tiny came out as fp32"):
        variants.build(card, variant_of(card, "onnx-fp16"))
    assert list((tmp_path / "variants").iterdir()) == []


def test_a_format_without_a_converter_says_so(card: cards.Card) -> None:
    with pytest.raises(ModelError, match="null-fp32 of tiny cannot be made: there is no converter to null"):
        variants.build(card, Variant("tiny", "null-fp32", "null", "fp32"))


def test_a_missing_tool_is_named_with_the_command(card: cards.Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(variants.TOOLS, "tflite", ("no-such-quantizer",))
    with pytest.raises(FailedError, match=r"no-such-quantizer not installed.*pip install 'socbench\[local\]'"):
        variants.build(card, variant_of(card, "tflite-int8_dynamic"))


def test_a_converter_that_crashes_is_a_failure_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr("socbench.models.child._argv", lambda task: [sys.executable, "-c", crash])
    with pytest.raises(FailedError, match=r"^making it failed: the converter died of SIGSEGV$"):
        child.call("onnx", {}, what="making it")


def test_a_converter_that_hangs_is_stopped_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = "import time; time.sleep(600)"
    monkeypatch.setattr("socbench.models.child._argv", lambda task: [sys.executable, "-c", sleep])
    with pytest.raises(FailedError, match="making it did not end within 1 s and was stopped"):
        child.call("onnx", {}, what="making it", deadline_s=1.0)


def device(abi: str | None, *features: str) -> Device:
    return Device("local", "k", "n", abi=abi, cpu_features=features)


@pytest.mark.parametrize(
    ("on", "recipe"),
    [
        (device("x86_64", "avx2"), "reduced"),
        (device("x86_64", "avx2", "avx512f"), "reduced"),
        (device("x86_64", "avx2", "avx512_vnni"), None),
        (device("x86_64", "avx2", "avx_vnni"), None),
        (device("AMD64", "AMX_INT8"), None),
        (device("x86_64"), "reduced"),
        (device("aarch64", "asimddp"), None),
        (device("arm64-v8a"), None),
        (device("armv7l"), None),
    ],
)
def test_the_recipe_is_the_one_that_suits_the_cpu(card: cards.Card, on: Device, recipe: str | None) -> None:
    picked = variants.pick_recipe(on, variants.variants_of(card))
    assert len(picked) == len(ALL) - 2
    assert {variant.recipe for variant in picked if variant.precision == "int8" and variant.format != "tflite"} == {
        recipe
    }
    assert variant_of(card, "tflite-int8") in picked
