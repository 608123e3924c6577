"""The words that the wire's tests are written in: a connected pair, a push, a way into any state."""

import os
from collections import deque
from dataclasses import dataclass

from wire_examples import BODIES, EXAMPLES

from rakefarm.wire import Body, Connection, Limits, Role, State
from rakefarm.wire.codec import U64
from rakefarm.wire.messages import STREAMED, TYPES, Message, MessageType
from rakefarm.wire.state import SPEAKER, TRANSITIONS

Event = Message | Body

CASES = list(TRANSITIONS)
"""Every legal (state, sender, message type)."""


def case_name(value: object) -> str:
    """How a state, role or message type is called in a test's name."""
    return value.name if isinstance(value, State | Role | MessageType) else repr(value)


def may_speak(end: Connection) -> bool:
    """Whether it is this end's turn."""
    return SPEAKER.get(end.state) is end.role


@dataclass(frozen=True)
class Pair:
    """Two ends of one conversation; what one sends, `push` carries to the other."""

    client: Connection
    server: Connection

    def end(self, role: Role) -> Connection:
        """The end that plays `role`."""
        return self.client if role is Role.CLIENT else self.server


def connected_pair(limits: Limits | None = None) -> Pair:
    """Both ends, before the first message."""
    return Pair(Connection(Role.CLIENT, limits), Connection(Role.SERVER, limits))


def events(reader: Connection) -> list[Event]:
    """Everything that the reader can tell from what it has, in order."""
    found = []
    while (event := reader.next_event()) is not None:
        found.append(event)
    return found


def wire_bytes(sender: Connection, message: Message, body: bytes | None = None) -> bytes:
    """What the sender writes for a message and its body."""
    head = sender.send(message, None if body is None else len(body))
    if body:
        sender.body_sent(len(body))
    return head + (body or b"")


def push(sender: Connection, reader: Connection, message: Message, body: bytes | None = None) -> list[Event]:
    """Send a message to the other end, and answer what it sees there."""
    reader.receive_data(wire_bytes(sender, message, body))
    return events(reader)


def push_example(pair: Pair, number: MessageType) -> list[Event]:
    """Send the example of this type from whoever's turn it is to the other."""
    role = SPEAKER[pair.client.state]
    return push(pair.end(role), pair.end(role.peer), EXAMPLES[number], BODIES.get(number))


def route_to(goal: State) -> list[MessageType]:
    """The shortest list of messages that leads from the beginning to `goal`."""
    waiting: deque[tuple[State, list[MessageType]]] = deque([(State.GREETING, [])])
    seen = {State.GREETING}
    while waiting:
        state, route = waiting.popleft()
        if state is goal:
            return route
        for (before, _, number), after in TRANSITIONS.items():
            if before is state and after not in seen:
                seen.add(after)
                waiting.append((after, [*route, number]))
    raise AssertionError(f"no messages lead to {goal.name}")


def pair_in(state: State, limits: Limits | None = None) -> Pair:
    """A pair that has talked its way into `state`."""
    pair = connected_pair(limits)
    for number in route_to(state):
        push_example(pair, number)
    assert pair.client.state is pair.server.state is state
    return pair


def reader_in(state: State, sender: Role, limits: Limits | None = None) -> Connection:
    """The end that reads what `sender` sends, in `state`."""
    return pair_in(state, limits).end(sender.peer)


def example_bytes(number: MessageType) -> bytes:
    """The example of this type as it stands on the wire, its body included."""
    state, sender, _ = next(case for case in CASES if case[2] is number)
    return wire_bytes(pair_in(state).end(sender), EXAMPLES[number], BODIES.get(number))


def expected_events(number: MessageType) -> list[Event]:
    """What a reader sees of the example, all its bytes being there."""
    body = BODIES.get(number)
    return [EXAMPLES[number], *([Body(body, 0)] if body else [])]


def joined(found: list[Event]) -> list[Message | bytes]:
    """The events with the pieces of each body put together."""
    together: list[Message | bytes] = []
    for event in found:
        if not isinstance(event, Body):
            together.append(event)
        elif together and isinstance(together[-1], bytes):
            together[-1] += event.data
        else:
            together.append(event.data)
    return together


def cases_of(number: MessageType) -> list[tuple[State, Role]]:
    """Where, and by whom, this type may be sent."""
    return [(state, sender) for state, sender, legal in CASES if legal is number]


def golden_directory() -> str:
    """Where the golden files lie."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")


def golden_text(message: Message, body: bytes | None) -> str:
    """The readable half of a golden pair."""
    return f"{message!r}\n" + (f"body {body!r}\n" if body is not None else "")


def golden_pair(number: MessageType) -> tuple[bytes, str]:
    """What the golden files of this type are to hold."""
    return example_bytes(number), golden_text(EXAMPLES[number], BODIES.get(number))


def sizes(*numbers: int) -> bytes:
    """Numbers as the wire writes types and sizes."""
    return b"".join(U64.pack(number) for number in numbers)


assert set(EXAMPLES) == set(MessageType) == set(TYPES.values()), "every message has an example"
assert set(BODIES) == STREAMED, "every streamed message has a body, and no other"
