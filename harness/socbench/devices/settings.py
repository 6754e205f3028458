"""Settings of an Android phone that change what is measured: read, changed on wish, always put back.

What they were is written on the phone before anything is changed, and a process on the phone itself puts them back
once nobody renews the lease and no job of the session runs there, whatever became of the cable and the host. Settings
outlive a restart of the phone and that process does not: then the next session that opens the phone puts them back. All
of it is what a shell without root may do: ``settings``, ``cmd``, ``input``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from socbench.errors import FailedError
from socbench.transports.base import Deadline, Transport

QUIET_S: Final = 120
"""So long after the last sign of life of host and job the phone puts its settings back by itself."""


@dataclass(frozen=True)
class Setting:
    """One setting: where Android keeps it, what a run wants it to be (``None``: only read), and what that means."""

    name: str
    title: str
    wanted: str | None


SETTINGS: Final = (
    Setting("screen", "screen", "on"),
    Setting("screen_brightness_mode", "automatic brightness", "0"),
    Setting("screen_brightness", "brightness (of 255)", "64"),
    Setting("screen_off_timeout", "screen goes off after (ms)", "2147483647"),
    Setting("stay_on_while_plugged_in", "stay awake while charging", "15"),
    Setting("low_power", "battery saver", "0"),
    Setting("airplane_mode_on", "airplane mode", "1"),
    Setting("power", "power from", None),
    Setting("level", "battery (%)", None),
)
"""In the order in which they are set; airplane mode is left alone where the phone is reached over the network."""

_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
_SCRIPT: Final = r"""
root=$1; action=$2; session=$3; quiet_s=$4; wanted=$5
state=$root/settings; lease=$root/lease

space() { case $1 in screen_*) echo system;; *) echo global;; esac; }
now() {
  case $1 in
    screen)
      found=$(dumpsys power 2>/dev/null </dev/null | sed -n -E 's/.*mWakefulness=([A-Za-z]*).*/\1/p' | head -n 1)
      case $found in Awake) echo on;; '') echo null;; *) echo off;; esac;;
    *)
      found=$(settings get "$(space "$1")" "$1" 2>/dev/null </dev/null | head -n 1 | tr -d '\r')
      echo "${found:-null}";;
  esac
}
put() {
  case $1:$2 in
    screen:on) input keyevent 224;;
    screen:off) input keyevent 223;;
    screen:*) ;;
    airplane_mode_on:1) cmd connectivity airplane-mode enable;;
    airplane_mode_on:*) cmd connectivity airplane-mode disable;;
    low_power:1) cmd power set-mode 1;;
    low_power:*) cmd power set-mode 0;;
    *:null) settings delete "$(space "$1")" "$1";;
    *) settings put "$(space "$1")" "$1" "$2";;
  esac >/dev/null 2>&1 </dev/null
}
same() { [ "$1" = "$2" ] || { [ "$1" = null ] && [ "$2" = 0 ]; } || { [ "$1" = 0 ] && [ "$2" = null ]; }; }
tell() {
  for name in screen screen_brightness_mode screen_brightness screen_off_timeout stay_on_while_plugged_in \
      low_power airplane_mode_on; do echo "$name $(now $name)"; done
  dumpsys battery 2>/dev/null </dev/null |
    sed -n -E 's/^ *(AC|USB|Wireless|Dock) powered: true.*/power \1/p; s/^ *level: ([0-9]+).*/level \1/p'
}
restore() {
  [ -f "$state" ] || return 0
  bad=
  while read -r name value; do
    case $name in session|'') continue;; esac
    same "$(now "$name")" "$value" || put "$name" "$value"
    same "$(now "$name")" "$value" || bad="$bad $name"
  done < "$state"
  [ -z "$bad" ] && rm -f "$state" && return 0
  echo "not put back:$bad"
  return 5
}
mine() { [ "$(head -n 1 "$state" 2>/dev/null)" = "session $session" ]; }
works() {
  for job in "$root/sessions/$session" "$root/sessions/$session".*; do
    [ -f "$job/pid" ] || continue
    tail -c 400 "$job/events.jsonl" 2>/dev/null | grep -q '"type":"end"' && continue
    kill -0 "$(head -c 20 "$job/pid")" 2>/dev/null && return 0
  done
  return 1
}

