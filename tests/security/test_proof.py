"""Proofs: each part that is hashed keeps something out."""

import hashlib
import hmac
import itertools
import struct

import pytest

from rakefarm.security.keys import Key
from rakefarm.security.proof import check_client, check_server, prove
from rakefarm.wire import Role

KEY = Key("zoe@lab4", bytes(range(32)))
OTHER = Key("zoe@lab4", bytes(32))
RING = {KEY.name: KEY}
HERS, ITS = b"c" * 32, b"s" * 32
CERTIFICATE = b"a certificate"


def test_the_bytes_are_those_of_the_specification() -> None:
    parts = [b"rakefarm proof 1", b"client", b"zoe@lab4", HERS, ITS, hashlib.sha256(CERTIFICATE).digest()]
    told = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    assert prove(KEY, Role.CLIENT, HERS, ITS, CERTIFICATE) == hmac.new(KEY.token, told, "sha256").digest()


def test_both_ends_are_convinced_by_the_right_proofs_alone() -> None:
    proof = prove(KEY, Role.CLIENT, HERS, ITS, CERTIFICATE)
    assert check_client(RING, KEY.name, proof, HERS, ITS, CERTIFICATE) is KEY
    assert check_server(KEY, prove(KEY, Role.SERVER, HERS, ITS, CERTIFICATE), HERS, ITS, CERTIFICATE)


WRONG = {
    "another token": prove(OTHER, Role.CLIENT, HERS, ITS, CERTIFICATE),
    "reflected": prove(KEY, Role.SERVER, HERS, ITS, CERTIFICATE),
    "another connection of the client": prove(KEY, Role.CLIENT, b"x" * 32, ITS, CERTIFICATE),
    "another connection of the server": prove(KEY, Role.CLIENT, HERS, b"x" * 32, CERTIFICATE),
    "nonces exchanged": prove(KEY, Role.CLIENT, ITS, HERS, CERTIFICATE),
    "another certificate": prove(KEY, Role.CLIENT, HERS, ITS, b"the one between"),
    "without TLS": prove(KEY, Role.CLIENT, HERS, ITS, b""),
    "nothing": b"",
    "cut": prove(KEY, Role.CLIENT, HERS, ITS, CERTIFICATE)[:31],
    "longer": prove(KEY, Role.CLIENT, HERS, ITS, CERTIFICATE) + b"\0",
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_proofs(what: str) -> None:
    assert check_client(RING, KEY.name, WRONG[what], HERS, ITS, CERTIFICATE) is None
    assert not check_server(KEY, WRONG[what], HERS, ITS, CERTIFICATE) or what == "reflected"


def test_a_name_that_there_is_not_has_no_proof() -> None:
    for token in (KEY.token, bytes(32)):
        proof = prove(Key("nobody", token), Role.CLIENT, HERS, ITS, CERTIFICATE)
        assert check_client(RING, "nobody", proof, HERS, ITS, CERTIFICATE) is None


def test_short_nonces_are_no_nonces() -> None:
    proof = prove(KEY, Role.CLIENT, b"", ITS, CERTIFICATE)
    assert check_client(RING, KEY.name, proof, b"", ITS, CERTIFICATE) is None
    assert not check_server(KEY, prove(KEY, Role.SERVER, HERS, b"", CERTIFICATE), HERS, b"", CERTIFICATE)


def test_no_two_divisions_of_the_same_bytes_have_one_proof() -> None:
    """Without the lengths, a byte could move from one part to its neighbour."""
    pieces = [(b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), (b"", b"abc")]
    proofs = {prove(KEY, Role.CLIENT, one, other, b"") for one, other in pieces}
    names = {
        prove(Key("z", KEY.token), Role.CLIENT, b"y", b"", b""),
        prove(Key("zy", KEY.token), Role.CLIENT, b"", b"", b""),
    }
    assert len(proofs) == 4 and len(names) == 2
    assert all(one != other for one, other in itertools.combinations(proofs | names, 2))
