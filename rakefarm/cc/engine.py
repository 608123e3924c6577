"""One compiler call on the farm: understood, its inputs found, sent, its outputs installed as the compiler would.

Whatever stands in the way is Local, with its reason. A compile that fails on the farm is done again here: its messages
and what it removes are then the compiler's own, and a fault of the farm can't be taken for one of the source.
"""

import mmap
import os
import threading
from collections.abc import Callable, Sequence

from msgspec import Struct

from rakefarm import process
from rakefarm.capture import Capture
from rakefarm.cc import depfile, layout
from rakefarm.cc.closure import Closure, Walk, plain_path, search_path
from rakefarm.cc.commandline import Call, understand
from rakefarm.cc.dialogue import Request
from rakefarm.cc.farms import Farms, HostFarm
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.options import Role
from rakefarm.cc.placement import Place
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.toolchain import ASK_S, Toolchain, Toolchains, find_compiler, is_cxx, quote
from rakefarm.client import remote
from rakefarm.client.inputs import Manifest
from rakefarm.client.link import Link
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.market.curve import Curve
from rakefarm.market.history import signature_of
from rakefarm.transport import Lost
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Need, Variable

PASSED_VARIABLES = ("LANG", "LANGUAGE", "TZ", "SOURCE_DATE_EPOCH")
ATTEMPTS = 3
OWN_HEADERS = "headers like ours"
"""What a host lacks that is sent the system's headers, too."""
SAME_NEED = Need("same", layout.SAME_PATH.decode())


class Compiled(Struct, frozen=True):
    """A call that was done on the farm: what the compiler wrote to standard error, and where it ran."""

    stderr: bytes
    host: str


class Cancel:
    """Lets another thread end a call: closes the link in use, whereupon the server kills the command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: Link | None = None
        self.gone = False

    def use(self, link: Link | None) -> None:
        """From now on this link is to be closed. Raises Lost when it is too late."""
        with self._lock:
            self._link = link
            if self.gone and link is not None:
                raise Lost("nobody waits for the result any more")

    def cancel(self) -> None:
        """End it."""
        with self._lock:
            self.gone = True
            if self._link is not None:
                self._link.cut()


class Engine:
    """Holds what calls have in common: caches, connections. For any thread; the process's directory must be `/`."""

    def __init__(self, scratch: str, farms: Farms) -> None:
        self.files = FileCache()
        self._toolchains = Toolchains()
        self._farms = farms
        self._scratch = os.fsencode(scratch)

    def compile(self, request: Request, cancel: Cancel) -> Compiled:
        """Do the call on the farm. Raises Local."""
        farm = self._farms.find(request.environ)
        directory = _logical_directory(request)
        name = request.words[0]
        program = find_compiler(name, directory, os.fsencode(request.environ.get("PATH", "")))
        call = understand(request.words[1:], directory, is_cxx(name), request.environ)
        toolchain = self._toolchains.find(program, call.language, call.search, request.environ)
        shared = layout.shared_by(toolchain)
        layout.check_place(directory, shared)
        closure = self._closure(call, directory, toolchain, request)

        def pack(shared: layout.Shared) -> layout.Package:
            return layout.pack(call, directory, toolchain, closure, shared, _colours(request))

        return _Attempts(self, farm, request, call, toolchain, pack(shared), pack, cancel).run()

    def _closure(self, call: Call, directory: bytes, toolchain: Toolchain, request: Request) -> Closure:
        passed: set[bytes] = set()
        builtin = () if b"-nostdinc" in call.search else toolchain.builtin
        walk = Walk(self.files, search_path(call, directory, builtin, passed))
        source = plain_path(os.path.join(directory, call.source), passed)
        macros = [word.value or b"" for word in call.words if word.text == b"-D"]
        closure = walk.run(source, call.includes, directory, macros)
        if closure.computed:
            named = _ask_compiler(call, directory, toolchain, request)
            walk.add_all([plain_path(os.path.join(directory, path), passed) for path in named])
        if not request.environ.get("SOURCE_DATE_EPOCH"):
            for path, facts in closure.files.items():
                if facts.directives.time:
                    raise Local(Reason.TIME_OF_DAY, os.fsdecode(path))
        closure.passed |= passed
        return closure

    def same_list(self, package: layout.Package) -> bytes:
        """The file here that holds the package's list of system files."""
        path = self._scratch + b"/" + package.entries[0].sha256.hex().encode()
        if not os.path.exists(path):
            beside = b"%b-%d" % (path, threading.get_ident())
            with open(beside, "wb") as file:
                file.write(package.same)
            os.replace(beside, path)
        return path


