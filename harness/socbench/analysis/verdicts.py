"""Says whether a row can be trusted: ``valid``, ``suspect`` or ``invalid``, from a closed list of reasons.

Every limit below has its origin in docs/methodology.md. What could not be read never counts as good or bad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from socbench.analysis import statistics
from socbench.records import Fidelity, Json, Level, Reason, Verdict

DRIFT_LIMIT: Final = 0.05
BETWEEN_LIMIT: Final = 0.05
WITHIN_LIMIT: Final = 0.25
CPU_SHARE_LIMIT: Final = 0.97
RUN_DELAY_LIMIT: Final = 0.03
SWITCHES_PER_S_LIMIT: Final = 20.0
BACKGROUND_CORES_LIMIT: Final = 0.15
BACKGROUND_SHARE_LIMIT: Final = 0.03
QUOTA_LIMIT: Final = 0.01
CAP_LIMIT: Final = 0.99
THERMAL_STATUS_LIMIT: Final = 2
LOW_BATTERY_PERMILLE: Final = 200

ADVICE: Final[dict[str, tuple[Level, str]]] = {
    "charging": ("note", "unplug the device or measure over the network: charging heats the battery"),
    "temperature_unreadable": (
        "note",
        "nothing to do on this device; repeat the run later to see whether heat matters",
    ),
    "no_cool_down": ("note", "leave more time between repetitions, or run the rows that matter alone"),
    "precision_not_effective": ("note", "compare by the effective precision: this row ran another one than asked for"),
    "partial_delegation": ("note", "some operators ran elsewhere; use --require-full to refuse such rows"),
    "second_load": ("note", "compare it with rows beside the same load only; leave --busy-cores away to run alone"),
    "vendor_program": ("note", "use --agent native or python to have every latency and the answers checked"),
    "single_repetition": ("note", "use --repeat 5: one repetition has no interval"),
    "shell_process": ("note", "apps may be scheduled otherwise than a shell's process; compare shell with shell only"),
    "few_samples": ("suspect", "raise --min-time or choose a smaller model: too few inferences fit into the time"),
    "not_steady": ("suspect", "let the device idle, then repeat; timings still moved when warming up had to end"),
    "drifting": ("suspect", "let the device cool and close other programs, then repeat; see also socbench sustained"),
    "noisy": ("suspect", "close other programs, fix the cores with --cores, use --repeat 10"),
    "multimodal": ("suspect", "fix the cores with --cores; two speeds mostly mean two kinds of core or two clocks"),
    "throttled": ("suspect", "let the device cool, take it out of its case; measure heat with socbench sustained"),
    "clocks_capped": ("suspect", "let the device cool and switch power saving off, then repeat"),
    "preempted": ("suspect", "close other programs or use fewer threads than there are cores, then repeat"),
    "background_load": ("suspect", "close what else runs on the device, then repeat"),
    "cpu_quota": ("suspect", "lift the CPU limit of the container or use fewer threads"),
    "threads_not_effective": ("suspect", "choose a number of threads that the runtime takes; it did not take this one"),
    "low_battery": ("suspect", "charge the device over 20 %: below it many save power"),
    "battery_saver": ("suspect", "switch battery saver off, then repeat"),
    "power_changed": ("suspect", "leave the cable as it is during a run, then repeat"),
    "debug_build": ("suspect", "use a release build of the runtime"),
    "fell_back": ("invalid", "see socbench doctor for why the delegate did not take the model; measure cpu as cpu"),
    "output_wrong": ("invalid", "do not ship this combination; try another precision or delegate"),
    "output_not_finite": ("invalid", "do not ship this combination; fp16 that overflows is a frequent cause"),
    "output_constant": ("invalid", "do not ship this combination; the delegate computes nothing"),
    "emulated": ("invalid", "measure on the real accelerator: an emulated one proves answers, not speed"),
    "clock_jump": ("invalid", "keep the device awake and its clock alone, then repeat"),
    "interrupted": ("invalid", "finish it with socbench run --resume SESSION"),
}
"""The closed list: code -> level and advice."""


@dataclass(frozen=True)
class RepetitionFacts:
    """What is known of one finished repetition; members as in the table ``repetitions``, ``None`` unknown."""

    repetition: int
    shape: statistics.Shape | None = None
    measured_ns: int | None = None
    measured_count: int | None = None
    stopped_by: str | None = None
    warmup_steady: bool | None = None
    cpu_ns: int | None = None
    involuntary_switches: int | None = None
    busy_ns: int | None = None
    quota_throttled_ns: int | None = None
    run_delay_ns: int | None = None
    second_load_ns: int | None = None
    clock_jump_ns: int | None = None
    threads_effective: int | None = None
    emulated: bool | None = None
    delegation: str | None = None
    delegate_effective: str | None = None
    nodes_total: int | None = None
    nodes_delegated: int | None = None
    precision_effective: str | None = None
    power_before: Json = field(default_factory=dict)
    power_after: Json = field(default_factory=dict)
    cool_down: Json = field(default_factory=dict)
    details: Json = field(default_factory=dict)


@dataclass(frozen=True)
class TrialFacts:
    """All that a verdict is made from. ``lowest_cap``: lowest clock cap during the trial over the highest seen;
    ``busy_cores``: the second load that was asked for; ``program``: the vendor's that measured instead of an agent."""

    status: str
    scenario: str
    device: str
    delegate: str
    precision: str
    threads: int
    repetitions: tuple[RepetitionFacts, ...] = ()
    device_cores: int | None = None
    device_emulated: bool = False
    min_count: int | None = None
    busy_cores: int | None = None
    lowest_cap: float | None = None
    capped_source: str | None = None
    highest_thermal_status: int | None = None
    temperature_seen: bool | None = None
    fidelity: Fidelity | None = None
    program: str | None = None


