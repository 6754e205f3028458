#!/usr/bin/env python3
"""The socbench agent for devices with Python: one file, standard library only, Python 3.8+.

It speaks docs/protocol.md. ``start`` leaves a detached supervisor behind that runs the job's repetitions, each in a
child process of its own, and appends events to one file; ``child``, ``telemetry`` and ``probe-one`` are entry points
that the agent calls itself. Runtimes lie beside this file in ``runtimes/`` and are loaded on demand.
"""

import array
import contextlib
import errno
import fcntl
import gc
import glob
import hashlib
import importlib.util
import json
import os
import platform
import re
import resource
import select
import signal
import subprocess
import sys
import time

try:
    import ctypes

    LIBC = ctypes.CDLL(None)
except (ImportError, OSError):  # a Python built without ctypes: children then outlive a supervisor that is killed
    LIBC = None

VERSION = "0.1.0"
PROTOCOLS = [1]
HERE = os.path.dirname(os.path.abspath(__file__))
RUNTIMES = os.path.join(HERE, "runtimes")
SYSFS_ROOT = os.environ.get("SOCBENCH_SYSFS_ROOT", "")
# ONNX Runtime 1.31.1 for Linux has telemetry: it writes $TMPDIR/.ses and may send events while it is measured.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

TICK_S = 1.0
TOO_WARM = "too_warm"
CLOCK_EVERY_NS = 60 * 10**9
GAP_NS = 10**9
FLUSH_NS = 5 * 10**8
BUFFER_SAMPLES = 65536
LINE_SAMPLES = 4096
LINE_LIMIT = 8 * 1024 * 1024
LOG_LIMIT = 1024 * 1024
TAIL_CHARS = 4000
RESERVE_BYTES = 256 * 1024
SPIN_NS = 200000
WINDOW_SAMPLES = 32768
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
PROBE_TIMEOUT_S = 60.0
STOP_WAIT_S = 10.0


