"""Which worker holds which token of make's job server, in memory that the listener shares with its workers.

A token is a byte that has to come back, also from a worker that was killed: so it is noted here, at the slot of its
command, and the listener gives back what a dead worker held. Only who holds the slot writes there, and the listener
when nobody can. Between the reading of a byte and its note a worker may die; make then has one token less.
"""

import mmap
import struct

from rakefarm.jobserver import Token, Tokens

_ENTRY = struct.Struct("=HBB")  # worker + 1 (0: none), the token's server, its byte


class HeldTokens:
    """Made by the listener before it forks, for so many slots."""

    def __init__(self, tokens: Tokens, slots: int) -> None:
        self._tokens = tokens
        self._slots = slots if tokens.needed else 0
        self._map = mmap.mmap(-1, max(1, self._slots) * _ENTRY.size)

    @property
    def needed(self) -> bool:
        """Whether a command needs a token."""
        return self._tokens.needed

    @property
    def readers(self) -> tuple[int, ...]:
        """Descriptors of which one is readable when there is a token."""
        return self._tokens.readers

    def count_free(self) -> int:
        """Tokens that could be taken now."""
        return self._tokens.count()

    def try_take(self, slot: int, worker: int) -> bool:
        """Take one for the command in this slot; False when there is none."""
        if not self._tokens.needed:
            return True
        self.give_back(slot)  # of one who died there: who holds the slot now is we
        token = self._tokens.try_take()
        if token is not None:
            _ENTRY.pack_into(self._map, slot * _ENTRY.size, worker + 1, token.server, token.byte[0])
        return token is not None

    def give_back(self, slot: int) -> None:
        """Give back the one of this slot, if there is one."""
        if self._slots:
            owner, server, byte = _ENTRY.unpack_from(self._map, slot * _ENTRY.size)
            if owner:
                _ENTRY.pack_into(self._map, slot * _ENTRY.size, 0, 0, 0)
                self._tokens.give_back(Token(server, bytes([byte])))

    def recover(self, worker: int | None = None) -> None:
        """Give back what a worker holds that is dead or about to be; of all workers without a number."""
        for slot in range(self._slots):
            owner = _ENTRY.unpack_from(self._map, slot * _ENTRY.size)[0]
            if owner and worker in (None, owner - 1):
                self.give_back(slot)
