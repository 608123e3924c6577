"""What is made from the parsers is fresh and can be read, and what a service manager is told is told."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from server_vocabulary import ROOT, Server, StartServer

from rakefarm.cli import main
from rakefarm.commands.completion import PROGRAMS
from rakefarm.server.service_manager import notify


def test_the_man_pages_are_fresh() -> None:
    pytest.importorskip("argparse_manpage")
    script = str(ROOT / "scripts" / "write_manpages.py")
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run {script}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_can_read_its_completion(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash", "--program", program]) == 0
    text = capsys.readouterr().out
    assert "--config" in text and program in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=20)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_theirs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("doctor", "completion", "calibrate"))


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    for program in ("rakefarm", "rake-p"):
        assert main(["completion", "fish", "--program", program]) == 0
        (tmp_path / f"{program}.fish").write_text(capsys.readouterr().out)
    (tmp_path / "Rakefile.mine").touch()

    def completed(line: str) -> list[str]:
        sources = "; ".join(f"source {tmp_path}/{program}.fish" for program in ("rakefarm", "rake-p"))
        words = ["fish", "--no-config", "-c", f"{sources}; complete -C '{line}'"]
        done = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert completed("rakefarm doc") == ["doctor"]
    assert completed("rake-p --fallb") == ["--fallback"]
    assert set(completed("rake-p --fallback ")) >= {"next", "local", "never"}
    assert "Rakefile.mine" in completed("rake-p -f Rake")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_takes_it(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "zsh", "--program", program]) == 0
    (tmp_path / f"_{program}").write_text(capsys.readouterr().out)
    script = (
        f"fpath=({tmp_path} $fpath); autoload -Uz compinit && compinit -u -D && print $_comps[{program}] && zsh -n $1"
    )
    words = ["zsh", "-f", "-c", script, "zsh", str(tmp_path / f"_{program}")]
    done = subprocess.run(words, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"_{program}\n", "")
    assert "_files" in (tmp_path / f"_{program}").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here to read them")
@pytest.mark.parametrize("name", ["rakeserver.service", "rakeserver-user.service"])
def test_the_units_are_right(name: str, tmp_path: Path) -> None:
    text = re.sub(r"(?<=^ExecStart=)\S+", "/bin/true", (ROOT / "configs" / name).read_text(), flags=re.M)
    unit = tmp_path / "rakeserver.service"
    unit.write_text(text)
    scope = ["--user"] if "user" in name else []
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}

    def analyzed(*words: str) -> "subprocess.CompletedProcess[str]":
        command = ["systemd-analyze", *words, str(unit)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    verified = analyzed("verify", "--man=no", *scope)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    if not scope:
        assert analyzed("security", "--offline=true", "--threshold=35", "--no-pager").returncode == 0


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_a_service_manager_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify") if name == "path" else f"@rakefarm-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if name == "abstract" else address)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        assert manager.recv(99) == b"READY=1"
    notify("STOPPING=1")  # nobody hears it any more


def test_a_server_says_that_it_is_ready_and_that_it_stops(start_server: StartServer, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        server = start_server(env={"NOTIFY_SOCKET": address})
        assert manager.recv(999).decode() == f"READY=1\nSTATUS=listening on {server.address}"
        server.process.terminate()
        assert manager.recv(999).startswith(b"STOPPING=1\n")
        assert server.wait() == 0


def test_metrics_are_what_the_server_tells(server: Server) -> None:
    core = pytest.importorskip("prometheus_client")
    from rakefarm.client.credentials import Credentials
    from rakefarm.client.exporter import FarmCollector
    from rakefarm.client.watch import Watch
    from rakefarm.hosts import parse_host

    hosts = [parse_host(server.address), parse_host("127.0.0.1:1")]
    watch = Watch(hosts, dict(os.environ), 3.0, Credentials())
    watch.start(60.0, lambda host: host)
    watch.wait_for_all(20.0)
    watch.close()
    registry = core.CollectorRegistry()
    registry.register(FarmCollector(watch))
    text = core.generate_latest(registry).decode()
    assert f'rakefarm_slots{{host="{server.address}"}} 2.0' in text
    assert 'rakefarm_up{host="127.0.0.1:1"} 0.0' in text and 'rakefarm_slots{host="127.0.0.1:1"}' not in text
    assert f'rakefarm_store_hits_total{{host="{server.address}"}} 0.0' in text
