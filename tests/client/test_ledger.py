"""The ledger: what is recorded, when it is written, how it is rotated, and that nothing it meets harms a build."""

import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from rakefarm.client import ledger as ledger_module
from rakefarm.client.jsonlines import json_line
from rakefarm.client.ledger import RECORDED, Ledger, LedgerFailed, ledger_path
from rakefarm.config import ClientSettings
from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    Event,
    HostLeftOut,
    HostLoad,
    HostReady,
    Notice,
    QuoteReceived,
    SetStarted,
    Stream,
)

Record = dict[str, object]

BUILD: list[Event] = [
    BuildStarted(rakefile="Rakefile", actions=2, sets=1, hosts=("lab1:6238", "lab2:6238")),
    HostReady(host="lab1:6238", slots=2, server_version="0.1.0", isolation="process"),
    HostLeftOut(host="lab2:6238", reason="refused"),
    ActionQueued(action=1, set_name="secret project", line=2, command="cc -c src/secret.c", remote=True),
    QuoteReceived(action=1, host="lab1:6238", price=0.6, seconds=0.5, terms={"base": 0.5, "memory": 0.1}),
    QuoteReceived(action=1, host="lab2:6238", price=None, reason="license: needs license=secret"),
    ActionPlaced(action=1, host="lab1:6238", price=0.6),
    ActionRetried(action=1, host="lab1:6238", reason="input_lost: src/secret.c"),
    CopyEnded(action=1, host="lab1:6238", reason="superseded"),
    ActionFinished(
        action=1,
        host="lab1:6238",
        outcome="succeeded",
        detail="exit status 0",
        exit_status=0,
        elapsed_s=0.7,
        cpu_s=0.4,
        peak_memory_bytes=1 << 20,
        outputs=("secret.o", "secret.d"),
    ),
    ActionFinished(action=2, host="", outcome="failed", detail="missing required file secret.h; nothing was sent"),
    HostLoad(
        host="lab1:6238",
        cores=4,
        busy=0.5,
        busy_in_all=1.5,
        running=1,
        waiting=0,
        speed=1.0,
        load_average=1.25,
        memory_available_bytes=1 << 32,
        sample_age_s=0.05,
    ),
    BuildFinished(exit_status=1, succeeded=1, failed=1, not_started=0, elapsed_s=0.9),
]
NOT_RECORDED: list[Event] = [
    SetStarted(index=0, set_name="compile", actions=2),
    ActionPhase(action=1, host="lab1:6238", phase="running"),
    ActionOutput(action=1, stdout=b"out"),
    Notice(level="info", text="hello"),
]


class Place:
    """A state directory, and the ledgers that builds keep there."""

    def __init__(self, home: Path) -> None:
        self.environ = {"XDG_STATE_HOME": str(home / "state")}
        self.directory = home / "state" / "rakefarm"
        self.path = self.directory / "ledger.jsonl"
        self.older = self.directory / "ledger.jsonl.1"
        self.key = self.directory / "ledger.key"
        self.told: list[Event] = []

    def ledger(self, **settings: object) -> Ledger:
        return Ledger(structs.replace(ClientSettings(), **settings), self.environ, self.told.append)

    def keep(self, events: list[Event], run_id: str = "run", **settings: object) -> None:
        """What a whole build does."""
        with self.ledger(**settings) as ledger:
            Stream(run_id, [ledger]).emit(*map(structs.replace, events))

    def records(self) -> list[Record]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def warnings(self) -> list[str]:
        assert all(isinstance(event, Notice) and event.level == "warning" for event in self.told)
        return [event.text for event in self.told if isinstance(event, Notice)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def queued(number: int, time_s: float = 0.0, command: str = "cc -c a.c") -> ActionQueued:
    return ActionQueued(action=number, set_name="all", line=1, command=command, remote=True, time_s=time_s)


def actions_of(*paths: Path) -> list[int]:
    return [json.loads(line)["action"] for path in paths for line in path.read_bytes().splitlines() if line]


# --- what and where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/rakefarm/ledger.jsonl"),
        ({"HOME": "/h"}, "/h/.local/state/rakefarm/ledger.jsonl"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/rakefarm/ledger.jsonl"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/rakefarm/ledger.jsonl"),
    ],
)
def test_its_place(environ: dict[str, str], path: str) -> None:
    assert ledger_path(environ) == path


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"XDG_STATE_HOME": "relative"}])
def test_without_a_home_there_is_no_place(environ: dict[str, str]) -> None:
    with pytest.raises(LedgerFailed, match="XDG_STATE_HOME"):
        ledger_path(environ)


