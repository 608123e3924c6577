"""Golden bytes: a message is written and read today as it was when its files were committed.

`python scripts/write_golden.py` writes the files anew, for a change of the protocol that is meant.
"""

import os

import pytest
from wire_examples import BODIES, EXAMPLES
from wire_vocabulary import (
    case_name,
    cases_of,
    events,
    golden_directory,
    golden_text,
    joined,
    pair_in,
    wire_bytes,
)

from rakefarm.wire.codec import PAYLOAD_COUNTS
from rakefarm.wire.messages import STREAMED, MessageType, Need, QuoteRequest, Task
from rakefarm.wire.state import State

every_type = pytest.mark.parametrize("number", list(MessageType), ids=case_name)


def golden(number: MessageType) -> tuple[bytes, str]:
    parts = []
    for kind in ("bin", "txt"):
        with open(os.path.join(golden_directory(), f"{number.name}.{kind}"), "rb") as file:
            parts.append(file.read())
    return parts[0], parts[1].decode()


def test_there_is_one_pair_for_each_message_and_nothing_else():
    expected = {f"{number.name}.{kind}" for number in MessageType for kind in ("bin", "txt")}
    assert set(os.listdir(golden_directory())) == expected


@every_type
def test_a_message_is_written_as_its_golden_bytes(number):
    for state, sender in cases_of(number):
        data = wire_bytes(pair_in(state).end(sender), EXAMPLES[number], BODIES.get(number))
        assert data == golden(number)[0]


@every_type
def test_golden_bytes_are_read_as_their_text(number):
    data, text = golden(number)
    for state, sender in cases_of(number):
        reader = pair_in(state).end(sender.peer)
        reader.receive_data(data)
        message, *body = joined(events(reader))
        assert golden_text(message, body[0] if body else None) == text


@every_type
def test_golden_bytes_follow_the_one_rule(number):
    """Type, then size and payload for each field, then size and body: read here without the codec."""
    data, _ = golden(number)
    assert data[:8] == number.to_bytes(8, "big")
    position = 8
    for _ in range(PAYLOAD_COUNTS[number] + (number in STREAMED)):
        position += 8 + int.from_bytes(data[position : position + 8], "big")
    assert position == len(data)


def test_the_worked_example_of_the_specification():
    """The bytes that docs/protocol.md spells out."""
    request = QuoteRequest(Task("link", (Need("cpu", "2"),), 4096, 1.5, 1 << 26))
    expected = bytes.fromhex(
        "000000000000000a"  # QUOTE_REQUEST
        "0000000000000060"  # task: 96 bytes
        "0000000000000004 6c696e6b"  # kind: link
        "000000000000001c"  # needs: one, of 28 bytes with its own size
        "0000000000000014"
        "0000000000000003 637075"  # key: cpu
        "0000000000000001 32"  # value: 2
        "0000000000000008 0000000000001000"  # input_bytes: 4096
        "0000000000000008 3ff8000000000000"  # work_s: 1.5
        "0000000000000008 0000000004000000"  # memory_bytes: 64 MiB
        "0000000000000000"  # request: empty
    )
    assert pair_in(State.READY).client.send(request) == expected
