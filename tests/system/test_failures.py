"""What can be wrong with a project, a host or a disk: one clear line, the right exit status, nothing half-written."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from farm_vocabulary import (
    Built,
    Project,
    open_server_under,
    small_disks_work,
    wait_until_idle,
    with_small_disk,
    without_privilege,
)
from server_vocabulary import Server, StartServer

Farm = tuple[Server, ...]

needs_small_disks = pytest.mark.skipif(not small_disks_work(), reason="this machine lets nobody mount a disk")


def about(built: Built, text: str) -> list[bytes]:
    """The lines of standard error that say `text`."""
    return [line for line in built.stderr.splitlines() if text.encode() in line]


# --- the project ----------------------------------------------------------------------------------------


def test_a_missing_required_file(project: Project, farm: Farm) -> None:
    project.rakefile("compile:", "remote-touch made", "> requires none.h", "remote-touch sibling", "next:", "true")
    built = project.build(hosts=farm)
    assert built.status == 1
    (line,) = about(built, "none.h")
    for part in (b"set 'compile'", b"line 2", b"touch made", b"missing required file none.h"):
        assert part in line
    assert project.made() == {"sibling"}


def test_a_missing_required_file_of_a_local_action_is_a_warning(project: Project) -> None:
    project.rakefile("a:", "touch made", "> requires none.h")
    built = project.build()
    assert built.status == 0
    assert len(about(built, "line 2: required file none.h is missing")) == 1


def test_a_required_pipe_is_not_waited_for(project: Project, farm: Farm) -> None:
    os.mkfifo(project.path / "pipe")
    project.rakefile("a:", "remote-cat pipe", "> requires pipe")
    built = project.build(hosts=farm)
    assert built.status == 1
    assert about(built, "the required pipe is")


@pytest.mark.skipif(os.geteuid() != 0 and os.access("/root", os.R_OK), reason="permission bits do not hold here")
def test_a_required_file_that_may_not_be_read(project: Project, farm: Farm) -> None:
    project.write("secret.c", "text", 0o000)
    project.rakefile("a:", "remote-cat secret.c", "> requires secret.c")
    built = project.build(hosts=farm, prefix=without_privilege())
    assert built.status == 1
    assert about(built, "can't read required file secret.c: Permission denied")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("\trequires x\n", "Rakefile:1:2: "),
        ("a:\n\t\n\tremote-\n", "Rakefile:3:2: "),
        ("PORT = none\na:\n\ttrue\n", "Rakefile:1:8: "),
        ("what is this\n", "Rakefile:1:1: "),
        ("a:\n\ttrue\n\t\trequires 'open\n", "Rakefile:3:12: "),
    ],
)
def test_a_rakefile_that_cannot_be_understood(project: Project, text: str, place: str) -> None:
    project.write("Rakefile", text)
    built = project.build()
    assert built.status == 2
    assert about(built, place)
    assert project.made() == set()


def test_every_error_of_a_rakefile_is_shown_with_its_warnings(project: Project) -> None:
    project.write("Rakefile", "PORT = none\nKEY = value\na:\n\tremote-\n\tremote cc\n\t\ttimeout x\n")
    built = project.build()
    assert built.status == 2
    places = [line.split(b": ")[1:3] for line in built.stderr.splitlines()]
    assert [(kind, place.split(b":")[1]) for kind, place in places] == [
        (b"error", b"1"),
        (b"warning", b"2"),
        (b"error", b"4"),
        (b"warning", b"5"),
        (b"error", b"6"),
    ]


def test_at_most_twenty_errors_are_shown(project: Project) -> None:
    project.write("Rakefile", "a:\n" + "\tremote-\n" * 50)
    assert len(project.build().stderr.splitlines()) == 20


def test_a_dry_run_shows_warnings(project: Project) -> None:
    project.write("Rakefile", "KEY = value\na:\n\ttrue\n")
    built = project.build("-n")
    assert built.status == 0
    assert about(built, "warning: Rakefile:1:1: ")


def test_no_rakefile(project: Project) -> None:
    built = project.build()
    assert built.status == 2
    (line,) = built.stderr.splitlines()
    assert b"Rakefile: no such file" in line


def test_a_directory_for_a_rakefile(project: Project) -> None:
    (project.path / "Rakefile").mkdir()
    built = project.build()
    assert built.status == 2
    assert b"Rakefile: is a directory" in built.stderr


def test_a_rakefile_with_nothing_to_do(project: Project) -> None:
    project.write("Rakefile", "# nothing\nempty:\n")
    assert project.build().status == 0


def test_a_command_with_a_zero_byte(project: Project, farm: Farm) -> None:
    project.write("Rakefile", b"a:\n\tremote-echo a\0b\n")
    built = project.build(hosts=farm)
    assert built.status in (1, 2)


# --- hosts ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def impostor(answer: bytes | None) -> Iterator[str]:
    """Somebody else's server: it answers whatever comes with these bytes, or with silence; answers its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            kept.append(connection)
            if answer is not None:
                with contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for connection in kept:
            connection.close()


