"""Malformed documents and files, under AddressSanitizer and UBSan: refused by name, and nothing is overrun."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "device_agents" / "native"
MODELS = Path(__file__).resolve().parents[2] / "models"


def refuse(agent, folder, content):
    folder.mkdir()
    (folder / "job.json").write_bytes(content)
    done = subprocess.run([*agent, "run", str(folder)], capture_output=True, timeout=60, check=False)
    assert done.returncode != 99, done.stderr.decode()[-3000:]
    assert b"Sanitizer" not in done.stderr, done.stderr.decode()[-3000:]
    return done


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"protocol":1',
        b'{"protocol":1,"session":"\\',
        b'{"protocol":1,"session":"\\u12',
        b'{"protocol":1,"session":"\\ud800\\u0041"',
        b'"' + b"\\" * 999,
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"-",
        b"1e",
        b"01",
        b"\xff\xfe\x00",
        b"nul",
        b'{"":1,"":2}x',
        b'{"protocol":1,"session":"s","trials":{"t":{}},"repetitions":[]}',
        b'{"protocol":1e0,"session":"s","trials":{},"repetitions":[]}',
        b'{"protocol":1,"session":"s","trials":{},"repetitions":[{"trial":"t\\u0000"}]}',
    ],
)
def test_a_document_that_is_no_job_is_refused(sanitized_agent, tmp_path, content):
    done = refuse(sanitized_agent, tmp_path / "job", content)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["error"]["code"] in ("bad_job", "protocol_version")
    events = [json.loads(line) for line in (tmp_path / "job" / "events.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events] == ["hello", "error", "end"]


def mutations(document: bytes, rng: random.Random, count: int):
    tokens = [
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\u0000",
        b"null",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b"\x00",
        b"\xc3",
    ]
    for _ in range(count):
        data = bytearray(document)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 40)]
            elif kind == 2:
                data[at:at] = rng.choice(tokens)
            else:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randint(1, 60)]
        yield bytes(data)


SANITIZERS = ["-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def test_the_fuzzer_of_the_job_parser_finds_nothing(tmp_path, trial):
    """Documents go through the parser in one process; ``fuzz_job FOLDER COUNT SEED`` goes on for longer by hand."""
    inputs = [{"name": "x", "dtype": "float32", "shape": [1, 4], "file": "../x.bin"}]
    given = {"count": 2, "inputs": inputs, "keep": ["all"]}
    cool = {"max_wait_s": 5, "tolerance_milli_c": 1000, "baseline": {"temperatures": {"a": 1}, "caps": {}, "status": 0}}
    job = {
        "protocol": 1,
        "session": "fuzz \u20ac \U0001f600",
        "orphan_after_s": 5.5,
        "telemetry": {"interval_s": 0.5},
        "trials": {
            "t": trial("null", "cpu:null", "m.json", probe=given, cores=[0, 1], shapes={"x": [1, 4]}, env={"A": "b"})
        },
        "repetitions": [{"trial": "t", "repetition": 1, "deadline_s": 120, "cool_down": cool}],
    }
    (tmp_path / "seed.json").write_text(json.dumps(job))
    program = tmp_path / "fuzz_job"
    sources = [str(NATIVE / "src" / name) for name in ("job.c", "json.c", "util.c")]
    fuzzer = str(Path(__file__).with_name("fuzz_job.c"))
    subprocess.run(["cc", *SANITIZERS, f"-I{NATIVE / 'src'}", fuzzer, *sources, "-lm", "-o", str(program)], check=True)
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(program), str(tmp_path), "4000", "6"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    documents, accepted = (int(word) for word in done.stdout.split() if word.isdigit())
    assert documents == 4000
    assert 0 < accepted < 1000, "most are broken, and not all"


def test_mutated_scripts_of_the_null_runtime_overrun_nothing(sanitized_agent, tmp_path, trial, run_job):
    script = {
        "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 4], "scale": 0.5, "zero_point": 3}],
        "outputs": [{"name": "y", "dtype": "float16", "shape": [2, 2], "by_input": [[1, 2], [3]]}],
        "clock": "fake",
        "latency_ns": {"measure": [1000, 2000]},
        "loaded": {"details": {"a": [1, None]}},
        "ops": [[0, "Conv", "c", "cpu", 1, 1]],
    }
    for number, content in enumerate(mutations(json.dumps(script).encode(), random.Random(7), 60)):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        events = run_job(sanitized_agent, trial("null", "cpu:null", path, profile=True), f"job{number}")
        assert events[-1]["reason"] == "complete"
        texts = [event.get("text", "") for event in events if event["type"] == "log"]
        assert not any("Sanitizer" in text or "runtime error" in text for text in texts), texts


def test_a_truncated_or_mutated_tflite_file_overruns_nothing(tmp_path):
    harness = tmp_path / "harness.c"
    harness.write_text(
        '#include "agent.h"\n#include <stdio.h>\n'
        "int main(int count, char **paths) {\n"
        "  for (int i = 1; i < count; i++) {\n"
        "    TfliteFacts facts = {0};\n"
        "    if (tflite_facts(paths[i], &facts))\n"
        '      printf("%d %s %s\\n", facts.nodes, facts.precision, facts.macs.data);\n'
        '    else\n      printf("none\\n");\n'
        "  }\n  return 0;\n}\n"
    )
    sources = [str(NATIVE / "src" / name) for name in ("tflite_file.c", "util.c")]
    flags = [*SANITIZERS, f"-I{NATIVE / 'src'}"]
    subprocess.run(["cc", *flags, str(harness), *sources, "-lm", "-o", str(tmp_path / "harness")], check=True)
    model = (MODELS / "resnet8" / "resnet8-fp32.tflite").read_bytes()
    rng = random.Random(8)
    paths = [tmp_path / "whole.tflite"]
    paths[0].write_bytes(model)
    for number in range(200):
        data = bytearray(model[: rng.randrange(8, len(model))] if number % 4 == 0 else model)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(min(len(data), 4096)) if rng.random() < 0.5 else rng.randrange(len(data))
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        paths.append(tmp_path / f"{number}.tflite")
        paths[-1].write_bytes(data)
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(tmp_path / "harness"), *map(str, paths)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0] == '14 fp32 {"fp32":9345920}'
    assert len(lines) == 201


def test_the_sanitizers_would_have_said_so(tmp_path):
    """The proof that these tests can fail: a read past the end is reported where it is made."""
    source = tmp_path / "bad.c"
    source.write_text("#include <stdlib.h>\nint main(int c, char **v) { char *p = malloc(4); return p[c + 3]; }\n")
    subprocess.run(["cc", "-fsanitize=address", "-O0", str(source), "-o", str(tmp_path / "bad")], check=True)
    done = subprocess.run([str(tmp_path / "bad")], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"AddressSanitizer" in done.stderr
    assert sys.platform.startswith("linux")
