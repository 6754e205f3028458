"""Sensors of Linux read from files, and Android's services read from texts shaped as real phones print them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BOARD = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone10/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone10/temp": "-274000\n",
    "sys/class/thermal/thermal_zone2/type": "odd\n",
    "sys/class/thermal/thermal_zone2/temp": "128000\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/hwmon/hwmon0/name": "ina3221\n",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_GPU_SOC\n",
    "sys/class/hwmon/hwmon0/in1_input": "19072\n",
    "sys/class/hwmon/hwmon0/curr1_input": "168\n",
    "sys/class/hwmon/hwmon1/name": "k10temp\n",
    "sys/class/hwmon/hwmon1/temp1_label": "Tctl\n",
    "sys/class/hwmon/hwmon1/temp1_input": "61250\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1416000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "2208000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq": "2304000\n",
    "sys/class/devfreq/fb000000.gpu/cur_freq": "300000000\n",
    "sys/class/devfreq/fb000000.gpu/max_freq": "1000000000\n",
    "sys/class/devfreq/dmc/cur_freq": "2112000000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "123456789012\n",
    "sys/class/power_supply/battery/type": "Battery\n",
    "sys/class/power_supply/battery/capacity": "87\n",
    "sys/class/power_supply/battery/current_now": "-412000\n",
    "sys/class/power_supply/battery/voltage_now": "4111000\n",
    "sys/class/power_supply/battery/temp": "318\n",
    "sys/class/power_supply/battery/status": "Discharging\n",
    "sys/class/power_supply/usb/type": "USB\n",
    "sys/class/power_supply/usb/online": "0\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable:    5000000 kB\n",
}


def read_all(module):
    meter = module.Meter()
    rows = meter.absences(1) + meter.slow_rows(1) + meter.rows(1)
    return meter, {(row[1], row[2]): row[3:] for row in rows}


def test_a_board_is_read_in_the_units_of_the_protocol(sysfs, telemetry_on):
    _, rows = read_all(telemetry_on(sysfs(BOARD)))
    assert rows[("temperature_milli_c", "thermal_zone0:cpu-thermal")] == [48312]
    assert rows[("temperature_milli_c", "thermal_zone2:odd")] == [128000], "odd, not impossible: analysis judges it"
    assert rows[("temperature_milli_c", "thermal_zone10:gpu-thermal")] == [None, "impossible reading: -274000"]
    assert rows[("temperature_milli_c", "hwmon1:k10temp:Tctl")] == [61250]
    assert rows[("temperature_milli_c", "battery")] == [31800]
    assert rows[("cooling_state", "cooling_device0:cpufreq-cpu0")] == [2]
    assert rows[("power_uw", "hwmon0:ina3221:VDD_GPU_SOC")] == [19072 * 168]
    assert rows[("clock_khz", "policy4")] == [2208000]
    assert rows[("clock_cap_khz", "policy0")] == [1800000]
    assert rows[("gpu_clock_khz", "fb000000.gpu")] == [300000]
    assert rows[("gpu_clock_cap_khz", "fb000000.gpu")] == [1000000]
    assert rows[("memory_clock_khz", "dmc")] == [2112000]
    assert rows[("energy_uj", "intel-rapl:0:package-0")] == [123456789012]
    assert rows[("battery_permille", "battery")] == [870]
    assert rows[("battery_ua", "battery")] == [-412000]
    assert rows[("battery_uv", "battery")] == [4111000]
    assert rows[("battery_charging", "battery")] == [0]
    assert rows[("memory_available_bytes", "ram")] == [5000000 * 1024]


def test_load_is_the_busy_share_between_two_readings(sysfs, telemetry_on):
    root = sysfs(BOARD)
    meter, _ = read_all(telemetry_on(root))
    (root / "proc/stat").write_text("cpu  160 0 110 720 110 0 0 0 0 0\n")
    rows = {(row[1], row[2]): row[3] for row in meter.rows(2)}
    assert rows[("cpu_busy_permille", "cpu")] == 700  # 70 of 100 ticks


def test_an_empty_machine_says_what_it_lacks(sysfs, telemetry_on):
    _, rows = read_all(telemetry_on(sysfs({"proc/other": ""})))
    assert rows[("temperature_milli_c", "thermal")] == [None, "no sensor"]
    assert rows[("clock_khz", "cpufreq")] == [None, "no sensor"]
    assert rows[("cpu_busy_permille", "cpu")] == [None, "no such file or directory"]
    assert all(row[0] is None for row in rows.values())


def test_a_sensor_that_vanishes_is_said_once_and_taken_up_when_it_returns(sysfs, telemetry_on):
    root = sysfs({"sys/class/thermal/thermal_zone0/type": "cpu\n", "sys/class/thermal/thermal_zone0/temp": "40000\n"})
    meter = telemetry_on(root).Meter()
    zone = root / "sys/class/thermal/thermal_zone0/temp"
    key = ("temperature_milli_c", "thermal_zone0:cpu")

    def read():
        return [row[3:] for row in meter.rows(1) if (row[1], row[2]) == key]

    assert read() == [[40000]]
    zone.write_text("")
    assert read() == [[None, "not a number: ''"]]
    assert read() == []
    zone.write_text("41000\n")
    assert read() == [[41000]]


PIXEL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 3
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=54.600002, mType=0, mName=cpu0-silver-usr, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=31.7, mType=0, mName=cpu0-gold-usr, mStatus=0}
\tTemperature{mValue=28.348001, mType=3, mName=fps-therm-monitor, mStatus=0}
\tTemperature{mValue=25.900002, mType=2, mName=maxfg, mStatus=0}
\tTemperature{mValue=-3.4028235E38, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=4.2, mType=6, mName=vbat, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=thermal-cpufreq-4}
Temperature static thresholds from HAL:
"""


