"""Questions to hosts; and every host's answer to one, all asked at once: for `-n` and `rakefarm quote`, where nothing
is awarded."""

import time

from msgspec import Struct

from rakefarm.client.farm import Farm, Member
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.link import Link, wait_readable
from rakefarm.market.curve import Curve
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Decline, Offer, Task


class Question(Struct, frozen=True):
    """What a host was asked over a link, or whether it is waited at, and until when it may answer (monotonic
    seconds)."""

    member: Member
    link: Link
    job: RemoteJob
    waits: bool
    deadline: float
    tries: int


class Answer(Struct, frozen=True):
    """What a host says: an offer, or why it makes none; or why it could not be `asked`."""

    host: str
    offer: Offer | None
    reason: str = ""
    asked: bool = True

    @property
    def refusal(self) -> str:
        """Why there is no offer, for a person."""
        return f"{'declines' if self.asked else 'was not asked'}: {self.reason}"


def ask_every_host(farm: Farm, task: Task, quote_s: float) -> list[Answer]:
    """The answers, offers first and the cheapest first; hosts that can't be asked come last, each with its reason."""
    answers: list[Answer] = []
    waiting: dict[int, tuple[Member, Link]] = {}
    for member in farm.members:
        link = farm.checkout(member) if not member.problem else None
        if link is None:
            answers.append(Answer(member.name, None, member.problem or "closed", asked=False))
            continue
        try:
            link.ask(task)
            waiting[link.transport.socket.fileno()] = (member, link)
        except (Lost, ProtocolError) as error:
            farm.discard(link)
            answers.append(Answer(member.name, None, explain(error), asked=False))
    deadline = time.monotonic() + quote_s
    while waiting:
        readable = wait_readable([link for _, link in waiting.values()], deadline)
        if not readable:
            for member, link in waiting.values():
                farm.discard(link)
                answers.append(Answer(member.name, None, f"no quote within {quote_s:g} s"))
            break
        for descriptor in readable:
            member, link = waiting[descriptor]
            try:
                answer = link.take_answer(readable=True)
            except (Lost, ProtocolError) as error:
                answers.append(Answer(member.name, None, explain(error)))
                farm.discard(link)
            else:
                if answer is None:
                    continue
                answers.append(_judged(member.name, answer))
                farm.give_back(member, link)
            del waiting[descriptor]
    return sorted(answers, key=lambda answer: (answer.offer is None, answer.offer.price if answer.offer else 0.0))


def _judged(host: str, answer: Offer | Decline) -> Answer:
    if isinstance(answer, Decline):
        return Answer(host, None, f"{answer.reason}: {answer.text}")
    problem = absurdity(answer)
    return Answer(host, None, problem) if problem else Answer(host, answer)


ABSURD = 1e9
"""A price or a time beyond this is no answer of a working server: thirty years."""


def absurdity(offer: Offer) -> str:
    """What can't be true in an offer, or nothing. The wire has refused what is not finite."""
    if not 0 < offer.price < ABSURD or not 0 < offer.seconds < ABSURD:
        return f"an absurd price: {offer.price:g} for {offer.seconds:g} s"
    return absurd_curve(offer.curve)


def absurd_curve(curve: Curve) -> str:
    """What can't be true in a curve, or nothing."""
    if not (0 < curve.speed < 1e6 and curve.cores and curve.slots and 0 <= curve.busy < 1e6 and curve.free_in_s):
        return "an absurd price curve"
    if not (0 <= curve.load_average < 1e6 and 0 <= curve.sample_age_s < ABSURD):
        return "an absurd load in its price curve"
    if not all(0 <= time < ABSURD for time in curve.free_in_s):
        return "an absurd time in its price curve"
    return ""
