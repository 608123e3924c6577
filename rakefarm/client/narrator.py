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
    is_loss,
    price_text,
    safe_text,
    size_text,
)
from rakefarm.client.summary import LOCAL, Summary
from rakefarm.codes import brief
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
THIS_MACHINE = "this machine"
COLOUR_CODES = {"bold": "\x1b[1m", "red": "\x1b[1;31m", "yellow": "\x1b[33m", "green": "\x1b[32m"}
NARROWEST = 30
"""Columns below which breaking lines helps nobody."""
TIED = "\N{NO-BREAK SPACE}"
"""Stands for a blank where no line may be broken. No text that is safe to display holds one."""


class Line(Struct, frozen=True):
    """One line for the user: a label that may be coloured, and the rest. All of it is safe to display. One that `wraps`
    is broken between words where the terminal is too narrow; the others hold commands, which are to be copied."""

    text: str
    label: str = ""
    colour: str = ""
    prefix: str = ""
    wraps: bool = False

    def painted(self, colour: bool, columns: int = 0) -> str:
        """The line with its end, coloured or not, for a terminal of so many columns; 0: for none."""
        text = f"{self.prefix}{self.label}{' ' if self.label and self.text else ''}{self.text}"
        lines = _broken(text, columns) if self.wraps and NARROWEST <= columns < len(text) + 1 else [text]
        if colour and self.label and self.colour:
            code, at = COLOUR_CODES[self.colour], len(self.prefix)
            if self.text:
                end = at + len(self.label)
                lines[0] = f"{lines[0][:at]}{code}{lines[0][at:end]}\x1b[0m{lines[0][end:]}"
            else:
                lines = [f"{line[: at * (not n)]}{code}{line[at * (not n) :]}\x1b[0m" for n, line in enumerate(lines)]
        return "\n".join(lines).replace(TIED, " ") + "\n"