Found = Iterator[tuple[str, str]]


def verdict(facts: TrialFacts) -> Verdict | None:
    """Return the verdict of a row that ran; ``None`` for one that failed or was left out."""
    if facts.status not in ("done", "interrupted"):
        return None
    timed = facts.scenario != "accuracy"
    checks: list[Callable[[TrialFacts], Found]] = [_output, _execution]
    if timed:
        checks += [_samples, _contention, _heat, _power]
    reasons = [
        Reason(code, _level(code, facts), text, ADVICE[code][1]) for check in checks for code, text in check(facts)
    ]
    order = {"invalid": 0, "suspect": 1, "note": 2}
    reasons.sort(key=lambda reason: (order[reason.level], list(ADVICE).index(reason.code)))
    levels = {reason.level for reason in reasons}
    named: Literal["valid", "suspect", "invalid"] = (
        "invalid" if "invalid" in levels else "suspect" if "suspect" in levels else "valid"
    )
    return Verdict(named, tuple(reasons))


def _level(code: str, facts: TrialFacts) -> Level:
    """A sustained run that was cut is true as far as it goes; half a set of repetitions is not what was asked for."""
    return "suspect" if code == "interrupted" and facts.scenario == "sustained" else ADVICE[code][0]


def _output(facts: TrialFacts) -> Found:
    found = facts.fidelity
    if found is None:
        return
    if not found.finite:
        yield "output_not_finite", "an output holds NaN or infinity"
    elif found.constant:
        yield "output_constant", "the output is one number throughout, the reference's is not"
    elif found.within_tolerance is False:
        numbers = {"cosine": found.cosine, "max relative difference": found.max_relative}
        numbers["top-1 agreement"] = found.top1_agreement
        said = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if value is not None)
        yield (
            "output_wrong",
            f"outputs differ from the reference beyond the card's tolerance ({said or 'another size'})",
        )


