"""`rakefarm config`: every setting, its value, and where that comes from."""

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins

from rakefarm import standard
from rakefarm.commands.client_options import choose_hosts, client_settings
from rakefarm.config import ClientSettings, ConfigError, ServerSettings, load_origins, load_settings
from rakefarm.exitcodes import ExitStatus

CLIENT_VARIABLES = ("jobs", "local_slots", "fallback", "require_isolation", "policy", "key_file", "hosts",
                    "result_cache", "result_cache_size", "ship_toolchain")  # fmt: skip
SERVER_VARIABLES = ("address", "port", "slots", "workers", "cache_size", "bid", "key_file", "audit_log")
"""Settings that have a variable, RAKEFARM_ and the name in capitals."""
FILLED_IN = "this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a look at settings."""
    parser.add_argument("--server", action="store_true", help="rakeserver's settings instead of rake-p's")
    parser.add_argument("--show-origin", action="store_true", help="say of each where its value comes from")
    parser.add_argument("--json", action="store_true", help="print an array of objects instead of lines")
    parser.add_argument("--config", metavar="FILE", help="read this file instead of the user's and the system's")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    if options.server:
        origins = load_origins(ServerSettings, "server.toml", options.config, environ)
    else:
        origins = load_origins(ClientSettings, "client.toml", options.config, environ)
    for name in SERVER_VARIABLES if options.server else CLIENT_VARIABLES:
        if environ.get(f"RAKEFARM_{name.upper()}"):
            origins[name] = f"RAKEFARM_{name.upper()}"
    values = _server_values(options, environ, origins) if options.server else _client_values(options, environ, origins)
    rows = [(key, value, origins.get(key, "default")) for key, value in values.items()]

    def show() -> int:
        if options.json:
            print(
                json.dumps(
                    [{"setting": key, "value": value, "origin": origin} for key, value, origin in rows], indent=2
                )
            )
            return int(ExitStatus.OK)
        widest = max(len(f"{key} = {_toml(value)}") for key, value, _ in rows if len(_toml(value)) < 50)
        for key, value, origin in rows:
            line = f"{key} = {_toml(value)}" if value is not None else f"# {key} is not set"
            print(f"{line:<{widest}}  # {origin}" if options.show_origin else line)
        return int(ExitStatus.OK)

    return standard.printed(show)


def _client_values(
    options: argparse.Namespace, environ: Mapping[str, str], origins: dict[str, str]
) -> dict[str, object]:
    """With the hosts of the Rakefile here, if they are the ones that count."""
    from rakefarm.client.rakefile import DEFAULT_PORT, read_rakefile
    from rakefarm.client.rakefile_model import RakefileError

    options.jobs = options.fallback = options.policy = options.seed = options.require_isolation = options.key_file = (
        options.hosts
    ) = None
    options.insecure = False
    settings = client_settings(options, environ)
    values = _flat(settings)
    try:
        rakefile = read_rakefile("Rakefile") if os.path.isfile("Rakefile") else None
        hosts = choose_hosts(settings, rakefile.hosts if rakefile else (), rakefile.port if rakefile else DEFAULT_PORT)
    except RakefileError as error:
        raise ConfigError(str(error), error.code) from error
    except ValueError as error:
        raise ConfigError(f"hosts: {error}") from error
    values["hosts"] = [host.address if host.slots is None else f"{host.address}/{host.slots}" for host in hosts]
    if rakefile and rakefile.hosts and hosts == rakefile.hosts and not origins.get("hosts", "").startswith("RAKEFARM_"):
        origins["hosts"] = "Rakefile"
    return values


def _server_values(
    options: argparse.Namespace, environ: Mapping[str, str], origins: dict[str, str]
) -> dict[str, object]:
    """With what the server finds out of this machine."""
    from rakefarm.server.options import add_arguments as add_server_arguments
    from rakefarm.server.options import settings_from

    parser = argparse.ArgumentParser()
    add_server_arguments(parser)
    server_options = parser.parse_args(["--config", options.config] if options.config else [])
    values = _flat(settings_from(server_options, environ))
    plain = _flat(load_settings(ServerSettings, "server.toml", options.config, environ))
    for key, value in values.items():
        if value != plain[key] and key not in origins:
            origins[key] = FILLED_IN
    return values


def _flat(settings: Any, prefix: str = "") -> dict[str, object]:
    """Dotted names, as TOML takes them."""
    values: dict[str, object] = {}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, Struct):
            values |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            values |= {f"{prefix}{name}.{key}": each for key, each in value.items()}
        else:
            values[prefix + name] = to_builtins(value)
    return values


def _toml(value: object) -> str:
    # JSON's strings, numbers, truth values and lists are TOML's.
    return json.dumps(value, ensure_ascii=False)
