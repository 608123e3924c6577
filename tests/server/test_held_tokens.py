"""Tokens of workers: each comes back once, also from a worker that is dead."""

import os

import pytest

from rakefarm.jobserver import Tokens, own_token
from rakefarm.server.held_tokens import HeldTokens


@pytest.fixture
def tokens() -> Tokens:
    """Two tokens."""
    return Tokens([own_token(), own_token()])


def test_a_worker_gives_back_what_it_took(tokens: Tokens) -> None:
    held = HeldTokens(tokens, 4)
    assert held.try_take(2, worker=0) and held.try_take(0, worker=1)
    assert not held.try_take(1, worker=0)
    held.give_back(2)
    held.give_back(2)  # there is none any more
    assert held.count_free() == 1
    held.give_back(0)
    assert held.count_free() == 2


def test_what_a_dead_worker_held_is_given_back_once(tokens: Tokens) -> None:
    held = HeldTokens(tokens, 4)
    pid = os.fork()
    if not pid:
        held.try_take(3, worker=5)
        os._exit(0)
    os.waitpid(pid, 0)
    assert held.try_take(0, worker=6) and held.count_free() == 0
    held.recover(5)
    held.recover(5)
    assert held.count_free() == 1
    held.recover()
    assert held.count_free() == 2


def test_who_gets_a_dead_workers_slot_gives_its_token_back(tokens: Tokens) -> None:
    """The kernel frees the slot before the listener has heard of the death."""
    held = HeldTokens(tokens, 1)
    assert held.try_take(0, worker=1)
    assert held.try_take(0, worker=2)
    assert held.count_free() == 1
    held.recover(1)
    assert held.count_free() == 1, "it is the other's now"
    held.give_back(0)
    assert held.count_free() == 2


def test_without_a_job_server_nobody_needs_one() -> None:
    held = HeldTokens(Tokens(), 2)
    assert held.try_take(0, worker=0)
    held.give_back(0)
    held.recover()
