"""Reads what the device tells about itself while it runs: docs/protocol.md, *Telemetry*.

Runs in a process of its own beside the repetition. Files stay open and are read with ``os.pread``; slow commands
(``dumpsys`` on Android) have an interval of their own. Values are passed on as the sensor gives them; only what is
physically impossible is replaced by its reason. Standard library only, Python 3.8+.

``SOCBENCH_SYSFS_ROOT`` puts another folder in front of /sys and /proc, for tests and simulators.
"""

import glob
import importlib.util
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.environ.get("SOCBENCH_SYSFS_ROOT", "")
COMMAND_TIMEOUT_S = 8.0
ABSOLUTE_ZERO_MILLI_C = -273150
HOTTEST_MILLI_C = 1000000
HOTTEST_CREDIBLE_MILLI_C = 120000
COLDEST_CREDIBLE_MILLI_C = -40000
STUCK_AFTER_NS = 60 * 10**9
LOST_AFTER_NS = 30 * 10**9
TEMPERATURE = "temperature_milli_c"
THERMAL_TYPES = {
    0: "cpu",
    1: "gpu",
    2: "battery",
    3: "skin",
    4: "usb_port",
    5: "power_amplifier",
    9: "npu",
    10: "tpu",
    11: "display",
    12: "modem",
    13: "soc",
    14: "wifi",
    15: "camera",
    16: "flashlight",
    17: "speaker",
    18: "ambient",
    19: "pogo",
}
"""TemperatureType of Android's thermal HAL; 6 to 8 are battery current limits and no temperatures."""


class Sensor:
    """One file that holds one number; ``factor`` and ``divisor`` bring it to the unit of its kind."""

    def __init__(self, kind, source, path, factor=1, divisor=1):
        self.kind = kind
        self.source = source
        self.path = path
        self.factor = factor
        self.divisor = divisor
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.failed = None

    def read(self):
        """Return ``(value, None)``, or ``(None, reason)``."""
        try:
            if self.fd is None:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            text = os.pread(self.fd, 64, 0)
            value = int(text) * self.factor // self.divisor
        except OSError as error:
            self.close()
            return None, reason_of(error)
        except ValueError:
            return None, "not a number: {!r}".format(text[:20].decode("ascii", "replace"))
        if self.kind == TEMPERATURE and not ABSOLUTE_ZERO_MILLI_C <= value <= HOTTEST_MILLI_C:
            return None, f"impossible reading: {value}"
        return value, None

    def close(self):
        """Give the file back; the next read opens it again."""
        if self.fd is not None:
            os.close(self.fd)
        self.fd = None


def reason_of(error):
    """Return why a file could not be read, in words that stay the same."""
    return (error.strerror or type(error).__name__).lower()


