"""One lease: an action of an engine's, run as one of our own protocol's is, in the same executors and slots.

    inputs placed ─► its turn, a slot ─► the command ─► outputs stored there ─► a result

How it ends is one of two things. An action that ran, however it went, or that no machine could run, has a result or a
status that nobody tries again. What is the fault of this machine, or of the moment, is UNAVAILABLE: the engine gives
the action to another.
"""

import os
import select
import socket
import time

from google.protobuf.message import DecodeError
from msgspec import Struct

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.api import status_pb2
from rakefarm.engine.blobs import Blobs, Missing
from rakefarm.engine.errors import EngineAway, EngineRefuses, EngineUnbelievable
from rakefarm.engine.tree import Contents
from rakefarm.logs import logger
from rakefarm.market.kind import kind_of
from rakefarm.server.audit import shown
from rakefarm.server.delivery import keep_outputs
from rakefarm.server.desk import Desk, job_of, licenses_of
from rakefarm.server.executors import Executor, ExecutorLost
from rakefarm.server.holding import Holding
from rakefarm.server.job import Ended, Job
from rakefarm.server.join.ending import Unable, add_streams, invalid, judge, lacking, refused, unavailable
from rakefarm.server.join.inputs import Placing, TooMany, read_tree
from rakefarm.server.join.memory import Messages
from rakefarm.server.join.order import NotHere, Order, read_order
from rakefarm.server.join.outputs import Collected, Collecting
from rakefarm.server.limits import TooMuch, Watch, check_outputs, end_of
from rakefarm.server.roster import short
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.turn import wait_for_grant
from rakefarm.server.users import number_of
from rakefarm.server.workplace import Workplace
from rakefarm.snapshot import UnfitOutput
from rakefarm.transport import Lost
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Task

Outcome = tuple[api.ActionResult | None, status_pb2.Status]


class Withdrawn(Exception):
    """The engine has taken the lease back, or we give it back: nobody waits for its end."""


class Colleagues(Struct, frozen=True):
    """What all leases of one server work with: the engine's name, its store, and what they share."""

    work: Workplace
    desk: Desk
    engine: str
    blobs: Blobs
    messages: Messages