def test_thermalservice_gives_the_readings_of_now_and_none_of_the_cached(telemetry_on, tmp_path):
    rows = telemetry_on(tmp_path).parse_thermalservice(PIXEL)
    assert rows == [
        ["thermal_status", "thermalservice", 2, None],
        ["temperature_milli_c", "thermalservice:cpu:cpu0-gold-usr", 31700, None],
        ["temperature_milli_c", "thermalservice:skin:fps-therm-monitor", 28348, None],
        ["temperature_milli_c", "thermalservice:battery:maxfg", 25900, None],
        ["temperature_milli_c", "thermalservice:gpu:GPU", None, "impossible reading: -3.4028235E38"],
        ["cooling_state", "thermalservice:thermal-cpufreq-4", 3, None],
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Thermal Status: 0\nCached temperatures:\nHAL Ready: false\n", "HAL not ready"),
        ("Permission Denial: can't dump thermalservice from pid=1, uid=10123", "permission denied"),
        ("Thermal Status: 0\nHAL Ready: true\nCurrent temperatures from HAL:\n", "no sensor"),
        ("Can't find service: thermalservice\n", "no sensor"),
        ("", "no sensor"),
    ],
)
def test_thermalservice_without_sensors_says_why(telemetry_on, tmp_path, text, reason):
    rows = telemetry_on(tmp_path).parse_thermalservice(text)
    assert rows[-1] == ["temperature_milli_c", "thermalservice", None, reason]


NEXUS = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 97
  scale: 100
  voltage: 4342
  pad level: -1
  temperature: 245
  technology: Li-poly
"""


def test_battery_service_is_brought_to_the_units_of_the_protocol(telemetry_on, tmp_path):
    module = telemetry_on(tmp_path)
    assert module.parse_battery(NEXUS) == {
        "level_permille": 970,
        "temperature_milli_c": 24500,
        "voltage_uv": 4342000,
        "current_ua": None,
        "charging": 1,
        "source": "usb",
    }
    unplugged = NEXUS.replace("USB powered: true", "USB powered: false").replace("status: 2", "status: 3")
    assert module.parse_battery(unplugged)["source"] == "battery"
    assert module.parse_battery(unplugged)["charging"] == 0
    assert set(module.parse_battery("").values()) == {None}


def test_power_of_a_board_and_of_a_laptop(sysfs, telemetry_on):
    root = sysfs(BOARD)
    module = telemetry_on(root)
    assert module.read_power() == {"source": "battery", "battery_permille": 870, "battery_saver": None}
    (root / "sys/class/power_supply/usb/online").write_text("1\n")
    assert module.read_power()["source"] == "usb"


def test_power_of_a_machine_without_supplies_is_unknown(telemetry_on, tmp_path):
    assert telemetry_on(tmp_path).read_power() == {"source": None, "battery_permille": None, "battery_saver": None}


def test_cooling_looks_at_cpu_and_skin_and_at_caps(sysfs, telemetry_on):
    root = sysfs(BOARD)
    module = telemetry_on(root)
    baseline = module.cooling_state()
    assert baseline["temperatures"] == {"thermal_zone0:cpu-thermal": 48312, "hwmon1:k10temp:Tctl": 61250}
    assert baseline["caps"] == {"policy0": 1800000, "policy4": 2304000, "fb000000.gpu": 1000000}
    assert module.not_yet_cool(baseline, baseline, 0) == []
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("51313\n")
    assert module.not_yet_cool(baseline, module.cooling_state(), 3000) == ["thermal_zone0:cpu-thermal"]
    assert module.not_yet_cool(baseline, module.cooling_state(), 3001) == []
    (root / "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq").write_text("1200000\n")
    assert module.not_yet_cool(baseline, module.cooling_state(), 9999) == ["policy4"]
    hot = {**baseline, "status": 3}
    assert module.not_yet_cool({**baseline, "status": 1}, hot, 0) == ["thermal_status"]


def test_telemetry_costs_under_a_hundredth_of_a_core(sysfs, telemetry_on):
    """CPU time of this process for the reading of a phone's forty zones; two a second may take 10 ms of it."""
    zones = {}
    for zone in range(40):
        zones[f"sys/class/thermal/thermal_zone{zone}/type"] = f"cpu{zone}\n"
        zones[f"sys/class/thermal/thermal_zone{zone}/temp"] = f"{40000 + zone}\n"
    meter = telemetry_on(sysfs({**BOARD, **zones})).Meter()
    before = time.process_time()
    for _ in range(50):
        meter.rows(1)
    assert (time.process_time() - before) / 50 * 2 < 0.01


