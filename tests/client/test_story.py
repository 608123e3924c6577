"""What happened to an action that ran twice: who was first, and what became of the other."""

import json
from pathlib import Path

from story_vocabulary import LAB1, LAB2

from rakefarm.client.story import DROPPED, LOST, Stories
from rakefarm.client.trace import Trace
from rakefarm.events import ActionFinished, ActionPlaced, ActionQueued, BuildStarted, CopyEnded, Event


def twice(*ending: Event) -> list[Event]:
    """An action that was overdue at the first host, and begun at the second one, too."""
    return [
        BuildStarted(rakefile="R", actions=1, sets=1, hosts=(LAB1, LAB2)),
        ActionQueued(action=1, set_name="s", line=1, command="cc", remote=True),
        ActionPlaced(action=1, host=LAB1, price=1.0, time_s=1.0),
        ActionPlaced(action=1, host=LAB2, price=1.0, time_s=3.0, backup=True),
        *ending,
    ]


def ends_of(events: list[Event]) -> list[tuple[str, str, float | None]]:
    stories = Stories()
    for event in events:
        stories.apply(event)
    return [(each.host, each.end, each.ended_s) for each in stories.actions[1].placements]


SUPERSEDED = CopyEnded(action=1, host=LAB1, reason="superseded", time_s=4.0)
DONE = ActionFinished(action=1, host=LAB2, outcome="succeeded", time_s=4.5)


def test_the_first_is_dropped_when_the_copy_was_faster() -> None:
    assert ends_of(twice(SUPERSEDED, DONE)) == [(LAB1, DROPPED, 4.0), (LAB2, "succeeded", 4.5)]
    assert ends_of(twice(DONE, SUPERSEDED)) == [(LAB1, DROPPED, 4.5), (LAB2, "succeeded", 4.5)]


def test_a_copy_that_is_lost_leaves_the_other() -> None:
    lost = CopyEnded(action=1, host=LAB1, reason="lost: reset", time_s=4.0)
    assert ends_of(twice(lost, DONE)) == [(LAB1, LOST, 4.0), (LAB2, "succeeded", 4.5)]


def test_both_are_in_the_trace(tmp_path: Path) -> None:
    for ending in ((SUPERSEDED, DONE), (DONE, SUPERSEDED), (SUPERSEDED,), (DONE,), ()):
        trace = Trace(str(tmp_path / "trace.json"))
        for event in twice(*ending):
            trace(event)
        trace.close()
        read = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        begun = sorted(each["ts"] for each in read if each["ph"] == "X" and each["cat"] == "action")
        assert begun == [1_000_000, 3_000_000]
