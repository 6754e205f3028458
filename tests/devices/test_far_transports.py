"""ADB and SSH against a real adbd and a real sshd: what commands, files and followed files do over both."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
import time
from pathlib import Path, PurePosixPath

import pytest
from device_link import Link
from device_rig import wait_for
from socbench.errors import ChannelError, DeadlineError
from socbench.transports.base import Deadline

ODD_NAMES = ["with space", "quote'\"", "new\nline", "ümläut-日本", "-dash", "$HOME;`id`", "back\\slash", "comma,33206"]


def soon(seconds: float = 30.0) -> Deadline:
    return Deadline.after(seconds)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def running(marker: str) -> bool:
    """Whether a process with ``marker`` as an argument runs (and is no zombie)."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return any(marker in line and not line.startswith("Z") for line in listed.splitlines())


def test_arguments_arrive_as_they_are(link: Link) -> None:
    done = link.open().run(["printf", "%s|", *ODD_NAMES, ""], deadline=soon())
    assert done.stdout.decode() == "|".join([*ODD_NAMES, ""]) + "|"


def test_environment_arrives_as_it_is(link: Link) -> None:
    done = link.open().run(["sh", "-c", 'printf %s "$ODD"'], deadline=soon(), env={"ODD": 'it\'s $HOME\n"x"'})
    assert done.stdout == b'it\'s $HOME\n"x"'


def test_every_byte_survives_both_ways(link: Link) -> None:
    every = bytes(range(256)) * 4000
    done = link.open().run(["cat"], deadline=soon(), stdin=every)
    assert done.stdout == every
    assert done.stderr == b""


def test_command_that_ignores_its_input_ends(link: Link) -> None:
    assert link.open().run(["true"], deadline=soon(), stdin=os.urandom(3_000_000)).exit_code == 0


def test_command_without_input_sees_its_end(link: Link) -> None:
    assert link.open().run(["wc", "-c"], deadline=soon()).stdout.strip() == b"0"


def test_missing_command_ends_with_127_and_a_folder_with_126(link: Link) -> None:
    transport = link.open()
    assert transport.run(["no-such-command-here"], deadline=soon()).exit_code == 127
    assert transport.run(["/"], deadline=soon()).exit_code == 126


def test_command_is_killed_with_its_children_at_the_deadline(link: Link) -> None:
    transport = link.open()
    with pytest.raises(DeadlineError, match=r"sh on .* did not end in time"):
        transport.run(["sh", "-c", "sleep 9413 & sleep 9414"], deadline=soon(0.5))
    wait_for(lambda: not running("sleep 941"), "the end of the command")
    assert transport.run(["echo", "alive"], deadline=soon()).stdout == b"alive\n"


def test_command_dies_with_its_channel(link: Link) -> None:
    transport = link.open()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            transport.run(["sleep", "9415"], deadline=soon())
        except ChannelError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: running("sleep 9415"), "the command")
    transport.close()
    thread.join(10)
    assert len(failures) == 1
    wait_for(lambda: not running("sleep 9415"), "the end of the command")
    with pytest.raises(ChannelError, match="was closed"):
        transport.run(["true"], deadline=soon())


def test_spawned_command_outlives_the_channel(link: Link) -> None:
    transport = link.open()
    log = transport.root / "logs with space" / "spawned.log"
    gate = transport.root / "gate"
    line = f'echo first; while [ ! -e "{gate}" ]; do sleep 0.05; done; echo second'
    Path(gate).unlink(missing_ok=True)
    Path(log).unlink(missing_ok=True)
    transport.spawn(["sh", "-c", line], log=log, deadline=soon())
    transport.close()
    wait_for(lambda: Path(log).exists() and Path(log).read_text() == "first\n", "the first line")
    Path(gate).touch()
    wait_for(lambda: Path(log).read_text() == "first\nsecond\n", "the second line")


