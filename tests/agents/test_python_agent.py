"""Parts of the Python agent that no event shows: its loops on any settings, its job check on any document."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

AGENT = Path(__file__).resolve().parents[2] / "device_agents" / "python" / "agent.py"


class FakeClock:
    """A clock that each inference moves by the next scripted latency."""

    def __init__(self, latencies):
        self.now = 1000
        self.latencies = latencies
        self.calls = 0

    def read(self):
        return self.now

    def run(self):
        self.now += self.latencies[self.calls % len(self.latencies)]
        self.calls += 1

    def wait_until(self, due):
        self.now = max(self.now, due)


class Collected:
    """Takes samples in place of the pipe."""

    def __init__(self):
        self.starts, self.ends, self.lates = [], [], []

    def samples(self, phase, starts, ends, lates=None):
        self.starts += list(starts)
        self.ends += list(ends)
        self.lates += list(lates or [])


SETTINGS = st.fixed_dictionaries(
    {
        "min_time_s": st.floats(0, 0.2),
        "max_time_s": st.floats(0, 0.5),
        "min_count": st.integers(1, 300),
        "max_count": st.integers(1, 500),
        "warmup_max_s": st.floats(0, 0.3),
        "warmup_min_count": st.integers(0, 30),
        "rate_hz": st.one_of(st.none(), st.floats(20, 5000)),
    }
)
LATENCIES = st.lists(st.integers(100_000, 30_000_000), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(chosen=SETTINGS, latencies=LATENCIES)
def test_measuring_loses_no_sample_and_stops_for_the_reason_it_gives(agent_module, chosen, latencies):
    clock, out = FakeClock(latencies), Collected()
    buffers = agent_module.Buffers(1024)
    count, duration, why = agent_module.measure(clock.run, clock.read, clock.wait_until, chosen, buffers, out)
    got = [end - start for start, end in zip(out.starts, out.ends, strict=True)]
    assert count == clock.calls == len(got)
    assert got == [latencies[index % len(latencies)] for index in range(count)]
    assert out.starts == sorted(out.starts)
    elapsed = out.ends[-1] - 1000
    assert duration == elapsed
    done = count >= chosen["min_count"] and elapsed >= int(chosen["min_time_s"] * 1e9)
    assert {
        "min": done,
        "max_time": elapsed >= int(chosen["max_time_s"] * 1e9),
        "max_count": count >= chosen["max_count"],
    }[why]
    assert count <= chosen["max_count"]
    if count > 1:
        before = out.ends[-2] - 1000
        assert before < max(int(chosen["max_time_s"] * 1e9), 1), "it stopped at the first chance"
    if chosen["rate_hz"]:
        period = 1e9 / chosen["rate_hz"]
        assert all(0 <= late <= period + 1 for late in out.lates)
        slots = [(start - late - 1000) / period for start, late in zip(out.starts, out.lates, strict=True)]
        assert all(abs(slot - round(slot)) * period < 2 for slot in slots), "slots lie on the grid"


@settings(max_examples=100, deadline=None)
@given(chosen=SETTINGS, latencies=LATENCIES)
def test_warming_up_sends_every_sample_and_keeps_its_cap(agent_module, chosen, latencies):
    clock, out = FakeClock(latencies), Collected()
    count, duration, steady = agent_module.warm_up(clock.run, clock.read, chosen, agent_module.Buffers(), out)
    assert count == clock.calls == len(out.starts)
    assert duration == clock.now - 1000
    cap = int(chosen["warmup_max_s"] * 1e9)
    assert steady or count >= chosen["max_count"] or (duration >= cap and count >= chosen["warmup_min_count"])


def test_a_long_warm_up_keeps_its_window_when_the_buffer_wraps(agent_module):
    clock, out = FakeClock([900, 1000, 1100]), Collected()
    chosen = {"warmup_max_s": 0.2, "warmup_min_count": 0, "max_count": 10**7}
    count, _, steady = agent_module.warm_up(clock.run, clock.read, chosen, agent_module.Buffers(), out)
    assert steady
    assert count == len(out.starts) == len(set(out.starts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
GOOD = {
    "protocol": 1,
    "session": "s",
    "orphan_after_s": 5,
    "telemetry": {"interval_s": 0.5},
    "trials": {
        "t": {
            "runtime": "null",
            "delegate": "cpu:null",
            "format": "null",
            "precision": "fp32",
            "model": "m",
            "threads": 1,
            "cores": [0],
            "batch": 1,
            "shapes": {"x": [1]},
            "scenario": "single_stream",
            "settings": {
                "min_time_s": 1,
                "min_count": 1,
                "max_time_s": 1,
                "warmup_max_s": 1,
                "warmup_min_count": 1,
                "max_count": 1,
            },
            "probe": {"count": 1, "inputs": [{"name": "x", "dtype": "int8", "shape": [1], "file": "f"}]},
        }
    },
    "repetitions": [{"trial": "t", "repetition": 1, "deadline_s": 1, "cool_down": {"fixed_s": 1}}],
}


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def test_the_good_job_is_good(agent_module):
    agent_module.check_job(GOOD)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_to_a_job_is_accepted_or_refused_in_one_sentence(agent_module, data):
    job = copy.deepcopy(GOOD)
    path = data.draw(st.sampled_from([path for path in places(GOOD) if path]))
    at = job
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = data.draw(JSON)
    refusal = None
    try:
        agent_module.check_job(job)
    except agent_module.Problem as problem:
        refusal = problem
    assert refusal is None or (refusal.code in ("bad_job", "protocol_version") and "\n" not in refusal.message)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), JSON | st.just(float("nan")), max_size=4))
def test_events_are_json_that_every_parser_takes(agent_module, members):
    members = {"m_" + name: value for name, value in members.items()}
    line = agent_module.encode("log", dict(members))
    assert line.startswith(b'{"type":"log","t_ns":')
    json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_threads_and_environment_are_set_before_the_child_starts(agent_module, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    env = agent_module.child_environment({"threads": 3, "env": {"VK_ICD_FILENAMES": "/x.json"}})
    assert (env["OMP_NUM_THREADS"], env["OPENBLAS_NUM_THREADS"], env["VK_ICD_FILENAMES"]) == ("3", "1", "/x.json")


CGROUPS = {
    "v2": {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/cgroup.procs": "",
        "sys/fs/cgroup/a/cpu.stat": "usage_usec 5\nnr_throttled 1\nthrottled_usec 7\n",
        "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 5\nnr_throttled 1\nthrottled_usec 4\n",
    },
    "v1": {
        "proc/self/cgroup": "5:cpu,cpuacct:/a/b\n4:memory:/m\n",
        "sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "",
        "sys/fs/cgroup/cpu,cpuacct/a/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 7000\n",
        "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 4000\n",
    },
}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_quota_is_counted_here_and_above(agent_module, sysfs, monkeypatch, version):
    monkeypatch.setattr(agent_module, "SYSFS_ROOT", str(sysfs(CGROUPS[version])))
    assert agent_module.quota_throttled_ns() == 11_000


def test_quota_is_unknown_where_no_cgroup_tells(agent_module, sysfs, monkeypatch):
    monkeypatch.setattr(agent_module, "SYSFS_ROOT", str(sysfs({"proc/self/cgroup": "4:memory:/m\n"})))
    assert agent_module.quota_throttled_ns() is None


def test_busy_time_counts_no_idle_and_no_waiting(agent_module, sysfs, monkeypatch):
    monkeypatch.setattr(agent_module, "SYSFS_ROOT", str(sysfs({"proc/stat": "cpu  1 2 4 1000 2000 8 16 32 64 0\n"})))
    assert agent_module.busy_ns() == (1 + 2 + 4 + 8 + 16) * 10**9 // os.sysconf("SC_CLK_TCK")


def test_the_wait_for_a_core_is_summed_over_threads(agent_module, sysfs, monkeypatch):
    files = {"proc/self/task/7/schedstat": "900 40 3\n", "proc/self/task/8/schedstat": "10 5 1\n"}
    monkeypatch.setattr(agent_module, "SYSFS_ROOT", str(sysfs(files)))
    assert agent_module.run_delays_ns() == {"7": 40, "8": 5}
    before, after = agent_module.Counters(), agent_module.Counters()
    before.delays_ns, after.delays_ns = {"7": 30, "9": 99}, {"7": 40, "8": 5}
    assert after.since(before)["run_delay_ns"] == 15, "a thread that began counts from its beginning"
    monkeypatch.setattr(agent_module, "SYSFS_ROOT", str(sysfs({"proc/stat": "cpu  1 2 4 0 0 0 0\n"})) + "/none")
    assert agent_module.Counters().since(before)["run_delay_ns"] is None


ZONE = "sys/class/thermal/thermal_zone0/"


def cooling_job(folder: Path, cool_down):
    (folder / "m.json").write_text('{"clock": "fake"}')
    trial = {**GOOD["trials"]["t"], "model": "../m.json", "probe": None, "shapes": {}}
    repetitions = [{"trial": "t", "repetition": number, "deadline_s": 60, "cool_down": cool_down} for number in (1, 2)]
    job = {**GOOD, "orphan_after_s": None, "telemetry": None, "trials": {"t": trial}, "repetitions": repetitions}
    (folder / "job").mkdir()
    (folder / "job" / "job.json").write_text(json.dumps(job))
    return folder / "job"


def outcomes(job: Path):
    events = [json.loads(line) for line in (job / "events.jsonl").read_text().splitlines()]
    phases = [event["detail"] for event in events if event.get("phase") == "cool_down"]
    return [detail for detail in phases if detail["outcome"] != "waiting"]


@pytest.mark.parametrize(
    ("files", "cool_down", "expected"),
    [
        ({ZONE + "type": "cpu\n", ZONE + "temp": "40000\n"}, {"max_wait_s": 5, "tolerance_milli_c": 1000}, "reached"),
        ({"proc/x": ""}, {"max_wait_s": 5, "tolerance_milli_c": 1000, "fixed_s": 0.2}, "unreadable"),
        ({"proc/x": ""}, {"fixed_s": 0.2}, "fixed"),
    ],
)
def test_cooling_down_says_how_it_ended(sysfs, tmp_path, files, cool_down, expected):
    job = cooling_job(tmp_path, cool_down)
    env = {**os.environ, "SOCBENCH_SYSFS_ROOT": str(sysfs(files))}
    assert subprocess.run([sys.executable, str(AGENT), "run", str(job)], env=env, check=False).returncode == 0
    found = outcomes(job)
    assert [detail["outcome"] for detail in found] == [expected] * 2
    assert all((detail["waited_ns"] >= 200_000_000) == (expected != "reached") for detail in found)


def test_a_device_that_stays_warm_is_measured_after_the_longest_wait(sysfs, tmp_path):
    root = sysfs({ZONE + "type": "cpu\n", ZONE + "temp": "40000\n"})
    job = cooling_job(tmp_path, {"max_wait_s": 1.0, "tolerance_milli_c": 1000})
    process = subprocess.Popen(
        [sys.executable, str(AGENT), "run", str(job)], env={**os.environ, "SOCBENCH_SYSFS_ROOT": str(root)}
    )
    while not (job / "events.jsonl").exists() or "import" not in (job / "events.jsonl").read_text():
        assert process.poll() is None
    (root / ZONE / "temp").write_text("45000\n")
    assert process.wait(timeout=60) == 0
    first, second = outcomes(job)
    assert first["outcome"] == "reached"
    assert (second["outcome"], second["above"]) == ("timeout", ["thermal_zone0:cpu"])
    assert second["baseline"]["temperatures"] == {"thermal_zone0:cpu": 40000}
    assert second["state"]["temperatures"] == {"thermal_zone0:cpu": 45000}
