"""The helper: one process a user, which every compiler call asks over a Unix socket. It holds what calls share.

    make ── launcher ── launcher ── launcher …
                │ request, answer      (one connection a call)
             helper ══ kept connections ══ servers

A thread a call; a few wait for the next one, each of which is taken by one of them, without a word between threads. It
ends when it has had nothing to do for a while, when told to stop, or when another release has
taken its place. Whoever may connect could have commands run in our name, so the socket is the user's alone, and the
kernel says who is at the other end.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from rakefarm import __version__
from rakefarm.cc import dialogue
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.dialogue import Answer, Request
from rakefarm.cc.engine import Engine
from rakefarm.cc.farms import Farms
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.here import Here
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.settings import CallSettings, ResultCaches
from rakefarm.cc.toolchain import find_compiler, name_for
from rakefarm.logs import logger

IDLE_S = 600.0
BACKLOG = 512
MOST_WAITING = 4
"""So many threads wait for calls; what is more ends."""
ACCEPT_AGAIN_S = 0.1
"""How long nothing is accepted when no descriptor was free."""
GC_ALLOCATIONS = 20_000
"""How many objects more than before the collector looks through the young ones: a call makes hundreds, no cycles."""
_CREDENTIALS = struct.Struct("3i")
CONTROL = b"rakefarm-cc"
"""The first word of a request that is for the helper itself."""


class Watcher:
    """Ends the calls of launchers that are gone. A thread of its own watches all of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._cancels: dict[int, Cancel] = {}
        threading.Thread(target=self._run, name="watcher", daemon=True).start()

    def watch(self, connection: socket.socket, cancel: Cancel) -> None:
        """From now on the end of this connection ends the call."""
        with self._lock:
            self._cancels[connection.fileno()] = cancel
        self._epoll.register(connection, select.EPOLLRDHUP | select.EPOLLHUP)

    def forget(self, connection: socket.socket) -> None:
        """The call has ended."""
        self._epoll.unregister(connection)
        with self._lock:
            self._cancels.pop(connection.fileno(), None)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                with self._lock:
                    cancel = self._cancels.pop(descriptor, None)
                    if cancel is not None:
                        self._epoll.modify(descriptor, 0)
                if cancel is not None:
                    cancel.cancel()


