"""What a peer may announce: sizes are refused on the size field alone, and nothing is kept for them."""

import tracemalloc

import pytest
from msgspec import structs
from wire_examples import BODIES, EXAMPLES
from wire_vocabulary import (
    CASES,
    Pair,
    case_name,
    cases_of,
    connected_pair,
    events,
    example_bytes,
    expected_events,
    may_speak,
    pair_in,
    push,
    push_example,
    reader_in,
    sizes,
    wire_bytes,
)

from rakefarm.wire import Body, Connection, Limits, Role, State
from rakefarm.wire.codec import PAYLOAD_COUNTS, encode
from rakefarm.wire.errors import ConnectionCut, LimitExceeded, Malformed, UnknownMessage
from rakefarm.wire.messages import STREAMED, Error, Execute, File, MessageType, NeedFiles, Output, Task, Wait

DEFAULT = Limits()
GREETINGS = (State.GREETING, State.ADMITTING, State.PROVING, State.JUDGING)
FLAT_BYTES = 64 << 10
"""What refusing a size may cost in memory, however large the size."""

TASK_BYTES = len(encode(Wait(Task("", (), 0, 0.0, 0)))) - 16
"""A task's payload beyond its kind."""
FIELDS = [(number, index) for number, count in PAYLOAD_COUNTS.items() for index in range(count)]


def request_of(payload_bytes: int) -> Wait:
    """A request whose one payload has this many bytes."""
    return Wait(Task("k" * (payload_bytes - TASK_BYTES), (), 0, 0.0, 0))


def refusal(reader: Connection, data: bytes) -> LimitExceeded:
    """What the reader says to `data`, which it must refuse at its last byte, at no cost."""
    reader.receive_data(data[:-1])
    assert reader.next_event() is None, "refused before the size was complete"
    tracemalloc.start()
    try:
        reader.receive_data(data[-1:])
        with pytest.raises(LimitExceeded) as caught:
            reader.next_event()
        assert tracemalloc.get_traced_memory()[1] < FLAT_BYTES
    finally:
        tracemalloc.stop()
    assert reader.state is State.CLOSED
    assert caught.value.code == "limit"
    return caught.value


@pytest.mark.parametrize(("number", "index"), FIELDS, ids=case_name)
def test_a_field_over_its_limit_is_refused_on_its_size_alone(number, index):
    for state, sender in cases_of(number):
        limit = DEFAULT.greeting if state in GREETINGS else DEFAULT.payload
        for size in (limit + 1, 1 << 63, (1 << 64) - 1):
            head = sizes(number) + sizes(0) * index
            error = refusal(reader_in(state, sender), head + sizes(size))
            assert error.message_type == number.name and error.state is state
            assert str(size) in error.text and str(limit) in error.text


@pytest.mark.parametrize("number", sorted(STREAMED), ids=case_name)
def test_a_body_over_its_limit_is_refused_on_its_size_alone(number):
    state, sender = cases_of(number)[0]
    head = example_bytes(number)[: -len(BODIES[number]) - 8]
    for size in (DEFAULT.body + 1, 1 << 63, (1 << 64) - 1):
        error = refusal(reader_in(state, sender), head + sizes(size))
        assert error.message_type == number.name
    reader = reader_in(state, sender)
    reader.receive_data(head + sizes(DEFAULT.body))
    assert reader.next_event() == EXAMPLES[number] and reader.incoming_body == DEFAULT.body


def test_a_field_may_be_just_as_large_as_its_limit():
    limits = Limits(payload=100)
    pair = pair_in_small(limits)
    exact = request_of(100)
    assert push(pair.client, pair.server, exact) == [exact]
    pair = pair_in_small(limits)
    with pytest.raises(LimitExceeded, match=r"101 bytes, the limit is 100"):
        push(pair.client, pair.server, request_of(101))


