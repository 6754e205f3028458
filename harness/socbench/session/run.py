"""Runs a plan: one worker thread a device; what was finished is in the store, whatever happens next."""

from __future__ import annotations

import importlib
import os
import platform
import random
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from socbench.agents.programs import STOCK_AGENTS
from socbench.devices.cores import resolve_cores
from socbench.errors import Interrupted, StoreError, UsageError
from socbench.models.suites import Suite
from socbench.plan import DeviceAbilities, ModelChoice, RunRequest, expand, runtimes_needed
from socbench.records import Json, Plan
from socbench.session.devices import OpenDevice, open_devices
from socbench.session.ending import SessionResult, finish
from socbench.session.models import Gathered, Gatherer, build_missing, choose_models
from socbench.session.prepared import Prepared
from socbench.session.progress import Progress
from socbench.session.requests import nothing_measured, settle, store_option
from socbench.session.saved import SavedSession, load_saved, save
from socbench.session.state import LockedProgress, SessionState
from socbench.session.sustained import check_store_room
from socbench.session.worker import COLLECT, DETACH, RUN, DeviceWorker
from socbench.store.writer import SessionWriter, now

_LEAST_FREE_BYTES: Final = 64 * 1024 * 1024
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"


def run_session(request: RunRequest, *, store: Path, progress: Progress) -> SessionResult:
    """Plan, check, run and seal one session in the store folder ``store``.

    Ctrl-C keeps what is finished: the agents are stopped, the session is left ``interrupted`` and can be resumed.

    Raises:
        UsageError: the request can't be planned (an unknown name, a file that is no model): nothing was run.
        StoreError: the store can't be written: said before the first inference.
        FailedError: a device is leased and ``request.wait`` is false, or it can't run the agent.
        ChannelError: a device can't be reached.
        Interrupted: stopped before anything was measured.
    """
    check_store(store)
    request = settle(request)
    session = new_session_id()
    shared = LockedProgress(progress)
    stop = threading.Event()
    models, suite = choose_models(request)
    runtimes = runtimes_needed(request, models, suite)
    with _terminable(), _held(request, session, runtimes, stop, shared) as devices:
        saved, gathered = _prepare(request, session, models, suite, devices, shared)
        check_store_room(store, saved.plan.trials)
        writer = SessionWriter.create(store, _document(saved, gathered, devices))
        with writer:
            save(writer.journal, saved)
            _write_beforehand(writer, saved.plan, gathered)
            state = _state(saved, writer, shared, stop)
            nothing = nothing_measured(saved.plan, request)
            if nothing is not None:
                return _run_nothing(state, *nothing)
            with _prepared(state, devices):
                return _detach(state, devices) if request.detach else _run(state, devices)


def resume_session(
    session: str, *, store: Path, progress: Progress, collect: bool = False, wait: bool = True
) -> SessionResult:
    """Go on with an interrupted session: read on what its devices have, run what is missing, seal.

    ``session`` is an id, a unique prefix, a label or ``latest``. ``collect`` only fetches what a detached run has
    measured and starts nothing: it waits for a run that goes on (``wait``), and leaves it alone when stopped.

    Raises:
        SelectorError: there is no such session.
        UsageError: it is sealed, or one of its devices is another one now.
        StoreError: it is being written by a living process, or can't be read.
        FailedError: a device is in use and ``wait`` is false.
    """
    from socbench.store.reader import resolve

    folder = resolve(store, session)
    if not (folder / "parts").is_dir():
        raise UsageError(f"session {folder.name} is complete: there is nothing to go on with")
    check_store(store)
    shared = LockedProgress(progress)
    stop = threading.Event()
    with SessionWriter.open(folder) as writer:
        saved = load_saved(writer.journal, folder.name)
        request = replace(saved.request, devices=tuple(saved.plan.order), wait=wait)
        runtimes = tuple({trial.runtime for trial in saved.plan.trials if trial.excluded is None})
        with _terminable(), _held(request, folder.name, () if collect else runtimes, stop, shared) as devices:
            _check_same(writer.document, devices)
            writer.update(status="running", ended=None)
            state = _state(saved, writer, shared, stop)
            with _prepared(state, devices, collect=collect):
                return _run(state, devices, COLLECT if collect else RUN, wait=wait)


def plan_session(request: RunRequest, *, progress: Progress) -> Plan:
    """Return the plan that ``run_session`` would run (``--plan-only``); probes devices, holds, builds and runs nothing.

    Raises as :func:`run_session` does before anything is run.
    """
    request = settle(request)
    models, suite = choose_models(request)
    stop = threading.Event()
    runtimes = runtimes_needed(request, models, suite)
    with _held(request, new_session_id(), runtimes, stop, LockedProgress(progress), hold=False) as devices:
        plan = expand(request, [device.abilities for device in devices], models, suite=suite, seed=_seed(request))
        _check_cores(plan, devices)
        return plan


