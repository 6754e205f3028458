from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_network
from PIL import Image
from socbench.errors import ModelError
from socbench.models import cards, inputs, user, variants


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))


def test_a_bare_file_gets_a_card_of_its_own_facts(tmp_path: Path) -> None:
    path = tiny_network.write_tflite(tmp_path / "my net (1).tflite")
    card, variant = user.user_model(path)
    assert (card.model, card.title, card.metric) == ("my_net_1_", "my net (1).tflite", None)
    assert card.data.evaluation is None
    assert (variant.variant, variant.path) == ("tflite-fp32", str(path))
    assert card.reference.runtime == "litert"
    assert variants.variants_of(card) == [variant]
    assert variants.build(card, variant) == variant


def test_an_open_dimension_wants_a_shape_and_is_named(tmp_path: Path) -> None:
    import onnx

    path = tiny_network.write_onnx(tmp_path / "open.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        user.user_model(path)
    assert str(caught.value) == (
        "the input image of open leaves dimension 2 open (?, 3, ?, 16); say --shape image=N,3,N,16 with numbers"
    )
    card, variant = user.user_model(path, {"image": (2, 3, 16, 16)})
    assert inputs.resolve_shapes(card, variant, shapes={"image": (2, 3, 16, 16)}) == {"image": (2, 3, 16, 16)}


def test_a_file_is_never_converted(tmp_path: Path) -> None:
    card, variant = user.user_model(tiny_network.write_onnx(tmp_path / "my.onnx"))
    assert [item.variant for item in variants.variants_of(card)] == ["onnx-fp32"]
    assert variant.precision == "fp32"


def test_an_added_network_gets_every_variant_and_its_int8_can_be_built(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number}.png")
    card = user.add(tiny_network.write_onnx(tmp_path / "My Net.onnx"), folder)
    assert card.model == "my_net"
    assert card == cards.load_card("my_net")
    assert cards.check_card("my_net") == []
    assert [variant.variant for variant in variants.variants_of(card)] == [
        "onnx-fp32",
        "onnx-fp16",
        "onnx-int8",
        "onnx-int8-reduced",
        "openvino-fp32",
        "openvino-fp16",
        "openvino-int8",
        "openvino-int8-reduced",
    ]
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    said: list[str] = []
    int8 = variants.build(card, variants.variants_of(card)[2], progress=said.append)
    assert any("1 of 7 were left out (" in text and "torn.jpg" in text for text in said), said
    assert int8.precision == "int8"
    assert int8.inputs[0].layout == "NCHW"
    with pytest.raises(ModelError, match="there is a model my_net already; name this one with --name"):
        user.add(tmp_path / "My Net.onnx", folder)


def test_without_calibration_pictures_there_is_no_static_int8(tmp_path: Path) -> None:
    card = user.add(tiny_network.write_tflite(tmp_path / "t.tflite"), name="plain")
    assert card.variants == {"tflite": ("fp32", "fp16", "int8_dynamic")}
    assert card.probe.source == "seeded"
    with pytest.raises(ModelError, match="tflite-int8 of plain needs calibration data, and its card names none"):
        variants.build(card, variants.Variant("plain", "tflite-int8", "tflite", "int8"))


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.null.json"
    path.write_text("{}")
    with pytest.raises(ModelError, match=r"variants are made from \.onnx and \.tflite files"):
        user.add(path)
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(str(tiny_network.write_tflite(tmp_path / "f.tflite")))
    made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    made.quantize().export_model(str(tmp_path / "q.tflite"))
    with pytest.raises(ModelError, match=r"q\.tflite is int8_dynamic: variants are made from fp32"):
        user.add(tmp_path / "q.tflite")
    with pytest.raises(ModelError, match=r"must be a folder of pictures, and .*nowhere is none"):
        user.add(tmp_path / "f.tflite", tmp_path / "nowhere")
