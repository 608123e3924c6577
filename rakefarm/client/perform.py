"""One action from its award to its outputs: on the host that won it, or here."""

import os
from collections.abc import Mapping
from functools import partial

from msgspec import Struct, structs

from rakefarm.client import local, remote
from rakefarm.client.copies import Assignment, Copies
from rakefarm.client.farm import Farm
from rakefarm.client.guard import Guard
from rakefarm.client.hints import explain_failure
from rakefarm.client.inputs import Hasher, Manifest, declared_paths
from rakefarm.client.jobs import RemoteJob, command_of
from rakefarm.client.link import Link
from rakefarm.client.outputs import Claims, Incoming, OutputError, current_umask
from rakefarm.client.places import NESTED, Place
from rakefarm.client.plan import Outcome, PlannedAction
from rakefarm.client.report import Report, report_local
from rakefarm.codes import Code
from rakefarm.config import ClientSettings
from rakefarm.events import ActionPhase, ActionPlaced, CopyEnded, Notice, Stream
from rakefarm.hosts import LOCAL
from rakefarm.market.curve import Curve
from rakefarm.wire.messages import Result, Variable

PASSED_VARIABLES = frozenset({b"LANG", b"LANGUAGE", b"TZ", b"SOURCE_DATE_EPOCH"})


class HostGone(Exception):
    """No link to the host can be had; the text says why."""


class Performed(Struct, frozen=True):
    """A remote action's end: our report, what the server said, and its fresh curve."""

    report: Report
    result: Result
    curve: Curve | None


