"""What the local transport must do although its own threads come late."""

from __future__ import annotations

import threading

import pytest
from socbench.transports import local
from socbench.transports.base import Deadline


@pytest.mark.parametrize("limit", [2_000, 10])
def test_what_a_command_wrote_is_all_there_when_the_reading_thread_got_no_time(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    read, time_at_last = local._Output._read, threading.Event()

    def read_late(self: local._Output) -> None:
        time_at_last.wait()
        read(self)

    monkeypatch.setattr(local._Output, "_read", read_late)
    monkeypatch.setattr(local, "_CHUNK_BYTES", 300)
    command = ["sh", "-c", "printf %01000d 7; printf %01000d 8 >&2"]
    done = local.LocalTransport().run(command, deadline=Deadline.after(60, "a command"), limit_bytes=limit)
    time_at_last.set()
    assert (done.stdout, done.stderr) == ((b"0" * 999 + b"7")[:limit], (b"0" * 999 + b"8")[:limit])
    assert done.truncated == (limit < 1_000)
