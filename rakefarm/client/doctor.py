"""`rakefarm doctor`: every host examined at once; a table for people, one verdict a host and what to do, or JSON."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from msgspec import to_builtins

from rakefarm.client.board import safe_text, size_text
from rakefarm.client.build import local_server
from rakefarm.client.compilers import NAMES, Compiler, compilers_here
from rakefarm.client.credentials import load_credentials
from rakefarm.client.examination import SOURCE, Bench, Examination, examine
from rakefarm.client.places import Places
from rakefarm.client.tables import Sheet, draw_tables
from rakefarm.codes import Code
from rakefarm.config import ClientSettings
from rakefarm.embedded import EmbeddedFailed, EmbeddedServer
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import Host
from rakefarm.wire.messages import Welcome

NAMED_HOSTS = 3
ALL_S = 75.0
"""How long a host's examination may take in all; one that goes on saying that it lives would hold us for ever."""


def doctor(
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    embedded: EmbeddedServer,
    *,
    compiler: str,
    as_json: bool,
    warn: Callable[[str], None],
    stdout: TextIO,
) -> int:
    """Examine and print; answers the exit status: 0 when every host is usable. Raises ConfigError, OSError."""
    names = tuple(dict.fromkeys((compiler, *NAMES)))
    here = compilers_here(names, environ)
    known = {name: here.get(name, Compiler(name, "", "", "")) for name in names}
    credentials = load_credentials(settings, hosts, environ)
    places = Places(environ, settings.local_slots, warn)
    with local_server(hosts, places, embedded) as local, tempfile.TemporaryDirectory(prefix="rakefarm-doctor-") as made:
        source = os.path.join(made, "doctor.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(SOURCE)
        bench = Bench(credentials, environ, settings.connect_s, compiler, known, source)

        def place_of(host: Host) -> Host:
            return local() if host.is_local and local is not None else host

        found = _examine_all(hosts, bench, place_of)
    _print_json(found, here, stdout) if as_json else _print_tables(found, here, environ, stdout)
    usable = all(each.code is None for each in found)
    return int(ExitStatus.OK if usable else ExitStatus.FARM_FAILED)


def _examine_all(hosts: Sequence[Host], bench: Bench, place_of: Callable[[Host], Host]) -> list[Examination]:
    found = [Examination(host.address, host.name.rpartition("@")[2]) for host in hosts]

    def examine_one(host: Host, result: Examination) -> None:
        try:
            examine(host, bench, result, place_of)
        except EmbeddedFailed as error:
            result.fail(Code.SERVER_START, str(error))
        except OSError as error:
            result.fail(Code.OUTPUT, f"here: {error.strerror or error}")

    threads = []
    for host, result in zip(hosts, found, strict=True):
        threads.append(threading.Thread(target=examine_one, args=(host, result), daemon=True))
        threads[-1].start()
    deadline = time.monotonic() + ALL_S
    for thread, result in zip(threads, found, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            result.fail(Code.SILENT, f"it was not done with a tiny compilation within {ALL_S:.0f} s")
    return found


# --- for people ---------------------------------------------------------------------------------------------


def _print_tables(
    found: Sequence[Examination], here: Mapping[str, Compiler], environ: Mapping[str, str], stdout: TextIO
) -> None:
    reached = [each for each in found if each.welcome is not None]
    sheets = [_verdicts(found)]
    if reached:
        sheets += [_access(reached), _compilers(reached, here)]
    draw_tables(sheets, environ, stdout)
    for each in found:
        if each.code is not None:
            stdout.write(f"{safe_text(each.host)}: {each.problem} [{each.code.number}]\n  fix: {safe_text(each.fix)}\n")
        for note in each.notes:
            stdout.write(f"{safe_text(each.host)}: note: {note}\n")
    bad = sum(each.code is not None for each in found)
    stdout.write(f"{len(found) - bad} of {len(found)} hosts usable\n")


def _verdicts(found: Sequence[Examination]) -> Sheet:
    sheet = Sheet(("host", "verdict", "free", "load", "memory", "disk", "clock"), words=frozenset({0, 1}))
    for each in found:
        verdict = f"{each.code.number} {each.code.title}" if each.code else "usable"
        row = [safe_text(each.host), verdict]
        if (status := each.status) is not None:
            curve = status.curve
            row += [f"{curve.free_slots}/{curve.slots}", f"{curve.busy_in_all:.1f}/{curve.cores}"]
            row += [size_text(status.memory.free_bytes), size_text(status.sandbox.free_bytes)]
            row.append(f"{each.clock_skew_s or 0.0:+.1f} s")
        sheet.rows.append((*row, *["-"] * (7 - len(row))))
    return sheet


def _access(reached: Sequence[Examination]) -> Sheet:
    sheet = Sheet(("host", "from", "greeting", "proof", "isolation", "release", "compile"))
    sheet.words = frozenset({0, 1, 3, 4, 5})
    for each in reached:
        welcome = each.welcome
        assert welcome is not None
        sheet.rows.append(
            (
                safe_text(each.host),
                each.route.partition(" ")[0] or "-",
                f"{(each.connect_s or 0.0) * 1e3:.1f} ms",
                safe_text(welcome.authentication)[:40],
                _isolation_of(welcome),
                safe_text(welcome.software)[:40],
                "-" if each.compile_s is None else f"{each.compile_s:.2f} s",
            )
        )
    return sheet


def _isolation_of(welcome: Welcome) -> str:
    missing = ", ".join(welcome.missing)
    return safe_text(f"{welcome.isolation[:40]}, without {missing}" if missing else welcome.isolation)[:200]


def _compilers(reached: Sequence[Examination], here: Mapping[str, Compiler]) -> Sheet:
    """A row for each thing that goes by the same name, and where it is."""
    sheet = Sheet(("compiler", "where", "path", "version", "target"), words=frozenset(range(5)))
    asked = [each for each in reached if each.compilers]
    for name in dict.fromkeys([*here, *[name for each in asked for name in each.compilers]]):
        ours = here.get(name)
        rows: dict[tuple[str, str, str], list[str]] = {}
        if ours is not None:
            rows[(ours.path, ours.version, ours.target)] = ["here"]
        for each in asked:
            one = each.compilers.get(name)
            told = ("-", "-", "-") if one is None else (one.path, one.version, one.target)
            rows.setdefault(told, []).append(safe_text(each.host))
        for told, hosts in rows.items():
            where = ", ".join(hosts) if len(hosts) <= NAMED_HOSTS else f"{hosts[0]} and {len(hosts) - 1} more"
            sheet.rows.append((name, where, *told))
    return sheet


# --- for programs -------------------------------------------------------------------------------------------


def _print_json(found: Sequence[Examination], here: Mapping[str, Compiler], stdout: TextIO) -> None:
    record = {"hosts": [_record(each) for each in found], "compilers": to_builtins(dict(here))}
    json.dump(record, stdout, indent=2)
    stdout.write("\n")


def _record(each: Examination) -> dict[str, Any]:
    welcome, status = each.welcome, each.status
    return {
        "host": each.host,
        "usable": each.code is None,
        "code": each.code.number if each.code else None,
        "problem": each.problem or None,
        "fix": each.fix or None,
        "notes": each.notes,
        "addresses": each.addresses,
        "route": each.route or None,
        "greeting_s": each.connect_s,
        "authentication": welcome.authentication if welcome else None,
        "isolation": welcome.isolation if welcome else None,
        "missing": welcome.missing if welcome else None,
        "software": welcome.software if welcome else None,
        "protocol": welcome.version if welcome else None,
        "clock_skew_s": each.clock_skew_s,
        "compile_s": each.compile_s,
        "status": to_builtins(status) if status else None,
        "compilers": to_builtins(each.compilers),
    }
