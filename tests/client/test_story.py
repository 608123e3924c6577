"""The story of an action that ran at two hosts."""

import pytest

from rakefarm.client.story import DROPPED, LOST, Stories
from rakefarm.events import ActionFinished, ActionPlaced, ActionQueued, CopyEnded


def told(loser: str, reason: str, winner: str) -> Stories:
    stories = Stories()
    for event in (
        ActionQueued(action=1, set_name="a", line=2, command="cc -c x.c", remote=True),
        ActionPlaced(action=1, host="lab1", price=1.0, time_s=1.0),
        ActionPlaced(action=1, host="lab2", price=1.0, attempt=2, backup=True, time_s=5.0),
        CopyEnded(action=1, host=loser, reason=reason, time_s=6.0),
        ActionFinished(action=1, host=winner, outcome="succeeded", time_s=7.0),
    ):
        stories.apply(event)
    return stories


@pytest.mark.parametrize(("winner", "loser"), [("lab1", "lab2"), ("lab2", "lab1")])
@pytest.mark.parametrize(("reason", "end"), [("superseded", DROPPED), ("lost: reset", LOST)])
def test_each_copy_ends_as_it_did(winner: str, loser: str, reason: str, end: str) -> None:
    story = told(loser, reason, winner).actions[1]
    ends = {placement.host: (placement.end, placement.ended_s) for placement in story.placements}
    assert ends == {winner: ("succeeded", 7.0), loser: (end, 6.0)}
    assert story.won is not None and story.won.host == winner
