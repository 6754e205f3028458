"""Data of words and of bytes: pairs of words with their similarity, files with their type."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socbench.errors import ModelError
from socbench.models.cards import Card, DataSource
from socbench.models.packages import archive_of, member, members

if TYPE_CHECKING:
    from socbench.models.data import Dataset

BEGIN_BYTES = END_BYTES = 1024
BLOCK_BYTES = 4096
PADDING = 256


def word_pairs(card: Card, source: DataSource, name: str) -> Dataset:
    """Return every word of a table of word pairs once, as ids and masks; truth: pairs (places) and their scores.

    The table is tab-separated: two words and a number; lines that begin with ``#`` and heads are left out. The card's
    inputs are told by their names: ids, mask, token types. Raises ModelError for a line without a score.
    """
    import numpy as np

    from socbench.models.data import Dataset

    archive = archive_of(source.package or "", source.sha256 or "", source.built_for)
    table = member(archive, source.path or "").decode("utf-8", "replace")
    pairs: list[list[int]] = []
    scores: list[float] = []
    places: dict[str, int] = {}
    for number, line in enumerate(table.splitlines(), start=1):
        cells = line.split("\t")
        if line.startswith("#") or len(cells) < 3 or not line.strip():
            continue
        try:
            scores.append(float(cells[2]))
        except ValueError as problem:
            if not pairs:
                continue  # the head
            raise ModelError(f"{source.path}, line {number}: {cells[2][:40]!r} is no score") from problem
        pairs.append([places.setdefault(word.strip(), len(places)) for word in cells[:2]])
    stop = None if source.count is None else source.first + source.count
    pairs, scores = pairs[source.first : stop], scores[source.first : stop]
    used = sorted({place for pair in pairs for place in pair})
    words = [word for word, place in places.items() if place in set(used)]
    moved = {place: index for index, place in enumerate(used)}
    length = card.inputs[0].shape[-1]
    if not isinstance(length, int):
        raise ModelError(f"the input {card.inputs[0].name} has an open length; its card must fix it")
    vocabulary = read_vocabulary(card.folder / (source.vocabulary or ""))
    ids = np.stack([wordpiece(word, vocabulary, length) for word in words])
    arrays = [_tensor_of(item.name, ids).astype(item.dtype) for item in card.inputs]
    return Dataset(
        name,
        arrays[0],
        None,
        (),
        tuple(hashlib.sha256(word.encode()).hexdigest() for word in words),
        more=tuple(arrays[1:]),
        truth={"pairs": [[moved[place] for place in pair] for pair in pairs], "scores": scores},
    )


def _tensor_of(name: str, ids: Any) -> Any:
    import numpy as np

    if "mask" in name:
        return (ids != 0).astype(np.int64)
    return np.zeros_like(ids) if "type" in name else ids


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return a WordPiece vocabulary, one piece a line. Raises ModelError when it is not there."""
    if not path.is_file():
        raise ModelError(f"there is no vocabulary {path}")
    return {piece: number for number, piece in enumerate(path.read_text(encoding="utf-8").splitlines())}


def wordpiece(text: str, vocabulary: dict[str, int], length: int) -> Any:
    """Return ``(length,)`` ids of a text as BERT's uncased models take it: [CLS] pieces [SEP], then zeros.

    Lower case without accents, split at spaces and punctuation, then the longest piece first (Devlin et al. 2018).
    """
    import numpy as np

    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    pieces: list[int] = []
    for word in re.findall(r"\w+|[^\w\s]", plain):
        pieces += _pieces(word, vocabulary)
    made = [vocabulary["[CLS]"], *pieces[: length - 2], vocabulary["[SEP]"]]
    return np.asarray([*made, *[0] * (length - len(made))], np.int64)


def _pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        pieces = (("##" if start else "") + word[start:end] for end in ends)
        end, piece = next(((e, p) for e, p in zip(ends, pieces, strict=True) if p in vocabulary), (0, ""))
        if not piece:
            return [vocabulary["[UNK]"]]
        found.append(vocabulary[piece])
        start = end
    return found


def packaged_files(card: Card, source: DataSource, name: str) -> Dataset:
    """Return files of a package as Magika takes them; the group ``label`` of the pattern names the type.

    1024 bytes from the first block of 4096 (white space at its start left out) and 1024 from the last (at its end),
    256 where there is nothing: https://github.com/google/magika, features of standard_v3. ``classes`` turns a file's
    ending into the class's name in the card's labels; a file whose class is not known is left out, and named.
    """
    import numpy as np

    from socbench.models.data import Dataset

    known = (card.folder / (card.outputs[0].labels or "")).read_text(encoding="utf-8").splitlines()
    archive = archive_of(source.package or "", source.sha256 or "", source.built_for)
    tensors, labels, skipped, digests = [], [], [], []
    for place, match, data in members(archive, source.pattern or ""):
        said = match.groupdict().get("label") or ""
        label = source.classes.get(said, said)
        if label not in known or len(data) < 64:
            skipped.append(f"{place}: no class is called {label!r}" if len(data) >= 64 else f"{place}: too short")
            continue
        tensors.append(file_features(data))
        labels.append(known.index(label))
        digests.append(hashlib.sha256(data).hexdigest())
    stop = None if source.count is None else source.first + source.count
    if not tensors[source.first : stop]:
        raise ModelError(f"the data of {card.model} ({name}) hold no file of a known type")
    part = slice(source.first, stop)
    return Dataset(name, np.stack(tensors[part]), np.asarray(labels[part], np.int64), (), tuple(digests[part]))


def file_features(data: bytes) -> Any:
    """Return the 2048 numbers that stand for a file's bytes; see ``packaged_files``."""
    import numpy as np

    begin = np.frombuffer(data[:BLOCK_BYTES].lstrip()[:BEGIN_BYTES], np.uint8).astype(np.int32)
    end = np.frombuffer(data[-BLOCK_BYTES:].rstrip()[-END_BYTES:], np.uint8).astype(np.int32)
    made = np.full(BEGIN_BYTES + END_BYTES, PADDING, np.int32)
    made[: len(begin)] = begin
    made[len(made) - len(end) :] = end
    return made
