"""Simulated phones: two thermal nodes, a governor that caps clocks, sensors. FAKE on purpose, and with known truth.

Used to check the analysis of sustained runs against truth over hundreds of random phones, and by the fake phones of
``fake:phone-N``. Nothing here is ever shown as a measurement of a real device.

Model (die d, case c), with parameter ranges from public fits and tear-downs of phones (docs/methodology.md):
  C_d dT_d/dt = P - (T_d - T_c) / R_dc
  C_c dT_c/dt = (T_d - T_c) / R_dc + P_other - (T_c - T_ambient) / R_ca
  P = P_full (f / f_max)^n (1 + leak (T_d - 25))
The governor is the kernel's step_wise: once a period, one step down while above a trip point and not falling, one step
up when below it by the hysteresis. An inference takes base_latency * f_max / f times log-normal noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]

STEP_S = 0.25
FIRST_CAP_S = 15.0


@dataclass(frozen=True)
class PhoneParameters:
    """Parameters of ``n`` phones, each field an array of length n. Units: degrees C, W, K/W, J/K, seconds."""

    ambient_c: Floats
    r_case_ambient: Floats
    c_case: Floats
    r_die_case: Floats
    c_die: Floats
    power_full_w: Floats
    power_other_w: Floats
    power_exponent: Floats
    skin_trip_c: Floats
    die_trip_c: Floats
    hysteresis_c: Floats
    period_s: Floats
    clock_steps: NDArray[np.int64]
    clock_floor: Floats
    base_latency_s: Floats
    noise_cv: Floats
    slow_noise_cv: Floats


def random_phones(count: int, seed: int) -> PhoneParameters:
    """Draw ``count`` phones; about a third of them never throttle.

    A phone that is capped in its first 15 s is drawn again: the field's fastest caps come after about 30 s, and a
    device that was hot when the run began has no baseline to be compared with.
    """
    rng = np.random.default_rng(seed)
    kept: list[PhoneParameters] = []
    while sum(len(batch.ambient_c) for batch in kept) < count:
        batch = _draw(count, rng)
        rested = simulate(batch, FIRST_CAP_S).clock.min(axis=1) > 0.999
        kept.append(PhoneParameters(*(getattr(batch, name)[rested] for name in PhoneParameters.__dataclass_fields__)))
    columns = (np.concatenate([getattr(b, name) for b in kept]) for name in PhoneParameters.__dataclass_fields__)
    return PhoneParameters(*(column[:count] for column in columns))


def _draw(count: int, rng: np.random.Generator) -> PhoneParameters:
    def between(low: float, high: float, log: bool = False) -> Floats:
        if log:
            return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), count)))
        return np.asarray(rng.uniform(low, high, count))

    tau_die = between(6, 35)
    r_die_case = between(3, 8)
    r_case = between(4, 7)
    return PhoneParameters(
        ambient_c=between(16, 35),
        r_case_ambient=r_case,
        c_case=between(160, 900, log=True) / r_case,
        r_die_case=r_die_case,
        c_die=tau_die / r_die_case,
        power_full_w=between(0.8, 8, log=True),
        power_other_w=between(0.6, 1.6),
        power_exponent=between(1.5, 3.5),
        skin_trip_c=between(38, 48),
        die_trip_c=between(68, 110),
        hysteresis_c=between(1.4, 5),
        period_s=np.asarray(rng.choice([0.25, 1.0, 2.0, 5.0, 7.0], count)),
        clock_steps=rng.integers(5, 32, count),
        clock_floor=between(0.25, 0.6),
        base_latency_s=between(0.005, 0.5, log=True),
        noise_cv=between(0.0004, 0.05, log=True),
        slow_noise_cv=between(0.0, 0.003),
    )


@dataclass(frozen=True)
class PhoneRun:
    """Trajectories of n phones on a grid of STEP_S: clock as a share of full (n x steps), temperatures in C."""

    clock: Floats
    die_c: Floats
    skin_c: Floats


def named_phone(number: int) -> tuple[str, PhoneParameters]:
    """Return what kind of phone ``fake:phone-NUMBER`` is and its parameters: six types by hand, then random ones.

    The six are shaped after devices of the literature: the fastest in the first minute are not so in the thirtieth.
    """
    if 1 <= number <= len(_NAMED):
        kind, *values = _NAMED[number - 1]
        columns: list[Any] = [np.array([value], np.float64) for value in values]
        return kind, replace(PhoneParameters(*columns), clock_steps=columns[12].astype(np.int64))
    return "random", random_phones(1, number)


_NAMED: tuple[tuple[Any, ...], ...] = (
    # kind, ambient, R case-air, C case, R die-case, C die, W full, W other, exponent, skin trip, die trip, hysteresis,
    # period, steps, floor, base latency, noise, slow noise
    ("thin flagship", 23, 6.0, 60, 5.0, 3.0, 7.5, 0.8, 2.2, 41.0, 95, 2.0, 7.0, 9, 0.55, 0.0090, 0.012, 0.001),
    ("gaming phone", 23, 4.0, 120, 3.5, 4.0, 6.5, 0.9, 2.4, 46.0, 95, 2.0, 7.0, 6, 0.86, 0.0110, 0.010, 0.001),
    ("flagship, cliff", 23, 5.5, 80, 6.0, 3.0, 7.0, 0.8, 2.0, 47.0, 80, 60.0, 5.0, 2, 0.36, 0.0100, 0.015, 0.001),
    ("mid-range phone", 23, 6.5, 70, 5.0, 4.0, 4.0, 0.8, 2.0, 43.0, 90, 2.0, 7.0, 8, 0.74, 0.0155, 0.020, 0.002),
    ("slow phone", 23, 6.0, 80, 6.0, 4.0, 1.6, 0.7, 1.8, 45.0, 95, 2.0, 1.0, 8, 0.50, 0.0200, 0.015, 0.001),
    ("tablet", 23, 3.0, 200, 4.0, 5.0, 4.0, 1.5, 2.2, 45.0, 95, 2.0, 1.0, 16, 0.50, 0.0140, 0.010, 0.001),
)


def simulate(phones: PhoneParameters, duration_s: float, demand_hz: float | None = None) -> PhoneRun:
    """Run all phones at full load from rest for ``duration_s``, or at a fixed rate of inferences (``demand_hz``)."""
    steps = round(duration_s / STEP_S) + 1
    count = len(phones.ambient_c)
    die = phones.ambient_c + phones.power_other_w * phones.r_case_ambient
    case = die.copy()
    skin = case.copy()
    state = np.zeros(count, dtype=np.int64)
    since_poll = np.zeros(count)
    last_die, last_skin = die.copy(), skin.copy()
    out = PhoneRun(*(np.empty((count, steps)) for _ in range(3)))
    inner = 5
    dt = STEP_S / inner
    for step in range(steps):
        share = 1.0 - (1.0 - phones.clock_floor) * state / (phones.clock_steps - 1)
        out.clock[:, step], out.die_c[:, step], out.skin_c[:, step] = share, die, skin
        power = phones.power_full_w * share**phones.power_exponent
        if demand_hz is not None:
            power = power * np.minimum(1.0, demand_hz * phones.base_latency_s / share)
        for _ in range(inner):
            flow = (die - case) / phones.r_die_case
            die = die + dt * (power * (1.0 + 0.003 * (die - 25.0)) - flow) / phones.c_die
            case = (
                case
                + dt * (flow + phones.power_other_w - (case - phones.ambient_c) / phones.r_case_ambient) / phones.c_case
            )
        skin = skin + STEP_S * (case - skin) / 4.0
        since_poll += STEP_S
        poll = since_poll >= phones.period_s - 1e-9
        since_poll[poll] = 0.0
        hot = ((die > phones.die_trip_c) & (die >= last_die)) | ((skin > phones.skin_trip_c) & (skin >= last_skin))
        cool = (die < phones.die_trip_c - phones.hysteresis_c) & (skin < phones.skin_trip_c - phones.hysteresis_c)
        state = np.where(poll & hot, np.minimum(state + 1, phones.clock_steps - 1), state)
        state = np.where(poll & cool & ~hot, np.maximum(state - 1, 0), state)
        last_die, last_skin = np.where(poll, die, last_die), np.where(poll, skin, last_skin)
    return out


def cooling(phones: PhoneParameters, run: PhoneRun, duration_s: float) -> PhoneRun:
    """Let all phones rest from where a run ended: no inference, no cap, what else they do goes on."""
    steps = round(duration_s / STEP_S) + 1
    die, case = run.die_c[:, -1].copy(), run.skin_c[:, -1].copy()
    skin = case.copy()
    out = PhoneRun(*(np.ones((len(die), steps)) for _ in range(3)))
    for step in range(steps):
        out.die_c[:, step], out.skin_c[:, step] = die, skin
        flow = (die - case) / phones.r_die_case
        out_w = (case - phones.ambient_c) / phones.r_case_ambient
        die = die - STEP_S * flow / phones.c_die
        case = case + STEP_S * (flow + phones.power_other_w - out_w) / phones.c_case
        skin = skin + STEP_S * (case - skin) / 4.0
    return out


def inferences(
    phones: PhoneParameters, run: PhoneRun, phone: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return (start_ns, latency_ns, noise-free latency in s) of back-to-back inferences of one phone.

    Noise is log-normal an inference, times a slow first-order autoregressive drift (30 s).
    """
    rng = np.random.default_rng(seed)
    clock = run.clock[phone]
    grid = np.arange(len(clock)) * STEP_S
    done = np.concatenate(([0.0], np.cumsum(clock[:-1] * STEP_S))) / phones.base_latency_s[phone]
    count = int(done[-1])
    starts = np.interp(np.arange(count), done, grid)
    true_s = np.diff(np.append(starts, np.interp(count, done, grid)))
    drift_steps = len(clock)
    drift = np.empty(drift_steps)
    level, keep = 0.0, np.exp(-STEP_S / 30.0)
    shocks = rng.normal(0.0, phones.slow_noise_cv[phone] * np.sqrt(1 - keep * keep), drift_steps)
    for index in range(drift_steps):
        level = keep * level + shocks[index]
        drift[index] = level
    noisy = true_s * np.exp(rng.normal(0.0, phones.noise_cv[phone], count) + np.interp(starts, grid, drift))
    return (starts * 1e9).astype(np.int64), np.maximum(1, noisy * 1e9).astype(np.int64), true_s


