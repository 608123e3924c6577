"""What commands took before: known again in another directory, guessed when never seen, bounded."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.market import history as module
from rakefarm.market.history import Experience, History, signature_of

A = "cc -c a.c"


@pytest.mark.parametrize(
    ("command", "signature"),
    [
        ("cc -c a.c", "cc -c a.c"),
        ("cc   -c\t a.c ", "cc -c a.c"),
        ("cc -c src/a.c", "cc -c a.c"),
        ("/usr/bin/cc -c ../x/y/a.c", "cc -c a.c"),
        ("cc -I/home/one/include -c a.c", "cc include -c a.c"),
        ("cc -Iinclude -c a.c", "cc -Iinclude -c a.c"),
        ("cc --sysroot=/opt/x/root -c a.c", "cc --sysroot=root -c a.c"),
        ("cat 'dir/a b' \"other/c\"", "cat 'a b' \"c\""),
        ("x a/b:c/d,e/f", "x b:d,f"),
        ("ls dir/", "ls"),
        ("", ""),
    ],
)
def test_a_signature_has_no_directories(command: str, signature: str) -> None:
    assert signature_of(command) == signature


@given(st.text())
def test_any_command_has_a_signature_without_slashes(command: str) -> None:
    signature = signature_of(command)
    assert "/" not in signature
    assert signature_of(signature) == signature


@pytest.mark.parametrize("command", ["a/" * 100_000, "/" * 100_000, "a" * 100_000, "a " * 100_000 + "/"])
def test_a_long_command_takes_no_time_to_speak_of(command: str) -> None:
    """Under the runner's time limit, that is."""
    signature_of(command)


def test_nothing_is_known_at_first() -> None:
    assert History().predict(A, "compile", 100) is None


def test_what_was_seen_is_predicted_surely() -> None:
    history = History()
    history.learn(A, "compile", 1000, 2.0, 50 << 20)
    prediction = history.predict(A, "compile", 1000)
    assert prediction is not None
    assert (prediction.work_s, prediction.memory_bytes, prediction.sure) == (2.0, 50 << 20, True)


def test_what_was_not_seen_is_guessed_by_kind_and_bytes() -> None:
    history = History()
    history.learn(A, "compile", 1000, 2.0, 50 << 20)

    def guess(size: int, kind: str = "compile") -> float | None:
        found = history.predict("cc -c b.c", kind, size)
        assert found is None or (not found.sure and found.memory_bytes == 0)
        return found.work_s if found else None

    assert guess(1000) == 2.0
    assert guess(0) == 2.0, "nothing is known of its size"
    assert guess(2000) == pytest.approx(2.0 * 1.75)
    assert guess(1) == pytest.approx(0.5, rel=0.01), "not below a quarter"
    assert guess(1 << 60) == 8.0, "nor above four times"
    assert guess(1000, "link") is None


def test_the_guess_by_kind_is_the_average_of_the_kind() -> None:
    history = History()
    for number, work_s in enumerate([1.0, 2.0, 3.0]):
        history.learn(f"cc -c {number}.c", "compile", 100, work_s, 0)
    found = history.predict("cc -c other.c", "compile", 100)
    assert found is not None and found.work_s == pytest.approx(2.0)


def test_a_history_that_was_kept_guesses_as_before() -> None:
    """What was never seen is predicted from all that was seen of its kind, also in the next build."""
    history = History()
    for number, work_s in enumerate([1.0, 2.0, 3.0]):
        history.learn(f"cc -c {number}.c", "compile", 100, work_s, 0)
    history.learn("cc -o x x.o", "link", 100, 9.0, 0)
    kept = History(history.items())
    for kind, work_s in (("compile", 2.0), ("link", 9.0)):
        found = kept.predict("unseen", kind, 100)
        assert found is not None and found.work_s == pytest.approx(work_s) and not found.sure


def test_a_command_that_grew_is_known_again_after_a_few_builds() -> None:
    history = History()
    history.learn(A, "compile", 1000, 1.0, 0)
    for _ in range(8):
        history.learn(A, "compile", 2000, 3.0, 0)
    found = history.predict(A, "compile", 2000)
    assert found is not None and found.work_s == pytest.approx(3.0, rel=0.02)


def test_peak_memory_is_the_highest_lately() -> None:
    history = History()
    history.learn(A, "compile", 1, 1.0, 1000)
    history.learn(A, "compile", 1, 1.0, 2000)
    history.learn(A, "compile", 1, 1.0, 100)
    found = history.predict(A, "compile", 1)
    assert found is not None and found.memory_bytes == 1800


@pytest.mark.parametrize("work_s", [0.0, -1.0, 1e6, float("inf"), float("nan")])
def test_a_time_that_cannot_be_is_not_learned(work_s: float) -> None:
    history = History()
    history.learn(A, "compile", 1, work_s, 0)
    assert history.predict(A, "compile", 1) is None


def test_it_is_bounded_and_forgets_what_was_seen_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SIGNATURES", 10)
    history = History()
    for number in range(10):
        history.learn(str(number), "other", 1, 1.0, 0)
    history.learn("0", "other", 1, 1.0, 0)
    history.learn("new", "other", 1, 1.0, 0)
    names = [name for name, _ in history.items()]
    assert names == ["2", "3", "4", "5", "6", "7", "8", "9", "0", "new"]


def test_its_items_make_the_same_history() -> None:
    history = History([(A, Experience(1.5, 10, 20, 3))])
    assert dict(History(history.items()).items()) == {A: Experience(1.5, 10, 20, 3)}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(), st.integers(0, 1 << 62), st.integers(0, 1 << 62))))
def test_whatever_it_learns_its_predictions_are_finite(
    seen: list[tuple[str, float, int, int]],
) -> None:
    history = History()
    for signature, work_s, input_bytes, memory_bytes in seen:
        history.learn(signature, "compile", input_bytes, work_s, memory_bytes)
    for signature in "abcd":
        found = history.predict(signature, "compile", 10)
        assert found is None or (0 < found.work_s < 4e6 and found.memory_bytes >= 0)


def test_a_long_word_takes_no_time() -> None:
    started = time.process_time()
    assert signature_of("x" * 1_000_000) == "x" * 1_000_000
    assert time.process_time() - started < 1.0
