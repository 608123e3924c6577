"""A build by an engine: what the broker does with hosts, done with one server of the Remote Execution API.

The engine has its own queue and chooses the workers, so nothing is bid for: every action of a set is handed over, up to
a number at one time, and whatever happens to the connection meanwhile, it is asked for again. What is the engine's
fault is tried again; a command that failed is not.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from rakefarm.client import by_engine
from rakefarm.client.crew import Crew
from rakefarm.client.dispatch import Dispatcher
from rakefarm.client.inputs import InputError
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.client.perform import Performer
from rakefarm.client.plan import Outcome
from rakefarm.client.report import Report, report_error
from rakefarm.codes import Code, coded
from rakefarm.config import ClientSettings
from rakefarm.engine.access import check_engine, parse_properties
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.api import status_pb2
from rakefarm.engine.blobs import Blobs
from rakefarm.engine.channel import Channel
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses, EngineUnbelievable
from rakefarm.engine.execution import Cancelled, Execution
from rakefarm.engine.methods import GET_CAPABILITIES
from rakefarm.engine.properties import COMPILER, Identities, merge, of_machine, of_needs, program_of
from rakefarm.events import ActionPhase, ActionPlaced, ActionRetried, HostLeftOut, HostReady, Stream

CANCEL_S = 5.0
"""How long the engine may take to hear of all that is to be stopped."""
CANCELLING = 16
ATTEMPT_PAUSE_S = 0.5
_OK, _DEADLINE_EXCEEDED = 0, 4
_AT_FAULT = {8, 10, 13, 14}
"""Statuses of an execution (google.rpc.Code) that are the engine's affair: exhausted, aborted, internal, away."""
_MISSING = 9
"""FAILED_PRECONDITION: an input is there no longer, say; it is sent again."""


class Engine:
    """One engine, for one build. Raises ConfigError when it can't be what the settings say."""

    def __init__(self, settings: ClientSettings, environ: Mapping[str, str], stream: Stream) -> None:
        self._settings = settings
        self._stream = stream
        address, access = check_engine(settings.engine, settings.insecure)
        self.name = address.name
        self.channel = Channel(address, access, settings.engine.patience_s, os.urandom(16).hex())
        self.blobs = Blobs(self.channel)
        self._properties = merge(of_machine(), parse_properties(settings.engine.properties))
        self._identities = Identities({"PATH": environ.get("PATH", by_engine.SEARCH_PATH)})
        self._lock = threading.Lock()
        self._executions: set[Execution] = set()
        self._cancelled = False
        self.problem = "it has not been asked"
        """Why it can't be used; empty when it can."""

    def open(self) -> None:
        """See whether it is there, lets us in and executes; told as of a host."""
        request = api.GetCapabilitiesRequest(instance_name=self.channel.address.instance)
        connect_s = self._settings.connect_s
        try:
            told = self.channel.call(GET_CAPABILITIES, request, connect_s, patience_s=0.0)
            self._check(told)
        except EngineError as error:
            code = Code.ENGINE_ACCESS if _is_about_access(error) else Code.ENGINE
            self.problem = coded(str(error), code)
            self._stream.emit(HostLeftOut(host=self.name, reason=self.problem.removeprefix(f"{self.name}: ")))
            return
        self.problem = ""
        self.blobs = Blobs(self.channel, max(0, told.cache_capabilities.max_batch_total_size_bytes))
        self._stream.emit(
            HostReady(
                host=self.name,
                slots=self._settings.engine.jobs,
                server_version="Remote Execution API 2",
                isolation="its workers'",
                authentication="token" if self._settings.engine.token_file else "none",
            )
        )

    def _check(self, told: api.ServerCapabilities) -> None:
        sha256 = api.DigestFunction.SHA256
        cache, execution = told.cache_capabilities, told.execution_capabilities
        functions = [*cache.digest_functions, execution.digest_function, *execution.digest_functions]
        if any(functions) and sha256 not in functions:
            raise EngineRefuses(f"{self.name} names content by something else than SHA-256", "UNIMPLEMENTED")
        if told.HasField("execution_capabilities") and not execution.exec_enabled:
            raise EngineRefuses(f"{self.name} keeps results and executes nothing", "UNIMPLEMENTED")

    def properties_of(self, job: RemoteJob) -> tuple[tuple[str, str], ...]:
        """What a machine must be to run it."""
        action = job.planned.action
        needs = of_needs(action.needs)
        own = [pair for pair in self._properties if pair[0] not in {key for key, _ in needs}]
        compiler: tuple[tuple[str, str], ...] = ()
        if self._settings.engine.compiler and (program := program_of(action.command)):
            with self._lock:
                identity = self._identities.find(program)
            compiler = ((COMPILER, identity),) if identity else ()
        return merge(tuple(own), needs, compiler)

    def execute(
        self, described: by_engine.Described, repeatable: bool, tell: Callable[[str], object]
    ) -> api.ExecuteResponse:
        """Raises EngineError, or Cancelled."""
        execution = Execution(self.channel, described.action, skip_cache=not repeatable)
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._executions.add(execution)
        try:
            return execution.run(tell)
        finally:
            with self._lock:
                self._executions.discard(execution)

    def cancel(self) -> None:
        """Stop all that runs there, begin nothing more. Answers once the engine knows, or after CANCEL_S."""
        with self._lock:
            self._cancelled = True
            executions = list(self._executions)
        waiting = iter(executions)
        turn = threading.Lock()

        def work() -> None:
            while True:
                with turn:
                    execution = next(waiting, None)
                if execution is None:
                    return
                execution.cancel()

        threads = [threading.Thread(target=work, daemon=True) for _ in executions[:CANCELLING]]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CANCEL_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """At the end."""
        self.channel.close()

    def place(self, dispatcher: Dispatcher, performer: Performer) -> "EnginePlacer":
        """What a dispatcher hands its remote actions to."""
        return EnginePlacer(self, performer, self._settings, self._stream, dispatcher)


