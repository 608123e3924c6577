"""Carries out what the award policy decides: asks hosts, waits for slots, hands actions to runners, tells the rest.

    runner threads ──finished, superseded, refused, lost──┐
    main thread ──quotes, free slots, time────────────────┴─► policy ──► effects: ask, wait (here),
                                                                                  award, back up (to a runner)

The policy is a pure object that sees one event at a time; whoever has an event calls it, under one lock, and carries
out the effects. So a runner that ends an action usually gets its next one out of its own call, and nobody else is
woken. Questions go out on links of their own and are watched by the main thread, which also keeps the time.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from rakefarm.client.copies import STOP_S, Assignment, Copies, Losers
from rakefarm.client.farm import Farm, Member
from rakefarm.client.jobs import RemoteJob
from rakefarm.client.link import SILENCE_S
from rakefarm.client.market_record import MarketRecord
from rakefarm.client.policy_guard import PolicyGuard
from rakefarm.client.policy_view import BuildView
from rakefarm.client.quotes import Question, absurdity
from rakefarm.client.refusals import PASSING_REASONS, Refusals, Verdict
from rakefarm.events import QuoteReceived, Stream
from rakefarm.market import policy as market
from rakefarm.market.curve import Curve
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import Decline, Offer

RETRY_PAUSE_S = 0.2
REVIVE_S = 0.25
"""How often a host that was left out for a while is looked at again."""
MOST_TRIES = 3
"""Links that one question is asked on: kept ones may be closed, but not all that are new."""


class Broker:
    """Runs one policy over one farm. `run_set` is for the main thread, `tell` for any."""

    def __init__(
        self,
        farm: Farm,
        stream: Stream,
        make_policy: Callable[[market.View], market.Policy],
        quote_s: float,
        attempts: int,
        seed: int | None,
        assign: Callable[[Assignment], None],
        give_up: Callable[[RemoteJob, str], None],
    ) -> None:
        """`assign` hands an action to a runner, `give_up` is told of one that no host will run."""
        self._farm = farm
        self._stream = stream
        self._quote_s = quote_s
        self._attempts = attempts
        self._assign = assign
        self._give_up = give_up
        self._lock = threading.RLock()
        self._members = {member.name: member for member in farm.members}
        view = BuildView(seed, self._members, lambda: self._jobs)
        self._policy = PolicyGuard(view, make_policy, stream, self._restart)
        self._jobs: dict[int, RemoteJob] = {}  # unfinished ones of this set
        self._flying: dict[int, set[str]] = {}  # where each action runs
        self._copies: dict[int, Copies] = {}  # of repeatable actions
        self._questions: dict[int, Question] = {}
        self._leases: dict[str, tuple[Question, Offer]] = {}
        self._refusals = Refusals()
        self._record = MarketRecord(stream.emit)
        self._asked_again: dict[object, float] = {}
        self._quoted_as: dict[object, int] = {}  # by task, the action that hosts were asked for last
        self._down: set[str] = set()
        self._absent: set[str] = set()  # hosts of which nothing had been heard when the set began
        self._reviving: set[str] = set()
        self._wake_at: float | None = None
        self._abandoned = False
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._losers = Losers(lambda: os.eventfd_write(self._wake, 1))
        self._epoll.register(self._wake, select.EPOLLIN)

    # --- in the main thread ---------------------------------------------------------------------------

    def run_set(self, jobs: Sequence[RemoteJob]) -> None:
        """Have all these jobs performed; answers when each has been finished or given up, and nothing of them runs."""
        with self._lock:
            self._jobs = {job.number: job for job in jobs}
            self._copies.clear()
            self._refusals = Refusals()
            usable = self._farm.usable()
            self._down = {member.name for member in self._farm.members} - {member.name for member in usable}
            facts = tuple([member.facts() for member in usable if member.ready])
            self._absent = {member.name for member in usable} - {each.name for each in facts}
            self._do(self._policy.handle(market.SetStarted(tuple([job.market for job in jobs]), facts)))
            self._check_hopeless()
        while (self._jobs or self._losers) and not self._abandoned:
            self._serve_once()
        self._end_questions()

    def _serve_once(self) -> None:
        now = time.monotonic()
        due = [question.deadline for question in list(self._questions.values())]
        due += [self._wake_at] if self._wake_at is not None else []
        due += [*self._asked_again.values(), *self._losers.due()]
        due += [now + REVIVE_S] if self._down else []
        wait_s = max(0.0, min(due) - now) if due else -1
        for descriptor, _ in self._epoll.poll(wait_s):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._take_answer(descriptor)
        self._keep_time()

    def _keep_time(self) -> None:
        now = time.monotonic()
        with self._lock:
            for descriptor, question in list(self._questions.items()):
                if question.deadline <= now:
                    self._drop_question(descriptor)
                    self._host_failed(question.member, f"no quote within {self._quote_s:g} s")
            for host in self._losers.cut_overdue(now):
                self._host_failed(self._members[host], f"it did not stop an action within {STOP_S:g} s")
            if self._wake_at is not None and self._wake_at <= now:
                self._wake_at = None
                self._do(self._policy.handle(market.Woken()))
            for task, when in list(self._asked_again.items()):
                if when <= now:
                    del self._asked_again[task]
                    self._ask_again(task)
            if self._down:
                self._revive_all([member for member in self._farm.usable() if member.name in self._down])
            self._check_hopeless()

    def _returning(self) -> list[Member]:
        """Hosts that are down and had been there."""
        return [member for member in self._farm.members if member.ready and member.name in self._down]

    def _revive_all(self, members: Sequence[Member]) -> None:
        for member in members:
            if member.name not in self._reviving:
                self._reviving.add(member.name)
                self._farm.try_again(member)

    def heard(self, member: Member) -> None:
        """A host that was left out, or of which nothing had been heard, has answered or failed. From any thread."""
        with self._lock:
            self._reviving.discard(member.name)
            if not member.problem and member.name in self._down | self._absent:
                self._down.discard(member.name)
                self._do(self._policy.handle(market.HostUp(member.facts())))
            elif member.problem and member.name in self._absent:
                self._gone(member)
            self._absent.discard(member.name)

    def _take_answer(self, descriptor: int) -> None:
        with self._lock:
            question = self._questions.get(descriptor)
            if question is None:
                return
            try:
                answer = question.link.take_answer(readable=True)
            except Lost as error:
                # A kept link may have been closed meanwhile (a worker died, say): then another is tried.
                self._drop_question(descriptor)
                if question.tries < MOST_TRIES:
                    self._ask(question.job, question.member, question.waits, question.tries + 1)
                else:
                    self._host_failed(question.member, explain(error))
                return
            except ProtocolError as error:
                self._drop_question(descriptor)
                self._host_failed(question.member, explain(error), for_good=True)
                return
            if answer is None:
                if question.waits:  # a beat: it lives
                    self._questions[descriptor] = replace(question, deadline=time.monotonic() + SILENCE_S)
                return
            self._epoll.unregister(descriptor)
            del self._questions[descriptor]
            self._note(question, answer)

    def _note(self, question: Question, answer: Offer | Decline) -> None:
        job, member = question.job, question.member
        absurd = absurdity(answer) if isinstance(answer, Offer) else ""
        if not isinstance(answer, Offer) or absurd:
            self._farm.give_back(member, question.link)
            member.draining |= isinstance(answer, Decline) and answer.reason == "draining"
            reason = absurd or (f"{answer.reason}: {answer.text}" if isinstance(answer, Decline) else "")
            lasting = not absurd and isinstance(answer, Decline) and answer.reason not in PASSING_REASONS
            self._stream.emit(QuoteReceived(action=job.number, host=member.name, price=None, reason=reason))
            if absurd:
                self._host_failed(member, reason, for_good=True)
                return
            self._refusals.note(job.market.task, member.name, reason, lasting)
            self._do(self._policy.handle(market.Declined(job.market, member.name, lasting)))
            self._check_hopeless()
            return
        self._refusals.forget(job.market.task, member.name)
        self._record.offer(member.name, job.market.task, answer, time.monotonic())
        if question.waits and answer.lease:
            self._leases[member.name] = (question, answer)
            self._do(self._policy.handle(market.SlotFree(member.name, answer.curve, job.market)))
            if self._leases.pop(member.name, None) is not None:
                self._farm.discard(question.link)  # not used: which gives the slot up at once
            return
        self._farm.give_back(member, question.link)
        terms = {term.name: term.value for term in answer.terms}
        self._stream.emit(
            QuoteReceived(action=job.number, host=member.name, price=answer.price, seconds=answer.seconds, terms=terms)
        )
        quoted = market.Quoted(job.market, member.name, answer.price, answer.seconds, answer.curve)
        self._do(self._policy.handle(quoted))

    def _end_questions(self) -> None:
        """The set is over: who still waits for a slot waits no longer."""
        with self._lock:
            for descriptor in list(self._questions):
                self._drop_question(descriptor)
            self._wake_at = None
            self._asked_again.clear()

    def _drop_question(self, descriptor: int) -> None:
        question = self._questions.pop(descriptor)
        self._epoll.unregister(descriptor)
        self._farm.discard(question.link)

    # --- what happened, from any thread ---------------------------------------------------------------

    def finished(self, job: RemoteJob, host: str, seconds: float, curve: Curve | None, succeeded: bool) -> None:
        """A runner has ended a job, one way or the other."""
        with self._lock:
            self._end(job)
            if curve is not None:
                self._record.curve(host, curve, time.monotonic())
            self._do(self._policy.handle(market.Finished(job.market, host, seconds, curve, succeeded)))

    def superseded(self, job: RemoteJob, host: str) -> None:
        """What ran there has been stopped: a copy was first."""
        with self._lock:
            self._losers.ended(self._copies[job.number])
            self._left(job, host)
            self._do(self._policy.handle(market.Superseded(job.market, host)))

    def refused(self, job: RemoteJob, host: str, curve: Curve, lacking: bool) -> None:
        """The host was full; or, when `lacking`, others hold what the job needs."""
        with self._lock:
            self._left(job, host)
            self._record.curve(host, curve, time.monotonic())
            self._do(self._policy.handle(market.Refused(job.market, host, curve, lacking)))

    def lost(self, job: RemoteJob, host: str, host_down: str = "", for_good: bool = False) -> None:
        """The job was lost there, or was taken back; `host_down` is why the host can't be used any more, if so, and
        `for_good` that it is not to be believed."""
        with self._lock:
            if host_down:  # the policy hears of it first, and does not choose it once more
                self._host_failed(self._members[host], host_down, for_good)
            self._left(job, host)
            self._do(self._policy.handle(market.Lost(job.market, host)))
            self._check_hopeless()

    def abandon(self) -> None:
        """A runner has failed, and its job will never end: `run_set` answers at once."""
        self._abandoned = True
        os.eventfd_write(self._wake, 1)

    def _left(self, job: RemoteJob, host: str) -> None:
        self._flying[job.number] = self._flying.get(job.number, set()) - {host}

    def _end(self, job: RemoteJob) -> None:
        self._flying.pop(job.number, None)
        self._jobs.pop(job.number, None)
        if not self._jobs:
            os.eventfd_write(self._wake, 1)

    def _host_failed(self, member: Member, reason: str, for_good: bool = False) -> None:
        """It is left out, and the policy told; its other jobs there come back as lost by themselves."""
        self._farm.leave_out(member, reason, for_good)
        self._gone(member)

    def _gone(self, member: Member) -> None:
        if member.name not in self._down:
            self._down.add(member.name)
            os.eventfd_write(self._wake, 1)
            self._do(self._policy.handle(market.HostDown(member.name)))
            self._check_hopeless()

    # --- effects --------------------------------------------------------------------------------------

    def _restart(self) -> market.SetStarted:
        """What a policy has to know that takes over in the middle of a set."""
        pending = tuple([job.market for job in self._jobs.values() if not self._flying.get(job.number)])
        return market.SetStarted(pending, tuple([m.facts() for m in self._farm.usable() if m.ready]))

    def _do(self, effects: Sequence[market.Effect]) -> None:
        for effect in effects:
            match effect:
                case market.Award():
                    self._award(effect)
                case market.Ask(job, hosts):
                    self._quoted_as[job.task] = job.number
                    for host in hosts:
                        if job.number in self._jobs:
                            self._ask(self._jobs[job.number], self._members[host], waits=False)
                case market.Wait(host, job):
                    if job.number in self._jobs:
                        self._ask(self._jobs[job.number], self._members[host], waits=True)
                case market.WakeAt(when):
                    self._wake_at = when if self._wake_at is None else min(self._wake_at, when)
                    os.eventfd_write(self._wake, 1)

    def _award(self, award: market.Award) -> None:
        job, host = award.job, award.host
        running = self._flying.get(job.number, set())
        if isinstance(award, market.BackUp):
            wanted = job.repeatable and len(running) == 1 and host not in running
        else:
            wanted = not running
        if job.number not in self._jobs or not wanted:
            return
        self._flying[job.number] = {host, *running}
        copies = self._copies.setdefault(job.number, Copies(self._losers.watch)) if job.repeatable else None
        if copies is not None:
            copies.enter(host)
        link, lease = None, 0
        held = self._leases.get(host)
        if held is not None and held[0].job.task.needs == self._jobs[job.number].task.needs:
            del self._leases[host]
            link, lease = held[0].link, held[1].lease
        terms = self._record.terms(host, job.task, award.price, award.slowness)
        quoted_as = self._quoted_as.get(job.task, 0)
        mine = self._jobs[job.number]
        self._assign(Assignment(mine, self._members[host], award, terms, quoted_as, link, lease, copies))

    def _ask(self, job: RemoteJob, member: Member, waits: bool, tries: int = 1) -> None:
        while (link := self._farm.checkout(member)) is not None:
            try:
                link.wait(job.task) if waits else link.ask(job.task)
            except (Lost, ProtocolError):
                self._farm.discard(link)
                continue
            descriptor = link.transport.socket.fileno()
            deadline = time.monotonic() + (SILENCE_S if waits else self._quote_s)
            self._questions[descriptor] = Question(member, link, job, waits, deadline, tries)
            self._epoll.register(descriptor, select.EPOLLIN)
            os.eventfd_write(self._wake, 1)  # the main thread has a new deadline
            return
        self._host_failed(member, member.problem or "lost")

    # --- when nobody bids -----------------------------------------------------------------------------

    def _check_hopeless(self) -> None:
        """Give up what no host will ever run; ask again, a bounded number of times, for what none would just now."""
        names = {member.name for member in self._farm.members if member.name not in self._down}
        asked = {question.job.market.task for question in self._questions.values()}
        idle: dict[object, list[RemoteJob]] = {}
        for job in self._jobs.values():
            if not self._flying.get(job.number) and job.market.task not in asked:
                idle.setdefault(job.market.task, []).append(job)
        for task, jobs in idle.items():
            if task in self._asked_again:
                continue
            match self._refusals.verdict(task, names, self._attempts, bool(self._returning())):
                case Verdict.HOPELESS:
                    reason = self._refusals.explain(task, {m.name: m.problem for m in self._farm.members if m.problem})
                    for job in jobs:
                        self._end(job)
                        self._do(self._policy.handle(market.Withdrawn(job.market)))
                        self._give_up(job, reason)
                case Verdict.LATER:
                    self._asked_again[task] = time.monotonic() + RETRY_PAUSE_S * self._refusals.rounds(task)
                    os.eventfd_write(self._wake, 1)

    def _ask_again(self, task: object) -> None:
        """After a pause: the same question to those that would not just now, and a look at those that were there."""
        self._revive_all(self._returning())
        job = next((job for job in self._jobs.values() if job.market.task == task), None)
        for name in self._refusals.forget_passing(task) if job is not None else ():
            if name not in self._down:
                assert job is not None
                self._ask(job, self._members[name], waits=False)

    def close(self) -> None:
        """Let go of the kernel's objects. The farm closes the links."""
        with self._lock:
            self._down, self._absent = set(), set()  # who is heard now changes nothing
        self._epoll.close()
        os.close(self._wake)
