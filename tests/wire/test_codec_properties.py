"""Properties of the codec: every message comes back as it went, and no bytes do worse than a refusal."""

import math
import struct
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import defstruct
from wire_examples import BODIES, EXAMPLES
from wire_vocabulary import CASES, case_name, cases_of, events, example_bytes, pair_in, push, reader_in, sizes

from rakefarm.wire import Body, RemoteProtocolError, Role, State
from rakefarm.wire.codec import PAYLOAD_COUNTS, decode, encode, structure_codec
from rakefarm.wire.errors import Malformed
from rakefarm.wire.messages import STREAMED, TYPES, File, Message, MessageType, Output
from rakefarm.wire.state import SPEAKER

modest = settings(deadline=None, derandomize=True, max_examples=60)
every_type = pytest.mark.parametrize("number", list(MessageType), ids=case_name)

PLAIN = {
    int: st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    bytes: st.binary(max_size=12),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field, from its annotation, as the codec itself reads it."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if get_origin(annotation) is tuple:
        return st.lists(values(get_args(annotation)[0]), max_size=3).map(tuple)
    hints = get_type_hints(annotation)
    return st.builds(annotation, **{name: values(hints[name]) for name in annotation.__struct_fields__})


def payloads_of(message: Message) -> bytes:
    """The message's bytes between its type and its body."""
    if TYPES[type(message)] in STREAMED:
        return encode(message, 0)[8:-8]
    return encode(message)[8:]


def leaves(value: object, kind: type) -> list[Any]:
    """Every number or string of this kind in a message, at any depth."""
    if type(value) is kind:
        return [value]
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in leaves(item, kind)]
    if hasattr(value, "__struct_fields__"):
        return [leaf for name in value.__struct_fields__ for leaf in leaves(getattr(value, name), kind)]
    return []


def with_leaf(value: Any, old: object, new: object) -> Any:
    """The message with each leaf `old` replaced."""
    if type(value) is type(old) and value == old:
        return new
    if isinstance(value, tuple):
        return tuple([with_leaf(item, old, new) for item in value])
    if hasattr(value, "__struct_fields__"):
        return type(value)(*[with_leaf(getattr(value, name), old, new) for name in value.__struct_fields__])
    return value


@every_type
def test_every_message_comes_back_as_it_went(number):
    @modest
    @given(values(type(EXAMPLES[number])), st.binary(max_size=20))
    def comes_back(message, body):
        state, sender = cases_of(number)[0]
        pair = pair_in(state)
        streamed = number in STREAMED
        found = push(pair.end(sender), pair.end(sender.peer), message, body if streamed else None)
        assert found == [message, *([Body(body, 0)] if streamed and body else [])]
        assert repr(found[0]) == repr(message), "and in the same types, with the sign of zero"

    comes_back()


@every_type
def test_a_message_has_one_encoding(number):
    """What was decoded encodes to the same bytes: nothing is tolerated that we would not write."""

    @modest
    @given(values(type(EXAMPLES[number])))
    def one_encoding(message):
        data = payloads_of(message)
        assert payloads_of(decode(number, data)) == data

    one_encoding()


# --- names of fields ----------------------------------------------------------------------------------------

NAMES = (
    *("start", "at", "end", "data", "value", "cls", "error", "join", "encode", "decode", "isfinite", "scope", "source"),
    *("_start", "_at", "_end", "_data", "_value", "len", "pack_size", "unpack_size", "parts", "fields", "names"),
    *("pack0", "unpack0", "encode0", "decode0", "size0", "size1", "field0", "field1", "size_at", "size_start"),
    *("refuse_infinite", "refuse_size", "refuse_cut", "refuse_number", "struct", "self", "tuple", "index"),
)
"""Whatever the generated code, or what generates it, might call something; `start` once was such a name."""


@pytest.mark.parametrize("kinds", [(int,), (float,), (bytes,), (str,), (int, bytes), (bytes, float, tuple[str, ...])])
@pytest.mark.parametrize("shift", range(3))
def test_a_field_may_be_called_like_anything_in_the_generated_code(kinds, shift):
    names = NAMES[shift:] + NAMES[:shift]
    hints = {name: kinds[index % len(kinds)] for index, name in enumerate(names)}
    odd = defstruct("Odd", list(hints.items()), frozen=True)
    made = {
        int: lambda index: index + 1,
        float: lambda index: index + 0.5,
        bytes: lambda index: b"%d" % index,
        str: str,
        tuple[str, ...]: lambda index: (str(index), "x"),
    }
    value = odd(*[made[hint](index) for index, hint in enumerate(hints.values())])
    encode_odd, decode_odd = structure_codec(odd)
    data = encode_odd(value)
    assert decode_odd(data) == value
    for damaged in (data + b"\0", data[:-1], b""):
        with pytest.raises(Malformed):
            decode_odd(damaged)


@pytest.mark.parametrize("name", NAMES)
def test_a_lone_field_may_be_called_like_anything_in_the_generated_code(name):
    for hint, content in ((int, 7), (float, -0.5), (bytes, b"seven"), (tuple[int, ...], (7, 8))):
        odd = defstruct("Odd", [(name, hint)], frozen=True)
        encode_odd, decode_odd = structure_codec(odd)
        assert decode_odd(encode_odd(odd(content))) == odd(content)


# --- any bytes at all ---------------------------------------------------------------------------------------


def feed(state: State, sender: Role, data: bytes) -> None:
    """Let the reader make of `data` what it can; anything but an event or a refusal fails the test."""
    reader = reader_in(state, sender)
    reader.receive_data(data)
    try:
        for _ in range(100):
            if reader.next_event() is None or SPEAKER.get(reader.state) is not sender:
                return
    except RemoteProtocolError as error:
        assert reader.state is State.CLOSED
        assert error.state is not None and error.sender is sender
        assert str(error).isprintable()


