"""Every file of the zoo is made from what the registries give and answers as its card promises (needs the network)."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from socbench.analysis.accuracy import accuracy
from socbench.analysis.fidelity import compare_outputs
from socbench.models import cards, data, inputs, reference, reference_runners, suites, variants
from socbench.models.facts import model_facts
from socbench.models.sources import own_file
from socbench.records import Device, Variant
from socbench.session.models import truth_of

pytestmark = pytest.mark.runtimes
MODELS = suites.load_suite("mobile").models
HOST = ("onnx", "tflite", "openvino")
ACCURACY = {  # lowest value of the fp32 file on the card's labelled data
    "mobilenet_v2": 0.70,
    "efficientnet_lite0": 0.80,
    "ppocr_v4_rec": 0.99,
    "span_x2": 30.0,
    "basic_pitch": 1.0,
    "magika": 0.9,
    "minilm_l6_v2": 0.725,
}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache that is filled once; ``SOCBENCH_ZOO_CACHE`` names one that is kept from run to run."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SOCBENCH_CACHE", os.environ.get("SOCBENCH_ZOO_CACHE") or str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def this_machine() -> Device:
    """This machine as far as the choice of an int8 recipe goes."""
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    return Device("local", "key", "name", abi=platform.machine(), cpu_features=tuple(flags))


def answers(variant: Variant, given: list[inputs.InputData], folder: Path) -> dict[str, Any]:
    """Run a file on inputs the plainest way and return its raw outputs."""
    arrays = {item.name: np.frombuffer(item.data, item.dtype).reshape(item.count, *item.shape) for item in given}
    np.savez(folder / "in.npz", **arrays)
    names = reference_runners.run(variant.format, str(variant.path), str(folder / "in.npz"), str(folder / "out.npz"))
    with np.load(folder / "out.npz") as stored:
        return {name: stored[str(place)] for place, name in enumerate(names["outputs"])}


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_is_made_and_answers_within_the_cards_tolerance(name: str, tmp_path: Path) -> None:
    card = cards.load_card(name)
    expected = reference.reference_outputs(card)
    for variant in variants.pick_recipe(this_machine(), variants.variants_of(card)):
        if variant.format not in HOST:
            continue
        built = variants.build(card, variant)
        given = inputs.probe_inputs(card, built)
        found = inputs.to_reference(answers(built, given, tmp_path), built, card)
        tolerance = {key: value for key, value in vars_of(card, variant.precision).items() if value is not None}
        both = [([values[key].ravel().astype(np.float64) for key in expected]) for values in (found, expected)]
        judged = compare_outputs(both[0], both[1], given[0].count, tolerance)
        assert judged.within_tolerance, f"{name} {variant.variant}: {judged}"


def vars_of(card: cards.Card, precision: str) -> dict[str, Any]:
    tolerance = card.tolerance[precision]  # type: ignore[index]
    return {field: getattr(tolerance, field) for field in tolerance.__struct_fields__}


@pytest.mark.parametrize("name", [name for name in MODELS if name in ACCURACY])
def test_the_fp32_file_is_as_accurate_as_it_is_known_to_be(name: str, tmp_path: Path) -> None:
    card = cards.load_card(name)
    dataset = data.evaluation(card)
    assert dataset is not None
    variant = next(item for item in variants.variants_of(card) if item.variant == "onnx-fp32")
    built = variants.build(card, variant)
    made = inputs.to_reference(answers(built, inputs.dataset_inputs(card, built, dataset), tmp_path), built, card)
    outputs = [values.ravel().astype(np.float64) for values in made.values()]
    found = accuracy(outputs, truth_of(card, dataset), dataset.targets)
    assert found.value >= ACCURACY[name] - 1e-9
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", MODELS)
def test_a_card_is_in_order_with_its_data_and_says_the_facts_of_its_file(name: str) -> None:
    assert cards.check_card(name, fetch=True) == []
    card = cards.load_card(name)
    form = card.reference.format
    facts = model_facts(own_file(card, form))
    assert card.parameters == pytest.approx(facts.parameters, rel=0.001)
    assert card.multiply_adds == facts.multiply_adds


@pytest.mark.parametrize("name", MODELS)
def test_what_a_card_leaves_out_has_a_reason_in_words(name: str) -> None:
    card = cards.load_card(name)
    for form, reasons in card.left_out.items():
        for precision, reason in reasons.items():
            assert len(reason.split()) > 5
            planned = [
                item for item in variants.variants_of(card) if (item.format, item.precision) == (form, precision)
            ]
            assert planned == []
