"""A bid of a lab's own: found by name, and replaced by the default, with one line, when it fails."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from server_vocabulary import A_QUOTE, Client, Connect, StartServer, hello, run_server_command, wait_until

from rakefarm.config import ConfigError
from rakefarm.market.bid import Coefficients, Commitments, Job, Load, Situation, Standing, finish_terms
from rakefarm.market.bids import BIDS, DEFAULT
from rakefarm.server.bid_guard import SLOW_CALLS, BidGuard, find_bid
from rakefarm.server.scoreboard import Scoreboard
from rakefarm.wire.messages import Quote

ROOT = Path(__file__).resolve().parents[2]
NOW = Situation(
    Job("compile"), Load(4, 0.0, 0.0, 1 << 36, 1 << 36), Commitments(4, 0, 0, 0), Coefficients(), Standing(), 0.5, 0.25
)
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(body)` makes a file whose `own` has this body; answers its name as a bid."""

    def write(body: str) -> str:
        (tmp_path / "own.py").write_text(f"import math, time\ncalls = []\ndef own(now):\n    {body}\n")
        return f"{tmp_path}/own.py:own"

    return write


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("rakefarm"), "propagate", True)


# --- finding it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["docs/bids.md", "configs/server.toml", "rakefarm/server/options.py"])
def test_every_name_is_told(place: str) -> None:
    text = (ROOT / place).read_text(encoding="utf-8")
    assert all(name in text for name in BIDS)


def test_a_class_is_made_and_called(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Own:\n    def __call__(self, now):\n        return {'run': now.run_s}\n")
    assert find_bid(f"{tmp_path}/own.py:Own")(NOW) == {"run": 0.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [("own = 7", "is not a function"), ("class own:\n    def __init__(self, more): pass", "TypeError"), ("", "has no")],
)
def test_what_is_no_bid_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=says):
        find_bid(f"{tmp_path}/own.py:own")


def test_a_server_does_not_start_with_a_bid_that_is_not_there(tmp_path: Path) -> None:
    status, _, said = run_server_command(tmp_path, "--bid", "cheapest")
    assert status == 2 and len(said.splitlines()) == 1
    assert "cheapest" in said and all(name in said for name in BIDS)


# --- replacing it -----------------------------------------------------------------------------------------


def test_a_good_one_stays(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    guard = BidGuard(write("return {'run': now.run_s, 'discount': -0.125}"), Scoreboard(1, 4))
    assert [guard(NOW) for _ in range(100)] == [{"run": 0.5, "discount": -0.125}] * 100
    assert not caplog.records


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('out of ideas')",
        "raise SystemExit(3)",
        "return {'run': math.nan}",
        "return {'run': math.inf}",
        "return {'run': -1.0}",
        "return {'run': 0.0}",
        "return {}",
        "return {'run': 1e9}",
        "return {'run': 10**400}",
        "return {'run': '1'}",
        "return {'run': True}",
        "return {1: 1.0}",
        "return {'\\udc80': 1.0}",
        "return {'x' * 1000: 1.0}",
        "return {str(number): 1.0 for number in range(1000)}",
        "return 1.0",
        "return None",
    ],
)
def test_one_that_fails_is_told_of_once_and_replaced(write: Write, caplog: pytest.LogCaptureFixture, body: str) -> None:
    board = Scoreboard(2, 4)
    guards = [BidGuard(write(body), board) for _ in range(2)]
    for guard in guards * 3:
        assert guard(NOW) == finish_terms(NOW)
    assert len(caplog.records) == 1
    assert "own.py:own" in caplog.text and DEFAULT in caplog.text


def test_another_worker_sees_that_it_is_replaced(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    board = Scoreboard(2, 4)
    guards = [BidGuard(write("calls.append(1)\n    return {'run': 1 / (len(calls) < 3)}"), board) for _ in range(2)]
    assert [guards[0](NOW) for _ in range(3)] == [{"run": 1.0}, {"run": 1.0}, finish_terms(NOW)]
    assert guards[1](NOW) == finish_terms(NOW) and len(caplog.records) == 1
    board.restore_bid()
    assert guards[1](NOW) == {"run": 1.0}


@pytest.mark.parametrize("how", ["sum(range(200_000))", "time.sleep(0.06)"])
def test_one_that_is_slow_again_and_again_is_replaced(write: Write, caplog: pytest.LogCaptureFixture, how: str) -> None:
    guard = BidGuard(write(f"{how}\n    return {{'own': 1.0}}"), Scoreboard(1, 4))
    answers = [guard(NOW) for _ in range(SLOW_CALLS + 2)]
    assert answers[:-1] == [{"own": 1.0}] * (SLOW_CALLS + 1) and answers[-1] == finish_terms(NOW)
    assert len(caplog.records) == 1 and "millisecond" in caplog.text


def test_one_that_is_slow_now_and_then_stays(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    body = "calls.append(1)\n    sum(range(200_000 * (len(calls) % 10 > 0)))\n    return {'own': 1.0}"
    guard = BidGuard(write(body), Scoreboard(1, 4))
    assert all(guard(NOW) == {"own": 1.0} for _ in range(3 * SLOW_CALLS))
    assert not caplog.records


def test_a_file_that_is_gone_when_a_worker_starts_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    assert BidGuard("/none/own.py:own", Scoreboard(1, 4))(NOW) == finish_terms(NOW)
    assert len(caplog.records) == 1


# --- a real server ----------------------------------------------------------------------------------------


def terms_of(answer: object) -> dict[str, float]:
    assert isinstance(answer, Quote)
    return {term.name: term.value for term in answer.offer.terms}


def test_a_server_asks_what_its_bid_says_until_that_fails(
    start_server: StartServer, connect: Connect, write: Write, tmp_path: Path
) -> None:
    switch = tmp_path / "broken"
    body = f"import os\n    return {{'own': math.nan if os.path.exists({str(switch)!r}) else 7.0}}"
    server = start_server("--slots", "2", "--bid", write(body))
    assert "bid=" in server.line
    clients = [connect(server) for _ in range(4)]
    assert [terms_of(client.ask()) for client in clients] == [{"own": 7.0}] * 4
    switch.touch()
    assert all("run" in terms_of(client.ask()) for client in clients for _ in range(2))
    assert server.log().count("is replaced by") == 1
    switch.unlink()
    server.process.send_signal(signal.SIGHUP)

    def asks_again() -> bool:
        with Client(server.host, server.port) as client:
            for question in (hello(), A_QUOTE):
                client.send(question)
                answer = client.read()  # none from a worker that is just being replaced
                if answer is None:
                    return False
        return "own" in terms_of(answer)

    wait_until(asks_again, "the bid again, with the configuration")


def test_a_bid_by_name(start_server: StartServer, connect: Connect) -> None:
    assert set(terms_of(connect(start_server("--bid", "cpu")).ask(A_QUOTE))) == {"work", "cpu"}
