"""The beginning of a policy: a plug-in that works, and tests that hold it to what any policy promises."""

import keyword
import os

POLICY = '''"""The award policy {name}: which host's answer wins. Time and chance come from the view alone."""

from rakefarm.market.each import EachPolicy


def choose(view, bids):
    """The index of the answer that wins. Each has price, seconds, host, and the host's curve."""
    return min(range(len(bids)), key=lambda index: bids[index].seconds)


def make(view):
    """What `--policy {name}.py:make` calls for each build."""
    return EachPolicy(view, choose, burst=False)
'''
TESTS = '''"""What any policy promises, held against {name} in simulated builds: python -m pytest {file}"""

import os

import pytest
from msgspec import structs

from rakefarm.client.policies import find_policy
from rakefarm.lab.draw import draw
from rakefarm.lab.scenario import STANDARD
from rakefarm.lab.world import simulate
from rakefarm.market.bids import BIDS, DEFAULT

NAME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "{name}.py") + ":make"


@pytest.mark.parametrize("scenario", ["light", "dead", "slow", "liar"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_action_is_done_once_and_nothing_is_lost(scenario, seed):
    small = structs.replace(STANDARD[scenario].workload, actions=10)
    drawn = draw(structs.replace(STANDARD[scenario], workload=small), seed)
    outcome = simulate(drawn, NAME, find_policy(NAME), BIDS[DEFAULT])
    done = [(each.client, each.action) for each in outcome.attempts if each.outcome == "succeeded"]
    assert outcome.lost == 0
    assert len(done) == len(set(done)) == sum(len(actions) for each in drawn.clients for actions in each.sets)


def test_the_same_seed_gives_the_same_build():
    drawn = [draw(STANDARD["light"], 1) for _ in range(2)]
    first, second = (simulate(each, NAME, find_policy(NAME), BIDS[DEFAULT]) for each in drawn)
    assert first.ended_s == second.ended_s
'''


def write_kit(name: str) -> tuple[str, str]:
    """Write both files here; answers their names. Raises ValueError for what is no name, or is there, and OSError."""
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise ValueError(f"{name!r:.60}: not a Python name of ASCII letters, digits and _")
    paths = f"{name}.py", f"test_{name}.py"
    for path in paths:
        if os.path.lexists(path):
            raise ValueError(f"{path}: is there already; take another name")
    for path, text in zip(paths, (POLICY, TESTS), strict=True):
        with open(path, "x", encoding="utf-8") as file:
            file.write(text.format(name=name, file=paths[1]))
    return paths
