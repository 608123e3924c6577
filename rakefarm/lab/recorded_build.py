"""A build as its ledger tells it: its sets in order, what ran where and when, and how the hosts stood meanwhile. Pure.

The ledger has no line where a set begins. An action that is queued when everything queued before has ended begins one.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from rakefarm.client.story import DROPPED, LOST, REFUSED, Stories, Story
from rakefarm.events import BuildStarted, Event, HostLeftOut, HostLoad, rfc3339

EARLIER_RUN = "of an earlier run"
"""How the detail of an action ends that a host has answered with a result that it had kept."""

LONGEST_S = 1e6
"""What takes longer can't be simulated, and is no action."""
MOST = 4096
"""Slots and cores of a host."""


class NotTold(Exception):
    """The ledger does not have what a replay needs; the text says what, in one line."""


class RecordedAction(Struct, frozen=True):
    """A remote action that ran: times are seconds since the first set with such began; `expected_s` what it was
    expected to take on a core of speed 1 (None: not told)."""

    number: int
    command: str
    host: str
    expected_s: float | None
    awarded_s: float
    ended_s: float
    ran_s: float
    sent_bytes: int

    @property
    def elapsed_s(self) -> float:
        """From its award to its end."""
        return self.ended_s - self.awarded_s


class RecordedSet(Struct, frozen=True):
    """A set with remote actions: when it began, when the last of what ran here had ended, and when all had."""

    began_s: float
    local_end_s: float
    ended_s: float
    actions: tuple[RecordedAction, ...]


class Sample(Struct, frozen=True):
    """How a host said that it stood: see `HostLoad`."""

    at_s: float
    cores: int
    busy: float
    running: int
    speed: float


class RecordedHost(Struct, frozen=True):
    """A host that could be asked; `lost_s` is when it was left out for the rest of the build (None: never)."""

    name: str
    slots: int
    samples: tuple[Sample, ...]
    lost_s: float | None


class RecordedBuild(Struct, frozen=True):
    """The farm's part of a build. `wasted` counts awards that came to nothing, `local` actions that ran here."""

    run_id: str
    at: str
    policy: str
    software: str
    hosts: tuple[RecordedHost, ...]
    sets: tuple[RecordedSet, ...]
    copies: int
    wasted: int
    local: int

    @property
    def actions(self) -> tuple[RecordedAction, ...]:
        """Of all sets, in their order."""
        return tuple(action for each in self.sets for action in each.actions)

    @property
    def makespan_s(self) -> float:
        """From when the first set with remote actions began to when the last one had ended."""
        return self.sets[-1].ended_s


def recorded_build(events: Sequence[Event]) -> RecordedBuild:
    """The build of these events, which are all of one run. Raises NotTold."""
    stories = Stories()
    for event in events:
        stories.apply(event)
    started, finished = stories.started, stories.finished
    if started is None:
        raise NotTold("its beginning is not in the ledger")
    if finished is None or finished.interrupted:
        raise NotTold("it was interrupted, or still runs: its end is not in the ledger")
    told = [story for story in stories.actions.values() if story.queued_s is not None and story.finished is not None]
    if any(story.finished and story.finished.detail.endswith(EARLIER_RUN) for story in told):
        raise NotTold("hosts answered with results of earlier runs, which tell no times: record a build with --fresh")
    groups = [group for group in _sets(told) if any(_ran_there(story) for story in group)]
    if not groups:
        raise NotTold("no action of it ran on the farm")
    begin_s = min(story.queued_s or 0.0 for story in groups[0])
    sets = tuple([_set(group, begin_s) for group in groups])
    placements = [placement for story in told for placement in story.placements]
    return RecordedBuild(
        run_id=started.run_id,
        at=rfc3339(started.at_ns),
        policy=started.policy,
        software=started.software,
        hosts=_hosts(events, started, stories, {action.host for each in sets for action in each.actions}, begin_s),
        sets=sets,
        copies=sum(placement.award.backup for placement in placements),
        wasted=sum(placement.end in (DROPPED, LOST, REFUSED) for placement in placements),
        local=sum(not _ran_there(story) for story in told),
    )