def _logical_directory(request: Request) -> bytes:
    """The directory as the compiler will name it: $PWD where that is the same one (getcwd(3), gcc's `getpwd`)."""
    named = os.fsencode(request.environ.get("PWD", ""))
    if named.startswith(b"/") and b"/." not in named and b"//" not in named:
        try:
            if os.path.samefile(named, request.directory):
                return named.rstrip(b"/") or b"/"
        except OSError:
            pass
    return request.directory


def _colours(request: Request) -> tuple[bytes, ...]:
    """gcc and clang colour their messages for a terminal, which they don't have there."""
    environ = request.environ
    coloured = request.terminal and environ.get("TERM", "dumb") != "dumb" and not environ.get("NO_COLOR")
    return (b"-fdiagnostics-color=always",) if coloured and environ.get("GCC_COLORS", "x") else ()


def _ask_compiler(call: Call, directory: bytes, toolchain: Toolchain, request: Request) -> Sequence[bytes]:
    """The files that the compiler reads, by its own word. Raises Local when it finds errors."""
    words = [toolchain.program, b"-M"]
    for word in call.words:
        if word.role not in (
            Role.COMPILE, Role.ASSEMBLY, Role.OUTPUT, Role.DEPENDENCIES, Role.DEPENDENCY_FILE, Role.PREPROCESSOR,
            Role.SPLIT_DEBUG,
        ) and not word.text.startswith((b"-M", b"-g")):  # fmt: skip
            words += word.written()
        elif word.role is Role.PREPROCESSOR and b"-M" in (word.value or b""):
            raise Local(Reason.COMPUTED_INCLUDE, "together with -Wp,-MD")
        elif word.role is Role.PREPROCESSOR:
            words += word.written()
    variables = {os.fsencode(name): os.fsencode(value) for name, value in request.environ.items()}
    command = b" ".join([quote(word) for word in words])
    completed = process.run(command, variables, directory=directory, timeout_s=ASK_S)
    try:
        if completed.ending != process.Exited(0):
            raise Local(Reason.COMPUTED_INCLUDE, os.fsdecode(call.source))
        return depfile.names(b"".join(completed.stdout.pieces()))
    finally:
        completed.close()


