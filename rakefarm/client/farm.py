"""The hosts of a build: which can be asked, their idle links, what each has been sent.

A host that fails is left out and warned about once. One that had been ready is tried again after a pause that
doubles; one that never was, or that tells what can't be true, is not. Links are kept, the one used last first, since it
has the freshest offer.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from rakefarm.client.credentials import load_credentials
from rakefarm.client.link import Link, connect, trust_of
from rakefarm.client.reach import HostFailed
from rakefarm.codes import Code, coded
from rakefarm.config import ClientSettings
from rakefarm.embedded import EmbeddedFailed, WaitReady
from rakefarm.events import HostLeftOut, HostReady, Notice, Stream
from rakefarm.hosts import Host
from rakefarm.market.bandwidth import START_BANDWIDTH, learn_bandwidth, transfer_seconds
from rakefarm.market.policy import HostFacts
from rakefarm.transport import Lost

PATIENCE_S = 0.2
"""How long a build that could begin waits for hosts that have not answered; they join when they do."""
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0


class Member(Struct):
    """One host of the farm, guarded by the farm's lock. `name` is what it is called in every message."""

    host: Host
    name: str
    slots: int = 0
    cores: int = 0
    idle: list[Link] = field(default_factory=list)
    ready: bool = False
    draining: bool = False  # it has said that it takes no more, and ends
    problem: str = ""
    asked_again_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    names: set[str] = field(default_factory=set)
    bandwidth: float = START_BANDWIDTH
    overhead_s: float = 0.0

    def facts(self) -> HostFacts:
        """What a policy is told of it."""
        return HostFacts(self.name, min(self.slots, self.host.slots or self.slots), self.cores)

    def transfer_seconds(self, sizes: Sequence[tuple[str, int]]) -> float:
        """How long sending what it lacks of these files (name and size in bytes) would take, as far as we know: by
        name, since hashing every file for an estimate would take longer than the sending."""
        lacking = sum([size for name, size in sizes if name not in self.names])
        return transfer_seconds(lacking, self.bandwidth)

    def note_overhead(self, seconds: float) -> None:
        """Learn what an action takes beyond its command and the sending of files; the first one counts as it is."""
        seconds = max(seconds, 0.0)
        self.overhead_s = seconds if not self.overhead_s else self.overhead_s + 0.2 * (seconds - self.overhead_s)

    def note_sent(self, size: int, seconds: float) -> None:
        """Learn the bandwidth from one transfer."""
        self.bandwidth = learn_bandwidth(self.bandwidth, size, seconds)