class Watched:
    """What whoever waits polls beside the rest; readable once the lease is withdrawn. It stands where a client does."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()

    def withdraw(self) -> None:
        """From any thread."""
        self._other.close()

    def check(self) -> None:
        """Raises Lost once it is."""
        if self._other.fileno() < 0:
            raise Lost("the engine has withdrawn the lease")

    def close(self) -> None:
        """At the end."""
        self.socket.close()
        self._other.close()


class Lease:
    """`run` in a thread of its own; `withdraw` from any."""

    def __init__(self, shared: Colleagues, bot: str, action: api.Action) -> None:
        self._shared = shared
        self._work = shared.work
        self._bot = bot
        self._action = action
        self._watched = Watched()
        self._held = Holding(shared.work)
        self._label = ""
        self._metadata = api.ExecutedActionMetadata(worker=bot)

    def withdraw(self) -> None:
        """End it, and whatever it runs."""
        self._watched.withdraw()

    def run(self) -> Outcome:
        """Its result, or why there is none. Raises Withdrawn; nothing of it is left here in any case."""
        self._metadata.worker_start_timestamp.GetCurrentTime()
        began = time.monotonic()
        result: api.ActionResult | None = None
        try:
            result, status = self._perform()
        except (Unable, ExecutorLost, EngineAway) as error:
            status = self._at_fault(str(error))
        except OSError as error:
            status = self._at_fault(error.strerror or str(error))
        except Missing as error:
            status = lacking(error)
        except (NotHere, TooMany) as error:
            status = refused(str(error))
        except (EngineUnbelievable, EngineRefuses, UnsafePath, DecodeError) as error:
            status = invalid(f"an action that can't be: {error}")
        except Lost as error:
            raise Withdrawn from error
        finally:
            self._watched.close()
        if status.code:
            logger.warning("%s: %r: %s", self._shared.engine, self._label, status.message)
        if result is not None:
            self._metadata.worker_completed_timestamp.GetCurrentTime()
            result.execution_metadata.CopyFrom(self._metadata)
        self._keep(result, status, time.monotonic() - began)
        return result, status

    def _at_fault(self, text: str) -> status_pb2.Status:
        """We, and not the command, failed: another worker is to have it, and our price remembers it for a while."""
        self._work.board.scoreboard.add_fault(self._work.settings.price.fault_half_life_s)
        return unavailable(self._work.name, text)

    def _perform(self) -> Outcome:
        shared, work = self._shared, self._work
        order = read_order(self._action, shared.blobs, shared.messages, work.settings.programs)
        self._label = order.label
        self._metadata.input_fetch_start_timestamp.GetCurrentTime()
        tree = read_tree(order.root, shared.blobs, shared.messages, work.limits)
        task = Task(kind_of(self._label), order.needs, tree.total_bytes, 0.0, 0)
        refusal = shared.desk.refusal(job_of(task), shared.desk.look())
        if refusal is not None:
            raise Unable(refusal.text)
        directory = self._held.make_directory()
        try:
            self._place(directory, order, tree)
            return self._run_in(directory, order, task)
        finally:
            self._held.tidy()
            self._held.release()

    def _place(self, directory: ActionDirectory, order: Order, tree: Contents) -> None:
        """All that is there before the command: its inputs, its working directory, and those of its outputs."""
        placing = Placing(directory, self._work.store, self._shared.blobs, self._watched.check)
        placing.place(tree, self._work.board.count_inputs)
        if order.directory:
            directory.make_way(order.directory + b"/.")
        for path in order.wanted:
            try:
                directory.make_way(order.place(path))
            except (FileExistsError, NotADirectoryError):
                continue  # a file on the way is the command's affair: it may mean to replace it
        placing.link(tree)
        self._metadata.input_fetch_completed_timestamp.GetCurrentTime()

    # --- its place ------------------------------------------------------------------------------------

    def _wait(self, task: Task) -> None:
        """For a slot, in turn with everybody who wants one of this server."""
        work, shared = self._work, self._shared
        user = number_of(shared.engine)
        grant = wait_for_grant(work, self._watched, licenses_of(task), user, self._watched.check)
        self._held.grant = grant
        run_s, _ = shared.desk.expect(job_of(task), shared.desk.look())
        self._held.occupy(run_s, leased=True)
        work.board.enter(grant.slot, short(shown(shared.engine)), short(shown(self._bot)), short(shown(self._label)))

    # --- the command ----------------------------------------------------------------------------------

    def _run_in(self, directory: ActionDirectory, order: Order, task: Task) -> Outcome:
        self._wait(task)
        executor = self._held.executor
        directory.hand_over()
        self._held.at_work = True
        self._metadata.execution_start_timestamp.GetCurrentTime()
        executor.start(self._make_job(executor, order))
        answer, exceeded = executor.finish_soon(), ""
        if answer is None:
            answer, exceeded = self._watch(executor, directory)
        ended, files = answer
        # Our word may have come when it had ended by itself, and then waits to be read: such an executor is not kept.
        self._held.at_work = bool(exceeded) and ended.outcome != "stopped"
        self._metadata.execution_completed_timestamp.GetCurrentTime()
        directory.take_back()
        self._held.release()
        try:
            exceeded = exceeded or end_of(ended, self._work.limits, order.timeout_s)
            return self._conclude(directory, order, ended, files, exceeded)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def _make_job(self, executor: Executor, order: Order) -> Job:
        work, limits = self._work, self._work.limits
        where = executor.inside + b"/box" + (b"/" + order.directory if order.directory else b"")
        own = {b"HOME": executor.inside + b"/tmp", b"TMPDIR": executor.inside + b"/tmp", b"PWD": where}
        return Job(
            command=order.command,
            directory=where,
            environment={**work.environment(()), **own, **order.environment},
            timeout_s=min([seconds for seconds in (order.timeout_s, limits.time_s) if seconds], default=0.0),
            stdout_most=limits.stdout_size,
            stderr_most=limits.stderr_size,
        )

    def _watch(self, executor: Executor, directory: ActionDirectory) -> tuple[tuple[Ended, list[int]], str]:
        """Until the executor has its answer; and what it took too much of, if that ended it. Raises Lost once the lease
        is withdrawn: the executor is then ended with all that runs in it."""
        poller = select.poll()
        poller.register(executor.socket, select.POLLIN)
        poller.register(self._watched.socket, select.POLLIN | select.POLLRDHUP)
        box_is_limited = executor.home_descriptor is not None
        watch = Watch(self._work.limits, executor.pid, (directory.box, directory.tmp), box_is_limited)
        exceeded = ""
        while True:
            wait_ms = None if exceeded else max(0.0, watch.due - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in poller.poll(wait_ms)}
            if executor.socket.fileno() in ready:
                return executor.finish(), exceeded
            if self._watched.socket.fileno() in ready:
                raise Lost("the engine has withdrawn the lease")
            if not exceeded and time.monotonic() >= watch.due:
                exceeded = watch.look()
                if exceeded:
                    executor.stop()

    # --- the result -----------------------------------------------------------------------------------

    def _conclude(
        self, directory: ActionDirectory, order: Order, ended: Ended, files: list[int], exceeded: str
    ) -> Outcome:
        notes: list[str] = []
        try:
            collected = self._collect(directory, order)
        except (UnfitOutput, TooMuch) as unfit:
            collected = Collected(api.ActionResult(), {}, [])
            notes.append(str(unfit))
        status = judge(ended, exceeded, notes, collected.result)
        self._metadata.output_upload_start_timestamp.GetCurrentTime()
        add_streams(collected, ended, files, notes)
        self._watched.check()
        self._shared.blobs.store(collected.sources)
        self._metadata.output_upload_completed_timestamp.GetCurrentTime()
        keep_outputs(self._work.store, collected.made)
        return collected.result, status

    def _collect(self, directory: ActionDirectory, order: Order) -> Collected:
        limits, uid = self._work.limits, self._work.executors.confinement.uid

        def admit(count: int, size: int) -> None:
            check_outputs(count, size, limits)

        collecting = Collecting(directory.box, self._watched.check, admit, uid or os.geteuid())
        return collecting.collect(order.directory, order.wanted)

    def _keep(self, result: api.ActionResult | None, status: status_pb2.Status, elapsed_s: float) -> None:
        """A line of the audit log."""
        if self._work.audit.kept:
            self._work.audit.write(
                "ran",
                self._shared.engine,
                user=self._shared.engine,
                authentication="engine",
                client=self._bot,
                command=shown(self._label),
                label="",
                outcome="exited" if result is not None else f"declined: {status.message[:80]}",
                status=result.exit_code if result is not None else 0,
                elapsed_s=round(elapsed_s, 3),
            )
