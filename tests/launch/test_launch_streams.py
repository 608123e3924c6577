"""Programs, lines and signals in one queue."""

import os
import signal
import sys
import time

import pytest

from rakefarm.launch.streams import LONGEST_LINE, Ended, Line, Signalled, Streams, Told

ENVIRON = {"PATH": os.environ["PATH"]}


def all_told(streams: Streams, deadline_s: float = 30.0) -> list[Told]:
    """Until every program has ended."""
    deadline, told = time.monotonic() + deadline_s, []
    while streams.running:
        assert time.monotonic() < deadline, told
        if (each := streams.get(0.1)) is not None:
            told.append(each)
    streams.end_input()
    return told


def test_what_it_says_comes_before_its_end() -> None:
    streams = Streams()
    streams.start(["sh", "-c", "read line; echo got $line; echo no >&2; exit 3"], ENVIRON, b"key\n")
    told = all_told(streams)
    assert told[-1] == Ended(0, 3)
    assert set(told[:-1]) == {Line(0, "got key"), Line(0, "no", error=True)}


def test_the_end_of_input_is_seen_and_a_signal_is_told_as_a_shell_does() -> None:
    streams = Streams()
    first = streams.start(["cat"], ENVIRON, b"")
    second = streams.start(["sleep", "60"], ENVIRON, b"")
    assert streams.running == {first, second}
    streams.end_input()
    assert streams.get(20.0) == Ended(first, 0)
    streams.signal(signal.SIGKILL)
    assert streams.get(20.0) == Ended(second, 137)
    assert streams.get(0.0) is None


def test_one_that_reads_nothing_and_says_much() -> None:
    streams = Streams()
    streams.start([sys.executable, "-c", f"print('x' * {LONGEST_LINE * 3})"], ENVIRON, b"key\n")
    lines = [each for each in all_told(streams) if isinstance(each, Line)]
    assert "".join(line.text for line in lines) == "x" * LONGEST_LINE * 3
    assert max(len(line.text) for line in lines) <= LONGEST_LINE


def test_signals_are_told_and_given_back() -> None:
    streams, before = Streams(), signal.getsignal(signal.SIGTERM)
    with streams.taking_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert streams.get(20.0) == Signalled(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Streams().start(["/nonexistent/program"], ENVIRON, b"")