def _execution(facts: TrialFacts) -> Found:
    done = facts.repetitions
    if facts.status == "interrupted":
        lasting = facts.scenario == "sustained"
        ended = "cut before its end: what was measured until then is analysed"
        yield "interrupted", ended if lasting else f"ended after {len(done)} finished repetitions"
    if any(one.delegation == "fell_back" for one in done):
        ran = next((one.delegate_effective for one in done if one.delegation == "fell_back"), None)
        yield "fell_back", f"{facts.delegate} was asked for, {ran or 'something else'} ran"
    elif any(one.delegation == "partial" for one in done):
        one = next(one for one in done if one.delegation == "partial")
        counts = f"{one.nodes_delegated} of {one.nodes_total} nodes" if one.nodes_total else "a part of the nodes"
        yield "partial_delegation", f"{facts.delegate} took {counts}"
    if facts.device_emulated or any(one.emulated for one in done):
        yield "emulated", "the device or its accelerator is emulated in software"
    other = {one.precision_effective for one in done} - {None, facts.precision}
    if other:
        ran_at = ", ".join(sorted(str(precision) for precision in other))
        yield "precision_not_effective", f"{facts.precision} was asked for, {ran_at} was executed"
    threads = {one.threads_effective for one in done} - {None, facts.threads}
    if threads:
        ran_with = ", ".join(sorted(str(number) for number in threads))
        yield "threads_not_effective", f"{facts.threads} threads were asked for, {ran_with} used"
    if any(one.details.get("debug_build") is True for one in done):
        yield "debug_build", "the runtime is a debug build"
    if facts.program is not None:
        yield "vendor_program", f"{facts.program} measured itself; nobody saw its answers or when an inference began"
    if facts.device.startswith(("adb:", "adb-direct:")):
        yield "shell_process", "ran as a process of the shell, not of an app"


def _samples(facts: TrialFacts) -> Found:
    shapes = [one.shape for one in facts.repetitions if one.shape is not None]
    jumps = [one.clock_jump_ns for one in facts.repetitions if one.clock_jump_ns]
    if jumps:
        yield "clock_jump", f"the device's clock jumped by {max(jumps) / 1e9:.1f} s: it slept or its clock was set"
    if not shapes:
        return
    fewest = min(shape.count for shape in shapes)
    if facts.min_count is not None and fewest < facts.min_count:
        yield "few_samples", f"{fewest} inferences in a repetition, {facts.min_count} were wanted"
    steady = [one.warmup_steady for one in facts.repetitions if one.warmup_steady is not None]
    if steady.count(False) * 2 > len(steady):
        yield "not_steady", f"timings still moved at the end of warming up in {steady.count(False)} of {len(steady)}"
    if len(shapes) == 1 and facts.scenario == "single_stream":
        yield "single_repetition", "one repetition, so there is no interval"
    if facts.scenario == "sustained":
        return  # how a long run changes is its result, not its flaw
    yield from _unsteady(shapes)


