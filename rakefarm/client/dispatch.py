"""The loop of a build: sets in order, the actions of a set in parallel, each to its host or run here.

The main thread walks the plan. For each set it has the broker place the remote actions, whose runners perform them,
and a crew of its own perform the local ones. A runner that is told its action was lost or refused tells the broker,
which has the policy award it again.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping

from rakefarm.client.broker import Assignment, Broker
from rakefarm.client.crew import Crew
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm, Member
from rakefarm.client.inputs import InputError, measure
from rakefarm.client.jobs import Expectations, RemoteJob, describe
from rakefarm.client.outputs import OutputError
from rakefarm.client.perform import LOCAL, HostGone, Performed, Performer
from rakefarm.client.plan import Outcome, Plan, PlannedAction, PlannedSet
from rakefarm.client.remote import Declined
from rakefarm.client.report import Report, closing_events
from rakefarm.config import ClientSettings
from rakefarm.events import ActionQueued, ActionRetried, SetStarted, Stream
from rakefarm.market.policy import Policy, View
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError


class Interrupted(BaseException):
    """A signal asked the build to stop; raised in the main thread by its handler."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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
    ) -> None:
        self._plan = plan
        self._expected_s = expectations.seconds
        self._lock = threading.Lock()  # of the plan and the attempts
        self._farm = farm
        self._settings = settings
        self._stream = stream
        self._experiences = experiences
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
            self._fall_back,
        )

        farm.listener = self._heard

    def _heard(self, member: Member) -> None:
        """A host came late."""
        self._there.grow_to(self._remote_limit())
        self._broker.heard(member)

    def run(self) -> None:
        """Run everything. Whatever ends it, no command of ours is left running afterwards, here or on a server."""
        try:
            for planned in self._plan.sets_to_run():
                self._run_set(planned)
        except BaseException:
            self._performer.cancel()
            raise
        finally:
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
        self._here.grow_to(self._local_limit())
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
            self._broker.run_set(jobs)
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
            self._finish(planned, Report(Outcome.FAILED, detail=detail), time.monotonic())
            return None
        return describe(planned, measured, self._experiences.history)

    def _remote_limit(self) -> int:
        # As many as the farm could have slots, hosts that come back included; a policy may have actions queue.
        return self._settings.jobs or max(1, self._farm.slots)

    def _local_limit(self) -> int:
        return self._settings.local_jobs or self._settings.jobs or max(8, 2 * (os.cpu_count() or 1))

    # --- in a runner thread ---------------------------------------------------------------------------

    def _run_here(self, work: tuple[PlannedAction, bool]) -> None:
        planned, staged = work
        if self._performer.cancelled:
            return  # else the runners of what was just killed would begin the next, only to kill it
        started = time.monotonic()
        with self._lock:
            self._plan.started(planned.number)
        try:
            report = self._performer.perform_local(planned, staged)
        except (InputError, OutputError, OSError) as error:
            report = _failure(error)
        self._finish(planned, report, started)

    def _run_there(self, assignment: Assignment) -> None:
        """One attempt; what comes of it is told to the broker, which may hand us the next action at once."""
        job, host = assignment.job, assignment.member.name
        if self._performer.cancelled:
            return
        started = time.monotonic()
        with self._lock:
            self._plan.started(job.number)
            attempt = self._attempts.get(job.number, 0) + 1
        curve = None
        try:
            performed = self._performer.perform_remote(assignment, attempt)
            report, curve = performed.report, performed.curve
            self._learn(job, performed)
        except Declined as declined:
            if declined.reason in ("full", "license_in_use") and declined.curve is not None:
                full, lacking = declined.curve, declined.reason == "license_in_use"
                with self._lock:
                    self._plan.taken_back(job.number)
                self._there.end_with(lambda: self._broker.refused(job, host, full, lacking))
            else:
                self._lose(assignment, str(declined), "")
            return
        except (Lost, ProtocolError) as error:
            self._lose(assignment, f"lost: {explain(error)}", "")
            return
        except HostGone as error:
            self._lose(assignment, f"lost: {error}", str(error))
            return
        except (InputError, OutputError, OSError) as error:
            report = _failure(error)
        self._finish(job.planned, report, started)
        seconds = time.monotonic() - started
        self._there.end_with(lambda: self._broker.finished(job, host, seconds, curve))

    def _learn(self, job: RemoteJob, performed: Performed) -> None:
        result = performed.result
        if performed.report.outcome is Outcome.SUCCEEDED:
            with self._lock:
                self._experiences.history.learn(
                    job.signature, job.task.kind, job.task.input_bytes, result.work_s, result.peak_memory_bytes
                )

    def _lose(self, assignment: Assignment, reason: str, host_down: str) -> None:
        """The farm lost or took back an action: it is bid for again, a bounded number of times."""
        job, host = assignment.job, assignment.member.name
        if self._performer.cancelled:
            return
        with self._lock:
            self._plan.taken_back(job.number)
            attempts = self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
        if self._settings.fallback == "never" or attempts >= self._settings.attempts:
            self._fall_back(job, f"{host}: {reason}")
            self._there.end_with(lambda: self._broker.finished(job, host, 0.0, None))
            return
        self._stream.emit(ActionRetried(action=job.number, host=host, reason=reason))
        self._there.end_with(lambda: self._broker.lost(job, host, host_down))

    def _fall_back(self, job: RemoteJob, reason: str) -> None:
        """No host runs it: then this machine does, or nobody."""
        if self._performer.cancelled:
            return
        if self._settings.fallback == LOCAL:
            self._performer.warn(f"line {job.planned.action.line}: {reason}; it runs here instead")
            self._here.submit((job.planned, True))
            return
        started = self._began.get(job.number, time.monotonic())
        self._finish(job.planned, Report(Outcome.NOT_RUN, detail=_no_server(reason)), started)

    def _finish(self, planned: PlannedAction, report: Report, started: float) -> None:
        if not self._performer.cancelled:
            self._stream.emit_each(closing_events(planned, report, time.monotonic() - started))
            with self._lock:
                self._plan.finished(planned.number, report.outcome)
        report.close()


def _failure(error: Exception) -> Report:
    """Something of ours failed the action."""
    if isinstance(error, OSError):
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return Report(Outcome.FAILED, detail=f"here: {error.strerror or error}{where}")
    return Report(Outcome.FAILED, detail=str(error))


def _no_server(reason: str) -> str:
    return f"no server can run it: {reason}"
