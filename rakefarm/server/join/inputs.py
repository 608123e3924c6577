"""An action's input tree, placed in its box: from this server's own store, or fetched, verified, and kept there."""

import contextlib
import os
from collections.abc import Callable, Iterable

from rakefarm.config import Limits
from rakefarm.engine.blobs import Blobs
from rakefarm.engine.content import Content
from rakefarm.engine.errors import EngineRefuses
from rakefarm.engine.tree import Contents, File, walk
from rakefarm.server.join.memory import Messages
from rakefarm.server.limits import over
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.store import Store
from rakefarm.wire.status import StoreUse

SMALL_BYTES = 1 << 20
"""Files up to this size are fetched many at a time."""
AT_ONCE_BYTES = 16 << 20
MODE, EXECUTABLE_MODE = 0o644, 0o755
LONG_AGO_NS = 946_684_800 * 10**9
"""The time of every input, 1 January 2000: trees have none, and an action must not see when it was staged."""
Count = Callable[[StoreUse], object]


class TooMany(EngineRefuses):
    """More inputs than this server takes for one action; another may take them."""


def read_tree(root: Content, blobs: Blobs, messages: Messages, limits: Limits) -> Contents:
    """What is to be placed. Raises EngineError, TooMany among them."""
    found = walk(root, lambda contents: messages.read(contents, blobs), limits.inputs or 1 << 20)
    if limits.input_size and found.total_bytes > limits.input_size:
        raise TooMany(over("input_size", limits.input_size, "of inputs"), "RESOURCE_EXHAUSTED")
    return found


class Placing:
    """Places one tree. What it raises: EngineError, or OSError when something can't be written here."""

    def __init__(self, directory: ActionDirectory, store: Store, blobs: Blobs, beat: Callable[[], None]) -> None:
        """`beat` is called now and then, and raises what ends the placing."""
        self._directory = directory
        self._store = store
        self._blobs = blobs
        self._beat = beat

    def place(self, tree: Contents, count: Count) -> None:
        """Everything of it but the links; `count` is told what the store had."""
        for path in tree.directories:
            self._directory.make_way(path + b"/.")
        missing = [file for file in tree.files if not self._place_known(file)]
        missed = sum([file.content.size for file in missing])
        count(StoreUse(len(tree.files) - len(missing), len(missing), tree.total_bytes - missed, missed))
        for batch in _batches(missing):
            self._beat()
            contents = self._blobs.read([file.content for file in batch])
            for file in batch:
                self._write(file, lambda sink, data=contents[file.content]: sink(data))  # type: ignore[misc]
        for file in missing:
            if file.content.size > SMALL_BYTES:
                self._beat()
                self._write(file, lambda sink, content=file.content: self._blobs.receive(content, sink))  # type: ignore[misc]

    def link(self, tree: Contents) -> None:
        """The links, after all else, so that nothing is placed by way of one."""
        for link in tree.links:
            os.symlink(link.target, self._directory.locate(link.path))

    def _place_known(self, file: File) -> bool:
        self._beat()
        target = self._directory.locate(file.path)
        mode = EXECUTABLE_MODE if file.executable else MODE
        content = file.content
        known = self._store.copy_to(content.sha256, content.size, target, mode, self._directory.own, self._beat)
        if known:
            os.utime(target, ns=(LONG_AGO_NS, LONG_AGO_NS))
        return known

    def _write(self, file: File, receive: Callable[[Callable[[bytes], object]], None]) -> None:
        target = self._directory.locate(file.path)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(target, flags, 0o600)

        def sink(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            self._beat()

        try:
            receive(sink)
            self._directory.own(descriptor)
            os.fchmod(descriptor, EXECUTABLE_MODE if file.executable else MODE)
        finally:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._store.add(file.content.sha256, target, file.content.size)
        os.utime(target, ns=(LONG_AGO_NS, LONG_AGO_NS))


def _batches(files: Iterable[File]) -> list[list[File]]:
    """The small ones, so many at a time as may be held in memory."""
    batches: list[list[File]] = []
    size = AT_ONCE_BYTES
    for file in files:
        if file.content.size > SMALL_BYTES:
            continue
        if size + file.content.size > AT_ONCE_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(file)
        size += file.content.size
    return batches
