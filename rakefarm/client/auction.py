"""The auction: before each remote action every host is asked for its price, all at once; the lowest wins.

One auction at a time: quotes asked for one after another see each other's places, quotes asked for in one burst
don't, and a burst herds onto one host. The answer of a host is what it says now, or the offer that came with the
last result on that link for a like action, if that still holds: it was made an instant ago, and saves the round trip.
"""

import threading
import time
from collections.abc import Mapping

from msgspec import Struct

from rakefarm.client.farm import Farm, Member
from rakefarm.client.link import Link, Request, wait_readable
from rakefarm.events import QuoteReceived, Stream
from rakefarm.market.award import Candidate, lowest
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Decline, Offer


class Award(Struct, frozen=True):
    """A host won: its open link, its offer, and the price that decided (its own and the transfer's)."""

    member: Member
    link: Link
    offer: Offer
    price: float


class NoBid(Exception):
    """No host bids. `reasons` names each host and why; `final` when asking again soon can't help."""

    def __init__(self, reasons: Mapping[str, str], final: bool) -> None:
        super().__init__("; ".join(f"{host}: {reason}" for host, reason in reasons.items()) or "there are no hosts")
        self.reasons = reasons
        self.final = final


PASSING_REASONS = frozenset({"memory", "disk", "draining", "input_lost", "executor", "sandbox"})
"""Reasons to decline that may be over in a moment, unlike a tool that isn't there."""


class _Answer(Struct, frozen=True):
    member: Member
    link: Link
    offer: Offer


class Auctioneer:
    """Runs auctions over a farm, one at a time."""

    def __init__(self, farm: Farm, stream: Stream, quote_s: float) -> None:
        self._farm = farm
        self._stream = stream
        self._quote_s = quote_s
        self._lock = threading.Lock()

    def award(self, action: int, request: Request, digests: Mapping[bytes, int], avoid: Mapping[str, str]) -> Award:
        """Ask every host but those in `avoid` (host to reason), and take the cheapest. Raises NoBid.

        `digests` are the inputs, by content, with their sizes: what a host lacks is added to its price.
        """
        with self._lock:
            reasons = dict(avoid)
            asked = self._ask_all(request, reasons)
            lasting: set[str] = set()
            answers = self._collect(action, asked, reasons, lasting)
        if not answers:
            for member in self._farm.members:
                if member.problem:
                    reasons.setdefault(member.name, member.problem)
            raise NoBid(reasons, final=not avoid and all(member.name in lasting for member in self._farm.usable()))
        candidates = [
            Candidate(answer.member.name, answer.offer.price, answer.member.transfer_seconds(digests))
            for answer in answers
        ]
        winner = lowest(candidates)
        for index, answer in enumerate(answers):
            if index != winner:
                self._farm.give_back(answer.member, answer.link)
        won = answers[winner]
        return Award(won.member, won.link, won.offer, candidates[winner].total)

    def _ask_all(self, request: Request, reasons: dict[str, str]) -> list[tuple[Member, Link]]:
        asked = []
        for member in self._farm.usable():
            if member.name in reasons:
                continue
            link = self._ask(member, request)
            if link is None:
                reasons[member.name] = member.problem or "lost"
            else:
                asked.append((member, link))
        return asked

    def _ask(self, member: Member, request: Request) -> Link | None:
        """A kept link may have been closed meanwhile (a worker died, say): then the next one, or a new one,
        is asked.
        """
        while (link := self._farm.checkout(member)) is not None:
            try:
                link.ask(request)
                return link
            except (Lost, ProtocolError):
                self._farm.discard(link)
        return None

    def _collect(
        self, action: int, asked: list[tuple[Member, Link]], reasons: dict[str, str], lasting: set[str]
    ) -> list[_Answer]:
        """The offers. `reasons` gets each other host's reason; `lasting` those that would say the same again soon."""
        answers: list[_Answer] = []
        waiting = {link.transport.socket.fileno(): (member, link) for member, link in asked}
        deadline = time.monotonic() + self._quote_s
        readable: set[int] = set()
        while waiting:
            for descriptor, (member, link) in list(waiting.items()):
                try:
                    answer = link.take_quote(descriptor in readable)
                except (Lost, ProtocolError, ValueError) as error:
                    del waiting[descriptor]
                    self._farm.discard(link)
                    reasons[member.name] = explain(error) if not isinstance(error, ValueError) else "closed"
                    continue
                if answer is not None:
                    del waiting[descriptor]
                    self._note(action, member, link, answer, answers, reasons, lasting)
            if not waiting:
                break
            readable = wait_readable([link for _, link in waiting.values()], deadline)
            if not readable and time.monotonic() >= deadline:
                for member, link in waiting.values():
                    self._farm.discard(link)
                    reasons[member.name] = f"no quote within {self._quote_s:g} s"
                    self._farm.leave_out(member, reasons[member.name])
                break
        return answers

    def _note(
        self,
        action: int,
        member: Member,
        link: Link,
        answer: Offer | Decline,
        answers: list[_Answer],
        reasons: dict[str, str],
        lasting: set[str],
    ) -> None:
        if isinstance(answer, Offer) and answer.price > 0:
            answers.append(_Answer(member, link, answer))
            terms = {term.name: term.value for term in answer.terms}
            self._stream.emit(
                QuoteReceived(action=action, host=member.name, price=answer.price, seconds=answer.seconds, terms=terms)
            )
            return
        if isinstance(answer, Offer):
            reason = f"an absurd price: {answer.price}"
        else:
            reason = f"{answer.reason}: {answer.text}"
            if answer.reason not in PASSING_REASONS:
                lasting.add(member.name)
        reasons[member.name] = reason
        self._stream.emit(QuoteReceived(action=action, host=member.name, price=None, reason=reason))
        self._farm.give_back(member, link)
