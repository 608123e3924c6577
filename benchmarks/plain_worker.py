"""A worker for BuildGrid and nothing more: its own client library and messages, a shell in a temporary directory.

BuildGrid of this day has no worker of its own, and the one that it names is C++ that no registry has. So this one is
what `benchmarks/engine.py` sets ours beside: no isolation, no limits, no store of its own, no slots that are shared.
It runs in BuildGrid's environment:

    BUILDGRID/bin/python benchmarks/plain_worker.py grpc://host:port BOTS KEY=VALUE…
"""

import os
import subprocess
import sys
import tempfile
import threading
import traceback
from typing import Any

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import bots_pb2, bots_pb2_grpc, worker_pb2
from buildgrid.server.client.cas import download, upload

ASK_S = 20
OK, COMPLETED = 1, 4
"""BotStatus and LeaseState, by the interface."""


def perform(channel: grpc.Channel, action: Any) -> Any:
    """Run it; answers its ActionResult."""
    with tempfile.TemporaryDirectory() as box:
        with download(channel, instance="") as downloader:
            command = downloader.get_message(action.command_digest, api.Command())
            if action.input_root_digest.size_bytes:  # BuildGrid does not find the tree of nothing
                downloader.download_directory(action.input_root_digest, box)
        for path in command.output_paths:
            os.makedirs(os.path.dirname(os.path.join(box, path)), exist_ok=True)
        variables = {each.name: each.value for each in command.environment_variables}
        result = api.ActionResult()
        result.execution_metadata.execution_start_timestamp.GetCurrentTime()
        done = subprocess.run(list(command.arguments), cwd=box, env=variables, capture_output=True)
        result.execution_metadata.execution_completed_timestamp.GetCurrentTime()
        result.exit_code, result.stdout_raw, result.stderr_raw = done.returncode, done.stdout, done.stderr
        with upload(channel, instance="") as uploader:
            for path in command.output_paths:
                place = os.path.join(box, path)
                if path and os.path.isfile(place):
                    output = result.output_files.add(path=path, is_executable=os.access(place, os.X_OK))
                    output.digest.CopyFrom(uploader.upload_file(place))
                elif os.path.isdir(place):
                    digest = uploader.upload_tree(place)
                    result.output_directories.add(path=path).tree_digest.CopyFrom(digest)
        return result


def end(failure: threading.ExceptHookArgs) -> None:
    """What a bot can't do ends the process, and so the benchmark."""
    traceback.print_exception(failure.exc_value)
    os._exit(1)


def serve(channel: grpc.Channel, name: str, properties: list[tuple[str, str]]) -> None:
    """One bot, for ever."""
    stub = bots_pb2_grpc.BotsStub(channel)
    worker = worker_pb2.Worker()
    device = worker.devices.add(handle=name)
    for key, value in properties:
        device.properties.add(key=key, value=value)
    asked = bots_pb2.BotSession(bot_id=name, status=OK, worker=worker)
    session = stub.CreateBotSession(bots_pb2.CreateBotSessionRequest(parent="", bot_session=asked), timeout=ASK_S)
    while True:
        for lease in session.leases:
            action = api.Action()
            if not lease.payload.Unpack(action):
                raise ValueError(f"a lease that holds a {lease.payload.type_url}")
            lease.result.Pack(perform(channel, action))
            lease.state = COMPLETED
        request = bots_pb2.UpdateBotSessionRequest(name=session.name, bot_session=session)
        session = stub.UpdateBotSession(request, timeout=ASK_S)


def main() -> None:
    """Until it is killed."""
    target, count = sys.argv[1].removeprefix("grpc://"), int(sys.argv[2])
    properties = [(key, value) for key, _, value in (word.partition("=") for word in sys.argv[3:])]
    threading.excepthook = end
    channel = grpc.insecure_channel(target)
    threads = [
        threading.Thread(target=serve, args=(channel, f"plain-{os.getpid()}-{number}", properties))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
