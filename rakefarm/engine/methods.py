"""The calls of the interfaces that we make, by service."""

from typing import Any

from msgspec import Struct

from rakefarm.engine.api import bots_pb2, bytestream_pb2, operations_pb2
from rakefarm.engine.api import remote_execution_pb2 as api

_EXECUTION = "/build.bazel.remote.execution.v2."
_BOTS = "/google.devtools.remoteworkers.v1test2.Bots/"


class Method(Struct, frozen=True):
    """One call: its path, and the message that answers it (None: we don't look)."""

    path: str
    answer: Any

    @property
    def name(self) -> str:
        """For people."""
        return self.path.rpartition("/")[2]


GET_CAPABILITIES = Method(_EXECUTION + "Capabilities/GetCapabilities", api.ServerCapabilities)
FIND_MISSING = Method(_EXECUTION + "ContentAddressableStorage/FindMissingBlobs", api.FindMissingBlobsResponse)
BATCH_UPDATE = Method(_EXECUTION + "ContentAddressableStorage/BatchUpdateBlobs", api.BatchUpdateBlobsResponse)
BATCH_READ = Method(_EXECUTION + "ContentAddressableStorage/BatchReadBlobs", api.BatchReadBlobsResponse)
GET_ACTION_RESULT = Method(_EXECUTION + "ActionCache/GetActionResult", api.ActionResult)
EXECUTE = Method(_EXECUTION + "Execution/Execute", operations_pb2.Operation)
WAIT_EXECUTION = Method(_EXECUTION + "Execution/WaitExecution", operations_pb2.Operation)
CANCEL_OPERATION = Method("/google.longrunning.Operations/CancelOperation", None)
READ = Method("/google.bytestream.ByteStream/Read", bytestream_pb2.ReadResponse)
WRITE = Method("/google.bytestream.ByteStream/Write", bytestream_pb2.WriteResponse)
CREATE_BOT_SESSION = Method(_BOTS + "CreateBotSession", bots_pb2.BotSession)
UPDATE_BOT_SESSION = Method(_BOTS + "UpdateBotSession", bots_pb2.BotSession)
