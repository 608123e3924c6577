"""Everything that can go wrong in the protocol.

    ProtocolError
        LocalProtocolError          we misused the connection: a bug of ours
        RemoteProtocolError         the peer did; the connection is over
            UnknownMessage          a type that the protocol does not have
            IllegalMessage          a message that this state does not allow
            LimitExceeded           a size over its limit, refused before a byte of the body is read
            Malformed               a payload that does not decode
            ConnectionCut           the stream ended inside a conversation
        UnsafePath                  a path that may not cross the wire (see `paths`)

A connection's errors carry its state, who sent, the message type where known, and the story: the last few
messages in both directions, newest last.
"""

from rakefarm.wire.state import Role, State


class ProtocolError(Exception):
    """Root of this package's errors. `code` is what an ERROR message to the peer would carry."""

    code = "protocol"

    def __init__(
        self,
        text: str,
        *,
        state: State | None = None,
        sender: Role | None = None,
        message_type: str = "",
        story: tuple[str, ...] = (),
    ) -> None:
        super().__init__(text)
        self.text = text
        self.state = state
        self.sender = sender
        self.message_type = message_type
        self.story = story

    def __str__(self) -> str:
        where = f" (in {self.state.name})" if self.state else ""
        story = f" after {', '.join(self.story)}" if self.story else ""
        return f"{self.text}{where}{story}"


class LocalProtocolError(ProtocolError):
    """We tried to send what the state does not allow, or used the connection wrongly."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Its bytes are not believed any further."""


class UnknownMessage(RemoteProtocolError):
    """The eight bytes of a type are no type of ours."""


class IllegalMessage(RemoteProtocolError):
    """A known message that its sender may not send in this state."""


class LimitExceeded(RemoteProtocolError):
    """A size field announces more than its limit allows."""

    code = "limit"


class Malformed(RemoteProtocolError):
    """A payload that does not decode: wrong length, bad UTF-8, a number that is not finite."""


class ConnectionCut(RemoteProtocolError):
    """The peer's stream ended where the conversation does not."""

    code = "cut"


class UnsafePath(ProtocolError):
    """A path that is absolute, climbs out, or that no file system should be asked for."""

    code = "path"
