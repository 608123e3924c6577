"""make's job server: MAKEFLAGS is read as make writes it, and no token is ever lost, made up or changed."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakefarm.jobserver import NoJobServer, Token, Tokens, find_auth, from_environment, open_auth, own_token

OpenPool = Callable[[bytes], str]


@pytest.fixture(params=["pipe", "fifo"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenPool]:
    """`pool(tokens)`: a job server as make has it, with these bytes; answers its address as in MAKEFLAGS."""
    opened: list[int] = []

    def fill(tokens: bytes) -> str:
        if request.param == "fifo":
            path = tmp_path / "job server"
            os.mkfifo(path)
            opened.append(os.open(path, os.O_RDWR))
        else:
            opened.extend(os.pipe())
            for descriptor in opened:
                os.set_inheritable(descriptor, True)
        os.write(opened[-1], tokens)
        return f"fifo:{path}" if request.param == "fifo" else f"{opened[0]},{opened[1]}"

    fill.opened = opened  # type: ignore[attr-defined]
    yield fill
    for descriptor in opened:
        os.close(descriptor)


def left_in(pool: OpenPool) -> bytes:
    """The bytes that are there now."""
    reader = pool.opened[0]  # type: ignore[attr-defined]
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 4096)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("makeflags", "auth"),
    [
        ("", None),
        ("k", None),
        (" -j1", None),
        (" -j4 --jobserver-auth=3,4", "3,4"),
        ("ks -j4 --jobserver-auth=fifo:/tmp/GMfifo12", "fifo:/tmp/GMfifo12"),
        (" --jobserver-fds=5,6 -j", "5,6"),
        (" --jobserver-auth=3,4 --jobserver-auth=7,8", "7,8"),
        (" --jobserver-auth=-2,-2", "-2,-2"),
        (r" --jobserver-auth=fifo:/tmp/a\ b\\c -j2", r"fifo:/tmp/a b\c"),
        (" -j2 -- X=--jobserver-auth=3,4 --jobserver-auth=9,9", None),
    ],
)
def test_what_makeflags_say(makeflags: str, auth: str | None) -> None:
    assert find_auth(makeflags) == auth


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_path_survives_the_way_make_writes_it(path: str) -> None:
    written = "".join("\\" + letter if letter in "\\ \t\n" else letter for letter in path)
    assert find_auth(f"k -j3 --jobserver-auth=fifo:{written} -l2") == f"fifo:{path}"


@given(st.text())
def test_no_makeflags_break_it(makeflags: str) -> None:
    find_auth(makeflags)


def test_tokens_come_and_go_as_they_are(pool: OpenPool) -> None:
    server = open_auth(pool(b"abc"))
    assert server.count() == 3
    taken = [server.try_read() for _ in range(4)]
    assert taken == [b"a", b"b", b"c", None]
    assert server.count() == 0
    for byte in taken[:3]:
        assert byte is not None
        server.write(byte)
    server.close()
    assert left_in(pool) == b"abc"


def test_what_make_shares_with_others_stays_as_it_is(pool: OpenPool) -> None:
    server = open_auth(pool(b""))
    started = time.monotonic()
    assert server.try_read() is None
    assert time.monotonic() - started < 5, "nobody blocks"
    assert all(os.get_blocking(descriptor) for descriptor in pool.opened)  # type: ignore[attr-defined]
    server.close()


def test_no_token_is_lost_among_many_threads(pool: OpenPool) -> None:
    before = bytes(range(5))
    tokens = Tokens([open_auth(pool(before))])
    out: list[int] = []
    most: list[int] = []

    def take_and_give_back() -> None:
        for _ in range(200):
            token = tokens.try_take()
            if token is not None:
                out.append(token.byte[0])
                most.append(len(out))
                out.remove(token.byte[0])
                tokens.give_back(token)

    threads = [threading.Thread(target=take_and_give_back) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    tokens.close()
    assert most and max(most) <= 5
    assert Counter(left_in(pool)) == Counter(before)


def test_the_token_that_needs_none_of_makes_comes_first(pool: OpenPool) -> None:
    tokens = Tokens([own_token(), open_auth(pool(b"x"))])
    first, second = tokens.try_take(), tokens.try_take()
    assert (first, second) == (Token(0, b"+"), Token(1, b"x"))
    assert tokens.try_take() is None and tokens.count() == 0
    assert first and second
    tokens.give_back(first)
    assert tokens.try_take() == first
    for token in (first, second):
        tokens.give_back(token)
    assert tokens.count() == 2 and left_in(pool) == b"x"


def test_without_a_server_nothing_is_needed() -> None:
    assert not Tokens().needed and Tokens().readers == ()
    assert from_environment({"MAKEFLAGS": "k"}) is None and from_environment({}) is None


@pytest.mark.parametrize(
    "auth", ["", "3", "3,", "a,b", "fifo:", "fifo:/dev/null", "fifo:/nowhere", "-2,-2", "0,²", "9999,9999", "fifo:a\0b"]
)
def test_what_is_no_job_server_is_told(auth: str) -> None:
    with pytest.raises(NoJobServer):
        open_auth(auth)


def test_descriptors_that_we_opened_ourselves_are_not_makes() -> None:
    """A rule without a +: its numbers may be anything of ours by now."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(NoJobServer, match=r"put a \+"):
            open_auth(f"{reader},{writer}")
    finally:
        os.close(reader)
        os.close(writer)