class _Attempts:
    """One call, tried on host after host."""

    def __init__(
        self,
        engine: Engine,
        farm: HostFarm,
        request: Request,
        call: Call,
        toolchain: Toolchain,
        package: layout.Package,
        pack: Callable[[layout.Shared], layout.Package],
        cancel: Cancel,
    ) -> None:
        self._engine = engine
        self._farm = farm
        self._request = request
        self._call = call
        self._toolchain = toolchain
        self._shared_package = self._package = package
        self._pack = pack
        self._cancel = cancel
        needs = (*(Need(key, value) for key, value in toolchain.needs), SAME_NEED)
        total = sum([entry.size for entry in package.entries])
        self._signature = _signature(call, toolchain)
        self._task, self._work_s = farm.describe(self._signature, needs, total)

    def run(self) -> Compiled:
        """Raises Local."""
        excluded: set[str] = set()
        problem = "no server answers"
        for _ in range(ATTEMPTS):
            place = self._farm.placement.acquire(self._toolchain, self._work_s, excluded, lambda: self._cancel.gone)
            if place is None:
                break
            curve: Curve | None = None
            try:
                compiled, curve = self._attempt(place)
                return compiled
            except remote.Declined as declined:
                problem, curve = f"{place.member.name}: {declined}", declined.curve
                if declined.reason == "file":
                    self._farm.placement.note_lacking(place, self._toolchain)
                elif declined.reason == "same" and layout.can_ship(self._call, self._toolchain):
                    self._farm.placement.note_lacking(place, OWN_HEADERS)
                    continue  # there once more, with all headers
            except (Lost, ProtocolError, OSError) as error:
                problem = f"{place.member.name}: {error}"
                if isinstance(error, Lost) and "no sign of life" in str(error):
                    self._farm.farm.leave_out(place.member, str(error))
            finally:
                self._farm.placement.release(place, curve)
                if self._farm.placement.idle:
                    self._farm.farm.flush_idle()
            excluded.add(place.member.name)
        raise Local(Reason.CANCELLED if self._cancel.gone else Reason.NO_SERVER, problem)

    def _attempt(self, place: Place) -> tuple[Compiled, Curve | None]:
        """Once, on one host. Raises Declined, Lost or a protocol error (not run), Local, OSError (ours)."""
        farm = self._farm.farm
        self._package = self._shared_package
        if self._farm.placement.lacks(place, OWN_HEADERS) and layout.can_ship(self._call, self._toolchain):
            self._package = self._pack(layout.shared_with_stranger(self._toolchain))
        link = farm.checkout(place.member)
        while link is not None and not link.fresh():
            farm.discard(link)
            link = farm.checkout(place.member)
        if link is None:
            raise Lost(place.member.problem or "it can't be reached")
        stdout, stderr, incoming = Capture(), Capture(), Incoming()
        try:
            self._cancel.use(link)
            executed = remote.execute(self._order(), place.member, link, incoming, stdout, stderr, _tell_nobody)
            link.acknowledge()
            result = executed.result
            if result.outcome != "exited" or result.status:
                raise Local(Reason.FAILED_THERE, f"{place.member.name}: {result.outcome} {result.status}")
            box, _, rest = b"".join(stdout.pieces()).partition(b"\n")
            if not box.startswith(b"/") or rest:
                raise Local(Reason.FAILED_THERE, f"{place.member.name}: it did not say where it ran")
            self._finish(incoming, box)
            self._farm.learn(self._signature, self._task, result)
            return Compiled(b"".join(stderr.pieces()).replace(box, b""), place.member.name), executed.curve
        except remote.Declined:
            self._give_back(place, link)
            link = None
            raise
        except Local:
            self._give_back(place, link)
            link = None
            raise
        except BaseException:
            farm.discard(link)
            link = None
            raise
        finally:
            self._cancel.use(None)
            incoming.close()
            stdout.close()
            stderr.close()
            if link is not None:
                self._give_back(place, link)

    def _give_back(self, place: Place, link: Link) -> None:
        self._cancel.use(None)
        self._farm.farm.give_back(place.member, link)

    def _order(self) -> remote.Order:
        package = self._package
        environ = self._request.environ
        wanted = [name for name in environ if name in PASSED_VARIABLES or name.startswith("LC_")]
        sources = (self._engine.same_list(package), *package.sources[1:])
        return remote.Order(
            task=self._task,
            command=package.command,
            manifest=Manifest(package.entries, sources),
            produces=package.produces,
            timeout_s=None,
            environment=tuple([Variable(os.fsencode(name), os.fsencode(environ[name])) for name in wanted]),
            label=os.fsdecode(self._call.source)[-100:].encode("utf-8", "replace").decode(),
        )

    def _finish(self, incoming: Incoming, box: bytes) -> None:
        """Take the server's directory out of what came back, and give the files their names. Raises Local, OSError."""
        dependency_file = None
        if self._call.dependency_file is not None:
            dependency_file = self._package.produces[self._call.outputs.index(self._call.dependency_file)]
        for path, descriptor in incoming.descriptors().items():
            if path == dependency_file:
                size = os.fstat(descriptor).st_size
                text = depfile.without(os.pread(descriptor, size, 0), box, self._toolchain.family)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text, 0)
            elif _holds(descriptor, box):
                raise Local(Reason.LEAKED_PATH, os.fsdecode(path))
        try:
            incoming.install(umask=self._request.umask)
        except OutputError as error:
            raise Local(Reason.FAULT, str(error)) from error


def _signature(call: Call, toolchain: Toolchain) -> str:
    """What the same compile of another day is known by, in the form of the market's history."""
    flags = [each for word in call.words if word.role in (Role.PASS, Role.SEARCH) for each in word.written()]
    words = [os.path.basename(toolchain.program), *flags, b"-c", os.path.basename(call.source)]
    return signature_of(os.fsdecode(b" ".join(words)))


def _holds(descriptor: int, text: bytes) -> bool:
    if not os.fstat(descriptor).st_size:
        return False
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def _tell_nobody(_phase: str, _cpu_s: float, _memory_bytes: int) -> None:
    """Nobody watches single phases."""
