"""What `rakefarm doctor` finds out about one host, step by step, until something is wrong.

    name ─► route ─► connection, proofs, version ─► status: clock, disks, memory ─► compilers ─► a real compilation

Each step that fails has a code, and what to do about it. Nothing of what a host says is believed to be displayable.
"""

import socket
import time
from collections.abc import Callable, Mapping

from msgspec import Struct, field, structs

from rakefarm.client.board import safe_text, size_text
from rakefarm.client.compilers import Compiler, read_list, script
from rakefarm.client.credentials import Credentials
from rakefarm.client.link import Link, connect
from rakefarm.client.lone_action import PASSING, run_alone
from rakefarm.client.reach import HostFailed
from rakefarm.client.remote import Declined
from rakefarm.client.status_check import check_status
from rakefarm.codes import Code
from rakefarm.config import DEFAULT_PORT
from rakefarm.hosts import Host
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Result, StatusReply, Welcome

CLOCK_S = 5.0
"""How far the clocks may differ before it is reported; beyond half the time that the question took."""
DISK_BYTES = 64 << 20
SOURCE = "#include <stddef.h>\nsize_t rakefarm_doctor(const char *text) { return text ? sizeof text : 0; }\n"


class Examination(Struct):
    """A host, and what was found. `code` None: it is usable. Sizes in bytes, times in seconds; None: not found out."""

    host: str
    name: str
    code: Code | None = None
    problem: str = ""
    addresses: tuple[str, ...] = ()
    route: str = ""
    connect_s: float | None = None
    welcome: Welcome | None = None
    status: StatusReply | None = None
    clock_skew_s: float | None = None
    compilers: dict[str, Compiler] = field(default_factory=dict)
    compile_s: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def fix(self) -> str:
        """What to do, or nothing."""
        return self.code.fix(self.host, self.name) if self.code else ""

    def fail(self, code: Code, problem: str) -> None:
        """The first thing that is wrong holds; what else is, is noted."""
        problem = safe_text(problem)[:400]
        if self.code is None:
            self.code, self.problem = code, problem
        else:
            self.notes.append(f"{problem} [{code.number}]")


class Bench(Struct, frozen=True):
    """What every host is held against: our credentials and compilers, which of them must be the same there, and a
    source file to compile."""

    credentials: Credentials
    environ: Mapping[str, str]
    connect_s: float
    compiler: str
    compilers: dict[str, Compiler]
    source: str


def examine(host: Host, bench: Bench, found: Examination, place_of: Callable[[Host], Host]) -> None:
    """Fill in `found`, in the caller's thread. `place_of` says where this machine's own server listens."""
    if host.way == "tcp" and not host.is_local and not _find_route(host, found):
        return
    began = time.monotonic()
    try:
        link = connect(place_of(host), bench.environ, bench.connect_s, bench.credentials)
    except HostFailed as error:
        _explain_failure(host, bench, error, found)
        return
    found.connect_s, found.welcome = time.monotonic() - began, link.welcome
    try:
        _ask_status(link, found)
        _try_compiling(host, link, bench, found)
    except (Lost, ProtocolError) as error:
        silent = isinstance(error, Lost) and "no sign of life" in str(error)
        code = Code.SILENT if silent else Code.LOST if isinstance(error, Lost) else Code.PROTOCOL
        found.fail(code, explain(error))
    finally:
        link.close()


def _find_route(host: Host, found: Examination) -> bool:
    """Its addresses, and from which of ours packets would leave for the first."""
    try:
        infos = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no valid name"
        found.fail(Code.NAME, f"the name can't be resolved: {reason}")
        return False
    found.addresses = tuple(dict.fromkeys(str(info[4][0]) for info in infos))
    problem = ""
    for family, _, _, _, address in infos:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(address)  # of UDP: nothing is sent
                found.route = f"{probe.getsockname()[0]} to {address[0]}"
                return True
            except OSError as error:
                problem = error.strerror or str(error)
    found.fail(Code.ROUTE, problem)
    return False


