"""What a call and the helper say to each other: every request is read as it was meant, or refused."""

import socket
import struct
import threading

import pytest

from rakefarm.cc import dialogue
from rakefarm.cc.dialogue import Malformed, Request, encode_request, receive_request


def received(data: bytes, pieces: int = 1) -> Request | None:
    """What is read of these bytes, sent in so many pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        size = max(1, -(-len(data) // pieces))

        def send() -> None:
            for start in range(0, len(data), size):
                theirs.sendall(data[start : start + size])
            theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            return receive_request(ours)
        finally:
            sender.join()


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ((b"gcc", b"-c", b"a.c"), {b"PATH": b"/bin", b"EMPTY": b"", b"ODD": b"a=b\xff"}),
        ((b"gcc", b"", b""), {}),
        ((b"gcc",), {b"A": b""}),
        ((), {b"A": b"1"}),
        ((b"x" * 40_000,), {b"LONG": b"y" * 40_000}),
    ],
)
def test_a_request_is_read_as_it_was_meant(words: tuple[bytes, ...], environ: dict[bytes, bytes], pieces: int) -> None:
    request = received(encode_request(0o027, True, b"/home/me", words, environ), pieces)
    decoded = {name.decode(): value.decode("utf-8", "surrogateescape") for name, value in environ.items()}
    assert request == Request(0o027, True, b"/home/me", words, decoded)


def test_who_only_looks_says_nothing() -> None:
    assert received(b"") is None


def framed(rest: bytes) -> bytes:
    return dialogue.MAGIC + struct.pack("=I", len(rest)) + rest


@pytest.mark.parametrize(
    "data",
    [
        b"rkc1",
        b"GET / HTTP/1.1\r\n\r\n",
        framed(b""),
        framed(b"22\x000\0/\x001\0gcc"),
        framed(b"22\x000\0/\0"),
        framed(b"22\x000\0/\x002\0gcc\0"),
        framed(b"99\x000\0/\x001\0gcc\0"),
        framed(b"22\x000\0/\0one\0gcc\0"),
        framed(b"22\x000\0home\x001\0gcc\0"),
        framed(b"22\x000\0/\x001\0gcc\0") + b"more",
        framed(b"22\x000\0/\x001\0gcc\0")[:-3],
        dialogue.MAGIC + struct.pack("=I", dialogue.LARGEST_REQUEST + 1),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        received(data)
