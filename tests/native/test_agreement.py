"""What both agents read off the same device is the same."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

BOARD = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone10/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone10/temp": "-274000\n",
    "sys/class/thermal/thermal_zone2/type": "odd\n",
    "sys/class/thermal/thermal_zone2/temp": "garbage",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/hwmon/hwmon0/name": "ina3221\n",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_GPU_SOC\n",
    "sys/class/hwmon/hwmon0/in1_input": "19072\n",
    "sys/class/hwmon/hwmon0/curr1_input": "168\n",
    "sys/class/hwmon/hwmon1/name": "k10temp\n",
    "sys/class/hwmon/hwmon1/temp1_label": "Tctl\n",
    "sys/class/hwmon/hwmon1/temp1_input": "61250\n",
    "sys/class/hwmon/hwmon1/power1_average": "15000000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1416000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/stats/time_in_state": "408000 5\n1416000 812\n",
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
    "sys/bus/iio/devices/iio:device0/name": "s2mpg10-odpm\n",
    "sys/bus/iio/devices/iio:device0/energy_value": "t=473848\nCH0(T=473848)[S10M_VDD_TPU], 5578756\n"
    "CH1(T=473848)[VSYS_PWR_MODEM], 29110940\nCH2(T=1)[], 3\n",
    "sys/bus/iio/devices/iio:device1/name": "an accelerometer\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable:    5000000 kB\n",
}
THERMALSERVICE = """IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=54.600002, mType=0, mName=cpu0-silver-usr, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=31.7, mType=0, mName=cpu0-gold-usr, mStatus=0}
\tTemperature{mValue=28.348001, mType=3, mName=fps-therm-monitor, mStatus=0}
\tTemperature{mValue=-3.4028235E38, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=4.2, mType=6, mName=vbat, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=thermal-cpufreq-4}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 15
  scale: 100
  voltage: 4123
  temperature: 281
"""
SAVER = "  mSettingBatterySaverEnabled=true\n"


@pytest.fixture
def board(tmp_path, monkeypatch):
    for name, text in BOARD.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("SOCBENCH_SYSFS_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def phone(board, tmp_path, monkeypatch):
    """Make the board an Android by the programs that it has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for service, text in (("thermalservice", THERMALSERVICE), ("battery", BATTERY), ("power", SAVER)):
        (folder / service).write_text(text)
    scripts = {
        "dumpsys": f'cat "{folder}/$1"',
        "cmd": 'echo "Headroom in 0 seconds: 0.53"',
        "getprop": "echo '[a.b]: [c\nd]'",
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    (board / "system/bin").mkdir(parents=True)
    (board / "system/bin/dumpsys").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def first_rows(agent):
    """Return the rows of an agent's first telemetry event, by kind and source."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [*agent, "telemetry", "0.2", "0.2", str(write)], pass_fds=(write,), stderr=subprocess.DEVNULL
    )
    os.close(write)
    data = b""
    until = time.monotonic() + 20
    while b"\n" not in data and time.monotonic() < until:
        if select.select([read], [], [], 1.0)[0]:
            data += os.read(read, 65536)
    process.kill()
    process.wait()
    os.close(read)
    return {(row[1], row[2]): row[3:] for row in json.loads(data.partition(b"\n")[0])["rows"]}


def test_a_board_tells_both_the_same(native_agent, python_agent, board):
    native, python = first_rows(native_agent), first_rows(python_agent)
    assert native == python
    assert native[("power_uw", "hwmon0:ina3221:VDD_GPU_SOC")] == [19072 * 168]
    assert native[("temperature_milli_c", "thermal_zone10:gpu-thermal")] == [None, "impossible reading: -274000"]
    assert native[("time_in_state_ms", "policy0:1416000")] == [8120]
    assert native[("energy_uj", "odpm:iio:device0:S10M_VDD_TPU")] == [5578756]
    assert native[("energy_uj", "odpm:iio:device0:VSYS_PWR_MODEM")] == [29110940]
    assert not [source for kind, source in native if kind == "energy_uj" and "device1" in source]


def test_a_qualcomm_phone_whose_memory_alone_is_a_devfreq_device_tells_both_its_gpu(native_agent, python_agent, board):
    (board / "sys/class/devfreq/fb000000.gpu").rename(board / "gone")
    kgsl = board / "sys/class/kgsl/kgsl-3d0"
    kgsl.mkdir(parents=True)
    (kgsl / "gpuclk").write_text("680000000\n")
    (kgsl / "max_gpuclk").write_text("710000000\n")
    native = first_rows(native_agent)
    assert native == first_rows(python_agent)
    assert native[("gpu_clock_khz", "kgsl-3d0")] == [680000]
    assert native[("gpu_clock_cap_khz", "kgsl-3d0")] == [710000]
    assert native[("memory_clock_khz", "dmc")] == [2112000]


def test_a_machine_without_any_sensor_tells_both_each_absence(native_agent, python_agent, tmp_path, monkeypatch):
    monkeypatch.setenv("SOCBENCH_SYSFS_ROOT", str(tmp_path))
    native, python = first_rows(native_agent), first_rows(python_agent)
    assert native == python
    for kind, source in (
        ("power_uw", "hwmon"),
        ("energy_uj", "powercap"),
        ("energy_uj", "odpm"),
        ("battery_ua", "power_supply"),
    ):
        assert native[(kind, source)] == [None, "no sensor"]
    assert native[("power_uw", "nvml")] == [None, "no library libnvidia-ml.so.1"]
    assert native[("cpu_wait_permille", "schedstat")] == [None, "the kernel keeps no count"]


@pytest.fixture
def fake_nvml(tmp_path, monkeypatch):
    """Put a fake of NVIDIA's library where the loader looks."""
    source = Path(__file__).resolve().parents[1] / "support" / "fake_nvml.c"
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))


