"""Commands of an agent, its refusals, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

SLOW = {"clock": "real", "latency_ns": 20_000_000}
ENDLESS = {"min_time_s": 60.0, "max_time_s": 60.0, "warmup_max_s": 0.1}


def test_version_names_the_agent_and_its_protocols(agent):
    code, answer = agent.call("version")
    assert code == 0
    assert answer["agent"] == agent.name
    assert answer["protocols"] == [1]
    assert isinstance(answer["version"], str)


def test_identify_gives_raw_facts_of_this_machine(agent):
    code, answer = agent.call("identify")
    facts = answer["facts"]
    assert code == 0
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert facts["uname"][4] == os.uname().machine
    if agent.name == "native":
        assert set(facts["accelerators"]) == {"opencl", "vulkan", "nnapi", "libraries"}
        return
    names = "cpu_count cpuinfo meminfo_total_kb os_release dmi device_tree getprop cpus hypervisor python"
    assert set(facts) >= set(names.split())
    assert [cpu["cpu"] for cpu in facts["cpus"]] == list(range(os.cpu_count()))
    assert f"{facts['meminfo_total_kb']} kB" in Path("/proc/meminfo").read_text().splitlines()[0]


def test_probe_describes_the_runtimes_asked_for(agent):
    code, answer = agent.call("probe", "--runtime", "null")
    assert code == 0
    (entry,) = answer["runtimes"]
    assert (entry["runtime"], entry["formats"], entry["error"]) == ("null", ["null"], None)
    assert {"delegate": "cpu:null", "available": True}.items() <= entry["delegates"][0].items()


def test_probing_a_runtime_nobody_knows_is_an_entry_with_its_error(agent):
    code, answer = agent.call("probe", "--runtime", "tensorflowed", "--runtime", "null")
    assert code == 0
    assert [entry["runtime"] for entry in answer["runtimes"]] == ["tensorflowed", "null"]
    assert answer["runtimes"][0]["error"]["code"] == "runtime_missing"
    assert "tensorflowed" in answer["runtimes"][0]["error"]["message"]
    assert answer["runtimes"][1]["error"] is None


def test_a_command_that_is_none_is_refused_with_those_there_are(agent):
    code, answer = agent.call("launch", "x")
    assert code == 1
    assert "launch" in answer["error"]["message"]
    assert "start JOBDIR" in answer["error"]["advice"]


def test_start_detaches_and_status_follows_to_the_end(agent, jobs):
    folder = agent.job(jobs.null(SLOW, settings=ENDLESS))
    assert agent.call("status", folder) == (0, {"running": False, "pid": None, "events_bytes": 0, "ended": False})
    code, answer = agent.call("start", folder)
    assert code == 0
    pid = answer["pid"]
    assert os.getsid(pid) == pid != os.getsid(0)
    agent.wait_for(folder, lambda events: any(event["type"] == "samples" for event in events))
    code, status = agent.call("status", folder)
    assert (status["running"], status["pid"], status["ended"]) == (True, pid, False)
    assert status["events_bytes"] > 0
    assert agent.call("stop", folder) == (0, {"stopped": True})
    status = agent.call("status", folder)[1]
    assert (status["running"], status["pid"], status["ended"]) == (False, None, True)


def test_stop_ends_the_repetition_under_way_and_leaves_no_process(agent, jobs, one):
    folder = agent.job(jobs.null(SLOW, settings=ENDLESS))
    agent.call("start", folder)
    agent.wait_for(folder, lambda events: any(event.get("phase") == "measured" for event in events))
    assert agent.call("stop", folder) == (0, {"stopped": True})
    assert agent.processes() == []
    events = agent.events(folder)
    assert one(events, "error")["code"] == "stopped"
    assert one(events, "error")["trial"] == "t001"
    assert events[-1]["type"] == "end"
    assert events[-1]["reason"] == "stopped"
    assert agent.call("stop", folder) == (0, {"stopped": False})


def test_a_supervisor_killed_with_sigkill_leaves_no_process_and_no_end(agent, jobs):
    """The child hangs, so that no write to a pipe that is gone ends it."""
    job = jobs.null({"clock": "fake", "fail": {"at": "measure", "how": "hang"}})
    job["telemetry"] = {"interval_s": 0.1, "slow_interval_s": 10.0}
    folder = agent.job(job)
    pid = agent.call("start", folder)[1]["pid"]
    agent.wait_for(folder, lambda events: any(event.get("phase") == "measure" for event in events))
    assert len(agent.processes()) == 3, "supervisor, telemetry and child"
    os.kill(pid, signal.SIGKILL)
    agent.wait_until_gone()
    assert agent.events(folder)[-1]["type"] != "end"
    status = agent.call("status", folder)[1]
    assert (status["running"], status["ended"]) == (False, False)
    assert agent.call("stop", folder) == (0, {"stopped": False})


def test_a_folder_that_was_run_is_refused(agent, jobs):
    folder = agent.job(jobs.null({"clock": "fake"}))
    assert agent.call("run", folder)[0] == 0
    before = (folder / "events.jsonl").read_bytes()
    for command in ("run", "start"):
        code, answer = agent.call(command, folder)
        assert code == 1
        assert answer["error"]["code"] == "bad_job"
        assert "events.jsonl" in answer["error"]["message"]
        assert "new folder" in answer["error"]["advice"]
    assert (folder / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["run", "start"])
def test_another_protocol_is_refused_with_the_ones_it_takes(agent, jobs, command, one):
    job = jobs.null({"clock": "fake"})
    job["protocol"] = 99
    folder = agent.job(job)
    code, answer = agent.call(command, folder)
    assert code == 1
    assert answer["error"]["code"] == "protocol_version"
    assert "99" in answer["error"]["message"]
    assert "speaks 1" in answer["error"]["message"]
    events = agent.events(folder)
    assert [event["type"] for event in events] == ["hello", "error", "end"]
    assert events[1]["code"] == "protocol_version"
    assert events[2]["reason"] == "job_error"


def _broken(path, value):
    def break_it(job):
        at = job
        for name in path[:-1]:
            at = at[name]
        if value is KeyError:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return break_it


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["session"], 5, "session"),
        (["orphan_after_s"], -1, "orphan_after_s"),
        (["telemetry"], {"interval_s": 0}, "telemetry.interval_s"),
        (["trials"], [], "trials"),
        (["trials", "t001"], None, "trials.t001"),
        (["trials", "t001", "runtime"], KeyError, "trials.t001.runtime"),
        (["trials", "t001", "model"], 7, "trials.t001.model"),
        (["trials", "t001", "threads"], 0, "trials.t001.threads"),
        (["trials", "t001", "threads"], True, "trials.t001.threads"),
        (["trials", "t001", "batch"], "2", "trials.t001.batch"),
        (["trials", "t001", "cores"], [], "trials.t001.cores"),
        (["trials", "t001", "cores"], [-1], "trials.t001.cores"),
        (["trials", "t001", "shapes"], {"x": [1, -4]}, "trials.t001.shapes.x"),
        (["trials", "t001", "env"], {"A=B": "c"}, "trials.t001.env.A=B"),
        (["trials", "t001", "settings"], None, "trials.t001.settings"),
        (["trials", "t001", "settings", "min_count"], 1.5, "trials.t001.settings.min_count"),
        (["trials", "t001", "settings", "max_time_s"], "20", "trials.t001.settings.max_time_s"),
        (["trials", "t001", "settings", "rate_hz"], 0, "trials.t001.settings.rate_hz"),
        (["trials", "t001", "probe"], {"count": 0, "inputs": []}, "trials.t001.probe.count"),
        (["trials", "t001", "probe"], {"count": 1, "inputs": []}, "trials.t001.probe.inputs"),
        (["trials", "t001", "scenario"], "accuracy", "trials.t001.dataset"),
        (["repetitions", 0, "trial"], "t999", "repetitions[0].trial"),
        (["repetitions", 0, "deadline_s"], 0, "repetitions[0].deadline_s"),
        (["repetitions", 0, "cool_down"], {"max_wait_s": "long"}, "repetitions[0].cool_down.max_wait_s"),
    ],
)
def test_a_bad_job_names_the_member_that_is_wrong(agent, jobs, path, value, named):
    job = jobs.null({"clock": "fake"})
    _broken(path, value)(job)
    code, answer = agent.call("start", agent.job(job))
    assert code == 1
    assert answer["error"]["code"] == "bad_job"
    assert f"job.json: {named} must be" in answer["error"]["message"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"protocol": 1', "null", "\x00\xff"])
def test_a_job_that_is_no_document_is_refused(agent, text):
    folder = agent.folder / "job"
    folder.mkdir()
    (folder / "job.json").write_text(text, encoding="latin-1")
    code, answer = agent.call("start", folder)
    assert code == 1
    assert answer["error"]["code"] == "bad_job"


def test_unknown_members_of_a_job_are_ignored(agent, jobs, one):
    job = jobs.null({"clock": "fake"})
    job["from_the_future"] = job["trials"]["t001"]["new"] = job["repetitions"][0]["new"] = [1]
    assert one(agent.run(job), "end")["reason"] == "complete"


def test_a_lease_that_is_not_touched_orphans_the_agent(agent, jobs, one):
    job = jobs.null(SLOW, settings=ENDLESS)
    job["orphan_after_s"] = 0.5
    folder = agent.job(job)
    agent.call("start", folder)
    events = agent.wait_for(folder, lambda events: bool(events) and events[-1]["type"] == "end")
    assert one(events, "error")["code"] == "orphaned"
    assert events[-1]["reason"] == "orphaned"
    agent.wait_until_gone()


def test_a_lease_that_is_touched_keeps_the_agent_at_work(agent, jobs, one):
    job = jobs.null(SLOW, settings={**ENDLESS, "min_time_s": 3.0, "warmup_max_s": 0.1})
    job["orphan_after_s"] = 2.0
    folder = agent.job(job)
    agent.call("start", folder)
    until = time.monotonic() + 30.0
    ended = False
    while not ended:
        assert time.monotonic() < until
        (folder / "lease").write_text(str(time.monotonic()))
        time.sleep(0.1)
        ended = agent.events(folder)[-1]["type"] == "end"
    assert one(agent.events(folder), "end")["reason"] == "complete"


def test_a_second_agent_in_one_folder_is_refused(agent, jobs):
    folder = agent.job(jobs.null(SLOW, settings=ENDLESS))
    agent.call("start", folder)
    code, answer = agent.call("start", folder)
    assert code == 1
    assert answer["error"]["code"] == "bad_job"
    agent.call("stop", folder)


def test_an_unreadable_job_folder_is_one_clear_error(agent):
    code, answer = agent.call("start", agent.folder / "nowhere")
    assert code == 1
    assert "nowhere" in answer["error"]["message"]


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_folder_that_may_not_be_written_is_said_as_that_and_as_no_full_disk(agent, jobs, command):
    folder = agent.job(jobs.null({"clock": "fake"}))
    folder.chmod(0o555)
    if os.geteuid() == 0:  # root is bound by permissions only without these capabilities
        limits = ["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
        agent.argv[:0] = ["setpriv", *limits]
    code, answer = agent.call(command, folder)
    folder.chmod(0o755)
    del agent.argv[: agent.argv.index(next(word for word in agent.argv if word[0] == "/"))]
    assert code == 1
    assert answer["error"]["code"] == "run_failed"
    assert "Permission denied" in answer["error"]["message"]
