"""The audit log: whole lines, for its owner alone, and in a new file when the old one was moved away."""

import json
import os
import threading
from pathlib import Path

import pytest

from rakefarm.config import ConfigError
from rakefarm.server.audit import LONGEST_TEXT, AuditLog, check, shown


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_line_says_when_what_and_from_where(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit"))
    log.write("ran", "192.0.2.1:5", user="zoë\n", command="cc\x1b[2J")
    (line,) = lines(tmp_path / "audit")
    assert list(line) == ["time", "event", "peer", "user", "command"] and line["user"] == "zoë\n"
    assert str(line["time"]).endswith("Z") and (tmp_path / "audit").stat().st_mode & 0o777 == 0o600
    raw = (tmp_path / "audit").read_bytes()
    assert b"\x1b" not in raw and raw.count(b"\n") == 1


def test_ten_at_once_write_whole_lines(tmp_path: Path) -> None:
    logs = [AuditLog(str(tmp_path / "audit")) for _ in range(10)]
    threads = [
        threading.Thread(target=lambda log=log: [log.write("ran", "x", command="c" * 4000) for _ in range(20)])
        for log in logs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path / "audit")) == 200


def test_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit"))
    log.write("ran", "x", number=1)
    (tmp_path / "audit").rename(tmp_path / "old")
    log.write("ran", "x", number=2)
    log.reopen()
    log.write("ran", "x", number=3)
    assert [line["number"] for line in lines(tmp_path / "old")] == [1, 2]
    assert [line["number"] for line in lines(tmp_path / "audit")] == [3]


def test_without_a_path_nothing_is_kept(tmp_path: Path) -> None:
    log = AuditLog("")
    log.write("ran", "x")
    log.reopen()
    check("")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["link", "open to others", "directory", "pipe", "missing directory"])
def test_a_place_that_is_not_fit_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "audit"
    if what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "open to others":
        path.write_text("")
        path.chmod(0o644)
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path = tmp_path / "nothing" / "audit"
    with pytest.raises(ConfigError, match="audit_log"):
        check(str(path))
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_stops_nobody() -> None:
    log = AuditLog("")
    log._path, log._descriptor = "/dev/full", os.open("/dev/full", os.O_WRONLY)
    for _ in range(3):
        log.write("ran", "x")
    os.close(log._descriptor)


def test_what_is_shown_of_a_command() -> None:
    assert shown(b"caf\xe9") == "caf\\xe9" and shown("zoë") == "zoë"
    assert len(shown(b"x" * 100_000)) == LONGEST_TEXT + 1