def test_gpus_of_a_fake_nvidia_driver_tell_both_temperature_power_and_clocks(
    native_agent, python_agent, board, fake_nvml, monkeypatch
):
    native, python = first_rows(native_agent), first_rows(python_agent)
    assert native == python
    told = {kind: values for (kind, source), values in native.items() if source == "nvml:gpu0:Fake A 80GB"}
    assert told == {
        "temperature_milli_c": [41000],
        "power_uw": [71234000],
        "gpu_clock_khz": [1980000],
        "memory_clock_khz": [2619000],
    }
    assert native[("temperature_milli_c", "nvml:gpu1:Fake B")] == [42000]
    assert native[("power_uw", "nvml:gpu1:Fake B")] == [None, "not supported"]
    monkeypatch.setenv("FAKE_NVML_INIT", "9")
    native, python = first_rows(native_agent), first_rows(python_agent)
    assert native == python
    assert native[("power_uw", "nvml")] == [None, "the driver is not loaded"]


def test_a_phone_tells_both_the_same(native_agent, python_agent, board, tmp_path, monkeypatch):
    phone(board, tmp_path, monkeypatch)
    native, python = first_rows(native_agent), first_rows(python_agent)
    assert native == python
    assert native[("thermal_status", "thermalservice")] == [2]
    assert native[("temperature_milli_c", "thermalservice:skin:fps-therm-monitor")] == [28348]
    assert native[("thermal_headroom_ppm", "thermalservice")] == [530000]
    assert native[("battery_uv", "dumpsys:battery")] == [4123000]


@pytest.mark.parametrize("is_phone", [False, True])
def test_power_and_cool_down_are_judged_alike(
    native_agent, python_agent, board, tmp_path, monkeypatch, trial, is_phone
):
    if is_phone:
        phone(board, tmp_path, monkeypatch)
    (tmp_path / "m.json").write_text('{"clock": "fake"}')
    answers = []
    for name, agent in (("native", native_agent), ("python", python_agent)):
        folder = tmp_path / name
        folder.mkdir()
        cool = {"max_wait_s": 5.0, "tolerance_milli_c": 1000, "fixed_s": 0.0}
        job = {
            "protocol": 1,
            "session": "s",
            "orphan_after_s": None,
            "telemetry": None,
            "trials": {"t": trial("null", "cpu:null", tmp_path / "m.json")},
            "repetitions": [{"trial": "t", "repetition": 1, "deadline_s": 60.0, "cool_down": cool}],
        }
        (folder / "job.json").write_text(json.dumps(job))
        subprocess.run([*agent, "run", str(folder)], check=True, timeout=60)
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        detail = next(
            e["detail"] for e in events if e["type"] == "phase" and e["detail"] and "waited_ns" in e["detail"]
        )
        del detail["waited_ns"]
        done = next(event for event in events if event["type"] == "done")
        answers.append((events[0]["power"], done["power"], detail))
    assert answers[0] == answers[1]
    assert answers[0][2]["outcome"] == "reached"
    assert answers[0][0]["source"] == ("usb" if is_phone else "battery")