def _is_about_access(error: EngineError) -> bool:
    return isinstance(error, EngineRefuses) and error.about in ("UNAUTHENTICATED", "PERMISSION_DENIED")


class EnginePlacer:
    """Has the actions of each set performed by an engine; stands where a broker does."""

    def __init__(
        self, engine: Engine, performer: Performer, settings: ClientSettings, stream: Stream, told: Dispatcher
    ) -> None:
        self._engine = engine
        self._performer = performer
        self._settings = settings
        self._stream = stream
        self._told = told
        self._crew: Crew[RemoteJob] = Crew("engine", self._perform)

    def run_set(self, jobs: Sequence[RemoteJob]) -> None:
        """Have all of these performed; answers when each has ended. Raises what a thread of ours met."""
        self._crew.grow_to(self._settings.jobs or self._settings.engine.jobs)
        for job in jobs:
            self._crew.submit(job)
        self._crew.wait_settled()

    def close(self) -> None:
        """At the end; when that came early, nothing of the build runs at the engine afterwards."""
        if self._performer.cancelled:
            self._engine.cancel()
        self._crew.stop()
        self._engine.close()

    # --- in a runner thread ---------------------------------------------------------------------------

    def _perform(self, job: RemoteJob) -> None:
        """As often as it takes, within bounds."""
        started = time.monotonic()
        attempts = self._settings.attempts if self._settings.fallback != "never" else 1
        attempt = 1
        while not self._performer.cancelled:
            if self._engine.problem:
                self._told.fall_back(job, self._engine.problem)
                return
            self._told.begin(job)
            self._stream.emit(ActionPlaced(action=job.number, host=self._engine.name, price=None, attempt=attempt))
            try:
                report = self._attempt(job)
            except Cancelled:
                return
            except EngineAway as error:
                self._told.take_back(job)
                if attempt >= attempts:
                    self._told.fall_back(job, str(error))
                    return
                self._stream.emit(ActionRetried(action=job.number, host=self._engine.name, reason=str(error)))
                attempt += 1
                time.sleep(ATTEMPT_PAUSE_S)
                continue
            except (EngineRefuses, EngineUnbelievable) as error:
                self._told.take_back(job)
                self._told.fall_back(job, str(error))
                return
            except (InputError, OutputError, OSError) as error:
                report = report_error(error, self._engine.name)
            self._told.end(job, report, started)
            return

    def _attempt(self, job: RemoteJob) -> Report:
        action = job.planned.action
        engine = self._engine
        report = Report(Outcome.SUCCEEDED, host=engine.name)
        fetching = by_engine.Fetching(engine.blobs, engine.name, self._settings.output_size)
        incoming = Incoming()

        def tell(phase: str) -> None:
            self._stream.emit(
                ActionPhase(
                    action=job.number,
                    host=engine.name,
                    phase=phase,
                    bytes_sent=report.bytes_sent,
                    bytes_received=fetching.received,
                )
            )

        try:
            manifest = self._performer.hasher.manifest(action.requires)
            described = by_engine.describe(job, manifest, self._performer.passed, engine.properties_of(job))
            report.bytes_sent = engine.blobs.supply(described.sources, lambda _: tell("sending"))
            report.bytes_saved = max(0, sum([content.size for content in described.sources]) - report.bytes_sent)
            tell("queued")
            response = engine.execute(described, action.repeatable, tell)
            self._judge(job, described, response, report)
            if report.outcome is Outcome.SUCCEEDED and response.result.output_files:
                tell("receiving")
            fetching.fetch(described, response.result, incoming, report)
            by_engine.explain(job, described, report)
            report.bytes_received = fetching.received
            if report.outcome is Outcome.SUCCEEDED:
                self._performer.install(job.planned, incoming, report)
            return report
        except BaseException:
            report.close()
            raise
        finally:
            incoming.close()

    def _judge(
        self, job: RemoteJob, described: by_engine.Described, response: api.ExecuteResponse, report: Report
    ) -> None:
        code, text = response.status.code, response.status.message[:400]
        name = self._engine.name
        if code == _OK:
            by_engine.judge(job, described, response, report)
        elif code == _DEADLINE_EXCEEDED and job.planned.action.timeout_s:
            report.fail(Code.TIME_LIMIT, "its time limit was up")
        elif code in _AT_FAULT or (code == _MISSING and _lacks_inputs(response)):
            raise EngineAway(f"{name}: {text or f'status {code}'}")
        else:
            raise EngineRefuses(f"{name}: {text or f'status {code}'}", str(code))


def _lacks_inputs(response: api.ExecuteResponse) -> bool:
    """Whether it ended for want of what is then sent again."""
    failure = status_pb2.PreconditionFailure()
    return any(each.Unpack(failure) for each in response.status.details)
