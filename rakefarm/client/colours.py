"""Takes colours out of what commands wrote to standard error: where it goes to a file, or to a person who wants none.

Only what sets colours goes, and what compilers send with it: ESC [ … m (ECMA-48, SGR) and ESC [ K (EL), which GCC adds
to each. Anything else stays, and so does standard output, which may be anything.
"""

import re
from typing import Protocol

from msgspec import structs

from rakefarm.events import ActionFinished, ActionOutput, Event

_COLOUR = re.compile(rb"\x1b\[[0-9;:]*[mK]")
_BEGUN = re.compile(rb"\x1b(?:\[[0-9;:]{0,64})?\Z")


class Part(Protocol):
    """One way of showing a build."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Uncoloured:
    """A consumer that passes every event on to a view, those of outputs without colours."""

    def __init__(self, view: Part) -> None:
        self._view = view
        self._held = b""
        """What the last piece ended with and may be the beginning of a colour; its output goes on with the next."""

    def close(self) -> None:
        """Close the view."""
        self._view.close()

    def __call__(self, event: Event) -> None:
        """Pass on one event."""
        if type(event) is ActionOutput and (self._held or b"\x1b" in event.stderr):
            event = structs.replace(event, stderr=self._strip(event.stderr))
        elif type(event) is ActionFinished and self._held:
            rest, self._held = self._held, b""
            self._view(ActionOutput(action=event.action, stderr=rest, run_id=event.run_id, time_s=event.time_s))
        self._view(event)

    def _strip(self, data: bytes) -> bytes:
        data = _COLOUR.sub(b"", self._held + data)
        begun = _BEGUN.search(data)
        self._held = data[begun.start() :] if begun else b""
        return data[: begun.start()] if begun else data
