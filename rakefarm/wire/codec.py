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
from typing import Any, cast, get_args, get_origin

from msgspec import Struct

from rakefarm.wire import messages
from rakefarm.wire.errors import Malformed

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]
Reader = Callable[[bytes, int, int], tuple[Any, int]]
"""Reads a structure's payloads from a place on, up to an end; answers the structure and the place after it."""

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


def _remembered(convert: Callable[[Any], Any], longest: int) -> Callable[[Any], Any]:
    """The same, with its last results kept: they are immutable, and one client says the same with every action."""
    kept = lru_cache(maxsize=REMEMBERED_VALUES)(convert)

    def look_up(value: Any) -> Any:
        return kept(value) if len(value) <= longest else convert(value)

    return look_up


# --- one payload ----------------------------------------------------------------------------------------


def _encoder_of(annotation: Any) -> Encoder:
    """What encodes the content of a payload."""
    if annotation in NUMBERS:
        return _number_encoder(annotation)
    if annotation is str:
        return str.encode
    if annotation is bytes:
        return bytes
    if get_origin(annotation) is tuple:
        return _list_encoder(get_args(annotation)[0])
    encode = _compile_encoder(annotation)
    return lru_cache(maxsize=REMEMBERED_VALUES)(encode) if annotation in REMEMBERED else encode


def _decoder_of(annotation: Any) -> Decoder:
    """What decodes the content of a payload."""
    if annotation in NUMBERS:
        return _number_decoder(annotation)
    if annotation is str:
        return _decode_str
    if annotation is bytes:
        return bytes
    if get_origin(annotation) is tuple:
        return _list_decoder(get_args(annotation)[0])
    decode = _whole(_compile_reader(annotation))
    return _remembered(decode, REMEMBERED_BYTES) if annotation in REMEMBERED else decode


def _list_encoder(item: Any) -> Encoder:
    encode_item, pack_size = _encoder_of(item), U64.pack

    def encode(values: tuple[Any, ...]) -> bytes:
        parts: list[bytes] = []
        for value in values:
            data = encode_item(value)
            parts += (pack_size(len(data)), data)
        return b"".join(parts)

    return _remembered(encode, REMEMBERED_ITEMS) if item in REMEMBERED else encode


def _list_decoder(item: Any) -> Decoder:
    decode_item = _decoder_of(item)

    def decode(data: bytes) -> tuple[Any, ...]:
        return tuple([decode_item(part) for part in split_payloads(data)]) if data else ()

    return _remembered(decode, REMEMBERED_BYTES) if item in REMEMBERED else decode


def _number_encoder(kind: type) -> Encoder:
    pack = struct.Struct(">" + NUMBERS[kind]).pack

    def encode(value: float) -> bytes:
        if not math.isfinite(value):
            _refuse_infinite(value)
        return pack(value)

    return encode


def _number_decoder(kind: type) -> Decoder:
    unpack = struct.Struct(">" + NUMBERS[kind]).unpack

    def decode(data: bytes) -> float:
        if len(data) != 8:
            _refuse_size()
        value: float = unpack(data)[0]
        if not math.isfinite(value):
            _refuse_number(value)
        return value

    return decode


# --- structures, whose generated code numbers its variables and names a field only behind a dot, so that a field may be
# called like anything in there -------------------------------------------------------------------------------------