def text_of(path, limit=4096):
    """Return the stripped text of a file, or None."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace").strip()
    except OSError:
        return None


def by_number(pattern):
    """Return the paths of a glob pattern under the root, ordered as people count."""
    return sorted(glob.glob(ROOT + pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", path)])


class Sensors:
    """Every sensor that was found, and what is absent with its reason."""

    def __init__(self):
        self.found = []
        self.absent = []
        self.refused = {}

    def add(self, kind, source, path, factor=1, divisor=1):
        """Take a sensor in when its file opens and reads; remember why not otherwise."""
        if not os.path.exists(path):
            return False
        try:
            self.found.append(Sensor(kind, source, path, factor, divisor))
            return True
        except OSError as error:
            self.refused[(kind, source)] = reason_of(error)
            return False

    def close_group(self, kind, source, before, refused):
        """Record the absence of a group when nothing of its kind was found, nor refused."""
        if not any(sensor.kind == kind for sensor in self.found[before:]) and len(self.refused) == refused:
            self.absent.append((kind, source, "no sensor"))


def find_sensors():
    """Look for every source that this kernel offers."""
    sensors = Sensors()
    for group, kind, source in (
        (_thermal_zones, TEMPERATURE, "thermal"),
        (_cooling_devices, "cooling_state", "thermal"),
        (_hwmon, "power_uw", "hwmon"),
        (_cpufreq, "clock_khz", "cpufreq"),
        (_devfreq, "gpu_clock_khz", "devfreq"),
        (_battery, "battery_permille", "power_supply"),
        (_gauge, "battery_ua", "power_supply"),
        (_rapl, "energy_uj", "powercap"),
    ):
        before, refused = len(sensors.found), len(sensors.refused)
        group(sensors)
        if kind != "power_uw" or not find_rails():
            sensors.close_group(kind, source, before, refused)
    _nvml(sensors)
    sensors.absent += [(kind, source, reason) for (kind, source), reason in sensors.refused.items()]
    return sensors


def _thermal_zones(sensors):
    for path in by_number("/sys/class/thermal/thermal_zone*"):
        name = "{}:{}".format(os.path.basename(path), text_of(path + "/type") or "unknown")
        sensors.add(TEMPERATURE, name, path + "/temp")


def _cooling_devices(sensors):
    for path in by_number("/sys/class/thermal/cooling_device*"):
        name = "{}:{}".format(os.path.basename(path), text_of(path + "/type") or "unknown")
        sensors.add("cooling_state", name, path + "/cur_state")


def _hwmon(sensors):
    for path in by_number("/sys/class/hwmon/hwmon*"):
        chip = "{}:{}".format(os.path.basename(path), text_of(path + "/name") or "unknown")
        for channel in sorted(glob.glob(path + "/temp*_input")):
            sensors.add(TEMPERATURE, _channel(chip, channel), channel)
        for channel in sorted(glob.glob(path + "/power*_input") or glob.glob(path + "/power*_average")):
            sensors.add("power_uw", _channel(chip, channel), channel)


def _channel(chip, path):
    stem = re.sub(r"_(input|average)$", "", path)
    return "{}:{}".format(chip, text_of(stem + "_label") or os.path.basename(stem))


def find_rails():
    """Return ``(source, voltage path in mV, current path in mA)`` of current monitors that give no power (INA3221)."""
    rails = []
    for path in by_number("/sys/class/hwmon/hwmon*"):
        name = text_of(path + "/name") or "unknown"
        if not name.startswith("ina") or glob.glob(path + "/power*_input"):
            continue
        for current in sorted(glob.glob(path + "/curr*_input")):
            number = re.search(r"curr(\d+)_input", current).group(1)
            voltage = f"{path}/in{number}_input"
            label = text_of(f"{path}/in{number}_label") or text_of(f"{path}/curr{number}_label")
            if os.path.exists(voltage):
                rails.append(
                    ("{}:{}:{}".format(os.path.basename(path), name, label or "in" + number), voltage, current)
                )
    return rails


def _cpufreq(sensors):
    for path in by_number("/sys/devices/system/cpu/cpufreq/policy*"):
        name = os.path.basename(path)
        sensors.add("clock_khz", name, path + "/scaling_cur_freq")
        sensors.add("clock_cap_khz", name, path + "/scaling_max_freq")


def _devfreq(sensors):
    for path in sorted(glob.glob(ROOT + "/sys/class/devfreq/*")):
        name = os.path.basename(path)
        if re.search(r"gpu|mali|kgsl|3d0|gv11b|ga10b|g3d", name, re.I):
            sensors.add("gpu_clock_khz", name, path + "/cur_freq", 1, 1000)
            sensors.add("gpu_clock_cap_khz", name, path + "/max_freq", 1, 1000)
        elif re.search(r"dmc|ddr|emc|memory|mif", name, re.I):
            sensors.add("memory_clock_khz", name, path + "/cur_freq", 1, 1000)
    kgsl = ROOT + "/sys/class/kgsl/kgsl-3d0"
    if not any(sensor.kind == "gpu_clock_khz" for sensor in sensors.found):
        sensors.add("gpu_clock_khz", "kgsl-3d0", kgsl + "/gpuclk", 1, 1000)
        sensors.add("gpu_clock_cap_khz", "kgsl-3d0", kgsl + "/max_gpuclk", 1, 1000)


def _battery(sensors):
    for path in sorted(glob.glob(ROOT + "/sys/class/power_supply/*")):
        name = os.path.basename(path)
        if (text_of(path + "/type") or "").lower() != "battery":
            continue
        sensors.add("battery_permille", name, path + "/capacity", 10)
        sensors.add(TEMPERATURE, name, path + "/temp", 100)  # power_supply gives tenths of a degree


def _gauge(sensors):
    for path in sorted(glob.glob(ROOT + "/sys/class/power_supply/*")):
        name = os.path.basename(path)
        if (text_of(path + "/type") or "").lower() == "battery":
            sensors.add("battery_ua", name, path + "/current_now")
            sensors.add("battery_uv", name, path + "/voltage_now")
            sensors.add("power_uw", name, path + "/power_now")


def _nvml(sensors):
    """Ask the NVIDIA driver's library, which lies beside this file's own (as agent.py loads this one)."""
    gpus, reason = nvml_module().find_gpus()
    sensors.found += gpus
    if not gpus:
        sensors.absent.append(("power_uw", "nvml", reason))


def nvml_module():
    """Return the module for NVIDIA's library, which lies beside this file."""
    name = "socbench_telemetry_nvml"
    if name not in sys.modules:
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "telemetry_nvml.py")
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def odpm_meters():
    """Return the files in which Android's on-device power monitors (ODPM, Pixel 6 and later) count energy."""
    return by_number("/sys/bus/iio/devices/iio:device*/energy_value")


