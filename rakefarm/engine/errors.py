"""Everything that can go wrong between us and an engine.

EngineError
    EngineAway            it can't be reached, or was away for longer than we wait: try again, or elsewhere
    EngineRefuses         it says no, and would say so again: a token, a property, a request that it doesn't take
    EngineUnbelievable    what it sent is not what it can be: sizes, digests, paths
"""


class EngineError(Exception):
    """Root of this package's errors; the text is one line for people."""


class EngineAway(EngineError):
    """The network, a scheduler that restarts, or a queue that is full: nothing is wrong with what was asked."""


class EngineRefuses(EngineError):
    """Asking again changes nothing. `about` is the gRPC status, in its own words (UNAUTHENTICATED, say)."""

    def __init__(self, text: str, about: str) -> None:
        super().__init__(text)
        self.about = about

    @property
    def is_about_access(self) -> bool:
        """Whether it would take another for who we are: a token, a certificate."""
        return self.about in ("UNAUTHENTICATED", "PERMISSION_DENIED")


class EngineUnbelievable(EngineError):
    """An answer against the interface; nothing of it is used."""
