"""What is said of a build in words, whatever shows it: a line for what matters, and a summary."""

from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from rakefarm.client.board import (
    ActionRow,
    Board,
    HostRow,
    Totals,
    duration_text,
    price_text,
    safe_text,
    size_text,
)
from rakefarm.client.summary import Summary
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionRetried,
    BuildFinished,
    CopyEnded,
    Event,
    HostLeftOut,
    HostReady,
    Notice,
    QuoteReceived,
)

NOT_RUN_LINES = 3
"""Actions that are named when one reason (the whole farm is gone, say) keeps many from being run."""
COLOUR_CODES = {"bold": "\x1b[1m", "red": "\x1b[1;31m", "yellow": "\x1b[33m", "green": "\x1b[32m"}
LOST = "lost: "
"""What the reason of an action that a host has lost begins with."""


class Line(Struct, frozen=True):
    """One line for the user: a label that may be coloured, and the rest. All of it is safe to display."""

    text: str
    label: str = ""
    colour: str = ""
    prefix: str = ""

    def painted(self, colour: bool) -> str:
        """The line with its end, coloured or not."""
        label = self.label
        if colour and label and self.colour:
            label = f"{COLOUR_CODES[self.colour]}{label}\x1b[0m"
        return f"{self.prefix}{label}{' ' if label and self.text else ''}{self.text}\n"


class Narrator:
    """Events in words. `verbose` 1 adds a line per host, action placed and copy, 2 one per quote; `quiet`
    leaves only warnings, errors and failures. A host that loses actions is told of once.
    """

    def __init__(self, verbose: int = 0, quiet: bool = False) -> None:
        self._verbose = 0 if quiet else verbose
        self._quiet = quiet
        self._not_run: Counter[str] = Counter()  # by reason
        self._losing: set[str] = set()  # hosts whose being left out is told of already
        self._warned: set[str] = set()  # hosts that were told of in any way
        # Most events of a build are those that nothing is said of, and they must cost next to nothing.
        self._told: set[type[Event]] = {ActionFinished, ActionRetried, HostLeftOut, Notice, BuildFinished}
        self._told |= {HostReady, ActionPlaced, CopyEnded} if self._verbose >= 1 else set()
        self._told |= {QuoteReceived} if self._verbose >= 2 else set()

    def tells_of(self, event: Event) -> bool:
        """Whether there may be anything to say about the event."""
        if type(event) is ActionFinished and event.outcome == "succeeded":
            return self._verbose > 0
        return type(event) in self._told

    def lines(self, event: Event, row: ActionRow | None) -> Iterable[Line]:
        """What to say about the event; `row` is what the board's `apply` returned for it."""
        return self._lines(event, row) if type(event) in self._told else ()

    def _lines(self, event: Event, row: ActionRow | None) -> Iterator[Line]:
        match event:
            case ActionFinished(outcome="failed"):
                yield Line(self._ending(event, row), "failed:", "red")
            case ActionFinished(outcome="not_run"):
                self._not_run[event.detail] += 1
                if self._not_run[event.detail] <= NOT_RUN_LINES:
                    yield Line(self._ending(event, row), "not run:", "red")
            case ActionFinished(outcome="succeeded"):
                if self._verbose:
                    yield Line(self._ending(event, row), "ended:", "green")
            case BuildFinished():
                for reason, count in self._not_run.items():
                    if count > NOT_RUN_LINES:
                        yield Line(
                            f"{count - NOT_RUN_LINES} more for the same reason: {safe_text(reason)}", "not run:", "red"
                        )
            case HostReady():
                lacking = f", without {safe_text(', '.join(event.missing))}" if event.missing else ""
                isolation = f"isolation {safe_text(event.isolation)}{lacking}"
                yield Line(f"{safe_text(event.host)}: {counted(event.slots, 'slot')}, {isolation}")
            case HostLeftOut():
                text = f"{safe_text(event.host)} left out: {safe_text(event.reason)}"
                if event.host not in self._losing:
                    yield Line(text, "warning:", "yellow", "rakefarm: ")
                self._losing.discard(event.host)
                self._warned.add(event.host)
            case Notice(level="info"):
                if not self._quiet:
                    yield Line(f"rakefarm: {safe_text(event.text)}")
            case Notice():
                colour = "red" if event.level == "error" else "yellow"
                yield Line(safe_text(event.text), f"{safe_text(event.level)}:", colour, "rakefarm: ")
            case ActionPlaced():
                again = f", attempt {event.attempt}" if event.attempt > 1 and not event.backup else ""
                copy = "a copy " if event.backup else ""
                yield Line(f"{self._who(event.action, row)}: {copy}on {_terms_of(event)}{again}")
            case CopyEnded():
                reason = f"{safe_text(event.host)}: {safe_text(event.reason)}"
                yield Line(f"{self._who(event.action, row)}: {reason}", "copy:", "yellow")
            case ActionRetried():
                reason = f"{safe_text(event.host)}: {safe_text(event.reason)}"
                if self._verbose:
                    yield Line(f"{self._who(event.action, row)}: {reason}", "again:", "yellow")
                elif event.reason.startswith(LOST) and event.host not in self._warned:
                    self._losing.add(event.host)
                    self._warned.add(event.host)
                    text = f"{reason}; what it has lost is run again"
                    yield Line(text, "warning:", "yellow", "rakefarm: ")
            case QuoteReceived():
                answer = f"declined: {safe_text(event.reason)}"
                if event.price is not None:
                    answer = f"asks {price_text(event.price)}"
                yield Line(f"{self._who(event.action, row)}: {safe_text(event.host)} {answer}")

    @staticmethod
    def _who(action: int, row: ActionRow | None) -> str:
        # An action that was never queued (its required file is missing, say) has no command to show.
        if row is None or not row.command:
            return f"action {action}"
        return f"set '{safe_text(row.set_name)}', line {row.line}: {safe_text(row.command)}"

    def _ending(self, event: ActionFinished, row: ActionRow | None) -> str:
        where = after = ""
        if event.outcome != "not_run" and event.host:
            where = " (local)" if event.host == "local" else f" on {safe_text(event.host)}"
        if self._verbose and where:
            after = f" after {duration_text(event.elapsed_s)}"
        code = f" [{safe_text(event.error)[:8]}]" if event.error else ""
        return f"{self._who(event.action, row)}: {safe_text(event.detail) or event.outcome}{where}{after}{code}"


