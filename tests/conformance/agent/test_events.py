"""What an agent writes about a repetition, to the digit: the null runtime scripts the clock that the loop reads."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

MS = 1_000_000


def test_a_scripted_run_gives_exactly_the_scripted_digits(agent, jobs, one, of):
    script = {
        "clock": "fake",
        "clock_start_ns": 5_000_000_000,
        "latency_ns": {"first": 7 * MS, "check": 2 * MS, "warmup": 3 * MS, "measure": [1 * MS, 1 * MS + 1, 1 * MS - 1]},
        "import_ns": 11,
        "load_ns": 22,
        "compile_ns": 3,
        "ops": [[0, "Conv", "conv1", "cpu", 900_000, 1]],
    }
    events = agent.run(jobs.null(script, profile=True))
    loaded = one(events, "loaded")
    assert (loaded["import_ns"], loaded["load_ns"], loaded["compile_ns"]) == (11, 22, 3)
    assert (loaded["delegation"], loaded["nodes_total"], loaded["precision_effective"]) == ("full", 1, "fp32")
    first = one(events, "samples", phase="first")
    assert (first["start_ns"], first["latency_ns"], first["gap_ns"]) == (5_000_000_000, [7 * MS], [0])
    warmup = one(events, "samples", phase="warmup")
    # 7 ms of first and one checked input of 2 ms lie before; the window of 0.1 s is looked at each 17 x 3 = 51 ms
    assert (warmup["start_ns"], warmup["latency_ns"]) == (5_009_000_000, [3 * MS] * 34)
    assert {"count": 34, "duration_ns": 102 * MS, "steady": True}.items() <= one(events, "warmup").items()
    measured = one(events, "samples", phase="measured")
    assert measured["start_ns"] == 5_009_000_000 + 102 * MS
    assert measured["latency_ns"] == ([1 * MS, 1 * MS + 1, 1 * MS - 1] * 17)[:50]
    assert measured["gap_ns"] == [0] * 50
    done = one(events, "done")
    assert (done["measured_count"], done["measured_ns"], done["stopped_by"]) == (50, 50 * MS + 1 - 0, "min")
    assert one(events, "ops")["rows"] == script["ops"]
    assert one(events, "end")["reason"] == "complete"


def test_events_are_numbered_without_gaps_and_name_their_repetition(agent, jobs, of):
    job = jobs.job(jobs.trial({"clock": "fake"}), jobs.trial({"clock": "fake", "latency_ns": 2 * MS}), repetitions=2)
    events = agent.run(job)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "hello"
    assert (events[0]["protocol"], events[0]["agent"], events[0]["session"]) == (1, agent.name, "20261124-2250-test")
    assert set(events[0]["power"]) == {"source", "battery_permille", "battery_saver"}
    assert events[1]["type"] == "clock"
    assert events[-1]["type"] == "end"
    order = [(event["trial"], event["repetition"]) for event in of(events, "done")]
    assert order == [("t001", 1), ("t002", 1), ("t001", 2), ("t002", 2)]
    inside = [event for event in events if event["type"] not in ("hello", "clock", "end")]
    assert all("trial" in event and "repetition" in event for event in inside)
    times = [event["t_ns"] for event in events]
    assert times == sorted(times)


def test_phases_come_in_the_documented_order(agent, jobs, of):
    events = agent.run(jobs.null({"clock": "fake"}, profile=True))
    phases = [event["phase"] for event in of(events, "phase")]
    assert phases == ["import", "load", "first", "check", "warmup", "measure", "check", "profile"]


def test_outputs_are_written_raw_and_named_by_their_hash(agent, jobs, of):
    outputs = [
        {"name": "y", "dtype": "float32", "shape": [1, 2], "values": [0.25, -1.5]},
        {"name": "z", "dtype": "int8", "shape": [3], "values": [1, -2, 3]},
    ]
    events = agent.run(jobs.null({"clock": "fake", "outputs": outputs}))
    assert [event["stage"] for event in of(events, "outputs")] == ["before", "after"]
    for event in of(events, "outputs"):
        assert event["count"] == 1
        y, z = event["tensors"]
        assert (y["name"], y["dtype"], y["shape"]) == ("y", "float32", [1, 2])
        assert (z["name"], z["dtype"], z["shape"]) == ("z", "int8", [3])
        for tensor, data in ((y, struct.pack("<2f", 0.25, -1.5)), (z, struct.pack("3b", 1, -2, 3))):
            assert tensor["sha256"] == hashlib.sha256(data).hexdigest()
            assert tensor["file"] == f"out/{tensor['sha256']}.bin"
            assert (agent.folder / "job" / tensor["file"]).read_bytes() == data


def test_outputs_that_are_not_finite_are_passed_on_as_they_are(agent, jobs, of):
    outputs = [{"name": "y", "dtype": "float32", "shape": [2], "values": "nan"}]
    events = agent.run(jobs.null({"clock": "fake", "outputs": outputs}))
    data = (agent.folder / "job" / of(events, "outputs")[0]["tensors"][0]["file"]).read_bytes()
    assert all(value != value for value in struct.unpack("<2f", data))


def test_probe_inputs_come_from_their_file_in_order(agent, jobs, of):
    values = [float(value) for value in range(12)]
    (agent.folder / "in.bin").write_bytes(struct.pack("<12f", *values))
    probe = {"count": 3, "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4], "file": "../in.bin"}]}
    outputs = [{"name": "y", "dtype": "float32", "shape": [1, 4], "values": "echo"}]
    events = agent.run(jobs.null({"clock": "fake", "outputs": outputs}, probe=probe))
    before, after = of(events, "outputs")
    assert before["count"] == 3
    assert before["tensors"] == after["tensors"]
    data = (agent.folder / "job" / before["tensors"][0]["file"]).read_bytes()
    assert list(struct.unpack("<12f", data)) == values


def test_scenario_accuracy_runs_every_input_once_and_times_nothing(agent, jobs, one, of):
    (agent.folder / "in.bin").write_bytes(struct.pack("<20f", *range(20)))
    dataset = {"count": 5, "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4], "file": "../in.bin"}]}
    outputs = [{"name": "y", "dtype": "float32", "shape": [1, 2], "values": "echo"}]
    script = {"clock": "fake", "outputs": outputs}
    events = agent.run(jobs.null(script, scenario="accuracy", dataset=dataset))
    assert [event["phase"] for event in of(events, "phase")] == ["import", "load", "first", "dataset"]
    event = one(events, "outputs")
    assert (event["stage"], event["count"]) == ("dataset", 5)
    data = (agent.folder / "job" / event["tensors"][0]["file"]).read_bytes()
    assert list(struct.unpack("<10f", data)) == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]
    assert one(events, "done")["measured_count"] == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\0" * 15, "15 bytes"), (b"\0" * 17, "17 bytes"), (None, "in.bin")],
    ids=["short", "long", "missing"],
)
def test_an_input_file_of_the_wrong_size_is_a_bad_job(agent, jobs, one, content, words):
    if content is not None:
        (agent.folder / "in.bin").write_bytes(content)
    probe = {"count": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4], "file": "../in.bin"}]}
    error = one(agent.run(jobs.null({"clock": "fake"}, probe=probe)), "error")
    assert error["code"] == "bad_job"
    assert "probe.inputs[0].file" in error["message"]
    assert words in error["message"]


PUBLISHED = {
    "float32": "f8a061be886777bf80304d3f58d7293e",
    "float16": "0db3bbbb6a3a4f31",
    "int8": "d71c02cb",
    "uint8": "d71c02cb",
    "int32": "570000001c000000020000004b000000",
    "int64": "57000000000000001c0000000000000002000000000000004b00000000000000",
    "bool": "01000001",
}
"""The first bytes for input_seed 7, as device_agents/README.md has them."""


def splitmix64(seed: int, count: int) -> list[int]:
    """Vigna's reference code, on Python's integers."""
    mask = 2**64 - 1
    values = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        values.append(z ^ (z >> 31))
    return values


def expected_bytes(dtype: str, seed: int, count: int) -> bytes:
    bits = splitmix64(seed, count)
    if dtype in ("float32", "float16"):
        code = "f" if dtype == "float32" else "e"
        return struct.pack(f"<{count}{code}", *[(value >> 40) / 2**23 - 1 for value in bits])
    if dtype in ("int8", "uint8"):
        return bytes(value & 255 for value in bits)
    if dtype == "bool":
        return bytes(value & 1 for value in bits)
    return struct.pack(f"<{count}{'i' if dtype == 'int32' else 'q'}", *[value % 128 for value in bits])


@pytest.mark.parametrize("dtype", list(PUBLISHED))
def test_the_published_bytes_are_those_of_the_reference(dtype):
    assert expected_bytes(dtype, 7, 4).hex() == PUBLISHED[dtype]


@pytest.mark.parametrize("dtype", list(PUBLISHED))
def test_seeded_inputs_are_the_bytes_of_the_reference(agent, jobs, of, dtype):
    script = {
        "clock": "fake",
        "inputs": [{"name": "a", "dtype": dtype, "shape": [2, 3]}, {"name": "b", "dtype": dtype, "shape": [4]}],
        "outputs": [{"name": "y", "dtype": dtype, "shape": [2, 3], "values": "echo"}],
    }
    for seed in (7, 2**64 - 1):
        events = agent.run(jobs.null(script, input_seed=seed), f"seed{seed}")
        data = (agent.folder / f"seed{seed}" / of(events, "outputs")[0]["tensors"][0]["file"]).read_bytes()
        assert data == expected_bytes(dtype, seed, 6)


def test_a_warm_up_that_never_settles_ends_at_its_cap_and_says_so(agent, jobs, one):
    growing = [round(1 * MS * 1.02**step) for step in range(400)]
    script = {"clock": "fake", "latency_ns": {"warmup": growing}}
    events = agent.run(jobs.null(script, settings={"warmup_max_s": 1.0}))
    warmup = one(events, "warmup")
    assert warmup["steady"] is False
    assert warmup["duration_ns"] >= 1000 * MS
    assert warmup["duration_ns"] == sum(growing[: warmup["count"]])


def test_a_warm_up_that_settles_late_ends_with_the_first_steady_window(agent, jobs, one):
    script = {"clock": "fake", "latency_ns": {"warmup": [5 * MS] * 20 + [1 * MS] * 1000}}
    warmup = one(agent.run(jobs.null(script, settings={"warmup_max_s": 5.0})), "warmup")
    # two blocks of 10 x 5 ms fill the first window, and its halves are equal: steady at once
    assert (warmup["count"], warmup["duration_ns"], warmup["steady"]) == (20, 100 * MS, True)


def test_a_warm_up_goes_on_while_the_halves_of_its_window_differ(agent, jobs, one):
    script = {"clock": "fake", "latency_ns": {"warmup": [20 * MS] * 6 + [10 * MS] * 1000}}
    warmup = one(agent.run(jobs.null(script, settings={"warmup_max_s": 5.0})), "warmup")
    # blocks of at least 50 ms: 3 x 20, 3 x 20, 5 x 10, 5 x 10. After 11 samples the window of 10 holds five slow and
    # five fast ones; after 16 it holds the ten fast ones
    assert (warmup["count"], warmup["steady"]) == (16, True)


@pytest.mark.parametrize(
    ("settings", "count", "stopped_by"),
    [
        ({"min_time_s": 0.05, "min_count": 10}, 50, "min"),
        ({"min_time_s": 0.0, "min_count": 77}, 77, "min"),
        ({"min_time_s": 9.0, "min_count": 10, "max_time_s": 0.2}, 200, "max_time"),
        ({"min_time_s": 0.0, "min_count": 1000, "max_time_s": 0.03}, 30, "max_time"),
        ({"min_time_s": 9.0, "min_count": 10, "max_count": 123}, 123, "max_count"),
        ({"min_time_s": 3.0, "min_count": 10}, 3000, "min"),
    ],
)
def test_measuring_ends_as_the_settings_say(agent, jobs, one, of, settings, count, stopped_by):
    events = agent.run(jobs.null({"clock": "fake", "latency_ns": MS}, settings=settings))
    done = one(events, "done")
    assert (done["measured_count"], done["stopped_by"], done["measured_ns"]) == (count, stopped_by, count * MS)
    assert sum(len(event["latency_ns"]) for event in of(events, "samples", phase="measured")) == count


def test_samples_are_sent_each_half_second_in_lines_that_join_without_loss(agent, jobs, of):
    latencies = [MS + step for step in range(997)]
    script = {"clock": "fake", "latency_ns": {"measure": latencies}}
    events = agent.run(jobs.null(script, settings={"min_time_s": 3.0}))
    batches = of(events, "samples", phase="measured")
    assert len(batches) >= 5
    joined = [latency for batch in batches for latency in batch["latency_ns"]]
    assert joined == (latencies * 4)[: len(joined)]
    at = batches[0]["start_ns"]
    for batch in batches:
        assert batch["start_ns"] == at
        assert batch["gap_ns"] == [0] * len(batch["latency_ns"])
        at += sum(batch["latency_ns"])


def test_a_rate_starts_inferences_on_a_fixed_grid(agent, jobs, one, of):
    script = {"clock": "fake", "latency_ns": {"measure": [2 * MS, 2 * MS, 23 * MS, 2 * MS, 11 * MS]}}
    settings = {"min_time_s": 0.0, "min_count": 7, "rate_hz": 100.0}
    events = agent.run(jobs.null(script, settings=settings))
    (batch,) = of(events, "samples", phase="measured")
    starts = [batch["start_ns"]]
    for gap, latency in zip(batch["gap_ns"][1:], batch["latency_ns"], strict=False):
        starts.append(starts[-1] + latency + gap)
    offsets = [(start - starts[0]) // MS for start in starts]
    # slots each 10 ms: the third runs from 20 to 43, so slot 30 is dropped and slot 40 taken 3 ms late;
    # the fifth runs from 50 to 61, slot 60 is taken 1 ms late
    assert offsets == [0, 10, 20, 43, 50, 61, 70]
    assert [late // MS for late in batch["late_ns"]] == [0, 0, 0, 3, 0, 1, 0]
    assert "late_ns" not in of(events, "samples", phase="warmup")[0]


def test_repetitions_may_differ_by_their_script(agent, jobs, of):
    trial = jobs.trial({"clock": "fake", "latency_ns": MS, "repetition_permille": [1000, 1100]})
    events = agent.run(jobs.job(trial, repetitions=3))
    firsts = [event["latency_ns"][0] for event in of(events, "samples", phase="first")]
    assert firsts == [1_000_000, 1_100_000, 1_000_000]


def test_what_is_known_late_comes_as_a_second_loaded(agent, jobs, of):
    script = {"clock": "fake", "load_ns": 5, "loaded": {"precision_effective": None}}
    events = agent.run(jobs.null({**script, "evidence": {"precision_effective": "fp16"}}))
    first, second = of(events, "loaded")
    assert (first["precision_effective"], second["precision_effective"]) == (None, "fp16")
    assert {key for key in first if first[key] != second[key]} == {"seq", "t_ns", "precision_effective"}


def test_cores_are_bound_before_the_runtime_is_imported(agent, jobs, one):
    loaded = one(agent.run(jobs.null({"clock": "fake"}, cores=[0])), "loaded")
    assert loaded["cores_effective"] == [0]


def test_cores_that_the_device_lacks_are_a_bad_job(agent, jobs, one):
    error = one(agent.run(jobs.null({"clock": "fake"}, cores=[4000])), "error")
    assert error["code"] == "bad_job"
    assert "4000" in error["message"]


def test_telemetry_runs_on_the_samples_clock_and_says_what_it_cannot_read(agent, jobs, of, one):
    script = {"clock": "real", "latency_ns": 10 * MS}
    job = jobs.null(script, settings={"min_time_s": 0.8, "warmup_max_s": 0.1})
    job["telemetry"] = {"interval_s": 0.1, "slow_interval_s": 5.0}
    events = agent.run(job)
    rows = [row for event in of(events, "telemetry") for row in event["rows"]]
    memory = [row for row in rows if row[1] == "memory_available_bytes"]
    assert len(memory) >= 5
    assert all(isinstance(row[3], int) and row[3] > 0 for row in memory)
    samples = of(events, "samples", phase="measured")
    low, high = samples[0]["start_ns"], samples[-1]["t_ns"]
    assert any(low <= row[0] <= high for row in memory)
    absent = [row for row in rows if row[3] is None]
    assert all(len(row) == 5 and isinstance(row[4], str) for row in absent)
    assert len({(row[1], row[2]) for row in absent}) == len(absent), "an absence is said once"
    assert all(len(row) == 4 for row in rows if row[3] is not None)


def test_clock_events_pair_both_clocks(agent, jobs, of):
    (clock,) = of(agent.run(jobs.null({"clock": "fake"})), "clock")
    assert clock["wall_ns"] > 1_700_000_000 * 10**9
    assert 0 < clock["monotonic_ns"] <= clock["t_ns"]


def test_done_carries_what_the_system_counted(agent, jobs, one):
    done = one(agent.run(jobs.null({"clock": "real", "spin": True, "latency_ns": 2 * MS})), "done")
    assert done["cpu_ns"] > done["measured_ns"] * 0.1
    assert done["voluntary_switches"] >= 0
    assert done["involuntary_switches"] >= 0
    assert done["peak_memory_bytes"] > 1_000_000
    assert done["busy_ns"] is None or done["busy_ns"] >= 0
    assert done.get("run_delay_ns") is None or done["run_delay_ns"] >= 0
    assert set(done["power"]) == {"source", "battery_permille", "battery_saver"}


def test_every_line_is_ascii_json(agent, jobs):
    script = {"clock": "fake", "loaded": {"accelerator": "Mali\u2122 \u201cG78\u201d \n"}}
    agent.run(jobs.null(script))
    data = (agent.folder / "job" / "events.jsonl").read_bytes()
    assert data.isascii()
    assert data.endswith(b"\n")
    assert json.loads(data.split(b"\n")[-2])["type"] == "end"
