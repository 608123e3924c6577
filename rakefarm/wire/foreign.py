"""Say what came instead, when the peer does not speak our protocol at all.

"unknown message type 5139496905391186944" helps nobody; "this is HTTP" does. distcc does the same.
"""

from rakefarm.wire.errors import UnknownMessage
from rakefarm.wire.paths import show
from rakefarm.wire.state import State

_OTHERS = (
    ((b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"PRI * ", b"HTTP/"), "HTTP"),
    ((b"SSH-",), "SSH"),
    ((b"DIST",), "distcc"),
    ((b"\x16\x03",), "TLS"),
)


def describe(data: bytes, state: State) -> str:
    """A line that names the bytes `data` which came where a message type of ours should."""
    if state in (State.GREETING, State.ADMITTING):
        for prefixes, name in _OTHERS:
            if data.startswith(prefixes):
                return f"this is {name}, not rakefarm: the peer sent {show(data[:40])}"
    return f"unknown message type: the peer sent {show(data[:40])}"


def check_prefix(data: bytes, state: State) -> None:
    """Raises UnknownMessage when fewer than eight first bytes already show that this is not our protocol.

    A type's first six bytes are zero for as long as there are fewer than 65,536 types.
    """
    if state is State.GREETING and any(data[:6]):
        raise UnknownMessage(describe(data, state))