def new_session_id() -> str:
    """Return an id such as ``20261124-2250-k3f9``: the minute in UTC and four letters that nobody else drew."""
    minute = datetime.now(UTC).strftime("%Y%m%d-%H%M")
    return f"{minute}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}"


def check_store(store: Path) -> None:
    """Raise StoreError when nothing can be written to ``store``, or hardly anything more."""
    trial = store / f".{os.getpid()}.write-test"
    try:
        store.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"socbench")
        free_bytes = shutil.disk_usage(store).free
    except OSError as problem:
        raise StoreError(
            f"the results store {store} can't be written ({problem.strerror}): name another one with --store"
        ) from problem
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    if free_bytes < _LEAST_FREE_BYTES:
        raise StoreError(
            f"the disk of the results store {store} is full ({free_bytes / 1e6:.0f} MB free): "
            "make room there, or name another store with --store"
        )


@contextmanager
def _held(
    request: RunRequest,
    session: str,
    runtimes: tuple[str, ...],
    stop: threading.Event,
    progress: Progress,
    *,
    hold: bool = True,
) -> Iterator[list[OpenDevice]]:
    """Hold the devices of a request (or only reach them); they are given back whatever happens."""
    try:
        devices = open_devices(
            request.devices or ("local",),
            session,
            agent=request.agent,
            runtimes=runtimes,
            wait=request.wait,
            stop=stop,
            say=progress.message,
            step=progress.step,
            hold=hold,
        )
    except KeyboardInterrupt:
        raise Interrupted("stopped before anything was measured") from None
    try:
        yield devices
    except KeyboardInterrupt:
        raise Interrupted("stopped before anything was measured") from None
    finally:
        for device in devices:
            device.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C while a session runs; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _prepared(state: SessionState, devices: list[OpenDevice], *, collect: bool = False) -> Iterator[None]:
    """Change the phones' settings where that was asked for; they are put back however this ends.

    A run that goes on alone has them as long as it works: then the phone itself puts them back.
    """
    if not state.request.prepare_device:
        yield
        return
    state.prepared = Prepared(state.session, state.progress.message)
    if not collect:
        state.prepared.prepare(devices)
        state.writer.update(device_settings=state.prepared.recorded)
    try:
        yield
    finally:
        state.prepared.restore()


def _seed(request: RunRequest) -> int:
    return request.seed if request.seed is not None else random.SystemRandom().randrange(2**31)


def _prepare(
    request: RunRequest,
    session: str,
    models: list[ModelChoice],
    suite: Suite | None,
    devices: list[OpenDevice],
    progress: Progress,
) -> tuple[SavedSession, Gathered]:
    """Plan, make the models that the plan needs, plan again without those that can't be made, gather their inputs."""
    abilities = [device.abilities for device in devices]
    seed = _seed(request)
    input_seed = request.seed or 0
    plan = expand(request, abilities, models, suite=suite, seed=seed)
    _check_cores(plan, devices)
    models = build_missing(models, plan, progress.step)
    plan = expand(request, abilities, models, suite=suite, seed=seed)
    by_address: dict[str, DeviceAbilities] = {device.address: device.abilities for device in devices}
    answers = request.agent not in STOCK_AGENTS
    gatherer = Gatherer(models, input_seed, progress.step, progress.message, answers=answers)
    gathered = gatherer.gather(plan, by_address)
    trials = tuple(
        replace(trial, fidelity_to=gathered.fidelity_to.get(trial.trial, trial.fidelity_to)) for trial in plan.trials
    )
    return SavedSession(session, request, replace(plan, trials=trials), gathered.files, input_seed), gathered


def _check_cores(plan: Plan, devices: list[OpenDevice]) -> None:
    """Raise UsageError for cores that a device does not have, before anything is built."""
    clusters = {device.address: device.abilities.device.cores for device in devices}
    planned = [trial for trial in plan.trials if trial.excluded is None]
    for cores, address in {(trial.cores, trial.device) for trial in planned}:
        resolve_cores(cores, clusters[address], address)
    for busy, address in {(trial.settings.busy_cores, trial.device) for trial in planned}:
        known = sum(len(cluster.cpus) for cluster in clusters[address])
        if busy is not None and 0 < known < busy:
            raise UsageError(f"--busy-cores {busy}: {address} has {known} cores; ask for {known} or fewer")


