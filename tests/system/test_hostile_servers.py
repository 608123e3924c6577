"""Servers that mean harm. The client says so in one line, leaves them out for good, and has an honest host build; when
there is none it ends with status 3. Nothing is ever written but what the build is to make, and that only below here."""

import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from farm_vocabulary import Built, Project
from liar_vocabulary import Liar, Perform
from server_vocabulary import Server

from rakefarm.transport import Transport
from rakefarm.wire import codec
from rakefarm.wire.codec import U64
from rakefarm.wire.messages import (
    Ack,
    Delivered,
    Execute,
    Message,
    MessageType,
    NeedFiles,
    Output,
    Progress,
    Quote,
    Result,
    Stderr,
    Stdout,
)

RESULT = Result("exited", 0, 0.1, 0.0, 0.1, 0, 0.1, "", 0)
EVIL = b"planted\n"


def send(transport: Transport, *messages: Message, body: bytes = EVIL) -> None:
    """Without regard for the state."""
    for message in messages:
        streamed = isinstance(message, Output | Stdout | Stderr)
        transport.socket.sendall(codec.encode(message, len(body) if streamed else None) + (body if streamed else b""))


def output(path: bytes, body: bytes = EVIL) -> Output:
    return Output(path, 0o755, hashlib.sha256(body).digest())


def deliver(*outputs: Output) -> Perform:
    """An action that went well and made these."""
    return lambda transport, request: send(transport, Progress("running", 0.0, 0.0, 0), RESULT, *outputs, Delivered())


def flood(make: Callable[[], bytes]) -> Perform:
    """The same again and again, until the client has had enough."""

    def perform(transport: Transport, request: Execute) -> None:
        with contextlib.suppress(OSError):
            while True:
                transport.socket.sendall(make())

    return perform


def trickle(*messages: Message) -> Perform:
    """A message a byte at a time, ten in a second."""

    def perform(transport: Transport, request: Execute) -> None:
        send(transport, Progress("running", 0.0, 0.0, 0), *messages)
        data = codec.encode(Output(b"out", 0o644, bytes(32)), 1 << 20) if messages else codec.encode(RESULT)
        with contextlib.suppress(OSError):
            for byte in data + bytes(1 << 10):
                transport.socket.sendall(bytes([byte]))
                time.sleep(0.1)

    return perform


def announce(number: MessageType, *sizes: int) -> Perform:
    """The beginning of a message whose payloads have these sizes, as far as they are told."""

    def perform(transport: Transport, request: Execute) -> None:
        send(transport, Progress("running", 0.0, 0.0, 0))
        if number in (MessageType.STDOUT, MessageType.OUTPUT):
            send(transport, RESULT)
        data = U64.pack(number)
        for size in sizes:
            data += U64.pack(size) + bytes(size if size < 100 else 0)
        transport.socket.sendall(data)

    return perform


def huge_stdout(transport: Transport, request: Execute) -> None:
    send(transport, Progress("running", 0.0, 0.0, 0), RESULT)
    with contextlib.suppress(OSError):
        transport.socket.sendall(codec.encode(Stdout(), 1 << 40))
        while True:
            transport.socket.sendall(bytes(1 << 20))