@dataclass(frozen=True)
class Truth:
    """What the analysis should find, from the noise-free latencies."""

    throttle_at_s: float | None
    slowdown: float


def truth_of(
    start_ns: NDArray[np.int64], true_s: Floats, base_latency_s: float, noise_cv: float, lasting_s: float = 30.0
) -> Truth:
    """Earliest time from which the noise-free latency is 10 % over its base, lastingly (median of half a minute).

    The slow-down is the population median of the last five minutes over the base: every latency with the whole
    distribution of its noise (61 quantiles), because the median of a sawtooth is not that of its noise-free levels.
    """
    since = start_ns / 1e9
    slow = true_s >= 1.10 * base_latency_s
    window_s = min(300.0, float(since[-1]) / 4)
    last = true_s[np.searchsorted(since, since[-1] - window_s) :]
    last = np.quantile(last, (np.arange(1001) + 0.5) / 1001, method="inverted_cdf")
    noise = np.exp(noise_cv * ndtri((np.arange(61) + 0.5) / 61))
    sustained = float(np.median(np.outer(last, noise)))
    at: float | None = None
    crossings = np.flatnonzero(slow & ~np.concatenate(([False], slow[:-1])))
    for index in crossings:
        stop = np.searchsorted(since, since[index] + lasting_s)
        if since[-1] - since[index] >= lasting_s / 3 and np.median(true_s[index:stop]) >= 1.10 * base_latency_s:
            at = float(since[index])
            break
    return Truth(at, sustained / base_latency_s)


def telemetry_rows(phones: PhoneParameters, run: PhoneRun, phone: int, full_khz: int = 3_000_000) -> list[list[Any]]:
    """Return telemetry rows as docs/protocol.md has them, at 2 Hz: temperatures, clock and its cap, thermal status."""
    rows: list[list[Any]] = []
    trip = phones.skin_trip_c[phone]
    for step in range(0, run.clock.shape[1], 2):
        t_ns = int(step * STEP_S * 1e9)
        khz = int(run.clock[phone, step] * full_khz)
        skin = run.skin_c[phone, step]
        rows.append([t_ns, "temperature_milli_c", "thermal_zone0:cpu-big", int(run.die_c[phone, step] * 1000)])
        rows.append([t_ns, "temperature_milli_c", "thermal_zone7:skin", int(skin * 10) * 100])
        rows.append([t_ns, "clock_khz", "policy4", khz])
        rows.append([t_ns, "clock_cap_khz", "policy4", khz])
        if step % 40 == 0:
            rows.append(
                [t_ns, "thermal_status", "skin", int(np.clip((skin - trip) // 2 + 1, 0, 3)) if skin > trip else 0]
            )
    return rows