def parse_odpm(text):
    """Return ``[(rail, microjoules)]`` of an ``energy_value``: lines ``CH0(T=1234)[S10M_VDD_TPU], 5678`` after ``t=``.

    T is in ms since the rail is measured; the number counts microwatt-seconds.
    """
    found = re.findall(r"^CH\d+\(T=\d+\)\[([^\]\n]{1,60})\], *(\d{1,19})$", text, re.M)
    return [(rail, int(energy)) for rail, energy in found]


def _rapl(sensors):
    for path in by_number("/sys/class/powercap/*:*"):
        name = "{}:{}".format(os.path.basename(path), text_of(path + "/name") or "unknown")
        sensors.add("energy_uj", name, path + "/energy_uj")


OUTER = re.compile(r"skin|shell|batt|surface|case", re.I)
"""Sensors of what a hand can feel: their limits are 40 to 50 degrees, those of a die twice that."""


class HeatLimit:
    """Says when a temperature reaches a limit: of skin and battery where a device tells them, else the hottest.

    A sensor counts once its value has changed: a stuck one says nothing. One of skin or battery that has not changed
    for a minute, or was not heard of for half a minute, protects nothing any more: then all the others count.
    """

    def __init__(self, limit_milli_c):
        self.limit_milli_c = limit_milli_c
        self.first = {}
        self.last_ns = {}
        self.alive = set()

    def reached(self, rows):
        """Take telemetry rows; return ``(source, value)`` of the first that is at or over the limit, or None."""
        read = [(t_ns, source, value) for t_ns, kind, source, value in (row[:4] for row in rows) if kind == TEMPERATURE]
        read = [one for one in read if one[2] is not None and 0 < one[2] < HOTTEST_CREDIBLE_MILLI_C]
        for t_ns, source, value in read:
            if self.first.setdefault(source, (t_ns, value))[1] != value:
                self.alive.add(source)
            self.last_ns[source] = t_ns
        outer = self._outer(max((t_ns for t_ns, _, _ in read), default=0))
        for _, source, value in read:
            if source in self.alive and value >= self.limit_milli_c and (source in outer or not outer):
                return source, value
        return None

    def _outer(self, now_ns):
        return [
            source
            for source, t_ns in self.last_ns.items()
            if OUTER.search(source)
            and now_ns - t_ns <= LOST_AFTER_NS
            and (source in self.alive or now_ns - self.first[source][0] <= STUCK_AFTER_NS)
        ]


