"""The real command in a process of its own: help, wrong usage, exit codes, streams, signals, completion."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def socbench(*arguments: str, store: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "harness"), "COLUMNS": "80", **env}
    if store is not None:
        environment["SOCBENCH_STORE"] = str(store)
    return subprocess.run(
        [sys.executable, "-m", "socbench", *arguments],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return what the command said, which must be one line on standard error that begins with its name."""
    assert done.stdout == ""
    assert done.stderr.startswith("socbench: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("socbench: ").rstrip("\n")


def test_without_arguments_it_prints_its_help_and_succeeds() -> None:
    done = socbench()
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == socbench("--help").stdout
    for command in ("run", "report", "compare", "results", "models", "devices", "doctor", "completion"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["run", "report", "compare", "results", "results sql", "models", "devices"])
def test_the_help_of_a_command_has_examples_and_fits_80_columns(command: str) -> None:
    done = socbench(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith(f"Usage: socbench {command} ")
    assert " " in command or "Examples:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_is_the_packages_and_nothing_heavy_is_imported_for_it() -> None:
    import socbench as package

    code = "import sys; sys.argv = ['socbench', '--version']\ntry:\n import socbench.cli; socbench.cli.main()\n"
    code += "except SystemExit as e:\n print(e.code, sorted({'typer', 'numpy', 'dataclasses'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "harness")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"socbench {package.__version__}", "0 []"]
    assert socbench("run", "--version").returncode == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit; sys.argv = ['socbench', *sys.argv[1:]]\n"
        "heavy = {'rich', 'pydantic', 'numpy', 'pyarrow', 'duckdb', 'pandas', 'socbench.records', 'socbench.session'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        "from socbench.cli import main; main()"
    )
    for words in (["--help"], ["run", "--help"], ["results", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT / "harness")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "HEAVY []", words


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("rnu", "there is no command 'socbench rnu'; did you mean run? (see 'socbench --help')"),
        ("xyzzy", "there is no command 'socbench xyzzy' (see 'socbench --help')"),
        ("--hlep", "there is no option --hlep; did you mean --help? (see 'socbench --help')"),
        ("results lst", "there is no command 'socbench results lst'; did you mean list? "
         "(see 'socbench results --help')"),
        ("run --devcie local", "there is no option --devcie; did you mean --device? (see 'socbench run --help')"),
        ("run resnet8 --ab runtime=litert", "option '--ab' requires 2 arguments (see 'socbench run --help')"),
        ("runtimes install onnxruntim==1.2",
         "there is no environment called 'onnxruntim==1.2'; did you mean onnxruntime==1.2?"),
        ("run --threads many", "--threads: 'many' is not a whole number above 0 (see 'socbench run --help')"),
        ("run --threads 0", "--threads: '0' is not a whole number above 0 (see 'socbench run --help')"),
        ("run --batch -1", "--batch: '-1' is not a whole number above 0 (see 'socbench run --help')"),
        ("run --min-time soon", "--min-time: 'soon' is not a time above zero such as 90 (seconds), 30m or 2h "
         "(see 'socbench run --help')"),
        ("run --shape image", "--shape: 'image' is not an input's name and whole numbers such as image=1,3,224,224 "
         "(see 'socbench run --help')"),
        ("run --precision-target 5", "--precision-target: '5' is not a share between 0 and 100 % such as 5% "
         "(see 'socbench run --help')"),
        ("run resnet8 --resume latest", "--resume latest goes on with that session's own plan: "
         "leave models and --suite away"),
        ("report", "--output is missing (see 'socbench report --help')"),
        ("compare", "BASE is missing (see 'socbench compare --help')"),
        ("compare a b --strict", "--strict tightens the gate of --fail-above: add --fail-above, for instance "
         "--fail-above 5%"),
        ("results rm", "SESSION ... is missing (see 'socbench results rm --help')"),
        ("results import nowhere.zip", "there is no file nowhere.zip to import: "
         "name what socbench results export wrote"),
        ("results merge nowhere", "there is no folder nowhere to merge: name another results store"),
        ("completion tcsh", "there is no completion for 'tcsh': bash, zsh or fish"),
        ("models add a.onnx --calibration nowhere", "there is no folder nowhere: name a folder of pictures with "
         "--calibration"),
        ("runtimes install ncn", "there is no environment called 'ncn'; did you mean ncnn?"),
        ("runtimes install litert", "litert lives beside socbench itself: pip install 'socbench[litert]'"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence_with_the_way_out_and_exit_code_2(line: str, sentence: str, tmp_path: Path) -> None:
    done = socbench(*line.split(), store=tmp_path)
    assert one_sentence(done) == sentence
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no/such/folder/r.html", "cannot be written: there is no folder"),
        (".", "is a folder: name a file in it"),
    ],
)
def test_a_report_says_that_its_target_cannot_be_written_before_it_reads_the_store(
    target: str, sentence: str, tmp_path: Path
) -> None:
    done = socbench("report", "nothing-is-read", "-o", str(tmp_path / target), store=tmp_path / "no-store")
    assert sentence in one_sentence(done)
    assert done.returncode == 1


def test_debug_may_stand_anywhere_and_shows_where_an_error_came_from() -> None:
    done = socbench("results", "import", "nowhere.zip", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("socbench: there is no file nowhere.zip")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_ends_a_program_ends_it_with_130_and_one_sentence(number: signal.Signals) -> None:
    # A fake command that waits, in the place of one that runs: what is held is the outermost command's.
    code = (
        "import sys, time, socbench.cli.outermost as o\n"
        "def wait(arguments): print('ready', flush=True); time.sleep(60)\n"
        "o._run = wait\nsys.exit(o.call([]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "harness")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said == "socbench: interrupted\n"


def test_a_reader_that_went_away_is_met_in_silence_and_not_with_success() -> None:
    # More than a pipe holds is written, so that the writer does meet the closed end.
    code = (
        "import sys, socbench.cli.outermost as o\n"
        "def chatter(arguments):\n for _ in range(20000): print('x' * 50)\n return 0\n"
        "o._run = chatter\nsys.exit(o.call([]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "harness")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        said = child.stderr.read()
    assert child.returncode == 141
    assert said == b""


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """A folder for the PATH that holds the command socbench."""
    script = tmp_path / "bin" / "socbench"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m socbench "$@"\n')
    script.chmod(0o755)
    return script.parent


def complete_in_bash(line: str, shim: Path, store: Path) -> list[str]:
    """Return what bash would offer at the end of ``line``, its words split as bash splits them."""
    program = (
        'eval "$(socbench completion bash)"\n'
        'COMP_LINE="$1"; COMP_POINT=${#1}\n'
        "_socbench_completion socbench\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {
        **os.environ,
        "PATH": f"{shim}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "harness"),
        "SOCBENCH_STORE": str(store),
    }
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "--norc", "-c", program, "bash", line], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [word for word in done.stdout.splitlines() if word]


def test_bash_completes_commands_options_sessions_devices_and_models(shim: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "sessions" / "20261124-2250-k3f9"
    folder.mkdir(parents=True)
    document = {"session": folder.name, "label": "before", "devices": [{"device": "adb:R58M"}]}
    (folder / "session.json").write_text(json.dumps(document))
    store = tmp_path / "store"
    assert complete_in_bash("socbench re", shim, store) == ["report", "results"]
    assert complete_in_bash("socbench results ex", shim, store) == ["export"]
    assert complete_in_bash("socbench run --dev", shim, store) == ["--device"]
    assert complete_in_bash("socbench report ", shim, store) == ["latest", "before", folder.name]
    assert complete_in_bash("socbench results show be", shim, store) == ["before"]
    assert complete_in_bash("socbench run --precision fp32,in", shim, store)[:2] == ["fp32,int8", "fp32,int8_dynamic"]
    # Bash has "adb:" in the line already, as a word of its own.
    assert complete_in_bash("socbench run -d adb:", shim, store) == ["R58M"]
    assert complete_in_bash("socbench run --delegate cpu:xn", shim, store) == ["xnnpack"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed_for_each_shell_and_evaluates_no_answer(shell: str) -> None:
    done = socbench("completion", shell)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "_SOCBENCH_COMPLETE" in done.stdout
    assert "eval" not in done.stdout
    program = shutil.which(shell)
    if program is not None:  # what cannot be parsed by the shell itself is no script
        parsed = subprocess.run([program, "-n"], input=done.stdout, capture_output=True, text=True, check=False)
        assert parsed.stderr == ""
        assert parsed.returncode == 0


def test_the_devices_are_printed_as_json_with_their_names_and_nothing_else_on_standard_output() -> None:
    done = socbench("devices", "--json")
    assert done.returncode == 0
    (local, *_) = json.loads(done.stdout)
    names = {"device", "key", "name", "soc_vendor", "soc", "gpu", "npu", "os", "abi", "cores", "emulated"}
    assert names | {"state", "advice"} <= set(local)
    assert local["device"] == "local"
    assert local["state"] == "ready"