def _ran_there(story: Story) -> bool:
    """Whether it ran, and on the farm."""
    won = story.won
    return story.remote and won is not None and won.award.price is not None and story.outcome in ("succeeded", "failed")


def _sets(stories: Iterable[Story]) -> list[list[Story]]:
    groups: list[list[Story]] = []
    over_s = -1.0
    for story in sorted(stories, key=lambda story: story.action):
        assert story.queued_s is not None and story.finished is not None
        if not groups or story.queued_s >= over_s:
            groups.append([])
        groups[-1].append(story)
        over_s = max(over_s, story.finished.time_s)
    return groups


def _set(stories: Sequence[Story], begin_s: float) -> RecordedSet:
    began_s = min(story.queued_s or 0.0 for story in stories)
    ends = [(_ran_there(story), story.finished.time_s) for story in stories if story.finished]
    actions = tuple([_action(story, begin_s) for story in stories if _ran_there(story)])
    local_end_s = max([end_s for there, end_s in ends if not there], default=began_s)
    ended_s = max(local_end_s - begin_s, *(action.ended_s for action in actions))
    return RecordedSet(began_s - begin_s, local_end_s - begin_s, ended_s, actions)


def _action(story: Story, begin_s: float) -> RecordedAction:
    won, finished = story.won, story.finished
    assert won is not None and finished is not None
    elapsed_s = finished.time_s - won.award.time_s
    if not 0.0 < elapsed_s <= LONGEST_S or won.award.time_s < begin_s:
        raise NotTold(f"action {story.action} takes {elapsed_s:.3g} s in it, which is none of a build")
    return RecordedAction(
        number=story.action,
        command=story.command,
        host=won.host,
        expected_s=_expected_s(story),
        awarded_s=won.award.time_s - begin_s,
        ended_s=finished.time_s - begin_s,
        ran_s=min(max(finished.ran_s, 0.0), elapsed_s),
        sent_bytes=finished.bytes_sent,
    )


def _expected_s(story: Story) -> float | None:
    return story.expected_s if story.expected_s and story.expected_s > 0.0 else None


def _hosts(
    events: Iterable[Event], started: BuildStarted, stories: Stories, used: set[str], begin_s: float
) -> tuple[RecordedHost, ...]:
    samples: dict[str, list[Sample]] = {}
    lost: dict[str, float] = {}
    for event in events:
        if isinstance(event, HostLoad) and event.cores > 0 and event.speed > 0.0:
            sample = Sample(event.time_s - begin_s, event.cores, event.busy, event.running, event.speed)
            samples.setdefault(event.host, []).append(sample)
            lost.pop(event.host, None)  # it is back
        elif isinstance(event, HostLeftOut):
            lost[event.host] = event.time_s - begin_s
    silent = sorted(used - samples.keys())
    if silent:
        raise NotTold(
            f"it does not tell how {silent[0]} stood (host_load): it is of an earlier release or was cut, or"
            " that is an engine"
        )
    unready = sorted(used - stories.ready.keys())
    if unready:
        raise NotTold(f"it does not tell how many slots {unready[0]} has (host_ready)")
    for name in used:
        slots, cores = stories.ready[name].slots, max(sample.cores for sample in samples[name])
        if not 0 < slots <= MOST or cores > MOST:
            raise NotTold(f"{name} has {slots} slots and {cores} cores in it, which no host has")
    names = [name for name in dict.fromkeys([*started.hosts, *stories.ready]) if name in samples]
    return tuple(
        [
            RecordedHost(name, stories.ready[name].slots, tuple(samples[name]), lost.get(name))
            for name in names
            if name in stories.ready
            and 0 < stories.ready[name].slots <= MOST
            and max(sample.cores for sample in samples[name]) <= MOST
            and (name in used or lost.get(name, 1.0) > 0.0)
        ]
    )
