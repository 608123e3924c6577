"""One end of a conversation, without I/O: bytes in, messages out; messages in, bytes out.

The driver feeds what it read to `receive_data` and takes `next_event` until that answers None; it writes what
`send` returns. A streamed message's body comes as `Body` pieces after its message, and goes out by the
driver's own means (`sendfile`, say), which it reports with `body_sent`. Sizes are checked on the size field,
before any of the bytes that they announce. After an error the connection is closed for good.
"""

from collections import deque
from typing import NoReturn

from msgspec import Struct

from rakefarm.wire import codec, errors, foreign
from rakefarm.wire.buffer import Buffer
from rakefarm.wire.messages import STREAMED, TYPES, Message, MessageType
from rakefarm.wire.state import GREETINGS, TRANSITIONS, Role, State

STORY_LENGTH = 6
SHORT_BYTES = 16 << 10
"""With so little received at the most, no size in it can be over a limit."""
unpack_u64 = codec.U64.unpack_from
_TYPES = {int(number): number for number in MessageType}
_SENT = {number: f">{number.name}" for number in MessageType}
_RECEIVED = {number: f"<{number.name}" for number in MessageType}

_INCOMING: dict[Role, dict[tuple[State, int], tuple[MessageType, State]]] = {
    role: {
        (state, int(number)): (number, following)
        for (state, sender, number), following in TRANSITIONS.items()
        if sender is role
    }
    for role in Role
}
"""The table of `state` by what comes off the wire: for each sender, the state and the eight bytes of a type."""


class Limits(Struct, frozen=True):
    """What one message may announce, in bytes.

    `payload` holds for each field, `message` for all fields together: a manifest of 50,000 files has some
    10 MB. (HTTP/2 frames: 16 MiB; gRPC messages: 4 MiB; distcc's tokens: 32 bits unchecked.) `body` is a
    file's size; it is never allocated, so it only has to stay below what a disk holds.
    """

    payload: int = 24 << 20
    message: int = 32 << 20
    greeting: int = 16 << 10
    body: int = 1 << 40


class Body(Struct, frozen=True):
    """A piece of the body of the message before it; `remaining` bytes of it are still to come."""

    data: bytes
    remaining: int