class Farm:
    """All hosts of one build. For any thread, except `start`. Raises ConfigError when the keys can't be read."""

    def __init__(
        self,
        hosts: Sequence[Host],
        settings: ClientSettings,
        environ: Mapping[str, str],
        stream: Stream,
        local: WaitReady | None = None,
        network_s: float | None = None,
    ) -> None:
        """`local`: where the server of this machine listens, if it is one of the hosts. `network_s`: how long a host
        may take to accept a connection at all, if that is less than the whole of `connect_s`."""
        self._local = local
        self._network_s = network_s
        self._settings = settings
        self._environ = environ
        self._credentials = load_credentials(settings, hosts, environ)
        self._trust = trust_of(settings)
        self._stream = stream
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._in_use: set[Link] = set()
        self.messages = 0
        """Messages of the protocol, both ways, on links that are closed by now."""
        self.listener: Callable[[Member], None] = lambda _: None
        """Told, in a thread of its own, of each host that has answered or failed after `start`."""
        self.members = [Member(host, host.address) for host in hosts]

    def start(self, patience_s: float = PATIENCE_S) -> None:
        """Connect to every host at once; who doesn't answer is left out. Returns when all have answered or failed, or
        when one is ready and `patience_s` have passed; `listener` is told of those that come later. This machine's own
        server has only been started, and takes longer than that: where another host is ready nobody waits for it."""
        deadline = time.monotonic() + patience_s
        waited_for = {member.name for member in self.members}
        slow = {member.name for member in self.members if member.host.is_local} if patience_s < math.inf else set()
        answered = threading.Condition()

        def try_one(member: Member) -> None:
            self._try_member(member)
            with answered:
                waited_for.discard(member.name)
                answered.notify()
            self._tell(member)

        for member in self.members:
            threading.Thread(target=try_one, args=(member,), daemon=True).start()
        with answered:
            while waited_for:
                left_s = deadline - time.monotonic()
                ready = any(member.ready for member in self.members)
                if ready and (left_s <= 0 or waited_for <= slow):
                    return
                answered.wait(min(left_s, LONGEST_PAUSE_S) if left_s > 0 else None)

    def try_again(self, member: Member) -> None:
        """See whether the host can be had now, in a thread of its own, since connecting may take seconds; `listener` is
        told what came of it."""

        def try_it() -> None:
            self._try_member(member)
            self._tell(member)

        threading.Thread(target=try_it, daemon=True).start()

    def _try_member(self, member: Member) -> None:
        link = self.checkout(member)
        if link is not None:
            self.give_back(member, link)

    def _tell(self, member: Member) -> None:
        if not self._closed.is_set():
            self.listener(member)

    @property
    def slots(self) -> int:
        """Slots of all hosts that are ready; a limit of ours (`host/SLOTS`) counts where it is lower."""
        return sum(min(member.slots, member.host.slots or member.slots) for member in self.members if member.ready)

    def usable(self) -> list[Member]:
        """Hosts that can be asked now, those whose pause is over included."""
        now = time.monotonic()
        return [
            member for member in self.members if not member.problem or (member.ready and member.asked_again_at <= now)
        ]

    def checkout(self, member: Member) -> Link | None:
        """An idle link to the host, or a new one; None when it fails, which is then left out."""
        with self._lock:
            if self._closed.is_set():
                return None
            if member.idle:
                link = member.idle.pop()
                self._in_use.add(link)
                return link
        try:
            place = self._place_of(member.host)
            link = connect(
                place, self._environ, self._settings.connect_s, self._credentials, self._trust, self._network_s
            )
        except HostFailed as error:
            self.leave_out(member, coded(str(error), error.code))
            return None
        except EmbeddedFailed as error:
            self.leave_out(member, str(error))
            return None
        with self._lock:
            if self._closed.is_set():
                link.close()
                return None
            first = not member.ready
            member.ready, member.draining, member.problem = True, False, ""
            member.slots, member.cores = link.welcome.slots, link.welcome.cores
            member.pause_s = FIRST_PAUSE_S
            self._in_use.add(link)
        if first:
            welcome = link.welcome
            self._stream.emit(
                HostReady(
                    host=member.name,
                    slots=welcome.slots,
                    server_version=welcome.software[:100],
                    isolation=welcome.isolation[:100],
                    authentication=welcome.authentication[:100],
                    missing=tuple([word[:40] for word in welcome.missing[:20]]),
                )
            )
            if welcome.authentication == "insecure":
                text = f"{member.name} is insecure: anybody on the network can run programs there, or pass for it"
                self._stream.emit(Notice(level="warning", text=text))
        return link

    def checkout_fresh(self, member: Member) -> Link | None:
        """As `checkout`, and the server has not closed the link meanwhile."""
        link = self.checkout(member)
        while link is not None and not link.fresh():
            self.discard(link)
            link = self.checkout(member)
        return link

    def _place_of(self, host: Host) -> Host:
        if not host.is_local:
            return host
        assert self._local is not None
        return self._local()

    def give_back(self, member: Member, link: Link) -> None:
        """Keep a link for the next question."""
        with self._lock:
            self._in_use.discard(link)
            if not self._closed.is_set():
                member.idle.append(link)
                return
        self._close(link)

    def flush_idle(self) -> None:
        """Nothing more is to be asked for now: write the acknowledgements that idle links hold back."""
        for member in self.members:
            with self._lock:
                idle, member.idle = member.idle, []
            for link in idle:
                try:
                    link.flush()
                except Lost:
                    link.close()
                else:
                    self.give_back(member, link)

    def discard(self, link: Link) -> None:
        """Close a link that can't be used any more."""
        with self._lock:
            self._in_use.discard(link)
        self._close(link)

    def _close(self, link: Link) -> None:
        link.close()
        with self._lock:
            self.messages += link.transport.connection.take_count()

    def leave_out(self, member: Member, reason: str, for_good: bool = False) -> None:
        """The host failed: don't ask it for a while; or not at all if it never answered, or what it said is not to be
        believed."""
        with self._lock:
            told = bool(member.problem) or self._closed.is_set()
            if member.draining:  # that it can't be reached any more is what that comes to
                reason = coded("it is shutting down, and takes no more; start rakeserver there again", Code.DECLINES)
            member.problem = reason
            member.ready = member.ready and not for_good
            member.asked_again_at = time.monotonic() + member.pause_s
            member.pause_s = min(member.pause_s * 2, LONGEST_PAUSE_S)
            member.names.clear()
            idle, member.idle = member.idle, []
        for link in idle:
            self._close(link)
        if not told:
            self._stream.emit(HostLeftOut(host=member.name, reason=reason))

    def close(self) -> None:
        """Close every link, also those in use: their threads see the end at once, and the servers stop our commands."""
        with self._lock:
            self._closed.set()
            links = [*self._in_use, *(link for member in self.members for link in member.idle)]
            for member in self.members:
                member.idle.clear()
        for link in links:
            self._close(link)
