"""What the commands that talk to a farm have in common: its hosts, keys and settings."""

import argparse
from collections.abc import Mapping

from msgspec import structs

from rakefarm.config import FALLBACKS, ClientSettings, ConfigError, load_settings
from rakefarm.hosts import Host, parse_host_list, with_default_port
from rakefarm.levels import LEVELS

MAX_JOBS = 4096


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Who may be talked to, and with which key."""
    parser.add_argument(
        "--key-file", metavar="FILE", help="the farm's key (default: $XDG_CONFIG_HOME/rakefarm/keys if it is there)"
    )
    parser.add_argument("--insecure", action="store_true", help="talk to hosts on the network without any proof")


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
    if options.insecure:
        changes["insecure"] = True
    given = options.hosts or environ.get("RAKEFARM_HOSTS")
    if given:
        changes["hosts"] = (given,)
    elif settings.hosts:
        # The Rakefile's own hosts come before the file's.
        changes["hosts"] = ("", *settings.hosts)
    return structs.replace(settings, **changes)


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