def _document(saved: SavedSession, gathered: Gathered, devices: list[OpenDevice]) -> Json:
    from socbench import __version__

    order = {device: [[p.trial, p.repetition] for p in entries] for device, entries in saved.plan.order.items()}
    return {
        "session": saved.session,
        "label": saved.request.label,
        "status": "running",
        "started": now(),
        "ended": None,
        "socbench_version": __version__,
        "argv": list(saved.request.argv),
        "seed": saved.plan.seed,
        "host": {
            "os": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
        "devices": [asdict(device.abilities.device) for device in devices],
        "accelerators": {device.address: device.abilities.accelerators for device in devices},
        "models": gathered.models,
        "truth": gathered.truth,
        "unchecked": gathered.unchecked,
        "clocks": {},
        "plan": {
            "order": order,
            "input_seed": saved.input_seed,
            "estimate_s": saved.plan.estimate_s,
            "suite": saved.request.suite,
            "cool_down": {device.address: device.cool_down for device in devices},
        },
    }


def _write_beforehand(writer: SessionWriter, plan: Plan, gathered: Gathered) -> None:
    """Write what is known before the first inference: rows that are left out, and the reference outputs."""
    from socbench.store.events import reference_tables, untried_tables

    for trial in plan.trials:
        if trial.excluded is not None:
            writer.write_part(trial.trial, untried_tables(trial, "excluded"))
    if gathered.references:
        writer.write_part("references", reference_tables(gathered.references.items(), gathered.raw.get))


def _state(saved: SavedSession, writer: SessionWriter, progress: Progress, stop: threading.Event) -> SessionState:
    return SessionState(
        session=saved.session,
        request=saved.request,
        plan=saved.plan,
        files=saved.files,
        input_seed=saved.input_seed,
        writer=writer,
        progress=progress,
        stop=stop,
    )


def _run_nothing(state: SessionState, why: str, exit_code: int) -> SessionResult:
    """Seal a session of which every row was left out, and say so plainly."""
    state.progress.planned(state.session, state.plan)
    state.writer.seal("complete")
    state.progress.message(why)
    return SessionResult(state.session, "complete", exit_code, state.writer.folder)


def _detach(state: SessionState, devices: list[OpenDevice]) -> SessionResult:
    """Start the plan on every device and leave it there; a device that can't be started has failed rows."""
    state.progress.planned(state.session, state.plan)
    workers = [DeviceWorker(state, device, DETACH) for device in devices]
    _work(state, workers)
    if state.stop.is_set() or not any(worker.started for worker in workers):
        return finish(state, devices, workers)
    state.writer.update(detached=True)
    if state.prepared is not None:
        state.prepared.leave()
    told = f"session {state.session} goes on by itself on {', '.join(w.address for w in workers if w.started)}"
    option = store_option(state.request.argv, state.writer.folder.parents[1])
    state.progress.message(f"{told}; fetch it later with: socbench collect {state.session}{option}")
    return SessionResult(state.session, "detached", 0, state.writer.folder)


def _run(state: SessionState, devices: list[OpenDevice], way: str = RUN, *, wait: bool = True) -> SessionResult:
    """Run the workers to their end, then seal, or leave the session as interrupted."""
    if not all(device.shares_host for device in devices):
        # Parts are written while other trials are followed: what that needs is loaded now, not while events wait.
        for name in ("socbench.store.events", "pyarrow.parquet"):
            importlib.import_module(name)
    state.progress.planned(state.session, state.plan)
    workers = [DeviceWorker(state, device, way, wait=wait) for device in devices]
    _work(state, workers)
    if state.prepared is not None and state.prepared.restore():
        state.writer.update(device_settings=state.prepared.recorded)
    return finish(state, devices, workers)


def _work(state: SessionState, workers: list[DeviceWorker]) -> None:
    """Run the workers side by side until all have ended; Ctrl-C has them stop."""

    def halt() -> None:
        state.stop.set()
        for worker in workers:
            worker.halt()

    with ThreadPoolExecutor(max_workers=len(workers), thread_name_prefix="device") as pool:
        try:
            futures = [pool.submit(worker.run) for worker in workers]
        except KeyboardInterrupt:
            halt()  # or those that have begun would be waited for to their end
            raise
        while True:
            try:
                wait_for(futures)
                break
            except KeyboardInterrupt:
                halt()
                # Said last: with a terminal that is gone this fails, and the workers must end all the same.
                state.progress.message("stopping: what is finished is kept")
        for future in futures:
            future.result()
    state.pool.shutdown()


def _check_same(document: Json, devices: list[OpenDevice]) -> None:
    """Raise UsageError when an address leads to another device than when the session began."""
    keys = {entry.get("device"): entry.get("key") for entry in document.get("devices", ())}
    for device in devices:
        if keys.get(device.address) != device.abilities.device.key:
            raise UsageError(
                f"{device.address} is another device than the one that session {document['session']} began on: "
                "attach that one, or start a new session"
            )
