"""The table of the conversation: its invariants, and random walks over it through two connected ends."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wire_examples import BODIES, EXAMPLES
from wire_vocabulary import (
    CASES,
    case_name,
    connected_pair,
    events,
    expected_events,
    joined,
    may_speak,
    route_to,
    wire_bytes,
)

from rakefarm.wire import LocalProtocolError, Role, State
from rakefarm.wire.messages import STREAMED, MessageType
from rakefarm.wire.state import SPEAKER, TRANSITIONS


@pytest.mark.parametrize("state", list(State), ids=case_name)
def test_exactly_one_side_speaks_in_every_state(state):
    speakers = {sender for before, sender, _ in TRANSITIONS if before is state}
    assert speakers == (set() if state is State.CLOSED else {SPEAKER[state]})


@pytest.mark.parametrize("state", list(State), ids=case_name)
def test_every_state_can_be_reached(state):
    assert len(route_to(state)) <= 6


@pytest.mark.parametrize("state", list(State), ids=case_name)
def test_every_state_reaches_its_end(state):
    """CLOSED in one step, and READY again without an error, once the introductions are made."""
    if state is State.CLOSED:
        return
    assert TRANSITIONS[state, SPEAKER[state], MessageType.ERROR] is State.CLOSED
    reached, before = {state}, set()
    while reached != before:
        before = set(reached)
        reached |= {
            after
            for (start, _, number), after in TRANSITIONS.items()
            if start in before and number is not MessageType.ERROR
        }
    assert State.READY in reached and State.CLOSED not in reached


def test_every_message_has_its_place():
    assert {number for _, _, number in TRANSITIONS} == set(MessageType)


def test_only_an_error_closes():
    closing = {number for (_, _, number), after in TRANSITIONS.items() if after is State.CLOSED}
    assert closing == {MessageType.ERROR}


def test_every_message_but_error_has_one_sender():
    for number in MessageType:
        senders = {sender for _, sender, legal in TRANSITIONS if legal is number}
        assert len(senders) == (2 if number is MessageType.ERROR else 1)


def test_a_result_is_only_followed_by_what_was_made():
    """DELIVERED without a RESULT before it can't be: DELIVERING is entered by RESULT alone."""
    entries = {
        number
        for (before, _, number), after in TRANSITIONS.items()
        if after is State.DELIVERING and before is not State.DELIVERING
    }
    assert entries == {MessageType.RESULT}


def test_roles_are_each_other_s_peers():
    assert Role.CLIENT.peer is Role.SERVER and Role.SERVER.peer is Role.CLIENT


def test_every_state_says_what_it_is():
    assert len({state.value for state in State}) == len(State)
    for state, speaker in SPEAKER.items():
        assert state.value.startswith(f"the {speaker.value} ")


class Conversations(RuleBasedStateMachine):
    """Two ends that say whatever the table allows, in segments of any size, and try what it doesn't."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = connected_pair()
        self.state = State.GREETING

    @precondition(lambda self: self.state is not State.CLOSED)
    @rule(data=st.data())
    def say_something(self, data):
        """The speaker says a message of its choice; the other end sees it, in whatever pieces it arrives."""
        legal = [case for case in CASES if case[0] is self.state]
        talk = [case for case in legal if case[2] is not MessageType.ERROR]
        case = data.draw(st.sampled_from(talk * 4 + legal))
        _, sender, number = case
        reader = self.pair.end(sender.peer)
        sent = wire_bytes(self.pair.end(sender), EXAMPLES[number], BODIES.get(number))
        cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=4))
        found = []
        edges = [0, *sorted(cuts), len(sent)]
        for start, end in zip(edges, edges[1:], strict=False):
            if start < end:
                reader.receive_data(sent[start:end])
                found += events(reader)
        assert joined(found) == joined(expected_events(number))
        self.state = TRANSITIONS[case]

    @rule(role=st.sampled_from(Role), number=st.sampled_from(MessageType))
    def try_something_illegal(self, role, number):
        """A mistake of ours is refused here, and leaves no trace on the wire."""
        if (self.state, role, number) not in TRANSITIONS:
            with pytest.raises(LocalProtocolError):
                self.pair.end(role).send(EXAMPLES[number], 1 if number in STREAMED else None)

    @invariant()
    def both_ends_agree(self):
        """They are in one state, and at most one of them may speak."""
        assert self.pair.client.state is self.pair.server.state is self.state
        assert may_speak(self.pair.client) + may_speak(self.pair.server) == (self.state is not State.CLOSED)

    def teardown(self) -> None:
        for role in Role:
            end = self.pair.end(role)
            end.receive_data(b"")
            if self.state in (State.GREETING, State.READY, State.CLOSED):
                assert end.next_event() is None and end.ended


Conversations.TestCase.settings = settings(deadline=None, derandomize=True, max_examples=40, stateful_step_count=40)
test_random_conversations = Conversations.TestCase