@pytest.fixture
def hasty(tmp_path: Path) -> list[str]:
    """Options of a client that waits only a little."""
    (tmp_path / "hasty.toml").write_text("connect_s = 0.5\nquote_s = 0.5\n")
    return ["--config", str(tmp_path / "hasty.toml")]


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>no</html>"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "it accepted the connection and did not answer within 0.5 s"),
        (HTTP, "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"", "closed"),
        (b"\xff" * 200, ""),
    ],
)
def test_a_host_that_is_something_else(
    project: Project, farm: Farm, hasty: list[str], answer: bytes | None, reason: str
) -> None:
    project.rakefile("a:", "remote-sleep 0.8; touch made")  # a build that is over doesn't wait for an answer
    with impostor(answer) as address:
        built = project.build(*hasty, hosts=[address, *farm])
    assert built.status == 0
    (line,) = about(built, f"warning: {address}")
    assert b"left out" in line and reason.encode() in line
    assert line.isascii() and line.decode().isprintable()
    assert project.made() == {"made"}


def test_a_host_that_is_something_else_is_no_farm(project: Project, hasty: list[str]) -> None:
    project.rakefile("a:", "remote-touch made")
    with impostor(HTTP) as web, impostor(None) as silent:
        built = project.build(*hasty, hosts=[web, silent])
    assert built.status == 3
    (line,) = about(built, "not run: ")
    assert f"{web}: this is HTTP".encode() in line and f"{silent}: it accepted".encode() in line
    assert project.made() == set()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1:1", "connection refused; is rakeserver running there?"),
        ("no-such-host.invalid:6238", "the name can't be resolved"),
        ("[::1]:1", "[::1]:1"),
    ],
)
def test_a_host_that_is_not_there(project: Project, host: str, reason: str) -> None:
    project.rakefile("a:", "remote-touch made")
    alone = project.build(hosts=[host])
    assert alone.status == 3
    assert project.made() == set()
    (line,) = about(alone, f"warning: {host}")
    assert reason.encode() in line
    assert about(alone, "not run: set 'a', line 2: touch made: no server can run it")


def test_a_silent_host_delays_nothing(project: Project, farm: Farm) -> None:
    project.rakefile("a:", "touch here", "remote-touch there")
    with impostor(None) as address:
        client = project.start(hosts=[address, farm[0]])
        built = client.end()
    assert built.status == 0
    (begun,), (over,) = client.matching("build_started", {}), client.matching("build_finished", {})
    assert over["time_s"] - begun["time_s"] < 2.0  # type: ignore[operator]


@contextlib.contextmanager
def delaying(server: Server, seconds: float) -> Iterator[str]:
    """A way to a server that is open only after a while; answers its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                time.sleep(seconds)
                far = socket.create_connection((server.host, server.port))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for end in ends:
            end.close()


def test_a_host_that_answers_late_joins(project: Project, farm: Farm) -> None:
    project.rakefile("a:", *["remote-sleep 0.4"] * 8)
    with delaying(farm[1], 0.4) as late:
        client = project.start(hosts=[f"{farm[0].address}/1", late])
        assert client.end().status == 0
    assert {event["host"] for event in client.matching("action_placed", {})} == {farm[0].address, late}
    placed = client.matching("action_placed", {})[0]
    assert placed["time_s"] < client.matching("host_ready", {"host": late})[0]["time_s"]  # type: ignore[operator]


def test_what_only_a_late_host_may_run_waits_for_it(project: Project, farm: Farm, hasty: list[str]) -> None:
    """Then for its answer, or its silence, before the action is given up."""
    project.rakefile("a:", "remote-true", "> needs no-such-thing")
    with impostor(None) as address:
        built = project.build(*hasty, hosts=[address, farm[0]])
    assert built.status == 3
    (line,) = about(built, "not run: ")
    assert f"{address}: it accepted".encode() in line and f"{farm[0].address}: ".encode() in line


def test_an_interrupt_does_not_wait_for_a_silent_host(project: Project) -> None:
    project.rakefile("a:", "remote-true")
    with impostor(None) as address:
        client = project.start(hosts=[address])
        client.wait_for("build_started")
        started = time.monotonic()
        client.process.terminate()
        built = client.end()
    assert built.status == 143
    assert time.monotonic() - started < 2.0


def test_an_embedded_farm_that_cannot_start(project: Project, tmp_path: Path) -> None:
    config = tmp_path / "client" / "config" / "rakefarm"
    config.mkdir(parents=True)
    (config / "server.toml").write_text("prot = 1\n")
    project.rakefile("a:", "remote-true")
    built = project.build()
    assert built.status == 3
    assert about(built, "server.toml: unknown key 'prot'")
    assert about(built, "the embedded farm could not be started")


# --- disks ----------------------------------------------------------------------------------------------


def test_a_directory_that_may_not_be_written(project: Project, farm: Farm) -> None:
    project.write("in", "text")
    project.rakefile("a:", "remote-cat in > out", "> requires in", "remote-cat in", "> requires in")
    project.path.chmod(0o555)
    try:
        built = project.build(hosts=farm, prefix=without_privilege())
    finally:
        project.path.chmod(0o755)
    assert built.status == 1
    (line,) = about(built, "can't write")
    assert f"{project.path}/out: Permission denied".encode() in line
    assert built.stdout == b"text"
    assert project.made() == {"in"}


def on_small_disk(project: Project, script: str) -> list[str]:
    """A prefix: the client works on a disk of 2 MiB with the project's files, whose end is listed in `listing`."""
    around = (
        'cp -a "$1/." "$2" && cd "$2" && listing=$3 && shift 3 && '
        + script
        + ' && { "$@"; status=$?; ls -A > "$listing"; cat known > "$listing.known"; exit $status; }'
    )
    disk = project.scratch / "disk"
    disk.mkdir()
    listing = str(project.scratch / "listing")
    return [*with_small_disk(disk, "2m"), "sh", "-c", around, "sh", str(project.path), str(disk), listing]