def test_executable_bit_arrives(link: Link, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    transport = link.open()
    transport.push(program, transport.root / "program", deadline=soon())
    assert transport.run([str(transport.root / "program")], deadline=soon()).stdout == b"ran\n"


def test_missing_file_is_said_and_leaves_nothing(link: Link, tmp_path: Path) -> None:
    transport = link.open()
    with pytest.raises(FileNotFoundError):
        transport.pull(transport.root / "not there", tmp_path / "back", deadline=soon())
    with pytest.raises(FileNotFoundError):
        transport.push(tmp_path / "not here", transport.root / "x", deadline=soon())
    assert list(tmp_path.iterdir()) == []
    assert not Path(transport.root / "x").exists()


def test_folder_that_may_not_be_written_is_said(link: Link, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(OSError) as caught:
        link.open().push(source, PurePosixPath("/proc/nowhere/file"), deadline=soon())
    assert caught.value.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


def follow_until(transport: object, path: PurePosixPath, offset: int, count: int) -> bytes:
    stop = threading.Event()
    got = b""
    for chunk in transport.follow(path, offset, stop=stop):  # type: ignore[attr-defined]
        got += chunk
        if len(got) >= count:
            stop.set()
    return got


def test_followed_file_is_read_from_the_offset_as_it_grows(link: Link) -> None:
    transport = link.open()
    path = Path(transport.root) / "events 'of' a session.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"old;new;")

    def grow() -> None:
        for number in range(20):
            with path.open("ab") as stream:
                stream.write(b"%d;" % number)
            time.sleep(0.01)

    expected = b"new;" + b"".join(b"%d;" % number for number in range(20))
    thread = threading.Thread(target=grow)
    thread.start()
    assert follow_until(transport, PurePosixPath(path), 4, len(expected)) == expected
    thread.join()
    wait_for(lambda: not running("events 'of' a session"), "the end of the follower on the device")


def test_file_that_is_not_there_yet_is_waited_for_with_heartbeats(link: Link) -> None:
    transport = link.open()
    path = Path(transport.root) / "later.jsonl"
    path.unlink(missing_ok=True)
    stop = threading.Event()
    chunks = []
    for chunk in transport.follow(PurePosixPath(path), 0, stop=stop):
        chunks.append(chunk)
        if chunk:
            break
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"here")
    assert chunks[0] == b""
    assert chunks[-1] == b"here"


def test_large_events_come_whole(link: Link) -> None:
    transport = link.open()
    path = Path(transport.root) / "large"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = os.urandom(6_000_000)
    path.write_bytes(content)
    assert follow_until(transport, PurePosixPath(path), 3, len(content) - 3) == content[3:]
    path.unlink()


def test_cut_in_a_push_is_a_broken_channel_and_half_a_file_never_has_the_name(link: Link, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000_000))
    transport = link.open()
    target = transport.root / "cut"
    link.proxy.cut_after(5_000_000)
    with pytest.raises(ChannelError):
        transport.push(source, target, deadline=soon())
    assert not Path(target).exists()
    again = link.open()
    again.push(source, target, deadline=soon())
    assert sha256(Path(target)) == sha256(source)
    Path(target).unlink()


def test_cut_in_a_pull_is_a_broken_channel_and_leaves_nothing(link: Link, tmp_path: Path) -> None:
    transport = link.open()
    path = Path(transport.root) / "pulled"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(20_000_000))
    link.proxy.cut_after(5_000_000, "down")
    with pytest.raises(ChannelError):
        transport.pull(PurePosixPath(path), tmp_path / "back", deadline=soon())
    assert list(tmp_path.iterdir()) == []
    link.open().pull(PurePosixPath(path), tmp_path / "back", deadline=soon())
    assert sha256(tmp_path / "back") == sha256(path)
    path.unlink()


def test_stalled_link_ends_an_operation_at_its_deadline(link: Link) -> None:
    transport = link.open()
    link.proxy.stall_after(0)
    with pytest.raises((DeadlineError, ChannelError)):
        transport.run(["true"], deadline=soon(1.0))
    link.proxy.heal()
    link.proxy.cut_now()
    assert link.open().run(["echo", "back"], deadline=soon()).stdout == b"back\n"


def test_followed_file_loses_nothing_when_the_link_is_cut_again_and_again(link: Link) -> None:
    path = PurePosixPath(link.home) / "socbench" / "events"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(b'{"seq": %d}\n' % number for number in range(200_000))
    Path(path).write_bytes(content)
    got, cuts = b"", 0
    while len(got) < len(content):
        transport = link.open()
        if cuts < 5:
            link.proxy.cut_after(400_000, "down")
        try:
            for chunk in transport.follow(path, len(got), stop=threading.Event()):
                got += chunk
                if len(got) >= len(content):
                    break
        except ChannelError:
            cuts += 1
        transport.close()
    assert cuts >= 2
    assert hashlib.sha256(got).hexdigest() == hashlib.sha256(content).hexdigest()


def test_stalled_follower_is_found_out_by_the_missing_heartbeat(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socbench.transports.far_shell.SILENCE_S", 1.5)
    transport = link.open()
    path = PurePosixPath(link.home) / "quiet"
    Path(path).write_bytes(b"x")
    followed = transport.follow(path, 0, stop=threading.Event())
    assert next(followed) == b"x"
    link.proxy.stall_after(0, "down")
    with pytest.raises(ChannelError):
        for _ in followed:
            pass
