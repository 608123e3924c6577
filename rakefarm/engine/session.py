"""One engine as a client has it: asked once what it can do; all that we have it execute can be stopped at once."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from rakefarm.config import EngineSettings
from rakefarm.engine.access import check_engine, parse_properties
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.blobs import Blobs
from rakefarm.engine.channel import Channel
from rakefarm.engine.content import Content
from rakefarm.engine.errors import EngineRefuses
from rakefarm.engine.execution import Cancelled, Execution
from rakefarm.engine.methods import GET_CAPABILITIES
from rakefarm.engine.properties import Properties, merge, of_machine

CANCEL_S = 5.0
"""How long the engine may take to hear of all that is to be stopped."""
CANCELLING = 16


class Session:
    """For any thread, until it is closed."""

    def __init__(self, settings: EngineSettings, insecure: bool, patience_s: float) -> None:
        """`patience_s` is how long the engine may be away before a call fails. Raises ConfigError when it can't be what
        the settings say."""
        address, access = check_engine(settings, insecure)
        self.name = address.name
        self.channel = Channel(address, access, patience_s, os.urandom(16).hex())
        self.blobs = Blobs(self.channel)
        self.properties: Properties = merge(of_machine(), parse_properties(settings.properties))
        """What every action asks of a machine."""
        self._lock = threading.Lock()
        self._executions: set[Execution] = set()
        self._cancelled = False

    def open(self, seconds: float) -> None:
        """See whether it is there, lets us in and executes. Raises EngineError."""
        request = api.GetCapabilitiesRequest(instance_name=self.channel.address.instance)
        told = self.channel.call_first(GET_CAPABILITIES, request, seconds)
        self._check(told)
        self.blobs = Blobs(self.channel, max(0, told.cache_capabilities.max_batch_total_size_bytes))

    def _check(self, told: api.ServerCapabilities) -> None:
        sha256 = api.DigestFunction.SHA256
        cache, execution = told.cache_capabilities, told.execution_capabilities
        functions = [*cache.digest_functions, execution.digest_function, *execution.digest_functions]
        if any(functions) and sha256 not in functions:
            raise EngineRefuses(f"{self.name} names content by something else than SHA-256", "UNIMPLEMENTED")
        if told.HasField("execution_capabilities") and not execution.exec_enabled:
            raise EngineRefuses(f"{self.name} keeps results and executes nothing", "UNIMPLEMENTED")

    @contextlib.contextmanager
    def execution(self, action: Content, skip_cache: bool) -> Iterator[Execution]:
        """An action's, to be run within the context. Raises Cancelled when nothing is to begin any more."""
        execution = Execution(self.channel, action, skip_cache)
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._executions.add(execution)
        try:
            yield execution
        finally:
            with self._lock:
                self._executions.discard(execution)

    def cancel(self) -> None:
        """Stop all that runs there, begin nothing more. Answers once the engine knows, or after CANCEL_S."""
        with self._lock:
            self._cancelled = True
            executions = list(self._executions)
        waiting = iter(executions)
        turn = threading.Lock()

        def work() -> None:
            while True:
                with turn:
                    execution = next(waiting, None)
                if execution is None:
                    return
                execution.cancel()

        threads = [threading.Thread(target=work, daemon=True) for _ in executions[:CANCELLING]]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CANCEL_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """At the end."""
        self.channel.close()
