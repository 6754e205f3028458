"""The shipped models: their cards are right, their data are apart, their files compute what their cards promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from socbench.models import cards, data, inputs, reference_runners, variants
from socbench.models.facts import model_facts

SHIPPED = ("efficientnet_lite0", "resnet8")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("SOCBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_has_no_problem_and_its_data_are_disjoint(name: str) -> None:
    assert cards.check_card(name, fetch=True) == []
    card = cards.load_card(name)
    tested, measured = data.evaluation(card), data.calibration(card)
    assert tested is not None
    assert measured is not None
    assert not set(tested.sha256) & set(measured.sha256)
    assert (tested.skipped, measured.skipped) == ((), ())
    assert len(set(tested.sha256)) == tested.count == {"resnet8": 2000, "efficientnet_lite0": 50}[name]


@pytest.mark.parametrize("name", SHIPPED)
def test_both_source_files_hold_the_same_network(name: str) -> None:
    card = cards.load_card(name)
    first, second = (model_facts(card.folder / card.files[form].path) for form in ("onnx", "tflite"))
    assert (first.parameters, first.multiply_adds) == (second.parameters, second.multiply_adds)
    assert (first.parameters, first.multiply_adds) == {
        "resnet8": (77418, 9345920),
        "efficientnet_lite0": (4631000, 385187552),
    }[name]


def run(card: cards.Card, name: str, folder: Path) -> np.ndarray:
    """Return the logits of a variant on the whole evaluation data, by its own runtime on this machine."""
    dataset = data.evaluation(card)
    assert dataset is not None
    variant = variants.build(card, next(item for item in variants.variants_of(card) if item.variant == name))
    (given,) = inputs.dataset_inputs(card, variant, dataset)
    array = np.frombuffer(given.data, given.dtype).reshape(given.count, *given.shape)
    np.savez(folder / "in.npz", **{given.name: array})
    (output,) = reference_runners.run(
        variant.format, str(variant.path), str(folder / "in.npz"), str(folder / "out.npz")
    )["outputs"]
    with np.load(folder / "out.npz") as stored:
        return inputs.to_reference({output: stored["0"]}, variant, card)["logits"][:, 0]


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8", "openvino-int8-reduced"])
def test_resnet8_is_as_accurate_as_when_its_files_were_made(name: str, tmp_path: Path) -> None:
    card = cards.load_card("resnet8")
    expected = yaml.safe_load((card.folder / "expected.yaml").read_text())["measured"]
    known, size_bytes = next((item["top1"], item["size_bytes"]) for item in expected if item["variant"] == name)
    built = variants.build(card, next(item for item in variants.variants_of(card) if item.variant == name))
    assert built.size_bytes == size_bytes
    dataset = data.evaluation(card)
    assert dataset is not None
    right = run(card, name, tmp_path).argmax(1) == dataset.labels
    # fp32 gives the same answers everywhere; kernels round int8 differently in a handful of 2000 pictures.
    assert abs(right.mean() - known) <= (0.0 if name == "onnx-fp32" else 0.003)


def test_efficientnet_lite0_names_the_pictures_right(tmp_path: Path) -> None:
    card = cards.load_card("efficientnet_lite0")
    dataset = data.evaluation(card)
    assert dataset is not None
    logits = run(card, "onnx-fp32", tmp_path)
    assert (logits.argmax(1) == dataset.labels).mean() == 0.8
    labels = (card.folder / (card.outputs[0].labels or "")).read_text().splitlines()
    assert labels[0] == "tench"
    assert len(labels) == 1000
