"""What every transport must do, whatever lies between host and device."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from socbench.errors import ChannelError, DeadlineError
from socbench.transports.base import Deadline, Transport

HOSTILE = 'it\'s "quoted" $(touch pwned) `id` ; rm -rf * \\ \n ünï ✓ -x'
NAMES = [
    "plain.bin",
    "with space",
    'quote\'s and "more"',
    "new\nline",
    "ünïcode-✓.bin",
    "$HOME `id` $(id)",
    "-starts-with-a-dash",
    "semi;colon&and|pipe*?[a]",
]


def _sh(transport: Transport, script: str, *arguments: str, deadline: Deadline) -> bytes:
    done = transport.run(["sh", "-c", script, "sh", *arguments], deadline=deadline)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def _made(tmp_path: Path, size: int, name: str = "source.bin") -> Path:
    path = tmp_path / name
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
        file.write(block[: size & ((1 << 20) - 1)])
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Commands


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_of_a_command_is_its_own(transport: Transport, soon: Deadline, code: int) -> None:
    assert transport.run(["sh", "-c", f"exit {code}"], deadline=soon).exit_code == code


def test_stdout_and_stderr_come_apart(transport: Transport, soon: Deadline) -> None:
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"], deadline=soon)
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_output_is_passed_on_byte_for_byte(transport: Transport, soon: Deadline, tmp_path: Path) -> None:
    every_byte = bytes(range(256)) * 16 + b"\r\n\n\r\0"
    source = tmp_path / "bytes"
    source.write_bytes(every_byte)
    transport.push(source, transport.root / "bytes", deadline=soon)
    assert transport.run(["cat", str(transport.root / "bytes")], deadline=soon).stdout == every_byte


def test_arguments_arrive_as_they_are_and_are_never_run(transport: Transport, soon: Deadline) -> None:
    words = [HOSTILE, "", " ", "--", "*"]
    said = _sh(transport, 'for word; do printf "%s\\0" "$word"; done', *words, deadline=soon)
    assert said.decode().split("\0")[:-1] == words


def test_a_command_gets_its_input_and_its_end(transport: Transport, soon: Deadline) -> None:
    data = bytes(range(256)) * 4096
    done = transport.run(["cat"], deadline=soon, stdin=data)
    assert (done.exit_code, hashlib.sha256(done.stdout).digest()) == (0, hashlib.sha256(data).digest())


def test_a_command_that_ignores_its_input_ends_all_the_same(transport: Transport, soon: Deadline) -> None:
    done = transport.run(["sh", "-c", "exec <&-; echo done; exit 4"], deadline=soon, stdin=b"x" * 4_000_000)
    assert (done.exit_code, done.stdout) == (4, b"done\n")


def test_a_command_without_input_reads_the_end_at_once(transport: Transport, soon: Deadline) -> None:
    assert transport.run(["cat"], deadline=soon).stdout == b""


def test_variables_reach_the_command(transport: Transport, soon: Deadline) -> None:
    done = transport.run(["sh", "-c", 'printf %s "$ODD"'], deadline=soon, env={"ODD": HOSTILE})
    assert done.stdout.decode() == HOSTILE


def test_a_command_that_is_not_there_ends_with_127(transport: Transport, soon: Deadline) -> None:
    assert transport.run(["socbench-no-such-command"], deadline=soon).exit_code == 127


def test_fifty_megabytes_of_output_come_whole(transport: Transport, soon: Deadline) -> None:
    done = transport.run(["head", "-c", "52428800", "/dev/zero"], deadline=soon)
    assert (len(done.stdout), done.stdout.count(0), done.truncated) == (52428800, 52428800, False)


def test_output_over_the_limit_is_cut_and_flagged(transport: Transport, soon: Deadline) -> None:
    done = transport.run(["head", "-c", "3000000", "/dev/zero"], deadline=soon, limit_bytes=1000)
    assert (len(done.stdout), done.truncated, done.exit_code) == (1000, True, 0)


def test_a_command_that_does_not_end_is_killed_at_its_deadline(transport: Transport, soon: Deadline) -> None:
    mark = f"{os.getpid()}.{time.monotonic_ns()}"
    command = ["sh", "-c", 'echo $$ > "$1"; while :; do sleep 0.05; done', mark, str(transport.root / "pid")]
    _sh(transport, 'mkdir -p "$1"', str(transport.root), deadline=soon)
    with pytest.raises(DeadlineError, match="in time"):
        transport.run(command, deadline=Deadline.after(0.7, "a loop"))
    left = Deadline.after(10.0, "the loop to die")
    alive = 'kill -0 "$(cat "$1")" 2>/dev/null && echo alive; :'
    while b"alive" in _sh(transport, alive, str(transport.root / "pid"), deadline=soon):
        left.check()
        time.sleep(0.05)


def test_a_deadline_that_has_passed_is_no_deadline_to_start_with(transport: Transport) -> None:
    with pytest.raises(DeadlineError):
        transport.run(["true"], deadline=Deadline.after(-1.0, "nothing"))


def test_closing_ends_a_command_under_way_with_a_channel_error(transport: Transport, soon: Deadline) -> None:
    raised: list[BaseException] = []

    def sleep() -> None:
        try:
            transport.run(["sleep", "50"], deadline=soon)
        except ChannelError as problem:
            raised.append(problem)

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.5)
    transport.close()
    thread.join(20)
    assert [isinstance(problem, ChannelError) for problem in raised] == [True]


def test_a_closed_transport_says_that_it_is_closed(transport: Transport, soon: Deadline) -> None:
    transport.close()
    with pytest.raises(ChannelError):
        transport.run(["true"], deadline=soon)


def test_the_device_can_be_opened_again(transport: Transport, reopen: Callable[[], Transport], soon: Deadline) -> None:
    _sh(transport, 'mkdir -p "$1"; echo kept > "$1/file"', str(transport.root), deadline=soon)
    transport.close()
    again = reopen()
    assert again.run(["cat", str(again.root / "file")], deadline=soon).stdout == b"kept\n"


def test_the_root_is_an_absolute_folder(transport: Transport) -> None:
    assert transport.root.is_absolute()


# Files


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name_come_and_go_unchanged(
    transport: Transport, soon: Deadline, tmp_path: Path, name: str
) -> None:
    source = _made(tmp_path, 100_001)
    transport.push(source, transport.root / "a folder" / name, deadline=soon)
    transport.pull(transport.root / "a folder" / name, tmp_path / "back", deadline=soon)
    assert _sha256(tmp_path / "back") == _sha256(source)
    listing = _sh(
        transport,
        'cd "$1" && for f in * .*; do printf "%s\\0" "$f"; done',
        str(transport.root / "a folder"),
        deadline=soon,
    )
    assert [n for n in listing.decode().split("\0") if n not in ("", ".", "..", ".*")] == [name]


def test_a_hundred_megabytes_come_and_go_with_the_same_hash(
    transport: Transport, soon: Deadline, tmp_path: Path
) -> None:
    source = _made(tmp_path, 100 * 1024 * 1024)
    transport.push(source, transport.root / "large", deadline=soon)
    there = _sh(transport, 'sha256sum < "$1"', str(transport.root / "large"), deadline=soon)
    transport.pull(transport.root / "large", tmp_path / "back", deadline=soon)
    assert there.split()[0].decode() == _sha256(source) == _sha256(tmp_path / "back")


def test_an_empty_file_comes_and_goes(transport: Transport, soon: Deadline, tmp_path: Path) -> None:
    source = _made(tmp_path, 0)
    transport.push(source, transport.root / "empty", deadline=soon)
    transport.pull(transport.root / "empty", tmp_path / "back", deadline=soon)
    assert (tmp_path / "back").read_bytes() == b""


def test_a_push_replaces_what_was_there(transport: Transport, soon: Deadline, tmp_path: Path) -> None:
    target = transport.root / "file"
    for content in (b"first and longer", b"second"):
        source = tmp_path / "source"
        source.write_bytes(content)
        transport.push(source, target, deadline=soon)
    assert transport.run(["cat", str(target)], deadline=soon).stdout == b"second"


def test_pulling_a_file_that_is_not_there_says_so_and_leaves_nothing(
    transport: Transport, soon: Deadline, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        transport.pull(transport.root / "missing", tmp_path / "back", deadline=soon)
    assert list(tmp_path.glob("back*")) == []


def test_a_full_disk_refuses_the_file_and_keeps_nothing_of_it(
    full_disk: Transport, soon: Deadline, tmp_path: Path
) -> None:
    big = _megabyte(tmp_path)
    with pytest.raises(OSError) as refused:
        full_disk.push(big, full_disk.root / "folder" / "file", deadline=soon)
    assert refused.value.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    left = full_disk.run(["sh", "-c", 'ls -A "$1" 2>/dev/null; :', "sh", str(full_disk.root / "folder")], deadline=soon)
    assert left.stdout == b""


def _megabyte(tmp_path: Path) -> Path:
    """A file of over a megabyte that is there already: under the limit on file sizes this process can make none."""
    path = tmp_path / "large"
    large = next(
        file for file in sorted(Path("/usr/bin").iterdir()) if file.is_file() and file.stat().st_size > 1 << 20
    )
    path.symlink_to(large)
    return path


# Growing files


def _collect(
    transport: Transport, path: PurePosixPath, offset: int, until: Callable[[bytes], bool], deadline: Deadline
) -> tuple[bytes, int]:
    """Return what ``follow`` gives until it is enough, and how many heartbeats came."""
    stop = threading.Event()
    got, beats = b"", 0
    for data in transport.follow(path, offset, stop=stop):
        got += data
        beats += data == b""
        if until(got) or beats >= 3:
            stop.set()
        deadline.check()
    return got, beats


def test_following_a_file_gives_every_byte_once_in_order(transport: Transport, soon: Deadline) -> None:
    path = transport.root / "events"
    script = 'mkdir -p "${1%/*}"; i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i" >> "$1"; sleep 0.01; done'
    transport.spawn(["sh", "-c", script, "sh", str(path)], log=transport.root / "log", deadline=soon)
    expected = b"".join(b"line %d\n" % number for number in range(1, 41))
    got, _ = _collect(transport, path, 0, lambda got: len(got) >= len(expected), soon)
    assert got == expected


def test_following_begins_at_the_offset(transport: Transport, soon: Deadline) -> None:
    path = transport.root / "events"
    _sh(transport, 'mkdir -p "${1%/*}"; printf 0123456789 > "$1"', str(path), deadline=soon)
    got, _ = _collect(transport, path, 4, lambda got: len(got) >= 6, soon)
    assert got == b"456789"


def test_following_waits_for_a_file_that_is_not_there_yet_and_beats_meanwhile(
    transport: Transport, reopen: Callable[[], Transport], soon: Deadline
) -> None:
    path = transport.root / "late"
    stop = threading.Event()
    got = b""
    for data in transport.follow(path, 0, stop=stop):
        if data == b"" and not got:
            other = reopen()
            _sh(other, 'mkdir -p "${1%/*}"; printf here > "$1"', str(path), deadline=soon)
        got += data
        if got:
            stop.set()
        soon.check()
    assert got == b"here"


def test_a_silent_file_beats_so_that_the_caller_can_have_doubts(transport: Transport, soon: Deadline) -> None:
    path = transport.root / "silent"
    _sh(transport, 'mkdir -p "${1%/*}"; printf x > "$1"', str(path), deadline=soon)
    assert _collect(transport, path, 0, lambda _: False, soon) == (b"x", 3)


def test_commands_run_beside_a_followed_file(transport: Transport, soon: Deadline) -> None:
    path = transport.root / "events"
    _sh(transport, 'mkdir -p "${1%/*}"; printf a > "$1"', str(path), deadline=soon)
    stop = threading.Event()
    stream = transport.follow(path, 0, stop=stop)
    assert next(data for data in stream if data) == b"a"
    _sh(transport, 'printf b >> "$1"', str(path), deadline=soon)
    assert next(data for data in stream if data) == b"b"
    stop.set()
    assert [data for data in stream if data] == []


# Detached processes


def test_what_was_spawned_outlives_the_channel(
    transport: Transport, reopen: Callable[[], Transport], soon: Deadline
) -> None:
    path = transport.root / "result"
    script = 'echo begun; sleep 1; echo err >&2; printf finished > "$1"'
    transport.spawn(["sh", "-c", script, "sh", str(path)], log=transport.root / "the log", deadline=soon)
    transport.close()
    again = reopen()
    assert _collect(again, path, 0, lambda got: len(got) >= 8, soon)[0] == b"finished"
    assert again.run(["cat", str(again.root / "the log")], deadline=soon).stdout == b"begun\nerr\n"


def test_what_was_spawned_has_no_input_and_a_session_of_its_own(transport: Transport, soon: Deadline) -> None:
    path = transport.root / "result"
    script = 'read line && echo input >> "$1.tmp"; cut -d" " -f6 /proc/$$/stat >> "$1.tmp"; mv "$1.tmp" "$1"'
    transport.spawn(["sh", "-c", script, "sh", str(path)], log=transport.root / "log", deadline=soon)
    session, _ = _collect(transport, path, 0, lambda got: got.endswith(b"\n"), soon)
    assert session.strip().isdigit()
    assert int(session) != os.getsid(0)
