"""Small messages that were fetched before: Directories, above all, which the actions of a build share."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from rakefarm.engine.blobs import Blobs
from rakefarm.engine.content import Content

KEPT_BYTES = 32 << 20


class Messages:
    """By their digests, those used last. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Content, bytes] = OrderedDict()
        self._size = 0

    def read(self, contents: Iterable[Content], blobs: Blobs) -> dict[Content, bytes]:
        """All of these, fetched where need be. Raises EngineError."""
        found: dict[Content, bytes] = {}
        lacking = []
        with self._lock:
            for content in contents:
                data = self._known.get(content)
                if data is None:
                    lacking.append(content)
                else:
                    self._known.move_to_end(content)
                    found[content] = data
        if lacking:
            fetched = blobs.read(lacking)
            found |= fetched
            with self._lock:
                for content, data in fetched.items():
                    self._keep(content, data)
        return found

    def _keep(self, content: Content, data: bytes) -> None:
        if content in self._known or len(data) > KEPT_BYTES // 4:
            return
        self._known[content] = data
        self._size += len(data)
        while self._size > KEPT_BYTES:
            self._size -= len(self._known.popitem(last=False)[1])
