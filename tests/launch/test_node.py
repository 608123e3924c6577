"""What is made of what nodes say."""

import subprocess
from pathlib import Path

import pytest

from rakefarm.codes import Code
from rakefarm.launch.node import Node, failed, server_script

LINE = "listening on {} slots=2 isolation=namespaces authentication={} encryption={} speed=1.00"


@pytest.mark.parametrize(
    ("where", "address"), [("192.0.2.7:6238", "192.0.2.7:6238"), ("[2001:db8::7]:40001", "[2001:db8::7]:40001")]
)
def test_a_server_says_where_it_is(where: str, address: str) -> None:
    node = Node("lab1")
    node.hear("Welcome to lab1!", False)
    assert node.host is None
    node.hear(LINE.format(where, "key", "tls"), False)
    assert node.host is not None and (node.host.address, node.slots) == (address, 2)


def test_a_node_behind_ssh_is_reached_through_it() -> None:
    node = Node("me@lab1", through="me@lab1")
    node.hear(LINE.format("127.0.0.1:7000", "key", "tls"), False)
    assert node.host is not None and node.host.address == "ssh://me@lab1:7000"


@pytest.mark.parametrize(
    "line",
    [
        LINE.format("192.0.2.7:6238", "insecure", "none"),
        LINE.format("192.0.2.7:6238", "loopback", "none"),
        LINE.format("192.0.2.7", "key", "tls"),
        LINE.format("192.0.2.7:99999", "key", "tls"),
        LINE.format("unix:/tmp/socket", "key", "tls"),
        LINE.format("ssh://lab9:1", "key", "tls"),
        LINE.format("192.0.2.7:1,192.0.2.8:1", "key", "tls"),
        LINE.format("192.0.2.7:6238", "key", "tls").replace("slots=2", "slots=0"),
        LINE.format("192.0.2.7:6238", "key", "tls").replace("slots=2", "slots=" + "9" * 400),
        "x" + LINE.format("192.0.2.7:6238", "key", "tls"),
    ],
)
def test_what_is_no_keyed_server_of_a_node_is_not_believed(line: str) -> None:
    node = Node("lab1")
    node.hear(line, False)
    assert node.host is None


def test_on_standard_error_nothing_is_announced() -> None:
    node = Node("lab1")
    node.hear(LINE.format("192.0.2.7:6238", "key", "tls"), True)
    assert node.host is None


def test_the_first_word_of_a_server_holds() -> None:
    node = Node("lab1")
    node.hear(LINE.format("192.0.2.7:1", "key", "tls"), False)
    node.hear(LINE.format("192.0.2.66:1", "key", "tls"), False)
    assert node.host is not None and node.host.name == "192.0.2.7"


@pytest.mark.parametrize(
    ("said", "ended", "text", "code"),
    [
        (["rakeserver: error: can't listen [RF006]", "rm: busy"], "exit 2", "n1: can't listen", Code.SERVER_START),
        (["sh: 1: rakeserver: not found"], "exit 127", "n1: exit 127: sh: 1: rakeserver: not found", Code.LAUNCH),
        ([], "Killed", "n1: Killed", Code.LAUNCH),
        ([], "", "n1: its server says nothing", Code.LAUNCH),
        (["\x1b[2Jgone"], "exit 1", "n1: exit 1: \\x1b[2Jgone", Code.LAUNCH),
        (["rakeserver: error: odd [RF999]"], "", "n1: odd", Code.LAUNCH),
    ],
)
def test_a_failure_is_what_the_server_complained_of(said: list[str], ended: str, text: str, code: Code) -> None:
    node = Node("n1", ended=ended)
    for line in said:
        node.hear(line, True)
    failure = node.failure()
    assert (str(failure), failure.code) == (text, code)


def test_a_failure_is_one_line_of_bounded_length() -> None:
    assert len(str(failed("x" * 10_000))) <= 300


def test_the_script_takes_what_is_there_first(tmp_path: Path) -> None:
    """Our own path, then the PATH; else it says what to do."""

    def run(ours: str, program: str = "") -> tuple[int, str]:
        script = server_script(program, ours, "slurm", ("-p", "0"), tell_name=True)
        assert "\n" not in script
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SLURMD_NODENAME": "n7"}
        done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, timeout=20)
        assert done.stdout.startswith("node n7\n")
        return done.returncode, done.stdout.removeprefix("node n7\n") + done.stderr

    def program(path: Path) -> str:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{path.parent.name}" "$@"\n')
        path.chmod(0o755)
        return str(path)

    ours = tmp_path / "it's here" / "rakeserver"
    assert run(str(ours)) == (
        127,
        f"rakeserver: error: there is no {ours} here, and no rakeserver on the PATH; name it with --program\n",
    )
    program(tmp_path / "bin" / "rakeserver")
    assert run(str(ours)) == (0, "bin --launched slurm -p 0\n")
    program(ours)
    assert run(str(ours)) == (0, "it's here --launched slurm -p 0\n")
    assert run(str(ours), program(tmp_path / "mine" / "server")) == (0, "mine --launched slurm -p 0\n")
