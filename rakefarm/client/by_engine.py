"""One action by an engine: described, its inputs sent, executed, its outputs fetched.

The same action has the same digest wherever and whenever it is described, since nothing goes into it that would not
make it another one: no times, no names of ours. Whether its result may be an earlier run's, the Rakefile says
(`repeatable`): of other actions nothing is taken from the engine's cache, and nothing is kept there.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from msgspec import Struct

from rakefarm.client.hints import explain_failure
from rakefarm.client.inputs import InputError, Manifest, declared_paths
from rakefarm.client.jobs import RemoteJob, command_of
from rakefarm.client.outputs import Incoming
from rakefarm.client.plan import Outcome
from rakefarm.client.report import Report
from rakefarm.codes import Code
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.api import status_pb2
from rakefarm.engine.blobs import Blobs, Source
from rakefarm.engine.content import Content, content_of, read_digest
from rakefarm.engine.errors import EngineAway, EngineRefuses, EngineUnbelievable
from rakefarm.engine.properties import Properties
from rakefarm.engine.tree import File, NotText, as_text, make_tree, walk_tree
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Output, Variable
from rakefarm.wire.paths import check_path, show

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of every action: a worker need not have one of its own."""
SMALL_BYTES = 1 << 20
AT_ONCE_BYTES = 16 << 20
TREE_BYTES = 8 << 20
MOST_OUTPUTS = 50_000
EXECUTABLE_MODE, MODE = 0o755, 0o644
_DEADLINE_EXCEEDED = 4
_AT_FAULT = {8, 10, 13, 14}
"""Statuses of an execution (google.rpc.Code) that are the engine's affair: exhausted, aborted, internal, away."""
_MISSING = 9
"""FAILED_PRECONDITION: an input is there no longer, say; it is sent again."""


class Described(Struct, frozen=True):
    """An action as the engine knows it: its digest, all that goes into it by digest, and its inputs by path."""

    action: Content
    sources: dict[Content, Source]
    inputs: dict[bytes, Content]
    aliases: dict[bytes, bytes]
    produces: tuple[bytes, ...] | None


def describe(job: RemoteJob, manifest: Manifest, passed: Sequence[Variable], properties: Properties) -> Described:
    """A Rakefile's action. Raises InputError for what has no form there."""
    action = job.planned.action
    return describe_command(
        command_of(job),
        manifest,
        None if action.produces is None else declared_paths(action.produces),
        passed,
        properties,
        repeatable=action.repeatable,
        timeout_s=action.timeout_s or 0.0,
    )


def describe_command(
    text: bytes,
    manifest: Manifest,
    produces: Sequence[bytes] | None,
    passed: Sequence[Variable],
    properties: Properties,
    *,
    repeatable: bool,
    timeout_s: float = 0.0,
) -> Described:
    """A command for a shell, in a directory of its own with the inputs of the manifest; `produces` None is for all that
    is new there, `timeout_s` 0 for no limit. Raises InputError for what has no form there."""
    files = []
    sources: dict[Content, Source] = {}
    inputs: dict[bytes, Content] = {}
    for entry, source in zip(manifest.entries, manifest.sources, strict=True):
        content = Content(entry.sha256, entry.size)
        sources[content] = partial(os.open, source, os.O_RDONLY | os.O_CLOEXEC)
        for path in (entry.path, entry.alias):
            if path:
                inputs[path] = content
                files.append(File(path, content, bool(entry.mode & stat.S_IXUSR)))
    platform = api.Platform()
    for name, value in properties:
        platform.properties.add(name=name, value=value)
    try:
        root, messages = make_tree(files)
        wanted = [""] if produces is None else [as_text(path) for path in sorted(produces)]
        command = api.Command(
            arguments=["/bin/sh", "-c", text.decode()],
            output_paths=wanted,
            # For servers that know no output paths: which those who know them are to ignore.
            output_files=[] if produces is None else wanted,
            output_directories=wanted if produces is None else [],
            platform=platform,
        )
        variables = {as_text(each.name): as_text(each.value) for each in passed} | {"PATH": SEARCH_PATH}
    except (NotText, UnicodeDecodeError) as error:
        raise InputError(f"an engine takes UTF-8 alone: {error}") from error
    for name, value in sorted(variables.items()):
        command.environment_variables.add(name=name, value=value)
    words = command.SerializeToString(deterministic=True)
    place = content_of(words)
    described = api.Action(
        command_digest=place.digest,
        input_root_digest=root.digest,
        do_not_cache=not repeatable,
        platform=platform,
    )
    if timeout_s:
        described.timeout.FromNanoseconds(int(timeout_s * 1e9))
    data = described.SerializeToString(deterministic=True)
    whole = content_of(data)
    aliases = {entry.alias: entry.path for entry in manifest.entries if entry.alias}
    wanted_paths = None if produces is None else tuple(produces)
    return Described(whole, {**sources, **messages, place: words, whole: data}, inputs, aliases, wanted_paths)


