"""Settings: frozen, from a TOML file; every default stands here and is shown, commented, in `configs/`.

Precedence: option > `RAKEFARM_*` variable > Rakefile > user file > `/etc/rakefarm/` > default.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from msgspec import Struct, field, structs

from rakefarm.market.bid import Coefficients
from rakefarm.market.needs import parse_size

DEFAULT_PORT = 6238


class ConfigError(Exception):
    """The configuration can't be used; the text names the file, the key and what is right."""


class Emulation(Struct, frozen=True):
    """A pretended machine, for experiments: what to say instead of what psutil says. 0 cores or speed: the real ones;
    negative busy cores: the real ones."""

    cores: int = 0
    speed: float = 0.0
    busy_cores: float = 0.0


class ServerSettings(Struct, frozen=True):
    """What a server runs with. Sizes in bytes, times in seconds; 0 slots or workers: as many as fit the machine."""

    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    slots: int = 0
    workers: int = 0
    shared: str = ""
    sandbox_directory: str = ""
    cache_directory: str = ""
    cache_size: int = 10 << 30
    lease_s: float = 0.25
    drain_s: float = 600.0
    licenses: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    verbose: bool = False
    quiet_hours: str = ""
    key_file: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    tls_authority: str = ""
    insecure: bool = False
    audit_log: str = ""
    proof_s: float = 5.0
    unproven: int = 64
    unproven_per_address: int = 8
    penalty_s: float = 60.0
    minimum_rate: int = 1 << 10
    idle_s: float = 3600.0
    unacknowledged_s: float = 30.0
    price: Coefficients = field(default_factory=Coefficients)
    emulate: Emulation = field(default_factory=Emulation)


class ClientSettings(Struct, frozen=True):
    """What a build runs with. Times in seconds, sizes in bytes; 0 jobs: as many as the farm has slots."""

    hosts: tuple[str, ...] = ()
    jobs: int = 0
    local_jobs: int = 0
    fallback: str = "next"
    connect_s: float = 3.0
    quote_s: float = 3.0
    attempts: int = 4
    policy: str = "plan"
    seed: int | None = None
    environment: tuple[str, ...] = ()
    ledger: bool = True
    ledger_size: int = 32 << 20
    ledger_hash: bool = False
    key_file: str = ""
    key_name: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    tls_authority: str = ""
    insecure: bool = False


Settings = TypeVar("Settings", ServerSettings, ClientSettings)


def load_settings(cls: type[Settings], name: str, path: str | None, environ: Mapping[str, str]) -> Settings:
    """Settings of `cls` from `path`, or else from the system's and the user's `name`, the user's winning.

    Raises ConfigError on a file that is missing (only when named), unreadable, not TOML or has an unknown key.
    """
    settings = cls()
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    found = [path] if path else [f"/etc/rakefarm/{name}", os.path.join(home, "rakefarm", name)]
    for candidate in found:
        if path is None and not os.path.isfile(candidate):
            continue
        settings = _apply(settings, _read(candidate), candidate)
    return settings


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _apply(settings: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise ConfigError(f"{where}: unknown key '{key}'; there are {known}")
        current = getattr(settings, key)
        if isinstance(current, Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: '{key}' is a table, write [{key}]")
            changes[key] = _apply(current, value, f"{where}: [{key}]")
        else:
            changes[key] = _convert(current, value, f"{where}: {key}")
    return structs.replace(settings, **changes)


def _convert(current: Any, value: Any, where: str) -> Any:
    """`value` in the type of the setting's default; sizes may be written as "10G"."""
    if isinstance(current, bool) or isinstance(value, bool):
        if isinstance(current, bool) and isinstance(value, bool):
            return value
    elif isinstance(current, int) and isinstance(value, str):
        size = parse_size(value)
        if size is not None:
            return size
    elif isinstance(current, int) and isinstance(value, int) and value >= 0:
        return value
    elif isinstance(current, float) and isinstance(value, int | float) and 0 <= value < math.inf:
        return float(value)
    elif isinstance(current, str) and isinstance(value, str):
        return value
    elif isinstance(current, tuple) and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    elif isinstance(current, Mapping) and isinstance(value, dict):
        if all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf for v in value.values()):
            return {**current, **{key: float(v) for key, v in value.items()}}
    expected = {
        "int": "a whole number or a size like 10G",
        "tuple": "a list of strings",
        "dict": "a table of numbers",
    }
    name = type(current).__name__
    raise ConfigError(f"{where}: {value!r} is not {expected.get(name, f'a {name}')}")
