"""Sustained runs: what is asked for, what telemetry adds, which readings count, deadlines, energy, cut runs."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from scripted_session import Script, plan, write_session
from socbench import results
from socbench.analysis.cooling import believed, cool_down, covers, rest
from socbench.analysis.energy import device_times, energy_of, parse_power_log
from socbench.analysis.thermal_causes import cause_of
from socbench.analysis.throttling import analyse_sustained, deadlines
from socbench.cli.progress import device_line
from socbench.cli.sustained import celsius, duration, rate
from socbench.errors import StoreError, UsageError
from socbench.matrix import settings_of
from socbench.plan import RunRequest
from socbench.records import MeasuringSettings, TelemetrySeries
from socbench.render.sentences import answer
from socbench.session.power_log import check_power_log
from socbench.session.progress import DeviceProgress
from socbench.session.sustained import SustainedWatch, bytes_needed, check_store_room

S = 1_000_000_000
MS = 1_000_000
ROOT = Path(__file__).resolve().parents[2]


def telemetry_module(root: str = "") -> ModuleType:
    path = ROOT / "device_agents" / "python" / "telemetry.py"
    spec = importlib.util.spec_from_file_location("telemetry_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = root  # type: ignore[attr-defined]
    return module


def series(kind: str, seconds: Any, values: Any, source: str = "thermal_zone0:cpu") -> TelemetrySeries:
    t_ns = (np.asarray(seconds, float) * S).astype(np.int64)
    return TelemetrySeries("local", kind, source, t_ns, np.asarray(values, np.int64))


# What is asked for


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1h", 3600), ("24h", 86_400)])
def test_a_duration_is_read_with_its_unit(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0m", "0.5s", "365d", "8760h", "-10m", "ten", ""])
def test_a_duration_of_nothing_or_of_a_year_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        duration(text)


def test_rates_and_temperatures_that_make_no_sense_are_refused() -> None:
    assert (rate("30"), celsius("45"), celsius("45C")) == (30.0, 45.0, 45.0)
    for reader, text in (
        (rate, "0"),
        (rate, "nan"),
        (rate, "fast"),
        (celsius, "4"),
        (celsius, "128"),
        (celsius, "hot"),
    ):
        with pytest.raises(typer.BadParameter):
            reader(text)


def test_a_sustained_run_ends_by_its_time_and_begins_cold() -> None:
    request = RunRequest(duration_s=1800.0, max_temperature_c=44.5)
    settings = settings_of(request, None, "sustained")
    assert (settings.min_time_s, settings.max_time_s, settings.min_count) == (1800, 1800, 1)
    assert settings.max_count == 1_000_000_000
    assert settings.warmup_max_s == 2.0
    assert settings.max_temperature_milli_c == 44_500


def test_room_is_asked_for_before_anything_runs(tmp_path: Path) -> None:
    trial = plan(scenario="sustained", settings=MeasuringSettings(min_time_s=1800.0))
    assert bytes_needed([trial], 14) == 1800 * (1000 * 14 + 4000)
    assert bytes_needed([replace(trial, scenario="single_stream")], 14) == 0
    check_store_room(tmp_path, [trial])
    with pytest.raises(StoreError, match=r"MB free and this run may need 97200000 MB: make room"):
        check_store_room(tmp_path, [replace(trial, settings=MeasuringSettings(min_time_s=1800e6))])


# Telemetry


def test_a_temperature_limit_believes_no_stuck_sensor() -> None:
    limit = telemetry_module().HeatLimit(45_000)
    stuck = ["temperature_milli_c", "thermal_zone1:cpu", 100_000]
    assert limit.reached([[0, *stuck], [0, "temperature_milli_c", "thermal_zone0:cpu", 44_000]]) is None
    assert limit.reached([[1, *stuck], [1, "temperature_milli_c", "thermal_zone0:cpu", 128_000]]) is None
    assert limit.reached([[2, *stuck], [2, "temperature_milli_c", "thermal_zone0:cpu", None, "gone"]]) is None
    assert limit.reached([[3, *stuck], [3, "temperature_milli_c", "thermal_zone0:cpu", 45_000]]) == (
        "thermal_zone0:cpu",
        45_000,
    )


def test_a_temperature_limit_looks_at_the_skin_where_there_is_one() -> None:
    limit = telemetry_module().HeatLimit(42_000)
    for second, (die, skin) in enumerate([(40_000, 30_000), (80_000, 35_000), (85_000, 41_900)]):
        rows = [[second, "temperature_milli_c", "cpu", die], [second, "temperature_milli_c", "skin", skin]]
        assert limit.reached(rows) is None
    assert limit.reached([[9, "temperature_milli_c", "skin", 42_000]]) == ("skin", 42_000)


@pytest.mark.parametrize(
    ("cgroup", "folder", "stat", "micro"),
    [
        ("0::/app/one\n", "sys/fs/cgroup", "usage_usec 9\nnr_throttled 3\nthrottled_usec 1234\n", 1234),
        ("4:memory:/x\n1:cpu,cpuacct:/app/one\n", "sys/fs/cgroup/cpu,cpuacct", "throttled_time 5678000\n", 5678),
    ],
)
def test_quotas_are_read_in_both_versions_of_cgroups(
    tmp_path: Path, cgroup: str, folder: str, stat: str, micro: int
) -> None:
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/cgroup").write_text(cgroup)
    group = tmp_path / folder / "app/one"
    group.mkdir(parents=True)
    (tmp_path / folder / "cgroup.procs").write_text("")
    (group / "cpu.stat").write_text(stat)
    assert telemetry_module(str(tmp_path)).throttled_us(77) == {"/app/one": micro}


@pytest.mark.parametrize(
    ("text", "ppm"),
    [("Headroom in 0 seconds: 0.53\n", 530_000), ("Headroom in 0 seconds: NaN\n", None), ("Unknown command", None)],
)
def test_headroom_is_read_from_the_thermal_service(text: str, ppm: int | None) -> None:
    assert telemetry_module().parse_headroom(text) == ppm


def test_time_in_state_is_told_when_it_has_grown(tmp_path: Path) -> None:
    file = tmp_path / "sys/devices/system/cpu/cpufreq/policy4/stats/time_in_state"
    file.parent.mkdir(parents=True)
    file.write_text("600000 12\n1800000 5\n")
    module = telemetry_module(str(tmp_path))
    meter = module.Meter()
    first = [row for row in meter.slow_rows(1) if row[1] == "time_in_state_ms"]
    assert first == [[1, "time_in_state_ms", "policy4:600000", 120], [1, "time_in_state_ms", "policy4:1800000", 50]]
    file.write_text("600000 12\n1800000 9\n")
    again = [row for row in meter.slow_rows(2) if row[1] == "time_in_state_ms"]
    assert again == [[2, "time_in_state_ms", "policy4:1800000", 90]]


# Which readings can be believed


def test_nonsense_readings_are_left_out_and_the_rest_stays() -> None:
    found = believed(series("temperature_milli_c", range(6), [30_000, 0, -274_000, 31_000, 128_000, 32_000]))
    assert found.value.tolist() == [30_000, 31_000, 32_000]
    assert believed(series("temperature_milli_c", range(9), [40_000] * 9)).value.tolist() == []
    clocks = series("clock_khz", range(3), [0, 5, 0])
    assert believed(clocks) is clocks


def test_a_change_of_unit_is_left_out_until_it_changes_back() -> None:
    values = [30_000, 31_000, 32, 33, 34_000, 3_400, 35_000]
    assert believed(series("temperature_milli_c", range(7), values)).value.tolist() == [30_000, 31_000, 34_000, 35_000]


def test_a_sensor_that_vanishes_half_way_gives_no_rise() -> None:
    start, latency = np.arange(6000) * 10 * MS, np.full(6000, 10 * MS)
    whole = series("temperature_milli_c", range(60), 30_000 + 100 * np.arange(60))
    half = series("temperature_milli_c", range(30), 30_000 + 900 * np.arange(30))
    assert not covers(half, 0, 60 * S)
    assert analyse_sustained(start, latency, (half,)).temperature_rise_milli_c is None
    assert analyse_sustained(start, latency, (half, whole)).temperature_rise_milli_c == pytest.approx(5700, abs=400)


def test_a_cool_down_has_its_time_constant() -> None:
    t = np.arange(0, 600, 2.0)
    falling = series("temperature_milli_c", t, 30_000 + 15_000 * np.exp(-t / 120))
    found = cool_down(falling, 0, 600 * S)
    assert found is not None
    assert found.tau_s == pytest.approx(120, rel=0.1)
    assert found.end_milli_c == pytest.approx(30_000, abs=300)
    assert cool_down(series("temperature_milli_c", t, 30_000 + 10 * t), 0, 600 * S) is None


def test_what_cools_down_most_after_a_run_is_told_with_how_far_and_how_fast() -> None:
    t = np.arange(0, 600, 2.0)
    skin = series("temperature_milli_c", t, 30_000 + 8_000 * np.exp(-t / 240), "skin")
    die = series("temperature_milli_c", t, 32_000 + 40_000 * np.exp(-t / 60), "die")
    lies = series("temperature_milli_c", t, np.where(t < 300, 128_000, 0), "broken")
    found = rest((skin, lies, die), 0, 600 * S)
    assert found is not None
    assert (found.source, found.fall_milli_c) == ("die", pytest.approx(40_000, abs=10))
    assert (found.tau_s, found.end_milli_c) == (pytest.approx(60, rel=0.1), pytest.approx(32_000, abs=300))
    assert rest((skin,), 595 * S, 600 * S) is None, "a few seconds tell nothing"
    assert rest((lies,), 0, 600 * S) is None


# Slow-downs


def test_short_inferences_that_are_held_back_in_between_are_found_by_their_pace() -> None:
    """A quota stops a process for half of every 100 ms: of 1 ms inferences one in fifty sees it, the median never."""
    free = np.arange(120_000) * MS
    held = 120 * S + (np.arange(60_000) // 50) * 100 * MS + (np.arange(60_000) % 50) * MS
    start = np.concatenate([free, held])
    counter = series("quota_throttled_us", range(240), [max(0, t - 120) * 500_000 for t in range(240)], "cgroup:/x")
    found = analyse_sustained(start, np.full(len(start), MS), (counter,))
    assert found.slowdown == pytest.approx(1.0)
    assert found.pace_slowdown == pytest.approx(2.0, rel=0.01)
    assert found.throttle_at_s == pytest.approx(120, abs=1)
    assert (found.cause, found.throttled) == ("cpu_quota", False)


def test_a_slow_start_is_passed_over_and_a_fast_one_leaves_nothing_to_compare_with() -> None:
    def levels(*parts: tuple[int, int]) -> tuple[Any, Any]:
        latency = np.concatenate([np.full(1000 * seconds // ms, ms * MS) for seconds, ms in parts])
        return np.concatenate(([0], np.cumsum(latency)[:-1])), latency

    slow = analyse_sustained(*levels((4, 20), (80, 10), (80, 15)))
    assert (slow.baseline_p50_ns, slow.baseline_s) == (10 * MS, pytest.approx(60, abs=1))
    assert slow.throttle_at_s == pytest.approx(84, abs=1)
    assert analyse_sustained(*levels((4, 10), (80, 20), (80, 30))).baseline_p50_ns is None


def test_a_clock_that_falls_without_a_limit_is_believed_unless_the_run_is_paced() -> None:
    clock = series("clock_khz", range(240), [3_000_000] * 120 + [2_000_000] * 120, "policy4")
    assert cause_of(120 * S, (clock,))[0] == "clock_cap"
    assert cause_of(120 * S, (clock,), paced=True)[0] == "unknown"
    assert cause_of(60 * S, (clock,))[0] == "unknown"


def test_other_load_must_stand_out_of_what_was_there() -> None:
    rng = np.random.default_rng(1)
    noisy = series("other_busy_permille", range(240), rng.integers(0, 300, 240), "cpu")
    assert cause_of(120 * S, (noisy,))[0] == "unknown"
    steps = [10] * 120 + [60] * 120
    assert cause_of(120 * S, (series("other_busy_permille", range(240), steps, "cpu"),))[0] == "contention"


def test_deadlines_are_counted_with_the_frames_that_were_dropped() -> None:
    # 10 a second: slots 0, 1, 2 (late), 4 (3 was dropped), 5 too slow.
    start = np.array([0, 100, 230, 400, 500]) * MS
    late = np.array([0, 0, 30, 0, 0]) * MS
    latency = np.array([50, 50, 80, 50, 120]) * MS
    found = deadlines(start, latency, late, 10.0)
    assert (found.deadlines, found.deadlines_missed) == (6, 3)
    assert found.deadline_missed_share == 0.5
    assert found.rate_achieved_hz == pytest.approx(5 / 0.62)


# Energy


def test_energy_counters_wrap_round_and_sub_domains_are_left_out() -> None:
    value = np.arange(100) * 5_000_000
    value[60:] -= 290_000_000
    packages = series("energy_uj", range(100), value, "intel-rapl:0:package-0")
    core = series("energy_uj", range(100), np.arange(100) * 9_000_000, "intel-rapl:0:0:core")
    found = energy_of((core, packages), 0, 99 * S, 990)
    assert found is not None
    assert (found.scope, found.trust, found.average_power_uw) == ("cpu package", "measured", 5_000_000.0)
    assert found.energy_per_inference_uj == pytest.approx(500_000)


def test_a_gpu_is_added_to_the_cpu_package_and_the_rails_of_a_phone_to_each_other() -> None:
    package = series("energy_uj", range(100), np.arange(100) * 5_000_000, "intel-rapl:0:package-0")
    gpus = [
        series("power_uw", range(100), [power] * 100, f"nvml:gpu{n}:X")
        for n, power in enumerate((7_000_000, 2_000_000))
    ]
    rails = [series("energy_uj", range(0, 100, 10), np.arange(10) * step, f"odpm:iio:device0:RAIL{step}")
             for step in (1_000_000, 3_000_000)]  # fmt: skip

    def found(*given: Any) -> tuple[str, str, float]:
        energy = energy_of(given, 0, 99 * S, 990)
        assert energy is not None
        return energy.scope, energy.trust, energy.average_power_uw

    assert found(package, *gpus) == ("cpu package and gpu", "measured", 14_000_000.0)
    assert found(*gpus) == ("gpu", "measured", 9_000_000.0)
    assert found(*rails) == ("2 rails", "measured", pytest.approx(400_000))
    assert energy_of((gpus[0],), 0, 500 * S, 990) is None, "a fifth of the run says nothing of it"


def test_a_battery_gauge_is_trusted_from_ten_minutes_on_and_never_on_a_charger() -> None:
    def gauge(seconds: int, charging: bool | None) -> tuple[str, float]:
        t = range(0, seconds, 10)
        current, voltage = [series(k, t, [v] * len(t), "battery") for k, v in
                            (("battery_ua", -500_000), ("battery_uv", 4_000_000))]  # fmt: skip
        found = energy_of((current, voltage), 0, seconds * S, 100, charging=charging)
        assert found is not None
        return found.trust, found.average_power_uw

    assert gauge(900, False) == ("indicative", 2_000_000.0)
    assert gauge(300, False)[0] == "not_trusted"
    assert gauge(900, True)[0] == "not_trusted"


def test_a_meter_comes_before_a_rail_and_a_rail_before_the_gauge() -> None:
    t = range(100)
    meter = series("power_uw", t, [7_000_000] * 100, "external:meter.csv")
    rail = series("power_uw", t, [3_000_000] * 100, "hwmon1:ina3221:VDD_CPU")
    whole = series("power_uw", t, [5_000_000] * 100, "hwmon1:ina3221:VDD_IN")
    for given, scope, power in (
        ((rail, whole, meter), "device", 7_000_000.0),
        ((rail, whole), "device", 5_000_000.0),
        ((rail,), "rail VDD_CPU", 3_000_000.0),
    ):
        found = energy_of(given, 0, 99 * S, 10)
        assert found is not None
        assert (found.scope, found.average_power_uw) == (scope, power)
    assert energy_of((), 0, S, 1) is None
    assert energy_of((meter,), 0, 500 * S, 10) is None, "a log of a fifth of the run says nothing of it"


def test_a_power_log_is_read_and_its_faults_are_named() -> None:
    wall, power = parse_power_log("time,watts\n1700000000.5,2.5\n2023-11-14T22:13:21Z,3\n", "m.csv")
    assert wall.tolist() == [1_700_000_000_500_000_000, 1_700_000_001_000_000_000]
    assert power.tolist() == [2_500_000, 3_000_000]
    assert parse_power_log("1700000000,-0.05\n", "m.csv")[1].tolist() == [0], "a meter's offset"
    for text, said in (
        ("12,2.5\n", "line 1: '12' is no time"),
        ("2023-11-14T22:13:21,3\n", "is no time"),
        ("1700000000,lots\n", "line 1: 'lots' is no power in watts"),
        ("1700000000,nan\n", "line 1: 'nan' is no power in watts"),
        ("1700000000,1e9\n", "line 1: '1e9' is no power in watts"),
        ("1700000000,2\n1700000001,-2\n", "line 2: -2 W is negative: swap the meter's leads"),
        ("watts,time\n2.5,1700000000\n", "line 2: '2.5' is no time"),
        ("1700000000," + "9" * 200_000, "line 1: this is no CSV .*: lines must be time,watts"),
        ("\0\0\0", "holds no reading"),
        ("1700000000\n", "is not time,watts"),
        ("1700000009,1\n1700000000,1\n", "reading 2 is earlier"),
        ("time,watts\n", "holds no reading"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_power_log(text, "m.csv")


def test_a_power_log_that_is_not_there_or_has_two_devices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there: name the file that the meter writes"):
        check_power_log(tmp_path / "no.csv", ("local",))
    log = tmp_path / "log.csv"
    log.write_text("")
    check_power_log(log, ("local",))
    with pytest.raises(UsageError, match="name one device, not 2"):
        check_power_log(log, ("local", "ssh:board"))


def test_times_of_day_are_placed_by_the_nearest_pair_of_clocks() -> None:
    pairs = [(10 * S, 1000 * S), (70 * S, 1060 * S), (130 * S, 5120 * S)]  # the clock was set forward by 4000 s
    found = device_times(np.array([1001 * S, 1059 * S, 5121 * S]), pairs)
    assert (found // S).tolist() == [11, 69, 131]
    assert device_times(np.array([1001 * S]), pairs[:1]).tolist() == [11 * S]


# While it runs, and when it is cut


def test_the_live_line_knows_latency_slow_down_and_time_left() -> None:
    watch = SustainedWatch(plan(scenario="sustained", settings=MeasuringSettings(min_time_s=60.0)))
    for second in range(31):
        watch.samples(second * S, b"[%d,%d,%d]" % ((10, 10, 99) if second < 20 else (20, 20, 99)))  # type: ignore[arg-type]
    assert watch.latency_ns == 20
    assert watch.slowdown == 2.0
    assert watch.left_s == 30.0
    watch.samples(40 * S, b'["nonsense"]')  # type: ignore[arg-type]
    assert watch.left_s == 30.0


def test_the_live_line_says_whether_heat_holds_the_device_back_and_what_runs_beside_it() -> None:
    trial = plan(model="m", scenario="sustained", settings=MeasuringSettings(min_time_s=60.0, busy_cores=2))
    watch = SustainedWatch(trial)
    for second in range(20):
        watch.samples(second * S, b"[10,10,10]")  # type: ignore[arg-type]
    watch.telemetry(b'[[0,"clock_cap_khz","policy4",3000000],[0,"thermal_status","x",0],["nonsense"]]')  # type: ignore[arg-type]
    assert watch.throttled == ""
    watch.telemetry(b'[[1,"clock_cap_khz","policy4",1650000]]')  # type: ignore[arg-type]
    assert watch.throttled == "clock limit lowered to 1.65 GHz"
    watch.telemetry(b'[[2,"clock_cap_khz","policy4",3000000],[2,"thermal_status","x",2]]')  # type: ignore[arg-type]
    assert watch.throttled == "thermal status 2"
    state = DeviceProgress(
        "local", "measure", 0, 1, trial, 1, 5.0, 41_000, 40.0, "", 10e6, 1.2, "clock limit lowered to 1.65 GHz"
    )
    told = "10.0 ms, 1.20 times as slow, throttled: clock limit lowered to 1.65 GHz, 2 cores busy beside it"
    assert device_line(state, 150) == f"local  1/1  m  {told}  41 °C  40 s left"
    assert device_line(state, 80) == "local  1/1  m  10.0 ms, 1.20 times as slow, throttled, 2 busy  41 °C  40 s left"


def test_a_run_that_was_cut_is_kept_analysed_and_says_so(tmp_path: Path) -> None:
    script = Script()
    script.say("phase", "t001", 1, phase="measure")
    latency = [100 * MS] * 1200 + [150 * MS] * 1200
    for low in range(0, 2400, 100):
        part = latency[low : low + 100]
        start = sum(latency[:low])
        script.say("samples", "t001", 1, phase="measured", start_ns=start, latency_ns=part, gap_ns=[0] * 100)
    script.say("error", "t001", 1, code="stopped", message="was stopped", advice=None)
    trial = plan(scenario="sustained", settings=MeasuringSettings(min_time_s=1800.0))
    write_session(tmp_path, "s-01", [trial], script)
    (row,) = results.trial_rows(tmp_path)
    assert (row.status, row.samples, row.latency_p50_ns) == ("interrupted", 2400, 125 * MS)
    assert row.thermal is not None
    assert (row.thermal["complete"], row.thermal["ended"]) == (False, "stopped")
    assert row.thermal["duration_s"] == pytest.approx(300)
    assert row.thermal["slowdown"] == pytest.approx(1.5)
    assert row.thermal["throttle_at_s"] == pytest.approx(120, abs=2)
    assert (row.reasons[0].code, row.reasons[0].level) == ("interrupted", "suspect")
    assert "(cut after 5.0 of 30.0 minutes: it was stopped)" in " ".join(answer(results.report_data(tmp_path)))