class Fetching:
    """Brings the outputs of one result home. `output_bytes` is how much that may be, printed text included; 0: any."""

    def __init__(self, blobs: Blobs, name: str, output_bytes: int) -> None:
        self._blobs = blobs
        self._name = name
        self._most = output_bytes
        self.received = 0

    def _count(self, size: int) -> None:
        self.received += size
        if self._most and self.received > self._most:
            raise EngineUnbelievable(f"{self._name}: outputs of more than {self._most} bytes")

    def fetch(self, described: Described, result: api.ActionResult, incoming: Incoming, report: Report) -> None:
        """Into `incoming` and `report`. Raises EngineError, or OutputError and OSError when there is no room here."""
        self._stream(result.stdout_raw, result.stdout_digest, report.stdout.write)
        self._stream(result.stderr_raw, result.stderr_digest, report.stderr.write)
        if report.outcome is not Outcome.SUCCEEDED:
            return
        inline: dict[Content, bytes] = {}
        files = self._outputs(described, result, inline)
        if described.produces is not None:
            made = {file.path for file in files}
            lacking = [path for path in described.produces if path not in made]
            if lacking:
                report.fail(Code.OUTPUT, f"the declared output {show(lacking[0])} was not made")
                return
        self._count(sum([file.content.size for file in files]))
        for batch in _batches(files):
            contents = inline | self._blobs.read([file.content for file in batch if file.content not in inline])
            for file in batch:
                _take(file, incoming, partial(_pump, contents[file.content]))
        for file in files:
            if file.content.size > SMALL_BYTES:
                _take(file, incoming, partial(self._blobs.receive, file.content))

    def _stream(self, raw: bytes, digest: api.Digest, write: Callable[[bytes], object]) -> None:
        if raw:
            self._count(len(raw))
            write(raw)
        if raw or not digest.hash:
            return
        content = read_digest(digest)
        self._count(content.size)
        self._blobs.receive(content, write)

    def _outputs(self, described: Described, result: api.ActionResult, inline: dict[Content, bytes]) -> list[File]:
        """The files that go into our directory: those declared, or else all that are new."""
        files: dict[bytes, File] = {}
        for output in result.output_files:
            file = File(_path(output.path), read_digest(output.digest), output.is_executable)
            if output.contents and content_of(output.contents) == file.content:
                inline[file.content] = output.contents
            files[file.path] = file
        for directory in result.output_directories:
            top = _path(directory.path) if directory.path else b""
            content = read_digest(directory.tree_digest)
            if content.size > TREE_BYTES:
                raise EngineUnbelievable(f"{self._name}: a tree of {content.size} bytes")
            tree = walk_tree(self._blobs.read([content])[content], MOST_OUTPUTS)
            for file in tree.files:
                path = top + b"/" + file.path if top else file.path
                files[path] = File(path, file.content, file.executable)
        if described.produces is not None:
            strange = files.keys() - set(described.produces)
            if strange:
                raise EngineUnbelievable(f"{self._name}: the output {show(min(strange))}, which was not declared")
            return [files[path] for path in sorted(files)]
        return [files[path] for path in sorted(files) if not _is_input(files, path, described)]


def _is_input(files: dict[bytes, File], path: bytes, described: Described) -> bool:
    """Whether it is as it was sent; the second name of an input tells nothing that the first doesn't."""
    content = files[path].content
    first = described.aliases.get(path)
    return content == described.inputs.get(path) or (first in files and files[first].content == content)


def _path(text: str) -> bytes:
    path = text.encode()
    try:
        check_path(path)
    except UnsafePath as error:
        raise EngineUnbelievable(str(error)) from error
    return path


def _batches(files: Sequence[File]) -> Iterator[list[File]]:
    batch: list[File] = []
    size = 0
    for file in files:
        if file.content.size > SMALL_BYTES:
            continue
        if batch and size + file.content.size > AT_ONCE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.content.size
    if batch:
        yield batch


def _pump(data: bytes, sink: Callable[[bytes], object]) -> None:
    sink(data)


def _take(file: File, incoming: Incoming, receive: Callable[[Callable[[bytes], object]], None]) -> None:
    mode = EXECUTABLE_MODE if file.executable else MODE
    incoming.receive(Output(file.path, mode, file.content.sha256), receive)


def judge(response: api.ExecuteResponse, report: Report, timeout_s: float = 0.0) -> None:
    """What an engine's answer says of the command's end; its name is the report's host. Raises EngineAway when the
    engine is at fault, or has lost an input, EngineRefuses when it does not want the action."""
    code, text = response.status.code, response.status.message[:400]
    if code == _DEADLINE_EXCEEDED and timeout_s:
        report.fail(Code.TIME_LIMIT, "its time limit was up")
        return
    if code in _AT_FAULT or (code == _MISSING and _lacks_inputs(response)):
        raise EngineAway(f"{report.host}: {text or f'status {code}'}")
    if code:
        raise EngineRefuses(f"{report.host}: {text or f'status {code}'}", str(code))
    result = response.result
    metadata = result.execution_metadata
    if not response.cached_result and metadata.HasField("execution_completed_timestamp"):
        began, ended = metadata.execution_start_timestamp, metadata.execution_completed_timestamp
        report.ran_s = max(0.0, (ended.ToNanoseconds() - began.ToNanoseconds()) / 1e9)
    report.exit_status = result.exit_code
    report.detail = f"exit status {result.exit_code}" + (", of an earlier run" if response.cached_result else "")
    if result.exit_code:
        report.fail(Code.ACTION_FAILED, report.detail)


def _lacks_inputs(response: api.ExecuteResponse) -> bool:
    """Whether it ended for want of what is then sent again."""
    failure = status_pb2.PreconditionFailure()
    return any(each.Unpack(failure) for each in response.status.details)


def explain(job: RemoteJob, described: Described, report: Report) -> None:
    """Where a command failed for want of a file, say which line is missing."""
    if report.outcome is Outcome.FAILED and report.exit_status:
        explain_failure(report, job.planned.action, list(described.inputs), described.produces)