class Performer:
    """Performs actions, from any thread, for as long as its build lasts."""

    def __init__(self, farm: Farm, settings: ClientSettings, environ: Mapping[str, str], stream: Stream) -> None:
        self._farm = farm
        self._settings = settings
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        self._environ[b"PWD"] = os.getcwdb()  # what a shell would make of it; ours may be stale after -C
        self.passed = self._passed_variables()
        self._stream = stream
        self.hasher = Hasher()
        self._guard = Guard()
        self._claims = Claims()
        self._umask = current_umask()
        self._environ[NESTED] = b"1"
        self._cancel = os.eventfd(0, os.EFD_CLOEXEC)
        self.cancelled = False

    def cancel(self) -> None:
        """Kill what runs, here and on the servers, and begin nothing more."""
        self.cancelled = True
        os.eventfd_write(self._cancel, 1)
        self._farm.close()

    @property
    def cancelling(self) -> int:
        """A descriptor that becomes readable when nothing more is to begin."""
        return self._cancel

    def begin_set(self) -> None:
        """From here on two actions that make the same path are of one set."""
        self._claims.clear()

    def _passed_variables(self) -> tuple[Variable, ...]:
        """Variables that make a difference to a compiler's output; the server has the last word on each."""
        wanted = PASSED_VARIABLES | {os.fsencode(name) for name in self._settings.environment}
        return tuple(
            [
                Variable(name, value)
                for name, value in self._environ.items()
                if name in wanted or name.startswith(b"LC_")
            ]
        )

    # --- on the farm ----------------------------------------------------------------------------------

    def perform_remote(self, assignment: Assignment, attempt: int) -> Performed:
        """Run an action on the host that it was awarded to, once.

        Raises Lost, a protocol error or Declined (all: not run), HostGone when no link can be had, Superseded when a
        copy was first, InputError, or OSError when something of ours fails.
        """
        job, member = assignment.job, assignment.member
        link = assignment.link
        try:
            self._tell_placed(assignment, attempt)
            manifest = self.hasher.manifest(job.planned.action.requires)
            order = self._order(job, manifest, assignment)
        except BaseException:
            if link is not None:
                self._farm.give_back(member, link)
            raise
        # A kept link may have been closed meanwhile, since its worker was replaced, say: then another is used.
        while link is None or not link.fresh():
            if link is not None:
                self._farm.discard(link)
            link = self._farm.checkout(member)
            if link is None:
                raise HostGone(member.problem or "it can't be reached")
        return self._attempt(assignment, order, link)

    def _tell_placed(self, assignment: Assignment, attempt: int) -> None:
        host, award, copies = assignment.member.name, assignment.award, assignment.copies
        placed = ActionPlaced(
            action=assignment.job.number,
            host=host,
            price=award.price,
            attempt=attempt,
            seconds=award.seconds,
            terms=assignment.terms,
            quoted_as=assignment.quoted_as,
            runner_up=award.runner_up,
            runner_up_price=award.runner_up_price,
            slowness=award.slowness,
            runner_up_slowness=award.runner_up_slowness,
            backup=assignment.is_backup,
        )
        if copies is None:
            self._stream.emit(placed)
        else:
            copies.start(host, lambda: self._stream.emit(placed))

    def _order(self, job: RemoteJob, manifest: Manifest, assignment: Assignment) -> remote.Order:
        action = job.planned.action
        return remote.Order(
            task=structs.replace(job.task, input_bytes=manifest.total_bytes),
            command=command_of(job),
            manifest=manifest,
            produces=None if action.produces is None else declared_paths(action.produces),
            timeout_s=action.timeout_s,
            environment=self.passed,
            label=f"{job.planned.set_name[:60]} line {action.line}".encode("utf-8", "replace").decode(),
            lease=assignment.lease,
            start_now=assignment.award.start_now,
            repeatable=action.repeatable and not self._settings.fresh,
        )

    def _attempt(self, assignment: Assignment, order: remote.Order, link: Link) -> Performed:
        job, member, copies = assignment.job, assignment.member, assignment.copies
        transport = link.transport
        sent, received = transport.sent, transport.received
        report = Report(Outcome.SUCCEEDED, host=member.name)
        incoming = Incoming()

        def tell(phase: str, cpu_s: float, memory_bytes: int) -> None:
            self._stream.emit(
                ActionPhase(
                    action=job.number,
                    host=member.name,
                    phase=phase,
                    cpu_s=cpu_s,
                    memory_bytes=memory_bytes,
                    bytes_sent=transport.sent - sent,
                    bytes_received=transport.received - received,
                )
            )

        try:
            if copies is not None:
                copies.connect(member.name, link)
            executed = remote.execute(order, member, link, incoming, report.stdout, report.stderr, tell)
            report.judge(executed.result)
            if report.outcome is Outcome.FAILED and report.exit_status:
                places = [place for entry in order.manifest.entries for place in (entry.path, entry.alias) if place]
                explain_failure(report, job.planned.action, places, order.produces)
            if copies is not None:
                self._win(assignment, copies)
            if report.outcome is Outcome.SUCCEEDED:
                self.install(job.planned, incoming, report)
            link.acknowledge()
        except BaseException as error:
            if copies is not None:
                copies.disconnect(member.name)
            if isinstance(error, remote.Declined):
                self._farm.give_back(member, link)
            else:
                self._farm.discard(link)
            report.close()
            raise
        finally:
            incoming.close()
        report.bytes_sent, report.bytes_received = transport.sent - sent, transport.received - received
        report.bytes_saved = executed.bytes_saved
        member.names.update(name for name, _ in job.sizes)
        member.names.update(report.outputs)
        self._farm.give_back(member, link)
        return Performed(report, executed.result, executed.curve)

    def _win(self, assignment: Assignment, copies: Copies) -> None:
        """Everything has arrived, but has no name yet. Raises Superseded."""
        losers = copies.win(assignment.member.name)
        number = assignment.job.number
        self._stream.emit(*[CopyEnded(action=number, host=loser, reason="superseded") for loser in losers])

    # --- here -----------------------------------------------------------------------------------------

    def perform_local(self, planned: PlannedAction, staged: bool, place: Place) -> Report:
        """Run it on this machine, in the working directory or `staged`, in its place. Raises InputError or OSError."""
        action = planned.action
        self._stream.emit(
            ActionPlaced(action=planned.number, host=LOCAL, price=None),
            ActionPhase(action=planned.number, host=LOCAL, phase="running"),
        )
        run = partial(self._guard.run, beat=place.beat)
        incoming = Incoming()
        try:
            if staged or local.needs_staging(action):
                manifest = self.hasher.manifest(action.requires)
                result = local.run_staged(action, manifest, self._environ, self._cancel, incoming, run)
            else:
                result = local.run_here(action, self._environ, self._cancel, run)
            report = report_local(result, LOCAL)
            if report.outcome is Outcome.SUCCEEDED:
                self.install(planned, incoming, report)
            return report
        finally:
            incoming.close()

    def install(self, planned: PlannedAction, incoming: Incoming, report: Report) -> None:
        """Give the outputs their names; a disk of ours that won't take them is the action's failure, not the farm's."""
        paths = incoming.paths
        if not paths:
            return
        skip, shared = self._claims.claim(planned.number, paths)
        for path in shared:
            self.warn(f"two actions of set {planned.set_name!r} make {path}; the last in the file wins")
        try:
            incoming.install(skip, self._umask)
        except OutputError as error:
            report.fail(Code.OUTPUT, str(error))
            return
        report.outputs = tuple(path for path in paths if path not in skip)

    def warn(self, text: str) -> None:
        """One line for the user."""
        self._stream.emit(Notice(level="warning", text=text))