def structure_codec(cls: type[Struct]) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of a frozen Struct, compiled from its annotations."""
    return _compile_encoder(cls), _whole(_compile_reader(cls))


def _runs(cls: type[Struct]) -> list[list[tuple[int, str, Any]]]:
    """The fields, each as index, name and annotation: neighbouring numbers together, everything else alone."""
    runs: list[list[tuple[int, str, Any]]] = []
    for index, name in enumerate(cls.__struct_fields__):
        field = (index, name, cls.__annotations__[name])
        together = runs and field[2] in NUMBERS and runs[-1][0][2] in NUMBERS
        runs[-1].append(field) if together else runs.append([field])
    return runs


def _form(run: list[tuple[int, str, Any]]) -> struct.Struct:
    """Neighbouring numbers, each with its size before it."""
    return struct.Struct(">" + "".join("Q" + NUMBERS[kind] for _, _, kind in run))


def _compile_encoder(cls: type[Struct], head: bytes = b"") -> Encoder:
    """What makes a structure's payloads of it, one after another, with `head` before them."""
    scope: dict[str, Any] = {
        "head": head,
        "pack_size": U64.pack,
        "join": b"".join,
        "isfinite": math.isfinite,
        "refuse_infinite": _refuse_infinite,
    }
    lines: list[str] = []
    parts: list[str] = ["head"]
    for run in _runs(cls):
        first, name, annotation = run[0]
        if annotation in NUMBERS:
            scope[f"pack{first}"] = _form(run).pack
            parts.append(f"pack{first}({', '.join(f'8, value.{each}' for _, each, _ in run)})")
            for _, each, kind in run:
                if kind is float:
                    lines.append(f"isfinite(value.{each}) or refuse_infinite(value.{each})")
        else:
            scope[f"encode{first}"] = _encoder_of(annotation)
            lines.append(f"field{first} = encode{first}(value.{name})")
            parts += [f"pack_size(len(field{first}))", f"field{first}"]
    source = ["def encode(value):", *lines, f"return join(({', '.join(parts)},))"]
    exec("\n    ".join(source), scope)  # noqa: S102 # nosec B102 # the names are those of our own structures
    return cast(Encoder, scope["encode"])


def _compile_reader(cls: type[Struct]) -> Reader:
    """What reads a structure from its payloads."""
    scope: dict[str, Any] = {
        "cls": cls,
        "unpack_size": U64.unpack_from,
        "isfinite": math.isfinite,
        "error": struct.error,
        "refuse_size": _refuse_size,
        "refuse_cut": _refuse_cut,
        "refuse_number": _refuse_number,
    }
    lines: list[str] = []
    for run in _runs(cls):
        first, _, annotation = run[0]
        if annotation in NUMBERS:
            form = _form(run)
            scope[f"unpack{first}"] = form.unpack_from
            lines.append(f"{', '.join(f'size{index}, field{index}' for index, _, _ in run)} = unpack{first}(data, at)")
            lines.append(f"at += {form.size}")
            lines.append(f"if {' or '.join(f'size{index} != 8' for index, _, _ in run)}: refuse_size()")
            for index, _, kind in run:
                if kind is float:
                    lines.append(f"isfinite(field{index}) or refuse_number(field{index})")
        else:
            scope[f"decode{first}"] = _decoder_of(annotation)
            lines.append("start = at + 8; at = start + unpack_size(data, at)[0]")
            lines.append("if at > end: refuse_cut()")
            lines.append(f"field{first} = decode{first}(data[start:at])")
    fields = ", ".join(f"field{index}" for index in range(len(cls.__struct_fields__)))
    source = ["def read(data, at, end):", "    try:", *(f"        {line}" for line in lines or ["pass"])]
    source += ["    except error: refuse_cut()", f"    return cls({fields}), at"]
    exec("\n".join(source), scope)  # noqa: S102 # nosec B102 # the names are those of our own structures
    return cast(Reader, scope["read"])


def _whole(read: Reader) -> Decoder:
    """The same for a structure that must fill its payload."""

    def decode(data: bytes) -> Any:
        end = len(data)
        value, at = read(data, 0, end)
        if at != end:
            _refuse_cut()
        return value

    return decode


# --- messages: made when first needed, since a client needs half of them, each in one direction ---------------------


@cache
def _encoder(number: messages.MessageType) -> Encoder:
    return _compile_encoder(messages.CLASSES[number], U64.pack(number))


@cache
def _reader(number: messages.MessageType) -> Reader:
    return _compile_reader(messages.CLASSES[number])


def compile_all() -> None:
    """Make everything now, in a process that others will be forked from."""
    for number in messages.MessageType:
        _encoder(number)
        _reader(number)


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
    data = _encoder(number)(message)
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
    message, end = _reader(number)(data, at, len(data))
    return message, end
