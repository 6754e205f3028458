"""Fake Android commands (``settings``, ``cmd``, ``input``, ``dumpsys``) that keep their state in files of a folder."""

from __future__ import annotations

from pathlib import Path

BEFORE = {
    "system.screen_brightness_mode": "1",
    "system.screen_brightness": "180",
    "system.screen_off_timeout": "60000",
    "global.low_power": "1",
    "global.airplane_mode_on": "0",
    "screen": "Asleep",
}
"""``stay_on_while_plugged_in`` was never set."""
DURING = {
    "system.screen_brightness_mode": "0",
    "system.screen_brightness": "64",
    "system.screen_off_timeout": "2147483647",
    "global.low_power": "0",
    "global.airplane_mode_on": "1",
    "global.stay_on_while_plugged_in": "15",
    "screen": "Awake",
}
_SETTINGS = """
case $1 in
  get) if [ -f "$F/$2.$3" ]; then cat "$F/$2.$3"; else echo null; fi;;
  put) [ -f "$F/stubborn.$3" ] || echo "$4" > "$F/$2.$3";;
  delete) rm -f "$F/$2.$3"; echo "Deleted 1 rows";;
esac"""
_CMD = """
case "$*" in
  "connectivity airplane-mode enable") echo 1 > "$F/global.airplane_mode_on";;
  "connectivity airplane-mode disable") echo 0 > "$F/global.airplane_mode_on";;
  "power set-mode 0") echo 0 > "$F/global.low_power";;
  "power set-mode 1") echo 1 > "$F/global.low_power";;
  *) exit 20;;
esac"""
_INPUT = """
case "$*" in "keyevent 224") echo Awake > "$F/screen";; "keyevent 223") echo Asleep > "$F/screen";; esac"""
_DUMPSYS = """
[ -f "/system/etc/dumpsys-$1" ] && exec cat "/system/etc/dumpsys-$1"
case $1 in
  power) echo "POWER MANAGER (dumpsys power)"; echo "  mWakefulness=$(cat "$F/screen")";;
  battery) printf '  AC powered: false\\n  USB powered: true\\n  level: 55\\n';;
  *) exit 1;;
esac"""


def install(bin_folder: Path, state: Path, *, seen_as: str | None = None, shell: str = "/bin/sh") -> None:
    """Put the fake commands into ``bin_folder``; their state is in ``state``, which they call ``seen_as``."""
    state.mkdir(parents=True)
    bin_folder.mkdir(exist_ok=True)
    for name, value in BEFORE.items():
        (state / name).write_text(f"{value}\n")
    for name, body in (("settings", _SETTINGS), ("cmd", _CMD), ("input", _INPUT), ("dumpsys", _DUMPSYS)):
        program = bin_folder / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!{shell}\nF={seen_as or state}{body}\n")
        program.chmod(0o755)


def now(state: Path) -> dict[str, str]:
    """Return what the fake phone's settings are; files of another kind are passed over."""
    return {path.name: path.read_text().strip() for path in state.iterdir() if not path.name.startswith("stubborn")}
