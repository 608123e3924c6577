"""The proof that both ends hold the same key, bound to this connection and no other.

Each end sends HMAC-SHA-256 with the key's token over, each with its length in eight bytes before it:

    "rakefarm proof 1" · "client" or "server", who proves · the key's name · the client's nonce · the server's nonce ·
    the SHA-256 of the server's certificate (32 bytes; empty without TLS)

So a proof is good for one role (none can be reflected), for two nonces (none can be replayed), and for the certificate
that this end sees: who stands between with a certificate of his own has two connections whose proofs differ. RFC 5056
and 5929 (`tls-server-end-point`) have the idea and its name, channel binding.
"""

import hashlib
import hmac
import os
import struct

from rakefarm.security.keys import TOKEN_BYTES, Key, Keyring
from rakefarm.wire.state import Role

NONCE_BYTES = 32
PROOF_BYTES = 32
_LABEL = b"rakefarm proof 1"
_LENGTH = struct.Struct(">Q")
_NOBODY = Key("nobody", os.urandom(TOKEN_BYTES))
"""Stands for names that there are not, so that they take the time of those that there are."""


def make_nonce() -> bytes:
    """What makes this connection differ from all others."""
    return os.urandom(NONCE_BYTES)


def prove(key: Key, role: Role, client_nonce: bytes, server_nonce: bytes, certificate: bytes) -> bytes:
    """The proof of `role`. `certificate` is the server's in DER, or empty."""
    pinned = hashlib.sha256(certificate).digest() if certificate else b""
    parts = (_LABEL, role.value.encode(), key.name.encode(), client_nonce, server_nonce, pinned)
    told = b"".join([_LENGTH.pack(len(part)) + part for part in parts])
    return hmac.digest(key.token, told, "sha256")


def check_client(
    keyring: Keyring, name: str, proof: bytes, client_nonce: bytes, server_nonce: bytes, certificate: bytes
) -> Key | None:
    """In a server: the key that the client has proved to hold, or None. A name that there is not takes as long."""
    known = keyring.get(name)
    # The name is hashed, too, so the stand-in needs one of the same length.
    key = known or Key(name, _NOBODY.token)
    expected = prove(key, Role.CLIENT, client_nonce, server_nonce, certificate)
    right = hmac.compare_digest(expected, proof)
    fresh = len(client_nonce) == NONCE_BYTES
    return key if right and fresh and known is not None else None


def check_server(key: Key, proof: bytes, client_nonce: bytes, server_nonce: bytes, certificate: bytes) -> bool:
    """In a client: whether the server has proved that it holds the key."""
    expected = prove(key, Role.SERVER, client_nonce, server_nonce, certificate)
    return hmac.compare_digest(expected, proof) and len(server_nonce) == NONCE_BYTES
