"""`rakefarm doctor` tells apart what can be wrong with a host, and says for each the right thing to do."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from farm_vocabulary import Project, open_server_under, small_disks_work, with_small_disk
from secure_vocabulary import make_keys, open_keyed_server
from server_vocabulary import Server, StartServer, encode

from rakefarm.client import examination
from rakefarm.client.credentials import Credentials
from rakefarm.client.examination import Bench, Examination, examine
from rakefarm.hosts import Host
from rakefarm.wire.messages import Error

AN_HOUR_AHEAD = (
    "import runpy, sys, time; real = time.time; time.time = lambda: real() + 3600;"
    " sys.argv = sys.argv[sys.argv.index('-m') + 1:]; runpy.run_module('rakefarm.server', run_name='__main__')"
)


def doctor(project: Project, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rakefarm", "doctor", *words],
        cwd=project.path,
        env=project.environment(env),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr and done.returncode != 70, done.stderr
    return done.returncode, done.stdout, done.stderr


def verdicts(project: Project, *words: str) -> dict[str, dict[str, object]]:
    """By host, from --json."""
    _, stdout, stderr = doctor(project, "--json", *words)
    assert stdout, stderr
    return {host["host"]: host for host in json.loads(stdout)["hosts"]}


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Accepts, says this at most, and nothing more until the client leaves; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    connection.sendall(answer)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def test_it_tells_apart_who_can_not_be_talked_to(project: Project, server: Server, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    config.write_text("connect_s = 0.5\n")
    refusal = encode(Error("version", "this server (rakefarm 9) speaks protocol version 9"))
    with stranger(b"SSH-2.0-OpenSSH_9.2\r\n") as ssh, stranger(b"") as silent, stranger(refusal) as other:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            down = f"127.0.0.1:{closed.getsockname()[1]}"
        named = ["--config", str(config), server.address, ssh, silent, other, down, "no-such-name.invalid"]
        found = verdicts(project, *named)
        status, table, _ = doctor(project, *named)
    codes = {host: told["code"] for host, told in found.items()}
    assert codes == {
        server.address: None,
        ssh: "RF105",
        silent: "RF107",
        other: "RF112",
        down: "RF103",
        "no-such-name.invalid:6238": "RF101",
    }
    assert "rakeserver" in str(found[down]["fix"]) and "same release" in str(found[other]["fix"])
    assert status == 3 and "1 of 6 hosts usable" in table
    for number in filter(None, codes.values()):
        assert f"[{number}]\n  fix: " in table


def test_the_wrong_port_of_a_host_that_answers_at_the_usual_one(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    bench = Bench(Credentials(), {"HOME": str(tmp_path)}, 5.0, "cc", {}, str(tmp_path / "trial.c"))
    for usual, code in ((port, "RF103"), (server.port, "RF104")):
        monkeypatch.setattr(examination, "DEFAULT_PORT", usual)  # no test has a port that is fixed
        found = Examination(f"127.0.0.1:{port}", "127.0.0.1")
        examine(Host("127.0.0.1", port), bench, found, lambda host: host)
        assert found.code is not None and found.code.number == code
    assert found.problem == f"nothing listens at port {port}; a rakeserver does at {server.port}"
    assert "name the port" in found.fix


def test_a_usable_host_is_told_of_with_all_that_is_known(project: Project, server: Server) -> None:
    status, stdout, _ = doctor(project, "--json", server.address)
    (told,) = json.loads(stdout)["hosts"]
    assert status == 0 and told["usable"]
    assert told["compile_s"] > 0 and abs(told["clock_skew_s"]) < 5 and told["isolation"] and told["route"]
    assert told["status"]["sandbox"]["free_bytes"] > 0
    assert told["compilers"]["cc"]["target"] == json.loads(stdout)["compilers"]["cc"]["target"]


def test_keys(project: Project, tmp_path: Path, start_server: StartServer) -> None:
    (tmp_path / "server.toml").write_text("penalty_s = 0\n")

    def keyed(scratch: Path, *options: str) -> Server:
        return open_keyed_server(scratch, "--config", str(tmp_path / "server.toml"), *options)[0]

    asking, plain = start_server(opener=keyed), start_server()
    assert verdicts(project, asking.address)[asking.address]["code"] == "RF108"
    make_keys(tmp_path / "other", "zoe")
    found = verdicts(project, "--key-file", str(tmp_path / "other"), asking.address, plain.address)
    assert {host: told["code"] for host, told in found.items()} == {asking.address: "RF109", plain.address: "RF110"}
    assert f"add-host {asking.host}" in str(found[asking.address]["fix"])


@pytest.mark.slow
def test_it_tells_apart_what_a_host_lacks(project: Project, tmp_path: Path, start_server: StartServer) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    for directory in (bare, other):
        directory.mkdir()
        for name in ("sh", "head", "true"):
            (directory / name).symlink_to(shutil.which(name) or name)
    (other / "cc").write_text(
        '#!/bin/sh\ncase $1 in --version) echo "cc 99.1" ;; -dumpmachine) echo pdp11 ;; *) exec /usr/bin/cc "$@" ;; esac\n'
    )
    (other / "cc").chmod(0o755)
    for directory, path in ((bare, str(bare)), (other, f"{other}:{os.environ['PATH']}")):
        (tmp_path / f"{directory.name}.toml").write_text(f'path = "{path}"\n')
    ahead = open_server_under([sys.executable, "-c", AN_HOUR_AHEAD], _made(tmp_path / "ahead"))
    servers = [
        start_server("--config", str(tmp_path / "bare.toml")),
        start_server("--config", str(tmp_path / "other.toml")),
    ]
    try:
        found = verdicts(project, *[each.address for each in servers], ahead.address)
    finally:
        ahead.end()
    assert [told["code"] for told in found.values()] == ["RF120", "RF121", "RF125"]
    assert found[ahead.address]["problem"] == "its clock is 3600 s ahead of ours"


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.slow
@pytest.mark.skipif(not small_disks_work(), reason="no disk can be mounted here")
def test_a_full_disk(project: Project, tmp_path: Path) -> None:
    disk = _made(tmp_path / "disk")
    (tmp_path / "small.toml").write_text(f'sandbox_directory = "{disk}"\n')
    server = open_server_under(
        with_small_disk(disk, "8m"), _made(tmp_path / "full"), "--config", str(tmp_path / "small.toml")
    )
    try:
        assert verdicts(project, server.address)[server.address]["code"] == "RF123"
    finally:
        server.end()