def _terms_of(event: ActionPlaced) -> str:
    """Where an action was placed, at what price, what that promises, and who would have been next."""
    text = safe_text(event.host)
    if event.price is not None:
        text += f" at {price_text(event.price)}"
    if event.seconds is not None:
        text += f", {duration_text(event.seconds)} promised"
    if event.runner_up:
        text += f", before {safe_text(event.runner_up)} at {price_text(event.runner_up_price)}"
    return text


def progress_line(totals: Totals) -> Line:
    """How far a build is: for a log, or for who waits at it."""
    parts = [f"{totals.done} of {counted(totals.actions, 'action')}", f"set {totals.set_number} of {totals.sets}"]
    parts += [f"{count} {word}" for count, word in ((totals.running, "running"), (totals.waiting, "waiting")) if count]
    parts += [f"{count} failed" for count in (totals.failed + totals.not_run,) if count]
    return Line(f"rakefarm: {', '.join(parts)}, after {duration_text(totals.elapsed_s)}")


def counted(count: int, noun: str) -> str:
    """ "1 action", "2 actions"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summary_lines(board: Board, summary: Summary, event: BuildFinished) -> Iterator[Line]:
    """How it all ended: a line for the build, what it came to, and a line for each host that ran something or was left
    out."""
    snapshot = board.snapshot(event.time_s, 0)
    parts = [counted(snapshot.totals.done, "action")]
    for count, word in (
        (snapshot.totals.failed, "failed"),
        (snapshot.totals.not_run, "not run"),
        (event.stopped, "stopped"),
        (event.not_started, "not started"),
    ):
        if count:
            parts.append(f"{count} {word}")
    text = f"{', '.join(parts)} in {duration_text(event.elapsed_s)}"
    if event.interrupted:
        yield Line(text, "interrupted:", "red", "rakefarm: ")
    else:
        yield Line(f"rakefarm: {text}")
    for line in summary.lines(event):
        yield Line(f"  {line}")
    hosts = [host for host in snapshot.hosts if host.done or host.state == "left out"]
    name_width = min(40, max((len(safe_text(host.host)) for host in hosts), default=0))
    for host in hosts:
        yield Line(f"  {safe_text(host.host):<{name_width}}  {host_text(host)}")


def warning_lines(summary: Summary) -> Iterator[Line]:
    """What nobody should miss of a build that has ended."""
    if nothing := summary.nothing_ran_remotely:
        yield Line("", nothing, "bold", "rakefarm: ")


def host_text(host: HostRow) -> str:
    """What a host did, in columns."""
    left_out = f"left out: {safe_text(host.reason)}" if host.state == "left out" else ""
    if not host.done:
        return left_out
    text = f"{counted(host.done, 'action'):>13}  {duration_text(host.busy_s):>7} busy"
    if host.bytes_sent or host.bytes_received:
        text += f"  {size_text(host.bytes_sent):>9} sent  {size_text(host.bytes_received):>9} back"
    return f"{text}  {left_out}".rstrip()
