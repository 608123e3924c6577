"""One lease: an action of an engine's, run as one of our own protocol's is, in the same executors and slots.

    inputs placed ─► its turn, a slot ─► the command ─► outputs stored there ─► a result

How it ends is one of two things. An action that ran, however it went, or that no machine could run, has a result or a
status that nobody tries again. What is the fault of this machine, or of the moment, is UNAVAILABLE: the engine gives the
action to another.
"""

import os
import select
import shlex
import socket
import time

import grpc
from google.protobuf.message import DecodeError
from msgspec import Struct

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.api import status_pb2
from rakefarm.engine.blobs import Blobs, Missing, Source
from rakefarm.engine.content import Content, content_of, read_digest
from rakefarm.engine.errors import EngineAway, EngineRefuses, EngineUnbelievable
from rakefarm.engine.properties import to_needs
from rakefarm.logs import logger
from rakefarm.market.kind import kind_of
from rakefarm.server.audit import shown
from rakefarm.server.delivery import keep_outputs
from rakefarm.server.desk import Desk, job_of, licenses_of
from rakefarm.server.executors import Executor, ExecutorLost
from rakefarm.server.grants import Grant
from rakefarm.server.job import Ended, Job
from rakefarm.server.join.inputs import Placing, TooMany, read_tree
from rakefarm.server.join.memory import Messages
from rakefarm.server.join.outputs import Collected, Collecting
from rakefarm.server.limits import TooMuch, Watch, check_outputs, end_of
from rakefarm.server.programs import choose_program
from rakefarm.server.roster import short
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.turn import wait_for_grant
from rakefarm.server.users import number_of
from rakefarm.server.workplace import Workplace
from rakefarm.snapshot import UnfitOutput
from rakefarm.transport import Lost
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Need, Task
from rakefarm.wire.paths import check_path

INLINE_BYTES = 16 << 10
"""Output that travels in the result itself."""
COMMAND_BYTES = 4 << 20
SIGNALLED = 128
"""A shell's exit status for a signal is this and its number; the interface has no other word for it."""
NOT_FOUND = 127
OVER_LIMIT = 137
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class Withdrawn(Exception):
    """The engine has taken the lease back, or we give it back: nobody waits for its end."""


class Unable(Exception):
    """This machine, or this moment, is at fault; another may run it."""


class Colleagues(Struct, frozen=True):
    """What all leases of one server work with: the engine's name, its store, and what they share."""

    work: Workplace
    desk: Desk
    engine: str
    bot: str
    blobs: Blobs
    messages: Messages


