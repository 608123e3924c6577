"""What happened to each action of a build: who bid, who won, what came of it. Pure: events in, data out.

    ActionQueued ─► QuoteReceived … ─► ActionPlaced ─► ActionPhase … ─► ActionFinished
                        ▲                   │ placed again (it was full), ActionRetried (lost), CopyEnded
                        └───────────────────┘

The events may be those of the ledger, which has no phases. Copies of an action may be placed on several hosts at once:
a placement is told from another by its host.
"""

from typing import Any

from msgspec import Struct, field

from rakefarm.events import (
    ActionFinished,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    Event,
    HostLeftOut,
    HostReady,
    QuoteReceived,
    SetStarted,
)

SUPERSEDED = "superseded"
"""The reason of a copy's end when another one was first."""
REFUSED, LOST, DROPPED = "refused", "lost", "dropped"
"""Ends of a placement that are not the action's: the host was full, lost it, or another host was first."""


class Placement(Struct):
    """One award of an action. Times are the build's monotonic seconds; `end` is the action's outcome, one of the ends
    above, or empty while there is none; `phases` are when each began, and its name."""

    award: ActionPlaced
    phases: list[tuple[float, str]] = field(default_factory=list)
    ended_s: float | None = None
    end: str = ""
    reason: str = ""

    @property
    def host(self) -> str:
        """Where."""
        return self.award.host

    @property
    def seconds(self) -> float | None:
        """From the award to its end."""
        return None if self.ended_s is None else self.ended_s - self.award.time_s

    @property
    def margin(self) -> float | None:
        """What the next best host's price was above the winner's."""
        if self.award.price is None or self.award.runner_up_price is None:
            return None
        return self.award.runner_up_price - self.award.price


class Story(Struct):
    """One action."""

    action: int
    set_name: str = ""
    line: int = 0
    command: str = ""
    remote: bool = False
    expected_s: float | None = None
    queued_s: float | None = None
    quotes: list[QuoteReceived] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    finished: ActionFinished | None = None

    @property
    def won(self) -> Placement | None:
        """The placement that ended it."""
        return next((each for each in reversed(self.placements) if each.end and each.end == self.outcome), None)

    @property
    def outcome(self) -> str:
        """As its ActionFinished has it, or empty."""
        return self.finished.outcome if self.finished else ""

    @property
    def quoted_as(self) -> int:
        """The action that hosts were asked for to decide about this one; 0: none is known."""
        if self.quotes:
            return self.action
        return next((each.award.quoted_as for each in reversed(self.placements) if each.award.quoted_as), 0)


class Stories:
    """Feed it every event of one build, in order."""

    def __init__(self) -> None:
        self.started: BuildStarted | None = None
        self.finished: BuildFinished | None = None
        self.sets: list[SetStarted] = []
        self.ready: dict[str, HostReady] = {}
        self.left_out: list[HostLeftOut] = []
        self.actions: dict[int, Story] = {}

    def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case BuildStarted():
                self.started = event
            case BuildFinished():
                self.finished = event
            case SetStarted():
                self.sets.append(event)
            case HostReady():
                self.ready[event.host] = event
            case HostLeftOut():
                self.left_out.append(event)
            case ActionQueued():
                story = self._story(event)
                story.set_name, story.line, story.command = event.set_name, event.line, event.command
                story.remote, story.queued_s, story.expected_s = event.remote, event.time_s, event.expected_s
            case QuoteReceived():
                self._story(event).quotes.append(event)
            case ActionPlaced():
                self._place(self._story(event), event)
            case ActionPhase():
                self._enter(self._story(event), event)
            case ActionRetried() | CopyEnded():
                self._lose(self._story(event), event)
            case ActionFinished():
                self._finish(self._story(event), event)

    def _story(self, event: Any) -> Story:
        story = self.actions.get(event.action)
        if story is None:
            story = self.actions[event.action] = Story(event.action)
        return story

    @staticmethod
    def _place(story: Story, event: ActionPlaced) -> None:
        for earlier in _open(story) if not event.backup else ():
            # Placed again with the same attempt, or where it was: its host was full and refused it.
            if earlier.award.attempt == event.attempt or earlier.host == event.host:
                _close(earlier, event, REFUSED, "the host was full")
        story.placements.append(Placement(event))

    @staticmethod
    def _lose(story: Story, event: ActionRetried | CopyEnded) -> None:
        end = DROPPED if isinstance(event, CopyEnded) and event.reason == SUPERSEDED else LOST
        for placement in _open(story):
            if placement.host == event.host:
                _close(placement, event, end, event.reason)

    @staticmethod
    def _enter(story: Story, event: ActionPhase) -> None:
        for placement in _open(story):
            if placement.host == event.host and (not placement.phases or placement.phases[-1][1] != event.phase):
                placement.phases.append((event.time_s, event.phase))

    @staticmethod
    def _finish(story: Story, event: ActionFinished) -> None:
        story.finished = event
        for placement in _open(story):
            if placement.host == event.host:
                _close(placement, event, event.outcome, event.detail)
            elif event.host:
                _close(placement, event, DROPPED, f"{event.host} was first")
            else:
                _close(placement, event, LOST, event.detail)


def _open(story: Story) -> list[Placement]:
    return [placement for placement in story.placements if not placement.end]


def _close(placement: Placement, event: Event, end: str, reason: str) -> None:
    placement.ended_s, placement.end, placement.reason = event.time_s, end, reason
