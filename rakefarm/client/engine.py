"""A build by an engine: what the broker does with hosts, done with one server of the Remote Execution API.

The engine has its own queue and chooses the workers, so nothing is bid for: every action of a set is handed over, up to
a number at one time, and whatever happens to the connection meanwhile, it is asked for again. What is the engine's
fault is tried again; a command that failed is not.
"""

import threading
import time
from collections.abc import Mapping, Sequence

from rakefarm.client import by_engine
from rakefarm.client.crew import Crew
from rakefarm.client.dispatch import Dispatcher, FarmClosed
from rakefarm.client.inputs import InputError
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.client.perform import Performer
from rakefarm.client.plan import Outcome
from rakefarm.client.report import Report, report_error
from rakefarm.codes import Code, coded
from rakefarm.config import ClientSettings
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses, EngineUnbelievable
from rakefarm.engine.execution import Cancelled
from rakefarm.engine.properties import COMPILER, Identities, merge, of_needs, program_of
from rakefarm.engine.session import Session
from rakefarm.events import ActionPhase, ActionPlaced, ActionRetried, HostLeftOut, HostReady, Stream
from rakefarm.hosts import LOCAL

ATTEMPT_PAUSE_S = 0.5


class Engine:
    """One engine, for one build. Raises ConfigError when it can't be what the settings say."""

    def __init__(self, settings: ClientSettings, environ: Mapping[str, str], stream: Stream) -> None:
        self._settings = settings
        self._stream = stream
        self.session = Session(settings.engine, settings.insecure, settings.engine.patience_s)
        self.name = self.session.name
        self._identities = Identities({"PATH": environ.get("PATH", by_engine.SEARCH_PATH)})
        self._lock = threading.Lock()
        self.problem = ""
        """Why it can't be used, where that is no reason to end the build."""

    def open(self) -> None:
        """See whether it is there, lets us in and executes; told as of a host. Raises FarmClosed, unless all may run
        here instead."""
        try:
            self.session.open(self._settings.connect_s)
        except EngineError as error:
            self.give_up(error)
            return
        self._stream.emit(
            HostReady(
                host=self.name,
                slots=self._settings.engine.jobs,
                server_version="Remote Execution API 2",
                isolation="its workers'",
                authentication="token" if self._settings.engine.token_file else "none",
            )
        )

    def give_up(self, error: EngineError) -> None:
        """It will run nothing more of this build, which is said once. Raises FarmClosed, unless all may run here."""
        refused = isinstance(error, EngineRefuses) and error.is_about_access
        text = coded(str(error), Code.ENGINE_ACCESS if refused else Code.ENGINE)
        if self._settings.fallback != LOCAL:
            raise FarmClosed(text)
        with self._lock:
            told, self.problem = bool(self.problem), text
        if not told:
            self._stream.emit(HostLeftOut(host=self.name, reason=text.removeprefix(self.name).lstrip(": ")))

    def properties_of(self, job: RemoteJob) -> tuple[tuple[str, str], ...]:
        """What a machine must be to run it."""
        action = job.planned.action
        needs = of_needs(action.needs)
        own = [pair for pair in self.session.properties if pair[0] not in {key for key, _ in needs}]
        compiler: tuple[tuple[str, str], ...] = ()
        if self._settings.engine.compiler and (program := program_of(action.command)):
            with self._lock:
                identity = self._identities.find(program)
            compiler = ((COMPILER, identity),) if identity else ()
        return merge(tuple(own), needs, compiler)

    def place(self, dispatcher: Dispatcher, performer: Performer) -> "EnginePlacer":
        """What a dispatcher hands its remote actions to."""
        return EnginePlacer(self, performer, self._settings, self._stream, dispatcher)


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
            self._engine.session.cancel()
        self._crew.stop()
        self._engine.session.close()

    # --- in a runner thread ---------------------------------------------------------------------------

    def _perform(self, job: RemoteJob) -> None:
        """As often as it takes, within bounds. Raises FarmClosed when the engine will run nothing more."""
        started = time.monotonic()
        attempts = self._settings.attempts if self._settings.fallback != "never" else 1
        attempt = 1
        while not self._performer.cancelled:
            if self._engine.problem:
                self._told.fall_back(job, self._engine.problem, told=True)
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
                if isinstance(error, EngineRefuses) and error.is_about_access:
                    self._engine.give_up(error)  # a token that is good no longer is so for every action
                    continue
                self._told.fall_back(job, str(error))
                return
            except (InputError, OutputError, OSError) as error:
                report = report_error(error, self._engine.name)
            self._told.end(job, report, started)
            return

    def _attempt(self, job: RemoteJob) -> Report:
        action = job.planned.action
        engine, blobs = self._engine, self._engine.session.blobs
        report = Report(Outcome.SUCCEEDED, host=engine.name)
        fetching = by_engine.Fetching(blobs, engine.name, self._settings.output_size)
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
            report.bytes_sent = blobs.supply(described.sources, lambda _: tell("sending"))
            report.bytes_saved = max(0, sum([content.size for content in described.sources]) - report.bytes_sent)
            tell("queued")
            cached = action.repeatable and not self._settings.fresh
            with engine.session.execution(described.action, skip_cache=not cached) as execution:
                response = execution.run(tell)
            by_engine.judge(response, report, action.timeout_s or 0.0)
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
