"""One action on an engine, from Execute to its result, across whatever happens to the connection meanwhile.

    Execute ─► Operation … Operation (done)         the stream ends early: WaitExecution by the operation's name;
                                                    the engine has forgotten the name: Execute once more

Giving up the stream does not stop an action, so `cancel` says so to the engine, by the operation's name.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from rakefarm.engine.api import operations_pb2
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.channel import FIRST_PAUSE_S, LONGEST_PAUSE_S, Channel
from rakefarm.engine.content import Content
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses, EngineUnbelievable
from rakefarm.engine.methods import CANCEL_OPERATION, EXECUTE, WAIT_EXECUTION
from rakefarm.engine.quiet_grpc import grpc

NAME_S = 1.0
"""How long `cancel` waits for the name of an operation that has only been asked for."""
CANCEL_S = 3.0
NAME_BYTES = 1024
PHASES = {
    api.ExecutionStage.CACHE_CHECK: "queued",
    api.ExecutionStage.QUEUED: "queued",
    api.ExecutionStage.EXECUTING: "running",
}
"""The phases of our events, by the interface's stages."""

Listener = Callable[[str], object]


class Cancelled(Exception):
    """It was cancelled by us."""


class Execution:
    """One action's operation. `run` in one thread, `cancel` in any, once."""

    def __init__(self, channel: Channel, action: Content, skip_cache: bool) -> None:
        self._channel = channel
        self._action = action
        self._skip_cache = skip_cache
        self._lock = threading.Lock()
        self._named = threading.Event()
        self._name = ""
        self._stream: Any = None
        self._heard = False
        self._cancelled = False

    def run(self, tell: Listener) -> api.ExecuteResponse:
        """Until it has ended; `tell` hears of its phases. Raises EngineError or Cancelled."""
        until = time.monotonic() + self._channel.patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            name = self._name
            method = WAIT_EXECUTION if name else EXECUTE
            try:
                response = self._follow(self._open(name), tell)
                if response is not None:
                    return response
                failure: EngineError = EngineAway(f"{self._channel.address.name} broke off {method.name}")
            except grpc.RpcError as error:
                if self._cancelled:
                    raise Cancelled from error
                failure = self._channel.explain(error, method)
                if name and isinstance(failure, EngineRefuses) and failure.about in ("NOT_FOUND", "INVALID_ARGUMENT"):
                    self._name = ""  # another scheduler, or one that has lost its memory
                    failure = EngineAway(str(failure))
            if self._cancelled:
                raise Cancelled
            if self._heard:
                until, pause_s = time.monotonic() + self._channel.patience_s, FIRST_PAUSE_S
            if not isinstance(failure, EngineAway) or time.monotonic() + pause_s > until or self._channel.closed:
                raise failure
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _open(self, name: str) -> Any:
        self._heard = False
        with self._lock:
            if self._cancelled:
                raise Cancelled
            if name:
                stream = self._channel.stream(WAIT_EXECUTION, api.WaitExecutionRequest(name=name), None)
            else:
                request = api.ExecuteRequest(
                    instance_name=self._channel.address.instance,
                    action_digest=self._action.digest,
                    skip_cache_lookup=self._skip_cache,
                )
                stream = self._channel.stream(EXECUTE, request, None)
            self._stream = stream
        return stream

    def _follow(self, stream: Any, tell: Listener) -> api.ExecuteResponse | None:
        """Read the stream to its end; the answer if it came."""
        for operation in stream:
            self._heard = True
            if not self._name:
                if not 0 < len(operation.name) <= NAME_BYTES or not operation.name.isprintable():
                    raise EngineUnbelievable(f"{self._channel.address.name}: an operation without a name")
                self._name = operation.name
                self._named.set()
            if operation.done:
                return self._answer(operation)
            metadata = api.ExecuteOperationMetadata()
            try:
                if operation.metadata.Unpack(metadata) and (phase := PHASES.get(metadata.stage)):
                    tell(phase)
            except DecodeError as error:
                raise EngineUnbelievable(f"{self._channel.address.name}: metadata that can't be read") from error
        return None

    def _answer(self, operation: operations_pb2.Operation) -> api.ExecuteResponse:
        if operation.WhichOneof("result") == "error":
            code, text = operation.error.code, operation.error.message[:400]
            if self._cancelled:
                raise Cancelled
            return api.ExecuteResponse(status={"code": code, "message": text})
        response = api.ExecuteResponse()
        try:
            if not operation.response.Unpack(response):
                raise EngineUnbelievable(f"{self._channel.address.name}: an operation ended with no ExecuteResponse")
        except DecodeError as error:
            raise EngineUnbelievable(f"{self._channel.address.name}: a result that can't be read") from error
        return response

    def cancel(self) -> None:
        """Have the engine stop it, and `run` raise Cancelled. Answers when the engine knows, or after some seconds."""
        with self._lock:
            self._cancelled = True
            stream = self._stream
        if stream is None:
            return
        try:
            if self._named.wait(NAME_S):
                request = operations_pb2.CancelOperationRequest(name=self._name)
                self._channel.call(CANCEL_OPERATION, request, CANCEL_S, patience_s=CANCEL_S)
        except EngineError:
            return  # it has ended by itself, or nobody can be told
        finally:
            stream.cancel()
