"""A compiler call by an engine: described, sent, and its outputs installed as the compiler would."""

import os

from rakefarm.cc import layout
from rakefarm.cc.arrival import Compiled, split_told, take_in
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.closure import Closure
from rakefarm.cc.engine_farm import QUEUE_S, EngineFarm
from rakefarm.cc.engine_package import DIFFERS, pack_for_engine
from rakefarm.cc.inquiry import Inquiry
from rakefarm.cc.reasons import Local, Reason
from rakefarm.cc.scratch import Scratch
from rakefarm.client import by_engine
from rakefarm.client.inputs import InputError, Manifest
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.client.plan import Outcome
from rakefarm.client.report import Report
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses
from rakefarm.engine.execution import Cancelled
from rakefarm.transport import Lost
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Variable


class OtherHeaders(Exception):
    """The worker's system is another than ours, and what it would make might be, too."""


class EngineAttempt:
    """One call. What may be kept of a `repeatable` one is taken from the engine's cache, and kept there."""

    def __init__(
        self,
        farm: EngineFarm,
        scratch: Scratch,
        inquiry: Inquiry,
        closure: Closure,
        shared: layout.Shared,
        cancel: Cancel,
        repeatable: bool,
    ) -> None:
        self._farm = farm
        self._scratch = scratch
        self._inquiry = inquiry
        self._closure = closure
        self._shared = shared
        self._cancel = cancel
        self._repeatable = repeatable

    def run(self) -> Compiled:
        """Raises Local."""
        try:
            with self._farm.place(self._cancel):
                return self._try_both()
        except (Cancelled, Lost) as error:
            raise Local(Reason.CANCELLED) from error
        except EngineError as error:
            if isinstance(error, EngineAway) or (isinstance(error, EngineRefuses) and error.is_about_access):
                self._farm.leave(str(error))
            raise Local(Reason.CANCELLED if self._cancel.gone else Reason.NO_SERVER, str(error)) from error
        except InputError as error:
            raise Local(Reason.ODD_NAME, str(error)) from error
        except (OutputError, ProtocolError, OSError) as error:
            raise Local(Reason.FAULT, str(error)) from error

    def _try_both(self) -> Compiled:
        """With the worker's system headers, if it has the same; else with ours, which are then sent, too."""
        toolchain = self._inquiry.toolchain
        if not self._farm.has_other_headers(toolchain):
            try:
                return self._attempt(self._shared)
            except OtherHeaders:
                self._farm.note_other_headers(toolchain)
        problem = f"{self._farm.name}: its workers have another system than this one"
        if not layout.can_ship(self._inquiry.call, toolchain):
            raise Local(Reason.NO_SERVER, f"{problem}, and this compiler finds no headers elsewhere")
        try:
            return self._attempt(layout.shared_with_stranger(toolchain))
        except OtherHeaders:
            raise Local(Reason.NO_SERVER, f"{problem}, also in what belongs to the compiler") from None

    def _attempt(self, shared: layout.Shared) -> Compiled:
        farm, request = self._farm, self._inquiry.request
        properties, has_identity = farm.properties(self._inquiry.toolchain, request.environ)
        package = pack_for_engine(self._inquiry, self._closure, shared, self._scratch, compares_all=not has_identity)
        variables = [Variable(os.fsencode(name), os.fsencode(text)) for name, text in self._inquiry.variables.items()]
        described = by_engine.describe_command(
            package.command,
            Manifest(package.entries, package.sources),
            package.produces,
            variables,
            properties,
            repeatable=self._repeatable,
        )
        blobs = farm.session.blobs
        blobs.supply(described.sources)
        response = self._execute(described)
        report, incoming = Report(Outcome.SUCCEEDED, host=farm.name), Incoming()
        try:
            by_engine.judge(response, report)
            fetching = by_engine.Fetching(blobs, farm.name, farm.settings.output_size)
            fetching.fetch(described, response.result, incoming, report)
            box, rest = split_told(report.stdout)
            if box and rest == DIFFERS:
                raise OtherHeaders
            if report.outcome is not Outcome.SUCCEEDED:
                raise Local(Reason.FAILED_THERE, f"{farm.name}: {report.detail}")
            if not box or rest:
                raise Local(Reason.FAILED_THERE, f"{farm.name}: it did not say where it ran")
            messages = b"".join(report.stderr.pieces()).replace(box, b"")
            made = take_in(incoming, package, self._inquiry, box, messages, self._repeatable)
            return Compiled(messages, farm.name, made=made, kept=response.cached_result)
        finally:
            incoming.close()
            report.close()

    def _execute(self, described: by_engine.Described) -> api.ExecuteResponse:
        farm = self._farm
        with (
            farm.session.execution(described.action, skip_cache=not self._repeatable) as execution,
            farm.waited_for(execution, self._cancel) as operation,
        ):

            def tell(phase: str) -> None:
                if phase == "running":
                    farm.note_begun(operation)

            try:
                response = execution.run(tell)
                if self._cancel.gone:  # what ended it is no result
                    raise Cancelled
                return response
            except Cancelled:
                if operation.overdue and not self._cancel.gone:
                    problem = f"{farm.name}: no worker has begun anything of ours for {QUEUE_S:g} s"
                    raise Local(Reason.NO_SERVER, problem) from None
                raise