def throttled_us(pid):
    """Return ``{group: microseconds}`` that CPU quotas of a process's control groups have held tasks back so far."""
    found = {}
    for line in (text_of(f"{ROOT}/proc/{pid}/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or not (parts[1] == "" or "cpu" in parts[1].split(",")):
            continue
        mounts = ("", "/unified") if parts[1] == "" else ("/" + parts[1], "/cpu", "/cpu,cpuacct")
        bases = [ROOT + "/sys/fs/cgroup" + mount for mount in mounts]
        base = next((path for path in bases if os.path.exists(path + "/cgroup.procs")), None)
        path = parts[2].rstrip("/")
        while base is not None:
            text = text_of(base + path + "/cpu.stat") or ""
            for key, value in re.findall(r"^(throttled_usec|throttled_time) (\d+)", text, re.M):
                found[path or "/"] = int(value) // (1 if key == "throttled_usec" else 1000)
            if not path:
                break
            path = path.rpartition("/")[0]
    return found


def children_of(pid):
    """Return the children of a process, from its main thread's list (our supervisor has one thread)."""
    text = text_of(f"/proc/{pid}/task/{pid}/children") or ""
    return [int(word) for word in text.split()]


def cpu_ticks(pid):
    """Return the CPU time of a process in clock ticks, with that of the children it has buried; 0 once it is gone."""
    fields = (text_of(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) if len(fields) > 14 else 0


def core_wait_ns(pid):
    """Return how long the threads of a process have waited for a core so far (ns), None where no count is kept.

    The second number of ``schedstat``: time on a run queue, not running.
    """
    waited = None
    for path in glob.glob(f"{ROOT}/proc/{pid}/task/*/schedstat"):
        words = (text_of(path) or "").split()
        if len(words) > 1 and words[1].isdigit():
            waited = (waited or 0) + int(words[1])
    return waited


class OwnWork:
    """What the processes of this agent use of the CPU, so that the rest can be told: supervisor, repetition, we."""

    def __init__(self):
        self.supervisor = os.getppid()

    def repetition(self):
        """Return the pid of the repetition under way, or None."""
        return next((pid for pid in children_of(self.supervisor) if pid != os.getpid()), None)

    def ticks(self):
        """Return the CPU time that all of them have used, in clock ticks."""
        return sum(map(cpu_ticks, [self.supervisor, *children_of(self.supervisor)]))


class Meter:
    """Turns all sources into rows; an absence is one row, until the sensor answers again."""

    def __init__(self):
        self.own = OwnWork()
        self.own_ticks = None
        self.states = {}
        self.asks_headroom = is_android()
        self.sensors = find_sensors()
        self.rails = find_rails()
        self.failed = {}
        self.stat = self._open("/proc/stat")
        self.meminfo = self._open("/proc/meminfo")
        self.busy = None
        self.waited = None
        self.charging = list(glob.glob(ROOT + "/sys/class/power_supply/*/status"))

    def _open(self, path):
        try:
            return os.open(ROOT + path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def absences(self, t_ns):
        """Return the rows of what cannot be read here at all."""
        rows = [[t_ns, kind, source, None, reason] for kind, source, reason in self.sensors.absent]
        for fd, kind, source in (
            (self.stat, "cpu_busy_permille", "cpu"),
            (self.meminfo, "memory_available_bytes", "ram"),
        ):
            if fd is None:
                rows.append([t_ns, kind, source, None, "no such file or directory"])
        return rows

    def rows(self, t_ns):
        """Return one row for every number that can be read now."""
        rows = []
        for sensor in self.sensors.found:
            value, reason = sensor.read()
            self._take(rows, t_ns, sensor.kind, sensor.source, value, reason)
        self._load(rows, t_ns)
        pid = self.own.repetition() or os.getpid()
        self._quota(rows, t_ns, pid)
        self._wait(rows, t_ns, pid)
        self._memory(rows, t_ns)
        return rows

    def slow_rows(self, t_ns):
        """Return the rows of what changes slowly or is dear to read."""
        rows = []
        for source, voltage, current in self.rails:
            try:
                value = int(text_of(voltage) or "") * int(text_of(current) or "")  # mV x mA = microwatts
                self._take(rows, t_ns, "power_uw", source, value, None)
            except ValueError:
                self._take(rows, t_ns, "power_uw", source, None, "not readable")
        self._odpm(rows, t_ns)
        for path in self.charging:
            text = text_of(path)
            if text is not None and (text_of(os.path.dirname(path) + "/type") or "").lower() == "battery":
                name = os.path.basename(os.path.dirname(path))
                rows.append([t_ns, "battery_charging", name, int(text.lower() in ("charging", "full"))])
        for kind, source, value, reason in android_facts():
            self._take(rows, t_ns, kind, source, value, reason)
        if self.asks_headroom:
            value = parse_headroom(command_text(["cmd", "thermalservice", "headroom", "0"]) or "")
            self.asks_headroom = value is not None
            self._take(rows, t_ns, "thermal_headroom_ppm", "thermalservice", value, "not told by this Android")
        self._time_in_state(rows, t_ns)
        return rows

    def _odpm(self, rows, t_ns):
        meters = odpm_meters()
        if not meters:
            self._take(rows, t_ns, "energy_uj", "odpm", None, "no sensor")
        for path in meters:
            meter = path.split("/")[-2]
            try:
                with open(path, "rb") as file:
                    rails = parse_odpm(file.read(16384).decode("utf-8", "replace"))
                reason = "no rail in it"
            except OSError as error:
                rails, reason = [], reason_of(error)
            for rail, energy in rails:
                self._take(rows, t_ns, "energy_uj", f"odpm:{meter}:{rail}", energy, None)
            if not rails:
                self._take(rows, t_ns, "energy_uj", "odpm:" + meter, None, reason)

    def _time_in_state(self, rows, t_ns):
        """How long each clock was used since boot, told again when it has grown: it costs the device nothing."""
        for path in by_number("/sys/devices/system/cpu/cpufreq/policy*/stats/time_in_state"):
            policy = path.split("/")[-3]
            for khz, ticks in re.findall(r"^(\d+) (\d+)$", text_of(path, 16384) or "", re.M):
                source = f"{policy}:{khz}"
                if self.states.get(source) != ticks:
                    self.states[source] = ticks
                    rows.append([t_ns, "time_in_state_ms", source, int(ticks) * 10])

    def _quota(self, rows, t_ns, pid):
        for group, value in throttled_us(pid).items():
            rows.append([t_ns, "quota_throttled_us", "cgroup:" + group, value])

    def _wait(self, rows, t_ns, pid):
        """How much of the time, of one core, the repetition's threads waited for a core; nothing across its restart."""
        waited = core_wait_ns(pid)
        if waited is None:
            self._take(rows, t_ns, "cpu_wait_permille", "schedstat", None, "the kernel keeps no count")
        elif self.waited is not None and self.waited[0] == pid and waited >= self.waited[2] and t_ns > self.waited[1]:
            permille = 1000 * (waited - self.waited[2]) // (t_ns - self.waited[1])
            self._take(rows, t_ns, "cpu_wait_permille", "schedstat", permille, None)
        self.waited = None if waited is None else (pid, t_ns, waited)

    def _take(self, rows, t_ns, kind, source, value, reason):
        key = (kind, source)
        if value is not None:
            self.failed.pop(key, None)
            rows.append([t_ns, kind, source, value])
        elif self.failed.get(key) != reason:
            self.failed[key] = reason
            rows.append([t_ns, kind, source, None, reason])

    def _load(self, rows, t_ns):
        if self.stat is None:
            return
        fields = os.pread(self.stat, 256, 0).split(b"\n")[0].split()
        if len(fields) < 8:
            return
        own = self.own.ticks()
        numbers = [int(field) for field in fields[1:9]]
        total, idle = sum(numbers), numbers[3] + numbers[4]
        if self.busy is not None and total > self.busy[0]:
            span = total - self.busy[0]
            busy = span - (idle - self.busy[1])
            rows.append([t_ns, "cpu_busy_permille", "cpu", max(0, min(1000, 1000 * busy // span))])
            others = busy - (own - self.own_ticks)
            rows.append([t_ns, "other_busy_permille", "cpu", max(0, min(1000, 1000 * others // span))])
            if numbers[7]:  # only a virtual machine that has lost time at all
                stolen = 1000 * (numbers[7] - self.busy[2]) // span
                rows.append([t_ns, "cpu_steal_permille", "cpu", max(0, min(1000, stolen))])
        self.busy, self.own_ticks = (total, idle, numbers[7]), own

    def _memory(self, rows, t_ns):
        if self.meminfo is None:
            return
        found = re.search(rb"MemAvailable:\s+(\d+) kB", os.pread(self.meminfo, 512, 0))
        if found:
            rows.append([t_ns, "memory_available_bytes", "ram", int(found.group(1)) * 1024])


def parse_thermalservice(text):
    """Return ``[kind, source, value, reason]`` rows of ``dumpsys thermalservice`` (Android 10 and later).

    Only the readings that come from the HAL now count; the cached ones may be hours old.
    """
    status = re.search(r"^Thermal Status: (\d+)", text, re.M)
    rows = [["thermal_status", "thermalservice", int(status.group(1)), None]] if status else []
    if "Permission Denial" in text:
        return [[TEMPERATURE, "thermalservice", None, "permission denied"]]
    if re.search(r"^HAL Ready: false", text, re.M):
        return [*rows, [TEMPERATURE, "thermalservice", None, "HAL not ready"]]
    _, found, section = text.partition("Current temperatures from HAL:")
    section = section.split("Current cooling devices from HAL:")[0]
    pattern = r"Temperature\{mValue=(\S+), mType=(-?\d+), mName=(.*?), mStatus=(\d+)\}"
    for value, kind, name, _ in re.findall(pattern, section):
        if int(kind) not in THERMAL_TYPES:
            continue
        source = f"thermalservice:{THERMAL_TYPES[int(kind)]}:{name}"
        milli = _milli(value)
        if milli is None or not ABSOLUTE_ZERO_MILLI_C <= milli <= HOTTEST_MILLI_C:
            rows.append([TEMPERATURE, source, None, f"impossible reading: {value}"])
        else:
            rows.append([TEMPERATURE, source, milli, None])
    for value, name in re.findall(r"CoolingDevice\{mValue=(\d+), mType=-?\d+, mName=(.*?)\}", text):
        rows.append(["cooling_state", "thermalservice:" + name, int(value), None])
    if not found or not any(row[0] == TEMPERATURE for row in rows):
        rows.append([TEMPERATURE, "thermalservice", None, "no sensor"])
    return rows


def parse_headroom(text):
    """Return the thermal headroom in millionths (1,000,000: severe throttling begins), or None where there is none.

    Newer Androids answer ``cmd thermalservice headroom 0`` with ``Headroom in 0 seconds: 0.53``, or NaN.
    """
    found = re.search(r"^Headroom in \d+ seconds: (\S+)", text, re.M)
    milli = _milli(found.group(1)) if found else None
    return None if milli is None else milli * 1000


def _milli(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return round(value * 1000) if abs(value) < 1e9 else None


def parse_battery(text):
    """Return level_permille, temperature_milli_c, voltage_uv, current_ua, charging, source of ``dumpsys battery``.

    Members that the text does not have are None; the service gives tenths of a degree and millivolts.
    """

    def number(name):
        found = re.search(rf"^[ \t]+{name}: (-?\d+)", text, re.M)
        return int(found.group(1)) if found else None

    def scaled(value, factor):
        return None if value is None else value * factor

    powered = [
        source
        for source, name in (("ac", "AC"), ("usb", "USB"), ("wireless", "Wireless"), ("ac", "Dock"))
        if re.search(rf"^[ \t]+{name} powered: true", text, re.M)
    ]
    level, scale, voltage = number("level"), number("scale") or 100, number("voltage")
    status = number("status")
    if voltage is not None and voltage < 100:  # a few phones answer in volts
        voltage = None
    known = level is not None or bool(powered)
    return {
        "level_permille": None if level is None else level * 1000 // scale,
        TEMPERATURE: scaled(number("temperature"), 100),
        "voltage_uv": scaled(voltage, 1000),
        "current_ua": number("current now"),
        "charging": None if status is None else int(status in (2, 5)),
        "source": (powered[0] if powered else "battery") if known else None,
    }


def is_android():
    """Whether this is an Android userland."""
    return os.path.exists(ROOT + "/system/bin/dumpsys") or os.path.exists("/system/bin/dumpsys")


def dumpsys(service):
    """Return what ``dumpsys SERVICE`` prints, or None."""
    return command_text(["dumpsys", service])


def command_text(argv):
    """Return what a command prints, or None when it cannot be run."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout + done.stderr)[:262144].decode("utf-8", "replace")


def android_facts():
    """Return ``[kind, source, value, reason]`` rows of the services that the shell user may ask."""
    if not is_android():
        return []
    text = dumpsys("thermalservice")
    rows = parse_thermalservice(text) if text else [[TEMPERATURE, "thermalservice", None, "dumpsys does not answer"]]
    battery = parse_battery(dumpsys("battery") or "")
    for kind, name in (
        ("battery_permille", "level_permille"),
        (TEMPERATURE, TEMPERATURE),
        ("battery_uv", "voltage_uv"),
        ("battery_ua", "current_ua"),
        ("battery_charging", "charging"),
    ):
        if battery[name] is not None:
            rows.append([kind, "dumpsys:battery", battery[name], None])
    return rows


def read_power():
    """Return ``{"source", "battery_permille", "battery_saver"}`` as it is now; None where it cannot be told."""
    if is_android():
        battery = parse_battery(dumpsys("battery") or "")
        saver = re.search(r"mSettingBatterySaverEnabled[= ]+(true|false)", dumpsys("power") or "")
        return {
            "source": battery["source"],
            "battery_permille": battery["level_permille"],
            "battery_saver": saver.group(1) == "true" if saver else None,
        }
    source = permille = None
    for path in sorted(glob.glob(ROOT + "/sys/class/power_supply/*")):
        kind = (text_of(path + "/type") or "").lower()
        if kind == "battery" and text_of(path + "/scope") != "Device":
            capacity = text_of(path + "/capacity") or ""
            permille = int(capacity) * 10 if capacity.isdigit() else permille
            source = source or "battery"
        elif text_of(path + "/online") == "1":
            source = {"mains": "ac", "wireless": "wireless"}.get(kind, "usb")
    return {"source": source, "battery_permille": permille, "battery_saver": None}


NOT_COOLED = re.compile(
    r"batt|bat$|bms|charg|usb|modem|wifi|wlan|camera|nvme|ambient|pmic|pa$|vbat|ibat|soc$(?<=bcl_soc)", re.I
)
COOLED = re.compile(
    r"cpu|core|skin|soc|big|little|mid|cluster|x86_pkg|package|tdie|tctl|k10temp|acpitz|gpu|npu|shell|\bap\b", re.I
)


def cooling_state():
    """Return ``{"temperatures", "caps", "status"}``: what cool-down by condition looks at; empty if nothing reads."""
    temperatures, caps, status = {}, {}, None
    for sensor in find_sensors().found:
        value, _ = sensor.read() if sensor.kind in (TEMPERATURE, "clock_cap_khz", "gpu_clock_cap_khz") else (None, None)
        sensor.close()
        if value is not None and (sensor.kind != TEMPERATURE or is_credible(value)):
            (temperatures if sensor.kind == TEMPERATURE else caps)[sensor.source] = value
    for kind, source, value, _ in android_facts():
        if kind == TEMPERATURE and value is not None and is_credible(value):
            temperatures[source] = value
        elif kind == "thermal_status":
            status = value
    wanted = {name: value for name, value in temperatures.items() if not NOT_COOLED.search(name)}
    named = {name: value for name, value in wanted.items() if COOLED.search(name)}
    temperatures = named or wanted
    if not temperatures and not caps and status is None:
        return {}
    return {"temperatures": temperatures, "caps": caps, "status": status}


def is_credible(milli_c):
    """Whether a device can be that warm: sensors that are not there say 0, -274 or 128 degrees."""
    return milli_c != 0 and COLDEST_CREDIBLE_MILLI_C < milli_c < HOTTEST_CREDIBLE_MILLI_C


def in_another_unit(before, value):
    """Whether a sensor that told degrees, or tenths of them, tells thousandths now."""
    return 0 < before < 1000 and value >= 8 * before


def not_yet_cool(baseline, state, tolerance_milli_c):
    """Return the names of what is still warmer, or more capped, than at the baseline."""
    above = [
        name
        for name, value in state.get("temperatures", {}).items()
        if value > baseline["temperatures"].get(name, value) + tolerance_milli_c
        and not in_another_unit(baseline["temperatures"][name], value)
    ]
    above += [name for name, cap in state.get("caps", {}).items() if cap < baseline["caps"].get(name, 0)]
    status, before = state.get("status"), baseline.get("status")
    if status is not None and before is not None and status > before:
        above.append("thermal_status")
    return sorted(above)


def serve(interval_s, slow_interval_s, fd):
    """Write a ``telemetry`` event to ``fd`` each interval until the reader goes; times are a fixed grid."""
    os.set_inheritable(fd, False)
    meter = Meter()
    rows = meter.absences(time.monotonic_ns())
    due = slow_due = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= slow_due:
            rows += meter.slow_rows(time.monotonic_ns())
            slow_due = now + slow_interval_s
        t_ns = time.monotonic_ns()
        rows += meter.rows(t_ns)
        event = {"type": "telemetry", "t_ns": t_ns, "rows": rows}
        line = json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            while line:
                line = line[os.write(fd, line) :]
        except BrokenPipeError:
            return 0
        rows = []
        due = max(due + interval_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
