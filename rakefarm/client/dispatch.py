"""The loop of a build: sets in order, the actions of a set in parallel, each to its host or run here.

The main thread walks the plan and waits for each set; the runners of the crew do the actions. Remote ones have as
many runners as the farm has slots, local ones as many as this machine takes.
"""

import os
import threading
import time
from collections.abc import Mapping

from rakefarm.client.crew import Crew
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import InputError, find_missing
from rakefarm.client.outputs import OutputError
from rakefarm.client.perform import NotRun, Performer
from rakefarm.client.plan import Outcome, Plan, PlannedAction, PlannedSet
from rakefarm.client.report import Report, closing_events
from rakefarm.config import ClientSettings
from rakefarm.events import ActionQueued, SetStarted, Stream


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
    ) -> None:
        self._plan = plan
        self._lock = threading.Lock()  # of the plan
        self._farm = farm
        self._settings = settings
        self._stream = stream
        self._performer = Performer(farm, settings, environ, stream)
        self._crew = Crew(self._run_action, farm.flush_idle)

    def run(self) -> None:
        """Run everything. Whatever ends it, no command of ours is left running afterwards, here or on a server."""
        try:
            for planned in self._plan.sets_to_run():
                self._run_set(planned)
        except BaseException:
            self._performer.cancel()
            raise
        finally:
            self._crew.stop()
            self._farm.close()

    def _run_set(self, planned_set: PlannedSet) -> None:
        actions = planned_set.actions
        self._performer.begin_set()
        self._stream.emit(SetStarted(index=planned_set.index, set_name=planned_set.name, actions=len(actions)))
        for planned in actions:
            self._stream.emit(
                ActionQueued(
                    action=planned.number,
                    set_name=planned.set_name,
                    line=planned.action.line,
                    command=planned.action.command,
                    remote=planned.action.remote,
                )
            )
            if self._may_start(planned):
                self._crew.submit(planned)
        for is_remote, limit in ((True, self._remote_limit()), (False, self._local_limit())):
            wanted = sum(1 for planned in actions if planned.action.remote is is_remote)
            self._crew.hire(is_remote, min(wanted, limit))
        self._crew.wait_settled()

    def _may_start(self, planned: PlannedAction) -> bool:
        """False, and the action has failed, when a file that it requires is missing."""
        action = planned.action
        missing = find_missing(action.requires)
        if missing is None:
            return True
        if not action.remote:
            self._performer.warn(f"line {action.line}: required file {missing} is missing")
            return True
        self._finish(planned, Report(Outcome.FAILED, detail=f"missing required file {missing}; nothing was sent"), 0.0)
        return False

    def _remote_limit(self) -> int:
        slots = max(1, self._farm.slots)
        return min(slots, self._settings.jobs) if self._settings.jobs else slots

    def _local_limit(self) -> int:
        return self._settings.local_jobs or self._settings.jobs or max(8, 2 * (os.cpu_count() or 1))

    # --- in a runner thread ---------------------------------------------------------------------------

    def _run_action(self, planned: PlannedAction) -> None:
        started = time.monotonic()
        perform = self._performer.perform_remote if planned.action.remote else self._performer.perform_local
        try:
            report = perform(planned)
        except NotRun as error:
            report = Report(Outcome.NOT_RUN, detail=str(error))
        except (InputError, OutputError) as error:
            report = Report(Outcome.FAILED, detail=str(error))
        except OSError as error:
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            report = Report(Outcome.FAILED, detail=f"here: {error.strerror or error}{where}")
        if not self._performer.cancelled:
            self._finish(planned, report, time.monotonic() - started)
        report.close()

    def _finish(self, planned: PlannedAction, report: Report, elapsed_s: float) -> None:
        self._stream.emit_each(closing_events(planned, report, elapsed_s))
        with self._lock:
            self._plan.finished(planned.number, report.outcome)
