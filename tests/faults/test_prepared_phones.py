"""``--prepare``: a phone's settings are changed for a run and come back, whatever ends it (fake Android commands)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import fake_settings
import pytest
from fake_settings import BEFORE, DURING
from session_home import Heard, Home, end, processes_of, wait_until
from socbench.errors import FailedError, UsageError

SLOW = {"clock": "real", "latency_ns": 5_000_000}


@pytest.fixture(autouse=True)
def nothing_is_left_running(home: Home):
    """What watches over the settings on the phone looks once a second here, and then ends too."""
    yield
    wait_until(lambda: processes_of(home) == [])


@pytest.fixture
def phone(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a fake phone whose commands are first on the PATH of this machine."""
    state = home.path / "phone"
    fake_settings.install(home.path / "bin", state)
    home.environment["PATH"] = f"{home.path / 'bin'}:{os.environ['PATH']}"
    home.environment["SOCBENCH_ORPHAN_AFTER_S"] = "2"
    for name in ("PATH", "SOCBENCH_ORPHAN_AFTER_S"):
        monkeypatch.setenv(name, home.environment[name])
    return state


def kept(home: Home) -> Path:
    return home.path / "fakes" / "one" / "settings"


def begin(home: Home, phone: Path):
    """Start a slow run on the phone and wait until it measures with changed settings."""
    options = ("-d", "fake:one", "--prepare", "--repeat", "9", "--min-time", "1")
    process = home.start(home.null("slow", **SLOW), options=options)
    wait_until(lambda: (home.store / "sessions").exists() and any((home.store / "sessions").iterdir()))
    wait_until(lambda: '"phase":"measure"' in home.journal_text(home.session()))
    assert fake_settings.now(phone) == DURING
    return process


def test_settings_are_changed_for_the_run_recorded_and_put_back(home: Home, phone: Path) -> None:
    seen = []

    class Watching(Heard):
        def trial_ended(self, *args):
            seen.append(fake_settings.now(phone))

    result = home.run(home.null(), devices=("fake:one",), prepare_device=True, heard=Watching())
    assert seen == [DURING]
    assert fake_settings.now(phone) == BEFORE, "and what was never set is deleted again"
    assert not kept(home).exists()
    recorded = home.document(result.session)["device_settings"]["fake:one"]
    named = {name.partition(".")[2]: value for name, value in BEFORE.items() if "." in name}
    assert recorded["before"] == recorded["after"] == {
        **named, "screen": "off", "stay_on_while_plugged_in": "null", "power": "USB", "level": "55",
    }  # fmt: skip
    assert (recorded["during"]["airplane_mode_on"], recorded["during"]["screen"]) == ("1", "on")


def test_without_the_option_nothing_is_changed(home: Home, phone: Path) -> None:
    result = home.run(home.null(), devices=("fake:one",))
    assert fake_settings.now(phone) == BEFORE
    assert "device_settings" not in home.document(result.session)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_host_puts_them_back_before_it_ends(home: Home, phone: Path, number: signal.Signals) -> None:
    process = begin(home, phone)
    assert end(process, number)[0] == 130
    assert fake_settings.now(phone) == BEFORE
    wait_until(lambda: not kept(home).exists())


def test_the_phone_itself_puts_them_back_when_the_host_was_killed(home: Home, phone: Path) -> None:
    process = begin(home, phone)
    end(process, signal.SIGKILL)
    wait_until(lambda: not kept(home).exists(), 60)
    assert fake_settings.now(phone) == BEFORE


def test_the_phone_itself_puts_them_back_when_it_cannot_be_reached_at_the_end(
    home: Home, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from socbench.devices import settings

    heard = Heard()
    monkeypatch.setattr(settings, "restore", _out_of_reach)
    home.run(home.null(), devices=("fake:one",), prepare_device=True, heard=heard)
    assert any("puts its settings back by itself" in said for said in heard.messages)
    wait_until(lambda: not kept(home).exists(), 60)
    assert fake_settings.now(phone) == BEFORE


def _out_of_reach(*args, **kwargs):
    from socbench.errors import ChannelError

    raise ChannelError("the cable is out")


def test_a_detached_run_keeps_them_until_it_is_done(home: Home, phone: Path) -> None:
    result = home.run(
        home.null("slow", **SLOW), devices=("fake:one",), prepare_device=True, detach=True, repeat=1, min_time_s=4.0
    )
    assert result.status == "detached"
    assert fake_settings.now(phone) == DURING
    assert home.collect(result.session).status == "complete"
    wait_until(lambda: not kept(home).exists(), 60)
    assert fake_settings.now(phone) == BEFORE


def test_what_a_phone_that_was_started_anew_has_left_is_put_back_by_the_next_session(home: Home, phone: Path) -> None:
    kept(home).parent.mkdir(parents=True)
    before = {name.partition(".")[2] or name: value for name, value in BEFORE.items()}
    lines = [f"{name} {'off' if name == 'screen' else value}" for name, value in before.items()]
    kept(home).write_text("\n".join(["session gone", *lines, "stay_on_while_plugged_in null", ""]))
    for name, value in DURING.items():
        (phone / name).write_text(value)
    heard = Heard()
    home.run(home.null(), devices=("fake:one",), heard=heard)
    assert "fake:one: the settings that an earlier session had changed were put back" in heard.messages
    assert fake_settings.now(phone) == BEFORE
    assert not kept(home).exists()


def test_a_setting_that_does_not_come_back_is_named_and_kept_on_record(home: Home, phone: Path) -> None:
    heard = Heard()

    class Sticking(Heard):
        def trial_ended(self, *args):
            (phone / "stubborn.screen_brightness").touch()

        def message(self, text):
            heard.message(text)

    home.run(home.null(), devices=("fake:one",), prepare_device=True, heard=Sticking())
    said = "fake:one: screen_brightness could not be put back: look at the phone's settings"
    assert said in heard.messages
    assert "screen_brightness 180" in kept(home).read_text()
    (phone / "stubborn.screen_brightness").unlink()
    wait_until(lambda: not kept(home).exists(), 60)
    assert fake_settings.now(phone) == BEFORE


def test_what_is_no_phone_is_refused_before_anything_runs(home: Home) -> None:
    with pytest.raises(UsageError, match="Android phones, which local is not"):
        home.run(home.null(), prepare_device=True)
    with pytest.raises(FailedError, match="Android phones, which fake:one is not"):
        home.run(home.null(), devices=("fake:one",), prepare_device=True)


def test_doctor_shows_what_a_phones_settings_are(home: Home, phone: Path, capsys, monkeypatch) -> None:
    from socbench.devices.config import DevicesConfig
    from socbench.session import prepared
    from socbench.transports.fake import FakeTransport

    monkeypatch.setattr(prepared, "load_config", lambda: DevicesConfig(home.path))
    monkeypatch.setattr(prepared, "open_device", lambda address, config: FakeTransport("one"))
    rows = prepared.settings_of(["adb:SERIAL", "local"])
    assert json.loads(json.dumps(rows))[1] == {
        "device": "adb:SERIAL", "setting": "automatic brightness", "value": "1", "prepared": "0",
    }  # fmt: skip
    from socbench.render.terminal import make_console, print_settings

    print_settings(make_console(), rows)
    shown = capsys.readouterr().out
    assert "airplane mode" in shown
    assert "not set" in shown
    assert fake_settings.now(phone) == BEFORE
