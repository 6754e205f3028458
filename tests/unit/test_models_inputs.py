from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny_network
from socbench.errors import ModelError
from socbench.models import cards, data, inputs, reference, user, variants
from socbench.records import TensorSpec, Variant


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cards.Card:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))
    tiny_network.write_model(tmp_path / "models" / "tiny")
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    return cards.load_card("tiny")


def own(card: cards.Card, name: str) -> Variant:
    return next(variant for variant in variants.variants_of(card) if variant.variant == name)


def array_of(made: inputs.InputData) -> np.ndarray:
    return np.frombuffer(made.data, made.dtype).reshape(made.count, *made.shape)


def test_seeded_numbers_are_those_of_splitmix64() -> None:
    # The first outputs of SplitMix64 from 1234567, as its author's test vector has them.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    specs = [TensorSpec(kind, kind, (5,)) for kind in ("float32", "uint8", "int8", "int64", "bool")]
    shapes = {spec.name: (5,) for spec in specs}
    made = {spec.name: inputs.seeded_inputs([spec], 1234567, shapes)[spec.name] for spec in specs}
    assert made["float32"].tolist() == [(value >> 40) / 2**23 - 1 for value in known]
    assert made["uint8"].tolist() == [value & 255 for value in known]
    assert made["int8"].tolist() == [(value & 255) - 256 * ((value & 255) > 127) for value in known]
    assert made["int64"].tolist() == [value % 128 for value in known]
    assert made["bool"].tolist() == [bool(value & 1) for value in known]
    assert {name: array.dtype.name for name, array in made.items()} == {name: name for name in made}


def test_each_input_tensor_has_a_seed_of_its_own() -> None:
    specs = [TensorSpec("a", "float32", (4,)), TensorSpec("b", "float32", (4,))]
    made = inputs.seeded_inputs(specs, 9, {"a": (4,), "b": (4,)})
    later = inputs.seeded_inputs(specs[1:], 10, {"b": (4,)})
    assert made["a"].tolist() != made["b"].tolist() == later["b"].tolist()
    assert -1 <= made["a"].min() <= made["a"].max() < 1


def test_a_type_without_seeded_values_is_an_error() -> None:
    with pytest.raises(ModelError, match="the input a is of type string"):
        inputs.seeded_inputs([TensorSpec("a", "string", (1,))], 0, {"a": (1,)})


def test_the_same_pictures_reach_both_layouts(card: cards.Card) -> None:
    (first,) = inputs.probe_inputs(card, own(card, "onnx-fp32"))
    (last,) = inputs.probe_inputs(card, own(card, "tflite-fp32"))
    assert (first.shape, first.count, first.dtype) == ((1, 3, 16, 16), 4, "float32")
    assert (last.shape, last.count) == ((1, 16, 16, 3), 4)
    np.testing.assert_array_equal(array_of(first).transpose(0, 1, 3, 4, 2), array_of(last))
    dataset = data.calibration(card)
    assert dataset is not None
    np.testing.assert_array_equal(array_of(first)[:, 0], dataset.inputs[:4])


def test_integer_inputs_are_quantised_by_the_scale_of_the_file_and_clipped(card: cards.Card) -> None:
    variant = own(card, "tflite-fp32")
    spec = replace(variant.inputs[0], dtype="int8", scale=0.01, zero_point=3)
    (made,) = inputs.probe_inputs(card, replace(variant, inputs=(spec,)))
    (plain,) = inputs.probe_inputs(card, variant)
    expected = np.clip(np.rint(array_of(plain) / np.float32(0.01)) + 3, -128, 127)
    assert made.dtype == "int8"
    np.testing.assert_array_equal(array_of(made), expected)
    assert array_of(made).min() == -128
    assert array_of(made).max() == 127


def test_a_batch_holds_the_following_pictures_and_begins_again(card: cards.Card) -> None:
    (made,) = inputs.probe_inputs(card, own(card, "onnx-fp32"), batch=3)
    (single,) = inputs.probe_inputs(card, own(card, "onnx-fp32"))
    assert (made.shape, made.count) == ((3, 3, 16, 16), 4)
    order = [int(n) for n in np.arange(12) % 4]
    np.testing.assert_array_equal(array_of(made).reshape(12, 3, 16, 16), array_of(single)[order, 0])


def test_seeded_probes_are_the_same_numbers_for_every_variant(card: cards.Card) -> None:
    seeded = msgspec.structs.replace(card, probe=cards.Probe(source="seeded", count=1))
    (first,) = inputs.probe_inputs(seeded, own(card, "onnx-fp32"), seed=4)
    (last,) = inputs.probe_inputs(seeded, own(card, "tflite-fp32"), seed=4)
    np.testing.assert_array_equal(array_of(first).transpose(0, 1, 3, 4, 2), array_of(last))


def test_a_whole_data_set_is_given_picture_by_picture(card: cards.Card) -> None:
    dataset = data.evaluation(card)
    assert dataset is not None
    (made,) = inputs.dataset_inputs(card, own(card, "tflite-fp32"), dataset)
    assert (made.count, made.shape, len(made.data)) == (20, (1, 16, 16, 3), 20 * 16 * 16 * 3 * 4)


