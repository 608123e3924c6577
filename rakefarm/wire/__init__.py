"""The protocol: bytes in, messages out, and nothing else. No socket, no clock, no file is touched here.

`docs/protocol.md` is the specification; the tables in `messages`, `codec` and `state` are its code.
"""

from rakefarm.wire.connection import Body, Connection, Limits
from rakefarm.wire.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from rakefarm.wire.state import Role, State

__all__ = [
    "Body",
    "Connection",
    "Limits",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "Role",
    "State",
]
