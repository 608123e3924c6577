"""A launched farm, from the first program to the last server's end, whichever way it was launched.

bring_up ── every node's server has said where it listens, and has answered there over TLS, by the key ──► hosts
take     ── from then on: what happens to it, one by one
bring_down: the end of the programs' input, which is the servers' end; after a while, force
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct, structs

from rakefarm.client.board import safe_text
from rakefarm.client.credentials import load_credentials
from rakefarm.client.watch import Sight, Watch
from rakefarm.config import ClientSettings, load_settings
from rakefarm.hosts import Host
from rakefarm.launch.launcher import Launcher
from rakefarm.launch.node import LaunchFailed, Node, failed
from rakefarm.launch.streams import Ended, Line, Signalled, Streams, Told
from rakefarm.security import keys

STOP_S = 20.0
"""For servers to end by themselves: each ends what runs there, and tidies its directories, on a busy node."""
IDLE_STOP_S = 5.0
"""The same for servers of a farm that never came up, and that run nothing."""
FORCED_S = 10.0
TURN_S = 0.25
LAST_WORDS_S = 1.0
ANSWER_S = 2.0
"""Added to the time for connecting, for TLS, the proofs and the answer to a first question."""
KEY_NAME = "launched"


class Interrupted(Exception):
    """We were asked to end while the farm came up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Voice(Struct, frozen=True):
    """How we speak to a person, a line at a time; `verbose`: all that nodes and launchers say is told, too."""

    tell: Callable[[str], None]
    verbose: bool = False


class LaunchedFarm:
    """Servers on nodes. `place` is a private directory of ours, with the farm's key in it."""

    def __init__(self, launcher: Launcher, streams: Streams, environ: Mapping[str, str], voice: Voice) -> None:
        self._launcher = launcher
        self._streams = streams
        self._environ = environ
        self._voice = voice
        self._told_lost: set[int] = set()
        self._programs: frozenset[int] = frozenset()
        self._is_up = False
        self.place = tempfile.mkdtemp(prefix="rakefarm-launch-")
        self.key_file = os.path.join(self.place, "keys")

    @property
    def nodes(self) -> list[Node]:
        """All of them, also those whose servers have ended."""
        return list(self._launcher.nodes)

    @property
    def slots(self) -> int:
        """Of all servers."""
        return sum(node.slots for node in self._launcher.nodes)

    def bring_up(self) -> tuple[Host, ...]:
        """Where the servers listen, in the order of the nodes. Raises LaunchFailed, Interrupted or ConfigError."""
        settings = structs.replace(
            load_settings(ClientSettings, "client.toml", None, self._environ), key_file=self.key_file
        )
        key = keys.add_key(self.key_file, settings.key_name or KEY_NAME)
        self._launcher.start(self._streams, keys.format_key(key).encode())
        self._programs = self._streams.running
        while not all(node.host for node in self._launcher.nodes):
            self._turn()
            self._check_start()
        hosts = tuple([node.host for node in self._launcher.nodes if node.host])
        self._check_answers(hosts, settings)
        self._is_up = True
        return hosts

    def _turn(self) -> None:
        told = self._streams.get(TURN_S)
        if isinstance(told, Signalled):
            raise Interrupted(told.number)
        if told is not None:
            self._hear(told)

    def _hear(self, told: Line | Ended) -> None:
        if isinstance(told, Line) and self._voice.verbose:
            self._voice.tell(safe_text(told.text))
        self._launcher.hear(told)

    def _check_start(self) -> None:
        now = time.monotonic()
        self._launcher.attend(now)
        for node in self._launcher.nodes:
            if node.ended:
                self._gather_last_words()
                raise node.failure()
        since = self._launcher.nodes_since
        start_s = self._launcher.start_s
        if since is not None and now > since + start_s:
            silent = [node for node in self._launcher.nodes if node.host is None]
            names = ", ".join([node.name for node in silent[:5]]) + (", …" if len(silent) > 5 else "")
            raise LaunchFailed(f"{names}: no server is ready there after {start_s:g} s")

    def _gather_last_words(self) -> None:
        """What a node said may come later than that it has ended, by another pipe."""
        deadline = time.monotonic() + LAST_WORDS_S
        with contextlib.suppress(LaunchFailed):
            while time.monotonic() < deadline and (told := self._streams.get(TURN_S)):
                if not isinstance(told, Signalled):
                    self._hear(told)

    def _check_answers(self, hosts: tuple[Host, ...], settings: ClientSettings) -> None:
        """Every server lets us in where it says that it listens, which a firewall may prevent. Raises LaunchFailed."""
        watch = Watch(hosts, self._environ, settings.connect_s, load_credentials(settings, hosts, self._environ))
        watch.start(settings.connect_s, lambda host: host)
        deadline = time.monotonic() + settings.connect_s + ANSWER_S
        try:
            while not all(_is_told(sight) for sight in watch.sights()) and time.monotonic() < deadline:
                self._turn()
                self._check_start()
        finally:
            watch.close()
        for node, sight in zip(self._launcher.nodes, watch.sights(), strict=True):
            if sight.status is None:
                raise failed(f"{node.name}: its server, {sight.host}, can't be used: {sight.problem or 'no answer'}")

    def take(self, timeout_s: float | None = None) -> Told | None:
        """What happens next to a farm that is up; that a server is lost is said. Raises LaunchFailed when all are."""
        told = self._streams.get(timeout_s)
        if isinstance(told, Line) or (isinstance(told, Ended) and told.child in self._programs):
            self._hear(told)
            for number, node in enumerate(self._launcher.nodes):
                if node.ended and number not in self._told_lost:
                    self._told_lost.add(number)
                    left = len(self._launcher.nodes) - len(self._told_lost)
                    self._voice.tell(f"warning: lost the server on {node.failure()}; {left} left")
        return told

    def bring_down(self) -> None:
        """Until no program of ours runs, and so no server, as far as the launcher can see to it."""
        self._streams.end_input()
        patience_s = STOP_S if self._is_up else IDLE_STOP_S
        if self._launcher.nodes_since is None or not self._wait_all_ended(patience_s):
            self._launcher.force(self._streams)
            if not self._wait_all_ended(FORCED_S):
                self._streams.signal(signal.SIGKILL)
                self._wait_all_ended(FORCED_S)
        shutil.rmtree(self.place, ignore_errors=True)

    def _wait_all_ended(self, seconds: float) -> bool:
        """Whether they have. Asked to end once more, we wait no longer."""
        deadline = time.monotonic() + seconds
        while self._streams.running & self._programs:
            left_s = deadline - time.monotonic()
            told = self._streams.get(max(0.0, left_s))
            if left_s <= 0 or isinstance(told, Signalled):
                return False
        return True


def _is_told(sight: Sight) -> bool:
    return sight.status is not None or bool(sight.problem)


@contextlib.contextmanager
def launched(launcher: Launcher, streams: Streams, environ: Mapping[str, str], voice: Voice) -> Iterator[LaunchedFarm]:
    """A farm that is gone when the context ends, however it ends."""
    farm = LaunchedFarm(launcher, streams, environ, voice)
    try:
        yield farm
    finally:
        farm.bring_down()
