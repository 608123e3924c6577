"""Messages to bytes and back.

A message is its type and then its payloads, one a field, in the order of its structure; a payload is its size
and that many bytes. Types, sizes and integers are 8 bytes, big-endian. A list is the payloads of its items
one after another; a structure (`Offer`, `Input`, …) is the payloads of its fields one after another, so the one
rule repeats at every depth.

Encoders and decoders are made once a class from its annotations, so nothing is written twice. They are compiled
from generated source, as `dataclasses` does it, because a no-op action is ten messages and a loop over the fields
took four times as long: neighbouring numbers become one `struct` call, sizes included.
"""

import math
import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, get_args, get_origin, get_type_hints

from msgspec import Struct

from rakefarm.wire import messages
from rakefarm.wire.errors import Malformed

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]
Reader = Callable[[bytes, int, int], tuple[Any, int]]
"""Reads a message's payloads from a place on, up to an end; answers the message and the place after it."""

U64 = struct.Struct(">Q")
HEADER_BYTES = 8
REMEMBERED = (messages.Variable, messages.Need, messages.Task, messages.Input)
"""These, and lists of them, are converted once and remembered: they are the same in one action after another."""
REMEMBERED_VALUES = 64
REMEMBERED_BYTES = 4096
REMEMBERED_ITEMS = 32
NUMBERS = {int: "Q", float: "d"}


def _refuse_infinite(value: float) -> None:
    raise ValueError(f"{value} is not finite")


def _refuse_size() -> None:
    raise Malformed("a number's size field is not 8")


def _refuse_cut() -> None:
    raise Malformed("an inner size runs past its payload, or bytes are left over")


def _refuse_number(value: float) -> None:
    raise Malformed(f"{value} is not a finite number")


def _decode_str(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"a string is not UTF-8: {error.reason}") from error


def split_payloads(data: bytes) -> list[bytes]:
    """The payloads that stand one after another in `data`. Raises Malformed when they don't fill it."""
    parts = []
    position, end = 0, len(data)
    while position < end:
        start = position + 8
        if start > end:
            raise Malformed("a size field is cut short")
        position = start + int.from_bytes(data[position:start], "big")
        if position > end:
            raise Malformed("an inner size runs past its payload")
        parts.append(data[start:position])
    return parts


def _list_codec(item: Any) -> tuple[Encoder, Decoder]:
    encode_item, decode_item = _field_codec(item)
    pack_size = U64.pack

    def encode(values: tuple[Any, ...]) -> bytes:
        parts: list[bytes] = []
        for value in values:
            data = encode_item(value)
            parts += (pack_size(len(data)), data)
        return b"".join(parts)

    def decode(data: bytes) -> tuple[Any, ...]:
        return tuple([decode_item(part) for part in split_payloads(data)]) if data else ()

    if item in REMEMBERED:
        return _remembered(encode, REMEMBERED_ITEMS), _remembered(decode, REMEMBERED_BYTES)
    return encode, decode


def _remembered(convert: Callable[[Any], Any], longest: int) -> Callable[[Any], Any]:
    """The same, with its last results kept: they are immutable, and one client says the same with every action."""
    kept = lru_cache(maxsize=REMEMBERED_VALUES)(convert)

    def look_up(value: Any) -> Any:
        return kept(value) if len(value) <= longest else convert(value)

    return look_up


def _field_codec(annotation: Any) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of one payload's content."""
    if annotation in NUMBERS:
        return _number_codec(annotation)
    if annotation is str:
        return str.encode, _decode_str
    if annotation is bytes:
        return bytes, bytes
    if get_origin(annotation) is tuple:
        return _list_codec(get_args(annotation)[0])
    encode, decode = structure_codec(annotation)
    if annotation in REMEMBERED:
        return lru_cache(maxsize=REMEMBERED_VALUES)(encode), _remembered(decode, REMEMBERED_BYTES)
    return encode, decode


def _number_codec(kind: type) -> tuple[Encoder, Decoder]:
    form = struct.Struct(">" + NUMBERS[kind])

    def encode(value: float) -> bytes:
        if not math.isfinite(value):
            _refuse_infinite(value)
        return form.pack(value)

    def decode(data: bytes) -> float:
        if len(data) != 8:
            _refuse_size()
        value: float = form.unpack(data)[0]
        if not math.isfinite(value):
            _refuse_number(value)
        return value

    return encode, decode


