"""Messages to bytes and back.

A message is its type and then its payloads, one a field, in the order of the dataclass; a payload is its size
and that many bytes. Types, sizes and integers are 8 bytes, big-endian. A list is the payloads of its items
one after another; a structure (`Offer`, `Input`, …) is the payloads of its fields one after another, so the one
rule repeats at every depth.

Encoders and decoders are built once a class from its annotations: nothing is written twice.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rakefarm.wire import messages
from rakefarm.wire.errors import Malformed

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes], Any]

U64 = struct.Struct(">Q")
F64 = struct.Struct(">d")
HEADER_BYTES = 8


def _encode_float(value: float) -> bytes:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return F64.pack(value)


def _encode_str(value: str) -> bytes:
    return value.encode("utf-8")


def _decode_int(data: bytes) -> int:
    if len(data) != 8:
        raise Malformed(f"an integer has 8 bytes, not {len(data)}")
    return int.from_bytes(data, "big")


def _decode_float(data: bytes) -> float:
    if len(data) != 8:
        raise Malformed(f"a real number has 8 bytes, not {len(data)}")
    value: float = F64.unpack(data)[0]
    if not math.isfinite(value):
        raise Malformed(f"{value} is not a finite number")
    return value


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
    encode_item, decode_item = _codec_for(item)

    def encode(values: tuple[Any, ...]) -> bytes:
        parts = []
        for value in values:
            data = encode_item(value)
            parts.append(U64.pack(len(data)))
            parts.append(data)
        return b"".join(parts)

    def decode(data: bytes) -> tuple[Any, ...]:
        return tuple([decode_item(part) for part in split_payloads(data)])

    return encode, decode


def structure_codec(cls: type) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of a frozen dataclass, built from its annotations."""
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    codecs = [_codec_for(hints[name]) for name in names]
    encoders = [(name, encode) for name, (encode, _) in zip(names, codecs, strict=True)]
    decoders = [decode for _, decode in codecs]

    def encode(value: Any) -> bytes:
        parts = []
        for name, encode_field in encoders:
            data = encode_field(getattr(value, name))
            parts.append(U64.pack(len(data)))
            parts.append(data)
        return b"".join(parts)

    def decode(data: bytes) -> Any:
        parts = split_payloads(data)
        if len(parts) != len(decoders):
            raise Malformed(f"{cls.__name__} has {len(decoders)} fields, not {len(parts)}")
        return cls(*[decode_field(part) for decode_field, part in zip(decoders, parts, strict=True)])

    return encode, decode


def _codec_for(annotation: Any) -> tuple[Encoder, Decoder]:
    if annotation is int:
        return U64.pack, _decode_int
    if annotation is float:
        return _encode_float, _decode_float
    if annotation is str:
        return _encode_str, _decode_str
    if annotation is bytes:
        return bytes, bytes
    if get_origin(annotation) is tuple:
        return _list_codec(get_args(annotation)[0])
    return structure_codec(annotation)


def _message_classes() -> tuple[type, ...]:
    union = messages.Message
    assert isinstance(union, UnionType)
    return get_args(union)


_CODECS: dict[type, tuple[Encoder, Decoder]] = {cls: structure_codec(cls) for cls in _message_classes()}

PAYLOAD_COUNTS: dict[messages.MessageType, int] = {
    number: len(fields(cls)) for number, cls in messages.CLASSES.items()
}
"""How many payloads a message has before its body, if it has one."""


def encode(message: messages.Message, body_bytes: int | None = None) -> bytes:
    """The message's bytes; for a streamed one up to and with the size of its body, which follows.

    Raises ValueError when a field's value can't cross the wire (a number that is not finite, say).
    """
    cls = type(message)
    number = messages.TYPES[cls]
    assert (body_bytes is not None) == (number in messages.STREAMED), f"{number.name}: body or not?"
    head = U64.pack(number) + _CODECS[cls][0](message)
    return head if body_bytes is None else head + U64.pack(body_bytes)


def decode(number: messages.MessageType, payloads: bytes) -> messages.Message:
    """The message of this type from its payloads, sizes included, without its body. Raises Malformed."""
    message: messages.Message = _CODECS[messages.CLASSES[number]][1](payloads)
    return message
