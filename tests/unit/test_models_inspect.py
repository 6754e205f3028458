from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import tiny_network
from socbench.errors import ModelError
from socbench.models.facts import model_facts
from socbench.models.inspect import inspect_file
from socbench.records import TensorSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import openvino

    folder = tmp_path_factory.mktemp("files")
    tiny_network.write_onnx(folder / "tiny.onnx")
    tiny_network.write_tflite(folder / "tiny.tflite")
    openvino.save_model(openvino.convert_model(folder / "tiny.onnx"), folder / "tiny.xml", compress_to_fp16=True)
    return folder


def test_onnx_facts_are_exact(files: Path) -> None:
    facts = inspect_file(files / "tiny.onnx")
    assert (facts.format, facts.precision, facts.quant_scheme) == ("onnx", "fp32", None)
    assert facts.inputs == (TensorSpec("image", "float32", (None, 3, 16, 16)),)
    assert facts.outputs == (TensorSpec("logits", "float32", (None, 5)),)
    assert facts.parameters == tiny_network.PARAMETERS == 269
    assert facts.multiply_adds == tiny_network.MULTIPLY_ADDS == 13864
    assert facts.ops == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert facts.size_bytes == (files / "tiny.onnx").stat().st_size


def test_tflite_facts_are_exact(files: Path) -> None:
    facts = inspect_file(files / "tiny.tflite")
    assert (facts.format, facts.precision) == ("tflite", "fp32")
    assert facts.inputs == (TensorSpec("image", "float32", (1, 16, 16, 3)),)
    assert facts.outputs == (TensorSpec("logits", "float32", (1, 5)),)
    assert (facts.parameters, facts.multiply_adds) == (269, 13864)
    assert facts.ops == {"CONV_2D": 1, "MEAN": 1, "FULLY_CONNECTED": 1}


def test_openvino_facts_are_exact_and_fp16_is_read_from_the_weights(files: Path) -> None:
    facts = inspect_file(files / "tiny.xml")
    assert (facts.format, facts.precision) == ("openvino", "fp16")
    assert facts.inputs == (TensorSpec("image", "float32", (None, 3, 16, 16)),)
    assert facts.outputs == (TensorSpec("logits", "float32", (None, 5)),)
    assert (facts.parameters, facts.multiply_adds) == (269, 13864)
    assert facts.companions == (str(files / "tiny.bin"),)
    assert facts.size_bytes == sum((files / name).stat().st_size for name in ("tiny.xml", "tiny.bin"))


def test_facts_of_the_three_formats_agree(files: Path) -> None:
    found = [model_facts(files / name) for name in ("tiny.onnx", "tiny.tflite", "tiny.xml")]
    assert {(facts.parameters, facts.multiply_adds) for facts in found} == {(269, 13864)}


def test_a_script_of_the_null_runtime_is_read(tmp_path: Path) -> None:
    path = tmp_path / "exact.null.json"
    path.write_text('{"inputs": [{"name": "x", "dtype": "int8", "shape": [2]}], "latency_ns": 5}')
    facts = inspect_file(path)
    assert facts.format == "null"
    assert facts.inputs == (TensorSpec("x", "int8", (2,)),)
    assert facts.outputs == (TensorSpec("y", "float32", (1, 2)),)


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.tflite", "tiny.xml"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_gives_one_sentence(files: Path, tmp_path: Path, name: str, kept: float) -> None:
    whole = (files / name).read_bytes()
    (tmp_path / "tiny.bin").write_bytes((files / "tiny.bin").read_bytes())
    cut = tmp_path / name
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelError) as caught:
        inspect_file(cut)
    assert str(cut) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_openvino_that_are_cut_off_or_missing_are_named(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.xml"
    path.write_bytes((files / "tiny.xml").read_bytes())
    with pytest.raises(ModelError, match=r"needs its weights tiny\.bin beside it"):
        inspect_file(path)
    (tmp_path / "tiny.bin").write_bytes((files / "tiny.bin").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"tiny\.bin is cut off: it has 100 bytes"):
        inspect_file(path)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.xml", "a.null.json"])
@pytest.mark.parametrize("content", [b"", b"hello, I am a text\n" * 20, b"\x00" * 4096, b"\xff" * 4096])
def test_a_file_that_is_no_model_gives_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        inspect_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_damage_never_gets_out_as_anything_else(files: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    for name in ("tiny.tflite", "tiny.onnx"):
        whole = (files / name).read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(4):
                damaged[rng.randrange(8, len(whole))] = rng.randrange(256)
            path = tmp_path / name
            path.write_bytes(bytes(damaged))
            with contextlib.suppress(ModelError):  # anything else fails the test
                inspect_file(path)


def test_entities_in_xml_are_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b">]><net name="&a;"><layers/></net>')
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="declares a document type"):
        inspect_file(path)


def test_missing_files_folders_and_unknown_endings_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*tny\.onnx; did you mean .*tiny\.onnx\?"):
        inspect_file(files / "tny.onnx")
    with pytest.raises(ModelError, match="is a folder, not a model file"):
        inspect_file(tmp_path)
    (tmp_path / "m.tflit").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"m\.tflit is no model file that socbench knows; did you mean \.tflite\?"):
        inspect_file(tmp_path / "m.tflit")
    (tmp_path / "m.pt").write_bytes(b"x")
    with pytest.raises(
        ModelError, match=r"a model file ends in \.tflite, \.onnx, \.xml, \.param, \.mnn, \.pte, \.null\.json"
    ):
        inspect_file(tmp_path / "m.pt")


def test_onnx_weights_outside_of_its_folder_are_refused(files: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(files / "tiny.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"wants its weights from '\.\./secret', which is outside"):
        inspect_file(tmp_path / "a.onnx")
    entry.value = "a.data"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"keeps its weights in 'a\.data', which does not lie beside it"):
        inspect_file(tmp_path / "a.onnx")
