"""Files of hosts, and what ssh is asked for."""

from pathlib import Path

import pytest

from rakefarm.config import ConfigError
from rakefarm.hosts import HostSyntaxError
from rakefarm.launch.launcher import Options
from rakefarm.launch.node import LaunchFailed
from rakefarm.launch.ssh import Ssh, parse_host_file, read_host_file
from rakefarm.launch.streams import Ended, Line


def test_entries() -> None:
    text = "# the lab\nlab1\nme@lab2:7000/4  # mine\nssh://lab3, [2001:db8::1]:7000\n\n"
    found = parse_host_file(text)
    assert [(each.host.name, each.host.port, each.host.slots, each.tunnelled) for each in found] == [
        ("lab1", None, None, False),
        ("me@lab2", 7000, 4, False),
        ("lab3", None, None, True),
        ("2001:db8::1", 7000, None, False),
    ]
    assert parse_host_file("") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lab1\n-oProxyCommand=x", "line 2: "),
        ("lab1 slots=4", "line 1: "),
        ("unix:/run/x", "is a socket here"),
        ("lab1\nlab1/2", "line 2: lab1 stands there twice"),
        ("ssh://ssh://lab1", "line 1: "),
        ("a;b", "line 1: "),
        ("$(x)@lab1", "line 1: "),
    ],
)
def test_what_is_no_entry(text: str, problem: str) -> None:
    with pytest.raises(HostSyntaxError) as error:
        parse_host_file(text)
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"lab1\n" * 300_000)
    for name, problem in (
        ("empty", "no host stands there"),
        ("binary", "not text"),
        ("long", "longer than"),
        ("none", "No such file"),
    ):
        with pytest.raises(ConfigError, match=problem):
            read_host_file(str(tmp_path / name))


def test_what_ssh_is_asked_for() -> None:
    destinations = parse_host_file("me@lab2:7000/4 ssh://lab3")
    launch = Ssh(destinations, Options(port=8000), "/opt/rakeserver", {})
    direct, tunnelled = (launch.command(each) for each in destinations)
    assert direct[-3:-1] == ["--", "me@lab2"] and "--launched ssh -p 7000 --slots 4" in direct[-1]
    assert tunnelled[-3:-1] == ["--", "lab3"] and "--launched ssh -p 8000 -i 127.0.0.1" in tunnelled[-1]
    assert "BatchMode=yes" in direct and "ControlMaster=no" in direct


def test_ends() -> None:
    launch = Ssh(parse_host_file("lab1 lab2"), Options(), "/opt/rakeserver", {})
    launch.hear(Line(0, "ssh: connect to host lab1 port 22: No route to host", error=True))
    launch.hear(Ended(0, 255))
    assert str(launch.nodes[0].failure()) == "lab1: ssh failed: ssh: connect to host lab1 port 22: No route to host"
    assert not launch.nodes[1].ended
    with pytest.raises(LaunchFailed, match="lab2: ended with status 3"):
        launch.hear(Ended(1, 3))
