"""Content to and from an engine's store: what it lacks is sent, what it sends is verified.

Small contents travel many to a message, of at most BATCH_BYTES; larger ones as a stream of pieces. Nothing is believed
to be what was asked for before its digest says so.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rakefarm.engine.api import bytestream_pb2
from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.channel import Channel
from rakefarm.engine.content import EMPTY, Content, read_digest
from rakefarm.engine.errors import EngineAway, EngineRefuses, EngineUnbelievable
from rakefarm.engine.methods import BATCH_READ, BATCH_UPDATE, FIND_MISSING, READ, WRITE
from rakefarm.engine.quiet_grpc import grpc

BATCH_BYTES = 3 << 20
"""What a message of many contents holds at most, unless the engine allows less: gRPC's own limit is 4 MiB."""
ENTRY_BYTES = 128
"""What the digest of one content and its frame take."""
UNASKED_BYTES = 64 << 10
BATCH_COUNT = 500
FIND_COUNT = 5000
PIECE_BYTES = 256 << 10
LOWEST_RATE = 100 << 10
"""Bytes a second: a stream that is slower is given up, but none before STREAM_S."""
STREAM_S = 120.0
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
_PASSING = {
    code.value[0]
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    )
}

Source = bytes | Callable[[], int]
"""A content: its bytes, or what opens it (the descriptor is closed by who called)."""
Sink = Callable[[bytes], object]


class Missing(EngineRefuses):
    """The engine's store has not, or no longer, what was asked for."""

    def __init__(self, name: str, content: Content) -> None:
        super().__init__(f"{name} has lost the content {content.name}", "NOT_FOUND")
        self.content = content