def test_serving_ends_when_nobody_reads(sysfs):
    agent = Path(__file__).resolve().parents[2] / "device_agents" / "python" / "agent.py"
    read, write = os.pipe()
    env = {**os.environ, "SOCBENCH_SYSFS_ROOT": str(sysfs(BOARD))}
    argv = [sys.executable, str(agent), "telemetry", "0.05", "60", str(write)]
    process = subprocess.Popen(argv, pass_fds=(write,), env=env)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        events = [json.loads(pipe.readline()) for _ in range(3)]
    assert process.wait(timeout=20) == 0
    assert all(event["type"] == "telemetry" for event in events)
    assert events[0]["t_ns"] < events[1]["t_ns"] < events[2]["t_ns"]
    assert next(row for row in events[1]["rows"] if row[1] == "clock_khz")[3] == 1416000


ZONES = "sys/class/thermal/thermal_zone{}/"


def zones(*readings):
    """Two files a zone: cpu0, cpu1 ... with these values."""
    files = {}
    for number, value in enumerate(readings):
        files[ZONES.format(number) + "type"] = f"cpu{number}\n"
        files[ZONES.format(number) + "temp"] = f"{value}\n"
    return files


def test_cooling_down_ignores_sensors_that_tell_nonsense(sysfs, telemetry_on):
    module = telemetry_on(sysfs(zones(40000, 0, -274000, 128000, -40000)))
    assert module.cooling_state()["temperatures"] == {"thermal_zone0:cpu0": 40000}


@pytest.mark.parametrize(
    ("before", "now", "above"),
    [
        (40000, 44000, True),
        (40000, 128000, False),
        (40000, 400000, False),
        (40, 44000, False),
        (400, 44000, False),
        (44000, 44, False),
        (5000, 39000, True),
    ],
)
def test_a_sensor_that_changes_its_unit_or_goes_mad_holds_no_repetition_up(sysfs, telemetry_on, before, now, above):
    root = sysfs(zones(before))
    module = telemetry_on(root)
    baseline = module.cooling_state()
    (root / ZONES.format(0) / "temp").write_text(f"{now}\n")
    assert module.not_yet_cool(baseline, module.cooling_state(), 3000) == (["thermal_zone0:cpu0"] if above else [])


def test_a_sensor_that_vanishes_holds_no_repetition_up(sysfs, telemetry_on):
    root = sysfs(zones(40000, 40000))
    module = telemetry_on(root)
    baseline = module.cooling_state()
    (root / ZONES.format(0) / "temp").unlink()
    (root / ZONES.format(1) / "temp").write_text("50000\n")
    assert module.not_yet_cool(baseline, module.cooling_state(), 3000) == ["thermal_zone1:cpu1"]


def limited(module, readings, limit=45000):
    """Feed a limit with ``(second, die, skin)``; returns the second at which it is reached, and by what."""
    watch = module.HeatLimit(limit)
    for second, die, skin in readings:
        rows = [
            [second * 10**9, "temperature_milli_c", "cpu", die],
            [second * 10**9, "temperature_milli_c", "skin", skin],
        ]
        found = watch.reached([row for row in rows if row[3] != "gone"])
        if found:
            return second, found[0]
    return None


def test_a_limit_is_meant_for_the_skin_as_long_as_that_is_told(telemetry_on, tmp_path):
    module = telemetry_on(tmp_path)
    assert limited(module, [(t, 80000 + t, 30000 + t) for t in range(600)]) is None
    assert limited(module, [(t, 80000 + t, 30000 + 100 * t) for t in range(600)]) == (150, "skin")


def test_a_skin_sensor_that_vanishes_half_way_no_longer_protects_so_all_others_do(telemetry_on, tmp_path):
    told = [(t, 80000 + t, 30000 + t if t < 300 else "gone") for t in range(0, 600, 2)]
    assert limited(telemetry_on(tmp_path), told) == (330, "cpu")
    unreadable = [(t, 80000 + t, 30000 + t if t < 300 else None) for t in range(0, 600, 2)]
    assert limited(telemetry_on(tmp_path), unreadable) == (330, "cpu")


def test_a_skin_sensor_that_never_changes_no_longer_protects_after_a_minute(telemetry_on, tmp_path):
    assert limited(telemetry_on(tmp_path), [(t, 80000 + t, 30000) for t in range(600)]) == (61, "cpu")
    assert limited(telemetry_on(tmp_path), [(t, 80000 + t, 30000 + (t > 50)) for t in range(600)]) is None


@pytest.mark.parametrize("nonsense", [0, -274000, 128000, 450000])
def test_a_skin_sensor_that_tells_nonsense_neither_stops_a_run_nor_keeps_others_from_it(
    telemetry_on, tmp_path, nonsense
):
    module = telemetry_on(tmp_path)
    assert limited(module, [(t, 40000 + t, nonsense) for t in range(300)]) is None
    assert limited(module, [(t, 40000 + 100 * t, nonsense) for t in range(300)]) == (50, "cpu")