BEAT = codec.encode(Progress("running", 0.0, 0.0, 0))
ABOVE = b"../../.bashrc"
HOSTILE: dict[str, tuple[Perform, str]] = {
    "a name that climbs out": (deliver(output(ABOVE)), "'../../.bashrc' has the part '..'"),
    "an absolute name": (deliver(output(b"/etc/rakefarm-planted")), "'/etc/rakefarm-planted' is absolute"),
    "a name with a newline": (deliver(output(b"out\nfine")), "has a control byte"),
    "a name that is empty": (deliver(output(b"")), "an empty path"),
    "not asked for": (deliver(output(b"out"), output(b".git-hook")), "an output that was not declared"),
    "one name twice": (deliver(output(b"out"), output(b"out")), "the output 'out' came twice"),
    "another content": (deliver(Output(b"out", 0o644, bytes(32))), "is not what its digest says"),
    "files never offered": (lambda transport, _: send(transport, NeedFiles((0, 1))), "the server needs input 1"),
    "the same file twice": (lambda transport, _: send(transport, NeedFiles((0, 0))), "the server needs input 0"),
    "an index of 2^64 - 1": (
        lambda transport, _: send(transport, NeedFiles(((1 << 64) - 1,))),
        "the server needs input",
    ),
    "endless PROGRESS": (flood(lambda: BEAT), "the server floods us with PROGRESS"),
    "a size of 2^63": (announce(MessageType.RESULT, 1 << 63), "RESULT announces 9223372036854775808 bytes"),
    "a size of 2^64 - 1": (announce(MessageType.OUTPUT, (1 << 64) - 1), "OUTPUT announces 18446744073709551615 bytes"),
    "a body of 2^63": (announce(MessageType.OUTPUT, 3, 8, 32, 1 << 63), "OUTPUT announces 9223372036854775808 bytes"),
    "a body of 2^40": (announce(MessageType.STDOUT, 1 << 40), "the server sends 1099511627776 bytes and more for one"),
    "an endless body": (huge_stdout, "the server sends 1099511627776 bytes and more for one"),
    "the end before the result": (lambda transport, _: send(transport, Delivered()), "server may not send DELIVERED"),
    "an output before the result": (lambda transport, _: send(transport, output(b"out")), "server may not send OUTPUT"),
    "the result twice": (
        lambda transport, _: send(transport, Progress("running", 0.0, 0.0, 0), RESULT, RESULT),
        "server may not send RESULT",
    ),
    "a client's word": (lambda transport, _: send(transport, Ack()), "server may not send ACK"),
    "an outcome of its own": (
        lambda transport, _: send(transport, Result("fine", 0, 0.1, 0.0, 0.1, 0, 0.1, "", 0)),
        "a result of the unknown outcome 'fine'",
    ),
    "rubbish": (flood(lambda: os.urandom(4096)), ""),
}
"""What each does, and what is said of it."""

SLOW: dict[str, tuple[Perform, str]] = {
    "a message byte by byte": (trickle(), "it sends fewer than 1000 bytes a second"),
    "a body byte by byte": (trickle(RESULT), "it sends fewer than 1000 bytes a second"),
}


@pytest.fixture
def lie() -> Iterator[Callable[[Perform], Liar]]:
    liars: list[Liar] = []

    def start(perform: Perform) -> Liar:
        liars.append(Liar(perform=perform))
        return liars[-1]

    yield start
    for liar in liars:
        liar.close()


@pytest.fixture
def outside(project: Project) -> Iterator[Path]:
    """Everything around the project is as it was."""
    (project.scratch / ".bashrc").write_text("mine\n")
    before = {path for path in project.scratch.parent.rglob("*") if "cache" not in path.parts}
    yield project.scratch
    after = {path for path in project.scratch.parent.rglob("*") if "cache" not in path.parts}
    new = {path for path in after - before if project.path not in path.parents}
    assert not [path for path in new if path.is_file() and EVIL in path.read_bytes()]
    assert (project.scratch / ".bashrc").read_text() == "mine\n"
    assert not Path("/etc/rakefarm-planted").exists()


def write_build(project: Project, declared: bool = True) -> None:
    project.write("in", "x\n")
    project.rakefile("a:", "remote-cat in in > out", "> requires in", *["> produces out"][:declared])
    settings = project.scratch / "config" / "rakefarm" / "client.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("minimum_rate = 1000\n")


def one_line(built: Built, text: str) -> bool:
    """Whether there is one line, and no more, that warns of it."""
    return len([line for line in built.stderr.decode().splitlines() if text in line and "warning" in line]) == 1