class Blobs:
    """One engine's store. For any thread."""

    def __init__(self, channel: Channel, batch_bytes: int = BATCH_BYTES) -> None:
        """`batch_bytes` is what the engine takes in one message, 0 where it doesn't say."""
        self._channel = channel
        self._batch = min(batch_bytes or BATCH_BYTES, BATCH_BYTES)
        self._instance = channel.address.instance

    # --- there ----------------------------------------------------------------------------------------

    def find_missing(self, contents: Iterable[Content]) -> list[Content]:
        """Those of them that the engine lacks. Raises EngineError."""
        asked = [content for content in dict.fromkeys(contents) if content != EMPTY]
        missing: list[Content] = []
        for start in range(0, len(asked), FIND_COUNT):
            some = asked[start : start + FIND_COUNT]
            request = api.FindMissingBlobsRequest(
                instance_name=self._instance, blob_digests=[content.digest for content in some]
            )
            answer = self._channel.call(FIND_MISSING, request)
            told = {read_digest(digest) for digest in answer.missing_blob_digests}
            if not told <= set(some):
                raise EngineUnbelievable(f"{self._channel.address.name} lacks what it was not asked for")
            missing += [content for content in some if content in told]
        return missing

    def supply(self, sources: Mapping[Content, Source], tell: Callable[[int], object] = lambda _: None) -> int:
        """Have the engine store what it lacks of these; answers how many bytes were sent. `tell` hears how many it will
        be, if there are any. Raises EngineError, or OSError when a source can't be read."""
        missing = self.find_missing(sources)
        total = sum([content.size for content in missing])
        if total:
            tell(total)
        small = [content for content in missing if content.size + ENTRY_BYTES <= self._batch // 2]
        for batch in self._batches(small):
            self._update(batch, sources)
        for content in missing:
            if content.size + ENTRY_BYTES > self._batch // 2:
                self._write(content, sources[content])
        return total

    def store(self, sources: Mapping[Content, Source]) -> None:
        """As `supply`, of what has only just been made, so that the engine hardly has it: a little is sent without a
        question first, which would take as long as the sending. Raises EngineError, or OSError."""
        sent = [content for content in sources if content != EMPTY]
        if sum([content.size + ENTRY_BYTES for content in sent]) > min(UNASKED_BYTES, self._batch // 2):
            self.supply(sources)
            return
        for batch in self._batches(sent):
            self._update(batch, sources)

    def _batches(self, contents: Iterable[Content]) -> Iterator[list[Content]]:
        batch: list[Content] = []
        size = 0
        for content in contents:
            if batch and (size + content.size + ENTRY_BYTES > self._batch or len(batch) >= BATCH_COUNT):
                yield batch
                batch, size = [], 0
            batch.append(content)
            size += content.size + ENTRY_BYTES
        if batch:
            yield batch

    def _update(self, batch: Sequence[Content], sources: Mapping[Content, Source]) -> None:
        request = api.BatchUpdateBlobsRequest(instance_name=self._instance)
        for content in batch:
            request.requests.add(digest=content.digest, data=_read_whole(content, sources[content]))
        answer = self._channel.call(BATCH_UPDATE, request)
        for response in answer.responses:
            self._check(response.status.code, response.status.message, read_digest(response.digest))

    def _check(self, code: int, text: str, content: Content) -> None:
        if not code:
            return
        if code == NOT_FOUND:
            raise Missing(self._channel.address.name, content)
        said = f"{self._channel.address.name}: the content {content.name}: {text[:200] or f'status {code}'}"
        raise EngineAway(said) if code in _PASSING else EngineRefuses(said, str(code))

    def _write(self, content: Content, source: Source) -> None:
        prefix = f"{self._instance}/" if self._instance else ""

        def attempt() -> None:
            name = f"{prefix}uploads/{uuid.uuid4()}/blobs/{content.name}"
            answer = self._channel.send(WRITE, _requests(name, content, source), _seconds(content.size))
            if answer.committed_size not in (content.size, -1):  # -1: it is there, compressed
                raise EngineUnbelievable(
                    f"{self._channel.address.name} took {answer.committed_size} bytes of {content.size}"
                )

        self._channel.persist(attempt, WRITE)

    # --- and back -------------------------------------------------------------------------------------

    def read(self, contents: Iterable[Content]) -> dict[Content, bytes]:
        """All of these, which must be small enough to be held in memory. Raises EngineError, Missing among them."""
        asked = dict.fromkeys(contents)
        found = {EMPTY: b""} if EMPTY in asked else {}
        rest = [content for content in asked if content not in found]
        small = [content for content in rest if content.size + ENTRY_BYTES <= self._batch // 2]
        for batch in self._batches(small):
            self._read_batch(batch, found)
        for content in rest:
            if content not in found:
                pieces: list[bytes] = []
                self.receive(content, pieces.append)
                found[content] = b"".join(pieces)
        return found

    def _read_batch(self, batch: Sequence[Content], found: dict[Content, bytes]) -> None:
        request = api.BatchReadBlobsRequest(instance_name=self._instance, digests=[content.digest for content in batch])
        answer = self._channel.call(BATCH_READ, request)
        wanted = set(batch)
        for response in answer.responses:
            content = read_digest(response.digest)
            self._check(response.status.code, response.status.message, content)
            if content not in wanted or response.compressor:
                raise EngineUnbelievable(f"{self._channel.address.name} sent a content that was not asked for")
            if len(response.data) != content.size or hashlib.sha256(response.data).digest() != content.sha256:
                raise EngineUnbelievable(f"{self._channel.address.name} sent another content than {content.name}")
            found[content] = response.data
        if not wanted <= found.keys():
            raise EngineUnbelievable(f"{self._channel.address.name} did not send all that it was asked for")

    def receive(self, content: Content, sink: Sink) -> None:
        """One content, piece by piece; where the stream is cut it goes on from there. It is verified when all has come:
        what the sink has got is not to be used when this raises, EngineError or what the sink raises."""
        if content == EMPTY:
            return
        prefix = f"{self._instance}/" if self._instance else ""
        digest, size = hashlib.sha256(), 0

        def attempt() -> None:
            nonlocal size
            request = bytestream_pb2.ReadRequest(resource_name=f"{prefix}blobs/{content.name}", read_offset=size)
            stream = self._channel.stream(READ, request, _seconds(content.size))
            try:
                for answer in stream:
                    size += len(answer.data)
                    if size > content.size:
                        raise EngineUnbelievable(f"{self._channel.address.name} sends more than {content.size} bytes")
                    digest.update(answer.data)
                    sink(answer.data)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise Missing(self._channel.address.name, content) from error
                raise
            finally:
                stream.cancel()
            if size != content.size or digest.digest() != content.sha256:
                raise EngineUnbelievable(f"{self._channel.address.name} sent another content than {content.name}")

        self._channel.persist(attempt, READ)


def _seconds(size: int) -> float:
    return STREAM_S + size / LOWEST_RATE


def _read_whole(content: Content, source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    with contextlib.closing(_Open(source())) as file:
        return b"".join(file.pieces(content.size))


def _requests(name: str, content: Content, source: Source) -> Iterator[bytestream_pb2.WriteRequest]:
    with contextlib.closing(_Open(-1 if isinstance(source, bytes) else source())) as file:
        pieces = [source] if isinstance(source, bytes) else file.pieces(content.size)
        position = 0
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                data = piece[start : start + PIECE_BYTES]
                yield bytestream_pb2.WriteRequest(
                    resource_name="" if position else name,
                    write_offset=position,
                    finish_write=position + len(data) == content.size,
                    data=data,
                )
                position += len(data)


class _Open:
    """An open file for as long as it is read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pieces(self, size: int) -> Iterator[bytes]:
        """What is in it, up to `size` bytes; a file that has shrunk has another digest, and the engine will say so."""
        position = 0
        while position < size and (data := os.pread(self._descriptor, min(PIECE_BYTES, size - position), position)):
            yield data
            position += len(data)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
