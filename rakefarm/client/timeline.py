"""A build as a picture: which action was where when, and which chain of them the build waited for. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from rakefarm.client.lanes import Lanes
from rakefarm.client.story import Placement, Stories, Story


class Bar(Struct, frozen=True):
    """A placement of an action, from when to when (monotonic seconds), in which lane of its host (from 0)."""

    story: Story
    placement: Placement
    lane: int
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end_s - self.begin_s

    def phases(self) -> list[tuple[str, float, float]]:
        """Each phase with its begin and end; what comes before the first is `preparing`."""
        marks = [(self.begin_s, "preparing"), *self.placement.phases, (self.end_s, "")]
        return [(name, begin_s, end_s) for (begin_s, name), (end_s, _) in pairwise(marks) if end_s > begin_s]


class Step(Struct, frozen=True):
    """A link of the chain that a set waited for: `waited_s` since the one before it ended, or the set began."""

    set_name: str
    bar: Bar
    waited_s: float


def bars_of(stories: Stories, now_s: float) -> list[Bar]:
    """Every placement in the order of its begin; one without an end lasts until `now_s`."""
    placed = [(placement, story) for story in stories.actions.values() for placement in story.placements]
    placed.sort(key=lambda pair: pair[0].award.time_s)
    lanes = Lanes()
    taken: list[Bar] = []
    bars: list[Bar] = []
    for placement, story in placed:
        begin_s = placement.award.time_s
        for bar in [bar for bar in taken if bar.end_s <= begin_s]:
            lanes.release(bar.placement.host, bar.lane)
            taken.remove(bar)
        end_s = max(begin_s, now_s if placement.ended_s is None else placement.ended_s)
        bar = Bar(story, placement, lanes.take(placement.host), begin_s, end_s)
        taken.append(bar)
        bars.append(bar)
    return bars


def critical_path(stories: Stories, bars: Sequence[Bar]) -> list[Step]:
    """The chain of actions that the build waited for, in the order of time.

    Sets follow one another. Of each it is the action that ended last, before that whatever this one waited for: the
    action that had its place, or its own earlier attempt; and so on, back to the beginning of the set.
    """
    begins = [each.time_s for each in stories.sets] or [min((bar.begin_s for bar in bars), default=0.0)]
    names = [each.set_name for each in stories.sets] or [""]
    steps: list[Step] = []
    for name, begin_s, next_s in zip(names, begins, [*begins[1:], float("inf")], strict=True):
        bar = max((bar for bar in bars if begin_s <= bar.begin_s < next_s), key=lambda each: each.end_s, default=None)
        chain: list[Step] = []
        before = _Before([bar for bar in bars if begin_s <= bar.begin_s < next_s])
        while bar is not None:
            earlier = before.of(bar)
            chain.append(Step(name, bar, bar.begin_s - (earlier.end_s if earlier else begin_s)))
            bar = earlier
        steps += reversed(chain)
    return steps


class _Before:
    """What an action may have waited for."""

    def __init__(self, bars: Sequence[Bar]) -> None:
        self._places: dict[tuple[str, int], list[Bar]] = {}
        self._actions: dict[int, list[Bar]] = {}
        for bar in bars:
            self._places.setdefault((bar.placement.host, bar.lane), []).append(bar)
            self._actions.setdefault(bar.story.action, []).append(bar)

    def of(self, bar: Bar) -> Bar | None:
        """The last of those that ended before the bar began and began before it did."""
        others = self._places[bar.placement.host, bar.lane] + self._actions[bar.story.action]
        ended = [other for other in others if other.end_s <= bar.begin_s and other.begin_s < bar.begin_s]
        return max(ended, key=lambda each: each.end_s, default=None)