def _broken(text: str, columns: int) -> list[str]:
    """The text in lines of so many columns, broken between words. The terminal's last column stays free."""
    import textwrap  # who builds without a terminal need not wait for it

    indent = " " * (len(text) - len(text.lstrip(" ")) + 4)
    return textwrap.wrap(
        text,
        columns - 1,
        subsequent_indent=indent,
        expand_tabs=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Narrator:
    """Events in words. `verbose` 1 adds a line per host, action placed and copy, 2 one per quote; `quiet`
    leaves only warnings, errors and failures. A host that loses actions is told of once.
    """

    def __init__(self, verbose: int = 0, quiet: bool = False) -> None:
        self._verbose = 0 if quiet else verbose
        self._quiet = quiet
        self._not_run: Counter[str] = Counter()  # by reason
        self._first_not_run: dict[str, str] = {}  # what it was that was not run, by reason
        self._losing: set[str] = set()  # hosts whose being left out is told of already
        self._warned: set[str] = set()  # hosts that were told of in any way
        # Most events of a build are those that nothing is said of, and they must cost next to nothing.
        self._told: set[type[Event]] = {ActionFinished, ActionRetried, CopyEnded, HostLeftOut, Notice, BuildFinished}
        self._told |= {HostReady, ActionPlaced} if self._verbose >= 1 else set()
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
                    yield Line(self._not_run_text(event, row), "not run:", "red")
            case ActionFinished(outcome="succeeded"):
                if self._verbose:
                    yield Line(self._ending(event, row), "ended:", "green")
            case BuildFinished():
                for reason, count in self._not_run.items():
                    if count > NOT_RUN_LINES:
                        first = self._first_not_run[reason]
                        yield Line(f"{count - NOT_RUN_LINES} more, as {first}", "not run:", "red")
            case HostReady():
                lacking = f", without {safe_text(', '.join(event.missing))}" if event.missing else ""
                isolation = f"isolation {safe_text(event.isolation)}{lacking}"
                yield Line(f"{safe_text(event.host)}: {counted(event.slots, 'slot')}, {isolation}")
            case HostLeftOut():
                text = f"{safe_text(event.host)} left out: {safe_text(event.reason)}"
                if event.host not in self._losing:
                    yield Line(text, "warning:", "yellow", "rakefarm: ", wraps=True)
                self._losing.discard(event.host)
                self._warned.add(event.host)
            case Notice(level="info"):
                if not self._quiet:
                    yield Line(f"rakefarm: {safe_text(event.text)}", wraps=True)
            case Notice():
                colour = "red" if event.level == "error" else "yellow"
                yield Line(safe_text(event.text), f"{safe_text(event.level)}:", colour, "rakefarm: ", wraps=True)
            case ActionPlaced():
                again = f", attempt {event.attempt}" if event.attempt > 1 and not event.backup else ""
                copy = "a copy " if event.backup else ""
                yield Line(f"{self._who(event.action, row)}: {copy}on {_terms_of(event)}{again}")
            case CopyEnded():
                yield from self._taken_away("copy:", event, row)
            case ActionRetried():
                yield from self._taken_away("again:", event, row)
            case QuoteReceived():
                answer = f"declined: {safe_text(event.reason)}"
                if event.price is not None:
                    answer = f"asks {price_text(event.price)}"
                yield Line(f"{self._who(event.action, row)}: {safe_text(event.host)} {answer}")

    def _taken_away(self, label: str, event: ActionRetried | CopyEnded, row: ActionRow | None) -> Iterator[Line]:
        """Of each action for who wants to know; else of a host that loses some, once."""
        reason = f"{safe_text(event.host)}: {safe_text(event.reason)}"
        if self._verbose:
            yield Line(f"{self._who(event.action, row)}: {reason}", label, "yellow")
        elif is_loss(event.reason) and event.host not in self._warned:
            self._losing.add(event.host)
            self._warned.add(event.host)
            yield Line(f"{reason}; what it has lost is run again", "warning:", "yellow", "rakefarm: ", wraps=True)

    def _not_run_text(self, event: ActionFinished, row: ActionRow | None) -> str:
        """With its reason the first time; a reason that keeps many from being run may be long."""
        who = f"line {row.line}" if row is not None and row.command else f"action {event.action}"
        first = self._first_not_run.setdefault(event.detail, who)
        if self._not_run[event.detail] == 1:
            return self._ending(event, row)
        return f"{self._who(event.action, row)}: as {first}"

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
        text += f" at {price_text(event.price)}{slowness_text(event.slowness)}"
    if event.seconds is not None:
        text += f", {duration_text(event.seconds)} promised"
    if event.runner_up:
        text += f", before {safe_text(event.runner_up)} at {price_text(event.runner_up_price)}"
        text += slowness_text(event.runner_up_slowness)
    return text


def slowness_text(slowness: float) -> str:
    """What of a price the host has not asked for; nothing where it is too little to be seen."""
    return f" ({price_text(slowness)} of it for having been slower than it says)" if slowness >= 0.005 else ""


def progress_line(totals: Totals) -> Line:
    """How far a build is: for a log, or for who waits at it."""
    parts = [f"{totals.done} of {counted(totals.actions, 'action')}", f"set {totals.set_number} of {totals.sets}"]
    parts += [f"{count} {word}" for count, word in ((totals.running, "running"), (totals.waiting, "waiting")) if count]
    parts += [f"{count} failed" for count in (totals.failed + totals.not_run,) if count]
    return Line(f"rakefarm: {', '.join(parts)}, after {duration_text(totals.elapsed_s)}", wraps=True)


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
        yield Line(text, "interrupted:", "red", "rakefarm: ", wraps=True)
    else:
        yield Line(f"rakefarm: {text}", wraps=True)
    for line in summary.lines(event):
        yield Line(f"  {line}", wraps=True)
    hosts = [host for host in snapshot.hosts if host.done or host.lost or host.state == "left out"]
    names = [THIS_MACHINE if host.host == LOCAL else safe_text(host.host) for host in hosts]
    name_width = min(40, max(map(len, names), default=0))
    for name, host in zip(names, hosts, strict=True):
        yield Line(f"  {f'{name:<{name_width}}'.replace(' ', TIED)}  {host_text(host)}", wraps=True)


def warning_lines(summary: Summary) -> Iterator[Line]:
    """What nobody should miss of a build that has ended."""
    if nothing := summary.nothing_ran_remotely:
        yield Line("", nothing, "bold", "rakefarm: ", wraps=True)


def host_text(host: HostRow) -> str:
    """What a host did, in columns; no line is broken within one. Why it was left out has been told in full."""
    columns = []
    if host.done:
        columns += [f"{counted(host.done, 'action'):>13}", f"{duration_text(host.busy_s):>7} busy"]
    if host.done and (host.bytes_sent or host.bytes_received):
        columns += [f"{size_text(host.bytes_sent):>9} sent", f"{size_text(host.bytes_received):>9} back"]
    columns = [column.replace(" ", TIED) for column in columns]
    if host.lost:
        columns.append(f"lost{TIED}{counted(host.lost, 'action').replace(' ', TIED)}")
    if host.state == "left out":
        columns.append(f"left out: {safe_text(brief(host.reason))}")
    return "  ".join(columns)
