"""Runs one device's share of a session: job after job until nothing is left, every finished repetition kept."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from socbench.agents.follow import Followed, JobFollower
from socbench.agents.job import job_document
from socbench.agents.provision import provision
from socbench.errors import (
    AgentError,
    ChannelError,
    FailedError,
    Interrupted,
    ProtocolError,
    SocbenchError,
    StoreError,
)
from socbench.records import Failure, Json, PlannedRepetition
from socbench.session.devices import OpenDevice
from socbench.session.journal import DeviceJournal
from socbench.session.parts import PartsWriter
from socbench.session.precision import ending, reach
from socbench.session.state import SessionState
from socbench.session.sustained import check_device_room, first_baseline, fixed_wait
from socbench.session.watch import DeviceWatch
from socbench.transports.base import Deadline

_MAX_FRUITLESS_JOBS: Final = 3
_PROVISION_S: Final = 1800.0
_COMMAND_S: Final = 60.0
_DRAIN_S: Final = 20.0

RUN: Final = "run"
"""Run the device's order to its end, and see to the agent all the time."""
DETACH: Final = "detach"
"""Start the order on the device and leave."""
COLLECT: Final = "collect"
"""Fetch what a detached run measured; start and stop nothing."""


class DeviceWorker:
    """The worker of one device; ``run`` is its thread. ``problem`` says why it ended early, if it did.

    ``started``: a detached job was left on the device. ``goes_on``: one is still being measured there. ``order`` is
    the device's order with the repetitions that were added to the plan's.
    """

    def __init__(self, state: SessionState, device: OpenDevice, way: str = RUN, *, wait: bool = True) -> None:
        self.state = state
        self.device = device
        self.started = self.goes_on = False
        self._way = way
        self._wait = wait
        self._enough: int | None = None
        self.address = device.address
        self.problem: SocbenchError | None = None
        self.journal = DeviceJournal.of(state.writer.journal, device.address)
        self.order = state.plan.order.get(device.address, ())
        self._dropped: dict[str, Failure | None] = {}
        self._narrow: set[str] = set()
        self._ready: list[str] = []
        self._parts = PartsWriter(state, self.journal, beside=not device.shares_host)
        self._halt = threading.Event()
        self._watch = DeviceWatch(state, device.address, self.order)
        device.channel.away = self._watch.away

    def halt(self) -> None:
        """Have the worker stop its agent and end (Ctrl-C)."""
        self._halt.set()

    def run(self) -> None:
        """Run what is left of the device's order; never raises what is not a defect."""
        try:
            self._catch_up()
            if self._way == RUN:
                self._run_jobs()
            elif self._way == DETACH:
                self._begin(self._left())
                self.started = True
                return
            elif self._left():
                raise Interrupted(f"{self.address} has not measured everything yet")
        except Interrupted as problem:
            self.problem = problem
        except ChannelError as problem:
            self.problem = problem
            self.state.progress.message(f"{self.address} was given up: {problem}")
        except StoreError as problem:
            self._leave_on_device(problem)
        except FailedError as problem:
            self.problem = problem
            self._fail_the_rest(problem)
        finally:
            if not self.started and not isinstance(self.problem, StoreError):
                self._write_parts(final=True)
            self._watch.ended()

    def _leave_on_device(self, problem: StoreError) -> None:
        """Stop the agent when the store's disk is full: what is not stored stays on the device for ``--resume``."""
        self.problem = problem
        self.state.progress.message(f"{problem}; make room there, nothing that was measured is lost")
        if self._way == RUN and self.journal.jobs():
            self._end_quietly(len(self.journal.jobs()))

    # What there is already, when a session is resumed

    def _catch_up(self) -> None:
        """Read the journals of earlier jobs, and read on what the device has of the last one."""
        paths = self.journal.jobs()
        self.goes_on = self._way == COLLECT
        for number, path in enumerate(paths, 1):
            self.journal.begin_job()
            follower = self._follower(number)
            for followed in follower.stored():
                self._take(path, followed)
            if follower.ended:
                continue
            if number == len(paths) and self._is_there(number, path):
                self._follow(number, follower)
            else:
                self.goes_on = False
                self.journal.void_begun()
        added = sorted(self.journal.finished - set(self.order), key=lambda planned: (planned.repetition, planned.trial))
        self._extend(added)

    def _is_there(self, number: int, path: Path) -> bool:
        """Say whether the device has more of a job than the journal, or still works on it."""
        job = self._job(number)
        try:
            known = self.device.agent.status(job, deadline=Deadline.after(_COMMAND_S, "the agent's state"))
        except AgentError:
            return False
        written = known.get("events_bytes")
        if self._way == COLLECT and not self._wait:
            self._enough = written if isinstance(written, int) else 0
        return bool(known.get("running")) or (isinstance(written, int) and written > path.stat().st_size)

    # Job after job

    def _left(self) -> list[PlannedRepetition]:
        done = self.journal.finished
        return [planned for planned in self.order if planned not in done and planned.trial not in self._dropped]

    def _run_jobs(self) -> None:
        fruitless = 0
        while (left := self._left() or self._more()) and not self.state.stop.is_set():
            before = len(self.journal.finished)
            self._halt.clear()
            self._run_job(left)
            fruitless = 0 if len(self.journal.finished) > before else fruitless + 1
            if self.journal.job_error is not None:
                error = self.journal.job_error
                raise AgentError(f"{self.address}: {error.message}", code=error.code, advice=error.advice)
            if fruitless >= _MAX_FRUITLESS_JOBS:
                raise AgentError(
                    f"the agent on {self.address} ended {fruitless} times without finishing anything "
                    f"({self.journal.ended or 'it died'})",
                    code="agent_died",
                )
        if self.state.stop.is_set():
            raise Interrupted(f"stopped on {self.address}")

    def _more(self) -> list[PlannedRepetition]:
        """Return one more repetition of each trial whose interval is still wider than ``--precision-target`` asks."""
        target = self.state.request.precision_target
        if target is None or self.state.stop.is_set():
            return []
        more: list[PlannedRepetition] = []
        for members in self._groups():
            count = sum(planned.trial == members[0] for planned in self.order)
            reasons = [self._narrow_enough(trial, count, target) for trial in members]
            if None in reasons:
                more += [PlannedRepetition(trial, count + 1) for trial in members]
                self._parts.written.difference_update(members)
            else:
                self._narrow.update(members)
                for reason in reasons:
                    self.state.progress.message(str(reason))
        self._extend(more)
        return more

    def _extend(self, added: list[PlannedRepetition]) -> None:
        """Add repetitions to the order: ``--precision-target`` asked for them."""
        self.order = (*self.order, *added)
        self._watch.extend(len(added))

    def _groups(self) -> list[list[str]]:
        """Return the trials to which repetitions may be added; the two arms of ``--ab`` stay together, as pairs."""
        groups: dict[object, list[str]] = {}
        for trial in {planned.trial: None for planned in self.order}:
            plan = self.state.trials[trial]
            if plan.scenario == "single_stream" and self._failure(trial) is None and trial not in self._narrow:
                groups.setdefault(plan.model if plan.ab_arm else (trial,), []).append(trial)
        return list(groups.values())

    def _narrow_enough(self, trial: str, count: int, target: float) -> str | None:
        plan = self.state.trials[trial]
        name = f"{plan.model} {plan.precision} {plan.runtime} {plan.delegate}"
        return ending(name, reach(self.journal.events(trial)), count, target)

    def _run_job(self, left: list[PlannedRepetition]) -> None:
        number = self._begin(left)
        self.journal.begin_job()
        self._follow(number, self._follower(number))

    def _begin(self, left: list[PlannedRepetition]) -> int:
        """Put everything on the device and start the job; returns its number."""
        number = len(self.journal.jobs()) + 1
        files = [file for trial in {p.trial: None for p in left} for file in self.state.files[trial].files()]
        self._watch.phase("provision")
        self._until_stopped()
        check_device_room(self.device.channel, [self.state.trials[trial] for trial in {p.trial for p in left}])
        provision(
            self.device.channel,
            files,
            deadline=Deadline.after(_PROVISION_S, "the files to be copied"),
            say=self.state.progress.step,
        )
        document = job_document(
            self.state.session,
            self.state.trials,
            self.state.files,
            left,
            orphan_after_s=None if self._way == DETACH else self.device.orphan_after_s,
            seed=self.state.input_seed,
            profile=self.state.request.profile,
            cool_down={
                **self.device.cool_down,
                **fixed_wait(self.state.request, self._is_here()),
                **first_baseline(self.journal.job_path(1)),
            },
            watch_cooling_s=self.state.request.watch_cooling_s,
        )
        self._until_stopped()
        self._start(number, self.device.agent.adapted(document))
        return number

    def _until_stopped(self) -> None:
        if self.state.stop.is_set():
            raise Interrupted(f"stopped on {self.address}")

    def _start(self, number: int, document: Json) -> None:
        """Put the job on the device and start it; the journal's file says from then on that there is one."""
        path = self.journal.job_path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        job = self._job(number)
        deadline = Deadline.after(_COMMAND_S, "the job to start")
        with tempfile.TemporaryDirectory(prefix="socbench-") as scratch:
            source = Path(scratch) / "job.json"
            source.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")
            self.device.channel.retry(lambda t: t.push(source, job / "job.json", deadline=deadline))
        self.device.agent.start(job, deadline=deadline)

    def _job(self, number: int) -> PurePosixPath:
        return self.state.job_folder(self.device.channel.transport.root, number)

    def _follower(self, number: int) -> JobFollower:
        heartbeat_s = (self.device.orphan_after_s or 120.0) / 4
        return JobFollower(self.device.agent, self._job(number), self.journal.job_path(number), heartbeat_s=heartbeat_s)

    # Following

    def _follow(self, number: int, follower: JobFollower) -> None:
        try:
            self._take_all(number, follower.follow(stop=self._halt))
            if not follower.ended:
                if self._way == COLLECT:
                    return
                self._end_early(number, follower)
        except AgentError as problem:
            self._end_quietly(number)
            if isinstance(problem, ProtocolError) or problem.code != "agent_died":
                raise
            self._after_death(problem)
        self.goes_on = False
        self.journal.void_begun()
        self._pull(force=True)
        self._write_parts(final=False)
        self._parts.wait()

    def _take_all(self, number: int, events: Iterator[Followed | None]) -> None:
        path = self.journal.job_path(number)
        for followed in events:
            if followed is not None:
                self._take(path, followed)
            if self._enough is not None and (followed is None or followed.offset + followed.length >= self._enough):
                return
            self.device.renew_lease()

    def _take(self, path: Path, followed: Followed) -> None:
        """Take note of one event and do what it asks for."""
        head = followed.head
        self.journal.add(path, followed)
        self._watch.event(head, len(self.journal.finished))
        if head.type == "error" and head.code == "deadline" and head.trial is not None:
            # A model that hangs would hang again: its other repetitions are not tried.
            self._dropped[head.trial] = None
            if any(planned.trial == head.trial for planned in self.order if planned not in self.journal.finished):
                self._halt.set()
        if head.type in ("done", "error") and head.trial is not None:
            self._repetition_ended(head.trial)

    def _repetition_ended(self, trial: str) -> None:
        if any(planned.trial == trial for planned in self._left()):
            self._pull(force=False)
            return
        if trial not in self._ready and trial not in self._parts.written:
            self._ready.append(trial)
            failure = self._failure(trial)
            status = "failed" if failure else "done"
            self.state.progress.trial_ended(self.state.trials[trial], status, failure)
        self._pull(force=False)
        if not self.device.shares_host:
            self._write_parts(final=False)

    def _failure(self, trial: str) -> Failure | None:
        """Return why a trial failed, with what the host alone can say: a delegate that did not take the whole model."""
        failure = self.journal.failed.get(trial) or self._dropped.get(trial)
        delegation = self.journal.delegation.get(trial)
        if failure is None and self.state.request.require_full and delegation not in (None, "full"):
            return Failure(
                "not_full",
                f"{self.state.trials[trial].delegate} did not take the whole model (delegation: {delegation})",
                "leave --require-full away to see what it is worth",
            )
        return failure

    def _end_early(self, number: int, follower: JobFollower) -> None:
        """Stop the agent and take what it says until its last event."""
        self._watch.phase("stopping")
        job = self._job(number)
        try:
            self.device.agent.stop(job, deadline=Deadline.after(_DRAIN_S, "the agent to stop"))
            until = Deadline.after(_DRAIN_S, "the agent's last event")
            self._take_all(number, follower.follow(stop=threading.Event(), until=until))
        except ChannelError as problem:
            orphan_s = self.device.orphan_after_s
            self.state.progress.message(
                f"{self.address} could not be told to stop ({problem}); its agent ends by itself after {orphan_s:g} s"
            )

    def _end_quietly(self, number: int) -> None:
        try:
            self.device.agent.stop(self._job(number), deadline=Deadline.after(_DRAIN_S, "the agent to stop"))
        except (AgentError, ChannelError):
            return  # it is gone, or nothing can be done about it from here

    def _after_death(self, problem: AgentError) -> None:
        """What was under way when the agent died is void and run again once; the second time it has failed.

        Where the device itself went down with it, the trial has failed at once: it might do so again.
        """
        if self._was_rebooted():
            for planned in self.journal.void_begun():
                message = f"{self.address} was started anew while this was under way"
                self._dropped[planned.trial] = Failure("device_rebooted", message)
                self._repetition_ended(planned.trial)
            self.state.progress.message(f"{self.address} was started anew: what was under way has failed")
            return
        for planned in self.journal.void_begun():
            if self.journal.voided[planned] > 1:
                self._dropped[planned.trial] = Failure("agent_died", f"{problem}, twice in this repetition")
                self._repetition_ended(planned.trial)
        self.state.progress.message(f"{problem}: what was under way is run again")

    def _was_rebooted(self) -> bool:
        """Say whether the device runs since another start than the job's; false where that can't be told."""
        before = self.journal.boot_id
        command = ["cat", "/proc/sys/kernel/random/boot_id"]
        deadline = Deadline.after(_COMMAND_S, "the device's boot id")
        done = self.device.channel.retry(lambda transport: transport.run(command, deadline=deadline))
        now = done.stdout.decode("ascii", "replace").strip()
        return bool(before and not done.exit_code and now and now != before)

    def _is_here(self) -> bool:
        """This machine, or a fake device that measures it."""
        return self.device.shares_host or self.address.startswith("fake:")

    # Results

    def _pull(self, *, force: bool) -> None:
        """Fetch outputs; on this machine only between jobs, since it would disturb what is measured."""
        if force or not self.device.shares_host:
            self.journal.pull_outputs(self.device.agent, self._job)

    def _write_parts(self, *, final: bool) -> None:
        """Write the parts of trials that ended; finally also of those that did not, as interrupted."""
        for trial in self._ready:
            self._parts.write(trial, self._planned(trial), self._failure(trial))
        self._ready.clear()
        if final:
            self._parts.wait()
            left = {planned.trial for planned in self._left()}
            for trial in {planned.trial: None for planned in self.order}:
                if trial not in self._parts.written:
                    self._parts.write(trial, self._planned(trial), None if trial in left else self._failure(trial))
            self._parts.wait()
            self._parts.write_device()

    def _planned(self, trial: str) -> int:
        return sum(planned.trial == trial for planned in self.order)

    def _fail_the_rest(self, problem: FailedError) -> None:
        """Record the failure against every trial that it kept from running."""
        code = problem.code if isinstance(problem, AgentError) else "device_failed"
        advice = problem.advice if isinstance(problem, AgentError) else None
        self.state.progress.message(str(problem))
        for trial in {planned.trial: None for planned in self._left()}:
            self._dropped[trial] = Failure(code, str(problem), advice)
            self._repetition_ended(trial)
