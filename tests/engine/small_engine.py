"""An engine in this process that does run actions: a store, a cache of results, and a shell in a temporary directory."""

import contextlib
import hashlib
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc_vocabulary import Answer, open_engine

from rakefarm.engine.api import operations_pb2, status_pb2
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.methods import (
    BATCH_READ,
    BATCH_UPDATE,
    CANCEL_OPERATION,
    EXECUTE,
    FIND_MISSING,
    GET_CAPABILITIES,
    Method,
)

HOLD_S = 60.0


class SmallEngine:
    """`prologue` is shell text that its only worker runs before each command; without `has_worker` actions stay in the
    queue."""

    def __init__(self, place: Path, prologue: str = "", has_worker: bool = True) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        """The platform properties of each action that was executed, and not found in the cache."""
        self.cancelled: set[str] = set()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.refuses = threading.Event()
        """Set: nobody is let in any more."""
        self._place = place
        self._prologue = prologue
        self._has_worker = has_worker
        self._numbers = itertools.count(1)
        self._contents: dict[str, bytes] = {hashlib.sha256(b"").hexdigest(): b""}
        self._results: dict[str, api.ActionResult] = {}
        self._given_up = threading.Event()

    @property
    def answers(self) -> dict[str, tuple[Method, str, Answer]]:
        return {
            "capabilities": (GET_CAPABILITIES, "unary", self._tell),
            "missing": (FIND_MISSING, "unary", self._find_missing),
            "update": (BATCH_UPDATE, "unary", self._update),
            "read": (BATCH_READ, "unary", self._read),
            "execute": (EXECUTE, "stream", self._execute),
            "cancel": (CANCEL_OPERATION, "unary", self._cancel),
        }

    def _tell(self, _: bytes, context: grpc.ServicerContext) -> api.ServerCapabilities:
        if self.refuses.is_set():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        sha256 = api.DigestFunction.SHA256
        return api.ServerCapabilities(
            cache_capabilities={"digest_functions": [sha256]},
            execution_capabilities={"digest_function": sha256, "exec_enabled": True},
        )

    def _find_missing(self, request: bytes, context: grpc.ServicerContext) -> api.FindMissingBlobsResponse:
        if self.refuses.is_set():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")
        asked = api.FindMissingBlobsRequest.FromString(request).blob_digests
        lacking = [digest for digest in asked if digest.hash not in self._contents]
        return api.FindMissingBlobsResponse(missing_blob_digests=lacking)

    def _update(self, request: bytes, _: grpc.ServicerContext) -> api.BatchUpdateBlobsResponse:
        answer = api.BatchUpdateBlobsResponse()
        for each in api.BatchUpdateBlobsRequest.FromString(request).requests:
            assert hashlib.sha256(each.data).hexdigest() == each.digest.hash
            self._contents[each.digest.hash] = each.data
            answer.responses.add(digest=each.digest)
        return answer

    def _read(self, request: bytes, _: grpc.ServicerContext) -> api.BatchReadBlobsResponse:
        answer = api.BatchReadBlobsResponse()
        for digest in api.BatchReadBlobsRequest.FromString(request).digests:
            answer.responses.add(digest=digest, data=self._contents[digest.hash])
        return answer

    def _cancel(self, request: bytes, _: grpc.ServicerContext) -> status_pb2.Status:
        name = operations_pb2.CancelOperationRequest.FromString(request).name
        self.cancelled.add(name)
        if process := self.running.get(name):
            os.killpg(process.pid, signal.SIGKILL)
        self._given_up.set()
        return status_pb2.Status()

    def _execute(self, data: bytes, _: grpc.ServicerContext) -> Iterator[operations_pb2.Operation]:
        request = api.ExecuteRequest.FromString(data)
        digest, name = request.action_digest.hash, f"operation-{next(self._numbers)}"
        action = api.Action.FromString(self._contents[digest])
        yield _operation(name, api.ExecutionStage.QUEUED)
        response = api.ExecuteResponse()
        if digest in self._results and not request.skip_cache_lookup:
            response.result.CopyFrom(self._results[digest])
            response.cached_result = True
        else:
            if not self._has_worker:
                self._given_up.wait(HOLD_S)
                return
            self.asked.append({each.name: each.value for each in action.platform.properties})
            yield _operation(name, api.ExecutionStage.EXECUTING)
            response.result.CopyFrom(self._run(name, action))
            if not action.do_not_cache and not response.result.exit_code:
                self._results[digest] = response.result
        done = operations_pb2.Operation(name=name, done=True)
        done.response.Pack(response)
        yield done

    # --- the worker -----------------------------------------------------------------------------------

    def _run(self, name: str, action: api.Action) -> api.ActionResult:
        command = api.Command.FromString(self._contents[action.command_digest.hash])
        box = self._place / name
        self._lay(box, action.input_root_digest)
        for path in command.output_paths:
            (box / path).parent.mkdir(parents=True, exist_ok=True)
        *shell, text = command.arguments
        variables = {each.name: each.value for each in command.environment_variables}
        process = subprocess.Popen(
            [*shell, self._prologue + text],
            cwd=box,
            env={**variables, "PWD": str(box)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.running[name] = process
        out, err = process.communicate()
        del self.running[name]
        result = api.ActionResult(exit_code=process.returncode & 0xFF, stdout_raw=out, stderr_raw=err)
        for path in command.output_paths:
            if (box / path).is_file():
                content = (box / path).read_bytes()
                digest = api.Digest(hash=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
                self._contents[digest.hash] = content
                result.output_files.add(path=path, digest=digest)
        return result

    def _lay(self, place: Path, root: Any) -> None:
        place.mkdir(parents=True)
        directory = api.Directory.FromString(self._contents[root.hash])
        for file in directory.files:
            (place / file.name).write_bytes(self._contents[file.digest.hash])
        for child in directory.directories:
            self._lay(place / child.name, child.digest)


def _operation(name: str, stage: Any) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(name=name)
    operation.metadata.Pack(api.ExecuteOperationMetadata(stage=stage))
    return operation


@contextlib.contextmanager
def small_engine(place: Path, prologue: str = "", has_worker: bool = True) -> Iterator[SmallEngine]:
    """One that listens on loopback."""
    made = SmallEngine(place, prologue, has_worker)
    with open_engine(**made.answers) as channel:
        made.url = channel.address.name
        yield made
