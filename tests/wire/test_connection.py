"""Both ends of a conversation: how bytes arrive, what is refused, misuse of our own, bodies, and the end of a stream."""

import pytest
from wire_examples import BODIES, EXAMPLES
from wire_vocabulary import (
    CASES,
    case_name,
    cases_of,
    connected_pair,
    events,
    example_bytes,
    expected_events,
    joined,
    may_speak,
    pair_in,
    push,
    push_example,
    reader_in,
    sizes,
    wire_bytes,
)

from rakefarm.wire import Body, LocalProtocolError, RemoteProtocolError, Role, State
from rakefarm.wire.errors import ConnectionCut, IllegalMessage, Malformed
from rakefarm.wire.messages import STREAMED, Error, File, MessageType, Output, Progress, Stdout, Supplied
from rakefarm.wire.state import SPEAKER, TRANSITIONS

every_case = pytest.mark.parametrize(("state", "sender", "number"), CASES, ids=case_name)
every_type = pytest.mark.parametrize("number", list(MessageType), ids=case_name)
every_state = pytest.mark.parametrize("state", list(State), ids=case_name)
every_role = pytest.mark.parametrize("role", list(Role), ids=case_name)
every_streamed = pytest.mark.parametrize("number", sorted(STREAMED), ids=case_name)


# --- how bytes arrive ---------------------------------------------------------------------------------------


@every_case
def test_a_message_that_comes_whole(state, sender, number):
    pair = pair_in(state)
    assert push_example(pair, number) == expected_events(number)
    assert pair.client.state is pair.server.state is TRANSITIONS[state, sender, number]


@every_case
def test_a_message_that_comes_one_byte_at_a_time(state, sender, number):
    reader = reader_in(state, sender)
    data = example_bytes(number)
    head = len(data) - len(BODIES.get(number, b""))
    found = []
    for position in range(len(data)):
        reader.receive_data(data[position : position + 1])
        found += events(reader)
        assert bool(found) == (position + 1 >= head), "neither early nor late"
    assert joined(found) == joined(expected_events(number))
    assert [event.remaining for event in found[1:]] == list(reversed(range(len(data) - head)))


@every_case
def test_a_message_with_the_beginning_of_another_behind_it(state, sender, number):
    """The rest waits, and is the next message when it is complete, if its sender may still speak then."""
    reader = reader_in(state, sender)
    following = TRANSITIONS[state, sender, number]
    tail = example_bytes(MessageType.ERROR)
    reader.receive_data(example_bytes(number) + tail[:7])
    assert events(reader) == expected_events(number)
    assert reader.state is following
    reader.receive_data(tail[7:])
    if SPEAKER.get(following) is sender:
        assert events(reader) == [EXAMPLES[MessageType.ERROR]]
    else:
        with pytest.raises(IllegalMessage):
            events(reader)


def test_a_whole_conversation_of_one_side_in_one_read():
    pair = pair_in(State.STAGING)
    numbers = [
        *(MessageType.PROGRESS, MessageType.PROGRESS, MessageType.RESULT),
        *(MessageType.STDOUT, MessageType.STDERR, MessageType.OUTPUT, MessageType.OUTPUT),
        MessageType.DELIVERED,
    ]
    data = b"".join([wire_bytes(pair.server, EXAMPLES[number], BODIES.get(number)) for number in numbers])
    pair.client.receive_data(data)
    assert events(pair.client) == [event for number in numbers for event in expected_events(number)]
    assert may_speak(pair.client) and not may_speak(pair.server)


def test_an_acknowledgement_may_travel_with_the_next_request():
    pair = pair_in(State.ACKNOWLEDGING)
    request = EXAMPLES[MessageType.EXECUTE]
    pair.server.receive_data(pair.client.send(EXAMPLES[MessageType.ACK]) + pair.client.send(request))
    assert events(pair.server) == [EXAMPLES[MessageType.ACK], request]
    assert pair.client.state is pair.server.state is State.STAGING


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_will_do(kind):
    pair = connected_pair()
    pair.server.receive_data(kind(pair.client.send(EXAMPLES[MessageType.HELLO])))
    assert events(pair.server) == [EXAMPLES[MessageType.HELLO]]


def test_what_was_received_does_not_change_with_the_driver_s_buffer():
    pair = connected_pair()
    driver = bytearray(pair.client.send(EXAMPLES[MessageType.HELLO]))
    pair.server.receive_data(driver)
    driver[:] = bytes(len(driver))
    assert events(pair.server) == [EXAMPLES[MessageType.HELLO]]


# --- what is refused ----------------------------------------------------------------------------------------