def test_a_message_may_be_just_as_large_as_its_limit():
    """Counted are its type, its size fields and its payloads, not its body."""
    exact = Execute(0, 1, Task("k" * 60, (), 0, 0.0, 0), b"true", (), 0, (b"out",), 0.0, (), "label", 0)
    length = 8 + 11 * 8 + 8 + 8 + (TASK_BYTES + 60) + 4 + 0 + 8 + (8 + 3) + 8 + 0 + 5 + 8
    limits = Limits(payload=TASK_BYTES + 61, message=length)
    pair = pair_in_small(limits)
    assert push(pair.client, pair.server, exact) == [exact]
    pair = pair_in_small(limits)
    with pytest.raises(LimitExceeded, match=rf"{length + 1} bytes, the limit is {length}"):
        push(pair.client, pair.server, with_one_more(exact))


def with_one_more(request: Execute) -> Execute:
    """The same, a byte longer."""
    return structs.replace(request, label=request.label + "k")


def pair_in_small(limits: Limits):
    """A pair in READY whose server has the given limits."""
    pair = Pair(pair_in(State.READY).client, Connection(Role.SERVER, limits))
    pair.server.state = State.READY
    return pair


def test_fields_that_are_small_enough_add_up_to_too_much():
    """The second size is refused though it is within its own limit, and before any payload of it."""
    reader = reader_in(State.READY, Role.CLIENT)
    payload = DEFAULT.payload
    filled = DEFAULT.message - payload
    reader.receive_data(sizes(MessageType.EXECUTE, filled) + bytes(filled))
    assert reader.next_event() is None
    reader.receive_data(sizes(payload)[:7])
    assert reader.next_event() is None
    reader.receive_data(sizes(payload)[7:])
    with pytest.raises(LimitExceeded):
        reader.next_event()


@pytest.mark.parametrize("state", GREETINGS, ids=case_name)
def test_an_introduction_is_short(state):
    number = {State.GREETING: MessageType.HELLO, State.PROVING: MessageType.PROOF}.get(state, MessageType.WELCOME)
    sender = Role.CLIENT if state in (State.GREETING, State.PROVING) else Role.SERVER
    pair = pair_in(state)
    hello = EXAMPLES[number]
    long_name = type(hello)(
        **{
            name: "n" * DEFAULT.greeting if name in ("client", "server", "software", "key") else value
            for name, value in ((field, getattr(hello, field)) for field in hello.__struct_fields__)
        }
    )
    with pytest.raises(LimitExceeded, match=f"the limit is {DEFAULT.greeting}"):
        push(pair.end(sender), pair.end(sender.peer), long_name)


def test_an_error_in_place_of_a_welcome_is_short_too():
    pair = pair_in(State.ADMITTING)
    with pytest.raises(LimitExceeded):
        push(pair.server, pair.client, Error("version", "x" * DEFAULT.greeting))


def test_after_the_introductions_the_larger_limit_holds():
    pair = pair_in(State.READY)
    request = request_of(DEFAULT.greeting + 1)
    assert push(pair.client, pair.server, request) == [request]


@pytest.mark.parametrize("size", [1, 7, 9, 1 << 63, (1 << 64) - 1])
def test_inner_sizes_can_not_reach_out_of_their_payload(size):
    reader = reader_in(State.STAGING, Role.SERVER)
    reader.receive_data(sizes(MessageType.NEED, 16, size, 0))
    with pytest.raises(Malformed):
        reader.next_event()


@pytest.mark.parametrize("length", [1, 7])
def test_a_cut_inner_size_is_refused(length):
    reader = reader_in(State.STAGING, Role.SERVER)
    reader.receive_data(sizes(MessageType.NEED, 16 + length, 8, 3) + bytes(length))
    with pytest.raises(Malformed):
        reader.next_event()


def test_a_body_of_any_size_is_never_held():
    pair = pair_in(State.DELIVERING)
    piece, count = bytes(256 << 10), 64
    pair.client.receive_data(pair.server.send(Output(b"big", 0o644, bytes(32)), len(piece) * count))
    assert pair.client.next_event() == Output(b"big", 0o644, bytes(32))
    seen = 0
    tracemalloc.start()
    try:
        for _ in range(count):
            pair.client.receive_data(piece)
            event = pair.client.next_event()
            assert isinstance(event, Body)
            seen += len(event.data)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(piece)
    finally:
        tracemalloc.stop()
    assert seen == len(piece) * count and pair.client.incoming_body == 0


