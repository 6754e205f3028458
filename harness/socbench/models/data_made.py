"""Labelled data that are made on the spot, so that their truth is exact: rendered text lines and tones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.errors import FailedError, ModelError
from socbench.models.cards import Card, DataSource

if TYPE_CHECKING:
    from socbench.models.data import Dataset

FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
)
"""Fonts of Matplotlib's wheel, so that every host has the same ones."""
WORDS = (
    "ready", "river", "market", "stone", "winter", "garden", "signal", "paper", "window", "motor", "silver", "letter",
    "number", "forest", "bridge", "copper", "harbour", "engine", "simple", "yellow", "summer", "method", "circle",
    "planet", "mirror", "travel", "column", "answer", "morning", "shadow", "captain", "surface", "history", "kitchen",
    "balance", "weather", "measure", "station", "machine", "village", "journey", "picture", "quarter", "network",
)  # fmt: skip
SAMPLE_RATE_HZ = 22050
LOWEST_NOTE, HIGHEST_NOTE = 45, 84


def text_lines(card: Card, source: DataSource, name: str) -> Dataset:
    """Return lines of text, dark on light, in six fonts, set as the card's input has it (height, width); truth: texts.

    A line holds words, a number or both, never more than fits the width at the input's height.
    """
    import numpy as np

    from socbench.models.data import Dataset
    from socbench.models.data_pairs import _sides
    from socbench.models.pictures import normalised

    height, width = _sides(card.inputs[0])
    random = np.random.Generator(np.random.PCG64(source.seed))
    tensors, texts, digests = [], [], []
    for number in range(source.first + (source.count or 0)):
        picture, text = _line(random, number, height, width)
        if number < source.first:
            continue
        wanted = card.inputs[0]
        if wanted.preprocess is not None and wanted.preprocess.colour == "BGR":
            picture = picture[..., ::-1]
        tensors.append(normalised(picture, f"line {number}", wanted))
        texts.append(text)
        digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
    return Dataset(name, np.stack(tensors), None, (), tuple(digests), truth={"texts": texts})


def _line(random: Any, number: int, height: int, width: int) -> tuple[Any, str]:
    """Return one rendered line as RGB pixels, and its text."""
    import numpy as np
    from PIL import Image, ImageDraw

    font = _font(FONTS[number % len(FONTS)], round(height * 0.62))
    text = str(random.choice(WORDS))
    parts = [str(random.choice(WORDS)), str(random.integers(10, 9999)), str(random.choice(WORDS)).capitalize()]
    for part in parts:
        longer = f"{text} {part}"
        if font.getlength(longer) <= width - 16:
            text = longer
    paper, ink = int(random.integers(200, 256)), int(random.integers(0, 70))
    picture = Image.new("RGB", (width, height), (paper, paper, paper))
    ImageDraw.Draw(picture).text((6, height / 2), text, fill=(ink, ink, ink), font=font, anchor="lm")
    pixels = np.asarray(picture, np.int16) + random.integers(-8, 9, (height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8), text


def _font(name: str, size: int) -> Any:
    import importlib.util

    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise FailedError("text lines are set in Matplotlib's fonts, and Matplotlib is not installed")
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    if not path.is_file():
        raise FailedError(f"text lines are set in Matplotlib's fonts, and {path} is not there")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def tones(card: Card, source: DataSource, name: str) -> Dataset:
    """Return single plucked tones (six harmonics that die away, a little noise) as samples; label: MIDI note less 21.

    The input's shape says how many samples, at 22,050 Hz. Equal temperament, A4 = 440 Hz (ISO 16).
    """
    import numpy as np

    from socbench.models.data import Dataset

    shape = card.inputs[0].shape[1:]
    if not all(isinstance(size, int) for size in shape):
        raise ModelError(f"the input {card.inputs[0].name} has an open size; its card must fix it")
    count = int(np.prod([int(size) for size in shape]))
    random = np.random.Generator(np.random.PCG64(source.seed))
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    tensors, labels, digests = [], [], []
    for number in range(source.first + (source.count or 0)):
        note = int(random.integers(LOWEST_NOTE, HIGHEST_NOTE + 1))
        frequency_hz = 440.0 * 2.0 ** ((note - 69) / 12)
        wave = np.zeros(count)
        for harmonic in range(1, 7):
            if harmonic * frequency_hz < SAMPLE_RATE_HZ / 2:
                phase = random.uniform(0, 2 * np.pi)
                wave += np.sin(2 * np.pi * harmonic * frequency_hz * time_s + phase) / harmonic**1.5
        wave *= np.minimum(1, time_s / 0.01) * np.exp(-time_s / random.uniform(0.6, 2.0))
        wave = 0.5 * wave / np.max(np.abs(wave)) + random.normal(0, 0.002, count)
        if number < source.first:
            continue
        tensors.append(wave.astype(np.float32).reshape([int(size) for size in shape]))
        labels.append(note - 21)
        digests.append(hashlib.sha256(tensors[-1].tobytes()).hexdigest())
    return Dataset(name, np.stack(tensors), np.asarray(labels, np.int64), (), tuple(digests))