def check_alone(project: Project, liar: Liar, said: str) -> None:
    built = project.build("--json", hosts=[liar.address])
    assert built.status == 3, built
    assert built.says(said) and one_line(built, liar.address), built.stderr.decode()
    assert liar.executes == 1, "it is not believed a second time"
    assert project.made() == {"in"}


def check_beside(project: Project, liar: Liar, server: Server) -> None:
    built = project.build(hosts=[liar.address, server])
    assert built.status == 0, built.stderr.decode()
    assert liar.executes <= 1, "the honest one may have been first"
    assert one_line(built, liar.address) == bool(liar.executes), built.stderr.decode()
    assert project.made() == {"in", "out"} and project.read("out") == b"x\nx\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_not_believed(
    project: Project, outside: Path, lie: Callable[[Perform], Liar], farm: tuple[Server, ...], name: str
) -> None:
    perform, said = HOSTILE[name]
    write_build(project, declared="name" not in name)
    check_alone(project, lie(perform), said)
    check_beside(project, lie(perform), farm[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_it_is_not_waited_for(
    project: Project, outside: Path, lie: Callable[[Perform], Liar], farm: tuple[Server, ...], name: str
) -> None:
    perform, said = SLOW[name]
    write_build(project)
    liar = lie(perform)
    began = time.monotonic()
    built = project.build("--fallback", "never", hosts=[liar.address])
    assert built.status == 3 and built.says(said), built.stderr.decode()
    assert 5 < time.monotonic() - began < 15
    liar = lie(perform)
    built = project.build(hosts=[liar.address, farm[0]])
    assert built.status == 0 and project.read("out") == b"x\nx\n", built.stderr.decode()


@pytest.mark.slow
def test_a_price_byte_by_byte_is_not_waited_for(project: Project, farm: tuple[Server, ...]) -> None:
    """Also where the client only stands in a queue."""

    def say_slowly(transport: Transport, offer: object) -> None:
        with contextlib.suppress(OSError):
            for byte in codec.encode(Quote(offer)) * 10:  # type: ignore[arg-type]
                transport.socket.sendall(bytes([byte]))
                time.sleep(0.1)

    write_build(project)
    liar = Liar(say=say_slowly)
    try:
        built = project.build("--policy", "sparrow", hosts=[liar.address])
        assert built.status == 3, built.stderr.decode()
        assert built.says(liar.address)
    finally:
        liar.close()


def test_what_a_server_says_is_made_printable(project: Project, lie: Callable[[Perform], Liar]) -> None:
    escape = "\x1b]0;mine\x07\x1b[2J\u202e"
    failed = Result("over_limit", 0, 0.1, 0.0, 0.1, 0, 0.1, f"too much {escape}", 0)
    write_build(project)
    built = project.build(hosts=[lie(lambda transport, _: send(transport, failed, Delivered())).address])
    assert built.status == 1 and built.says("too much"), built.stderr
    assert b"\x1b]" not in built.stderr and b"\x07" not in built.stderr and "\u202e" not in built.stderr.decode()


def test_as_many_outputs_as_one_likes(project: Project, farm: tuple[Server, ...]) -> None:
    """More than a process may have open by default."""
    project.rakefile("a:", "remote-for i in $(seq 1500); do echo $i > out$i; done")
    built = project.build(hosts=farm[:1], prefix=["prlimit", "--nofile=1024:4096"])
    assert built.status == 0, built.stderr.decode()[-500:]
    assert len(project.made()) == 1500


def test_a_float_that_is_no_number_is_no_result(project: Project, lie: Callable[[Perform], Liar]) -> None:
    data = codec.encode(Progress("running", 0.0, 0.0, 0)) + codec.encode(RESULT).replace(
        struct.pack(">d", 0.1), struct.pack(">d", float("nan")), 1
    )
    write_build(project)
    check_alone(project, lie(lambda transport, _: transport.socket.sendall(data)), "finite")
