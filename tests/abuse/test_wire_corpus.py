"""What the fuzzer has found worth keeping, read again; and that it would notice what it looks for."""

from pathlib import Path

import pytest
import wire_fuzzer

from rakefarm.wire import Connection
from rakefarm.wire.errors import Malformed

CORPUS = Path(__file__).parent / "corpus"


def test_the_corpus_is_read_as_it_should_be() -> None:
    inputs = sorted(CORPUS.iterdir())
    events = [wire_fuzzer.fuzz_one(path.read_bytes()) for path in inputs]
    assert len(inputs) > 30 and sum(events) > 30


def test_it_notices_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Connection) -> None:
        raise IndexError("a fault of ours")

    monkeypatch.setattr(Connection, "next_event", broken)
    with pytest.raises(IndexError):
        wire_fuzzer.fuzz_one(b"\0\xffx")


def test_it_notices_belief_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Malformed("refused"), "believed"])

    def gullible(self: Connection) -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            self.state = wire_fuzzer.State.CLOSED
            raise answer
        return answer

    monkeypatch.setattr(Connection, "next_event", gullible)
    with pytest.raises(AssertionError, match="believed after a refusal"):
        wire_fuzzer.fuzz_one(b"\0\xffx")
