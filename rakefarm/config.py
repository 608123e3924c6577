"""Settings: frozen, from a TOML file; every default stands here and is shown, commented, in `configs/`.

Precedence: option > `RAKEFARM_*` variable > Rakefile > user file > `/etc/rakefarm/` > default.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from msgspec import Meta, Struct, field, structs

from rakefarm.codes import Code
from rakefarm.hours import parse_hours
from rakefarm.levels import LEVELS, parse_uids
from rakefarm.market.bid import Coefficients
from rakefarm.market.needs import parse_licenses, parse_size
from rakefarm.words import is_program

DEFAULT_PORT = 6238
FALLBACKS = ("next", "local", "never")


class ConfigError(Exception):
    """The configuration can't be used; the text names the file, the key and what is right."""

    def __init__(self, text: str, code: Code = Code.CONFIGURATION) -> None:
        super().__init__(text)
        self.code = code


class Rule(Struct, frozen=True):
    """What a setting must be beside its type: whether a value is, and how to say it."""

    allows: Callable[[Any], bool]
    wanted: str


def _parses(parse: Callable[[Any], object]) -> Callable[[Any], bool]:
    def allows(value: Any) -> bool:
        try:
            parse(value)
        except ValueError:
            return False
        return True

    return allows


def _is_search_path(value: str) -> bool:
    return all(os.path.isabs(part) for part in value.split(":")) and "\0" not in value


Directory = Annotated[str, Rule(lambda value: not value or _is_search_path(value), "a whole path, from / on")]
SearchPath = Annotated[str, Rule(_is_search_path, "directories from / on, with : between them")]
Directories = Annotated[tuple[str, ...], Rule(lambda value: all(map(_is_search_path, value)), "whole paths, from / on")]
Names = Annotated[
    tuple[str, ...],
    Rule(lambda value: all(name and not {"=", "\0"} & set(name) for name in value), "names of variables"),
]
Wait = Annotated[float, Meta(ge=0.01, le=3600.0)]
"""Seconds; with none there would be no answer in time, ever."""
Cores = Meta(ge=0, le=4096)


class Emulation(Struct, frozen=True):
    """A pretended machine, for experiments: what to say instead of what psutil says. 0 cores: none of this; 0 speed: as
    learned. `load` is a file of lines "TIME CORES": from when on (seconds of the monotonic clock) others keep so many
    busy, instead of `busy_cores`; it is sampled every `sample_s` seconds (0: as a real machine is)."""

    cores: Annotated[int, Cores] = 0
    speed: Annotated[float, Rule(lambda value: value == 0 or 0.02 <= value <= 50.0, "0, or from 0.02 to 50")] = 0.0
    busy_cores: Annotated[float, Cores] = 0.0
    load: Directory = ""
    sample_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0


class Limits(Struct, frozen=True):
    """What one command may take. Times in seconds, sizes in bytes; 0: no limit, but for what is said otherwise.

    `memory` 0 is three quarters of the machine's; `box_size` 0 is half of the machine's memory for a box in memory.
    """

    time_s: float = 0.0
    cpu_s: float = 0.0
    memory: int = 0
    processes: int = 4096
    file_size: int = 16 << 30
    box_size: int = 0
    box_files: int = 1_000_000
    inputs: int = 50_000
    input_size: int = 0
    outputs: int = 50_000
    output_size: int = 16 << 30
    stdout_size: int = 64 << 20
    stderr_size: int = 64 << 20


class EngineSettings(Struct, frozen=True):
    """Where a server of the Remote Execution API is (grpc[s]://host[:port][/instance]; empty: none is used), and what
    lets us in there. `properties` are KEY=VALUE: of every action, or of this machine; with `compiler` they include the
    compilers' identities. `jobs` is how many actions of a build it may have at one time, `patience_s` for how long it
    may be away (seconds)."""

    url: str = ""
    token_file: str = ""
    tls_authority: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    properties: tuple[str, ...] = ()
    compiler: bool = True
    jobs: Annotated[int, Meta(ge=1, le=4096)] = 64
    patience_s: Wait = 120.0