listening = [(state, sender) for state, sender, number in CASES if number is MessageType.ERROR]


@settings(modest, max_examples=150)
@given(st.sampled_from(listening), st.binary(max_size=64))
def test_random_bytes_are_refused_at_worst(where, data):
    feed(*where, data)


@settings(modest, max_examples=200)
@given(
    st.sampled_from(CASES),
    st.lists(
        st.sampled_from([0, 1, 7, 8, 9, 16, 24, 32, 255, 1 << 24, 1 << 40, 1 << 63, (1 << 64) - 1])
        | st.binary(max_size=9),
        max_size=12,
    ),
)
def test_a_known_type_with_random_sizes_is_refused_at_worst(case, parts):
    state, sender, number = case
    tail = b"".join([part if isinstance(part, bytes) else sizes(part) for part in parts])
    feed(state, sender, sizes(number) + tail)


@settings(modest, max_examples=400)
@given(st.data(), st.sampled_from(CASES))
def test_a_damaged_message_is_refused_at_worst(data, case):
    state, sender, number = case
    whole = bytearray(example_bytes(number))
    for _ in range(data.draw(st.integers(1, 3))):
        if not whole:
            return
        position = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["change", "drop", "insert", "cut"])):
            case "change":
                whole[position] = data.draw(st.integers(0, 255))
            case "drop":
                del whole[position]
            case "insert":
                whole.insert(position, data.draw(st.integers(0, 255)))
            case "cut":
                del whole[max(position, 1) :]
    if not whole:
        return
    feed(state, sender, bytes(whole))


@settings(modest, max_examples=300)
@given(st.sampled_from(sorted(PAYLOAD_COUNTS)), st.binary(max_size=80))
def test_the_decoder_itself_only_refuses(number, data):
    try:
        message = decode(number, data)
    except Malformed:
        return
    assert payloads_of(message) == data


@every_type
def test_left_over_and_missing_bytes_are_refused(number):
    data = payloads_of(EXAMPLES[number])
    for damaged in (data + b"\0", data + sizes(0), *([data[:-1], data[8:]] if data else [])):
        with pytest.raises(Malformed):
            decode(number, damaged)


# --- numbers and strings that may not cross -----------------------------------------------------------------

REALS = [(number, leaf) for number, message in EXAMPLES.items() for leaf in sorted(set(leaves(message, float)))]
INTEGERS = [(number, leaf) for number, message in EXAMPLES.items() for leaf in sorted(set(leaves(message, int)))]
NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(("number", "real"), REALS, ids=case_name)
@pytest.mark.parametrize("bad", NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused_both_ways(number, real, bad):
    message = EXAMPLES[number]
    with pytest.raises(ValueError, match="not finite"):
        encode(with_leaf(message, real, bad))
    data = encode(message)
    assert data.count(struct.pack(">d", real)) >= 1
    forged = data.replace(struct.pack(">d", real), struct.pack(">d", bad))
    reader = reader_in(*cases_of(number)[0])
    reader.receive_data(forged)
    with pytest.raises(Malformed, match="finite"):
        events(reader)


@pytest.mark.parametrize(("number", "integer"), INTEGERS, ids=case_name)
@pytest.mark.parametrize("bad", [-1, 1 << 64])
def test_an_integer_that_does_not_fit_is_refused(number, integer, bad):
    state, sender = cases_of(number)[0]
    end = pair_in(state).end(sender)
    body_bytes = len(BODIES[number]) if number in STREAMED else None
    with pytest.raises((ValueError, struct.error)):
        end.send(with_leaf(EXAMPLES[number], integer, bad), body_bytes)
    assert end.state is state


@pytest.mark.parametrize("size", [0, 1, 4, 7, 9, 16])
def test_an_integer_has_eight_bytes(size):
    reader = reader_in(State.SUPPLYING, Role.CLIENT)
    reader.receive_data(sizes(MessageType.FILE, size) + bytes(size) + sizes(0))
    with pytest.raises(Malformed):
        reader.next_event()


@pytest.mark.parametrize("size", [0, 4, 7, 9, 16])
def test_a_real_number_has_eight_bytes(size):
    reader = reader_in(State.RUNNING, Role.SERVER)
    payloads = sizes(1) + b"q" + sizes(8, 0, 8, 0, 8, 0)
    data = payloads[:9] + sizes(size) + bytes(size) + payloads[25:]
    reader.receive_data(sizes(MessageType.PROGRESS) + data)
    with pytest.raises(Malformed):
        reader.next_event()


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"caf\xe9", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"],
    ids=["never", "latin-1", "overlong", "cut", "surrogate", "beyond"],
)
def test_strings_are_strict_utf_8(bad):
    reader = reader_in(State.QUOTING, Role.SERVER)
    reader.receive_data(sizes(MessageType.DECLINE, len(bad)) + bad + sizes(0, 0))
    with pytest.raises(Malformed, match="UTF-8"):
        reader.next_event()


def test_a_lone_surrogate_is_not_sent():
    server = pair_in(State.QUOTING).server
    with pytest.raises(ValueError):
        server.send(with_leaf(EXAMPLES[MessageType.DECLINE], "full", "\udcff"))
    assert server.state is State.QUOTING


def test_byte_strings_may_hold_anything():
    pair = pair_in(State.DELIVERING)
    output = Output(bytes(range(256)), 0, b"")
    assert push(pair.server, pair.client, output, b"") == [output]
    pair = pair_in(State.SUPPLYING)
    last = File((1 << 64) - 1)
    assert push(pair.client, pair.server, last, b"") == [last]
