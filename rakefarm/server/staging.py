"""An action's inputs: checked, placed from the store, asked for when missing, verified when they arrive."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

from rakefarm.digest import Beat, no_beat
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.store import SMALL_BYTES, Store
from rakefarm.snapshot import Staged, stamp_of
from rakefarm.wire.errors import Malformed, UnsafePath
from rakefarm.wire.messages import Input
from rakefarm.wire.paths import check_paths, show

FILE_BYTES = 1 << 40
MANIFEST_FILES = 50_000


class StagingFailed(Exception):
    """The server can't place the inputs (disk full, not writable, lost from the store): another one may."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def check_manifest(manifest: Sequence[Input], produces: Sequence[bytes]) -> None:
    """Raises UnsafePath or Malformed unless every entry can be placed inside the action's directory."""
    if len(manifest) > MANIFEST_FILES:
        raise Malformed(f"a manifest of {len(manifest)} files, the limit is {MANIFEST_FILES}")
    names = [entry.path for entry in manifest]
    names += [entry.alias for entry in manifest if entry.alias]
    check_paths(names)
    check_paths(produces)
    for entry in manifest:
        if len(entry.sha256) != hashlib.sha256().digest_size:
            raise Malformed(f"the digest of {show(entry.path)} has {len(entry.sha256)} bytes")
        if entry.mode & ~0o777:
            raise UnsafePath(f"the mode {entry.mode:o} of {show(entry.path)} has more than permission bits")
        if entry.size > FILE_BYTES or entry.mtime_ns >= 1 << 63:
            raise Malformed(f"the size or time of {show(entry.path)} is absurd")


class Staging:
    """Places the inputs of one action in its directory."""

    def __init__(self, manifest: Sequence[Input], directory: ActionDirectory, store: Store) -> None:
        self._manifest = manifest
        self._directory = directory
        self._store = store
        self._later: list[int] = []
        self.staged: dict[bytes, Staged] = {}
        self.aliases = {entry.alias: entry.path for entry in manifest if entry.alias}
        self.failure: StagingFailed | None = None

    def place_known(self) -> list[int]:
        """Place what the store has; answers the indexes of what it lacks. Large files are only looked for here, and
        placed by `place_later`, so that the answer is quick."""
        missing = []
        for index, entry in enumerate(self._manifest):
            if entry.size > SMALL_BYTES and self._store.has(entry.sha256, entry.size):
                self._later.append(index)
            elif entry.size > SMALL_BYTES or not self._place(entry, no_beat):
                missing.append(index)
        return missing

    def place_later(self, beat: Beat) -> None:
        """Place the large files that the store had. Raises StagingFailed when one is gone by now."""
        for index in self._later:
            entry = self._manifest[index]
            if not self._place(entry, beat):
                raise StagingFailed("input_lost", f"{show(entry.path)} was evicted from the store meanwhile")
        if self.failure is not None:
            raise self.failure

    def make_ways(self, outputs: Sequence[bytes]) -> None:
        """The directories of the declared outputs, as the client has them. Raises StagingFailed."""
        for path in outputs:
            # A file on the way is the command's affair: it may mean to replace it.
            with self._failing("given a directory"), contextlib.suppress(FileExistsError, NotADirectoryError):
                self._directory.make_way(path)

    def _place(self, entry: Input, beat: Beat) -> bool:
        with self._failing("placed"):
            target = self._directory.locate(entry.path)
            mode, own = entry.mode or 0o600, self._directory.own
            if not self._store.copy_to(entry.sha256, entry.size, target, mode, own, beat):
                return False
            self._settle(entry, target)
        return True

    def receive(self, index: int, body_bytes: int, receive_body: Callable[[Callable[[bytes], object]], None]) -> None:
        """Take the body of input `index` into place. Raises Malformed when size or digest are not the manifest's.

        A disk that can't take it is kept as `failure`, and the body read to its end, since the client is speaking.
        """
        entry = self._manifest[index]
        if body_bytes != entry.size:
            raise Malformed(f"{show(entry.path)} comes with {body_bytes} bytes, the manifest said {entry.size}")
        digest = hashlib.sha256()
        descriptor: int | None = None
        target = b""
        if self.failure is None:
            try:
                with self._failing("received"):
                    target = self._directory.locate(entry.path)
                    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                    descriptor = os.open(target, flags, 0o600)
            except StagingFailed as failure:
                self.failure = failure

        def sink(data: bytes) -> None:
            digest.update(data)
            if descriptor is None or self.failure is not None:
                return
            try:
                with self._failing("received"):
                    view = memoryview(data)
                    while view:
                        view = view[os.write(descriptor, view) :]
            except StagingFailed as failure:
                self.failure = failure

        try:
            receive_body(sink)
        finally:
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    self._directory.own(descriptor)
                    os.fchmod(descriptor, entry.mode or 0o600)
                os.close(descriptor)
        if digest.digest() != entry.sha256:
            raise Malformed(f"the content of {show(entry.path)} is not what the manifest's digest says")
        if self.failure is None and descriptor is not None:
            try:
                with self._failing("received"):
                    self._store.add(entry.sha256, target, entry.size)
                    self._settle(entry, target)
            except StagingFailed as failure:
                self.failure = failure

    def _settle(self, entry: Input, target: bytes) -> None:
        """Give a placed file its time and its second name, and remember what it looked like."""
        if entry.alias:
            os.link(target, self._directory.locate(entry.alias))
        os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        self.staged[entry.path] = Staged(entry.sha256, stamp_of(os.lstat(target)))

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "sandbox"
            raise StagingFailed(reason, f"an input can't be {what}: {error.strerror}") from error
