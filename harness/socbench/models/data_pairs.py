"""Data whose truth is a picture, a mask or boxes: super-resolution, segmentation, detection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.errors import ModelError
from socbench.models.cards import Card, DataSource, Input, Preprocess

if TYPE_CHECKING:
    from socbench.models.data import Dataset

JSON_LIMIT_BYTES = 512 * 1024 * 1024


def downscaled(card: Card, source: DataSource, name: str, pictures: Iterator[tuple[str, bytes, int | None]]) -> Dataset:
    """Return centre cuts of pictures: shrunk (bicubic) they are the input, their own pixels are the target.

    Pictures that are smaller than the cut, or cannot be read, are named and left out.
    """
    import numpy as np
    from PIL import Image

    from socbench.models.data import Dataset
    from socbench.models.pictures import UnreadablePicture, normalised, opened

    factor = source.downscaled or 1
    wanted = card.inputs[0]
    low_height, low_width = _sides(wanted)
    height, width = low_height * factor, low_width * factor
    tensors, targets, skipped, digests = [], [], [], []
    for place, data, _ in pictures:
        try:
            picture = opened(data, place, wanted.preprocess or Preprocess())
        except UnreadablePicture as problem:
            skipped.append(str(problem))
            continue
        if picture.width < width or picture.height < height:
            skipped.append(f"{place}: it is {picture.width} x {picture.height}, smaller than {width} x {height}")
            continue
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        cut = picture.crop((left, top, left + width, top + height))
        small = cut.resize((low_width, low_height), Image.Resampling.BICUBIC)
        tensors.append(normalised(np.asarray(small, np.uint8), place, wanted))
        target = np.asarray(cut, np.uint8)
        targets.append(np.moveaxis(target, -1, 0) if wanted.layout == "NCHW" else target)
        digests.append(hashlib.sha256(data).hexdigest())
    if not tensors:
        raise ModelError(f"the data of {card.model} ({name}) hold no picture that is large enough")
    return Dataset(name, np.stack(tensors), None, tuple(skipped), tuple(digests), targets=np.stack(targets))


def masks(card: Card, source: DataSource, name: str, pictures: Path, labels: Path) -> Dataset:
    """Return pictures with masks of the same names (PNG): one class number a pixel, 255 is not counted.

    Raises ModelError for a picture without a mask.
    """
    import numpy as np
    from PIL import Image

    from socbench.models.data import PICTURE_ENDINGS, Dataset
    from socbench.models.pictures import UnreadablePicture, tensor_of

    height, width = _sides(card.inputs[0])
    tensors, targets, skipped, digests = [], [], [], []
    listed = [path for path in sorted(pictures.iterdir()) if path.suffix.lower() in PICTURE_ENDINGS]
    for path in listed[source.first : None if source.count is None else source.first + source.count]:
        mask = labels / f"{path.stem}.png"
        if not mask.is_file():
            raise ModelError(f"{path} has no mask: there is no file {mask}")
        data = path.read_bytes()
        try:
            tensors.append(tensor_of(data, str(path), card.inputs[0]))
        except UnreadablePicture as problem:
            skipped.append(str(problem))
            continue
        with Image.open(mask) as found:
            classes = found if found.mode in ("L", "P") else found.convert("L")
            targets.append(np.asarray(classes.resize((width, height), Image.Resampling.NEAREST), np.uint8))
        digests.append(hashlib.sha256(data).hexdigest())
    if not tensors:
        raise ModelError(f"the data of {card.model} ({name}) hold no picture that can be read")
    return Dataset(name, np.stack(tensors), None, tuple(skipped), tuple(digests), targets=np.stack(targets))


def coco(card: Card, source: DataSource, name: str, pictures: Path, table: Path) -> Dataset:
    """Return pictures with boxes of a COCO instances json: ``{"boxes": [[class, x1, y1, x2, y2, crowd], ...]}`` each.

    Coordinates are fractions of the picture, as detectors here answer; ``class`` is the COCO id. Raises ModelError for
    a table that is none and for a picture that is not there.
    """
    import numpy as np

    from socbench.models.data import Dataset
    from socbench.models.pictures import UnreadablePicture, tensor_of

    images, boxes = _coco_table(table)
    tensors, truth, skipped, digests = [], [], [], []
    for image in images[source.first : None if source.count is None else source.first + source.count]:
        path = pictures / Path(image["file_name"]).name
        if not path.is_file():
            raise ModelError(f"{table}: there is no picture {path}")
        data = path.read_bytes()
        try:
            tensors.append(tensor_of(data, str(path), card.inputs[0]))
        except UnreadablePicture as problem:
            skipped.append(str(problem))
            continue
        sides = (float(image["width"]), float(image["height"]))
        truth.append([_box(item, *sides) for item in boxes.get(image["id"], [])])
        digests.append(hashlib.sha256(data).hexdigest())
    if not tensors:
        raise ModelError(f"the data of {card.model} ({name}) hold no picture that can be read")
    return Dataset(name, np.stack(tensors), None, tuple(skipped), tuple(digests), truth={"boxes": truth})


def _coco_table(table: Path) -> tuple[list[dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    try:
        if table.stat().st_size > JSON_LIMIT_BYTES:
            raise ModelError(f"{table} is larger than {JSON_LIMIT_BYTES} bytes")
        loaded = json.loads(table.read_bytes())
        images = [{key: item[key] for key in ("id", "file_name", "width", "height")} for item in loaded["images"]]
        boxes: dict[Any, list[dict[str, Any]]] = {}
        for number, item in enumerate(loaded["annotations"]):
            if "category_id" not in item:
                raise ModelError(f"{table}: annotation {number} has no label (category_id)")
            boxes.setdefault(item["image_id"], []).append(item)
    except (ValueError, KeyError, TypeError) as problem:
        raise ModelError(
            f"{table} is no COCO instances file: it needs images (id, file_name, width, height) and annotations "
            f"(image_id, category_id, bbox); {problem!r}"
        ) from problem
    return images, boxes


def _box(item: dict[str, Any], width: float, height: float) -> list[float]:
    x, y, w, h = (float(value) for value in item["bbox"])
    crowd = float(item.get("iscrowd", 0))
    return [float(item["category_id"]), x / width, y / height, (x + w) / width, (y + h) / height, crowd]


def _sides(wanted: Input) -> tuple[int, int]:
    """Return height and width of an input. Raises ModelError when they are open."""
    places = (2, 3) if wanted.layout == "NCHW" else (1, 2)
    sides = [wanted.shape[place] for place in places]
    if not all(isinstance(side, int) for side in sides):
        raise ModelError(f"the input {wanted.name} has an open size; its card must fix it")
    return int(sides[0]), int(sides[1])
