"""The loop of a build: sets in order, the actions of a set in parallel, each to its host or run here.

The main thread walks the plan. For each set it has the broker place the remote actions, whose runners perform them,
and a crew of its own perform the local ones. A runner that is told its action was lost or refused tells the broker,
which has the policy award it again.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from rakefarm.client.broker import Broker
from rakefarm.client.copies import Assignment, Superseded
from rakefarm.client.crew import Crew
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm, Member
from rakefarm.client.inputs import InputError, measure
from rakefarm.client.jobs import Expectations, RemoteJob, describe
from rakefarm.client.outputs import OutputError
from rakefarm.client.perform import HostGone, Performed, Performer
from rakefarm.client.places import Places
from rakefarm.client.plan import Outcome, Plan, PlannedAction, PlannedSet
from rakefarm.client.remote import Declined
from rakefarm.client.report import Report, closing_events, report_error
from rakefarm.codes import Code, coded
from rakefarm.config import ClientSettings
from rakefarm.events import ActionQueued, ActionRetried, CopyEnded, SetStarted, Stream
from rakefarm.hosts import LOCAL
from rakefarm.market.curve import Curve
from rakefarm.market.policy import Policy, View
from rakefarm.slots import MAX_SLOTS
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError, RemoteProtocolError
from rakefarm.wire.errors import ConnectionCut, UnsafePath

_NOTHING_CAME_OF_IT = (Declined, Lost, ProtocolError, HostGone, Superseded, InputError, OutputError, OSError)


FEW_BYTES = 64 << 10
"""What an action takes beyond its command is learned from those for which little had to be sent."""


class Interrupted(BaseException):
    """A signal asked the build to stop; raised in the main thread by its handler."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class FarmClosed(Exception):
    """Not one remote action can be run any more, and none of them is at fault: the build ends. The text is one line."""


class Placer(Protocol):
    """What has the remote actions performed: a broker among hosts, or an engine."""

    def run_set(self, jobs: Sequence[RemoteJob]) -> None:
        """All of them, to their ends. Raises FarmClosed."""

    def close(self) -> None:
        """At the end, whatever it was."""


Place = Callable[["Dispatcher", Performer], Placer]
"""Makes a placer for a build that hosts have no part in."""