@needs_small_disks
def test_a_full_disk_here_fails_the_action_and_leaves_no_half_file(project: Project, farm: Farm) -> None:
    project.write("known", "before")
    project.rakefile(
        "a:", "remote-head -c 3000000 /dev/zero > big; head -c 3000000 /dev/zero > known", "remote-touch small"
    )
    built = project.build(hosts=farm, prefix=on_small_disk(project, "true"))
    assert built.status == 1
    assert len(about(built, "can't write big: No space left on device")) == 1
    assert (project.scratch / "listing").read_text().split() == ["Rakefile", "known", "small"]
    assert (project.scratch / "listing.known").read_text() == "before"


@needs_small_disks
@pytest.mark.parametrize("prefix", ["", "remote-"])
def test_long_output_on_a_full_disk_fails_the_action(project: Project, farm: Farm, prefix: str) -> None:
    project.write("known", "before")
    project.rakefile("a:", f"{prefix}head -c 9000000 /dev/zero")
    built = project.build(hosts=farm, prefix=on_small_disk(project, "export TMPDIR=$PWD"))
    assert built.status == 1
    assert about(built, "No space left on device")
    assert (project.scratch / "listing").read_text().split() == ["Rakefile", "known"]


@needs_small_disks
def test_a_full_disk_on_the_server(project: Project, start_server: StartServer, tmp_path: Path) -> None:
    scratch = tmp_path / "small"
    (scratch / "tmp").mkdir(parents=True)
    opener = partial(open_server_under, with_small_disk(scratch / "tmp", "4m"))
    small = start_server("--slots", "2", opener=opener, scratch=scratch)
    project.write("big", bytes(6_000_000))
    project.rakefile("a:", "remote-wc -c < big > size", "> requires big")
    alone = project.build(hosts=[small])
    assert alone.status == 3
    assert about(alone, f"{small.address}: disk: ")
    project.rakefile("a:", "remote-head -c 6000000 /dev/zero > made")
    assert about(project.build(hosts=[small]), "exit status 1")
    project.rakefile("a:", "remote-head -c 6000000 /dev/zero")
    assert project.build(hosts=[small]).stdout == bytes(6_000_000)  # its streams take no room on the disk
    other = start_server("--slots", "2")
    project.rakefile("a:", "remote-wc -c < big > size", "> requires big")
    among = project.build(hosts=[small, other])
    assert among.status == 0, among.stderr
    assert project.read("size") == b"6000000\n"
    assert project.made() == {"big", "size"}
    wait_until_idle(small)
    project.rakefile("a:", "remote-echo fits > fits")
    assert project.build(hosts=[small]).status == 0


@needs_small_disks
def test_a_full_store_only_keeps_nothing(project: Project, start_server: StartServer, tmp_path: Path) -> None:
    scratch = tmp_path / "small"
    (scratch / "cache").mkdir(parents=True)
    opener = partial(open_server_under, with_small_disk(scratch / "cache", "1m"))
    small = start_server("--slots", "2", opener=opener, scratch=scratch)
    project.write("big", bytes(3_000_000))
    project.rakefile("a:", "remote-cat big big > twice", "> requires big")
    for _ in range(2):
        assert project.build(hosts=[small]).status == 0
        assert project.read("twice") == bytes(6_000_000)
