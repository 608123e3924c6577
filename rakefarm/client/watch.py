"""How every host is, asked again and again over kept links, a thread a host: what `rakefarm top` shows."""

import threading
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from rakefarm.client.credentials import Credentials
from rakefarm.client.link import Link, connect
from rakefarm.client.reach import HostFailed
from rakefarm.client.status_check import check_status
from rakefarm.codes import coded
from rakefarm.embedded import EmbeddedFailed
from rakefarm.hosts import Host
from rakefarm.transport import Lost, explain
from rakefarm.wire import ProtocolError
from rakefarm.wire.messages import StatusReply, Welcome

PAUSE_S = 2.0
"""After a failure, before the host is tried again."""


class Sight(Struct, frozen=True):
    """What was last seen of a host: its status, or the problem; neither before the first answer."""

    host: str
    welcome: Welcome | None = None
    status: StatusReply | None = None
    problem: str = ""


class Watch:
    """All hosts, until it is closed. For any thread."""

    def __init__(
        self, hosts: Sequence[Host], environ: Mapping[str, str], connect_s: float, credentials: Credentials
    ) -> None:
        self._environ = environ
        self._connect_s = connect_s
        self._credentials = credentials
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._sights = {host.address: Sight(host.address) for host in hosts}
        self._hosts = hosts
        self._threads: list[threading.Thread] = []

    def start(self, interval_s: float, place_of: Callable[[Host], Host]) -> None:
        """Begin to ask, each host every `interval_s` seconds."""
        for host in self._hosts:
            thread = threading.Thread(target=self._watch, args=(host, interval_s, place_of), daemon=True)
            self._threads.append(thread)
            thread.start()

    def sights(self) -> list[Sight]:
        """What was last seen of each, in the order of the hosts."""
        with self._changed:
            return list(self._sights.values())

    def wait_for_all(self, timeout_s: float) -> list[Sight]:
        """Until every host has answered or failed, at most so long."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(each.status or each.problem for each in self._sights.values()), timeout_s
            )
            return list(self._sights.values())

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _watch(self, host: Host, interval_s: float, place_of: Callable[[Host], Host]) -> None:
        link: Link | None = None
        while not self._closed.is_set():
            pause_s = interval_s
            try:
                link = link or connect(place_of(host), self._environ, self._connect_s, self._credentials)
                if "status" not in link.welcome.capabilities:
                    self._put(Sight(host.address, link.welcome, problem="its release tells no status [RF127]"))
                    break
                status = link.status()
                check_status(status)
                self._put(Sight(host.address, link.welcome, status))
            except HostFailed as error:
                self._put(Sight(host.address, problem=coded(str(error), error.code)))
                pause_s = PAUSE_S
            except (Lost, ProtocolError, EmbeddedFailed) as error:
                problem = str(error) if isinstance(error, EmbeddedFailed) else explain(error)
                self._put(Sight(host.address, problem=problem))
                pause_s = PAUSE_S
                if link is not None:
                    link.close()
                    link = None
            self._closed.wait(pause_s)
        if link is not None:
            link.close()

    def _put(self, sight: Sight) -> None:
        with self._changed:
            self._sights[sight.host] = sight
            self._changed.notify_all()
