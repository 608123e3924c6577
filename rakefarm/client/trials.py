"""What one host and the way to it are like, by trying: questions, actions that do nothing, and files nobody has yet."""

import os
import statistics
import tempfile
import time

from msgspec import Struct

from rakefarm.client.link import Link
from rakefarm.client.lone_action import run_alone
from rakefarm.client.quotes import absurdity
from rakefarm.client.remote import Declined
from rakefarm.hosts import Host
from rakefarm.market.break_even import Costs, Hosts
from rakefarm.transport import Lost
from rakefarm.wire.messages import Decline, Offer, Task

QUESTIONS = 20
"""Questions in a row; their median is the round trip and what the host needs for a quote."""
NOOPS = 10
FILE_BYTES = 4 << 20
LEAST_ROUNDS = 2
ANSWER_S = 5.0
ROUND_TRIPS_START, ROUND_TRIPS = 5.0, 1.0
"""Of a build (connection, proofs, quote) and of an action whose inputs are there: by the protocol."""


class Trial(Struct, frozen=True):
    """What was found: the host's slots, speed, round trip (seconds), rate (bits a second), its overhead for an action
    (seconds), and the seconds of our own processor for one and for each input byte."""

    host: str
    slots: int
    speed: float
    round_trip_s: float
    rate_bps: float
    overhead_s: float
    handling_s: float
    sending_s_per_byte: float

    @property
    def hosts(self) -> Hosts:
        """As the model has it."""
        return Hosts(self.slots, self.speed, self.round_trip_s, self.rate_bps)

    def costs(self, start_s: float) -> Costs:
        """As the model has them; `start_s` is the client's own start (seconds)."""
        return Costs(start_s, self.handling_s, self.sending_s_per_byte, self.overhead_s, ROUND_TRIPS_START, ROUND_TRIPS)


class NotTried(Exception):
    """The host takes no trial; the text says why."""


def try_host(host: Host, link: Link, seconds: float) -> Trial:
    """Try it in rounds for about so many seconds. Raises NotTried, Lost or a protocol error."""
    until = time.monotonic() + seconds
    questions: list[float] = []
    noops: list[float] = []
    handling: list[float] = []
    rates: list[float] = []
    sending: list[float] = []
    offer: Offer | None = None
    _act(host, link, "")  # the first takes an executor that has yet to be started
    with tempfile.TemporaryDirectory(prefix="rakefarm-trial-") as directory:
        while len(rates) < LEAST_ROUNDS or time.monotonic() < until:
            for _ in range(QUESTIONS):
                began = time.perf_counter()
                offer = _ask(link)
                questions.append(time.perf_counter() - began)
            used = time.process_time()
            for _ in range(NOOPS):
                began = time.perf_counter()
                _act(host, link, "")
                noops.append(time.perf_counter() - began)
            handling.append((time.process_time() - used) / NOOPS)
            path = os.path.join(directory, f"trial-{len(rates)}")
            with open(path, "wb") as file:
                file.write(os.urandom(FILE_BYTES))
            began, used = time.perf_counter(), time.process_time()
            _act(host, link, path)
            took_s = max(time.perf_counter() - began - statistics.median(noops), 1e-6)
            sending.append(max(time.process_time() - used - handling[-1], 0.0) / FILE_BYTES)
            rates.append(8.0 * FILE_BYTES / took_s)
            os.unlink(path)
    assert offer is not None
    # The round trip of a question holds the host's answer to it, as that of an action does: both are waited for.
    round_trip_s = min(questions)
    return Trial(
        host.address,
        offer.curve.slots,
        offer.curve.speed,
        round_trip_s,
        statistics.median(rates),
        max(statistics.median(noops) - round_trip_s, 0.0),
        statistics.median(handling),
        statistics.median(sending),
    )


def _ask(link: Link) -> Offer:
    link.ask(Task("other", (), 0, 0.0, 0))
    answer: Offer | Decline | None = None
    deadline = time.monotonic() + ANSWER_S
    while answer is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Lost("no quote came")
        answer = link.take_answer(link.transport.wait_readable(left_s))
    if isinstance(answer, Decline):
        raise NotTried(f"{answer.reason}: {answer.text}")
    if problem := absurdity(answer):
        raise NotTried(problem)
    return answer


def _act(host: Host, link: Link, path: str) -> None:
    """Have the host do nothing, with that file if there is one."""
    files = (path,) if path else ()
    try:
        result, _, _ = run_alone(
            host, link, "true", files, kind="other", label="rakefarm breakeven", produces=(), read=lambda _: None
        )
    except Declined as error:
        raise NotTried(str(error)) from error
    if result.outcome != "exited" or result.status:
        raise NotTried(f"it could not run 'true': {result.detail or result.outcome}")
