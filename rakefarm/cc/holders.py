"""Which host has the result of a call already, from another user or another day: asked before one is chosen.

A host that has it asks a price of 0, wins, and answers without running anything. But to ask takes a round trip to every
host, for nothing where nobody has built the project before. So it is done for as long as it pays: once most questions
have been in vain, only one call in some asks, until one is answered again; results are mostly there for all of a build,
or for none of it.
"""

import threading
import time
from collections.abc import Sequence

from rakefarm.cc.placement import Place
from rakefarm.client.farm import Farm
from rakefarm.client.link import Link, wait_readable
from rakefarm.transport import Lost
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Offer, Task

ANSWER_S = 0.1
"""Prices are read from memory: a host that takes longer has no bid."""
WORTH = 0.1
"""The share of questions that find a result, lately, from which on each call asks."""
LEARNED = 0.25
"""What the newest question counts in that share."""
EACH = 16
"""When it does not pay, one call in so many asks."""


class Holders:
    """The questions of one farm. For any thread."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._lock = threading.Lock()
        self._share = 1.0
        self._silent = 0

    @property
    def pays(self) -> bool:
        """Whether the next call is to ask."""
        with self._lock:
            if self._share >= WORTH:
                return True
            self._silent = (self._silent + 1) % EACH
            return not self._silent

    def learn(self, found: bool) -> None:
        """A host had the result, or one was looked for in vain."""
        with self._lock:
            self._share += LEARNED * (found - self._share)

    def find(self, places: Sequence[Place], task: Task, request: bytes) -> Place | None:
        """The host among these that has the result of the request of this digest; None when none says so at once."""
        waiting: dict[int, tuple[Place, Link]] = {}
        for place in places:
            link = self._farm.checkout_fresh(place.member)
            if link is None:
                continue
            try:
                link.ask(task, request)
            except (Lost, ProtocolError):
                self._farm.discard(link)
            else:
                waiting[link.transport.socket.fileno()] = (place, link)
        holder: Place | None = None
        deadline = time.monotonic() + ANSWER_S
        while waiting:
            readable = wait_readable([link for _, link in waiting.values()], deadline)
            if not readable:
                break
            for descriptor in readable:
                place, link = waiting[descriptor]
                try:
                    answer = link.take_answer(readable=True)
                except (Lost, ProtocolError):
                    self._farm.discard(link)
                else:
                    if answer is None:
                        continue
                    self._farm.give_back(place.member, link)
                    if isinstance(answer, Offer) and answer.price == 0.0:
                        holder = place
                del waiting[descriptor]
        for _, link in waiting.values():
            self._farm.discard(link)
        return holder
