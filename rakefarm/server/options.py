"""The command line of `rakeserver`, and what it makes of the settings."""

import argparse
import os
from collections.abc import Mapping

from msgspec import structs

from rakefarm.config import ConfigError, Limits, ServerSettings, engine_settings, load_settings
from rakefarm.levels import LEVELS
from rakefarm.market.needs import parse_size
from rakefarm.security import PROMISE
from rakefarm.server.bid_guard import find_bid
from rakefarm.server.launched import WAYS

SPARE_WORKERS = 2
"""Workers beyond the slots, so that a quote is answered while every slot compiles."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `rakeserver` and `rakefarm serve`."""
    parser.epilog = f"Our promise: {PROMISE} How far it holds: docs/security.md."
    parser.add_argument("place", nargs="*", metavar="[HOST] PORT", help="port, or address and port, to listen on")
    parser.add_argument(
        "-i", "--address", metavar="ADDR", help="address to listen on, or unix:/PATH (default: 127.0.0.1)"
    )
    parser.add_argument("-p", "--port", metavar="PORT", help="port; 0 lets the system pick (default: 6238)")
    parser.add_argument("-v", "--verbose", action="store_true", help="log each connection and action")
    parser.add_argument("--slots", metavar="N", help="commands at one time (default: one a core)")
    parser.add_argument("--workers", metavar="N", help="worker processes (default: slots + 2)")
    parser.add_argument(
        "--config", metavar="FILE", help="read this file instead of the user's and the system's server.toml"
    )
    parser.add_argument("--cache-size", metavar="SIZE", help="cap of the content store, such as 10G; 0 keeps nothing")
    parser.add_argument(
        "--shared", metavar="DIR", action="append", help="directory that commands may read; may be repeated"
    )
    parser.add_argument(
        "--isolation",
        metavar="LEVEL",
        help="what confines commands: auto (default: the highest that holds here), " + ", ".join(LEVELS),
    )
    parser.add_argument(
        "--bid", metavar="NAME", help="how prices are made: finish (default), flat, load-average, cpu, or FILE.py:NAME"
    )
    parser.add_argument(
        "--key-file", metavar="FILE", help="the keys that open this server (default: $XDG_CONFIG_HOME/rakefarm/keys)"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="listen on the network without a key: anybody can run programs here"
    )
    parser.add_argument(
        "--join",
        metavar="URL",
        help="also run the actions of the engine at grpc[s]://HOST:PORT[/INSTANCE], as its bots (docs/engine.md)",
    )
    parser.add_argument("--audit-log", metavar="FILE", help="keep who ran what when, from where, and how it ended")
    parser.add_argument("--selftest", action="store_true", help="show what each level of isolation stops here, and end")
    # For who starts a server for a while: a build on this machine, the selftest, tests. End when standard input ends;
    # take slots from this fifo, which others share; run a command only with a token of each of these job servers. Of a
    # launcher: the key comes on standard input, see `launched`.
    parser.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shared-slots", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--job-server", metavar="AUTH", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--launched", choices=WAYS, help=argparse.SUPPRESS)


def settings_from(options: argparse.Namespace, environ: Mapping[str, str]) -> ServerSettings:
    """Settings from files, variables and options, the later winning, with the defaults of this machine filled in.

    Raises ConfigError.
    """
    settings = load_settings(ServerSettings, "server.toml", options.config, environ)
    changes: dict[str, object] = {}
    place = list(options.place)
    if len(place) > 2:
        raise ConfigError(f"unexpected argument {place[2]!r}: give PORT, or HOST PORT")
    if len(place) == 2:
        changes["address"] = place[0]
    address = options.address if options.address is not None else environ.get("RAKEFARM_ADDRESS")
    if address is not None:
        changes["address"] = address  # an empty one is every address
    port = options.port or (place[-1] if place else environ.get("RAKEFARM_PORT"))
    if port is not None:
        changes["port"] = _number("port", port, 0, 65535)
    for name, highest in (("slots", 4096), ("workers", 8192)):
        value = getattr(options, name) or environ.get(f"RAKEFARM_{name.upper()}")
        if value is not None:
            changes[name] = _number(name, value, 1, highest)
    if (size := options.cache_size or environ.get("RAKEFARM_CACHE_SIZE")) is not None:
        changes["cache_size"] = parse_size(size)
        if changes["cache_size"] is None:
            raise ConfigError(f"--cache-size {size}: not a size; write bytes, or 512M, 10G")
    if options.shared is not None:
        changes["shared"] = tuple([os.path.abspath(path) for path in options.shared])
    if (isolation := options.isolation or environ.get("RAKEFARM_ISOLATION")) is not None:
        if isolation not in ("auto", *LEVELS):
            raise ConfigError(f"isolation {isolation!r}: choose one of auto, {', '.join(LEVELS)}")
        changes["isolation"] = isolation
    if (bid := options.bid or environ.get("RAKEFARM_BID")) is not None:
        changes["bid"] = bid
    for name in ("key_file", "audit_log"):
        value = getattr(options, name) or environ.get(f"RAKEFARM_{name.upper()}")
        if value:
            changes[name] = value
    changes["engine"] = engine_settings(settings.engine, options.join or environ.get("RAKEFARM_JOIN"), environ)
    if options.insecure:
        changes["insecure"] = True
    if options.verbose:
        changes["verbose"] = True
    settings = structs.replace(settings, **changes)
    return _fill_in(settings, environ)


def _fill_in(settings: ServerSettings, environ: Mapping[str, str]) -> ServerSettings:
    slots = settings.slots or len(os.sched_getaffinity(0))
    workers = settings.workers or slots + SPARE_WORKERS
    home = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # the XDG base directory specification has such a one ignored
        home = os.path.join(environ.get("HOME") or "/var/cache", ".cache")
    cache = settings.cache_directory or os.path.join(home, "rakefarm", "store")
    bid = _located(settings.bid)
    find_bid(bid)
    for path in settings.shared:
        if not os.path.isdir(path):
            raise ConfigError(f"shared: {path} is not a directory")
    return structs.replace(
        settings,
        slots=slots,
        workers=workers,
        cache_directory=cache,
        bid=bid,
        limits=_fill_in_limits(settings.limits),
    )


def _fill_in_limits(limits: Limits) -> Limits:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return structs.replace(limits, memory=limits.memory or memory * 3 // 4, box_size=limits.box_size or memory // 2)


def _located(bid: str) -> str:
    """FILE.py:NAME with its whole path: workers look for it later, perhaps from elsewhere."""
    path, colon, name = bid.rpartition(":")
    return f"{os.path.abspath(path)}:{name}" if colon and path.endswith(".py") else bid


def _number(name: str, text: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and lowest <= int(text) <= highest):
        raise ConfigError(f"{name} {text!r}: not a whole number from {lowest} to {highest}")
    return int(text)