@pytest.mark.parametrize(
    ("variant", "batch", "shapes", "said"),
    [
        ("onnx-fp32", 1, {"imag": (1, 3, 16, 16)}, "tiny has no input 'imag'; its inputs are image"),
        ("onnx-fp32", 1, {"image": (1, 3, 16)}, r"has 4 dimensions \(\?, 3, 16, 16\), and --shape gives 3"),
        ("onnx-fp32", 1, {"image": (1, 3, 8, 8)}, "dimension 2 fixed at 16 .* --shape asks for 8"),
        ("onnx-fp32", 0, None, "cannot have a dimension of 0"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(
    card: cards.Card, variant: str, batch: int, shapes: dict[str, tuple[int, ...]] | None, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        inputs.resolve_shapes(card, own(card, variant), batch=batch, shapes=shapes)


def test_a_batch_that_the_file_has_fixed_is_refused_and_tflite_takes_it(card: cards.Card, tmp_path: Path) -> None:
    fixed, variant = user.user_model(tiny_network.write_onnx(tmp_path / "fixed.onnx", batch=1))
    with pytest.raises(ModelError, match=r"has dimension 0 fixed at 1 .* --batch asks for 4"):
        inputs.resolve_shapes(fixed, variant, batch=4)
    assert inputs.resolve_shapes(card, own(card, "tflite-fp32"), batch=4) == {"image": (4, 16, 16, 3)}


def test_a_shape_in_the_layout_of_the_card_is_turned_for_the_file(card: cards.Card) -> None:
    variant = own(card, "tflite-fp32")
    renamed = replace(variant, inputs=(replace(variant.inputs[0], name="serving_default_image:0"),))
    found = inputs.resolve_shapes(card, renamed, shapes={"image": (2, 3, 16, 16)})
    assert found == {"serving_default_image:0": (2, 16, 16, 3)}


def test_a_file_of_another_shape_is_not_this_model(card: cards.Card) -> None:
    with pytest.raises(ModelError, match=r"which is not the card's .* in either layout"):
        inputs.with_layouts(card, [TensorSpec("image", "float32", (1, 3, 20, 20))])


def test_outputs_come_back_as_the_numbers_that_they_mean(card: cards.Card) -> None:
    variant = replace(
        own(card, "tflite-fp32"), outputs=(TensorSpec("PartitionedCall:0", "int8", (1, 5), scale=0.5, zero_point=-2),)
    )
    raw = np.array([[[-2, 0, 2, 127, -128]]], np.int8)
    made = inputs.to_reference({"PartitionedCall:0": raw}, variant, card)
    assert made["logits"].tolist() == [[[0.0, 1.0, 2.0, 64.5, -63.0]]]
    with pytest.raises(ModelError, match="gave no output logits"):
        inputs.to_reference({}, variant, card)


def test_the_reference_is_what_numpy_computes(card: cards.Card) -> None:
    dataset = data.calibration(card)
    assert dataset is not None
    made = reference.reference_outputs(card)
    assert made["logits"].shape == (4, 1, 5)
    np.testing.assert_allclose(made["logits"][:, 0], tiny_network.forward(dataset.inputs[:4]), atol=1e-6)


def test_the_reference_of_a_batch_is_that_of_its_pictures(card: cards.Card, monkeypatch: pytest.MonkeyPatch) -> None:
    single = reference.reference_outputs(card)["logits"]
    monkeypatch.setattr(reference.child, "call", None)  # it is cached: nothing is computed again
    made = reference.reference_outputs(card, batch=3)["logits"]
    assert made.shape == (4, 3, 5)
    np.testing.assert_array_equal(made.reshape(12, 5), single[np.arange(12) % 4, 0])


@pytest.mark.parametrize("form", ["onnx", "tflite", "openvino"])
def test_a_file_of_the_users_is_its_own_reference_on_seeded_inputs(card: cards.Card, form: str, tmp_path: Path) -> None:
    path = card.folder / f"tiny.{form}"
    if form == "openvino":
        import openvino

        path = tmp_path / "tiny.xml"
        openvino.save_model(openvino.convert_model(card.folder / "tiny.onnx"), path, compress_to_fp16=False)
    facts, variant = user.user_model(path)
    shapes = inputs.resolve_shapes(facts, variant)
    made = reference.self_reference(path, shapes, 11)
    given = inputs.seeded_inputs(variant.inputs, 11, shapes)["image"]
    given = given.transpose(0, 3, 1, 2) if form == "tflite" else given
    np.testing.assert_allclose(made["logits"][0], tiny_network.forward(given), atol=1e-6)
    (probe,) = inputs.probe_inputs(facts, variant, seed=11)
    assert probe.data == inputs.seeded_inputs(variant.inputs, 11, shapes)["image"].tobytes()
    assert facts.reference.independent == (form != "openvino")


def test_a_seeded_batch_has_a_reference_for_each_of_its_members(card: cards.Card) -> None:
    facts, variant = user.user_model(card.folder / "tiny.onnx")
    made = reference.reference_outputs(facts, batch=3, seed=2)["logits"]
    (probe,) = inputs.probe_inputs(facts, variant, batch=3, seed=2)
    np.testing.assert_allclose(made[0], tiny_network.forward(array_of(probe)[0]), atol=1e-6)
