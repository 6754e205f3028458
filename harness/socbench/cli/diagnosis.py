"""Proves runtimes and delegates: one short session in a store of its own, its rows read as states."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socbench.plan import RunRequest
from socbench.records import DELEGATE_CLASSES, Failure, MeasuringSettings, Plan, TrialPlan, TrialRow
from socbench.session import DeviceProgress, LogProgress, Progress

PROOF_MODEL = "resnet8"
"""The smallest network of the zoo, with a reference to hold the answers against."""

_ONCE = MeasuringSettings(
    min_time_s=0.0, min_count=1, max_time_s=60.0, warmup_max_s=0.0, warmup_min_count=0
)  # fmt: skip
_WRONG = {"output_wrong", "output_not_finite", "output_constant"}


def diagnose(
    devices: Sequence[str], runtimes: Sequence[str], *, progress: Progress, argv: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Run the smallest network on every runtime and delegate of ``devices``, in every environment that has one.

    Returns the objects of ``doctor --json``. Answers are checked and nothing is timed: one inference is measured
    because a repetition must measure one. Emulated accelerators run too: their answers can be right.
    """
    from socbench import results
    from socbench.session import run_session

    request = RunRequest(
        targets=(PROOF_MODEL,), devices=tuple(devices), runtimes=tuple(runtimes), precisions=("fp32",),
        delegates=DELEGATE_CLASSES, scenarios=("single_stream",), repeat=1, settings=_ONCE,
        allow_emulated=True, every_environment=True, profile=False, argv=argv,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="socbench-doctor-") as folder:
        store = Path(folder)
        session = run_session(request, store=store, progress=_ProofProgress(progress)).session
        return [check(row) for row in results.trial_rows(store, session)]


class _ProofProgress(LogProgress):
    """The progress of a proof: its session is gone when it ends, so nobody is told the session's name."""

    def __init__(self, watcher: Progress) -> None:
        super().__init__()
        self._watcher = watcher

    def _line(self, text: str) -> None:
        self._watcher.message(text)

    def step(self, text: str) -> None:
        """Pass it on."""
        self._watcher.step(text)

    def planned(self, session: str, plan: Plan) -> None:
        """Say what is proved."""
        count = sum(trial.excluded is None for trial in plan.trials)
        self._watcher.step(f"running {PROOF_MODEL} on {count} runtimes and delegates")

    def update(self, state: DeviceProgress) -> None:
        """Pass it on."""
        self._watcher.update(state)

    def trial_ended(self, trial: TrialPlan, status: str, failure: Failure | None) -> None:
        """Say nothing: what failed is in the table, with its fix."""


def check(row: TrialRow) -> dict[str, Any]:
    """Return one object of ``doctor --json`` for a row of the proof."""
    state, reason, fix = _state(row)
    return {
        "device": row.device,
        "runtime": row.runtime,
        "runtime_version": row.runtime_version,
        "delegate": row.delegate,
        "environment": row.environment,
        "accelerator": row.accelerator,
        "state": state,
        "reason": reason,
        "fix": fix,
    }


def _state(row: TrialRow) -> tuple[str, str | None, str | None]:
    if row.status != "done":
        if row.error is None:
            return "unavailable", row.status, None
        # "gpu:cuda of onnxruntime is not available on local: ..." stands in a row that says that already.
        prefix = f"{row.delegate} of {row.runtime} is not available on {row.device}: "
        return "unavailable", row.error.message.removeprefix(prefix), row.error.advice
    reasons = {reason.code: reason for reason in row.reasons}
    wrong = next((reasons[code] for code in sorted(_WRONG) if code in reasons), None)
    if wrong is not None:
        return "wrong_answer", wrong.text, wrong.advice
    if row.delegation == "fell_back":
        # What was asked for did not run: for the one who asks, that is not there.
        fell = reasons.get("fell_back")
        return "unavailable", fell.text if fell else f"ran on {row.delegate_effective}", fell.advice if fell else None
    if "emulated" in reasons:
        return "emulated", reasons["emulated"].text, None
    if row.delegation == "partial":
        taken = f"{row.nodes_delegated} of {row.nodes_total} operations" if row.nodes_total else "a part"
        return "partial", f"takes {taken} of {row.model}", None
    return "works", None, None
