"""What the shell offers while a word is typed: file names and small files are read, nothing heavy is imported.

A completion never fails: what cannot be read is not offered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

_DELEGATES = ("cpu", "gpu", "npu", "nnapi", "cpu:xnnpack", "cpu:builtin", "cpu:reference", "cpu:mlas", "cpu:openvino")
_NEWEST = 200
# A shell puts a completed word into the line as it is, and a label may come from an archive that somebody sent.
_HARMLESS = re.compile(r"[A-Za-z0-9@:._=/+-]{1,200}")


def _harmless(words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if _HARMLESS.fullmatch(word)]


def _begin(words: Iterable[str], incomplete: str) -> list[str]:
    """Return the words that go on from ``incomplete``; after a comma the next value of a list is completed."""
    done, comma, last = incomplete.rpartition(",")
    given = set(done.split(","))
    return [done + comma + word for word in _harmless(words) if word.startswith(last) and word not in given]


def _store(given: str | None) -> Path:
    from socbench.store.manage import default_store

    return Path(given).expanduser() if given else default_store()


def _documents(store: Path) -> list[dict[str, object]]:
    found = []
    try:
        folders = sorted((store / "sessions").iterdir(), reverse=True)[:_NEWEST]
    except OSError:
        return []
    for folder in folders:
        try:
            document = json.loads((folder / "session.json").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            found.append(document)
    return found


def sessions(ctx: object, incomplete: str) -> list[str]:
    """Return ``latest``, labels and ids of the newest sessions of the store that the line names."""
    params = getattr(ctx, "params", {})
    store = params.get("store") if isinstance(params, dict) else None
    documents = _documents(_store(str(store) if store else None))
    labels = [str(document["label"]) for document in documents if document.get("label")]
    ids = [str(document["session"]) for document in documents if document.get("session")]
    return [word for word in _harmless(["latest", *labels, *ids]) if word.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return the names of the folders that hold a card; the shell itself offers files when none fits."""
    from socbench.content import content

    try:
        names = sorted(card.parent.name for card in content("models").glob("*/card.yaml"))
    except OSError:
        names = []
    return [name for name in _harmless(names) if name.startswith(incomplete)]


def suites(incomplete: str) -> list[str]:
    """Return the names of the shipped suites."""
    from socbench.content import content

    try:
        names = sorted(path.stem for path in (content("models") / "suites").glob("*.yaml"))
    except OSError:
        names = []
    return [name for name in _harmless(names) if name.startswith(incomplete)]


def devices(ctx: object, incomplete: str) -> list[str]:
    """Return ``local`` and the devices of earlier sessions: asking the cables would be too slow."""
    seen = [
        str(device.get("device"))
        for document in _documents(_store(None))
        for device in _list(document.get("devices"))
        if isinstance(device, dict)
    ]
    return _begin(["local", *seen], incomplete)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def runtimes(incomplete: str) -> list[str]:
    """Return the names of the runtimes."""
    from socbench.records import RUNTIMES

    return _begin(RUNTIMES, incomplete)


def delegates(incomplete: str) -> list[str]:
    """Return the classes of delegates and the common names."""
    return _begin(_DELEGATES, incomplete)


def precisions(incomplete: str) -> list[str]:
    """Return the precisions."""
    from socbench.records import PRECISIONS

    return _begin(PRECISIONS, incomplete)


def scenarios(incomplete: str) -> list[str]:
    """Return the scenarios."""
    from socbench.records import SCENARIOS

    return _begin(SCENARIOS, incomplete)
