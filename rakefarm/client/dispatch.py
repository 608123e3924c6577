"""The loop of a build: sets in order, the actions of a set in parallel, each to its host or run here.

The main thread walks the plan and waits; runner threads do one action at a time, blocking, and report. Remote
actions have as many runners as the farm has slots, local ones as many as this machine takes.
"""

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct, field

from rakefarm import process
from rakefarm.client import local, remote
from rakefarm.client.auction import Auctioneer, Award, NoBid
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import Hasher, InputError, Manifest, declared_paths, find_missing
from rakefarm.client.link import Request
from rakefarm.client.outputs import Claims, Incoming, OutputError
from rakefarm.client.plan import Outcome, Plan, PlannedAction
from rakefarm.config import ClientSettings
from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    Event,
    Notice,
    SetStarted,
    Stream,
)
from rakefarm.market.kind import kind_of
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Need, Result, Variable

LOCAL = "local"
RETRY_PAUSE_S = 0.2
JOIN_S = 1.5


class Interrupted(BaseException):
    """A signal asked the build to stop; raised in the main thread by its handler."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class NotRun(Exception):
    """The farm could not run an action."""


class Report(Struct):
    """How an action ended, on its way to its ActionFinished."""

    outcome: Outcome
    host: str = ""
    detail: str = ""
    exit_status: int | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    outputs: tuple[str, ...] = ()
    stdout: process.Capture = field(default_factory=process.Capture)
    stderr: process.Capture = field(default_factory=process.Capture)


class Dispatcher:
    """Runs a plan once."""

    def __init__(
        self,
        plan: Plan,
        farm: Farm,
        settings: ClientSettings,
        environ: Mapping[str, str],
        stream: Stream,
    ) -> None:
        self._plan = plan
        self._farm = farm
        self._settings = settings
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        self._environ[b"PWD"] = os.getcwdb()  # what a shell would make of it; ours may be stale after -C
        self._passed = self._passed_variables()
        self._stream = stream
        self._auctioneer = Auctioneer(farm, stream, settings.quote_s)
        self._hasher = Hasher()
        self._claims = Claims()
        self._done: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        self._cancel = os.eventfd(0, os.EFD_CLOEXEC)
        self._cancelled = False
        self._threads: list[threading.Thread] = []
        self._queues: dict[bool, queue.SimpleQueue[PlannedAction | None]] = {
            True: queue.SimpleQueue(),
            False: queue.SimpleQueue(),
        }

    def run(self) -> None:
        """Run everything. Whatever ends it, no command of ours is left running afterwards, here or on a server."""
        try:
            for planned in self._plan.sets_to_run():
                self._run_set(planned.index, planned.name, planned.actions)
        except BaseException:
            self._stop()
            raise
        finally:
            for waiting in self._queues.values():
                for _ in self._threads:
                    waiting.put(None)
            deadline = time.monotonic() + JOIN_S
            for thread in self._threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._farm.close()

    def _stop(self) -> None:
        self._cancelled = True
        os.eventfd_write(self._cancel, 1)
        self._farm.close()

    def _run_set(self, index: int, name: str, actions: tuple[PlannedAction, ...]) -> None:
        self._claims.clear()
        self._stream.emit(SetStarted(index=index, set_name=name, actions=len(actions)))
        self._start_threads(actions)
        outstanding = 0
        for planned in actions:
            action = planned.action
            self._stream.emit(
                ActionQueued(
                    action=planned.number,
                    set_name=name,
                    line=action.line,
                    command=action.command,
                    remote=action.remote,
                )
            )
            missing = find_missing(action.requires)
            if missing is None or not action.remote:
                if missing is not None:
                    self._warn(f"line {action.line}: required file {missing} is missing")
                self._queues[action.remote].put(planned)
                outstanding += 1
            else:
                report = Report(Outcome.FAILED, detail=f"missing required file {missing}; nothing was sent")
                self._finish(planned, report, time.monotonic())
                self._plan.finished(planned.number, Outcome.FAILED)
        while outstanding:
            ended = self._done.get()
            if isinstance(ended, BaseException):
                raise ended
            self._plan.finished(*ended)
            outstanding -= 1

    def _start_threads(self, actions: tuple[PlannedAction, ...]) -> None:
        """As many runners of each sort as this set can use; those of earlier sets are still there."""
        for is_remote in (True, False):
            wanted = sum(1 for planned in actions if planned.action.remote is is_remote)
            limit = self._remote_limit() if is_remote else self._local_limit()
            label = "remote" if is_remote else LOCAL
            have = sum(1 for thread in self._threads if thread.name == label)
            for _ in range(min(wanted, limit) - have):
                thread = threading.Thread(target=self._work, args=(is_remote,), name=label, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _remote_limit(self) -> int:
        slots = max(1, self._farm.slots)
        return min(slots, self._settings.jobs) if self._settings.jobs else slots

    def _local_limit(self) -> int:
        return self._settings.local_jobs or self._settings.jobs or max(8, 2 * (os.cpu_count() or 1))

    # --- in a runner thread ---------------------------------------------------------------------------

    def _work(self, is_remote: bool) -> None:
        perform = self._perform_remote if is_remote else self._perform_local
        waiting = self._queues[is_remote]
        while not self._cancelled and (planned := self._next(waiting)) is not None:
            try:
                self._done.put((planned.number, self._run_action(planned, perform)))
            except BaseException as error:
                # Handed to the main thread, which ends the build and raises it again.
                self._done.put(error)
                return

    def _next(self, waiting: queue.SimpleQueue[PlannedAction | None]) -> PlannedAction | None:
        try:
            return waiting.get_nowait()
        except queue.Empty:
            self._farm.flush_idle()
            return waiting.get()

    def _run_action(self, planned: PlannedAction, perform: Callable[[PlannedAction], Report]) -> Outcome:
        started = time.monotonic()
        try:
            report = perform(planned)
        except NotRun as error:
            report = Report(Outcome.NOT_RUN, detail=str(error))
        except (InputError, OutputError) as error:
            report = Report(Outcome.FAILED, detail=str(error))
        except OSError as error:
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            report = Report(Outcome.FAILED, detail=f"here: {error.strerror or error}{where}")
        if not self._cancelled:
            self._finish(planned, report, started)
        report.stdout.close()
        report.stderr.close()
        return report.outcome

    def _perform_remote(self, planned: PlannedAction) -> Report:
        """Bid, run, and on a loss bid again, a bounded number of times."""
        avoid: dict[str, str] = {}
        attempt = 0
        while True:
            attempt += 1
            if self._cancelled:
                raise NotRun("the build was interrupted")
            manifest = self._hasher.manifest(planned.action.requires)
            order = self._order(planned, manifest)
            digests = {entry.sha256: entry.size for entry in manifest.entries}
            try:
                award = self._auctioneer.award(planned.number, order.request, digests, avoid)
            except NoBid as none:
                if none.final or attempt >= self._settings.attempts or self._settings.fallback == "never":
                    return self._fall_back(planned, f"no server can run it: {none}")
                # Those that lost it are better than nobody, and a full one may have room in a moment.
                avoid.clear()
                time.sleep(RETRY_PAUSE_S * attempt)
                continue
            self._stream.emit(
                ActionPlaced(action=planned.number, host=award.member.name, price=award.price, attempt=attempt)
            )
            try:
                return self._attempt(planned, order, award)
            except (Lost, ProtocolError, remote.Declined) as error:
                reason = str(error) if isinstance(error, remote.Declined) else f"lost: {explain(error)}"
                if self._cancelled:
                    raise NotRun("the build was interrupted") from error
                avoid[award.member.name] = reason
                if self._settings.fallback == "never" or attempt >= self._settings.attempts:
                    return self._fall_back(planned, f"{award.member.name}: {reason}")
                self._stream.emit(ActionRetried(action=planned.number, host=award.member.name, reason=reason))

    def _fall_back(self, planned: PlannedAction, reason: str) -> Report:
        if self._settings.fallback != LOCAL:
            raise NotRun(reason)
        self._warn(f"line {planned.action.line}: {reason}; it runs here instead")
        return self._perform_local(planned, staged=True)

    def _order(self, planned: PlannedAction, manifest: Manifest) -> remote.Order:
        action = planned.action
        needs = tuple([Need(key, value) for key, value in action.needs])
        return remote.Order(
            request=Request(kind_of(action.command), needs, manifest.total_bytes),
            command=os.fsencode(action.command),
            manifest=manifest,
            produces=None if action.produces is None else declared_paths(action.produces),
            timeout_s=action.timeout_s,
            environment=self._passed,
            label=f"{planned.set_name[:60]} line {action.line}".encode("utf-8", "replace").decode(),
        )

    def _passed_variables(self) -> tuple[Variable, ...]:
        """Variables that make a difference to a compiler's output; the server has the last word on each."""
        extra = {os.fsencode(name) for name in self._settings.environment}
        wanted = extra | {b"LANG", b"LANGUAGE", b"TZ", b"SOURCE_DATE_EPOCH"}
        return tuple(
            [
                Variable(name, value)
                for name, value in self._environ.items()
                if name in wanted or name.startswith(b"LC_")
            ]
        )

    def _attempt(self, planned: PlannedAction, order: remote.Order, award: Award) -> Report:
        link, member = award.link, award.member
        transport = link.transport
        sent, received = transport.sent, transport.received
        report = Report(Outcome.SUCCEEDED, host=member.name)
        incoming = Incoming()

        def tell(phase: str, cpu_s: float, memory_bytes: int) -> None:
            self._stream.emit(
                ActionPhase(
                    action=planned.number,
                    host=member.name,
                    phase=phase,
                    cpu_s=cpu_s,
                    memory_bytes=memory_bytes,
                    bytes_sent=transport.sent - sent,
                    bytes_received=transport.received - received,
                )
            )

        try:
            result = remote.execute(order, award, incoming, report.stdout, report.stderr, tell)
            self._judge(report, result)
            if report.outcome is Outcome.SUCCEEDED:
                self._install(planned, incoming, report)
            link.acknowledge()
        except BaseException:
            self._farm.discard(link)
            report.stdout.close()
            report.stderr.close()
            raise
        finally:
            incoming.close()
        report.bytes_sent, report.bytes_received = transport.sent - sent, transport.received - received
        self._farm.give_back(member, link)
        return report

    def _judge(self, report: Report, result: Result) -> None:
        report.cpu_s, report.peak_memory_bytes = result.cpu_s, result.peak_memory_bytes
        match result.outcome:
            case "exited":
                report.exit_status = result.status
                report.detail = f"exit status {result.status}"
                if result.status:
                    report.outcome = Outcome.FAILED
            case "signalled":
                report.outcome, report.detail = Outcome.FAILED, killed_by(result.status)
            case "timed_out":
                report.outcome, report.detail = Outcome.FAILED, "its time limit was up"
            case _:
                report.outcome, report.detail = Outcome.FAILED, result.detail

    def _install(self, planned: PlannedAction, incoming: Incoming, report: Report) -> None:
        """Give the outputs their names; a disk of ours that won't take them is the action's failure, not the farm's."""
        skip, shared = self._claims.claim(planned.number, incoming.paths)
        for path in shared:
            self._warn(f"two actions of set {planned.set_name!r} make {path}; the last in the file wins")
        try:
            incoming.install(skip)
        except OutputError as error:
            report.outcome, report.detail = Outcome.FAILED, str(error)
            return
        report.outputs = tuple(path for path in incoming.paths if path not in skip)

    def _perform_local(self, planned: PlannedAction, staged: bool = False) -> Report:
        action = planned.action
        self._stream.emit(ActionPlaced(action=planned.number, host=LOCAL, price=None))
        self._stream.emit(ActionPhase(action=planned.number, host=LOCAL, phase="running"))
        incoming = Incoming()
        try:
            if staged or local.needs_staging(action):
                manifest = self._hasher.manifest(action.requires)
                result = local.run_staged(action, manifest, self._environ, self._cancel, incoming)
            else:
                result = local.run_here(action, self._environ, self._cancel)
            completed = result.completed
            report = Report(
                Outcome.SUCCEEDED,
                host=LOCAL,
                cpu_s=completed.cpu_s,
                peak_memory_bytes=completed.peak_memory_bytes,
                stdout=completed.stdout,
                stderr=completed.stderr,
            )
            self._judge_local(report, result)
            if report.outcome is Outcome.SUCCEEDED:
                self._install(planned, incoming, report)
            return report
        finally:
            incoming.close()

    def _judge_local(self, report: Report, result: local.LocalResult) -> None:
        match result.completed.ending:
            case process.Exited(0) if not result.problem:
                report.exit_status = 0
                return
            case process.Exited(0):
                report.detail = result.problem
            case process.Exited(status):
                report.exit_status, report.detail = status, f"exit status {status}"
            case process.Signalled(number):
                report.detail = killed_by(number)
            case process.TimedOut():
                report.detail = "its time limit was up"
            case process.Cancelled():
                report.detail = "interrupted"
            case process.CouldNotStart(text):
                report.detail = f"the shell could not be started: {text}"
        report.outcome = Outcome.FAILED

    def _finish(self, planned: PlannedAction, report: Report, started: float) -> None:
        self._stream.emit_each(_closing_events(planned, report, time.monotonic() - started))

    def _warn(self, text: str) -> None:
        self._stream.emit(Notice(level="warning", text=text))


def _closing_events(planned: PlannedAction, report: Report, elapsed_s: float) -> Iterator[Event]:
    for data in report.stdout.pieces():
        yield ActionOutput(action=planned.number, stdout=data)
    for data in report.stderr.pieces():
        yield ActionOutput(action=planned.number, stderr=data)
    yield ActionFinished(
        action=planned.number,
        host=report.host,
        outcome=report.outcome.value,
        detail=report.detail,
        exit_status=report.exit_status,
        elapsed_s=elapsed_s,
        cpu_s=report.cpu_s,
        peak_memory_bytes=report.peak_memory_bytes,
        bytes_sent=report.bytes_sent,
        bytes_received=report.bytes_received,
        outputs=report.outputs,
    )


def killed_by(number: int) -> str:
    """A signal for a person: "killed by signal 9 (SIGKILL)"."""
    name = ""
    with contextlib.suppress(ValueError):
        name = f" ({signal.Signals(number).name})"
    return f"killed by signal {number}{name}"