class Helper:
    """Serves one socket."""

    def __init__(self, listener: socket.socket, scratch: str, environ: Mapping[str, str], idle_s: float) -> None:
        self._listener = listener
        self._idle_s = idle_s
        files, settings = FileCache(), CallSettings()
        self._farms = Farms(environ, settings)
        self._caches = ResultCaches(settings, files)
        self._lock = threading.Lock()
        self._calls = self._waiting = 0
        self._counts: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()
        self._local_places = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._engine = Engine(Scratch(scratch), self._farms, self._caches, files, Here(self._local_places))
        self._warned_at = 0.0
        self._last_end = time.monotonic()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._watcher = Watcher()

    def serve(self) -> None:
        """Until told to stop, or idle for long enough."""
        stopped = select.poll()
        stopped.register(self._stop, select.POLLIN)
        try:
            self._waiting = 1
            self._start_thread()
            while (left_s := self._idle_left_s()) > 0 and not stopped.poll(max(0.05, left_s) * 1000):
                pass
        finally:
            self._caches.save()
            self._farms.close()

    def stop(self) -> None:
        """End `serve`; from any thread or a signal's handler."""
        os.eventfd_write(self._stop, 1)

    def _idle_left_s(self) -> float:
        with self._lock:
            return self._idle_s if self._calls else self._last_end + self._idle_s - time.monotonic()

    def _start_thread(self) -> None:
        threading.Thread(target=self._serve_calls, daemon=True).start()

    # --- in a call's thread -----------------------------------------------------------------------------

    def _serve_calls(self) -> None:
        """One after another. While any is served, there is a thread that waits for the next; it counts as waiting from
        before its start."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                logger.warning("no call can be taken for a moment: %s", error.strerror)
                time.sleep(ACCEPT_AGAIN_S)
                continue
            with self._lock:
                self._calls += 1
                self._waiting -= 1
                last = not self._waiting
                self._waiting += last
            try:
                if last:
                    self._start_thread()
            except RuntimeError:  # there are as many as may be: the next call waits until one of them is free
                with self._lock:
                    self._waiting -= 1
            self._serve_one(connection)
            with self._lock:
                if self._waiting >= MOST_WAITING:
                    return
                self._waiting += 1

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            _, uid, _ = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid != os.geteuid():
                return
            request = dialogue.receive_request(connection)
            if request is None:
                return
            if request.words[:1] == (CONTROL,):
                connection.sendall(dialogue.encode_answer(self._control(request)))
            elif request.words:
                self._answer(request, connection)
        except (OSError, dialogue.Malformed) as error:
            logger.debug("a call: %s", error)
        finally:
            connection.close()
            with self._lock:
                self._calls -= 1
                self._last_end = time.monotonic()

    def _answer(self, request: Request, connection: socket.socket) -> None:
        cancel = Cancel()
        self._watcher.watch(connection, cancel)
        try:
            answer, keep = self._try(request, cancel)
        finally:
            self._watcher.forget(connection)
        if answer.kind == dialogue.DONE:
            if not cancel.gone:
                connection.sendall(dialogue.encode_answer(answer))
            if keep is not None:
                keep()
            return
        if cancel.gone:
            return
        with self._local_places:
            connection.sendall(dialogue.encode_answer(answer))
            connection.recv(1)  # its end: the compiler that runs in the launcher's place has ended

    def _try(self, request: Request, cancel: Cancel) -> tuple[Answer, Callable[[], None] | None]:
        """The answer, and what is to be done when it was given."""
        try:
            if request.environ.get("RAKEFARM_CC") == "off":
                raise Local(Reason.SWITCHED_OFF)
            compiled = self._engine.compile(request, cancel)
        except Local as reason:
            return self._leave(request, reason), None
        except Exception as error:
            logger.exception("a fault, with %r", request.words)
            return self._leave(request, Local(Reason.FAULT, f"{type(error).__name__}: {error}")), None
        if compiled.here is not None:
            why = self._count_local(request, compiled.here)
            note = f"here: {why}" if why else ""
        else:
            with self._lock:
                self._counts["SERVED" if compiled.kept else "REMOTE" if compiled.host else "KEPT"] += 1
                if not compiled.kept:
                    self._hosts[compiled.host] += 1
            note = f"on {compiled.host}" if compiled.host else "out of the result cache"
            note += ", out of its results" if compiled.kept else ""
        note += f"; not in the result cache, since {compiled.missed}" if note and compiled.missed else ""
        stderr = _noted(request, compiled.stderr, note, always=compiled.here is not None)
        return Answer(dialogue.DONE, compiled.status, compiled.stdout, stderr), compiled.keep

    def _count_local(self, request: Request, reason: Local) -> str:
        """What is to be said of it to the caller, or nothing."""
        with self._lock:
            self._counts[reason.reason.name] += 1
            warn = reason.reason is Reason.NO_SERVER and not self._warned_at
            if warn:
                self._warned_at = time.monotonic()
        logger.debug("here: %s: %r", reason, request.words)
        return str(reason) if warn or request.environ.get("RAKEFARM_VERBOSE") else ""

    def _leave(self, request: Request, reason: Local) -> Answer:
        why = self._count_local(request, reason)
        try:
            search = os.fsencode(request.environ.get("PATH", ""))
            program = find_compiler(request.words[0], request.directory, search)
            name = name_for(program, request.words[0], request.directory, search)
        except Local:
            program = name = b""
        return dialogue.local(program, name, why)

    # --- for the helper itself --------------------------------------------------------------------------

    def _control(self, request: Request) -> Answer:
        match request.words[1:]:
            case (b"stop",):
                self.stop()
                return Answer(dialogue.DONE)
            case (b"statistics",):
                return Answer(dialogue.DONE, stdout=self._statistics().encode())
            case (b"save",):
                self._caches.save()
                return Answer(dialogue.DONE)
            case (b"jobs",):
                return Answer(dialogue.DONE, stdout=b"%d" % self._jobs(request))
            case _:
                return Answer(dialogue.DONE, status=2)

    def _jobs(self, request: Request) -> int:
        """How many compiles the farm that the request names takes at once; 0 when it names none."""
        try:
            return self._farms.find(request.environ).room
        except Local:
            return 0

    def _statistics(self) -> str:
        with self._lock:
            counts, hosts = Counter(self._counts), Counter(self._hosts)
        remote, kept, served = (counts.pop(name, 0) for name in ("REMOTE", "KEPT", "SERVED"))
        lines = [f"rakefarm cc {__version__}, process {os.getpid()}", f"{remote:8} compiled on the farm"]
        lines += [f"{count:8}   on {host}" for host, count in hosts.most_common() if host]
        lines.append(f"{kept:8} taken out of the result cache")
        lines.append(f"{served:8} served out of the results of a server")
        lines.append(f"{sum(counts.values()):8} run here")
        lines += [f"{count:8}   {name.lower()}: {Reason[name].value}" for name, count in counts.most_common()]
        lines.append(f"{len(self._engine.files):8} files known")
        return "\n".join(lines) + "\n"


def _noted(request: Request, stderr: bytes, note: str, always: bool) -> bytes:
    """The compiler's messages, with a line of ours where one is asked for, or there is something to say `always`."""
    if not note or not (always or request.environ.get("RAKEFARM_VERBOSE")):
        return stderr
    return f"rakefarm cc: {note}\n".encode("utf-8", "surrogateescape") + stderr


def run(directory: str, environ: Mapping[str, str], idle_s: float = IDLE_S) -> int:
    """Be the helper of this user, with the socket in `directory`; 0 also when another is there already."""
    import fcntl
    import shutil
    import tempfile

    os.umask(0o077)
    gc.set_threshold(GC_ALLOCATIONS, *gc.get_threshold()[1:])
    lock = os.open(os.path.join(directory, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    path = os.path.join(directory, "socket")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    for name in os.listdir(directory):
        if name.startswith("lists-"):  # of one that was killed
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    scratch = tempfile.mkdtemp(prefix="lists-", dir=directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(BACKLOG)
    os.chdir("/")
    helper = Helper(listener, scratch, environ, idle_s)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: helper.stop())
    try:
        helper.serve()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