def test_what_was_consumed_is_given_back():
    """Though there is always half a message behind it, so that the buffer is never empty."""
    pair = pair_in(State.RUNNING)
    data = example_bytes(MessageType.PROGRESS)
    pair.client.receive_data(data[:20])
    tracemalloc.start()
    try:
        for _ in range(8000):
            pair.client.receive_data(data[20:] + data[:20])
            assert pair.client.next_event() is not None
        assert tracemalloc.get_traced_memory()[0] < 4 * FLAT_BYTES
    finally:
        tracemalloc.stop()


# --- types that are not ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 5, 37, 98, 100, 65535, 65536, 1 << 63, (1 << 64) - 1])
def test_an_unknown_type_is_refused(number):
    assert number not in set(MessageType)
    for state, sender, legal in CASES:
        if legal is MessageType.ERROR:
            reader = reader_in(state, sender)
            reader.receive_data(sizes(number))
            with pytest.raises(UnknownMessage, match="unknown message type: the peer sent"):
                reader.next_event()


FOREIGN = [
    (b"GET / HTTP/1.1\r\nHost: lab1:6238\r\n\r\n", "HTTP"),
    (b"POST /run HTTP/1.1\r\n", "HTTP"),
    (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
    (b"DIST00000001ARGC00000005", "distcc"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
]


@pytest.mark.parametrize(("data", "name"), FOREIGN, ids=lambda value: None if isinstance(value, bytes) else value)
def test_another_protocol_is_named(data, name):
    for reader in (connected_pair().server, reader_in(State.ADMITTING, Role.SERVER)):
        reader.receive_data(data)
        with pytest.raises(UnknownMessage, match=f"this is {name}, not rakefarm") as caught:
            reader.next_event()
        assert str(caught.value).isprintable()
        assert reader.state is State.CLOSED


def test_another_protocol_is_not_named_later():
    """A client that has introduced itself speaks our protocol, though badly."""
    reader = reader_in(State.READY, Role.CLIENT)
    reader.receive_data(b"GET / HTTP/1.1\r\n")
    with pytest.raises(UnknownMessage, match="unknown message type: the peer sent 'GET / HTTP"):
        reader.next_event()


def test_a_greeting_that_can_not_be_ours_is_refused_before_it_is_complete():
    for first in (b"h", b"SSH-", b"\x00\x00\x01", b"\x00\x00\x00\x00\x00\x01"):
        server = connected_pair().server
        server.receive_data(first)
        with pytest.raises(UnknownMessage):
            server.next_event()
    server = connected_pair().server
    server.receive_data(bytes(7))
    assert server.next_event() is None


# --- half messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", list(MessageType), ids=case_name)
def test_half_a_message_is_no_message(number):
    """Cut anywhere, it changes nothing; with its other half, it is what was sent; without, the stream was cut."""
    state, sender = cases_of(number)[0]
    data = example_bytes(number)
    head = len(data) - len(BODIES.get(number, b""))
    for length in range(1, head):
        reader = reader_in(state, sender)
        reader.receive_data(data[:length])
        assert reader.next_event() is None
        assert reader.state is state and not may_speak(reader)
        if length % 2:
            reader.receive_data(data[length:])
            assert events(reader) == expected_events(number)
        else:
            reader.receive_data(b"")
            with pytest.raises(ConnectionCut):
                reader.next_event()


def test_half_a_body_is_not_the_body():
    pair = pair_in(State.SUPPLYING)
    data = wire_bytes(pair.client, File(0), b"0123456789")
    pair.server.receive_data(data[:-1])
    assert events(pair.server) == [File(0), Body(b"012345678", 1)]
    pair.server.receive_data(b"")
    with pytest.raises(ConnectionCut):
        pair.server.next_event()


def test_a_manifest_s_worth_of_indexes_is_read_in_one_go():
    pair = pair_in(State.STAGING)
    need = NeedFiles(tuple(range(50_000)))
    assert push(pair.server, pair.client, need) == [need]
    assert push_example(pair, MessageType.SUPPLIED) == [EXAMPLES[MessageType.SUPPLIED]]
