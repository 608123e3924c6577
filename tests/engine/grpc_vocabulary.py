"""An engine in this process, which answers what a test wants: made of gRPC's own server and our messages."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from rakefarm.engine.access import Access
from rakefarm.engine.address import EngineAddress
from rakefarm.engine.channel import Channel
from rakefarm.engine.methods import Method

Answer = Callable[[bytes, grpc.ServicerContext], Any]


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, answers: dict[str, tuple[str, Answer]]) -> None:
        self._answers = answers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        found = self._answers.get(details.method)
        if found is None:
            return None
        kind, answer = found

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            return answer(request, context).SerializeToString()

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            for message in answer(request, context):
                yield message.SerializeToString()

        if kind == "stream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@contextmanager
def open_engine(
    *,
    patience_s: float = 2.0,
    credentials: grpc.ServerCredentials | None = None,
    access: Access = Access(),  # noqa: B008 # it is frozen
    **answers: tuple[Method, str, Answer],
) -> Iterator[Channel]:
    """A channel to an engine that has these answers: a method, "unary" or "stream", and what makes the answer. With
    `credentials` it speaks TLS, and the channel shows what `access` holds."""
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool)
    table = {method.path: (kind, answer) for method, kind, answer in answers.values()}
    server.add_generic_rpc_handlers((_Handler(table),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    host = "127.0.0.1" if credentials is None else "localhost"
    channel = Channel(EngineAddress(host, port, credentials is not None), access, patience_s)
    try:
        yield channel
    finally:
        channel.close()
        server.stop(None).wait()
        pool.shutdown()


class Counter:
    """How often something was asked. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def next(self) -> int:
        with self._lock:
            self.count += 1
            return self.count
