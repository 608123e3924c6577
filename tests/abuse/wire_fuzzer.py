"""A coverage-guided fuzzer on the wire code, before and after the proofs.

    pip install atheris && python3 tests/abuse/wire_fuzzer.py tests/abuse/corpus -max_total_time=3600

An input's first byte says who reads and in which state, its second how the rest is cut into reads. Whatever comes, the
reader answers with messages, a refusal of its own kind, or nothing yet; it holds no more than its limits; and after a
refusal it is closed for good. What the fuzzer found worth keeping is in `corpus`, and read again by the tests.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "wire")]

try:
    import atheris
except ImportError:  # the tests only read the corpus
    atheris = None

STARTS = (
    "GREETING",
    "ADMITTING",
    "PROVING",
    "JUDGING",
    "READY",
    "QUOTING",
    "STAGING",
    "SUPPLYING",
    "RUNNING",
    "DELIVERING",
)


def fuzz_one(data: bytes) -> int:
    """Read one input; answers how many events it made. Raises whatever should not be."""
    if len(data) < 2:
        return 0
    reader = start(data[0])
    step = max(1, data[1])
    made = 0
    try:
        for position in range(2, len(data), step):
            reader.receive_data(data[position : position + step])
            while reader.next_event() is not None:
                made += 1
            assert len(reader._buffer) <= LIMITS.message + step + 8
    except errors.RemoteProtocolError as error:
        assert reader.state is State.CLOSED and str(error) and error.code
        reader.receive_data(data)
        try:
            while reader.next_event() is not None:
                raise AssertionError("something was believed after a refusal")
        except errors.RemoteProtocolError:
            pass
    return made


def start(choice: int) -> "Connection":
    """A reader in one of the states."""
    state = State[STARTS[choice % len(STARTS)]]
    return pair_in(state, LIMITS).end(SPEAKER[state].peer)


def imports() -> None:
    """What is to be watched; a function, so that atheris can see to it first."""
    global Connection, LIMITS, SPEAKER, State, errors, pair_in
    from wire_vocabulary import pair_in

    from rakefarm.wire import Connection, Limits, State, errors
    from rakefarm.wire.state import SPEAKER

    LIMITS = Limits(payload=4096, message=8192, greeting=1024, body=1 << 16)


def main() -> None:
    """Fuzz until told to stop."""
    assert atheris is not None, "pip install atheris"
    with atheris.instrument_imports(include=["rakefarm"]):
        imports()
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
else:
    imports()