@every_type
def test_a_message_that_its_sender_may_not_send_there_is_refused_at_both_ends(number):
    for state in State:
        for sender in Role:
            if (state, sender, number) in TRANSITIONS:
                continue
            pair = pair_in(state)
            body_bytes = 3 if number in STREAMED else None
            before = pair.end(sender).story
            with pytest.raises(LocalProtocolError) as local:
                pair.end(sender).send(EXAMPLES[number], body_bytes)
            assert (local.value.state, local.value.sender) == (state, sender)
            assert local.value.message_type == number.name and local.value.story == before
            assert pair.end(sender).state is state, "our own mistake changes nothing"

            reader = pair.end(sender.peer)
            reader.receive_data(sizes(number))  # its type alone is enough
            if state is State.CLOSED:
                with pytest.raises(RemoteProtocolError):
                    reader.next_event()
                continue
            with pytest.raises(IllegalMessage) as remote:
                reader.next_event()
            assert (remote.value.state, remote.value.sender) == (state, sender)
            assert remote.value.message_type == number.name and number.name in str(remote.value)
            assert reader.state is State.CLOSED and not may_speak(reader)


@every_case
def test_after_an_error_nothing_of_the_peer_is_believed(state, sender, number):
    reader = reader_in(state, sender)
    reader.receive_data(sizes(0))
    with pytest.raises(RemoteProtocolError):
        reader.next_event()
    reader.receive_data(example_bytes(number))
    with pytest.raises(RemoteProtocolError):
        reader.next_event()
    with pytest.raises(LocalProtocolError):
        reader.send(EXAMPLES[MessageType.ERROR])


def test_an_error_tells_what_came_before_it():
    pair = pair_in(State.READY)
    push_example(pair, MessageType.QUOTE_REQUEST)
    pair.server.receive_data(sizes(MessageType.ACK))
    with pytest.raises(IllegalMessage) as caught:
        pair.server.next_event()
    assert caught.value.story == ("<HELLO", ">WELCOME", "<QUOTE_REQUEST")
    assert str(caught.value) == ("client may not send ACK (in QUOTING) after <HELLO, >WELCOME, <QUOTE_REQUEST")


def test_the_story_has_an_end():
    pair = pair_in(State.RUNNING)
    for _ in range(100):
        push_example(pair, MessageType.PROGRESS)
    assert pair.client.story == ("<PROGRESS",) * 6 and pair.server.story == (">PROGRESS",) * 6


def test_a_payload_that_does_not_decode_closes_the_connection():
    pair = pair_in(State.READY)
    data = bytearray(pair.client.send(EXAMPLES[MessageType.QUOTE_REQUEST]))
    data[16] = 0xFF  # the first byte of `kind`
    pair.server.receive_data(data)
    with pytest.raises(Malformed) as caught:
        pair.server.next_event()
    assert caught.value.state is State.READY and pair.server.state is State.CLOSED


@every_role
def test_a_farewell_is_the_last_word_and_may_be_said_out_of_turn(role):
    pair = pair_in(State.STAGING)
    end = pair.end(role)
    error = Error("internal", "the server met a fault of its own")
    data = end.farewell(error)
    assert data[:8] == sizes(MessageType.ERROR)
    assert end.state is State.CLOSED and end.story[-1] == ">ERROR"
    with pytest.raises(LocalProtocolError):
        end.send(error)
    if role is Role.SERVER:
        pair.client.receive_data(data)
        assert events(pair.client) == [error]


def test_a_farewell_in_the_middle_of_a_body_is_silence():
    """The peer would take its bytes for the body's."""
    pair = pair_in(State.DELIVERING)
    head = pair.server.send(Stdout(), 100)
    pair.server.body_sent(10)
    farewell = pair.server.farewell(Error("internal", "the file became shorter"))
    assert pair.server.state is State.CLOSED
    pair.client.receive_data(head + b"x" * 10 + farewell)
    assert joined(events(pair.client)) == [Stdout(), b"x" * 10]
    pair.client.receive_data(b"")
    with pytest.raises(ConnectionCut):
        events(pair.client)


# --- misuse of our own --------------------------------------------------------------------------------------


@every_streamed
def test_a_streamed_message_needs_the_size_of_its_body(number):
    state, sender = cases_of(number)[0]
    end = pair_in(state).end(sender)
    with pytest.raises(AssertionError):
        end.send(EXAMPLES[number])
    assert end.state is state


def test_other_messages_have_no_body():
    end = pair_in(State.READY).client
    with pytest.raises(AssertionError):
        end.send(EXAMPLES[MessageType.QUOTE_REQUEST], 0)
    assert end.state is State.READY


def test_a_message_in_the_middle_of_a_body_is_our_mistake():
    client = pair_in(State.SUPPLYING).client
    client.send(File(0), 2)
    client.body_sent(1)
    with pytest.raises(LocalProtocolError, match="before the body"):
        client.send(Supplied())
    client.body_sent(1)
    client.send(Supplied())
    assert client.state is State.RUNNING