class ServerSettings(Struct, frozen=True):
    """What a server runs with. Sizes in bytes, times in seconds; 0 slots or workers: as many as fit the machine."""

    address: str = "127.0.0.1"
    port: Annotated[int, Meta(le=65535)] = DEFAULT_PORT
    slots: Annotated[int, Cores] = 0
    workers: Annotated[int, Meta(le=8192)] = 0
    shared: Directories = ()
    isolation: Annotated[str, Rule(lambda value: value in ("auto", *LEVELS), f"auto, {', '.join(LEVELS)}")] = "auto"
    uids: Annotated[str, Rule(_parses(parse_uids), "like 60578-61183")] = "60578-61183"
    programs: Annotated[
        Mapping[str, str],
        Rule(lambda value: all(map(is_program, value.items())), 'NAME = "/absolute/path" each, without blanks'),
    ] = field(default_factory=dict)
    sandbox_directory: Directory = ""
    cache_directory: Directory = ""
    cache_size: int = 10 << 30
    lease_s: Annotated[float, Meta(ge=0.01, le=60.0)] = 0.25
    drain_s: Annotated[float, Meta(le=1e6)] = 600.0
    licenses: Annotated[tuple[str, ...], Rule(_parses(parse_licenses), "NAME or NAME=COUNT each, in quotes")] = ()
    environment: Names = ()
    path: SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    verbose: bool = False
    quiet_hours: Annotated[str, Rule(_parses(parse_hours), "like 22:00-06:30")] = ""
    limits: Limits = field(default_factory=Limits)
    bid: str = "finish"
    key_file: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    tls_authority: str = ""
    insecure: bool = False
    audit_log: str = ""
    proof_s: Annotated[float, Meta(ge=0.1, le=60.0)] = 5.0
    unproven: Annotated[int, Meta(ge=1, le=512)] = 64
    unproven_per_address: Annotated[int, Meta(ge=1, le=512)] = 8
    penalty_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 60.0
    minimum_rate: Annotated[int, Meta(ge=0)] = 1 << 10
    idle_s: Annotated[float, Meta(ge=1.0)] = 3600.0
    unacknowledged_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 30.0
    price: Coefficients = field(default_factory=Coefficients)
    emulate: Emulation = field(default_factory=Emulation)
    engine: EngineSettings = field(default_factory=EngineSettings)

    @property
    def processes(self) -> int:
        """Those that run commands: the workers, and one for an engine's leases."""
        return self.workers + bool(self.engine.url)


class ClientSettings(Struct, frozen=True):
    """What a build runs with. Times in seconds, sizes in bytes; 0 jobs: as many as the farm has slots; 0 local slots:
    as many as this machine has cores."""

    hosts: tuple[str, ...] = ()
    jobs: Annotated[int, Cores] = 0
    local_jobs: Annotated[int, Cores] = 0
    local_slots: Annotated[int, Cores] = 0
    fallback: Annotated[str, Rule(FALLBACKS.__contains__, f"one of {', '.join(FALLBACKS)}")] = "next"
    connect_s: Wait = 3.0
    quote_s: Wait = 3.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 4
    require_isolation: Annotated[str, Rule(lambda value: value in LEVELS, ", ".join(LEVELS))] = "none"
    minimum_rate: Annotated[int, Meta(ge=0)] = 1 << 10
    output_size: Annotated[int, Meta(ge=0)] = 16 << 30
    policy: str = "plan"
    seed: int | None = None
    environment: Names = ()
    ledger: bool = True
    ledger_size: Annotated[int, Rule(lambda value: not value or value >= 65536, "0, or 64K and more")] = 32 << 20
    ledger_hash: bool = False
    result_cache: Directory = ""
    result_cache_size: int = 5 << 30
    ship_toolchain: bool = False
    fresh: bool = False
    key_file: str = ""
    key_name: str = ""
    tls_certificate: str = ""
    tls_private_key: str = ""
    tls_authority: str = ""
    insecure: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)


