"""Results of actions that this server has run, for the next client that asks for the very same.

    CACHE/results/…   records by key: how it ended, what it printed, its outputs by digest
    CACHE/…           the content store, where the outputs are

Nobody can put a result there but a server that ran the action: the key is made here, of the request as it came and of
what the server adds to it, and outputs are found by their content. What a client may get is what it would get by having
the same command run over the same inputs, which it names by content; and it must say that any earlier run will do.

An action may read the machine's own files, and these may change. Where the request lists them (`same`, as rakefarm cc
does), they are compared now as they were then. Otherwise the key holds when the system's directories and its package
database were changed last, and a server with shared directories keeps nothing, since nobody can tell about these.
"""

import hashlib
import os
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from rakefarm.config import ServerSettings
from rakefarm.digest import no_beat
from rakefarm.logs import logger
from rakefarm.records import RecordStore, UnsafeDirectory
from rakefarm.server.job import Ended
from rakefarm.server.likeness import LIST_BYTES, Likeness
from rakefarm.server.store import Store
from rakefarm.snapshot import Made
from rakefarm.transport import Transport
from rakefarm.wire.messages import Execute, Output, Result, Stderr, Stdout, Task, Variable
from rakefarm.wire.request import digest_of

Environment = Callable[[tuple[Variable, ...]], dict[bytes, bytes]]

FORM = b"rakefarm result 2"
PART_OF_STORE = 16
"""Records take at most one part in so many of the content store's cap; outputs count there."""
STREAM_BYTES = 1 << 20
DIGEST_BYTES = 32
SYSTEM = (
    "/usr/include", "/usr/local/include", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/opt",
    "/etc/alternatives", "/etc/ld.so.cache", "/var/lib/dpkg/status", "/var/lib/rpm", "/var/lib/pacman/local",
    "/lib/apk/db/installed",
)  # fmt: skip
"""Besides the directories of the PATH: what is another when something was installed."""


class Kept(Struct, frozen=True, array_like=True):
    """One record: the result's numbers, both streams, and the outputs: path, mode, digest, size."""

    elapsed_s: float
    cpu_s: float
    peak_memory_bytes: int
    work_s: float
    stdout: bytes
    stderr: bytes
    outputs: tuple[tuple[bytes, int, bytes, int], ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class KeptResults:
    """One worker's view of them. For any thread."""

    def __init__(
        self, settings: ServerSettings, environment: Environment, level: str, store: Store, likeness: Likeness
    ) -> None:
        """`environment` tells what a command would get of a client's variables, `level` how it is confined."""
        self._settings = settings
        self._store = store
        self._likeness = likeness
        self._records: RecordStore | None = None
        self._own = (sorted(environment(()).items()), sorted(settings.environment), sorted(settings.programs.items()),
                     level, settings.shared)  # fmt: skip
        size = settings.cache_size // PART_OF_STORE
        if size:
            place = os.path.join(settings.cache_directory, "results")
            try:
                self._records = RecordStore(place, size, settings.workers)
            except UnsafeDirectory as error:
                logger.warning("results are not kept: %s", error)

    def key(self, request: Execute) -> bytes | None:
        """What the result of this request is known by now; None when it must not be another run's."""
        return self._key(digest_of(request), request.task) if self._records is not None and request.repeatable else None

    def _key(self, digest: bytes, task: Task) -> bytes | None:
        """By the digest of a request, and what we ourselves add to it."""
        listed = any(need.key == "same" for need in task.needs)
        if self._settings.shared and not listed:
            return None
        system = [] if listed else self._system()
        return hashlib.sha256(FORM + _encode((digest, self._own, system))).digest()

    def has(self, digest: bytes, task: Task) -> bool:
        """Whether the result of the request of this digest is here, as far as a look tells: what it costs to have it,
        not that it will be had."""
        if self._records is None or len(digest) != DIGEST_BYTES:
            return False
        key = self._key(digest, task)
        return key is not None and self._records.has(key)

    def _system(self) -> list[tuple[int, ...]]:
        stamps: list[tuple[int, ...]] = []
        for path in (*self._settings.path.split(":"), *SYSTEM):
            try:
                status = os.stat(path)
                stamps.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
            except OSError:
                stamps.append(())
        return stamps

    def find(self, request: Execute, key: bytes) -> Kept | None:
        """The result of this key, if the machine's files are still what the request takes them for."""
        assert self._records is not None
        data = self._records.get(key)
        if data is None:
            return None
        try:
            kept = _decode(data)
        except msgspec.MsgspecError:  # of another release
            return None
        return kept if self._is_alike(request) else None

    def _is_alike(self, request: Execute) -> bool:
        """Whether our own files are as the lists of the request say, which the store must have."""
        inputs = {entry.path: entry for entry in request.manifest}
        for need in request.task.needs:
            if need.key == "same":
                entry = inputs.get(os.fsencode(need.value))
                if entry is None or entry.size > LIST_BYTES:
                    return False
                lines = self._store.read(entry.sha256, entry.size)
                if lines is None or self._likeness.first_difference(lines.splitlines(), no_beat):
                    return False
        return True

    def write(self, transport: Transport, kept: Kept) -> bool:
        """Answer with this result, up to the last output; False, and nothing is said, when an output is gone. Raises
        Lost."""
        descriptors: list[int] = []
        try:
            for _, _, digest, size in kept.outputs:
                descriptor = self._store.open(digest, size)
                if descriptor is None:
                    return False
                descriptors.append(descriptor)
            transport.gather(
                Result("exited", 0, kept.elapsed_s, 0.0, kept.cpu_s, kept.peak_memory_bytes, kept.work_s, "", 1)
            )
            for message, data in ((Stdout(), kept.stdout), (Stderr(), kept.stderr)):
                if data:
                    transport.gather_pieces(message, len(data), iter([data]))
            for (path, mode, digest, size), descriptor in zip(kept.outputs, descriptors, strict=True):
                transport.gather_file(Output(path, mode, digest), descriptor, size)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def keep(self, key: bytes, request: Execute, result: Result, ended: Ended, made: Sequence[Made]) -> None:
        """Keep what a command that has just been run here has come to, if it went well and is not too large. `key` was
        that of the request before; when the machine has changed meanwhile, it is another one now."""
        whole = len(ended.stdout) == ended.stdout_bytes and len(ended.stderr) == ended.stderr_bytes
        if self._records is None or result.outcome != "exited" or result.status or not whole:
            return
        if ended.stdout_bytes + ended.stderr_bytes > STREAM_BYTES or self.key(request) != key:
            return
        outputs = tuple([(file.path, file.mode, file.sha256, file.size) for file in made])
        kept = Kept(
            result.elapsed_s, result.cpu_s, result.peak_memory_bytes, result.work_s, ended.stdout, ended.stderr, outputs
        )
        self._records.put(key, _encode(kept))