command -v settings >/dev/null && command -v dumpsys >/dev/null || exit 4
case $action in
  read) tell;;
  left) [ -f "$state" ] && ! mine && echo left; exit 0;;
  keep)
    mkdir -p "$root" || exit 9  # what an earlier session left changed keeps its own first values
    { echo "session $session"
      if [ -f "$state" ]; then grep -v '^session ' "$state"
      else for pair in $wanted; do echo "${pair%%=*} $(now "${pair%%=*}")"; done; fi
    } > "$state.new" && mv -f "$state.new" "$state" || exit 9;;
  change)
    for pair in $wanted; do same "$(now "${pair%%=*}")" "${pair#*=}" || put "${pair%%=*}" "${pair#*=}"; done
    tell;;
  restore) restore || exit 5; tell;;
  watch)
    quiet=0; seen=; step=$((quiet_s/8)); [ $step -lt 1 ] && step=1; [ $step -gt 15 ] && step=15
    while mine; do  # while the lease is renewed this is one stat every few seconds: it must not disturb
      renewed=$(stat -c %Y "$lease" 2>/dev/null)
      if [ "$renewed" != "$seen" ] || works; then seen=$renewed; quiet=0; else quiet=$((quiet+step)); fi
      [ $quiet -ge "$quiet_s" ] && { restore; quiet=0; }
      sleep $step
    done;;
esac
"""


def read_settings(transport: Transport, *, deadline: Deadline) -> dict[str, str] | None:
    """Return a phone's settings by name (``null`` where Android has none), ``None`` for what is no Android device."""
    done = transport.run(_command(transport.root, "read"), deadline=deadline)
    return None if done.exit_code else _parse(done.stdout)


def left_behind(transport: Transport, session: str, *, deadline: Deadline) -> bool:
    """Say whether another session's settings were not put back yet."""
    return transport.run(_command(transport.root, "left", session), deadline=deadline).stdout.strip() == b"left"


def prepare(transport: Transport, session: str, *, network: bool, quiet_s: int, deadline: Deadline) -> dict[str, str]:
    """Change the settings and return what they are then. Before that, the phone has written down what they were and
    runs what puts them back ``quiet_s`` after the last sign of life.

    With ``network`` airplane mode is left alone: it would cut the connection.
    Raises FailedError when the device is no Android device or what the settings were can't be written there.
    """
    left_alone = {"airplane_mode_on"} if network else set()
    wanted = {one.name: one.wanted for one in SETTINGS if one.wanted is not None and one.name not in left_alone}
    pairs = " ".join(f"{name}={value}" for name, value in wanted.items())
    done = transport.run(_command(transport.root, "keep", session, wanted=pairs), deadline=deadline)
    if done.exit_code == 4:
        raise FailedError("--prepare is for Android phones: this device has no `settings` command, leave it away")
    if done.exit_code:
        said = done.stderr.decode("utf-8", "replace").strip()[:300]
        raise FailedError(f"what the settings were can't be kept on the device, so nothing was changed: {said}")
    watcher = _command(transport.root, "watch", session, quiet_s=quiet_s)
    transport.spawn(watcher, log=transport.root / "settings.log", deadline=deadline)
    return _parse(transport.run(_command(transport.root, "change", session, wanted=pairs), deadline=deadline).stdout)


def restore(transport: Transport, *, deadline: Deadline) -> dict[str, str]:
    """Put the settings back and return what they are then. FailedError names those that did not come back."""
    done = transport.run(_command(transport.root, "restore"), deadline=deadline)
    said = done.stdout.decode("utf-8", "replace")
    if done.exit_code:
        names = re.findall(r"^not put back:([ a-z_]{1,300})$", said, re.M)
        listed = ", ".join(names[0].split()) if names else "settings"
        raise FailedError(f"{listed} could not be put back: look at the phone's settings")
    return _parse(done.stdout)


def describe(settings: Mapping[str, str]) -> list[tuple[str, str, str | None]]:
    """Return title, value and what ``--prepare`` would make of it, for each setting that the phone told."""
    return [(one.title, settings[one.name], one.wanted) for one in SETTINGS if one.name in settings]


def _command(
    root: PurePosixPath, action: str, session: str = "", *, quiet_s: int = QUIET_S, wanted: str = ""
) -> list[str]:
    return ["sh", "-c", _SCRIPT, "sh", str(root), action, session, str(quiet_s), wanted]


def _parse(output: bytes) -> dict[str, str]:
    """Return the settings that a phone printed; what is none of them, or no plain value, is passed over."""
    known = {one.name for one in SETTINGS}
    lines = (line.split(" ", 1) for line in output.decode("utf-8", "replace").splitlines()[:100])
    return {line[0]: line[1] for line in lines if len(line) == 2 and line[0] in known and _VALUE.fullmatch(line[1])}