def _explain_failure(host: Host, bench: Bench, error: HostFailed, found: Examination) -> None:
    """What a failed introduction means; where that says little, by another question without our key."""
    if error.code is Code.REFUSED and host.port != DEFAULT_PORT:
        there = _speaks(structs.replace(host, port=DEFAULT_PORT), bench)
        if there:
            found.fail(Code.WRONG_PORT, f"nothing listens at port {host.port}; a rakeserver does at {DEFAULT_PORT}")
            return
    if error.code is Code.KEY_NOT_ASKED:
        # Our TLS was not understood: by a server that has no key, or by something else.
        try:
            connect(host, bench.environ, bench.connect_s, Credentials(insecure=True)).close()
        except HostFailed as plain:
            if plain.code in (Code.NOT_RAKEFARM, Code.SILENT, Code.VERSION):
                error = plain
    if error.code is Code.LOST:
        found.notes.append("it closed the connection without a word: perhaps the port is another program's")
    found.fail(error.code, str(error))


def _speaks(host: Host, bench: Bench) -> bool:
    """Whether a rakeserver is there, also one that does not let us in."""
    try:
        connect(host, bench.environ, bench.connect_s, bench.credentials).close()
    except HostFailed as error:
        return error.code in (Code.NO_KEY, Code.WRONG_KEY, Code.VERSION, Code.NOT_PROVED)
    return True


def _ask_status(link: Link, found: Examination) -> None:
    if "status" not in link.welcome.capabilities:
        found.fail(Code.OTHER_RELEASE, f"rakefarm {safe_text(link.welcome.software)[:40]} there tells no status")
        return
    before, asked = time.time(), time.monotonic()
    status = link.status()
    took_s = time.monotonic() - asked
    check_status(status)
    found.status = status
    found.clock_skew_s = status.clock_s - (before + took_s / 2)
    if status.declined:
        reason = status.declined.partition(":")[0]
        code = {"disk": Code.DISK, "memory": Code.MEMORY}.get(reason, Code.DECLINES)
        found.fail(code, f"it takes nothing now: {status.declined}")
    for space, what in ((status.sandbox, "commands"), (status.cache, "the content store")):
        if space.total_bytes and space.free_bytes < DISK_BYTES:
            found.fail(Code.DISK, f"the disk of {what} has {size_text(space.free_bytes)} left")
    if abs(found.clock_skew_s) > CLOCK_S + took_s / 2:
        direction = "ahead of" if found.clock_skew_s > 0 else "behind"
        found.fail(Code.CLOCK, f"its clock is {abs(found.clock_skew_s):.0f} s {direction} ours")


# --- a real compilation -------------------------------------------------------------------------------------


def _try_compiling(host: Host, link: Link, bench: Bench, found: Examination) -> None:
    names = tuple(bench.compilers)
    listed = _run(host, link, script(names), (), found)
    if listed is None:
        return
    found.compilers = listed[2]
    wanted = bench.compiler
    theirs, ours = found.compilers.get(wanted), bench.compilers.get(wanted)
    if theirs is None:
        found.fail(Code.NO_COMPILER, f"there is no {wanted} on the path of its commands")
        return
    if ours is None or not ours.path:
        found.notes.append(f"there is no {wanted} here to compare with")
    elif not theirs.is_same(ours):
        found.fail(
            Code.OTHER_COMPILER, f"{wanted} is {theirs.version} ({theirs.target}), ours {ours.version} ({ours.target})"
        )
    compiled = _run(host, link, f"{wanted} -O1 -c doctor.c -o doctor.o", (bench.source,), found)
    if compiled is None:
        return
    result, outputs, _ = compiled
    if result.outcome != "exited" or result.status:
        detail = result.detail or f"exit status {result.status}"
        found.fail(Code.COMPILE_FAILED, f"{wanted} compiled nothing there: {detail}")
    elif outputs != ("doctor.o",):
        found.fail(Code.COMPILE_FAILED, f"{wanted} ended well and made no object file")
    else:
        found.compile_s = result.elapsed_s


Ran = tuple[Result, tuple[str, ...], dict[str, Compiler]]


def _run(host: Host, link: Link, command: str, files: tuple[str, ...], found: Examination) -> Ran | None:
    """Run it there, as any action; None when it was declined, which is told. Its outputs are looked at and dropped."""
    try:
        return run_alone(
            host, link, command, files, kind="compile", label="rakefarm doctor", produces=None, read=read_list
        )
    except Declined as error:
        if error.reason in PASSING:
            found.notes.append("all its slots are taken, so nothing was compiled")
        else:
            code = {"disk": Code.DISK, "memory": Code.MEMORY}.get(error.reason, Code.DECLINES)
            found.fail(code, f"it ran nothing: {error}")
        return None