class Connection:
    """The protocol state of one end of one connection."""

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self.role = role
        self._peer = role.peer
        self._incoming = _INCOMING[role.peer]
        self.state = State.GREETING
        self._limits = limits or Limits()
        self._short = min(SHORT_BYTES, self._limits.payload, self._limits.message, self._limits.greeting)
        self._buffer = Buffer()
        self._story: deque[str] = deque(maxlen=STORY_LENGTH)
        self._incoming_body = 0
        self._outgoing_body = 0
        self._ended = False
        self._count = 0

    @property
    def story(self) -> tuple[str, ...]:
        """The last few messages, newest last: `<HELLO` was received, `>WELCOME` sent."""
        return tuple(self._story)

    def send(self, message: Message, body_bytes: int | None = None) -> bytes:
        """The bytes of `message`, and the state moved on. A streamed message needs the size of its body.

        Raises LocalProtocolError when this state does not allow it.
        """
        number = TYPES[type(message)]
        if self._outgoing_body:
            raise self._local(f"{number.name} before the body of the last message was sent", number)
        following = TRANSITIONS.get((self.state, self.role, number))
        if following is None:
            raise self._local(f"{self.role.value} may not send {number.name}", number)
        data = codec.encode(message, body_bytes)
        self.state = following
        self._outgoing_body = body_bytes or 0
        self._story.append(_SENT[number])
        self._count += 1
        return data

    def take_count(self) -> int:
        """How many messages were sent and received since this was asked last."""
        count, self._count = self._count, 0
        return count

    def body_sent(self, count: int) -> None:
        """Account for `count` bytes of the body of the last message, written by the driver."""
        if count > self._outgoing_body:
            raise self._local(f"{count} body bytes sent, {self._outgoing_body} announced", None)
        self._outgoing_body -= count

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what was read from the peer; empty means that its stream has ended."""
        if not data:
            self._ended = True
        self._buffer.append(data)

    def next_event(self) -> Message | Body | None:
        """The next message or piece of a body, or None when more bytes are needed.

        Raises a RemoteProtocolError; the connection is then CLOSED.
        """
        try:
            event = self._next_body() if self._incoming_body else self._next_message()
        except errors.RemoteProtocolError as error:
            sender = self.role.peer
            error.state = error.state or self.state
            error.sender, error.story = sender, error.story or self.story
            self.state = State.CLOSED
            raise
        if event is None and self._ended:
            self._check_end()
        return event

    @property
    def ended(self) -> bool:
        """True when the peer's stream has ended where it may: between two actions, or after an error."""
        return self._ended and self.state is State.CLOSED

    def _check_end(self) -> None:
        between = self.state in (State.READY, State.GREETING)
        if (between or self.state is State.CLOSED) and not len(self._buffer):
            self.state = State.CLOSED
            return
        state, self.state = self.state, State.CLOSED
        raise errors.ConnectionCut(
            "the peer closed the connection in mid-conversation",
            state=state,
            sender=self.role.peer,
            story=self.story,
        )

    def _next_body(self) -> Body | None:
        available = min(len(self._buffer), self._incoming_body)
        if not available:
            return None
        data = self._buffer.take(available)
        assert data is not None
        self._incoming_body -= available
        return Body(data, self._incoming_body)

    def _next_message(self) -> Message | None:
        buffer = self._buffer
        available = len(buffer.data) - buffer.start
        if available < codec.HEADER_BYTES:
            foreign.check_prefix(buffer.peek(8), self.state)
            return None
        number: int = unpack_u64(buffer.data, buffer.start)[0]
        entry = self._incoming.get((self.state, number))
        if entry is None:
            self._refuse_type(number)
        message_type, following = entry
        message = None
        if available <= self._short and message_type not in STREAMED:
            message = self._read_short(message_type)
        if message is None:
            message = self._read_any(message_type)
            if message is None:
                return None
        self.state = following
        self._story.append(_RECEIVED[message_type])
        self._count += 1
        return message

    def _read_short(self, message_type: MessageType) -> Message | None:
        """The message if it is there, whole and right; else None, and nothing has changed.

        In one go, where `_read_any` looks at every size before it believes any: nearly all messages come so."""
        try:
            message, end = codec.read(message_type, self._buffer.peek(self._short), codec.HEADER_BYTES)
        except errors.Malformed:
            return None
        self._buffer.skip(end)
        return message

    def _read_any(self, message_type: MessageType) -> Message | None:
        buffer = self._buffer
        end = self._find_end(message_type)
        if end is None:
            return None
        streamed = message_type in STREAMED
        body_bytes = 0
        if streamed:
            announced = buffer.peek_u64(end)
            if announced is None:
                return None
            body_bytes = announced
            self._check_size(message_type, body_bytes, self._limits.body)
        data = buffer.take(end + (codec.HEADER_BYTES if streamed else 0))
        assert data is not None
        message = codec.decode(message_type, data[codec.HEADER_BYTES : end])
        self._incoming_body = body_bytes
        return message

    @property
    def incoming_body(self) -> int:
        """How many bytes of the body of the message just received are still to come."""
        return self._incoming_body

    def _refuse_type(self, number: int) -> NoReturn:
        message_type = _TYPES.get(number)
        if message_type is None:
            raise errors.UnknownMessage(foreign.describe(self._buffer.peek(64), self.state))
        raise errors.IllegalMessage(
            f"{self._peer.value} may not send {message_type.name}", message_type=message_type.name
        )

    def _find_end(self, message_type: MessageType) -> int | None:
        """Where the payloads end, counted from the front; None when a size field is still missing.

        Every size is checked as soon as its eight bytes are there, however far away its payload is.
        """
        greeting = self.state in GREETINGS
        payload_limit = self._limits.greeting if greeting else self._limits.payload
        message_limit = self._limits.greeting if greeting else self._limits.message
        data, start = self._buffer.data, self._buffer.start
        available = len(data)
        position = start + codec.HEADER_BYTES
        # The one loop that every message goes through: plain arithmetic, and no call that can be had without.
        for _ in range(codec.PAYLOAD_COUNTS[message_type]):
            if position + 8 > available:
                return None
            size = unpack_u64(data, position)[0]
            position += 8 + size
            if size > payload_limit:
                self._check_size(message_type, size, payload_limit)
            if position - start > message_limit:
                self._check_size(message_type, position - start, message_limit)
        return position - start if position <= available else None

    def _check_size(self, message_type: MessageType, size: int, limit: int) -> None:
        if size > limit:
            raise errors.LimitExceeded(
                f"{message_type.name} announces {size} bytes, the limit is {limit}",
                message_type=message_type.name,
            )

    def _local(self, text: str, number: MessageType | None) -> errors.LocalProtocolError:
        return errors.LocalProtocolError(
            text,
            state=self.state,
            sender=self.role,
            message_type=number.name if number else "",
            story=self.story,
        )

    def farewell(self, error: Message) -> bytes:
        """The bytes of a last ERROR to a peer that broke the protocol, whoever's turn it was; we are CLOSED then.

        None in the middle of a body that we send: the peer would take them for a piece of it.
        """
        self.state = State.CLOSED
        if self._outgoing_body:
            return b""
        self._story.append(">ERROR")
        return codec.encode(error)
