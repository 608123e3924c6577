"""The conversation as one table.

The rules: the client speaks first; in every state exactly one side may speak; a message is legal when
`(state, sender, message type)` is in the table, and the table names the state that follows. The protocol is
half duplex, so the same table serves both ends: what one sends, the other receives in the same state.

`docs/states.md` is drawn from this table (`scripts/draw_states.py`), and a test keeps it fresh.
"""

from enum import Enum

from rakefarm.wire.messages import MessageType as M


class Role(Enum):
    """The two ends of a connection. The client is the one that connected."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is Python code, called a message

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> "Role":
        """The other end."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(Enum):
    """Where a conversation stands. Each value says who speaks and about what."""

    __hash__ = object.__hash__

    GREETING = "the client introduces itself"
    ADMITTING = "the server accepts or refuses the client, or has it prove who it is"
    PROVING = "the client proves that it holds a key"
    JUDGING = "the server accepts or refuses the proof, and proves the same"
    READY = "the client may ask for a quote or the status, or have a command executed"
    QUOTING = "the server quotes a price or declines"
    WAITING = "the server tells when a slot is free for the client"
    REPORTING = "the server tells how it is"
    STAGING = "the server says which input files it lacks, or starts at once"
    SUPPLYING = "the client sends the files that the server lacks"
    RUNNING = "the server reports progress until the command has ended"
    DELIVERING = "the server sends what the command wrote"
    ACKNOWLEDGING = "the client confirms that everything arrived, and may go on"
    CLOSED = "nobody speaks any more"


CLIENT, SERVER = Role.CLIENT, Role.SERVER
S = State

TRANSITIONS: dict[tuple[State, Role, M], State] = {
    (S.GREETING, CLIENT, M.HELLO): S.ADMITTING,
    (S.ADMITTING, SERVER, M.WELCOME): S.READY,
    (S.ADMITTING, SERVER, M.CHALLENGE): S.PROVING,
    (S.PROVING, CLIENT, M.PROOF): S.JUDGING,
    (S.JUDGING, SERVER, M.WELCOME): S.READY,
    (S.READY, CLIENT, M.QUOTE_REQUEST): S.QUOTING,
    (S.READY, CLIENT, M.EXECUTE): S.STAGING,
    (S.QUOTING, SERVER, M.QUOTE): S.READY,
    (S.QUOTING, SERVER, M.DECLINE): S.READY,
    (S.READY, CLIENT, M.WAIT): S.WAITING,
    (S.WAITING, SERVER, M.PROGRESS): S.WAITING,
    (S.WAITING, SERVER, M.QUOTE): S.READY,
    (S.WAITING, SERVER, M.DECLINE): S.READY,
    (S.READY, CLIENT, M.STATUS): S.REPORTING,
    (S.REPORTING, SERVER, M.STATUS_REPLY): S.READY,
    (S.STAGING, SERVER, M.NEED): S.SUPPLYING,
    (S.STAGING, SERVER, M.PROGRESS): S.RUNNING,
    (S.STAGING, SERVER, M.RESULT): S.DELIVERING,
    (S.STAGING, SERVER, M.DECLINE): S.READY,
    (S.SUPPLYING, CLIENT, M.FILE): S.SUPPLYING,
    (S.SUPPLYING, CLIENT, M.SUPPLIED): S.RUNNING,
    (S.RUNNING, SERVER, M.PROGRESS): S.RUNNING,
    (S.RUNNING, SERVER, M.RESULT): S.DELIVERING,
    (S.RUNNING, SERVER, M.DECLINE): S.READY,
    (S.DELIVERING, SERVER, M.STDOUT): S.DELIVERING,
    (S.DELIVERING, SERVER, M.STDERR): S.DELIVERING,
    (S.DELIVERING, SERVER, M.OUTPUT): S.DELIVERING,
    (S.DELIVERING, SERVER, M.DELIVERED): S.ACKNOWLEDGING,
    (S.ACKNOWLEDGING, CLIENT, M.ACK): S.READY,
}

GREETINGS = frozenset({State.GREETING, State.ADMITTING, State.PROVING, State.JUDGING})
"""Before READY: nobody has been accepted yet, so messages must be small."""

SPEAKER: dict[State, Role] = {state: sender for state, sender, _ in TRANSITIONS}

# Whoever speaks may give up instead, from any state: ERROR says why, and the connection is over.
for _state, _speaker in SPEAKER.items():
    TRANSITIONS[_state, _speaker, M.ERROR] = S.CLOSED
