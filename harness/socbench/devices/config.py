"""The user's list of devices: ``devices.toml`` in the configuration folder. Read, checked, never written.

```toml
[board]                       # the name that -d takes
address = "ssh:pi@board.local:2222"
identity_file = "~/.ssh/board"     # ssh only, all optional: what is not here comes from ~/.ssh/config
proxy_jump = "gateway"
known_hosts = "~/.ssh/known_hosts"
root = "/mnt/big/socbench"         # where socbench's one folder on the device lies

[phone]
address = "adb:R5CT1234567"
compression = "zstd"               # adb only: none (default) or zstd
```
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from socbench.errors import UsageError

KINDS = ("local", "ssh", "adb", "adb-direct", "fake")
COMPRESSIONS = ("none", "zstd")
_OPTIONS_OF_KIND = {
    "ssh": {"identity_file", "proxy_jump", "known_hosts", "root"},
    "adb": {"compression", "root"},
    "adb-direct": {"root"},
    "local": {"root"},
    "fake": set[str](),
}


@dataclass(frozen=True)
class ConfiguredDevice:
    """One table of ``devices.toml``; what is None is left to the transport's own defaults."""

    name: str
    address: str
    identity_file: str | None = None
    proxy_jump: str | None = None
    known_hosts: str | None = None
    root: str | None = None
    compression: str | None = None


@dataclass(frozen=True)
class DevicesConfig:
    """What ``devices.toml`` says; ``path`` is where it lies or would lie."""

    path: Path
    devices: Mapping[str, ConfiguredDevice] = field(default_factory=dict)

    def find(self, name_or_address: str) -> ConfiguredDevice:
        """Return the device of that name, or with that address; else the address as it is, without options."""
        if name_or_address in self.devices:
            return self.devices[name_or_address]
        same = (device for device in self.devices.values() if device.address == name_or_address)
        return next(same, ConfiguredDevice(name_or_address, name_or_address))


def config_path() -> Path:
    """Return where ``devices.toml`` lies: in ``SOCBENCH_CONFIG``, else in the platform's configuration folder."""
    named = os.environ.get("SOCBENCH_CONFIG")
    if named:
        return Path(named).expanduser() / "devices.toml"
    import platformdirs

    return Path(platformdirs.user_config_dir("socbench", appauthor=False)) / "devices.toml"


def load_config(path: Path | None = None) -> DevicesConfig:
    """Read and check ``devices.toml``; no file is an empty one.

    Raises:
        UsageError: the file cannot be read, is no TOML, or holds something that is not understood; names the entry.
    """
    path = path or config_path()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return DevicesConfig(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): make it readable, or name another folder in SOCBENCH_CONFIG"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    return DevicesConfig(path, {name: _device(path, name, table) for name, table in document.items()})


def _device(path: Path, name: str, table: Any) -> ConfiguredDevice:
    where = f"{path}, device {name!r}"
    if not isinstance(table, dict):
        raise UsageError(
            f'{where}: a device is a table with an address; write [{name}] and below it address = "ssh:user@board"'
        )
    known = [f.name for f in fields(ConfiguredDevice) if f.name != "name"]
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: {key!r} is not a setting of a device; known are {', '.join(known)}")
        if not isinstance(value, str) or not value:
            raise UsageError(f"{where}: {key} must be text, it is {value!r}")
    if "address" not in table:
        raise UsageError(f'{where}: there is no address; add address = "ssh:user@board" or "adb:SERIAL"')
    kind, _, rest = table["address"].partition(":")
    if kind not in KINDS or (kind != "local" and not rest):
        raise UsageError(
            f"{where}: address {table['address']!r} is none of local, ssh:user@board, adb:SERIAL, adb-direct:HOST "
            "and fake:NAME"
        )
    foreign = sorted(set(table) - {"address"} - _OPTIONS_OF_KIND[kind])
    if foreign:
        raise UsageError(f"{where}: {foreign[0]} means nothing for {kind} devices; remove it")
    if table.get("compression", "none") not in COMPRESSIONS:
        raise UsageError(f"{where}: compression {table['compression']!r} is none of {', '.join(COMPRESSIONS)}")
    if "root" in table and not table["root"].startswith("/"):
        raise UsageError(f"{where}: root must be an absolute path on the device, it is {table['root']!r}")
    return ConfiguredDevice(name, **table)
