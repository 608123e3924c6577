"""Results that a server keeps: for the very same request alone, of runs of its own, while its machine is the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from server_vocabulary import (
    Answer,
    Connect,
    Gate,
    Server,
    StartServer,
    an_input,
    execute,
    variables,
    wait_until,
)

from rakefarm.config import ServerSettings
from rakefarm.server import likeness
from rakefarm.server.job import Ended
from rakefarm.server.likeness import Likeness
from rakefarm.server.results import Kept, KeptResults
from rakefarm.server.store import Store
from rakefarm.server.workplace import environments
from rakefarm.wire.messages import Decline, Execute, Need, Quote, QuoteRequest, Result
from rakefarm.wire.request import digest_of

DRAW = b"cat in; date +%s%N | tee out; date +%N >&2"
"""What is another each time it runs."""
INPUT = {b"in": b"content\n"}
WELL = Result("exited", 0, 1.0, 0.0, 1.0, 5, 1.0, "", 0)


def records(server: Server) -> list[Path]:
    return list(server.scratch.parent.glob("cache/rakefarm/store/results/??/*"))


def run_first(connect: Connect, server: Server) -> Answer:
    """A result is kept when its client has it; others may ask a moment too early."""
    answer = run(connect, server)
    wait_until(lambda: len(records(server)) == 1)
    return answer


def run(connect: Connect, server: Server, command: bytes = DRAW, **changes: object) -> Answer:
    answer = connect(server).run(command, INPUT, **{"repeatable": 1, "produces": (b"out",), **changes})
    assert answer.result is not None, answer
    return answer


def kept(answer: Answer) -> int:
    assert answer.result is not None, answer
    return answer.result.kept


def test_the_very_same_request_gets_the_result_of_the_first(server: Server, connect: Connect) -> None:
    first, second = run_first(connect, server), run(connect, server, label="another", work_s=2.0, start=1)
    assert (kept(first), kept(second)) == (0, 1)
    assert (first.stdout, first.stderr, first.outputs, first.modes) == (
        second.stdout, second.stderr, second.outputs, second.modes,
    )  # fmt: skip
    assert second.needed == ()
    assert second.delivered is not None
    assert second.delivered.curves
    assert first.result is not None
    assert second.result == structs.replace(first.result, kept=1, queued_s=0.0, detail="")


@pytest.mark.parametrize("changes", [
    {"repeatable": 0},
    {"command": DRAW + b" "},
    {"timeout_s": 50.0},
    {"declared": 0, "produces": ()},
    {"environment": variables(LANG="C")},
    {"needs": (Need("cpu", "1"),)},
], ids=repr)  # fmt: skip
def test_another_request_is_run(server: Server, connect: Connect, changes: dict[str, object]) -> None:
    first = run_first(connect, server)
    other = run(connect, server, **changes)  # type: ignore[arg-type]
    assert kept(other) == 0
    assert other.stdout != first.stdout


@pytest.mark.parametrize("entry", [
    an_input(b"in", b"another\n"), an_input(b"in", b"content\n", mode=0o755),
    an_input(b"in", b"content\n", mtime_ns=5), an_input(b"in", b"content\n", alias=b"alias"),
])  # fmt: skip
def test_another_input_is_another_request(server: Server, connect: Connect, entry: object) -> None:
    run_first(connect, server)
    client = connect(server)
    client.send(execute(DRAW, entry, repeatable=1, produces=(b"out",)))  # type: ignore[arg-type]
    assert kept(client.finish([b"another\n"])) == 0


def test_only_what_went_well_is_kept(server: Server, connect: Connect) -> None:
    for _ in range(2):
        for command in (b"date +%N; : >out; exit 3", b"true", b"head -c 2000000 /dev/zero; date +%N >out"):
            assert kept(run(connect, server, command)) == 0
    assert not records(server)


def test_no_slot_is_needed_and_what_was_leased_comes_free(
    start_server: StartServer, connect: Connect, gate: Gate
) -> None:
    server = start_server("--slots", "1")
    first = run_first(connect, server)
    busy = connect(server)
    busy.send(execute(gate.command))
    gate.wait_reached()
    assert run(connect, server, start=1).stdout == first.stdout
    gate.open()
    busy.finish()
    client = connect(server)
    held = client.wait_for_slot()
    assert isinstance(held, Quote)
    answer = client.run(DRAW, INPUT, repeatable=1, produces=(b"out",), lease=held.offer.lease)
    assert answer.stdout == first.stdout
    assert kept(run(connect, server, b"date +%N >out", start=1)) == 0


def test_a_lost_output_and_a_damaged_record_are_made_again(server: Server, connect: Connect) -> None:
    first = run_first(connect, server)
    (record,) = records(server)
    for path in record.parent.parent.parent.glob("??/*"):
        path.unlink()
    again = run(connect, server)
    assert (kept(again), again.stdout == first.stdout) == (0, False)
    wait_until(lambda: kept(run(connect, server)))
    record.chmod(0o600)
    record.write_bytes(record.read_bytes()[:-1] + b"x")
    assert kept(run(connect, server)) == 0


def test_without_a_store_nothing_is_kept(start_server: StartServer, connect: Connect) -> None:
    server = start_server("--cache-size", "0")
    assert run(connect, server).stdout != run(connect, server).stdout


# --- the price of a result that is kept ------------------------------------------------------------------


def price(connect: Connect, server: Server, request: Execute, **changes: object) -> float:
    asked = QuoteRequest(request.task, digest_of(structs.replace(request, **changes)))
    answer = connect(server).ask(asked)
    assert isinstance(answer, Quote)
    return answer.offer.price


def test_a_result_that_is_kept_costs_nothing(server: Server, connect: Connect) -> None:
    request = execute(DRAW, an_input(b"in", b"content\n"), repeatable=1, produces=(b"out",))
    assert price(connect, server, request) > 0
    run_first(connect, server)
    assert price(connect, server, request) == 0
    assert price(connect, server, request, label="another", start=1, lease=7) == 0
    assert price(connect, server, request, command=DRAW + b" ") > 0
    assert price(connect, server, request, timeout_s=1.0) > 0
    answer = connect(server).ask(QuoteRequest(request.task, digest_of(request)))
    assert isinstance(answer, Quote)
    assert (answer.offer.seconds, answer.offer.lease, [term.name for term in answer.offer.terms]) == (0.0, 0, ["kept"])
    for digest in (b"", b"x", bytes(32), digest_of(request) + b"x"):
        answer = connect(server).ask(QuoteRequest(request.task, digest))
        assert isinstance(answer, Quote)
        assert answer.offer.price > 0


def test_a_server_that_takes_nothing_asks_no_price_for_what_it_has(start_server: StartServer, connect: Connect) -> None:
    server = start_server()
    run_first(connect, server)
    request = execute(DRAW, an_input(b"in", b"content\n"), repeatable=1, produces=(b"out",))
    unfit = QuoteRequest(structs.replace(request.task, needs=(Need("tool", "no-such-tool"),)), digest_of(request))
    assert isinstance(connect(server).ask(unfit), Decline)


# --- the machine's own files ----------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., KeptResults]:
    (tmp_path / "bin").mkdir()

    def make(**changes: object) -> KeptResults:
        settings = structs.replace(
            ServerSettings(), cache_directory=str(tmp_path / "cache"), workers=2, path=str(tmp_path / "bin"), **changes
        )
        store = Store(settings.cache_directory, settings.cache_size)
        return KeptResults(settings, environments(settings), "namespaces", store, Likeness())

    return make


def keep(results: KeptResults, request: Execute) -> bytes:
    key = results.key(request)
    assert key is not None
    results.keep(key, request, WELL, Ended("exited"), ())
    return key


def test_what_is_installed_later_is_another_system(made: Callable[..., KeptResults], tmp_path: Path) -> None:
    results, request = made(), execute(b"cc -c a.c", repeatable=1)
    key = keep(results, request)
    assert results.find(request, key) == Kept(1.0, 1.0, 5, 1.0, b"", b"", ())
    assert results.key(request) == key
    (tmp_path / "bin/cc").write_text("")
    assert results.key(request) != key
    assert keep(results, request) != key


def test_a_system_that_changes_while_it_runs_keeps_nothing(made: Callable[..., KeptResults], tmp_path: Path) -> None:
    results, request = made(), execute(b"cc -c a.c", repeatable=1)
    key = results.key(request)
    assert key is not None
    (tmp_path / "bin/cc").write_text("")
    results.keep(key, request, WELL, Ended("exited"), ())
    assert results.find(request, key) is None


def test_shared_directories_and_listed_programs(made: Callable[..., KeptResults]) -> None:
    request = execute(b"cc -c a.c", repeatable=1)
    assert made(shared=("/srv",)).key(request) is None
    plain = made().key(request)
    assert plain not in (None, made(programs={"cc": "/usr/bin/cc"}).key(request))


def test_files_that_are_listed_are_compared_anew(
    made: Callable[..., KeptResults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "PLACES", (f"{tmp_path}/".encode(),))
    text = f"- {tmp_path}/header.h\n".encode()
    entry = an_input(b"list", text)
    request = execute(b"cc", entry, needs=(Need("same", "list"),), repeatable=1)
    results = made(shared=("/srv",))  # a list says all
    key = keep(results, request)
    assert results.find(request, key) is None, "the list itself is not there"
    (tmp_path / "list").write_bytes(text)
    results._store.add(entry.sha256, str(tmp_path / "list").encode(), len(text))
    assert results.find(request, key) is not None
    (tmp_path / "header.h").write_text("")
    assert results.find(request, key) is None
    (tmp_path / "header.h").unlink()
    assert results.find(request, key) is not None