def test_more_body_than_announced_is_our_mistake():
    client = pair_in(State.SUPPLYING).client
    client.send(File(0), 2)
    with pytest.raises(LocalProtocolError, match="3 body bytes sent, 2 announced"):
        client.body_sent(3)
    client.body_sent(2)
    with pytest.raises(LocalProtocolError):
        client.body_sent(1)


def test_a_value_that_can_not_cross_the_wire_changes_nothing():
    server = pair_in(State.RUNNING).server
    before = server.story
    with pytest.raises(ValueError, match="nan"):
        server.send(Progress("running", float("nan"), 0.0, 0))
    assert server.state is State.RUNNING and server.story == before
    assert server.send(EXAMPLES[MessageType.PROGRESS]) == example_bytes(MessageType.PROGRESS)


# --- bodies -------------------------------------------------------------------------------------------------


@every_streamed
@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_a_body_comes_in_the_pieces_that_were_read(number, piece):
    state, sender = cases_of(number)[0]
    pair = pair_in(state)
    body = bytes(range(256)) * 3
    reader = pair.end(sender.peer)
    reader.receive_data(pair.end(sender).send(EXAMPLES[number], len(body)))
    assert reader.next_event() == EXAMPLES[number]
    assert reader.incoming_body == len(body)
    together = b""
    for position in range(0, len(body), piece):
        reader.receive_data(body[position : position + piece])
        event = reader.next_event()
        assert isinstance(event, Body)
        together += event.data
        assert event.remaining == reader.incoming_body == len(body) - len(together)
        assert reader.next_event() is None
    assert together == body


@every_streamed
def test_an_empty_body_is_no_event(number):
    state, sender = cases_of(number)[0]
    pair = pair_in(state)
    assert push(pair.end(sender), pair.end(sender.peer), EXAMPLES[number], b"") == [EXAMPLES[number]]
    assert pair.end(sender.peer).incoming_body == 0
    assert push_example(pair, number) == expected_events(number), "and the next message follows at once"


def test_a_body_may_look_like_a_message():
    pair = pair_in(State.DELIVERING)
    body = example_bytes(MessageType.DELIVERED)
    output = Output(b"x", 0o644, bytes(32))
    assert joined(push(pair.server, pair.client, output, body)) == [output, body]
    assert pair.client.state is State.DELIVERING


def test_the_size_of_a_body_may_come_late():
    pair = pair_in(State.SUPPLYING)
    data = wire_bytes(pair.client, File(1), b"content")
    head = len(data) - len(b"content")
    pair.server.receive_data(data[: head - 1])
    assert pair.server.next_event() is None and pair.server.incoming_body == 0
    pair.server.receive_data(data[head - 1 :])
    assert joined(events(pair.server)) == [File(1), b"content"]


# --- the end of a stream ------------------------------------------------------------------------------------

MAY_END = (State.GREETING, State.READY, State.CLOSED)


@every_state
@every_role
def test_a_stream_may_end_between_two_actions_and_nowhere_else(state, role):
    reader = pair_in(state).end(role)
    assert not reader.ended
    reader.receive_data(b"")
    if state in MAY_END:
        assert reader.next_event() is None
        assert reader.ended
    else:
        with pytest.raises(ConnectionCut) as caught:
            reader.next_event()
        assert (caught.value.state, caught.value.sender) == (state, role.peer)
        assert caught.value.code == "cut"
    assert reader.state is State.CLOSED and not may_speak(reader)


@every_case
def test_a_stream_that_ends_inside_a_message_is_cut(state, sender, number):
    data = example_bytes(number)
    for length in {1, 7, 8, len(data) - 1} - {len(data)}:
        reader = reader_in(state, sender)
        reader.receive_data(data[:length])
        reader.receive_data(b"")
        with pytest.raises(ConnectionCut):
            events(reader)
        assert reader.state is State.CLOSED


def test_what_came_before_the_end_is_still_told():
    pair = pair_in(State.QUOTING)
    pair.client.receive_data(pair.server.send(EXAMPLES[MessageType.QUOTE]))
    pair.client.receive_data(b"")
    assert not pair.client.ended
    assert events(pair.client) == [EXAMPLES[MessageType.QUOTE]]
    assert pair.client.ended


def test_an_end_after_an_error_message_is_a_clean_one():
    pair = pair_in(State.RUNNING)
    assert push_example(pair, MessageType.ERROR) == [EXAMPLES[MessageType.ERROR]]
    assert pair.client.state is pair.server.state is State.CLOSED
    pair.client.receive_data(b"")
    assert pair.client.next_event() is None and pair.client.ended


def test_bytes_after_an_error_message_are_refused():
    pair = pair_in(State.RUNNING)
    pair.client.receive_data(pair.server.send(EXAMPLES[MessageType.ERROR]) + example_bytes(MessageType.PROGRESS))
    assert pair.client.next_event() == EXAMPLES[MessageType.ERROR]
    with pytest.raises(IllegalMessage):
        pair.client.next_event()