def _unsteady(shapes: list[statistics.Shape]) -> Found:
    drifts = sorted(shape.drift for shape in shapes)
    middle = (
        drifts[len(drifts) // 2] if len(drifts) % 2 else (drifts[len(drifts) // 2 - 1] + drifts[len(drifts) // 2]) / 2
    )
    one_way = max(sum(drift > 0 for drift in drifts), sum(drift < 0 for drift in drifts))
    if abs(middle) > DRIFT_LIMIT and one_way >= 0.8 * len(drifts):
        yield "drifting", f"latency changed by {middle:+.0%} within a repetition"
    between = statistics.between([shape.median_ns for shape in shapes])
    within = sorted(shape.spread for shape in shapes)[len(shapes) // 2]
    if between is not None and between > BETWEEN_LIMIT:
        yield "noisy", f"repetitions differ by {between:.0%} (standard deviation)"
    elif within > WITHIN_LIMIT:
        yield "noisy", f"the middle half of the latencies spreads over {within:.0%} of the median"
    double = [shape for shape in shapes if shape.modes > 1]
    if 2 * len(double) >= len(shapes) and double:
        gap = max(shape.mode_gap for shape in double)
        apart = f"{gap:.0%} apart" if gap < 1 else f"a factor of {1 + gap:.0f} apart"
        yield "multimodal", f"latencies lie at two levels, {apart}"


def _contention(facts: TrialFacts) -> Found:
    timed = [one for one in facts.repetitions if one.measured_ns]
    wall = sum(one.measured_ns or 0 for one in timed)
    if not wall:
        return
    switches = [one.involuntary_switches for one in timed if one.involuntary_switches is not None]
    rate = sum(switches) / (wall / 1e9)
    # Only a single-threaded run on the CPU is known to want a whole core all the time.
    alone = facts.threads == 1 and facts.delegate.startswith("cpu")
    share = sum(one.cpu_ns or 0 for one in timed) / wall if all(one.cpu_ns is not None for one in timed) else None
    waits = [one.run_delay_ns for one in timed if one.run_delay_ns is not None]
    waited = sum(waits) / wall
    if facts.busy_cores:  # it is to share its cores: that it does is no flaw
        yield "second_load", second_load_words(facts.busy_cores, second_load_cores(timed))
    elif len(waits) == len(timed) and waited > RUN_DELAY_LIMIT * facts.threads:
        yield "preempted", f"waited for a core for {waited / facts.threads:.0%} of the time"
    elif switches and rate > SWITCHES_PER_S_LIMIT * facts.threads:
        yield "preempted", f"was put aside {rate:.0f} times a second for other processes"
    elif alone and share is not None and share < CPU_SHARE_LIMIT and facts.scenario == "single_stream":
        yield "preempted", f"had a core for {share:.0%} of the time"
    if all(one.busy_ns is not None and one.cpu_ns is not None for one in timed):
        others = sum((one.busy_ns or 0) - (one.cpu_ns or 0) - (one.second_load_ns or 0) for one in timed) / wall
        limit = max(BACKGROUND_CORES_LIMIT, BACKGROUND_SHARE_LIMIT * (facts.device_cores or 0))
        if others > limit:
            yield "background_load", f"other processes kept {others:.1f} cores busy"
    quota = sum(one.quota_throttled_ns or 0 for one in timed) / wall
    if quota > QUOTA_LIMIT:
        yield "cpu_quota", f"a CPU quota stopped it for {quota:.0%} of the time"


def second_load_cores(repetitions: Sequence[RepetitionFacts]) -> float | None:
    """Return how many cores the second load kept busy on average while it was measured, ``None`` if nobody counted."""
    wall = sum(one.measured_ns or 0 for one in repetitions)
    if not wall or any(one.second_load_ns is None for one in repetitions):
        return None
    return sum(one.second_load_ns or 0 for one in repetitions) / wall


def second_load_words(asked: int, had: float | None) -> str:
    """Return what ran beside a row."""
    processes = f"{asked} busy process{'' if asked == 1 else 'es'}"
    kept = "how busy they were is not known" if had is None else f"on average {had:.1f} cores were busy with them"
    return f"ran beside a second load of {processes}; {kept}"


def _heat(facts: TrialFacts) -> Found:
    if facts.temperature_seen is False:
        waits = [one.cool_down.get("waited_ns") for one in facts.repetitions if _unread(one)]
        waited_s = max((wait for wait in waits if isinstance(wait, int)), default=0) / 1e9
        instead = f"; {waited_s:.0f} s were waited before a repetition instead" if waited_s >= 0.5 else ""
        yield "temperature_unreadable", f"no temperature could be read on this device{instead}"
    given_up = [one for one in facts.repetitions if one.cool_down.get("outcome") == "timeout"]
    if given_up:
        yield (
            "no_cool_down",
            f"{len(given_up)} of {len(facts.repetitions)} repetitions started before it had cooled down",
        )
    if facts.scenario == "sustained":
        return
    status = facts.highest_thermal_status
    if status is not None and status >= THERMAL_STATUS_LIMIT:
        yield "throttled", f"the system reported thermal status {status}"
    if facts.lowest_cap is not None and facts.lowest_cap < CAP_LIMIT:
        where = f" ({facts.capped_source})" if facts.capped_source else ""
        yield "clocks_capped", f"a clock was capped at {facts.lowest_cap:.0%} of its highest{where}"


def _unread(one: RepetitionFacts) -> bool:
    return one.cool_down.get("outcome") in ("unreadable", "fixed")


def _power(facts: TrialFacts) -> Found:
    states = [state for one in facts.repetitions for state in (one.power_before, one.power_after) if state]
    sources = {state["source"] for state in states if state.get("source")}
    if len(sources) > 1:
        yield "power_changed", f"power came from {' and '.join(sorted(map(str, sources)))} in turn"
    charge = [state["battery_permille"] for state in states if isinstance(state.get("battery_permille"), int)]
    if charge and sources & {"ac", "usb", "wireless"}:
        yield "charging", f"the device was on power ({', '.join(sorted(map(str, sources)))}) with a battery in it"
    if charge and min(charge) < LOW_BATTERY_PERMILLE:
        yield "low_battery", f"the battery was at {min(charge) / 10:.0f} %"
    if any(state.get("battery_saver") is True for state in states):
        yield "battery_saver", "battery saver was on"
