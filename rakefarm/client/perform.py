"""One action from its auction to its outputs: bid for, run where it was won, bid for again when lost; or run here."""

import os
import time
from collections.abc import Mapping

from rakefarm.client import local, remote
from rakefarm.client.auction import Auctioneer, Award, NoBid
from rakefarm.client.farm import Farm
from rakefarm.client.inputs import Hasher, Manifest, declared_paths
from rakefarm.client.link import Request
from rakefarm.client.outputs import Claims, Incoming, OutputError, current_umask
from rakefarm.client.plan import Outcome, PlannedAction
from rakefarm.client.report import Report, report_local
from rakefarm.config import ClientSettings
from rakefarm.events import ActionPhase, ActionPlaced, ActionRetried, Notice, Stream
from rakefarm.market.kind import kind_of
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Need, Variable

LOCAL = "local"
RETRY_PAUSE_S = 0.2
PASSED_VARIABLES = frozenset({b"LANG", b"LANGUAGE", b"TZ", b"SOURCE_DATE_EPOCH"})


class NotRun(Exception):
    """The farm could not run an action."""


class Performer:
    """Performs actions, from any thread, for as long as its build lasts."""

    def __init__(self, farm: Farm, settings: ClientSettings, environ: Mapping[str, str], stream: Stream) -> None:
        self._farm = farm
        self._settings = settings
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        self._environ[b"PWD"] = os.getcwdb()  # what a shell would make of it; ours may be stale after -C
        self._passed = self._passed_variables()
        self._stream = stream
        self._auctioneer = Auctioneer(farm, stream, settings.quote_s)
        self._hasher = Hasher()
        self._claims = Claims()
        self._umask = current_umask()
        self._cancel = os.eventfd(0, os.EFD_CLOEXEC)
        self.cancelled = False

    def cancel(self) -> None:
        """Kill what runs, here and on the servers, and begin nothing more."""
        self.cancelled = True
        os.eventfd_write(self._cancel, 1)
        self._farm.close()

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

    def perform_remote(self, planned: PlannedAction) -> Report:
        """Bid, run, and on a loss bid again, a bounded number of times.

        Raises NotRun, InputError, or OSError when something of ours fails.
        """
        avoid: dict[str, str] = {}
        attempt = 0
        while True:
            attempt += 1
            if self.cancelled:
                raise NotRun("the build was interrupted")
            manifest = self._hasher.manifest(planned.action.requires)
            order = self._order(planned, manifest)
            try:
                award = self._auctioneer.award(planned.number, order.request, manifest.digests(), avoid)
            except NoBid as none:
                if none.final or attempt >= self._settings.attempts or self._settings.fallback == "never":
                    return self._fall_back(planned, f"no server can run it: {none}")
                # Those that lost it are better than nobody, and a full one may have room in a moment.
                avoid.clear()
                time.sleep(RETRY_PAUSE_S * attempt)
                continue
            name = award.member.name
            self._stream.emit(ActionPlaced(action=planned.number, host=name, price=award.price, attempt=attempt))
            try:
                return self._attempt(planned, order, award)
            except (Lost, ProtocolError, remote.Declined) as error:
                reason = str(error) if isinstance(error, remote.Declined) else f"lost: {explain(error)}"
                if self.cancelled:
                    raise NotRun("the build was interrupted") from error
                avoid[name] = reason
                if self._settings.fallback == "never" or attempt >= self._settings.attempts:
                    return self._fall_back(planned, f"{name}: {reason}")
                self._stream.emit(ActionRetried(action=planned.number, host=name, reason=reason))

    def _fall_back(self, planned: PlannedAction, reason: str) -> Report:
        if self._settings.fallback != LOCAL:
            raise NotRun(reason)
        self.warn(f"line {planned.action.line}: {reason}; it runs here instead")
        return self.perform_local(planned, staged=True)

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
            report.judge(remote.execute(order, award, incoming, report.stdout, report.stderr, tell))
            if report.outcome is Outcome.SUCCEEDED:
                self._install(planned, incoming, report)
            link.acknowledge()
        except BaseException:
            self._farm.discard(link)
            report.close()
            raise
        finally:
            incoming.close()
        report.bytes_sent, report.bytes_received = transport.sent - sent, transport.received - received
        self._farm.give_back(member, link)
        return report

    # --- here -----------------------------------------------------------------------------------------

    def perform_local(self, planned: PlannedAction, staged: bool = False) -> Report:
        """Run it on this machine, in the working directory or `staged`. Raises InputError or OSError."""
        action = planned.action
        self._stream.emit(
            ActionPlaced(action=planned.number, host=LOCAL, price=None),
            ActionPhase(action=planned.number, host=LOCAL, phase="running"),
        )
        incoming = Incoming()
        try:
            if staged or local.needs_staging(action):
                manifest = self._hasher.manifest(action.requires)
                result = local.run_staged(action, manifest, self._environ, self._cancel, incoming)
            else:
                result = local.run_here(action, self._environ, self._cancel)
            report = report_local(result, LOCAL)
            if report.outcome is Outcome.SUCCEEDED:
                self._install(planned, incoming, report)
            return report
        finally:
            incoming.close()

    def _install(self, planned: PlannedAction, incoming: Incoming, report: Report) -> None:
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
            report.outcome, report.detail = Outcome.FAILED, str(error)
            return
        report.outputs = tuple(path for path in paths if path not in skip)

    def warn(self, text: str) -> None:
        """One line for the user."""
        self._stream.emit(Notice(level="warning", text=text))
