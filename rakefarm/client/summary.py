"""What a build came to, in a few lines: what ran where, what was sent and saved, how good the promises were.

Pure: feed it every event, then ask for the lines at the end.

The time that the farm has saved is an estimate against this machine alone. There each set would take at least as long
as its longest command, and as the processor time of all its commands divided by this machine's cores; sets follow one
another. The commands' processor time is what they took where they ran: a host that is faster than this machine makes
the estimate too low, a slower one too high, and what waits rather than computes is not counted. An action that failed
counts for what it ran.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rakefarm.client.board import duration_text, safe_text, size_text
from rakefarm.codes import brief
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    Event,
    HostLeftOut,
    QuoteReceived,
    SetStarted,
)

LOCAL = "local"
MOST_THREADS = 1024
"""A command can't have had more processor time than this many times what it ran, whatever a server says."""


class Summary:
    """Counts, in constant time an event."""

    def __init__(self) -> None:
        self.remote = self.won_here = self.local = self.fell_back = 0
        self.retried = self.refused = self.copied = 0
        self.bytes_sent = self.bytes_received = self.bytes_saved = 0
        self.promises: list[tuple[float, float]] = []
        """Seconds that were promised, and that it took, of each success on the farm."""
        self._hosts_named = 0
        self._embedded = False
        self._cores = 0
        self._remote_actions: set[int] = set()  # that have not ended
        self._remote_queued = 0
        self._placed: dict[int, dict[str, ActionPlaced]] = {}  # by action and host
        self._alone_s = self._set_cpu_s = self._set_longest_s = 0.0
        self._trouble = self._losing = ""
        self._guessed = False
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            BuildStarted: self._build_started,
            SetStarted: self._set_started,
            ActionQueued: self._action_queued,
            QuoteReceived: self._quote_received,
            HostLeftOut: self._host_left_out,
            ActionPlaced: self._action_placed,
            ActionRetried: self._action_retried,
            ActionFinished: self._action_finished,
        }

    def apply(self, event: Event) -> None:
        """Take one event in."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- what it came to ------------------------------------------------------------------------------

    @property
    def nothing_ran_remotely(self) -> str:
        """That no action ran on the farm although hosts were named and there was something for them, and the first
        reason; or empty."""
        begun = self.remote or any(host != LOCAL for placed in self._placed.values() for host in placed)
        if self._embedded or not self._hosts_named or not self._remote_queued or begun:
            return ""
        hosts = "a host was" if self._hosts_named == 1 else f"{self._hosts_named} hosts were"
        unlucky = "this machine had the lowest price" if self.won_here else "the build ended before a host could begin"
        reason = self._trouble or unlucky
        return f"nothing ran remotely although {hosts} named: {reason}"

    @property
    def alone_s(self) -> float | None:
        """Seconds that this machine alone would have needed at least, or None when that can't be told."""
        if not self._cores or self._embedded:
            return None
        return self._alone_s + self._set_s()

    def lines(self, event: BuildFinished) -> Iterator[str]:
        """The lines below the first one, which says how the build ended."""
        places = (
            (self.won_here, "on this machine's own farm" if self._embedded else "won by this machine"),
            (self.fell_back, "fell back to this machine"),
            (self.local, "local"),
        )
        counts = [f"{self.remote} remote"] if self.remote or self._hosts_named else []
        counts += [f"{count} {text}" for count, text in places if count]
        troubles = (
            (self.retried, "retried"),
            (self.refused, "refused by a full host"),
            (self.copied, "copied to another host"),
        )
        some = [f"{count} {text}" for count, text in troubles if count]
        if self._remote_queued and (counts or some):
            yield ", ".join(counts) + ("; " if counts and some else "") + ", ".join(some)
        if self.remote or self.won_here:
            text = f"{size_text(self.bytes_sent)} sent, {size_text(self.bytes_received)} back"
            saved = f", {size_text(self.bytes_saved)} not sent since the hosts had it" if self.bytes_saved else ""
            yield text + saved
            yield from self._accuracy()
            yield from self._saved(event.elapsed_s)

    def _accuracy(self) -> Iterator[str]:
        if not self.promises:
            return
        if self._guessed:
            yield "times promised were guesses, since no earlier build tells of most of these commands"
            return
        from rakefarm.market.statistics import bias, median_error

        error, factor = median_error(self.promises), bias(self.promises)
        assert error is not None and factor is not None, "there are pairs"
        side = f"typically {factor:.2g} times what it took" if abs(factor - 1.0) >= 0.05 else "right on the whole"
        yield f"times promised were {error:.0%} off (median of {len(self.promises)}), {side}"

    def _saved(self, elapsed_s: float) -> Iterator[str]:
        alone_s = self.alone_s
        if alone_s is None:
            return
        saved_s = alone_s - elapsed_s
        cores = f"{self._cores} core{'s' * (self._cores > 1)}"
        reason = f"this machine alone would need {duration_text(alone_s)} or more: the commands' CPU time on {cores}"
        if saved_s > 0:
            yield f"about {duration_text(saved_s)} saved: {reason}"
        else:
            yield f"no time saved: {reason}"

    # --- events ---------------------------------------------------------------------------------------

    def _build_started(self, event: BuildStarted) -> None:
        self._hosts_named, self._embedded, self._cores = len({*event.hosts} - {LOCAL}), event.embedded, event.cores
        self._guessed = event.expected_s is None

    def _set_started(self, _: SetStarted) -> None:
        self._alone_s += self._set_s()
        self._set_cpu_s = self._set_longest_s = 0.0

    def _set_s(self) -> float:
        return max(self._set_longest_s, self._set_cpu_s / max(self._cores, 1))

    def _action_queued(self, event: ActionQueued) -> None:
        if event.remote:
            self._remote_queued += 1
            self._remote_actions.add(event.action)

    def _quote_received(self, event: QuoteReceived) -> None:
        if event.price is None:
            self._note_trouble(f"{event.host} declined: {event.reason}")

    def _host_left_out(self, event: HostLeftOut) -> None:
        if event.host == self._losing:  # that what it ran was lost there is the same trouble
            self._trouble, self._losing = "", ""
        self._note_trouble(f"{event.host} left out: {brief(event.reason)}")

    def _action_placed(self, event: ActionPlaced) -> None:
        placed = self._placed.setdefault(event.action, {})
        if event.backup:
            self.copied += 1
        elif _has_won(event) and any(each.attempt == event.attempt and _has_won(each) for each in placed.values()):
            self.refused += 1
            placed.clear()
        placed[event.host] = event

    def _action_retried(self, event: ActionRetried) -> None:
        self.retried += 1
        self._placed.get(event.action, {}).pop(event.host, None)
        if not self._trouble:
            self._losing = event.host
        self._note_trouble(f"{event.host}: {event.reason}")

    def _action_finished(self, event: ActionFinished) -> None:
        placed = self._placed.pop(event.action, {}).get(event.host)
        remote = event.action in self._remote_actions
        self._remote_actions.discard(event.action)
        if event.outcome == "not_run" or not event.host:
            self._note_trouble(event.detail)
            return
        cpu_s = min(max(event.cpu_s, 0.0), event.ran_s * MOST_THREADS)
        self._set_cpu_s += cpu_s
        # Of several threads the processor time is more than it can take; then it took as long as it ran.
        self._set_longest_s = max(self._set_longest_s, min(cpu_s, event.ran_s))
        if event.host == LOCAL and not (placed is not None and _has_won(placed)):
            self.fell_back += remote
            self.local += not remote
            return
        if event.host == LOCAL:
            self.won_here += 1
        else:
            self.remote += 1
        self.bytes_sent += event.bytes_sent
        self.bytes_received += event.bytes_received
        self.bytes_saved += event.bytes_saved
        if placed is not None and placed.seconds and event.outcome == "succeeded":
            took_s = event.time_s - placed.time_s
            if placed.seconds > 0 and took_s > 0:
                self.promises.append((placed.seconds, took_s))

    def _note_trouble(self, text: str) -> None:
        self._trouble = self._trouble or safe_text(text)


def _has_won(placed: ActionPlaced) -> bool:
    """Whether a host has won the action; this machine, too, may be one that does."""
    return placed.host != LOCAL or placed.price is not None
