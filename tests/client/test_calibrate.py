"""`rakefarm calibrate`: both files of the ledger, lines that are none of ours, tables and JSON, and every wrong use."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from rakefarm import cli, events
from rakefarm.client.calibrate import calibrate
from rakefarm.client.ledger import Ledger
from rakefarm.client.ledger_reader import LedgerReader
from rakefarm.config import ClientSettings, ConfigError
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionQueued,
    BuildFinished,
    BuildStarted,
    HostReady,
    QuoteReceived,
    Stream,
)


class StoppedClock:
    """The time of events, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(1_800_000_000e9 + self.now_s * 1e9)


KEPT_AT = StoppedClock()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(events, "time", KEPT_AT)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def path(environ: dict[str, str]) -> Path:
    return Path(environ["XDG_STATE_HOME"]) / "rakefarm" / "ledger.jsonl"


def keep(environ: dict[str, str], run_id: str, actions: int = 3, host: str = "[::1]:6238", **settings: object) -> None:
    """A build of so many actions that take 0.1, 0.2, … seconds where 0.25 was bid."""
    with Ledger(structs.replace(ClientSettings(), **settings), environ, pytest.fail) as ledger:
        stream = Stream(run_id, [ledger])
        stream.emit(BuildStarted(rakefile="Rakefile", actions=actions, sets=1, hosts=(host,)))
        stream.emit(HostReady(host=host, slots=2, server_version="0.1.0", isolation="process"))
        for number in range(actions):
            stream.emit(
                ActionQueued(action=number, set_name="all", line=1, command=os.fsdecode(b"cc \xff.c"), remote=True),
                QuoteReceived(action=number, host=host, price=0.3, seconds=0.25, terms={"base": 0.2, "memory": 0.1}),
                ActionPlaced(action=number, host=host, price=0.3),
            )
            took_s = 0.1 * (number + 1)
            KEPT_AT.now_s += took_s
            stream.emit(ActionFinished(action=number, host=host, outcome="succeeded", elapsed_s=took_s))
        stream.emit(BuildFinished(exit_status=0, succeeded=actions, failed=0, not_started=0, elapsed_s=1.0))