def structure_codec(cls: type[Struct]) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of a frozen Struct, compiled from its annotations."""
    scope = _compile(cls, b"")
    return scope["encode"], scope["decode"]


def _message_codec(number: messages.MessageType) -> tuple[Encoder, Reader]:
    """Encoder, type number included, and reader of a message."""
    scope = _compile(messages.CLASSES[number], U64.pack(number))
    return scope["encode"], scope["read"]


def _compile(cls: type[Struct], head: bytes) -> dict[str, Any]:
    """The functions of a class: `encode`, and `decode`, or, for a message, which has a `head`, `read`. The generated
    code numbers its variables and names a field only behind a dot, so a field may be called like anything in there."""
    hints = get_type_hints(cls)
    names = cls.__struct_fields__
    runs: list[list[int]] = []  # neighbouring numbers together, everything else alone
    for index, name in enumerate(names):
        together = runs and hints[name] in NUMBERS and hints[names[runs[-1][-1]]] in NUMBERS
        runs[-1].append(index) if together else runs.append([index])
    scope: dict[str, Any] = {
        "cls": cls,
        "head": head,
        "pack_size": U64.pack,
        "unpack_size": U64.unpack_from,
        "join": b"".join,
        "isfinite": math.isfinite,
        "error": struct.error,
        "refuse_infinite": _refuse_infinite,
        "refuse_size": _refuse_size,
        "refuse_cut": _refuse_cut,
        "refuse_number": _refuse_number,
    }
    encoding: list[str] = []
    decoding: list[str] = []
    parts: list[str] = ["head"] if head else []
    for run in runs:
        first = run[0]
        if hints[names[first]] in NUMBERS:
            form = struct.Struct(">" + "".join("Q" + NUMBERS[hints[names[index]]] for index in run))
            scope[f"pack{first}"], scope[f"unpack{first}"] = form.pack, form.unpack_from
            parts.append(f"pack{first}({', '.join(f'8, value.{names[index]}' for index in run)})")
            decoding.append(f"{', '.join(f'size{index}, field{index}' for index in run)} = unpack{first}(data, at)")
            decoding.append(f"at += {form.size}")
            decoding.append(f"if {' or '.join(f'size{index} != 8' for index in run)}: refuse_size()")
            for index in run:
                if hints[names[index]] is float:
                    encoding.append(f"isfinite(value.{names[index]}) or refuse_infinite(value.{names[index]})")
                    decoding.append(f"isfinite(field{index}) or refuse_number(field{index})")
        else:
            scope[f"encode{first}"], scope[f"decode{first}"] = _field_codec(hints[names[first]])
            encoding.append(f"field{first} = encode{first}(value.{names[first]})")
            parts.append(f"pack_size(len(field{first}))")
            parts.append(f"field{first}")
            decoding.append("start = at + 8; at = start + unpack_size(data, at)[0]")
            decoding.append("if at > end: refuse_cut()")
            decoding.append(f"field{first} = decode{first}(data[start:at])")
    fields = ", ".join(f"field{index}" for index in range(len(names)))
    joined = f"join(({', '.join(parts)},))" if parts else "b''"
    source = [
        "def encode(value):",
        *(f"    {line}" for line in encoding),
        f"    return {joined}",
        "def read(data, at, end):" if head else "def decode(data):",
        "    pass" if head else "    at, end = 0, len(data)",
        "    try:",
        *(f"        {line}" for line in decoding or ["pass"]),
        "    except error: refuse_cut()",
        f"    return cls({fields}), at" if head else f"    if at != end: refuse_cut()\n    return cls({fields})",
    ]
    exec("\n".join(source), scope)  # noqa: S102 - the names are those of our own structures
    return scope


@cache
def _codec(number: messages.MessageType) -> tuple[Encoder, Reader]:
    """Made when first needed: compiling takes half a millisecond a message, and a client uses half of them."""
    return _message_codec(number)


def compile_all() -> None:
    """Make every codec now, in a process that others will be forked from."""
    for number in messages.MessageType:
        _codec(number)


PAYLOAD_COUNTS: dict[messages.MessageType, int] = {
    number: len(cls.__struct_fields__) for number, cls in messages.CLASSES.items()
}
"""How many payloads a message has before its body, if it has one."""


def encode(message: messages.Message, body_bytes: int | None = None) -> bytes:
    """The message's bytes; for a streamed one up to and with the size of its body, which follows.

    Raises ValueError when a field's value can't cross the wire (a number that is not finite, say).
    """
    number = messages.TYPES[type(message)]
    assert (body_bytes is not None) == (number in messages.STREAMED), f"{number.name}: body or not?"
    data = _codec(number)[0](message)
    return data if body_bytes is None else data + U64.pack(body_bytes)


def decode(number: messages.MessageType, payloads: bytes) -> messages.Message:
    """The message of this type from its payloads, sizes included, without its body. Raises Malformed."""
    message, end = read(number, payloads, 0)
    if end != len(payloads):
        _refuse_cut()
    return message


def read(number: messages.MessageType, data: bytes, at: int) -> tuple[messages.Message, int]:
    """The message of this type whose payloads begin at this place, and the place after them. Raises Malformed, also
    when they are not all there."""
    message, end = _codec(number)[1](data, at, len(data))
    return message, end