class Dispatcher:
    """Runs a plan once."""

    def __init__(
        self,
        plan: Plan,
        farm: Farm,
        settings: ClientSettings,
        environ: Mapping[str, str],
        stream: Stream,
        make_policy: Callable[[View], Policy],
        experiences: Experiences,
        expectations: Expectations,
        places: Places,
        place: Place | None = None,
    ) -> None:
        """`place` makes what performs the remote actions, if that is not the farm."""
        self._plan = plan
        self._expected_s = expectations.seconds
        self._lock = threading.Lock()  # of the plan and the attempts
        self._farm = farm
        self._settings = settings
        self._stream = stream
        self._experiences = experiences
        self._places = places
        self._performer = Performer(farm, settings, environ, stream)
        self._here: Crew[tuple[PlannedAction, bool]] = Crew(LOCAL, self._run_here)
        self._there: Crew[Assignment] = Crew("remote", self._run_there, farm.flush_idle, lambda: self._broker.abandon())
        self._attempts: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._broker = Broker(
            farm,
            stream,
            make_policy,
            settings.quote_s,
            settings.attempts if settings.fallback != "never" else 1,
            settings.seed,
            self._there.submit,
            self.fall_back,
        )
        self._placer: Placer = place(self, self._performer) if place else self._broker

        farm.listener = self._heard
        places.lent = self._grow_here

    def _heard(self, member: Member) -> None:
        """A host came late."""
        self._there.grow_to(self._remote_limit())
        self._broker.heard(member)

    def run(self) -> None:
        """Run everything. Whatever ends it, no command of ours is left running afterwards, here or on a server. Raises
        FarmClosed."""
        try:
            for planned in self._plan.sets_to_run():
                self._run_set(planned)
        except BaseException:
            self._performer.cancel()
            raise
        finally:
            if self._placer is not self._broker:
                self._placer.close()
            self._here.stop()
            self._there.stop()
            self._farm.close()
            self._broker.close()

    def _run_set(self, planned_set: PlannedSet) -> None:
        actions = planned_set.actions
        self._performer.begin_set()
        self._stream.emit(SetStarted(index=planned_set.index, set_name=planned_set.name, actions=len(actions)))
        jobs: list[RemoteJob] = []
        started = time.monotonic()
        self._here.grow_to(min(self._local_limit(), self._places.limit))
        self._there.grow_to(self._remote_limit())
        for planned in actions:
            self._stream.emit(
                ActionQueued(
                    action=planned.number,
                    set_name=planned_set.name,
                    line=planned.action.line,
                    command=planned.action.command,
                    remote=planned.action.remote,
                    expected_s=self._expected_s.get(planned.number),
                )
            )
            job = self._look_at(planned)
            if job is not None:
                jobs.append(job)
        self._began = {job.number: started for job in jobs}
        if jobs:
            self._placer.run_set(jobs)
            self._there.wait_settled()
        self._here.wait_settled()

    def _look_at(self, planned: PlannedAction) -> RemoteJob | None:
        """The job of a remote action that may start. A local one starts; one whose file is missing has failed."""
        action = planned.action
        measured = measure(action.requires)
        if not action.remote:
            if measured.missing is not None:
                self._performer.warn(f"line {action.line}: required file {measured.missing} is missing")
            self._here.submit((planned, False))
            return None
        if measured.missing is not None:
            detail = f"missing required file {measured.missing}; nothing was sent"
            self._finish(planned, Report(Outcome.FAILED, detail=detail, code=Code.MISSING_INPUT), time.monotonic())
            return None
        return describe(planned, measured, self._experiences.history)

    def _remote_limit(self) -> int:
        # As many as the farm could have slots, hosts that come back included; a policy may have actions queue.
        return self._settings.jobs or max(1, self._farm.slots)

    def _local_limit(self) -> int:
        return self._settings.local_jobs or self._settings.jobs or MAX_SLOTS

    def _grow_here(self) -> None:
        """A local command only waits, perhaps for one that has not begun."""
        self._here.grow_to(min(self._local_limit(), self._here.most + 1))

    # --- in a runner thread ---------------------------------------------------------------------------

    def begin(self, job: RemoteJob) -> None:
        """A remote action has its place."""
        with self._lock:
            self._plan.started(job.number)

    def take_back(self, job: RemoteJob) -> None:
        """It has lost it."""
        with self._lock:
            self._plan.taken_back(job.number)

    def end(self, job: RemoteJob, report: Report, started: float) -> None:
        """It has ended, one way or the other; `started` is in monotonic seconds."""
        self._finish(job.planned, report, started)

    def _run_here(self, work: tuple[PlannedAction, bool]) -> None:
        planned, staged = work
        if self._performer.cancelled:
            return  # else the runners of what was just killed would begin the next, only to kill it
        started = time.monotonic()
        with self._places.place(self._performer.cancelling) as place:
            if place is None:
                return
            with self._lock:
                self._plan.started(planned.number)
            try:
                report = self._performer.perform_local(planned, staged, place)
            except (InputError, OutputError, OSError) as error:
                report = report_error(error, LOCAL)
        self._finish(planned, report, started)

    def _run_there(self, assignment: Assignment) -> None:
        """One attempt; what comes of it is told to the broker, which may hand us the next action at once."""
        job, host = assignment.job, assignment.member.name
        if self._performer.cancelled:
            return
        started = time.monotonic()
        with self._lock:
            self._plan.started(job.number)
            attempt = self._attempts.get(job.number, 0) + 1 + assignment.is_backup
        try:
            performed = self._performer.perform_remote(assignment, attempt)
        except _NOTHING_CAME_OF_IT as error:
            self._leave(assignment, error, started)
            return
        assignment.member.draining |= performed.curve is None  # who takes more tells how it stands
        self._learn(job, performed)
        self._finish(job.planned, performed.report, started)
        seconds, succeeded = time.monotonic() - started, performed.report.outcome is Outcome.SUCCEEDED
        if performed.report.bytes_sent < FEW_BYTES:
            result = performed.result
            assignment.member.note_overhead(seconds - result.elapsed_s - result.queued_s)
        self._there.end_with(lambda: self._broker.finished(job, host, seconds, performed.curve, succeeded))

    def _leave(self, assignment: Assignment, error: Exception, started: float) -> None:
        """There is no result. The action is bid for again if that may help, unless a copy of it runs or has won."""
        job, host, copies = assignment.job, assignment.member.name, assignment.copies
        if self._performer.cancelled:
            return
        try:
            others = copies is not None and copies.leave(host)
        except Superseded:
            self._there.end_with(lambda: self._broker.superseded(job, host))
            return
        match error:
            case Declined(reason="full" | "license_in_use" as reason, curve=Curve() as curve):
                if others:
                    self._stream.emit(CopyEnded(action=job.number, host=host, reason=str(error)))
                else:
                    with self._lock:
                        self._plan.taken_back(job.number)
                self._there.end_with(lambda: self._broker.refused(job, host, curve, reason == "license_in_use"))
            case Declined():
                assignment.member.draining |= error.reason == "draining"
                self._lose(assignment, str(error), "", others)
            case UnsafePath() | RemoteProtocolError() if not isinstance(error, ConnectionCut):
                text = explain(error)
                self._lose(assignment, f"not to be believed: {text}", coded(text, Code.PROTOCOL), others, for_good=True)
            case Lost() | ProtocolError():
                self._lose(assignment, f"lost: {explain(error)}", "", others)
            case HostGone():
                self._lose(assignment, f"lost: {error}", str(error), others)
            case _ if others:
                self._lose(assignment, report_error(error, host).detail, "", others)
            case _:
                self._finish(job.planned, report_error(error, host), started)
                self._there.end_with(lambda: self._broker.finished(job, host, 0.0, None, succeeded=False))

    def _learn(self, job: RemoteJob, performed: Performed) -> None:
        result = performed.result
        if performed.report.outcome is Outcome.SUCCEEDED and not result.kept:
            with self._lock:
                self._experiences.history.learn(
                    job.signature, job.task.kind, job.task.input_bytes, result.work_s, result.peak_memory_bytes
                )

    def _lose(self, assignment: Assignment, reason: str, host_down: str, others: bool, for_good: bool = False) -> None:
        """The farm lost or took back an action: it is bid for again, a bounded number of times. When `others` run of
        it, they are the action from now on. `host_down` and `for_good` are the broker's."""
        job, host = assignment.job, assignment.member.name
        with self._lock:
            attempts = self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
            if not others:
                self._plan.taken_back(job.number)
        if others:
            self._stream.emit(CopyEnded(action=job.number, host=host, reason=reason))
            self._there.end_with(lambda: self._broker.lost(job, host, host_down, for_good))
            return
        if self._settings.fallback == "never" or attempts >= self._settings.attempts:
            self.fall_back(job, f"{host}: {reason}")
            self._there.end_with(lambda: self._broker.finished(job, host, 0.0, None, succeeded=False))
            return
        self._stream.emit(ActionRetried(action=job.number, host=host, reason=reason))
        self._there.end_with(lambda: self._broker.lost(job, host, host_down, for_good))

    def fall_back(self, job: RemoteJob, reason: str, told: bool = False) -> None:
        """No host runs it: then this machine does, or nobody. `told`: the reason is known to the user."""
        if self._performer.cancelled:
            return
        if self._settings.fallback == LOCAL:
            if not told:
                self._performer.warn(f"line {job.planned.action.line}: {reason}; it runs here instead")
            self._here.submit((job.planned, True))
            return
        started = self._began.get(job.number, time.monotonic())
        self._finish(job.planned, Report(Outcome.NOT_RUN, detail=_no_server(reason), code=Code.NOT_RUN), started)

    def _finish(self, planned: PlannedAction, report: Report, started: float) -> None:
        if not self._performer.cancelled:
            self._stream.emit_each(closing_events(planned, report, time.monotonic() - started))
            with self._lock:
                self._plan.finished(planned.number, report.outcome)
        report.close()


def _no_server(reason: str) -> str:
    return f"no server can run it: {reason}"