def tables(environ: dict[str, str], run: str = "all", path: Path | None = None) -> tuple[str, str]:
    """Standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    assert calibrate(path and str(path), run, False, environ, out, err) == 0
    return out.getvalue(), err.getvalue()


def numbers(environ: dict[str, str], run: str = "all", path: Path | None = None) -> dict[str, object]:
    out = io.StringIO()
    assert calibrate(path and str(path), run, True, environ, out, io.StringIO()) == 0
    assert out.getvalue().count("\n") == 1
    found = json.loads(out.getvalue())
    assert isinstance(found, dict)
    return found


def test_the_tables(environ: dict[str, str]) -> None:
    keep(environ, "one")
    out, err = tables(environ)
    assert err == ""
    assert out.splitlines() == [
        "host        actions     bid   took  error   bias  rank",
        "[::1]:6238        3  0.25 s  0.2 s    25%  ×1.25     -",
        "all               3  0.25 s  0.2 s    25%  ×1.25     -",
        "",
        "term    quotes  median  with error",
        "base         3     0.2           -",
        "memory       3     0.1           -",
        "",
        "herd index  0.000  0 of 3 awards found their host full while another had a free slot",
        "fairness    -  no builds shared hosts at one time",
        "builds      1",
    ]


def test_json(environ: dict[str, str]) -> None:
    keep(environ, "one")
    found = numbers(environ)
    assert (found["schema"], found["run"], found["skipped_lines"], found["runs"]) == (1, "all", 0, 1)
    assert found["overall"] == found["hosts"]["[::1]:6238"]  # type: ignore[index]
    assert found["overall"]["bias"] == pytest.approx(1.25)  # type: ignore[index]
    assert found["herd"] == {"awards": 3, "herded": 0, "passing": 0, "index": 0.0}
    assert found["fairness"] == {"groups": 0, "runs": 0, "index": None, "slowdowns": {}}


def test_which_run(environ: dict[str, str], path: Path) -> None:
    keep(environ, "aa1", actions=1)
    keep(environ, "aa2", actions=2)
    counts = {run: numbers(environ, run)["overall"]["actions"] for run in ("all", "last", "aa1", "aa2")}  # type: ignore[index]
    assert counts == {"all": 3, "last": 2, "aa1": 1, "aa2": 2}
    keep(environ, "b", actions=4)
    assert numbers(environ, "b")["run"] == numbers(environ, "last")["run"] == "b"
    for run, complaint in (("aa", "several runs begin"), ("x", "no run begins"), ("", "no run begins")):
        with pytest.raises(ConfigError, match=complaint) as caught:
            numbers(environ, run)
        assert str(path) in str(caught.value)


def test_both_files_are_read_the_older_first(environ: dict[str, str], path: Path) -> None:
    keep(environ, "one")
    lines = path.read_bytes().splitlines(keepends=True)
    Path(f"{path}.1").write_bytes(b"".join(lines[:5]))
    path.write_bytes(b"".join(lines[5:]))
    assert numbers(environ)["overall"]["actions"] == 3  # type: ignore[index]
    path.unlink()
    assert numbers(environ)["overall"]["actions"] == 0  # type: ignore[index]


def test_a_ledger_that_is_rotated_meanwhile_is_read_once(environ: dict[str, str], path: Path) -> None:
    keep(environ, "one")
    os.link(path, f"{path}.1")  # as when it is renamed between the two files' opening
    with LedgerReader(str(path)) as reader:
        assert len(list(reader)) == len(path.read_bytes().splitlines())


def test_a_named_file(environ: dict[str, str], path: Path, tmp_path: Path) -> None:
    keep(environ, "one")
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    path.unlink()
    assert numbers(environ, path=copy)["overall"]["actions"] == 3  # type: ignore[index]


FOREIGN = [
    b'{"schema":1,"event":"action_placed","run_id":"one","ti\n',
    b"hello\n",
    b"\xff\xfe\n",
    b"[]\n",
    b"17\n",
    b'{"event":"action_placed"}\n',
    b'{"schema":2,"event":"action_placed"}\n',
    b'{"schema":1,"event":"action_placed","run_id":"one"}\n',
    b"[" * 100_000 + b"\n",
]


def test_lines_that_are_cut_or_foreign_are_one_warning(environ: dict[str, str], path: Path) -> None:
    keep(environ, "one")
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join([*FOREIGN, *whole[:4], b"\n", b'{"schema":1,"event":"of_tomorrow"}\n', *whole[4:], whole[0][:50]])
    )
    out, err = tables(environ)
    assert err == f"rakefarm: warning: {path}: skipped {len(FOREIGN) + 1} lines that are cut or foreign\n"
    assert "\nall               3 " in out
    assert numbers(environ)["skipped_lines"] == len(FOREIGN) + 1


def test_one_cut_line(environ: dict[str, str], path: Path) -> None:
    keep(environ, "one")
    path.write_bytes(path.read_bytes()[:-10])
    assert "skipped 1 line that is cut or foreign" in tables(environ)[1]


def test_names_are_made_safe_to_show(environ: dict[str, str]) -> None:
    keep(environ, "one", host="evil\x1b[31m")
    assert "\x1b" not in tables(environ)[0]


@pytest.mark.parametrize("options", [[], ["--json"], ["--run", "last"]])
def test_without_a_ledger_there_is_one_clear_line(
    environ: dict[str, str], path: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert cli.main(["calibrate", *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"rakefarm: error: {path}: there is no ledger; a build keeps one, unless its settings say ledger = false [RF002]"
    ]


def test_other_wrong_uses(environ: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text("")
    for options, complaint in (
        (["--run", "x", str(tmp_path / "empty")], "empty: there is no build in it"),
        ([str(tmp_path)], f"{tmp_path}: Is a directory"),
        ([str(tmp_path / "none")], "there is no ledger"),
    ):
        assert cli.main(["calibrate", *options]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert complaint in line


def test_without_a_home(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    assert cli.main(["calibrate"]) == 2
    assert "neither XDG_STATE_HOME nor HOME" in capfd.readouterr().err


def run_command(environ: dict[str, str], stdout: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rakefarm", "calibrate"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ, "TERM": "xterm", "COLUMNS": "80"},
    )


def test_on_a_terminal_it_is_drawn(environ: dict[str, str]) -> None:
    keep(environ, "one")
    ours, theirs = pty.openpty()
    process = run_command(environ, theirs)
    os.close(theirs)
    drawn = b""
    try:
        while data := os.read(ours, 65536):
            drawn += data
    except OSError:  # Linux says so when nobody has the other end any more
        pass
    os.close(ours)
    assert process.communicate()[1] == b"" and process.returncode == 0
    text = drawn.decode()
    assert "[::1]:6238" in text and "────" in text and "×1.25" in text and "herd index" in text


def test_a_reader_that_has_gone_is_no_fault(environ: dict[str, str]) -> None:
    keep(environ, "one")
    reading, writing = os.pipe()
    os.close(reading)
    process = run_command(environ, writing)
    os.close(writing)
    assert process.communicate()[1] == b"" and process.returncode == 141