class Watched:
    """What whoever waits polls beside the rest; readable once the lease is withdrawn. It stands where a client does."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()

    def withdraw(self) -> None:
        """From any thread."""
        self._other.close()

    @property
    def withdrawn(self) -> bool:
        """Whether it has been."""
        return self._other.fileno() < 0

    def close(self) -> None:
        """At the end."""
        self.socket.close()
        self._other.close()


class Lease:
    """`run` in a thread of its own; `withdraw` from any."""

    def __init__(self, colleagues: Colleagues, action: api.Action) -> None:
        self._shared = colleagues
        self._work = colleagues.work
        self._action = action
        self._watched = Watched()
        self._grant: Grant | None = None
        self._executor: Executor | None = None
        self._at_work = False
        self._label = ""
        self.metadata = api.ExecutedActionMetadata(worker=colleagues.bot)

    def withdraw(self) -> None:
        """End it, and whatever it runs."""
        self._watched.withdraw()

    def run(self) -> tuple[api.ActionResult | None, status_pb2.Status]:
        """Its result, or why there is none. Raises Withdrawn; nothing of it is left here in any case."""
        self.metadata.worker_start_timestamp.GetCurrentTime()
        began = time.monotonic()
        result: api.ActionResult | None = None
        status = status_pb2.Status()
        try:
            result, status = self._perform()
        except (Unable, ExecutorLost, EngineAway) as error:
            self._work.board.scoreboard.add_fault(self._work.settings.price.fault_half_life_s)
            status = status_pb2.Status(code=UNAVAILABLE, message=f"{self._work.name}: {error}"[:500])
        except OSError as error:
            self._work.board.scoreboard.add_fault(self._work.settings.price.fault_half_life_s)
            status = status_pb2.Status(code=UNAVAILABLE, message=f"{self._work.name}: {error.strerror}")
        except Missing as error:
            status = _missing(error)
        except TooMany as error:
            status = status_pb2.Status(code=FAILED_PRECONDITION, message=str(error)[:500])
        except (EngineUnbelievable, EngineRefuses, UnsafePath, DecodeError) as error:
            status = status_pb2.Status(code=INVALID_ARGUMENT, message=f"an action that can't be: {error}"[:500])
        except Lost as error:
            raise Withdrawn from error
        finally:
            self._watched.close()
        if status.code:
            logger.warning("%s: could not run %r: %s", self._shared.engine, self._label, status.message)
        self._keep(result, status, time.monotonic() - began)
        if result is not None:
            self.metadata.worker_completed_timestamp.GetCurrentTime()
            result.execution_metadata.CopyFrom(self.metadata)
        return result, status

    def _check(self) -> None:
        if self._watched.withdrawn:
            raise Lost("withdrawn")

    # --- what it is -----------------------------------------------------------------------------------

    def _perform(self) -> tuple[api.ActionResult | None, status_pb2.Status]:
        shared, action = self._shared, self._action
        place = read_digest(action.command_digest)
        if place.size > COMMAND_BYTES:
            raise EngineUnbelievable(f"a command of {place.size} bytes")
        self._command = api.Command.FromString(shared.messages.read([place], shared.blobs)[place])
        self._words = self._shell_words()
        self._label = os.fsdecode(self._words)[:120]
        self._directory = _path(self._command.working_directory, "working directory")
        self._wanted = self._outputs()
        self.metadata.input_fetch_start_timestamp.GetCurrentTime()
        tree = read_tree(read_digest(action.input_root_digest), shared.blobs, shared.messages, self._work.limits)
        platform = action.platform if action.HasField("platform") else self._command.platform
        needs = to_needs((each.name, each.value) for each in platform.properties)
        size = sum([file.content.size for file in tree.files])
        self._task = Task(kind_of(self._label), tuple([Need(*pair) for pair in needs]), size, 0.0, 0)
        self._job = job_of(self._task)
        refusal = shared.desk.refusal(self._job, shared.desk.look())
        if refusal is not None:
            raise Unable(refusal.text)
        # Taken before the inputs are placed, since they go where its command will find them.
        self._executor = self._work.executors.take()
        try:
            directory = ActionDirectory(self._executor.home, self._work.executors.confinement.uid)
            try:
                Placing(directory, self._work.store, shared.blobs, self._check).place(
                    tree, self._work.board.count_inputs
                )
                self._make_ways(directory)
                self.metadata.input_fetch_completed_timestamp.GetCurrentTime()
                return self._run_in(directory)
            finally:
                self._tidy(directory)
        finally:
            self._release()
            self._let_go()

    def _shell_words(self) -> bytes:
        """The command as our executors have it: text for a shell, which is started only where it takes one."""
        words = list(self._command.arguments)
        if not words or any("\0" in word for word in words):
            raise EngineUnbelievable("a command without a word, or with a NUL")
        through_shell = len(words) == 3 and words[:2] == ["/bin/sh", "-c"]
        command = (words[2] if through_shell else shlex.join(words)).encode("utf-8", "surrogateescape")
        programs = self._work.settings.programs
        if programs:
            chosen = choose_program(command, programs)
            if chosen is None:
                listed = ", ".join(sorted(programs))
                raise TooMany(f"this server only runs, without a shell: {listed}", "FAILED_PRECONDITION")
            return chosen
        return command

    def _outputs(self) -> list[bytes]:
        command = self._command
        names = command.output_paths or [*command.output_files, *command.output_directories]
        return list(dict.fromkeys([_path(name, "output path") for name in names]))

    def _make_ways(self, directory: ActionDirectory) -> None:
        """The working directory, and those of the outputs: all that is there before the command."""
        if self._directory:
            directory.make_way(self._directory + b"/.")
        for path in self._wanted:
            place = b"/".join([part for part in (self._directory, path) if part])
            try:
                directory.make_way(place)
            except (FileExistsError, NotADirectoryError):
                continue  # a file on the way is the command's affair: it may mean to replace it

    # --- its place ------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """For a slot, in turn with everybody who wants one of this server."""
        work, shared = self._work, self._shared
        user = number_of(shared.engine)
        grant = wait_for_grant(work, self._watched, licenses_of(self._task), user, lambda: None)
        self._grant = grant
        run_s, self._share = shared.desk.expect(self._job, shared.desk.look())
        work.board.begin(grant.slot, run_s, leased=True)
        work.board.enter(grant.slot, short(shown(shared.engine)), short(shown(shared.bot)), short(shown(self._label)))

    def _release(self) -> None:
        grant, self._grant = self._grant, None
        if grant is not None:
            self._work.board.end(grant.slot)
            self._work.board.let_go(grant.slot)
            self._work.grants.give_back(grant)

    def _tidy(self, directory: ActionDirectory) -> None:
        """Remove the directory; an executor that is left with something of it, or with a command, is ended."""
        executor, self._executor = self._executor, None
        assert executor is not None
        if not self._at_work and directory.remove():
            self._work.executors.give_back(executor)
        else:
            self._work.executors.drop(executor)

    def _let_go(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            self._work.executors.drop(executor)

    # --- the command ----------------------------------------------------------------------------------

    def _run_in(self, directory: ActionDirectory) -> tuple[api.ActionResult | None, status_pb2.Status]:
        self._wait()
        executor = self._executor
        assert executor is not None
        directory.hand_over()
        self._at_work = True
        self.metadata.execution_start_timestamp.GetCurrentTime()
        executor.start(self._make_job(executor))
        exceeded = ""
        answer = executor.finish_soon()
        if answer is None:
            answer, exceeded = self._watch(executor, directory)
        ended, files = answer
        # Our word may have come when it had ended by itself, and then waits to be read: such an executor is not kept.
        self._at_work = bool(exceeded) and ended.outcome != "stopped"
        self.metadata.execution_completed_timestamp.GetCurrentTime()
        directory.take_back()
        self._release()
        try:
            if ended.outcome == "could_not_start":
                raise Unable(f"the command could not be started: {ended.detail}")
            return self._conclude(directory, ended, files, exceeded)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def _make_job(self, executor: Executor) -> Job:
        work, limits = self._work, self._work.limits
        where = executor.inside + b"/box" + (b"/" + self._directory if self._directory else b"")
        own = {b"HOME": executor.inside + b"/tmp", b"TMPDIR": executor.inside + b"/tmp", b"PWD": where}
        wanted = {
            each.name.encode("utf-8", "surrogateescape"): each.value.encode("utf-8", "surrogateescape")
            for each in self._command.environment_variables
        }
        if any(not name or b"=" in name or b"\0" in name + value for name, value in wanted.items()):
            raise EngineUnbelievable("a variable that no process can have")
        times = [seconds for seconds in (self._timeout_s(), limits.time_s) if seconds]
        return Job(
            command=self._words,
            directory=where,
            environment={**work.environment(()), **own, **wanted},
            timeout_s=min(times, default=0.0),
            stdout_most=limits.stdout_size,
            stderr_most=limits.stderr_size,
        )

    def _timeout_s(self) -> float:
        timeout = self._action.timeout
        return max(0.0, timeout.seconds + timeout.nanos / 1e9)

    def _watch(self, executor: Executor, directory: ActionDirectory) -> tuple[tuple[Ended, list[int]], str]:
        """Until the executor has its answer; what it took too much of, if that ended it. Raises Lost once the lease is
        withdrawn: the executor is then ended with all that runs in it."""
        poller = select.poll()
        poller.register(executor.socket, select.POLLIN)
        poller.register(self._watched.socket, select.POLLIN | select.POLLRDHUP)
        box_is_limited = executor.home_descriptor is not None
        watch = Watch(self._work.limits, executor.pid, (directory.box, directory.tmp), box_is_limited)
        exceeded = ""
        while True:
            wait_s = max(0.0, watch.due - time.monotonic()) if not exceeded else None
            ready = {descriptor for descriptor, _ in poller.poll(None if wait_s is None else wait_s * 1000)}
            if executor.socket.fileno() in ready:
                return executor.finish(), exceeded
            if self._watched.socket.fileno() in ready:
                raise Lost("withdrawn")
            if not exceeded and time.monotonic() >= watch.due and (exceeded := watch.look()):
                executor.stop()

    # --- the result -----------------------------------------------------------------------------------

    def _conclude(
        self, directory: ActionDirectory, ended: Ended, files: list[int], exceeded: str
    ) -> tuple[api.ActionResult, status_pb2.Status]:
        status = status_pb2.Status()
        exceeded = exceeded or end_of(ended, self._work.limits, self._timeout_s())
        collected = Collected(api.ActionResult(), {}, [])
        notes: list[str] = []
        try:
            collected = self._collect(directory)
        except (UnfitOutput, TooMuch) as unfit:
            notes.append(str(unfit))
        result = collected.result
        match ended.outcome:
            case "exited":
                result.exit_code = ended.status or (1 if notes else 0)
            case "signalled":
                result.exit_code = SIGNALLED + ended.status
            case "timed_out" if not exceeded:
                status = status_pb2.Status(code=DEADLINE_EXCEEDED, message="its time limit was up")
                result.exit_code = SIGNALLED + 9
            case "unfit_command":
                result.exit_code = NOT_FOUND
                notes.append(f"the command could not be started: {ended.detail}")
            case "stopped" | "timed_out":
                result.exit_code = OVER_LIMIT
            case outcome:
                raise Unable(f"the command ended as {outcome}")
        if exceeded:
            notes.append(exceeded)
            result.exit_code = result.exit_code or OVER_LIMIT
        self.metadata.output_upload_start_timestamp.GetCurrentTime()
        self._add_streams(result, collected.sources, ended, files, notes)
        self._check()
        self._shared.blobs.supply(collected.sources)
        self.metadata.output_upload_completed_timestamp.GetCurrentTime()
        keep_outputs(self._work.store, collected.made)
        return result, status

    def _collect(self, directory: ActionDirectory) -> Collected:
        limits, uid = self._work.limits, self._work.executors.confinement.uid

        def admit(count: int, size: int) -> None:
            check_outputs(count, size, limits)

        collecting = Collecting(directory.box, self._check, admit, uid or os.geteuid())
        return collecting.collect(self._directory, self._wanted)

    def _add_streams(
        self,
        result: api.ActionResult,
        sources: dict[Content, Source],
        ended: Ended,
        files: list[int],
        notes: list[str],
    ) -> None:
        """What it wrote, and what we have to say of its end."""
        handed = iter(files)
        for name, size, data in (
            ("stdout", ended.stdout_bytes, ended.stdout),
            ("stderr", ended.stderr_bytes, ended.stderr),
        ):
            if len(data) < size:
                data = _read_all(next(handed))
            if name == "stderr":
                data += b"".join([f"[rakefarm: {note}]\n".encode() for note in notes])
            if len(data) <= INLINE_BYTES:
                setattr(result, f"{name}_raw", data)
            else:
                content = content_of(data)
                sources[content] = data
                getattr(result, f"{name}_digest").CopyFrom(content.digest)

    def _keep(self, result: api.ActionResult | None, status: status_pb2.Status, elapsed_s: float) -> None:
        """A line of the audit log."""
        if self._work.audit.kept:
            self._work.audit.write(
                "ran",
                self._shared.engine,
                user=self._shared.engine,
                authentication="engine",
                client=self._shared.bot,
                command=shown(self._label),
                label="",
                outcome="exited" if result is not None else f"declined: {status.code}",
                status=result.exit_code if result is not None else 0,
                elapsed_s=round(elapsed_s, 3),
            )


def _missing(error: Missing) -> status_pb2.Status:
    """The interface's way to say which content whoever asked has to send again."""
    status = status_pb2.Status(code=FAILED_PRECONDITION, message=str(error)[:500])
    failure = status_pb2.PreconditionFailure()
    failure.violations.add(type="MISSING", subject=f"blobs/{error.content.name}")
    status.details.add().Pack(failure)
    return status


def _path(text: str, what: str) -> bytes:
    """A checked relative path; empty for the directory itself. Raises UnsafePath."""
    path = text.rstrip("/").encode("utf-8", "surrogateescape")
    if path in (b"", b"."):
        if text.startswith("/"):
            raise UnsafePath(f"the {what} / is absolute")
        return b""
    check_path(path)
    return path


def _read_all(descriptor: int) -> bytes:
    pieces = []
    position = 0
    while data := os.pread(descriptor, 1 << 20, position):
        pieces.append(data)
        position += len(data)
    return b"".join(pieces)