class Problem(Exception):
    """A failure with a code of docs/protocol.md, one sentence and what to do about it."""

    def __init__(self, code, message, advice=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice


def load_module(path, name):
    """Import ``path`` under the private ``name``, so that ``onnxruntime.py`` cannot shadow the real package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_adapter(runtime):
    """Return the adapter of ``runtime``; Problem ``runtime_missing`` when this agent carries none of that name."""
    path = os.path.join(RUNTIMES, f"{runtime}.py")
    if not re.match(r"^[a-z][a-z0-9_]*$", runtime) or runtime == "base" or not os.path.exists(path):
        known = ", ".join(known_runtimes())
        raise Problem("runtime_missing", f"this agent has no runtime called {runtime}; it has {known}")
    load_module(os.path.join(RUNTIMES, "base.py"), "socbench_runtime_base")
    return load_module(path, "socbench_runtime_" + runtime).ADAPTER


def load_telemetry():
    """Return the telemetry module that lies beside this file."""
    return load_module(os.path.join(HERE, "telemetry.py"), "socbench_telemetry")


def known_runtimes():
    """Names of the adapters beside this file."""
    names = [os.path.basename(path)[:-3] for path in glob.glob(os.path.join(RUNTIMES, "*.py"))]
    return sorted(name for name in names if name not in ("base", "__init__"))


def read_text(path, limit=65536):
    """Return the file's text (at most ``limit`` bytes), or None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def read_int(path):
    """Return the integer that the file holds, or None."""
    text = read_text(path, 64)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def boot_id():
    """Return the kernel's id of this boot: the domain of the monotonic clock."""
    text = read_text(SYSFS_ROOT + "/proc/sys/kernel/random/boot_id")
    return text.strip() if text else None


# ---------------------------------------------------------------------------------------------------------------------
# Job document


def load_job(job_dir):
    """Read and check ``job.json``; raises Problem ``bad_job`` or ``protocol_version``."""
    path = os.path.join(job_dir, "job.json")
    try:
        with open(path, encoding="utf-8") as file:
            job = json.load(file)
    except OSError as error:
        raise Problem("bad_job", f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Problem("bad_job", f"{path} is not a JSON document: {error}") from None
    check_job(job)
    return job


def _need(where, value, ok, what):
    if not ok:
        shown = json.dumps(value, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise Problem("bad_job", f"job.json: {where} must be {what}, not {shown}")


def _is_int(value, low=None, high=2**63):
    return isinstance(value, int) and not isinstance(value, bool) and (low is None or value >= low) and value < high


def _is_number(value, low=0.0):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < 1e12


def _is_shape(value):
    return isinstance(value, list) and len(value) <= 8 and all(_is_int(size, 0, 2**31) for size in value)


def check_job(job):
    """Raise Problem naming the first member of the job document that cannot be used."""
    _need("the document", job, isinstance(job, dict), "an object")
    if job.get("protocol") not in PROTOCOLS or isinstance(job.get("protocol"), bool):
        raise Problem(
            "protocol_version",
            "the job speaks protocol {} and this agent speaks {}".format(
                json.dumps(job.get("protocol")), ", ".join(map(str, PROTOCOLS))
            ),
            "use host and agent of the same socbench version",
        )
    _need("session", job.get("session"), isinstance(job.get("session"), str), "a text")
    orphan = job.get("orphan_after_s")
    _need("orphan_after_s", orphan, orphan is None or (_is_number(orphan) and orphan > 0), "a number over 0 or null")
    telemetry = job.get("telemetry")
    _need("telemetry", telemetry, telemetry is None or isinstance(telemetry, dict), "an object or null")
    for name in ("interval_s", "slow_interval_s"):
        if telemetry and name in telemetry:
            _need("telemetry." + name, telemetry[name], _is_number(telemetry[name], 0.01), "a number of at least 0.01")
    if telemetry and "after_s" in telemetry:
        _need("telemetry.after_s", telemetry["after_s"], _is_number(telemetry["after_s"]), "a number of at least 0")
    trials = job.get("trials")
    _need("trials", trials, isinstance(trials, dict), "an object")
    for name, trial in trials.items():
        check_trial("trials." + name, trial)
    _check_repetitions(job.get("repetitions"), trials)


def _check_repetitions(repetitions, trials):
    _need("repetitions", repetitions, isinstance(repetitions, list), "a list")
    seen = set()
    for index, entry in enumerate(repetitions):
        where = f"repetitions[{index}]"
        _need(where, entry, isinstance(entry, dict), "an object")
        trial = entry.get("trial")
        _need(where + ".trial", trial, isinstance(trial, str) and trial in trials, "the name of a trial of this job")
        number = entry.get("repetition")
        _need(where + ".repetition", number, _is_int(number, 0), "an integer of at least 0")
        _need(where + ".repetition", number, (trial, number) not in seen, "there only once")
        seen.add((trial, number))
        deadline = entry.get("deadline_s")
        _need(where + ".deadline_s", deadline, _is_number(deadline) and deadline > 0, "a number over 0")
        cool = entry.get("cool_down")
        _need(where + ".cool_down", cool, cool is None or isinstance(cool, dict), "an object or null")
        for name in ("max_wait_s", "tolerance_milli_c", "fixed_s"):
            if cool and cool.get(name) is not None:
                _need(f"{where}.cool_down.{name}", cool[name], _is_number(cool[name]), "a number of at least 0")
        baseline = (cool or {}).get("baseline")
        what = "an object of temperatures, caps and status"
        _need(where + ".cool_down.baseline", baseline, baseline is None or _is_baseline(baseline), what)


def _is_baseline(value):
    if not isinstance(value, dict) or not (value.get("status") is None or _is_int(value["status"])):
        return False
    groups = [value.get(name) for name in ("temperatures", "caps")]
    return all(isinstance(group, dict) and all(map(_is_int, group.values())) for group in groups)


def check_trial(where, trial):
    """Raise Problem naming the first member of one trial that cannot be used."""
    _need(where, trial, isinstance(trial, dict), "an object")
    for name in ("runtime", "delegate", "format", "precision", "model", "scenario"):
        _need(f"{where}.{name}", trial.get(name), isinstance(trial.get(name), str) and trial[name], "a text")
    for name in ("python", "runtime_dir"):
        value = trial.get(name)
        _need(f"{where}.{name}", value, value is None or isinstance(value, str), "a text or null")
    _need(where + ".threads", trial.get("threads"), _is_int(trial.get("threads"), 1, 4097), "an integer from 1 to 4096")
    _need(where + ".batch", trial.get("batch", 1), _is_int(trial.get("batch", 1), 1), "an integer of at least 1")
    cores = trial.get("cores")
    ok = cores is None or (isinstance(cores, list) and cores and all(_is_int(cpu, 0, 4096) for cpu in cores))
    _need(where + ".cores", cores, ok, "a list of CPU numbers or null")
    shapes = trial.get("shapes") or {}
    _need(where + ".shapes", shapes, isinstance(shapes, dict), "an object")
    for name, shape in shapes.items():
        _need(f"{where}.shapes.{name}", shape, _is_shape(shape), "a list of sizes")
    for name in ("options", "env"):
        value = trial.get(name) or {}
        _need(f"{where}.{name}", value, isinstance(value, dict), "an object")
    for name, value in (trial.get("env") or {}).items():
        ok = isinstance(value, str) and "\0" not in value and "=" not in name and "\0" not in name and name != ""
        _need(f"{where}.env.{name}", value, ok, "a text")
    _check_settings(where + ".settings", trial.get("settings"))
    for name in ("probe", "dataset"):
        _check_inputs(f"{where}.{name}", trial.get(name))
    _need(
        where + ".input_seed", trial.get("input_seed", 0), _is_int(trial.get("input_seed", 0), 0, 2**64), "an integer"
    )
    if trial["scenario"] == "accuracy":
        _need(where + ".dataset", trial.get("dataset"), trial.get("dataset") is not None, "given for scenario accuracy")


def _check_settings(where, settings):
    _need(where, settings, isinstance(settings, dict), "an object")
    for name in ("min_time_s", "max_time_s", "warmup_max_s"):
        _need(f"{where}.{name}", settings.get(name), _is_number(settings.get(name)), "a number of at least 0")
    for name, low in (("min_count", 1), ("warmup_min_count", 0), ("max_count", 1)):
        _need(f"{where}.{name}", settings.get(name), _is_int(settings.get(name), low), f"an integer from {low}")
    rate = settings.get("rate_hz")
    _need(where + ".rate_hz", rate, rate is None or _is_number(rate, 1e-6), "a number over 0 or null")
    limit = settings.get("max_temperature_milli_c")
    _need(where + ".max_temperature_milli_c", limit, limit is None or _is_int(limit, 1), "an integer over 0 or null")
    busy = settings.get("busy_cores")
    _need(where + ".busy_cores", busy, busy is None or _is_int(busy, 1, 4097), "an integer from 1 to 4096 or null")


def _check_inputs(where, given):
    if given is None:
        return
    _need(where, given, isinstance(given, dict), "an object or null")
    _need(where + ".count", given.get("count"), _is_int(given.get("count"), 1), "an integer of at least 1")
    keep = given.get("keep") or []
    known = isinstance(keep, list) and all(word in ("all", "argmax", "none") for word in keep)
    _need(where + ".keep", keep, known, "a list of all, argmax, none")
    inputs = given.get("inputs")
    _need(where + ".inputs", inputs, isinstance(inputs, list) and len(inputs) > 0, "a list of tensors")
    for index, tensor in enumerate(inputs):
        at = f"{where}.inputs[{index}]"
        _need(at, tensor, isinstance(tensor, dict), "an object")
        for name in ("name", "dtype", "file"):
            _need(f"{at}.{name}", tensor.get(name), isinstance(tensor.get(name), str) and tensor[name], "a text")
        _need(at + ".shape", tensor.get("shape"), _is_shape(tensor.get("shape")), "a list of sizes")


# ---------------------------------------------------------------------------------------------------------------------
# Event file


class DiskFull(Exception):
    """The device has no room for another event."""


class EventFile:
    """The one event file of a job: numbered lines, each appended with one write, never rewritten.

    A small reserve file is given up when the disk is full, so that a line cut short can be completed and the
    ``error`` and ``end`` events still find room.
    """

    def __init__(self, job_dir):
        self.path = os.path.join(job_dir, "events.jsonl")
        self.reserve = os.path.join(job_dir, "reserve")
        self.seq = 0
        self.full = False
        with open(self.reserve, "wb") as file:
            file.write(os.urandom(RESERVE_BYTES))  # file systems that compress would make nothing of zeros
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o644)

    def append(self, body):
        """Append ``body`` (a compact JSON object as bytes, without ``seq``).

        Raises DiskFull once, after the line that met the full disk was completed in the room of the reserve, and
        again when a later line finds no room at all.
        """
        line = b'{"seq":%d,%s\n' % (self.seq + 1, body[1:])
        done = tries = 0
        freed = False
        while done < len(line):
            try:
                done += os.write(self.fd, line[done:])
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if not self.full:
                    self.full = freed = True
                    os.unlink(self.reserve)
                elif done == 0:
                    raise DiskFull() from None
                elif tries > 40:
                    raise
                else:
                    tries += 1
                    time.sleep(0.25)
        self.seq += 1
        if freed:
            raise DiskFull()

    def emit(self, kind, **members):
        """Append one event made here."""
        self.append(encode(kind, members))

    def close(self):
        """Close the file and give the reserve back."""
        os.close(self.fd)
        with contextlib.suppress(OSError):
            os.unlink(self.reserve)


def encode(kind, members):
    """Return one event as compact JSON bytes; ``type`` comes first, so that a reader need not parse the rest."""
    event = {"type": kind, "t_ns": members.pop("t_ns", None) or time.monotonic_ns()}
    event.update(members)
    return json.dumps(clean(event), separators=(",", ":"), ensure_ascii=True).encode("ascii")


def clean(value):
    """Return ``value`` with everything that JSON cannot carry made plain: NaN and infinities become None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Supervisor


def die_with_parent():
    """Have the kernel kill this process when its parent dies (Linux; nothing elsewhere)."""
    if LIBC is not None and sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        LIBC.prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)


def boot_ns():
    """Nanoseconds since boot, suspended time included."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime_ns(clock) if clock is not None else time.monotonic_ns()


def clock_pair():
    """Return ``(monotonic_ns, wall_ns)`` read together: the narrowest of five brackets, as one may be preempted."""
    best = None
    for _ in range(5):
        before = time.monotonic_ns()
        wall_ns = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, wall_ns)
    return best[1], best[2]


class Child:
    """A process of ours with the pipe on which it sends events and the pipe of its output."""

    def __init__(self, argv, env=None, cwd=None):
        parent = os.getpid()
        events_read, events_write = os.pipe()
        output_read, output_write = os.pipe()

        def prepare():
            die_with_parent()
            if os.getppid() != parent:
                os._exit(125)

        try:
            self.process = subprocess.Popen(
                [*argv, str(events_write)],
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(events_write,),
                start_new_session=True,
                preexec_fn=prepare,
                env=env,
                cwd=cwd,
            )
        finally:
            os.close(events_write)
            os.close(output_write)
        for fd in (events_read, output_read):
            os.set_blocking(fd, False)
        self.events = events_read
        self.output = output_read
        self.buffer = b""
        self.tail = b""
        self.ended = None

    def kill(self):
        """Kill the process and every process that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()

    def close(self):
        """Reap the process, close the pipes."""
        self.kill()
        self.process.wait()
        for fd in (self.events, self.output):
            if fd is not None:
                os.close(fd)
        self.events = self.output = None


class SecondLoad:
    """``count`` processes of ours that each keep a core busy beside a repetition: integers in registers, no memory."""

    def __init__(self, count):
        self.processes = []
        self.spent = [0, 0]
        argv = [sys.executable, os.path.abspath(__file__), "busy", str(os.getpid())]
        try:
            for _ in range(count):
                self.processes.append(Child(argv))
        except OSError:
            self.close()
            raise

    def ticks(self):
        """Return the CPU time that they have used so far, in clock ticks."""
        return sum(load_telemetry().cpu_ticks(child.process.pid) for child in self.processes)

    def phase(self, name):
        """Take note of when measuring begins and ends: what they use in between is what counts."""
        if name == "measure":
            self.spent = [self.ticks(), None]
        elif self.spent[1] is None:
            self.spent[1] = self.ticks()

    def used_ns(self):
        """Return the CPU time that they used while it was measured."""
        begin, end = self.spent
        return ((self.ticks() if end is None else end) - begin) * (10**9 // os.sysconf("SC_CLK_TCK"))

    def ended(self):
        """Return why one of them is no more, or None while all work."""
        for child in self.processes:
            if child.process.poll() is not None:
                tail = child.tail.decode("utf-8", "replace").strip()[-200:]
                return "a process of the second load ended by itself" + (": " + tail if tail else "")
        return None

    def close(self):
        """End them."""
        for child in self.processes:
            child.close()
        self.processes = []


def busy(parent):
    """Keep a core busy until the parent is gone (or, mostly, until it kills us)."""
    value = 1
    while os.getppid() == parent:
        for _ in range(100000):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return 0


class Supervisor:
    """Runs the repetitions of one job and writes its event file."""

    def __init__(self, job_dir, job, events):
        self.job_dir = job_dir
        self.job = job
        self.events = events
        self.child = None
        self.telemetry = None
        self.current = b""
        self.finished = False
        self.ending = None
        self.log_bytes = 0
        self.last_clock_ns = 0
        self.wall_offset_ns = 0
        self.last_boot_ns = boot_ns()
        self.lease_mtime = None
        self.lease_seen_ns = time.monotonic_ns()
        self.baseline = None
        self.last_error = None
        self.heat = None
        self.load = None
        self.load_cores = 0
        self.load_problem = None
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        self.wake = wake_read
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _on_signal(self, number, frame):
        if self.ending is None:
            self.ending = "stopped"

    def run(self):
        """Run the whole job; returns the exit code."""
        module = load_telemetry()
        self.events.emit(
            "hello",
            protocol=self.job["protocol"],
            agent="python",
            agent_version=VERSION,
            pid=os.getpid(),
            session=self.job["session"],
            boot_id=boot_id(),
            power=module.read_power(),
        )
        self._clock(None)
        self._start_telemetry()
        waits = [entry["cool_down"] for entry in self.job["repetitions"] if entry.get("cool_down")]
        if any(wait.get("max_wait_s") is not None for wait in waits):
            told = next((wait["baseline"] for wait in waits if wait.get("baseline")), None)
            self.baseline = told or module.cooling_state()
        for index, entry in enumerate(self.job["repetitions"]):
            if self.ending is None:
                self._repetition(index, entry)
            if self.ending is not None:
                break
        if self.ending is None and self.telemetry is not None:
            self._wait(self.job["telemetry"].get("after_s") or 0.0)  # how the device cools down
        return self.end(self.ending or "complete")

    def end(self, reason):
        """Stop everything and write the last event."""
        self._stop_load()
        for child in (self.child, self.telemetry):
            if child is not None:
                child.close()
        self.child = self.telemetry = None
        with contextlib.suppress(DiskFull):
            self.events.emit("end", reason=reason)
        self.events.close()
        return 0 if reason == "complete" else 1

    def disk_full(self):
        """Say that the disk is full, in the room of the reserve, and end."""
        message = f"the device's disk is full: {self.job_dir} cannot grow"
        try:
            if self.current and not self.finished:
                members = json.loads(b"{" + self.current[:-1] + b"}")
                self.events.emit("error", code="disk_full", message=message, advice=None, **members)
            self.events.emit("error", code="disk_full", message=message, advice="free space on the device")
        except DiskFull:
            pass
        return self.end("job_error")

    def _start_telemetry(self):
        settings = self.job.get("telemetry")
        if settings is None:
            return
        argv = [sys.executable, os.path.abspath(__file__), "telemetry"]
        argv += [str(settings.get("interval_s", 0.5)), str(settings.get("slow_interval_s", 10.0))]
        self.telemetry = Child(argv)

    def _repetition(self, index, entry):
        members = {"trial": entry["trial"], "repetition": entry["repetition"]}
        self.current = b'"trial":%s,"repetition":%d,' % (
            json.dumps(entry["trial"]).encode("ascii"),
            entry["repetition"],
        )
        self._cool_down(entry.get("cool_down"), members)
        if self.ending is None:
            self._run_child(index, entry, members)
        self.current = b""

    def _run_child(self, index, entry, members):
        trial = self.job["trials"][entry["trial"]]
        self._limit_heat(trial)
        self.load_cores = trial["settings"].get("busy_cores") or 0
        self.load_problem = None
        kills = oom_kills()
        started_ns = time.monotonic_ns()
        try:
            argv = [trial.get("python") or sys.executable, os.path.abspath(__file__), "child", self.job_dir, str(index)]
            self.child = Child(argv, env=child_environment(trial), cwd=self.job_dir)
        except OSError as error:
            message = "{} cannot be started: {}".format(trial.get("python") or sys.executable, error.strerror)
            self.events.emit("error", code="runtime_missing", message=message, advice=None, **members)
            return
        self.finished = False
        self.last_error = None
        deadline_ns = started_ns + int(entry["deadline_s"] * 1e9)
        late = False
        while self.ending is None and not self._over():
            if time.monotonic_ns() >= deadline_ns:
                late = True
                break
            self.pump(deadline_ns)
            if self.load is not None and not self.finished:
                self.load_problem = self.load.ended()
            if self.load_problem:
                break
        child, self.child = self.child, None
        running = child.process.poll() is None
        self._stop_load()
        child.kill()
        child.process.wait()
        self._drain(child)
        child.close()
        if not self.finished:
            self._conclude(child, entry, members, late, running, oom_kills() > kills)
        if self.last_error == "disk_full":
            raise DiskFull()  # what follows would meet the same disk

    def _load_beside(self, phase):
        """Follow the phases of a repetition that has a second load: it works from warming up on."""
        if phase == "warmup":
            try:
                self.load = SecondLoad(self.load_cores)
            except OSError as error:
                self.load_problem = f"the second load could not be started: {error.strerror}"
        elif self.load is not None:
            self.load.phase(phase)

    def _stop_load(self):
        if self.load is not None:
            self.load.close()
        self.load = None

    def _limit_heat(self, trial):
        """Watch the temperatures of this repetition when its trial has a limit."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.job_dir, TOO_WARM))
        limit = trial["settings"].get("max_temperature_milli_c")
        self.heat = None if limit is None else load_telemetry().HeatLimit(limit)

    def _watch_heat(self, line):
        """Have the child stop measuring once the limit is reached: it looks for a file between two batches."""
        reached = self.heat.reached(json.loads(line).get("rows") or [])
        if reached is None:
            return
        self.heat = None
        with contextlib.suppress(OSError), open(os.path.join(self.job_dir, TOO_WARM), "wb"):
            pass
        source, value = reached
        text = f"stopped measuring: {source} reached {value / 1000:.1f} degrees C"
        self.events.append(b"{" + self.current + encode("log", {"level": "info", "text": text})[1:])

    def _over(self):
        """The child has ended, or has said all it has to say and does not leave within five seconds."""
        if self.child.process.poll() is not None:
            return True
        return self.finished and time.monotonic_ns() - self.finished > 5 * 10**9

    def _conclude(self, child, entry, members, late, running, oom):
        """Write the error of a repetition that did not finish by itself."""
        code, message, advice = self._verdict(child, entry, late, running, oom)
        tail = child.tail.decode("utf-8", "replace").strip()[-TAIL_CHARS:]
        if tail:
            self.events.emit("log", level="error", text=tail, **members)
        self.events.emit("error", code=code, message=message, advice=advice, **members)

    def _verdict(self, child, entry, late, running, oom):
        what = "{} repetition {}".format(entry["trial"], entry["repetition"])
        if self.load_problem:
            return "run_failed", f"{what} was under way when {self.load_problem}", "leave --busy-cores away"
        if late:
            return "deadline", "{} was not done after {:g} s".format(what, entry["deadline_s"]), None
        if self.ending is not None and running:
            ending = {"orphaned": "orphaned", "stopped": "stopped"}.get(self.ending, "run_failed")
            return ending, f"{what} was under way when the agent ended ({self.ending})", None
        status = child.process.returncode
        if status < 0 and oom and -status == signal.SIGKILL:
            message = f"the process of {what} was killed by the kernel for want of memory"
            return "out_of_memory", message, "use a smaller batch or a smaller model"
        if status < 0:
            return "crashed", f"the process of {what} died of {signal_name(-status)}", None
        return "run_failed", f"the process of {what} ended with status {status} and no result", None

    def pump(self, until_ns):
        """Wait for output of the children, at most one tick and at most until ``until_ns``, and handle it."""
        fds = {self.wake: None}
        for child in (self.child, self.telemetry):
            if child is not None:
                fds.update({fd: child for fd in (child.events, child.output) if fd is not None})
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        wait_ms = min(TICK_S * 1e3, max(0.0, (until_ns - time.monotonic_ns()) / 1e6 + 1))
        for fd, _ in poller.poll(wait_ms):
            if fd == self.wake:
                os.read(fd, 512)
            else:
                self._read(fds[fd], fd)
        self._tick()

    def _read(self, child, fd):
        """Read once from a pipe of a child; returns False when there was nothing."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            os.close(fd)
            if fd == child.events:
                child.events = None
            else:
                child.output = None
            return False
        if fd == child.output:
            self._output(child, data)
            return True
        child.buffer += data
        if len(child.buffer) > LINE_LIMIT and b"\n" not in child.buffer:
            child.buffer = b""
            child.kill()
        lines = child.buffer.split(b"\n")
        child.buffer = lines.pop()
        for line in lines:
            self._event(line)
        return True

    def _drain(self, child):
        for name in ("events", "output"):
            for _ in range(1024):
                fd = getattr(child, name)
                if fd is None or not self._read(child, fd):
                    break

    def _output(self, child, data):
        """Keep the tail of what a child prints, and up to a limit all of it in agent.log."""
        child.tail = (child.tail + data)[-TAIL_CHARS:]
        room = LOG_LIMIT - self.log_bytes
        if room > 0:
            self.log_bytes += len(data)
            try:
                with open(os.path.join(self.job_dir, "agent.log"), "ab") as log:
                    log.write(data[:room])
            except OSError:
                self.log_bytes = LOG_LIMIT

    def _event(self, line):
        """Append a line of a child: it is complete JSON but for ``seq``, trial and repetition."""
        found = re.match(rb'\{"type":"([a-z_]+)",', line)
        if found is None or not line.endswith(b"}"):
            return
        kind = found.group(1)
        if kind == b"done":
            event = json.loads(line)
            event["power"] = load_telemetry().read_power()
            if self.load is not None:
                event["second_load_ns"] = self.load.used_ns()
            line = json.dumps(event, separators=(",", ":")).encode("ascii")
        if kind == b"error":
            self.last_error = json.loads(line).get("code")
        if kind == b"phase" and self.load_cores and self.child is not None:
            self._load_beside(json.loads(line).get("phase"))
        if kind in (b"done", b"error"):
            self.finished = time.monotonic_ns()
            self._stop_load()
        self.events.append(b"{" + self.current + line[1:])
        if kind == b"telemetry" and self.heat is not None and self.child is not None:
            self._watch_heat(line)

    def _clock(self, gap_ns):
        self.last_clock_ns, wall_ns = clock_pair()
        self.wall_offset_ns = wall_ns - self.last_clock_ns
        members = {"monotonic_ns": self.last_clock_ns, "wall_ns": wall_ns}
        if gap_ns is not None:
            members["gap_ns"] = gap_ns
        self.events.emit("clock", **members)

    def _tick(self):
        now_ns = boot_ns()
        gap_ns = now_ns - self.last_boot_ns
        self.last_boot_ns = now_ns
        if gap_ns > TICK_S * 1e9 + GAP_NS:
            self._clock(gap_ns)
        elif time.monotonic_ns() - self.last_clock_ns > CLOCK_EVERY_NS or self._wall_was_set():
            self._clock(None)
        if self.telemetry is not None and self.telemetry.process.poll() is not None:
            telemetry, self.telemetry = self.telemetry, None
            text = "telemetry ended: " + telemetry.tail.decode("utf-8", "replace").strip()[-TAIL_CHARS:]
            telemetry.close()
            self.events.emit("log", level="warning", text=text[:TAIL_CHARS])
        self._check_lease()

    def _wall_was_set(self):
        """The time of day runs differently than at the last pair: what is placed by it needs a pair of each side."""
        return abs(time.time_ns() - time.monotonic_ns() - self.wall_offset_ns) > GAP_NS

    def _check_lease(self):
        """End when the host has not touched the lease for too long; judged on the monotonic clock alone, so that a
        wall clock that jumps orphans nobody."""
        limit = self.job.get("orphan_after_s")
        if limit is None:
            return
        try:
            mtime = os.stat(os.path.join(self.job_dir, "lease")).st_mtime_ns
        except OSError:
            mtime = None
        now_ns = time.monotonic_ns()
        if mtime is not None and mtime != self.lease_mtime:
            self.lease_mtime = mtime
            self.lease_seen_ns = now_ns
        elif now_ns - self.lease_seen_ns > limit * 1e9 and self.ending is None:
            self.ending = "orphaned"

    def _wait(self, seconds):
        until_ns = time.monotonic_ns() + int(seconds * 1e9)
        while self.ending is None and time.monotonic_ns() < until_ns:
            self.pump(until_ns)

    def _cool_down(self, cool, members):
        """Wait until the device is back at the baseline (rule 7), and record how that ended."""
        if cool is None:
            return
        self.events.emit("phase", phase="cool_down", detail={"outcome": "waiting"}, **members)
        started_ns = time.monotonic_ns()
        detail = {}
        outcome = "fixed"
        if cool.get("max_wait_s") is not None:
            outcome, detail = self._cool_by_condition(cool)
        if cool.get("max_wait_s") is None or outcome == "unreadable":
            self._wait(cool.get("fixed_s") or 0.0)
        detail.update(outcome=outcome, waited_ns=time.monotonic_ns() - started_ns)
        self.events.emit("phase", phase="cool_down", detail=detail, **members)

    def _cool_by_condition(self, cool):
        module = load_telemetry()
        until_ns = time.monotonic_ns() + int(cool["max_wait_s"] * 1e9)
        if not self.baseline:
            return "unreadable", {}
        while True:
            state = module.cooling_state()
            warm = module.not_yet_cool(self.baseline, state, cool.get("tolerance_milli_c") or 0)
            detail = {"baseline": self.baseline, "state": state, "above": warm}
            if not warm:
                return "reached", detail
            left_s = (until_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0 or self.ending is not None:
                return "timeout", detail
            self._wait(min(1.0, left_s))


def signal_name(number):
    """Return ``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills():
    """Return how many processes the kernel has killed for want of memory since boot (0 where it does not tell)."""
    found = re.search(r"^oom_kill (\d+)", read_text("/proc/vmstat") or "", re.M)
    return int(found.group(1)) if found else 0


def child_environment(trial):
    """Return the environment of a repetition: thread counts for libraries that read them before anything is asked."""
    env = dict(os.environ)
    if trial.get("python"):  # another interpreter: no package of this one's is for it
        env.pop("PYTHONPATH", None)
        env.pop("PYTHONHOME", None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(trial["threads"])
    env["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's; nothing in a repetition multiplies matrices with it
    env.update(trial.get("env") or {})
    return env


# ---------------------------------------------------------------------------------------------------------------------
# Commands about a job folder


def lock_pid(job_dir):
    """Take a job folder's lock for the life of this process and write our pid; None if another holds it."""
    fd = os.open(os.path.join(job_dir, "pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def running_pid(job_dir):
    """Return the pid of the supervisor that works on ``job_dir``, or None; a stale pid file deceives nobody."""
    path = os.path.join(job_dir, "pid")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return read_int(path)
    finally:
        os.close(fd)
    return None


def supervise(job_dir):
    """Be the supervisor of ``job_dir``; returns the exit code."""
    job_dir = os.path.realpath(job_dir)
    refuse_used(job_dir)
    if not os.path.isdir(job_dir):
        raise Problem("bad_job", f"{job_dir} is no folder")
    lock = lock_pid(job_dir)
    if lock is None:
        raise Problem("bad_job", f"an agent already works on {job_dir}")
    try:
        job = load_job(job_dir)
    except Problem as problem:
        write_refusal(job_dir, problem)
        raise
    try:
        events = EventFile(job_dir)
    except OSError as error:
        code = "disk_full" if error.errno in NO_SPACE else "run_failed"
        raise Problem(code, f"{job_dir} cannot be written: {error.strerror}") from None
    supervisor = Supervisor(job_dir, job, events)
    try:
        return supervisor.run()
    except DiskFull:
        return supervisor.disk_full()


def refuse_used(job_dir):
    """A job folder is used once."""
    if os.path.exists(os.path.join(job_dir, "events.jsonl")):
        raise Problem(
            "bad_job",
            f"{job_dir} already holds events.jsonl: this job was run",
            "write what is left of it as a new job into a new folder",
        )


def write_refusal(job_dir, problem):
    """Leave an event file that says why the job was refused."""
    try:
        events = EventFile(job_dir)
    except OSError:
        return
    events.emit("hello", protocol=PROTOCOLS[-1], agent="python", agent_version=VERSION, pid=os.getpid(), session=None)
    events.emit("error", code=problem.code, message=problem.message, advice=problem.advice)
    events.emit("end", reason="job_error")
    events.close()


def start(job_dir):
    """Start a detached supervisor; returns ``{"pid"}`` once its event file exists."""
    job_dir = os.path.realpath(job_dir)
    refuse_used(job_dir)
    try:
        load_job(job_dir)
    except Problem as problem:
        write_refusal(job_dir, problem)
        raise
    with open(os.path.join(job_dir, "agent.log"), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "run", job_dir],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    path = os.path.join(job_dir, "events.jsonl")
    while not (os.path.exists(path) and os.path.getsize(path)):
        if process.poll() is not None:
            tail = (read_text(os.path.join(job_dir, "agent.log"), LOG_LIMIT) or "").strip()[-500:]
            raise Problem("run_failed", f"the supervisor ended at once with status {process.returncode}: {tail}")
        time.sleep(0.005)
    process.returncode = 0  # it goes on without us; Popen must not warn that it still runs
    return {"pid": process.pid}


def stop(job_dir):
    """End the supervisor of ``job_dir`` and what it runs; returns ``{"stopped": bool}``."""
    pid = running_pid(job_dir)
    if pid is None:
        return {"stopped": False}
    for number, wait_s in ((signal.SIGTERM, STOP_WAIT_S), (signal.SIGKILL, STOP_WAIT_S)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + wait_s
        while time.monotonic() < until and running_pid(job_dir) == pid:
            time.sleep(0.01)
        if running_pid(job_dir) != pid:
            break
    return {"stopped": True}


def status(job_dir):
    """Return what is known of ``job_dir`` without disturbing it."""
    pid = running_pid(job_dir)
    path = os.path.join(job_dir, "events.jsonl")
    size = os.path.getsize(path) if os.path.exists(path) else 0
    ended = False
    if size:
        with open(path, "rb") as file:
            file.seek(max(0, size - 4096))
            ended = b'"type":"end"' in file.read().rstrip(b"\n").rpartition(b"\n")[2]
    return {"running": pid is not None, "pid": pid, "events_bytes": size, "ended": ended}


# ---------------------------------------------------------------------------------------------------------------------
# One repetition, in the child


class Emitter:
    """Sends the child's events to the supervisor."""

    def __init__(self, fd):
        self.fd = fd
        os.set_inheritable(fd, False)

    def send(self, data):
        """Write all of ``data`` to the pipe."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def emit(self, kind, **members):
        """Send one event."""
        self.send(encode(kind, members) + b"\n")

    def samples(self, phase, starts, ends, lates=None):
        """Send samples in lines of bounded length; times are integers in nanoseconds."""
        for low in range(0, len(starts), LINE_SAMPLES):
            begin = starts[low : low + LINE_SAMPLES]
            end = ends[low : low + LINE_SAMPLES]
            latency = ",".join([str(b - a) for a, b in zip(begin, end)])
            gap = ",".join(["0"] + [str(a - b) for a, b in zip(begin[1:], end)])
            late = ""
            if lates is not None:
                late = ',"late_ns":[{}]'.format(",".join(map(str, lates[low : low + LINE_SAMPLES])))
            head = f'"t_ns":{time.monotonic_ns()},"phase":"{phase}","start_ns":{begin[0]}'
            line = f'{{"type":"samples",{head},"latency_ns":[{latency}],"gap_ns":[{gap}]{late}}}\n'
            self.send(line.encode("ascii"))


class Buffers:
    """Preallocated integers for the samples between two flushes."""

    def __init__(self, size=BUFFER_SAMPLES):
        self.size = size
        self.starts = array.array("q", bytes(8 * size))
        self.ends = array.array("q", bytes(8 * size))
        self.lates = array.array("q", bytes(8 * size))


def timed_block(run, clock, starts, ends, index, limit, stop_ns):
    """The timed loop: run until ``limit`` samples are there or one ends at or after ``stop_ns``.

    Nothing but the inference lies between the two readings of the clock. Returns the next free index.
    """
    for index in range(index, limit):  # noqa: B020
        begin = clock()
        run()
        end = clock()
        starts[index] = begin
        ends[index] = end
        if end >= stop_ns:
            break
    return index + 1


def paced_block(run, clock, wait_until, buffers, index, limit, stop_ns, grid):
    """The timed loop at a fixed rate. ``grid`` is ``[origin_ns, period_ns, slot]`` and is advanced.

    Slot k is due at origin + k * period. After an inference the newest slot that is due is taken, those before it are
    dropped, as a camera's pipeline drops frames; ``late_ns`` is how long after its slot an inference started.
    """
    origin, period, slot = grid
    starts, ends, lates = buffers.starts, buffers.ends, buffers.lates
    for index in range(index, limit):  # noqa: B020
        due = origin + int(slot * period)
        wait_until(due)
        begin = clock()
        run()
        end = clock()
        starts[index] = begin
        ends[index] = end
        lates[index] = begin - due
        slot = max(slot + 1, int((end - origin) / period))
        if end >= stop_ns:
            break
    grid[2] = slot
    return index + 1


def wait_until(due_ns):
    """Sleep until the monotonic clock shows ``due_ns``; only the last 0.2 ms are spent awake."""
    left = due_ns - time.perf_counter_ns()
    if left > SPIN_NS:
        time.sleep((left - SPIN_NS) / 1e9)
    while time.perf_counter_ns() < due_ns:
        pass


def twice_median(values):
    """Return twice the median, so that integers stay integers."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]


def is_steady(starts, ends, count):
    """The warm-up test of docs/protocol.md on the last window of ``count`` samples."""
    low = count - 10
    if low < 0:
        return False
    while ends[count - 1] - starts[low] < 10**8 and count - low < WINDOW_SAMPLES:
        if low == 0:
            return False
        low -= 1
    middle = (low + count) // 2
    first = twice_median([ends[i] - starts[i] for i in range(low, middle)])
    second = twice_median([ends[i] - starts[i] for i in range(middle, count)])
    return 20 * abs(first - second) < second


def warm_up(run, clock, settings, buffers, out):
    """Run until the timings are steady or the cap is reached; returns ``(count, duration_ns, steady)``."""
    cap_ns = int(settings["warmup_max_s"] * 1e9)
    least = settings["warmup_min_count"]
    keep = WINDOW_SAMPLES
    begin_ns = clock()
    count = used = 0
    steady = False
    while count < settings["max_count"]:
        now_ns = clock()
        if now_ns - begin_ns >= cap_ns and count >= least:
            break
        if used + 1024 > buffers.size:
            # keep the last part for the window; what goes is sent, so that every sample is kept
            out.samples("warmup", buffers.starts[: used - keep], buffers.ends[: used - keep])
            for column in (buffers.starts, buffers.ends):
                column[:keep] = column[used - keep : used]
            used = keep
        limit = min(buffers.size, used + settings["max_count"] - count)
        before = used
        used = timed_block(run, clock, buffers.starts, buffers.ends, used, limit, now_ns + 5 * 10**7)
        count += used - before
        if count >= least and is_steady(buffers.starts, buffers.ends, used):
            steady = True
            break
    duration_ns = clock() - begin_ns
    if used:
        out.samples("warmup", buffers.starts[:used], buffers.ends[:used])
    return count, duration_ns, steady


def measure(run, clock, waiter, settings, buffers, out):
    """Measure until minimum time and count are reached, or a maximum; returns ``(count, duration_ns, stopped_by)``."""
    rate = settings.get("rate_hz")
    min_ns, max_ns = int(settings["min_time_s"] * 1e9), int(settings["max_time_s"] * 1e9)
    min_count, max_count = settings["min_count"], settings["max_count"]
    begin_ns = flushed_ns = end_ns = clock()
    grid = [begin_ns, 1e9 / rate, 0] if rate else None
    count = used = 0
    while True:
        enough = count >= min_count
        if enough and end_ns - begin_ns >= min_ns:
            stopped_by = "min"
            break
        if count and end_ns - begin_ns >= max_ns:
            stopped_by = "max_time"
            break
        if count >= max_count:
            stopped_by = "max_count"
            break
        if used and (used == buffers.size or end_ns - flushed_ns >= FLUSH_NS):
            out.samples("measured", buffers.starts[:used], buffers.ends[:used], buffers.lates[:used] if rate else None)
            used = 0
            flushed_ns = clock()
            if os.path.exists(TOO_WARM):
                stopped_by = "max_temperature"
                break
        stop_ns = min(begin_ns + (min_ns if enough else max_ns), begin_ns + max_ns, flushed_ns + FLUSH_NS)
        room = min(buffers.size - used, (max_count if enough else min(min_count, max_count)) - count)
        before = used
        if grid:
            used = paced_block(run, clock, waiter, buffers, used, used + room, stop_ns, grid)
        else:
            used = timed_block(run, clock, buffers.starts, buffers.ends, used, used + room, stop_ns)
        count += used - before
        end_ns = buffers.ends[used - 1]
    if used:
        out.samples("measured", buffers.starts[:used], buffers.ends[:used], buffers.lates[:used] if rate else None)
    return count, end_ns - begin_ns, stopped_by


class Counters:
    """What the operating system counts around the measured part."""

    def __init__(self):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_ns = int((usage.ru_utime + usage.ru_stime) * 1e9)
        self.voluntary = usage.ru_nvcsw
        self.involuntary = usage.ru_nivcsw
        self.busy_ns = busy_ns()
        self.throttled_ns = quota_throttled_ns()
        self.delays_ns = run_delays_ns()

    def since(self, before):
        """Return the members of ``done`` that count from ``before`` to here."""

        def minus(now, then):
            return None if now is None or then is None else now - then

        return {
            "cpu_ns": self.cpu_ns - before.cpu_ns,
            "voluntary_switches": self.voluntary - before.voluntary,
            "involuntary_switches": self.involuntary - before.involuntary,
            "busy_ns": minus(self.busy_ns, before.busy_ns),
            "quota_throttled_ns": minus(self.throttled_ns, before.throttled_ns),
            "run_delay_ns": self._delayed(before),
        }

    def _delayed(self, before):
        """Threads that began in between count from their beginning, those that ended do not count."""
        if self.delays_ns is None or before.delays_ns is None:
            return None
        return sum(delay - before.delays_ns.get(thread, 0) for thread, delay in self.delays_ns.items())


def busy_ns():
    """Return the busy time of all cores since boot from /proc/stat (user, nice, system, irq, softirq), or None."""
    fields = (read_text(SYSFS_ROOT + "/proc/stat", 512) or "").split("\n")[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq = map(int, fields[1:8])
    return (user + nice + system + irq + softirq) * (10**9 // os.sysconf("SC_CLK_TCK"))


def run_delays_ns():
    """Return ``{thread: ns}`` that our threads were ready and waited for a core, or None where nobody counts it."""
    delays = {}
    for path in glob.glob(SYSFS_ROOT + "/proc/self/task/*/schedstat"):
        fields = (read_text(path, 256) or "").split()
        if len(fields) == 3:
            delays[path.split("/")[-2]] = int(fields[1])
    return delays or None


def quota_throttled_ns():
    """Return how long CPU quotas of our cgroup and those above it have held tasks back, or None where none is known."""
    total = None
    for line in (read_text(SYSFS_ROOT + "/proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or not (parts[1] == "" or "cpu" in parts[1].split(",")):
            continue
        mounts = ("", "/unified") if parts[1] == "" else ("/" + parts[1], "/cpu", "/cpu,cpuacct")
        bases = [SYSFS_ROOT + "/sys/fs/cgroup" + mount for mount in mounts]
        base = next((path for path in bases if os.path.exists(path + "/cgroup.procs")), None)
        path = parts[2].rstrip("/")
        while base is not None:
            text = read_text(base + path + "/cpu.stat") or ""
            for key, value in re.findall(r"^(throttled_usec|throttled_time) (\d+)", text, re.M):
                total = (total or 0) + int(value) * (1000 if key == "throttled_usec" else 1)
            if not path:
                break
            path = path.rpartition("/")[0]
    return total


def peak_memory_bytes():
    """Return the process's peak resident set from /proc/self/status (VmHWM), or from getrusage."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", read_text("/proc/self/status") or "", re.M)
    if found:
        return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bind_cores(cores):
    """Bind this process to ``cores``; Problem ``bad_job`` when the device has no such CPU."""
    if cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise Problem("bad_job", f"cores cannot be chosen on {sys.platform}", "leave --cores out")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        names = ", ".join(map(str, cores))
        raise Problem("bad_job", f"this process cannot be bound to CPU {names}: {error.strerror}") from None


def effective_cores():
    """Return the CPUs that this process may run on, or None."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def splitmix64(seed, count):
    """Return ``count`` outputs of SplitMix64 (Steele, Lea, Flood 2014; Vigna's reference code) as uint64."""
    import numpy

    with numpy.errstate(over="ignore"):
        step = numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        z = step + numpy.uint64(seed % 2**64)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return z ^ (z >> numpy.uint64(31))


def seeded_tensor(seed, dtype, shape):
    """Return the seeded input of docs/protocol.md as an array of ``shape`` and ``dtype`` (its NumPy name)."""
    import numpy

    count = 1
    for size in shape:
        count *= size
    if count > 2**31:
        raise Problem("shape_mismatch", f"an input of shape {list(shape)} is too large to make")
    bits = splitmix64(seed, count)
    if dtype.startswith("float"):
        unit = (bits >> numpy.uint64(40)).astype(numpy.float64) / 2.0**23 - 1.0
        values = unit.astype(dtype)
    elif dtype in ("int8", "uint8"):
        values = (bits & numpy.uint64(255)).astype(numpy.uint8).view(dtype)
    elif dtype == "bool":
        values = (bits & numpy.uint64(1)).astype(bool)
    elif dtype in ("int16", "uint16", "int32", "uint32", "int64", "uint64"):
        values = (bits % numpy.uint64(128)).astype(dtype)
    else:
        raise Problem("shape_mismatch", f"no input of type {dtype} can be made from a seed", "give an input file")
    return values.reshape(shape)


class Inputs:
    """The inputs of a probe or a data set: ``count`` of them, read from files or made from the seed."""

    def __init__(self, given, where, trial, described):
        self.arrays = {}
        self.count = 1
        if given is None:
            for index, tensor in enumerate(described["inputs"]):
                shape = [1 if size is None or size < 0 else size for size in tensor["shape"]]
                value = seeded_tensor(trial.get("input_seed", 0) + index, tensor["dtype"], shape)
                self.arrays[tensor["name"]] = value[None]
            return
        self.count = given["count"]
        for index, tensor in enumerate(given["inputs"]):
            self.arrays[tensor["name"]] = self._map(f"{where}.inputs[{index}]", tensor)

    def _map(self, where, tensor):
        import numpy

        try:
            dtype = numpy.dtype(tensor["dtype"])
        except TypeError:
            raise Problem("bad_job", "{}.dtype: {} is no type".format(where, tensor["dtype"])) from None
        shape = [self.count] + tensor["shape"]
        need = dtype.itemsize
        for size in shape:
            need *= size
        try:
            have = os.path.getsize(tensor["file"])
        except OSError as error:
            raise Problem("bad_job", "{}.file: {}: {}".format(where, tensor["file"], error.strerror)) from None
        if dtype.hasobject or have != need:
            path, shape = tensor["file"], tensor["shape"]
            message = f"{where}.file: {path} has {have} bytes, {self.count} inputs of {dtype} {shape} take {need}"
            raise Problem("bad_job", message)
        return (
            numpy.memmap(tensor["file"], dtype=dtype, mode="r", shape=tuple(shape))
            if need
            else numpy.zeros(shape, dtype)
        )

    def one(self, index):
        """Return ``{name: array}`` of input ``index``."""
        return {name: values[index] for name, values in self.arrays.items()}


def write_outputs(session, inputs, stage, out, keep=()):
    """Run every input once and write the outputs to ``out/SHA256.bin``; sends the ``outputs`` event.

    ``keep``: by output, ``all``, ``argmax`` (the index of the largest element along the last axis) or ``none``.
    """
    os.makedirs("out", exist_ok=True)
    files = {}
    tensors = {}
    try:
        for index in range(inputs.count):
            session.bind(inputs.one(index))
            session.run()
            for position, (name, value) in enumerate(session.outputs().items()):
                wanted = keep[position] if position < len(keep) else "all"
                if wanted == "none":
                    continue
                if wanted == "argmax":
                    value = value.argmax(-1).astype("int32")
                if name not in files:
                    path = f"out/.{os.getpid()}.{stage}.{position}"
                    files[name] = (open(path, "wb"), path, hashlib.sha256())  # noqa: SIM115
                    tensors[name] = {"name": name, "dtype": str(value.dtype), "shape": list(value.shape)}
                elif list(value.shape) != tensors[name]["shape"]:
                    raise Problem("run_failed", f"output {name} changed its shape between two inputs")
                data = value.tobytes()
                files[name][0].write(data)
                files[name][2].update(data)
        for name, (file, path, digest) in files.items():
            file.close()
            target = f"out/{digest.hexdigest()}.bin"
            os.replace(path, target)
            tensors[name].update(sha256=digest.hexdigest(), file=target)
    finally:
        for file, path, _ in files.values():
            with contextlib.suppress(OSError):  # the disk is full; the first error counts
                file.close()
            if os.path.exists(path):
                os.unlink(path)
    out.emit("outputs", stage=stage, count=inputs.count, tensors=list(tensors.values()))


def child_main(job_dir, index, fd):
    """Run one repetition and send its events to ``fd``; every failure becomes an ``error`` event."""
    out = Emitter(fd)
    job = load_job(job_dir)
    entry = job["repetitions"][index]
    trial = dict(job["trials"][entry["trial"]], repetition=entry["repetition"])
    if entry.get("profile") is False:
        trial["profile"] = False
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != HERE]
    code = advice = None
    try:
        repetition(trial, out)
    except MemoryError:
        code, message, advice = "out_of_memory", "the process ran out of memory", "use a smaller batch or model"
    except OSError as error:
        code = "disk_full" if error.errno in NO_SPACE else "run_failed"
        message = str(error)
    except Exception as error:  # the trial loop: whatever a runtime raises is this repetition's failure
        code = getattr(error, "code", None)
        advice = getattr(error, "advice", None)
        if not isinstance(code, str):
            code = "run_failed"
        message = str(error) or type(error).__name__
    if code is not None:
        out.emit("error", code=code, message=message[:TAIL_CHARS], advice=advice)
        return 1
    return 0


def repetition(trial, out):
    """One repetition as docs/protocol.md orders it."""
    if trial["scenario"] not in ("single_stream", "sustained", "accuracy"):
        raise Problem("bad_job", "this agent knows no scenario called {}".format(trial["scenario"]))
    bind_cores(trial.get("cores"))
    model = os.path.realpath(trial["model"])
    if not os.path.exists(model):
        raise Problem("model_missing", f"the model file {model} is not there")
    adapter = load_adapter(trial["runtime"])
    out.emit("phase", phase="import", detail=None)
    import_ns = _timed(adapter.import_runtime)[0]
    out.emit("phase", phase="load", detail=None)
    load_ns, session = _timed(lambda: adapter.load(model, trial))
    described = {"import_ns": import_ns, "load_ns": load_ns, "compile_ns": None}
    described.update(session.describe(), cores_effective=effective_cores())
    if (trial.get("options") or {}).get("spin_wait_ns"):
        described["details"] = dict(described.get("details") or {}, spin_wait_ns=trial["options"]["spin_wait_ns"])
    out.emit("loaded", **described)
    clock = getattr(session, "clock", None) or time.perf_counter_ns
    waiter = getattr(session, "wait_until", None) or wait_until
    enter = getattr(session, "on_phase", None) or (lambda name: None)

    def phase(name):
        enter(name)
        out.emit("phase", phase=name, detail=None)

    accuracy = trial["scenario"] == "accuracy"
    name = "dataset" if accuracy else "probe"
    inputs = Inputs(trial.get(name), name, trial, described)
    buffers = Buffers(BUFFER_SAMPLES)
    session.bind(inputs.one(0))
    phase("first")
    timed_block(session.run, clock, buffers.starts, buffers.ends, 0, 1, 0)
    out.samples("first", buffers.starts[:1], buffers.ends[:1])
    if accuracy:
        done = _dataset(session, inputs, clock, phase, out, trial["dataset"].get("keep") or ())
    else:
        spin_ns = int((trial.get("options") or {}).get("spin_wait_ns") or 0)
        done = _single_stream(session, trial["settings"], inputs, clock, waiter, buffers, phase, out, spin_ns)
        _afterwards(adapter, session, model, trial, inputs, described, phase, out)
    session.close()
    out.emit("done", **done)


def _timed(action):
    begin = time.perf_counter_ns()
    value = action()
    return time.perf_counter_ns() - begin, value


def _dataset(session, inputs, clock, phase, out, keep):
    phase("dataset")
    before = Counters()
    begin_ns = clock()
    write_outputs(session, inputs, "dataset", out, keep)
    done = {"measured_count": inputs.count, "measured_ns": clock() - begin_ns, "stopped_by": "max_count"}
    done.update(Counters().since(before), peak_memory_bytes=peak_memory_bytes())
    return done


def _single_stream(session, settings, inputs, clock, waiter, buffers, phase, out, spin_ns):
    phase("check")
    write_outputs(session, inputs, "before", out)
    session.bind(inputs.one(0))
    gc.collect()
    gc.disable()
    phase("warmup")
    count, duration_ns, steady = warm_up(session.run, clock, settings, buffers, out)
    out.emit("warmup", count=count, duration_ns=duration_ns, steady=steady)
    phase("measure")
    before = Counters()
    run = _slowed(session.run, clock, spin_ns) if spin_ns else session.run
    count, duration_ns, stopped_by = measure(run, clock, waiter, settings, buffers, out)
    counted = Counters().since(before)
    gc.enable()
    done = {"measured_count": count, "measured_ns": duration_ns, "stopped_by": stopped_by}
    done.update(counted, peak_memory_bytes=peak_memory_bytes())
    phase("check")
    write_outputs(session, inputs, "after", out)
    return done


def _slowed(run, clock, spin_ns):
    """Return ``run`` made slower by ``spin_ns`` of busy waiting: a known difference, for experiments."""

    def slowed():
        run()
        until = clock() + spin_ns
        while clock() < until:
            pass

    return slowed


def _afterwards(adapter, session, model, trial, inputs, described, phase, out):
    """What is established once everything timed is over: the per-op profile, and better evidence of what ran."""
    better = dict(described)
    try:
        if trial.get("profile"):
            phase("profile")
            rows = adapter.profile(model, trial, inputs.one(0))
            if rows:
                out.emit("ops", rows=rows)
        better.update(session.evidence())
    except Exception as error:  # what was measured stands; a profiler that fails costs its own rows
        text = f"no profile: {type(error).__name__}: {error}"
        out.emit("log", level="warning", text=text[:TAIL_CHARS])
    if better != described:
        out.emit("loaded", **better)


# ---------------------------------------------------------------------------------------------------------------------
# probe, identify


def probe_one(runtime, fd):
    """Probe one runtime in this process and send what it says to ``fd``."""
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != HERE]
    try:
        found = load_adapter(runtime).probe()
    except Exception as error:  # whatever a broken runtime raises is what the probe reports
        found = unavailable(
            runtime, getattr(error, "code", "runtime_broken"), str(error), getattr(error, "advice", None)
        )
    Emitter(fd).send(json.dumps(clean(found)).encode("ascii"))
    return 0


def unavailable(runtime, code, message, advice):
    """Return the entry of ``probe`` for a runtime that cannot be used."""
    code = code if isinstance(code, str) else "runtime_broken"
    error = {"code": code, "message": message, "advice": advice}
    return {"runtime": runtime, "version": None, "formats": [], "error": error, "delegates": []}


def probe(runtimes):
    """Return ``{"runtimes": [...]}``, each probed in a process of its own, so that a crash costs one entry."""
    names = runtimes or known_runtimes()
    environment = os.environ.get("SOCBENCH_ENVIRONMENT", "host")
    return {"runtimes": [dict(_probe_in_child(name), environment=environment) for name in names]}


def _probe_in_child(name):
    if name not in known_runtimes():
        message = "this agent has no runtime called {}; it has {}".format(name, ", ".join(known_runtimes()))
        return unavailable(name, "runtime_missing", message, None)
    child = Child([sys.executable, os.path.abspath(__file__), "probe-one", name])
    answer = b""
    until = time.monotonic() + PROBE_TIMEOUT_S
    while time.monotonic() < until:
        ready = select.select([fd for fd in (child.events, child.output) if fd is not None], [], [], 1.0)[0]
        for fd in ready:
            data = os.read(fd, 65536)
            if fd == child.output:
                child.tail = (child.tail + data)[-TAIL_CHARS:]
                if not data:
                    os.close(fd)
                    child.output = None
            elif data:
                answer += data
            else:
                os.close(fd)
                child.events = None
        if child.events is None:
            break
    late = child.events is not None
    if not late:
        child.process.wait()
    child.close()
    try:
        return json.loads(answer.decode("utf-8"))
    except ValueError:
        how = f"did not answer in {PROBE_TIMEOUT_S:g} s" if late else "crashed"
        if not late and child.process.returncode < 0:
            how += f" ({signal_name(-child.process.returncode)})"
        tail = child.tail.decode("utf-8", "replace").strip()[-300:]
        message = "probing {} {}{}".format(name, how, ": " + tail if tail else "")
        return unavailable(name, "runtime_broken", message, None)


def identify():
    """Return ``{"facts": ...}``: raw texts and numbers, read and never interpreted here."""
    uname = platform.uname()
    meminfo = re.search(r"^MemTotal:\s+(\d+) kB", read_text(SYSFS_ROOT + "/proc/meminfo") or "", re.M)
    dmi = SYSFS_ROOT + "/sys/class/dmi/id/"
    tree = SYSFS_ROOT + "/proc/device-tree/"
    cpuinfo = read_text(SYSFS_ROOT + "/proc/cpuinfo")
    facts = {
        "uname": [uname.system, uname.node, uname.release, uname.version, uname.machine],
        "boot_id": boot_id(),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "cpu_count": os.cpu_count(),
        "cpuinfo": cpuinfo,
        "meminfo_total_kb": int(meminfo.group(1)) if meminfo else None,
        "os_release": read_text(SYSFS_ROOT + "/etc/os-release", 8192),
        "dmi": {name: _stripped(dmi + name) for name in ("product_name", "sys_vendor", "board_name")},
        "device_tree": {name: _stripped(tree + name) for name in ("model", "compatible")},
        "getprop": _getprop(),
        "cpus": _cpus(cpuinfo or ""),
        "python": platform.python_version(),
        "hypervisor": _stripped(SYSFS_ROOT + "/sys/hypervisor/type")
        or ("hypervisor" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo or "", re.M) else None),
    }
    return {"facts": facts}


def _stripped(path):
    text = read_text(path, 4096)
    text = text.rstrip("\0\n ").replace("\0", ",") if text else None
    return text or None


def _getprop():
    try:
        done = subprocess.run(["getprop"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.findall(r"^\[([^\]]+)\]: \[(.*?)\]$", done.stdout.decode("utf-8", "replace"), re.M | re.S)
    return dict(found) if found else None


def _cpus(cpuinfo):
    """One entry a CPU; clusters are CPUs that share a cpufreq policy, or the package's cluster id."""
    blocks = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        number = re.search(r"^processor\s*:\s*(\d+)", block, re.M)
        if number:
            blocks[int(number.group(1))] = block
    rows = []
    for path in glob.glob(SYSFS_ROOT + "/sys/devices/system/cpu/cpu[0-9]*"):
        cpu = int(re.search(r"(\d+)$", path).group(1))
        block = blocks.get(cpu, "")
        implementer = re.search(r"^CPU implementer\s*:\s*(\S+)", block, re.M)
        part = re.search(r"^CPU part\s*:\s*(\S+)", block, re.M)
        related = _stripped(path + "/cpufreq/related_cpus") or _stripped(path + "/topology/cluster_cpus_list")
        rows.append(
            {
                "cpu": cpu,
                "max_khz": read_int(path + "/cpufreq/cpuinfo_max_freq"),
                "cap_khz": read_int(path + "/cpufreq/scaling_max_freq"),
                "capacity": read_int(path + "/cpu_capacity"),
                "implementer": implementer.group(1) if implementer else None,
                "part": part.group(1) if part else None,
                "cluster": related,
            }
        )
    return sorted(rows, key=lambda row: row["cpu"])


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def command(argv):
    """Run one command; returns ``(exit code, object to print or None)``."""
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name == "version" and not rest:
        return 0, {"agent": "python", "version": VERSION, "protocols": PROTOCOLS}
    if name == "identify" and not rest:
        return 0, identify()
    if name == "probe" and len(rest) % 2 == 0 and all(word == "--runtime" for word in rest[::2]):
        return 0, probe(rest[1::2])
    if name == "run" and len(rest) == 1:
        return supervise(rest[0]), None
    if name in ("start", "stop", "status") and len(rest) == 1:
        return 0, {"start": start, "stop": stop, "status": status}[name](rest[0])
    if name == "child" and len(rest) == 3:
        return child_main(rest[0], int(rest[1]), int(rest[2])), None
    if name == "probe-one" and len(rest) == 2:
        return probe_one(rest[0], int(rest[1])), None
    if name == "busy" and len(rest) == 2:
        return busy(int(rest[0])), None
    if name == "telemetry" and len(rest) == 3:
        return load_telemetry().serve(float(rest[0]), float(rest[1]), int(rest[2])), None
    usage = "version | identify | probe [--runtime R ...] | start JOBDIR | run JOBDIR | stop JOBDIR | status JOBDIR"
    raise Problem("bad_job", "the agent does not know %s" % (" ".join(argv) or "what to do"), "it knows: " + usage)


def main(argv):
    """The outermost command."""
    try:
        code, answer = command(argv)
    except OSError as error:
        code, answer = 1, {"error": {"code": "run_failed", "message": str(error), "advice": None}}
    except Problem as problem:
        code = 1
        answer = {"error": {"code": problem.code, "message": problem.message, "advice": problem.advice}}
    if answer is not None:
        print(json.dumps(clean(answer)), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
