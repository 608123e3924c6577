"""What the commands that talk to a farm have in common: its hosts, keys and settings."""

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from rakefarm.config import (
    DEFAULT_PORT,
    FALLBACKS,
    ClientSettings,
    ConfigError,
    EngineSettings,
    engine_settings,
    load_settings,
    says_yes,
)
from rakefarm.hosts import Host, HostSyntaxError, parse_host_list, with_default_port
from rakefarm.levels import LEVELS

if TYPE_CHECKING:
    from rakefarm.client.rakefile_model import Rakefile

MAX_JOBS = 4096


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Who may be talked to, and with which key."""
    parser.add_argument(
        "--key-file", metavar="FILE", help="the farm's key (default: $XDG_CONFIG_HOME/rakefarm/keys if it is there)"
    )
    parser.add_argument("--insecure", action="store_true", help="talk to hosts on the network without any proof")


def add_farm_options(parser: argparse.ArgumentParser) -> None:
    """Of a command that looks at hosts and runs no build."""
    parser.add_argument("host", nargs="*", metavar="HOST", help="a host (default: the Rakefile's or client.toml's)")
    parser.add_argument("--hosts", metavar="LIST", help="the same, as a list: name[:port],…; local is this machine")
    add_key_options(parser)
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's client.toml")


def add_rakefile_options(parser: argparse.ArgumentParser) -> None:
    """Of a command that reads a Rakefile and runs nothing of it."""
    parser.add_argument("-f", "--file", metavar="FILE", default="Rakefile", help="the Rakefile (default: Rakefile)")
    parser.add_argument("-C", "--directory", metavar="DIR", help="change to DIR first")


def the_rakefile(options: argparse.Namespace) -> "Rakefile":
    """Change to the directory, and read. Raises ConfigError."""
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError

    if options.directory is not None:
        try:
            os.chdir(options.directory)
        except OSError as error:
            raise ConfigError(f"-C {options.directory}: {error.strerror}") from error
    try:
        return read_rakefile(options.file)
    except RakefileError as error:
        raise ConfigError(str(error), error.code) from error


def farm_settings(options: argparse.Namespace, environ: Mapping[str, str]) -> tuple[ClientSettings, tuple[Host, ...]]:
    """Settings and at least one host: an option's, a variable's, the Rakefile's here, or the file's. Raises
    ConfigError."""
    from rakefarm.client.rakefile import read_rakefile
    from rakefarm.client.rakefile_model import RakefileError

    if options.host:
        options.hosts = ",".join([*options.host, *([] if options.hosts is None else [options.hosts])])
    options.jobs = options.fallback = options.policy = options.seed = options.require_isolation = None
    settings = client_settings(options, environ)
    try:
        named: tuple[Host, ...] = ()
        port = DEFAULT_PORT
        if options.hosts is None and os.path.isfile("Rakefile"):
            rakefile = read_rakefile("Rakefile")
            named, port = rakefile.hosts, rakefile.port
        hosts = choose_hosts(settings, named, port)
    except RakefileError as error:
        raise ConfigError(str(error), error.code) from error
    except HostSyntaxError as error:
        raise ConfigError(f"hosts: {error}") from error
    check_key_file(options, environ)
    if not hosts:
        raise ConfigError("no host is named: name one, or use --hosts, RAKEFARM_HOSTS, a Rakefile or client.toml")
    return settings, hosts


def client_settings(options: argparse.Namespace, environ: Mapping[str, str]) -> ClientSettings:
    """Option before variable before file. Raises ConfigError."""
    settings = load_settings(ClientSettings, "client.toml", options.config, environ)
    changes: dict[str, object] = {}
    jobs = options.jobs or environ.get("RAKEFARM_JOBS")
    if jobs is not None:
        changes["jobs"] = _whole_number("-j", jobs)
    local_slots = environ.get("RAKEFARM_LOCAL_SLOTS")
    if local_slots is not None:
        changes["local_slots"] = _whole_number("RAKEFARM_LOCAL_SLOTS", local_slots)
    for name, choices in (("fallback", FALLBACKS), ("require_isolation", tuple(LEVELS))):
        changes[name] = getattr(options, name) or environ.get(f"RAKEFARM_{name.upper()}") or getattr(settings, name)
        if changes[name] not in choices:
            raise ConfigError(f"{name.replace('_', '-')} {changes[name]!r}: choose one of {', '.join(choices)}")
    policy = options.policy or environ.get("RAKEFARM_POLICY")
    if policy:
        changes["policy"] = policy
    if options.seed is not None:
        if not (options.seed.isascii() and options.seed.isdecimal() and len(options.seed) <= 18):
            raise ConfigError(f"--seed {options.seed}: not a whole number")
        changes["seed"] = int(options.seed)
    if key_file := options.key_file or environ.get("RAKEFARM_KEY_FILE"):
        changes["key_file"] = key_file
    for name in ("insecure", "fresh"):
        if getattr(options, name, False):
            changes[name] = True
    if environ.get("RAKEFARM_RESULT_CACHE") or environ.get("RAKEFARM_RESULT_CACHE_SIZE"):
        from rakefarm.result_cache import place_of

        changes["result_cache"], changes["result_cache_size"] = place_of(settings, environ)
    changes["engine"] = _engine(options, settings, environ)
    if ships := environ.get("RAKEFARM_SHIP_TOOLCHAIN"):
        changes["ship_toolchain"] = says_yes("RAKEFARM_SHIP_TOOLCHAIN", ships)
    given = _named_hosts(options, environ)
    if given:
        changes["hosts"] = (given,)
    elif settings.hosts:
        # The Rakefile's own hosts come before the file's.
        changes["hosts"] = ("", *settings.hosts)
    return structs.replace(settings, **changes)


def _engine(options: argparse.Namespace, settings: ClientSettings, environ: Mapping[str, str]) -> EngineSettings:
    """Option before variable before file, and beside each of these an engine before hosts."""
    url = getattr(options, "engine", None)
    if not url and options.hosts is None:
        url = environ.get("RAKEFARM_ENGINE")
    named = options.hosts is not None or bool(environ.get("RAKEFARM_HOSTS"))
    return engine_settings(settings.engine, url, environ, named)


def _named_hosts(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The list of an option or a variable; an empty variable names nothing, as if it weren't there."""
    name, text = "--hosts", options.hosts
    if text is None:
        name, text = "RAKEFARM_HOSTS", environ.get("RAKEFARM_HOSTS", "")
        if not text:
            return ""
    try:
        if parse_host_list(text):
            return str(text)
    except HostSyntaxError as error:
        raise ConfigError(f"{name}: {error}") from error
    raise ConfigError(f"{name} {text!r} names no host: write one, for example lab1 or lab1:6238, or leave it out")


def check_key_file(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """That the key file which the command line names can be read, also where no host needs it. Raises ConfigError."""
    if options.key_file:
        from rakefarm.security import keys

        path = keys.find_path(options.key_file, environ)
        if path:  # else it is "none"
            keys.read_keys(path)


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= MAX_JOBS):
        raise ConfigError(f"{name} {text}: not a whole number from 1 to {MAX_JOBS}")
    return int(text)


def choose_hosts(settings: ClientSettings, named: tuple[Host, ...], port: int) -> tuple[Host, ...]:
    """Option or variable before the Rakefile before the configuration. Raises HostSyntaxError."""
    overriding = settings.hosts[:1] != ("",) and settings.hosts
    if not overriding and named:
        return named
    listed = parse_host_list("\n".join(text for text in settings.hosts if text))
    return tuple(with_default_port(host, port) for host in listed)
