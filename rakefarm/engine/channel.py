"""One connection to an engine: how it is opened, what goes with every call, and which failures are tried again.

A scheduler that restarts is away for seconds. A call that finds no connection, or loses it on the way, is made again
until patience is at its end: every call of ours may be made twice. What the engine refuses is not asked again.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from rakefarm import __version__
from rakefarm.config import ConfigError
from rakefarm.engine.access import Access
from rakefarm.engine.address import EngineAddress
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.errors import EngineAway, EngineError, EngineRefuses, EngineUnbelievable
from rakefarm.engine.handshake import examine
from rakefarm.engine.methods import Method
from rakefarm.engine.quiet_grpc import grpc

MESSAGE_BYTES = 16 << 20
"""The largest message that is taken; batches are agreed to be smaller."""
CALL_S = 60.0
"""How long one call may take, but for those that wait on purpose."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A lost machine sends no end: ask now and then whether the other end lives. BuildGrid allows it while a call waits.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A scheduler that restarts should be found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # What is tried again is decided here.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_METADATA_KEY = "build.bazel.remote.execution.v2.requestmetadata-bin"
Answer = TypeVar("Answer")


class Channel:
    """For any thread, until it is closed. `patience_s` is how long an engine may be away before a call fails."""

    def __init__(self, address: EngineAddress, access: Access, patience_s: float, invocation: str = "") -> None:
        self.address = address
        self.patience_s = patience_s
        self._access = access
        self._closed = threading.Event()
        options = [*_OPTIONS, ("grpc.primary_user_agent", f"rakefarm/{__version__}")]
        if address.encrypted:
            self._channel = grpc.secure_channel(address.target, access.credentials(), options)
        else:
            self._channel = grpc.insecure_channel(address.target, options)
        details = api.ToolDetails(tool_name="rakefarm", tool_version=__version__)
        request = api.RequestMetadata(tool_details=details, tool_invocation_id=invocation)
        self._metadata = ((_METADATA_KEY, request.SerializeToString()),)

    def close(self) -> None:
        """End every call that is under way; none begins any more."""
        self._closed.set()
        self._channel.close()

    @property
    def closed(self) -> bool:
        """Whether it has been."""
        return self._closed.is_set()

    def _with(self, more: Iterable[tuple[str, bytes | str]] = ()) -> tuple[tuple[str, bytes | str], ...]:
        try:
            return (*self._metadata, *more, *self._access.metadata())
        except ConfigError as error:  # the token's file was good when we began
            raise EngineRefuses(f"{self.address.name}: {error}", "UNAUTHENTICATED") from error

    def call(self, method: Method, request: Message, seconds: float = CALL_S, patience_s: float | None = None) -> Any:
        """One question, one answer. Raises EngineError."""
        ask = self._channel.unary_unary(method.path, _to_bytes, _from_bytes(method))
        return self.persist(lambda: ask(request, timeout=seconds, metadata=self._with()), method, patience_s)

    def call_first(self, method: Method, request: Message, seconds: float) -> Any:
        """The question that a connection begins with: asked once, and when there is no connection to be had, we find
        out why. Raises EngineError."""
        try:
            return self.call(method, request, seconds, patience_s=0.0)
        except EngineAway as failure:
            found = examine(self.address, self._access, seconds)
            if found is not None:
                raise found from failure
            raise

    def persist(self, attempt: Callable[[], Answer], method: Method, patience_s: float | None = None) -> Answer:
        """Make an attempt until it succeeds, or fails for good. Raises EngineError."""
        until = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                failure = self.explain(error, method)
                if not isinstance(failure, EngineAway) or time.monotonic() + pause_s > until or self.closed:
                    raise failure from error
            except ValueError as error:  # gRPC's word for a channel that was closed meanwhile
                raise EngineAway(f"{self.address.name}: closed") from error
            self._closed.wait(pause_s * random.uniform(0.5, 1.0))  # nosec B311 # only so that not all come at once
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def once(self, method: Method, request: Message, seconds: float) -> Any:
        """One attempt at a question, under way, which waits for a connection if need be: whoever has it waits for it or
        cancels it. Raises EngineError."""
        ask = self._channel.unary_unary(method.path, _to_bytes, _from_bytes(method))
        with self._opening():
            return ask.future(request, timeout=seconds, metadata=self._with(), wait_for_ready=True)

    def stream(self, method: Method, request: Message, seconds: float | None) -> Any:
        """One attempt at a stream of answers, to iterate over and to cancel. Raises EngineError here; grpc.RpcError
        while it is read, for `explain`."""
        ask = self._channel.unary_stream(method.path, _to_bytes, _from_bytes(method))
        with self._opening():
            return ask(request, timeout=seconds, metadata=self._with())

    def send(self, method: Method, requests: Iterator[Message], seconds: float) -> Any:
        """One attempt at a stream of requests with one answer. Raises grpc.RpcError, for `persist`."""
        ask = self._channel.stream_unary(method.path, _to_bytes, _from_bytes(method))
        return ask(requests, timeout=seconds, metadata=self._with())

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise EngineAway(f"{self.address.name}: closed") from error

    def explain(self, error: Any, method: Method) -> EngineError:
        """What a call's failure comes to."""
        code, details = error.code(), _one_line(error.details() or "")
        name = self.address.name
        if code is grpc.StatusCode.UNAUTHENTICATED or code is grpc.StatusCode.PERMISSION_DENIED:
            hint = self._access.hint()
            return EngineRefuses(f"{name} does not let us in: {details or code.value[1]}; {hint}", code.name)
        if code in _PASSING:
            return EngineAway(f"{name}: {details or code.value[1]}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return EngineAway(f"{name}: no answer to {method.name} in time")
        if code is grpc.StatusCode.CANCELLED:
            return EngineAway(f"{name}: {method.name} was cut off")
        if code is grpc.StatusCode.INTERNAL and ("parsing" in details or "deserializ" in details):
            return EngineUnbelievable(f"{name}: the answer to {method.name} can't be read")
        if code is grpc.StatusCode.INTERNAL or code is grpc.StatusCode.UNKNOWN:
            return EngineAway(f"{name}: {method.name} failed there: {details}")
        return EngineRefuses(f"{name} refuses {method.name}: {details or code.value[1]}", code.name)


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _from_bytes(method: Method) -> Callable[[bytes], Any]:
    if method.answer is None:
        return bytes

    def read(data: bytes) -> Any:
        return method.answer.FromString(data)

    return read


def _one_line(text: str) -> str:
    """What an engine says, for a line of ours: printable, and not endless."""
    shown = "".join([char if char.isprintable() else " " for char in text[:400]])
    return " ".join(shown.split()).rstrip(".")
