"""Pictures into tensors, as a card's ``preprocess`` says; the one place where a picture is decoded."""

from __future__ import annotations

import io
from typing import Any

from socbench.errors import ModelError
from socbench.models.cards import Input, Preprocess

PIXEL_LIMIT = 64_000_000


class UnreadablePicture(ModelError):
    """A picture that cannot be decoded; the reader of the data set counts it and goes on."""


def tensor_of(data: bytes, name: str, wanted: Input) -> Any:
    """Return the float32 tensor (without the batch) of an encoded picture, in the input's layout.

    Raises UnreadablePicture when it cannot be decoded and ModelError when its size does not fit the input.
    """
    settings = wanted.preprocess or Preprocess()
    return normalised(_cut(opened(data, name, settings), settings), name, wanted)


def opened(data: bytes, name: str, settings: Preprocess) -> Any:
    """Return an encoded picture as a PIL image, grey or RGB. Raises UnreadablePicture when it cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as found:
            if found.width * found.height > PIXEL_LIMIT:
                raise UnreadablePicture(f"{name}: {found.width} x {found.height} pixels is more than a data set has")
            return found.convert("L" if settings.colour == "grey" else "RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        raise UnreadablePicture(f"{name}: {problem}".replace("<_io.BytesIO object at", "<bytes at")) from problem


def _cut(picture: Any, settings: Preprocess) -> Any:
    """Stretch, or resize the shorter side and cut the centre out; return uint8 (height, width[, channels])."""
    import numpy as np
    from PIL import Image

    if settings.stretch is not None:
        height, width = settings.stretch
        picture = picture.resize((width, height), Image.Resampling[settings.interpolation.upper()])
    if settings.resize is not None:
        ratio = settings.resize / min(picture.size)
        size = tuple(max(1, round(side * ratio)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling[settings.interpolation.upper()])
    if settings.crop is not None:
        left, top = ((side - settings.crop) // 2 for side in picture.size)
        picture = picture.crop((left, top, left + settings.crop, top + settings.crop))
    pixels = np.asarray(picture, np.uint8)
    return pixels[..., ::-1] if settings.colour == "BGR" else pixels


def normalised(pixels: Any, name: str, wanted: Input) -> Any:
    """Return uint8 pixels ``(..., height, width[, channels])`` as float32 in the input's layout, normalised.

    Raises ModelError when the size is not that of the input.
    """
    import numpy as np

    settings = wanted.preprocess or Preprocess()
    channels = 1 if settings.colour == "grey" else 3
    if channels == 1:
        pixels = pixels[..., None]
    mean, std = (np.asarray(values, np.float32) for values in (settings.mean, settings.std))
    if any(len(values) not in (1, channels) for values in (mean, std)):
        raise ModelError(
            f"the input {wanted.name}: mean and std need one number, or one for each of {channels} channels"
        )
    tensor = (pixels.astype(np.float32) * np.float32(settings.scale) - mean) / std
    if wanted.layout == "NCHW":
        tensor = np.moveaxis(tensor, -1, -3)
    expected = tuple(size for size in wanted.shape[1:] if isinstance(size, int))
    if len(expected) == len(wanted.shape) - 1 and tensor.shape[-3:] != expected:
        raise ModelError(
            f"{name} gives {tensor.shape[-3:]} and the input {wanted.name} takes {expected}; "
            "set resize and crop in the card's preprocess"
        )
    return np.ascontiguousarray(tensor, np.dtype(wanted.dtype))