Settings = TypeVar("Settings", ServerSettings, ClientSettings)


def says_yes(name: str, text: str) -> bool:
    """What a variable that is 1 or 0 says. Raises ConfigError."""
    if text not in ("0", "1"):
        raise ConfigError(f"{name}={text}: write 1 or 0")
    return text == "1"


def load_settings(cls: type[Settings], name: str, path: str | None, environ: Mapping[str, str]) -> Settings:
    """Settings of `cls` from `path`, or else from the system's and the user's `name`, the user's winning.

    Raises ConfigError on a file that is missing (only when named), unreadable, not TOML, has an unknown key or a value
    that can't be meant.
    """
    settings = cls()
    for candidate in _files(name, path, environ):
        settings = _apply(settings, _read(candidate), candidate)
    return settings


def engine_settings(
    settings: EngineSettings, url: str | None, environ: Mapping[str, str], hosts_named: bool = False
) -> EngineSettings:
    """Of a configuration file, with what an option or a variable says of them. Where one names hosts instead
    (`hosts_named`), an engine of the file's is not meant."""
    token_file = environ.get("RAKEFARM_ENGINE_TOKEN_FILE") or settings.token_file
    return structs.replace(settings, url=url or ("" if hosts_named else settings.url), token_file=token_file)


def load_origins(cls: type[Settings], name: str, path: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Which file each setting (its dotted name) has its value from; those that no file sets are not there. Raises
    ConfigError, as `load_settings`."""
    load_settings(cls, name, path, environ)
    origins: dict[str, str] = {}

    def note(values: Mapping[str, Any], prefix: str, where: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                note(value, f"{prefix}{key}.", where)
            else:
                origins[prefix + key] = where

    for candidate in _files(name, path, environ):
        note(_read(candidate), "", candidate)
    return origins


def _files(name: str, path: str | None, environ: Mapping[str, str]) -> list[str]:
    """What is read, in the order in which the later wins."""
    if path:
        return [path]
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    return [each for each in (f"/etc/rakefarm/{name}", os.path.join(home, "rakefarm", name)) if os.path.isfile(each)]


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
    hints = get_type_hints(type(settings), include_extras=True)
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
            for rule in getattr(hints[key], "__metadata__", ()):
                _check(changes[key], rule, value, f"{where}: {key}")
    return structs.replace(settings, **changes)


def _check(converted: Any, rule: Any, value: Any, where: str) -> None:
    match rule:
        case Rule(allows, wanted):
            if not allows(converted):
                raise ConfigError(f"{where}: {value!r}: write {wanted}")
        case Meta(ge=low, le=high):
            numbers = converted.values() if isinstance(converted, Mapping) else [converted]
            low, high = low or 0, math.inf if high is None else high
            if not all(low <= number <= high for number in numbers):
                raise ConfigError(f"{where}: {value!r}: write a number from {low:g} to {high:g}")


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
    elif current == {} and isinstance(value, dict):  # names of the user's own
        if all(isinstance(v, str) for v in value.values()):
            return value
    elif isinstance(current, Mapping) and isinstance(value, dict):
        if unknown := sorted(value.keys() - current.keys()):
            raise ConfigError(f"{where}: unknown key '{unknown[0]}'; there are {', '.join(current)}")
        if all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf for v in value.values()):
            return {**current, **{key: float(v) for key, v in value.items()}}
    expected = {
        "int": "a whole number or a size like 10G",
        "tuple": "a list of strings",
        "dict": "a table of strings" if current == {} else "a table of numbers",
    }
    name = type(current).__name__
    raise ConfigError(f"{where}: {value!r} is not {expected.get(name, f'a {name}')}")