def test_each_event_of_the_market_is_a_line_and_no_other(place: Place) -> None:
    told: list[Event] = []
    with place.ledger() as ledger:
        Stream("run-1", [ledger, told.append]).emit(*map(structs.replace, BUILD[:4] + NOT_RECORDED + BUILD[4:]))
    expected = [json.loads(json_line(event)) for event in told if type(event) in RECORDED]
    assert place.records() == expected
    assert [record["event"] for record in expected] == [event.name for event in BUILD]
    assert {record["schema"] for record in expected} == {1} and {record["run_id"] for record in expected} == {"run-1"}
    assert {type(event) for event in BUILD} == RECORDED
    assert not place.told


def test_it_is_its_owners_alone_also_under_a_lax_umask(place: Place) -> None:
    before = os.umask(0)
    try:
        place.keep(BUILD, ledger_hash=True)
    finally:
        os.umask(before)
    for path, mode in (
        (place.directory, 0o700),
        (place.directory.parent, 0o700),
        (place.path, 0o600),
        (place.key, 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_builds_follow_one_another(place: Place) -> None:
    place.keep(BUILD, "first")
    place.keep(BUILD, "second")
    assert [record["run_id"] for record in place.records()] == ["first"] * len(BUILD) + ["second"] * len(BUILD)


def test_what_json_and_utf8_lack(place: Place) -> None:
    command = os.fsdecode(b"cc -c caf\xe9.c")
    place.keep(
        [
            queued(1, command=command),
            QuoteReceived(action=1, host="größe", price=float("inf"), terms={"a": float("nan")}),
        ]
    )
    first, second = place.records()
    assert os.fsencode(str(first["command"])) == b"cc -c caf\xe9.c"
    assert second["host"] == "größe" and second["price"] is None and second["terms"] == {"a": None}


def test_when_it_is_off_nothing_is_made(place: Place) -> None:
    place.keep(BUILD, ledger=False, ledger_hash=True)
    assert not place.directory.exists() and not place.told


# --- when -------------------------------------------------------------------------------------------------


def test_lines_are_gathered_for_a_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: writes.append(len(data)) or write(descriptor, data))
    with place.ledger() as ledger:
        for number in range(1000):
            ledger(queued(number, 10.0 + number / 1000))
    assert len(writes) == 6  # at 10.0, five times 0.2 s later, the rest at the end
    assert actions_of(place.path) == list(range(1000))


def test_an_event_that_is_not_recorded_brings_gathered_lines_out(place: Place) -> None:
    with place.ledger() as ledger:
        ledger(queued(1, 10.0))
        ledger(queued(2, 10.1))
        assert actions_of(place.path) == [1]
        ledger(ActionPhase(action=1, host="lab1", phase="running", time_s=12.0))
        assert actions_of(place.path) == [1, 2]


def test_the_end_of_the_build_is_written_at_once(place: Place) -> None:
    with place.ledger() as ledger:
        Stream("run", [ledger]).emit(*map(structs.replace, BUILD))
        assert len(place.records()) == len(BUILD)


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupt_in_mid_write_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    """A signal's handler raises before the write, or (and then lines may be doubled) after it."""
    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        if written:
            write(descriptor, data)
        raise KeyboardInterrupt

    with place.ledger() as ledger:
        ledger(queued(1, 10.0))
        ledger(queued(2, 10.1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ledger(queued(3, 10.3))
    assert sorted(set(actions_of(place.path))) == [1, 2, 3]


def test_closing_again_does_no_harm(place: Place) -> None:
    ledger = place.ledger()
    ledger(queued(1))
    ledger.close()
    ledger.close()
    assert actions_of(place.path) == [1]


# --- rotation ---------------------------------------------------------------------------------------------


def fill(ledger: Ledger, numbers: range) -> None:
    """Each in a write of its own."""
    for number in numbers:
        ledger(queued(number))
        ledger.flush()


def test_a_large_ledger_is_renamed_and_one_older_is_kept(place: Place) -> None:
    with place.ledger(ledger_size=1000) as ledger:
        fill(ledger, range(20))
    assert sorted(os.listdir(place.directory)) == ["ledger.jsonl", "ledger.jsonl.1"]
    kept = actions_of(place.older, place.path)
    assert kept == list(range(kept[0], 20)) and kept[0] > 0
    assert 1000 <= place.older.stat().st_size < 1500 and place.path.stat().st_size < 1500


def test_a_size_of_nought_means_never(place: Place) -> None:
    with place.ledger(ledger_size=0) as ledger:
        fill(ledger, range(50))
    assert os.listdir(place.directory) == ["ledger.jsonl"] and len(actions_of(place.path)) == 50


def test_a_build_follows_when_another_has_rotated(place: Place) -> None:
    with place.ledger(ledger_size=1000) as one, place.ledger(ledger_size=1000) as other:
        fill(one, range(1))
        fill(other, range(1, 8))
        assert place.older.exists()
        fill(one, range(8, 9))
        assert 8 in actions_of(place.path)
        assert actions_of(place.older, place.path) == [*range(8), 8]


def test_a_deleted_ledger_is_begun_again(place: Place) -> None:
    with place.ledger() as ledger:
        fill(ledger, range(1))
        place.path.unlink()
        fill(ledger, range(1, 2))
    assert actions_of(place.path) == [1] and not place.told


def test_many_builds_at_once_lose_and_mix_nothing_also_while_it_is_rotated(place: Place) -> None:
    writers, each = 8, 100
    line = len(json_line(queued(100)))
    size = writers * each * line * 2 // 3  # one rotation in the middle
    together = threading.Barrier(writers)

    def write(first: int) -> None:
        # A lock belongs to who opened the file, so that threads with a ledger each stand for processes.
        with place.ledger(ledger_size=size) as ledger:
            together.wait()
            fill(ledger, range(first, first + each))

    threads = [threading.Thread(target=write, args=(100 + number * each,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(actions_of(place.older, place.path)) == list(range(100, 100 + writers * each))
    assert not place.told


def test_while_another_rotates_this_one_writes_on(place: Place) -> None:
    import fcntl

    with place.ledger(ledger_size=500) as ledger:
        fill(ledger, range(2))
        with open(place.path, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            fill(ledger, range(2, 6))
            assert actions_of(place.path) == list(range(6))
        fill(ledger, range(6, 7))
    assert actions_of(place.older) == list(range(6)) and actions_of(place.path) == [6]


def test_a_line_that_was_cut_takes_no_other_with_it(place: Place) -> None:
    place.directory.mkdir(parents=True)
    place.path.write_bytes(b'{"schema":1,"event":"action_qu')
    place.keep([queued(7)])
    cut, whole = place.path.read_bytes().splitlines()
    assert cut.endswith(b"action_qu") and json.loads(whole)["action"] == 7


# --- what goes wrong --------------------------------------------------------------------------------------


def directory_is_a_file(place: Place) -> None:
    place.directory.parent.mkdir()
    place.directory.write_text("")


def ledger_is_a_directory(place: Place) -> None:
    place.path.mkdir(parents=True)


def ledger_is_a_pipe(place: Place) -> None:
    place.directory.mkdir(parents=True)
    os.mkfifo(place.path)


def home_is_unknown(place: Place) -> None:
    place.environ.clear()


@pytest.mark.parametrize("trouble", [directory_is_a_file, ledger_is_a_directory, ledger_is_a_pipe, home_is_unknown])
def test_trouble_is_one_warning_and_no_more(place: Place, trouble: Callable[[Place], None]) -> None:
    trouble(place)
    place.keep(BUILD)
    (warning,) = place.warnings()
    assert warning.startswith("no ledger is kept: ") and "\n" not in warning
    assert trouble is home_is_unknown or str(place.directory) in warning
    assert not place.path.is_file()


def test_a_warning_comes_after_the_first_event_and_before_the_last(place: Place) -> None:
    ledger_is_a_directory(place)
    told = place.told
    with place.ledger() as ledger:
        Stream("run", [ledger, told.append]).emit(*map(structs.replace, BUILD))
    (index,) = [index for index, event in enumerate(told) if isinstance(event, Notice)]
    assert 0 < index < len(told) - 1
    assert told[index].run_id == "run" and told[index].time_s > 0


def test_a_full_disk_is_told_once_and_what_fitted_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    room = 700

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(descriptor, data[:room])
        room -= count
        return count

    with place.ledger() as ledger:
        monkeypatch.setattr(os, "write", limited)
        fill(ledger, range(20))
    (warning,) = place.warnings()
    assert warning == f"no ledger is kept: {place.path}: No space left on device"
    assert place.path.stat().st_size == 700
    monkeypatch.undo()
    place.keep([queued(99)])
    *_, cut, last = place.path.read_bytes().splitlines()
    assert json.loads(last)["action"] == 99
    with pytest.raises(ValueError):
        json.loads(cut)


def test_a_rotation_that_fails_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.older.mkdir(parents=True)
    with place.ledger(ledger_size=500) as ledger:
        fill(ledger, range(10))
    (warning,) = place.warnings()
    assert "ledger.jsonl" in warning


# --- names that say nothing -------------------------------------------------------------------------------


def test_hashed_names_tell_nothing_and_stay_comparable(place: Place) -> None:
    place.keep(BUILD, ledger_hash=True)
    place.keep(BUILD, ledger_hash=True)
    assert b"secret" not in place.path.read_bytes() and b"Rakefile" not in place.path.read_bytes()
    records = place.records()
    first, second = records[: len(BUILD)], records[len(BUILD) :]
    for one, other in zip(first, second, strict=True):
        assert {**one, "time_s": 0, "at": 0} == {**other, "time_s": 0, "at": 0}
    by_event = {str(record["event"]): record for record in first}
    assert len(str(by_event["action_queued"]["command"])) == 32
    succeeded, failed = [record for record in first if record["event"] == "action_finished"]
    outputs = succeeded["outputs"]
    assert isinstance(outputs, list) and len(set(outputs)) == 2
    assert succeeded["detail"] == "exit status 0" and len(str(failed["detail"])) == 32
    assert str(first[5]["reason"]).startswith("license: ") and first[2]["reason"] == "refused"
    assert first[4]["reason"] == "" and first[4]["host"] == "lab1:6238" and first[4]["terms"]


def test_another_key_gives_other_names(tmp_path: Path) -> None:
    commands = set()
    for name in ("one", "other"):
        place = Place(tmp_path / name)
        place.keep([queued(1)], ledger_hash=True)
        commands.add(place.records()[0]["command"])
        assert place.key.stat().st_size == 32
    assert len(commands) == 2


@pytest.mark.parametrize("content", [b"", b"too short", bytes(33)])
def test_without_a_key_nothing_is_told(place: Place, content: bytes) -> None:
    place.directory.mkdir(parents=True)
    place.key.write_bytes(content)
    place.keep(BUILD, ledger_hash=True)
    assert not place.path.exists()
    (warning,) = place.warnings()
    assert "ledger.key: not a key" in warning


def test_of_two_builds_that_make_the_key_one_wins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(draft: str, path: str) -> None:
        Path(path).write_bytes(b"k" * 32)
        link(draft, path)

    monkeypatch.setattr(os, "link", late)
    place.keep(BUILD, ledger_hash=True)
    assert place.key.read_bytes() == b"k" * 32
    assert sorted(os.listdir(place.directory)) == ["ledger.jsonl", "ledger.key"]
    assert not place.told


def test_the_parts_of_the_way_may_appear_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def late(path: str, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(ledger_module.os, "mkdir", late)
    place.keep([queued(1)])
    assert actions_of(place.path) == [1]
