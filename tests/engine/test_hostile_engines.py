"""What an engine sends is not believed before it has been checked: contents, digests, trees, operations."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_vocabulary import Counter, open_engine

from rakefarm.config import ConfigError, EngineSettings
from rakefarm.engine.access import check_engine, parse_properties
from rakefarm.engine.address import AddressSyntaxError, parse_engine
from rakefarm.engine.api import bytestream_pb2, operations_pb2
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.blobs import Blobs, Missing
from rakefarm.engine.content import Content, content_of, read_digest
from rakefarm.engine.errors import EngineAway, EngineRefuses, EngineUnbelievable
from rakefarm.engine.execution import Execution
from rakefarm.engine.methods import BATCH_READ, BATCH_UPDATE, EXECUTE, FIND_MISSING, READ, WAIT_EXECUTION
from rakefarm.engine.tree import File, make_tree, walk

GOOD = content_of(b"the right one")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("grpc://lab", "grpc://lab:50051"),
        ("grpcs://lab/main", "grpcs://lab:443/main"),
        ("grpc://[::1]:7/a/b", "grpc://[::1]:7/a/b"),
    ],
)
def test_addresses(text: str, name: str) -> None:
    assert parse_engine(text).name == name


@pytest.mark.parametrize(
    "text", ["lab:50051", "http://lab", "grpc://", "grpc://lab:x", "grpc://lab:0", "grpc://u@lab", "grpc://lab/blobs"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(AddressSyntaxError):
        parse_engine(text)


def test_nothing_leaves_loopback_in_clear_text_unasked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="grpcs://, or --insecure"):
        check_engine(EngineSettings(url="grpc://192.0.2.1"), insecure=False)
    assert check_engine(EngineSettings(url="grpc://192.0.2.1"), insecure=True)
    token = tmp_path / "token"
    token.write_text("secret\n")
    with pytest.raises(ConfigError, match="clear text"):
        check_engine(EngineSettings(url="grpc://192.0.2.1", token_file=str(token)), insecure=True)
    _, access = check_engine(EngineSettings(url="grpc://localhost", token_file=str(token)), insecure=False)
    assert access.metadata() == (("authorization", "Bearer secret"),)
    token.write_text("renewed")
    assert access.metadata() == (("authorization", "Bearer renewed"),)


@pytest.mark.parametrize("text", ["", "KEY", "=VALUE", "A=\n"])
def test_what_is_no_property(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_properties([text])


@pytest.mark.parametrize(
    ("name", "size"), [("", 0), ("ab" * 31, 1), ("AB" * 32, 1), ("ab" * 32, -1), ("ab" * 32, 1 << 50), ("ab" * 32, 0)]
)
def test_what_is_no_digest(name: str, size: int) -> None:
    with pytest.raises(EngineUnbelievable):
        read_digest(api.Digest(hash=name, size_bytes=size))


def directory(*, files: tuple[str, ...] = (), links: tuple[tuple[str, str], ...] = ()) -> bytes:
    made = api.Directory()
    for name in files:
        made.files.add(name=name, digest=GOOD.digest)
    for name, target in links:
        made.symlinks.add(name=name, target=target)
    return made.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        directory(files=("..",)),
        directory(files=("",)),
        directory(files=("a/b",)),
        directory(files=("a\nb",)),
        directory(files=("a", "a")),
        directory(files=("a",), links=(("a", "/etc"),)),
        directory(links=(("a", ""),)),
        b"\xff\xff\xff",
    ],
)
def test_a_tree_that_can_not_be(data: bytes) -> None:
    with pytest.raises(EngineUnbelievable):
        walk(content_of(data), lambda contents: dict.fromkeys(contents, data), 100)


def test_a_few_messages_that_stand_for_endless_directories() -> None:
    messages: dict[Content, bytes] = {}
    below = content_of(b"")
    messages[below] = b""
    for _ in range(30):
        made = api.Directory()
        for name in "abcdefgh":
            made.directories.add(name=name, digest=below.digest)
        data = made.SerializeToString()
        below = content_of(data)
        messages[below] = data
    with pytest.raises(EngineUnbelievable, match="more than"):
        walk(below, lambda contents: {content: messages[content] for content in contents}, 10_000)


def test_a_tree_is_what_it_was_made_of() -> None:
    files = [File(b"b/c", GOOD, True), File(b"a", GOOD, False)]
    root, messages = make_tree(files, [b"empty/inner"])
    found = walk(root, lambda contents: {content: messages[content] for content in contents}, 100)
    assert sorted(found.files, key=lambda file: file.path) == sorted(files, key=lambda file: file.path)
    assert sorted(found.directories) == [b"b", b"empty", b"empty/inner"]
    assert make_tree(reversed(files), [b"empty/inner"])[0] == root


def batch(*pairs: tuple[Content, bytes], code: int = 0) -> Any:
    def answer(_: bytes, __: grpc.ServicerContext) -> api.BatchReadBlobsResponse:
        made = api.BatchReadBlobsResponse()
        for content, data in pairs:
            made.responses.add(digest=content.digest, data=data, status={"code": code})
        return made

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        batch(),
        batch((GOOD, b"another thing")),
        batch((GOOD, b"longer than it should be")),
        batch((content_of(b"x"), b"x")),
    ],
)
def test_a_content_that_is_another(answer: Any) -> None:
    with open_engine(read=(BATCH_READ, "unary", answer)) as channel, pytest.raises(EngineUnbelievable):
        Blobs(channel).read([GOOD])


def test_a_content_that_is_gone() -> None:
    with open_engine(read=(BATCH_READ, "unary", batch((GOOD, b""), code=5))) as channel, pytest.raises(Missing):
        Blobs(channel).read([GOOD])


def test_a_store_that_lacks_what_it_was_not_asked_for() -> None:
    def answer(_: bytes, __: grpc.ServicerContext) -> api.FindMissingBlobsResponse:
        return api.FindMissingBlobsResponse(missing_blob_digests=[content_of(b"x").digest])

    with open_engine(find=(FIND_MISSING, "unary", answer)) as channel, pytest.raises(EngineUnbelievable):
        Blobs(channel).find_missing([GOOD])


def test_what_was_only_just_made_is_stored_without_a_question_while_it_is_little() -> None:
    asked, stored = Counter(), Counter()

    def find(_: bytes, __: grpc.ServicerContext) -> api.FindMissingBlobsResponse:
        asked.next()
        return api.FindMissingBlobsResponse()

    def update(request: bytes, _: grpc.ServicerContext) -> api.BatchUpdateBlobsResponse:
        answer = api.BatchUpdateBlobsResponse()
        for each in api.BatchUpdateBlobsRequest.FromString(request).requests:
            assert content_of(each.data).digest == each.digest
            stored.next()
            answer.responses.add(digest=each.digest)
        return answer

    little = {content_of(data): data for data in (b"", b"an object", b"a dependency file")}
    much = {content_of(data): data for data in (b"x" * 40_000, b"y" * 40_000)}
    with open_engine(find=(FIND_MISSING, "unary", find), update=(BATCH_UPDATE, "unary", update)) as channel:
        Blobs(channel).store(little)
        assert (asked.count, stored.count) == (0, 2)
        Blobs(channel).store(much)
        assert (asked.count, stored.count) == (1, 2)


def test_what_was_only_just_made_and_can_not_be_stored() -> None:
    def update(_: bytes, __: grpc.ServicerContext) -> api.BatchUpdateBlobsResponse:
        answer = api.BatchUpdateBlobsResponse()
        answer.responses.add(digest=GOOD.digest, status={"code": 8, "message": "no room"})
        return answer

    with open_engine(update=(BATCH_UPDATE, "unary", update)) as channel, pytest.raises(EngineAway, match="no room"):
        Blobs(channel).store({GOOD: b"the right one"})


LARGE = b"0123456789" * 300_000


def test_a_stream_that_is_cut_goes_on_where_it_was() -> None:
    asked = Counter()

    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        begin = bytestream_pb2.ReadRequest.FromString(request).read_offset
        first = asked.next() == 1
        yield bytestream_pb2.ReadResponse(data=LARGE[begin : begin + 1_000_000])
        if first:
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        for position in range(begin + 1_000_000, len(LARGE), 1_000_000):
            yield bytestream_pb2.ReadResponse(data=LARGE[position : position + 1_000_000])

    pieces: list[bytes] = []
    with open_engine(read=(READ, "stream", answer)) as channel:
        Blobs(channel).receive(content_of(LARGE), pieces.append)
    assert b"".join(pieces) == LARGE
    assert asked.count == 2


def test_a_stream_without_an_end_is_cut_off() -> None:
    def answer(_: bytes, context: grpc.ServicerContext) -> Any:
        while context.is_active():
            yield bytestream_pb2.ReadResponse(data=b"x" * 1_000_000)

    taken: list[int] = []
    with open_engine(read=(READ, "stream", answer)) as channel, pytest.raises(EngineUnbelievable, match="more than"):
        Blobs(channel).receive(content_of(LARGE), lambda data: taken.append(len(data)))
    assert sum(taken) <= len(LARGE)


def done() -> operations_pb2.Operation:
    operation = operations_pb2.Operation(name="one", done=True)
    operation.response.Pack(api.ExecuteResponse(result={"exit_code": 7}))
    return operation


def test_an_operation_is_waited_for_when_its_stream_is_lost_and_asked_for_anew_when_it_is_forgotten() -> None:
    executed, waited = Counter(), Counter()

    def execute(_: bytes, context: grpc.ServicerContext) -> Any:
        if executed.next() == 1:
            yield operations_pb2.Operation(name="one")
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield done()

    def wait(_: bytes, context: grpc.ServicerContext) -> Any:
        if waited.next() == 1:
            return  # it ends without a word
        context.abort(grpc.StatusCode.NOT_FOUND, "no such operation")
        yield

    with open_engine(execute=(EXECUTE, "stream", execute), wait=(WAIT_EXECUTION, "stream", wait)) as channel:
        response = Execution(channel, GOOD, False).run(lambda _: None)
    assert response.result.exit_code == 7
    assert (executed.count, waited.count) == (2, 2)


@pytest.mark.parametrize(
    "operation",
    [
        operations_pb2.Operation(name="", done=True),
        operations_pb2.Operation(name="n" * 5000),
        operations_pb2.Operation(name="one", done=True),
    ],
)
def test_an_operation_that_can_not_be(operation: operations_pb2.Operation) -> None:
    def execute(_: bytes, __: grpc.ServicerContext) -> Any:
        yield operation

    with open_engine(execute=(EXECUTE, "stream", execute)) as channel, pytest.raises(EngineUnbelievable):
        Execution(channel, GOOD, False).run(lambda _: None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, EngineRefuses),
        (grpc.StatusCode.FAILED_PRECONDITION, EngineRefuses),
        (grpc.StatusCode.UNAVAILABLE, EngineAway),
    ],
)
def test_a_refusal_is_final_and_an_absence_is_waited_out(code: grpc.StatusCode, kind: type[Exception]) -> None:
    asked = Counter()

    def answer(_: bytes, context: grpc.ServicerContext) -> Any:
        asked.next()
        context.abort(code, "no\x1b[31m")

    with open_engine(find=(FIND_MISSING, "unary", answer), patience_s=0.5) as channel, pytest.raises(kind) as error:
        Blobs(channel).find_missing([GOOD])
    assert "\x1b" not in str(error.value)
    assert (asked.count > 1) == (kind is EngineAway)
