"""`rakefarm cache`: what the result cache holds, what has come of it, and why a call was not found in it."""

import argparse
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.commands.complaint import complain
from rakefarm.config import ClientSettings, ConfigError, load_settings
from rakefarm.exitcodes import ExitStatus

if TYPE_CHECKING:
    from rakefarm.records import RecordStore
    from rakefarm.result_cache import Counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a look at the result cache."""
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    stats = whats.add_parser("stats", help="size, hits, and misses with their reasons")
    stats.add_argument("--json", action="store_true", help="print an object instead of lines")
    clear = whats.add_parser("clear", help="remove every result, and begin to count anew")
    explain = whats.add_parser("explain", help="why a compiler call was not found, or since when its result is there")
    for each in (stats, clear, explain):
        each.add_argument("--cache-dir", metavar="DIR", help="the cache in this directory")
        each.add_argument("--cache-size", metavar="SIZE", help="the cap to reckon with, like 5G")
    explain.add_argument("words", nargs=argparse.REMAINDER, metavar="COMPILER ARGS", help="the call, as make ran it")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Answers the exit status. Raises ConfigError."""
    from rakefarm.records import RecordStore, UnsafeDirectory
    from rakefarm.result_cache import Counts, place_of

    if options.what == "explain" and not options.words:
        raise ConfigError("name the call: rakefarm cache explain gcc -c a.c, say, where make ran it")
    environ = with_cache_options(options.cache_dir, options.cache_size, environ)
    directory, size_bytes = place_of(load_settings(ClientSettings, "client.toml", None, environ), environ)
    try:
        store = RecordStore(directory, size_bytes)
        counts = Counts(directory)
        match options.what:
            case "clear":
                from rakefarm.client.board import size_text

                removed = store.clear()
                counts.clear()
                text = f"removed {removed.records} records, {size_text(removed.size_bytes)}"
                return standard.printed(lambda: _say([text]))
            case "explain":
                from rakefarm.cc.explain import explain

                lines = explain(options.words, environ, store)
                return standard.printed(lambda: _say(lines))
            case _:
                _have_helper_save(environ)
                return standard.printed(lambda: _stats(store, counts, options.json))
    except UnsafeDirectory as error:
        return complain(str(error))
    except OSError as error:
        return complain(f"{error.filename}: {error.strerror}")


def _say(lines: Sequence[str]) -> int:
    for line in lines:
        print(line)
    return int(ExitStatus.OK)


def _have_helper_save(environ: Mapping[str, str]) -> None:
    """What it has counted lately; without one everything is written down already."""
    from rakefarm.cc.dialogue import Malformed
    from rakefarm.cc.helper import CONTROL
    from rakefarm.cc.locations import LocationError
    from rakefarm.cc.wrapper import ask_helper

    with contextlib.suppress(OSError, Malformed, LocationError):
        ask_helper([CONTROL, b"save"], environ, start=False)


def _stats(store: "RecordStore", counts: "Counts", as_json: bool) -> int:
    from rakefarm.cc.misses import HIT, SERVED, Cause
    from rakefarm.client.board import size_text

    usage, counted = store.usage(), counts.read()
    hits = counted.get(HIT, 0)
    misses = {cause: counted.get(cause.name, 0) for cause in Cause}
    looked = hits + sum(misses.values())
    if as_json:
        told = {
            "directory": store.directory,
            "cap_bytes": store.size_bytes,
            "size_bytes": usage.size_bytes,
            "records": usage.records,
            "hits": hits,
            "served": counted.get(SERVED, 0),
            "misses": {cause.name.lower(): count for cause, count in misses.items()},
        }
        print(json.dumps(told, indent=2))
        return int(ExitStatus.OK)
    lines = [
        f"{store.directory}: {usage.records} records, {size_text(usage.size_bytes)} of {size_text(store.size_bytes)}",
        f"{hits:8} hits" + (f", {hits / looked:.1%} of what was looked for" if looked else ""),
        f"{looked - hits:8} misses, of which servers had {counted.get(SERVED, 0)} among their results",
    ]
    ordered = sorted(misses.items(), key=lambda item: -item[1])
    lines += [f"{count:8}   {cause.name.lower()}: {cause.value}" for cause, count in ordered if count]
    return _say(lines)


def with_cache_options(directory: str | None, size: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that stand for --cache-dir and --cache-size."""
    changed = dict(environ)
    if directory is not None:
        changed["RAKEFARM_RESULT_CACHE"] = os.path.abspath(directory)
    if size is not None:
        changed["RAKEFARM_RESULT_CACHE_SIZE"] = size
    return changed
