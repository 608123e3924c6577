"""A real server and clients that obey nobody: each loses its own connection, and nothing else happens."""

import contextlib
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_vocabulary import (
    A_QUOTE,
    A_WAIT,
    Client,
    Gate,
    Server,
    a_task,
    an_input,
    encode,
    execute,
    hello,
    open_server,
    processes_in,
    variables,
    wait_until,
)

from rakefarm.wire import Limits
from rakefarm.wire.codec import PAYLOAD_COUNTS, U64
from rakefarm.wire.messages import (
    Ack,
    Decline,
    Delivered,
    Error,
    Execute,
    File,
    Input,
    MessageType,
    Need,
    NeedFiles,
    Progress,
    Quote,
    QuoteRequest,
    Result,
    Supplied,
    Wait,
    Welcome,
)

GROWTH_BYTES = 20 << 20
SLOTS = 2
LIMITS = Limits()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's directory; `outside` in it is what must not be touched."""
    path = tmp_path_factory.mktemp("hostile")
    (path / "outside").mkdir()
    (path / "outside" / "precious").write_text("keep", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    """One server for all: each test leaves it as it was."""
    server = open_server(place, "--slots", str(SLOTS))
    for _ in range(8):  # whatever is made at first use is there now
        for client in [Client(server.host, server.port).introduce() for _ in range(4)]:
            with client:
                assert isinstance(client.ask(), Quote)
                assert client.run(b"cat in", {b"in": b"x"}).stdout == b"x"
    yield server
    server.end()
    assert server.directories() == []


@pytest.fixture(scope="module")
def memory_before(server: Server) -> int:
    return server.memory_bytes()


def files_outside(place: Path) -> list[str]:
    """Everything but the cache, the log and the inside of the sandboxes."""
    found = []
    for directory, names, files in os.walk(place):
        if directory == str(place):
            names.remove("cache")
            files.remove("log")
        names[:] = [name for name in names if not name.startswith("executor-")]  # kept from action to action
        found += [os.path.relpath(os.path.join(directory, name), place) for name in names + files]
    return sorted(found)


@pytest.fixture(autouse=True)
def _unharmed(server: Server, place: Path, memory_before: int) -> Iterator[None]:
    """After each test the server works, has not grown, and nothing is written where it should not be."""
    workers, files = server.worker_pids(), files_outside(place)
    said = len(server.log())
    yield
    with Client(server.host, server.port) as client:
        client.introduce()
        wait_until(lambda: isinstance(client.ask(), Quote), "a quote for a good client")
        answer = client.run(b"cat in; echo x > out", {b"in": b"content"})
        assert answer.stdout == b"content" and answer.outputs == {b"out": b"x\n"}
    wait_until(lambda: server.sandboxes() == [], "empty sandboxes")
    assert files_outside(place) == files
    assert (place / "outside" / "precious").read_text(encoding="utf-8") == "keep"
    assert server.worker_pids() == workers
    assert "Traceback" not in server.log()[said:] and "fault" not in server.log()[said:], server.log()[said:]
    wait_until(lambda: server.memory_bytes() < memory_before + GROWTH_BYTES, "memory given back")


@pytest.fixture
def stranger(server: Server) -> Iterator[Client]:
    """A connection that has said nothing."""
    with Client(server.host, server.port) as client:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A connection past HELLO and WELCOME."""
    with Client(server.host, server.port) as client:
        yield client.introduce()


Refuse = Callable[..., Error]


@pytest.fixture
def refused(server: Server) -> Refuse:
    """`refused(client, code)`: its connection is closed with an ERROR of that code, and the log says why."""
    said = len(server.log())

    def check(client: Client, code: str, text: str = "") -> Error:
        error = client.wait_closed()
        assert error is not None, server.log()[said:]
        assert (error.code, text in error.text) == (code, True), error
        assert "\n" not in error.text
        peer = "{}:{}".format(*client.socket.getsockname())
        server.wait_for_log(f"{peer}: closed: ", said)
        return error

    return check


# --- what is no message of ours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"POST / HTTP/1.0\r\n\r\n" + bytes(100_000), "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"DIST00000002ARGC00000001", "distcc"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"rubbish\n", "rubbish"),
        (b"x", "x"),
        (b"\xff" * 8, ""),
        (b"\x1b[2J\x1b]0;title\x07\n\n", ""),
        (U64.pack(0), "unknown"),
        (U64.pack(2**63), "unknown"),
        (U64.pack(9999), "unknown"),
    ],
)
def test_what_another_protocol_says_is_named(stranger: Client, refused: Refuse, data: bytes, says: str) -> None:
    stranger.send_bytes(data)
    refused(stranger, "protocol", says)


@pytest.mark.parametrize("seed", range(10))
def test_noise(server: Server, seed: int) -> None:
    generator = random.Random(seed)
    for introduced in (False, True):
        with Client(server.host, server.port) as client:
            if introduced:
                client.introduce()
            client.send_bytes(generator.randbytes(generator.randrange(8, 200_000)))
            error = client.wait_closed()
            assert error is None or error.code in ("protocol", "limit")


@pytest.mark.parametrize("seed", range(20))
def test_messages_with_a_flipped_byte(server: Server, seed: int) -> None:
    """Refused, or understood as something else, but never a fault."""
    generator = random.Random(seed)
    good = encode(execute(b"true", an_input(b"a", b"x"), needs=(Need("cpu", "1"),), produces=(b"o",)))
    with Client(server.host, server.port) as client:
        client.introduce()
        broken = bytearray(good)
        for _ in range(generator.randrange(1, 4)):
            broken[generator.randrange(8, len(broken))] ^= 1 << generator.randrange(8)
        client.send_bytes(bytes(broken))
        client.socket.shutdown(socket.SHUT_WR)
        client.wait_closed()


def test_a_message_in_single_bytes_is_a_message(stranger: Client) -> None:
    stranger.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in encode(hello()):
        stranger.send_bytes(bytes([byte]))
    assert isinstance(stranger.read(), Welcome)


HALVES = [encode(hello()), encode(A_QUOTE), encode(execute(b"true", an_input(b"a", b"x" * 100))), encode(A_WAIT)]


@pytest.mark.parametrize("message", range(4))
@pytest.mark.parametrize("part", [1, 7, 8, 12, 16, 0.5, -1])
def test_half_a_message_and_then_the_end(server: Server, message: int, part: float) -> None:
    data = HALVES[message]
    cut = int(len(data) * part) if isinstance(part, float) else int(part) % len(data)
    said = len(server.log())
    with Client(server.host, server.port) as client:
        if message:
            client.introduce()
        client.send_bytes(data[:cut])
        client.socket.shutdown(socket.SHUT_WR)
        error = client.wait_closed()
        assert error is not None and error.code == "cut"
    server.wait_for_log("closed the connection in mid-conversation", said)


# --- sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, (1 << 64) - 8, LIMITS.greeting + 1, 1 << 32])
def test_sizes_over_the_limit_of_a_greeting(stranger: Client, refused: Refuse, size: int) -> None:
    stranger.send_bytes(U64.pack(MessageType.HELLO) + U64.pack(size))
    refused(stranger, "limit", "HELLO")


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, (1 << 64) - 8, LIMITS.payload + 1])
@pytest.mark.parametrize("number", [MessageType.EXECUTE, MessageType.QUOTE_REQUEST, MessageType.WAIT])
def test_sizes_over_the_limit_of_a_message(client: Client, refused: Refuse, number: MessageType, size: int) -> None:
    client.send_bytes(U64.pack(number) + U64.pack(size))
    refused(client, "limit", number.name)


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, LIMITS.body + 1])
def test_sizes_over_the_limit_of_a_body(client: Client, refused: Refuse, size: int) -> None:
    client.send(execute(b"true", an_input(b"a", os.urandom(10))))
    assert client.read() == NeedFiles((0,))
    client.send_bytes(U64.pack(MessageType.FILE) + U64.pack(8) + U64.pack(0) + U64.pack(size))
    refused(client, "limit", "FILE")


def test_a_body_that_is_announced_and_never_comes_takes_no_memory(server: Server, client: Client) -> None:
    client.send(execute(b"true", an_input(b"a", size=LIMITS.body)))
    message = client.read()
    assert isinstance(message, NeedFiles | Decline)  # the disk may well be too small
    client.send_bytes(U64.pack(MessageType.FILE) + U64.pack(8) + U64.pack(0) + U64.pack(LIMITS.body) + bytes(1000))


@pytest.mark.parametrize("number", [MessageType.QUOTE_REQUEST, MessageType.WAIT])
def test_an_inner_size_that_runs_past_its_payload(client: Client, refused: Refuse, number: MessageType) -> None:
    task = wrap([b"compile", U64.pack(1 << 62) + b"cpu", U64.pack(0), bytes(8), U64.pack(0)])
    rest = [b""] * (PAYLOAD_COUNTS[number] - 1)
    client.send_bytes(U64.pack(number) + wrap([task, *rest]))
    refused(client, "protocol")


@pytest.mark.parametrize(
    "field",
    [
        {"produces": (b"",) * 1_000_000},
        {"produces": tuple(b"%06d" % number for number in range(500_000))},
        {"needs": tuple(Need("a", str(number)) for number in range(200_000))},
        {"command": b"x" * (20 << 20)},
        {"label": "x" * (20 << 20)},
        {"kind": "x" * (20 << 20)},
    ],
    ids=["empty paths", "many paths", "many needs", "long command", "long label", "long kind"],
)
def test_large_messages_end_and_are_forgotten(client: Client, field: dict[str, object]) -> None:
    changes = {"produces": (b"o",), **field}
    client.send(execute(b"true", **changes) if "command" not in field else execute(**changes))  # type: ignore[arg-type]
    answer = client.finish()
    assert answer.error or answer.declined or answer.result


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", U64.pack(1)[:7]),
        ("mode", b""),
        ("mode", bytes(9)),
        ("timeout_s", bytes(7)),
        ("label", b"\xff\xfe"),
        ("kind", b"\xc0\x80"),
    ],
)
def test_payloads_that_do_not_decode(client: Client, refused: Refuse, field: str, value: bytes) -> None:
    names = list(Execute.__struct_fields__)
    payloads = []
    message = encode(execute(b"true", an_input(b"a")))[8:]
    position = 0
    while position < len(message):
        size = U64.unpack_from(message, position)[0]
        payloads.append(message[position + 8 : position + 8 + size])
        position += 8 + size
    if field in names:
        payloads[names.index(field)] = value
    else:
        inner = [b"a", b"", value, bytes(8), bytes(8), bytes(32)]
        payloads[names.index("manifest")] = wrap([b"".join(wrap([part]) for part in inner)])
    client.send_bytes(U64.pack(MessageType.EXECUTE) + wrap(payloads))
    refused(client, "protocol")


def wrap(payloads: list[bytes]) -> bytes:
    return b"".join(U64.pack(len(payload)) + payload for payload in payloads)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(client: Client, refused: Refuse, number: float) -> None:
    import struct

    good = encode(execute(b"true", timeout_s=1234.5))
    client.send_bytes(good.replace(struct.pack(">d", 1234.5), struct.pack(">d", number)))
    refused(client, "protocol", "finite")


# --- order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [execute(), A_QUOTE, A_WAIT, Supplied(), Ack(), Welcome(1, (), b"", "", "", "", 1, 1, "", ())],
    ids=lambda message: type(message).__name__,
)
def test_nothing_comes_before_hello(stranger: Client, refused: Refuse, message: Execute) -> None:
    stranger.send(message)
    refused(stranger, "protocol", "may not send")


@pytest.mark.parametrize(
    "message", [hello(), Supplied(), Ack(), Decline("x", "y")], ids=lambda message: type(message).__name__
)
def test_what_a_ready_client_may_not_say(client: Client, refused: Refuse, message: Ack) -> None:
    client.send(message)
    refused(client, "protocol", "may not send")


@pytest.mark.parametrize("message", [A_QUOTE, A_WAIT, execute(), Ack()], ids=lambda message: type(message).__name__)
def test_what_a_supplying_client_may_not_say(client: Client, refused: Refuse, message: Ack) -> None:
    client.send(execute(b"true", an_input(b"a", os.urandom(10))))
    assert isinstance(client.read(), NeedFiles)
    client.send(message)
    refused(client, "protocol", "may not send")


def test_a_client_that_speaks_while_its_command_runs_is_gone(server: Server, client: Client, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    client.send(execute(gate.command))
    gate.wait_reached()
    client.send(A_QUOTE)
    client.wait_closed()
    wait_until(lambda: server.sandboxes() == [], "the command's end")


@pytest.mark.parametrize("data", [encode(A_QUOTE), encode(Ack()), b"x", bytes(100_000)])
def test_a_client_that_speaks_while_it_waits_is_gone(
    server: Server, client: Client, tmp_path: Path, data: bytes
) -> None:
    with every_slot_taken(server, tmp_path):
        client.send(A_WAIT)
        assert isinstance(client.read(), Progress)
        client.send_bytes(data)
        assert client.wait_closed() is None
        with Client(server.host, server.port) as asking:
            assert wait_until(lambda: asking.introduce().ask().offer.curve.waiting == 0)  # type: ignore[union-attr]


@contextlib.contextmanager
def every_slot_taken(server: Server, tmp_path: Path) -> Iterator[list[Gate]]:
    """Commands that hold every slot until their gates are opened."""
    with contextlib.ExitStack() as stack:
        gates = [Gate(tmp_path, f"gate-{number}") for number in range(SLOTS)]
        for gate in gates:
            runner = stack.enter_context(Client(server.host, server.port)).introduce()
            runner.send(execute(gate.command))
            gate.wait_reached()
        yield gates


def test_a_client_that_gives_up_is_believed(server: Server, client: Client) -> None:
    said = len(server.log())
    client.send(Error("tired", "no\nmore \x1b[31m"))
    assert client.wait_closed() is None
    server.wait_for_log("the client gave up", said)
    assert "\x1b" not in server.log()[said:] and "\nmore" not in server.log()[said:]


# --- versions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", [(2,), (), (7, 8, 9)])
def test_a_version_that_is_not_spoken_is_told_with_what_to_do(
    stranger: Client, refused: Refuse, versions: tuple[int, ...]
) -> None:
    stranger.send(hello(versions=versions, software="99.9"))
    text = refused(stranger, "version").text
    assert "version 1" in text and "99.9" in text and "install" in text
    assert all(str(version) in text for version in versions)


def test_another_protocols_name_is_told(stranger: Client, refused: Refuse) -> None:
    stranger.send(hello(protocol="makefarm"))
    assert "makefarm" in refused(stranger, "protocol").text


def test_a_newer_client_that_speaks_our_version_too_is_welcome(stranger: Client) -> None:
    stranger.send(hello(versions=(9, 1), capabilities=("time-travel",), software="9.0"))
    welcome = stranger.read()
    assert isinstance(welcome, Welcome) and welcome.version == 1


def test_nothing_of_a_peer_is_logged_as_it_is(server: Server, stranger: Client) -> None:
    said = len(server.log())
    stranger.send(hello(versions=(2,), software="1\nrakeserver[1]: forged \x1b[2J\x9b2J\u202e"))
    stranger.wait_closed()
    server.wait_for_log("closed: ", said)
    log = server.log()[said:]
    assert "\nrakeserver[1]" not in log
    assert not any(sign in log for sign in "\x1b\x9b\u202e")


# --- paths ----------------------------------------------------------------------------------------------


def bad_paths(place: Path) -> dict[str, bytes]:
    outside = os.fsencode(place / "outside" / "new")
    return {
        "up": b"../../../../../outside/new",
        "up within": b"a/../../../outside/new",
        "dots": b"..",
        "dot": b"./a",
        "absolute": outside,
        "slashes": b"/" + outside,
        "empty part": b"a//b",
        "directory": b"a/",
        "nul": b"a\0b",
        "newline": b"a\nb",
        "escape": b"\x1b[2Ja",
        "long part": b"a" * 256,
        "long": b"a/" * 600 + b"a",
        "deep": b"a/" * 40 + b"a",
    }


@pytest.mark.parametrize("what", bad_paths(Path("/")))
@pytest.mark.parametrize("where", ["input", "alias", "produces"])
def test_paths_that_lead_elsewhere(client: Client, refused: Refuse, place: Path, what: str, where: str) -> None:
    path = bad_paths(place)[what]
    match where:
        case "input":
            client.send(execute(b"true", an_input(path, b"x")))
        case "alias":
            client.send(execute(b"true", an_input(b"in", b"x", alias=path)))
        case "produces":
            client.send(execute(b"true", produces=(path,)))
    refused(client, "path")


@pytest.mark.parametrize(
    "manifest",
    [
        (an_input(b"a"), an_input(b"a")),
        (an_input(b"a"), an_input(b"b", alias=b"a")),
        (an_input(b"a"), an_input(b"a/b")),
        (an_input(b"a/b/c"), an_input(b"a")),
        (an_input(b""),),
    ],
    ids=["twice", "twice by alias", "below a file", "above a file", "empty"],
)
def test_manifests_that_contradict_themselves(client: Client, refused: Refuse, manifest: tuple[Input, ...]) -> None:
    client.send(execute(b"true", *manifest))
    refused(client, "path")


@pytest.mark.parametrize("produces", [(b"a", b"a"), (b"a", b"a/b"), (b"",)])
def test_outputs_that_contradict_themselves(client: Client, refused: Refuse, produces: tuple[bytes, ...]) -> None:
    client.send(execute(b"true", produces=produces))
    refused(client, "path")


@pytest.mark.parametrize(
    "changes",
    [{"mode": 0o4755}, {"mode": 1 << 40}, {"sha256": b"x"}, {"size": (1 << 64) - 1}, {"mtime_ns": (1 << 64) - 1}],
)
def test_inputs_that_no_file_is_like(client: Client, refused: Refuse, changes: dict[str, object]) -> None:
    client.send(execute(b"true", an_input(b"a", **changes)))
    refused(client, "path" if "mode" in changes else "protocol")


# --- files ----------------------------------------------------------------------------------------------


def supplying(client: Client, *contents: bytes) -> None:
    """Bring a client to the point where it sends files."""
    client.send(execute(b"true", *(an_input(b"in%d" % number, content) for number, content in enumerate(contents))))
    assert client.read() == NeedFiles(tuple(range(len(contents))))


def test_a_file_with_another_content(client: Client, refused: Refuse) -> None:
    content = os.urandom(10)
    supplying(client, content)
    client.send(File(0), content[::-1])
    refused(client, "protocol", "digest")


@pytest.mark.parametrize("size", [0, 9, 11, 1 << 20])
def test_a_file_with_another_size(client: Client, refused: Refuse, size: int) -> None:
    supplying(client, os.urandom(10))
    client.send(File(0), bytes(size))
    refused(client, "protocol", "bytes")


@pytest.mark.parametrize("index", [1, 2, (1 << 64) - 1])
def test_a_file_that_was_not_asked_for(client: Client, refused: Refuse, index: int) -> None:
    supplying(client, os.urandom(10), os.urandom(10))
    client.send(File(index), bytes(10))
    refused(client, "protocol", "not asked for")


def test_a_file_that_comes_twice(client: Client, refused: Refuse) -> None:
    content = os.urandom(10)
    supplying(client, content)
    client.send(File(0), content)
    client.send(File(0), content)
    refused(client, "protocol", "not asked for")


def test_a_file_that_does_not_come(client: Client, refused: Refuse) -> None:
    content = os.urandom(10)
    supplying(client, content, os.urandom(10))
    client.send(File(0), content)
    client.send(Supplied())
    refused(client, "protocol", "missing")


# --- requests that make no sense ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "need",
    [
        ("tool", "a\0b"),
        ("tool", "../../bin/sh"),
        ("tool", ""),
        ("tool", "x" * 100_000),
        ("cpu", "0" * 9 + "9" * 400),
        ("cpu", "9" * 5000),
        ("cpu", "٣"),
        ("mem", "9" * 5000 + "G"),
        ("mem", "\0"),
        ("license", "\ud7ff"),
        ("license", ""),
        ("arch", ""),
        ("arch", "x86\0"),
        ("\0", "\0"),
        ("", ""),
    ],
)
def test_needs_that_nobody_has_are_declined(client: Client, need: tuple[str, str]) -> None:
    task = a_task(kind="compile", needs=(Need(*need),))
    answers = [client.ask(QuoteRequest(task)), client.wait_for_slot(Wait(task))]
    answers.append(client.run(b"true", needs=task.needs).declined)
    for answer in answers:
        assert isinstance(answer, Decline), answer
    # What memory there is, is told as it is at the moment.
    assert len({re.sub(r"\d+ MiB", "", repr(answer)) for answer in answers}) == 1, answers
    assert isinstance(client.ask(), Quote), "the connection stays"


@pytest.mark.parametrize("kind", ["", "\0", "x" * 10_000, "\u202e"])
def test_any_kind_of_work_is_priced(client: Client, kind: str) -> None:
    assert isinstance(client.ask(QuoteRequest(a_task(kind=kind))), Quote)


def test_more_input_than_the_disk_holds_is_declined(client: Client) -> None:
    answer = client.ask(QuoteRequest(a_task(input_bytes=(1 << 64) - 1)))
    assert isinstance(answer, Decline) and answer.reason == "disk"


def test_more_memory_than_there_is_is_declined(client: Client) -> None:
    answer = client.ask(QuoteRequest(a_task(memory_bytes=(1 << 64) - 1)))
    assert isinstance(answer, Decline) and answer.reason == "memory"


@pytest.mark.parametrize("work_s", [-1.0, -1e308, 5e-324, 1e-9, 1e308])
def test_any_prediction_of_work_makes_a_price_above_zero(client: Client, work_s: float) -> None:
    """And leaves the next one alone: what is beyond belief teaches nothing."""
    task = a_task(work_s=work_s)
    answer = client.ask(QuoteRequest(task))
    assert isinstance(answer, Quote) and 0 < answer.offer.price < 1e9 and 0 < answer.offer.seconds < 1e9
    assert client.run(b"exit 0", work_s=work_s).result.status == 0  # type: ignore[union-attr]
    after = client.ask()
    assert isinstance(after, Quote) and 0.01 < after.offer.curve.speed < 100


@pytest.mark.parametrize(
    "changes",
    [
        {"command": b"echo a\0b"},
        {"command": b"echo " + b"'x'" * 50_000},
        {"environment": variables(**{"LC_A=B": "c"})},
        {"environment": variables(LC_ALL="a\0b")},
        {"environment": variables(**{"LC_\0": "c"})},
    ],
)
def test_commands_that_no_system_starts_have_failed(client: Client, changes: dict[str, object]) -> None:
    client.send(execute(**changes))  # type: ignore[arg-type]
    answer = client.finish()
    assert answer.result is not None and answer.result.outcome == "unfit_command", answer
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("timeout_s", [-1.0, 5e-324, -1e300])
def test_odd_time_limits_end_the_command(client: Client, timeout_s: float) -> None:
    result = client.run(b"sleep 1000", timeout_s=timeout_s).result
    assert result is not None and result.outcome == "timed_out"


def test_a_time_limit_beyond_all_time_is_none(client: Client) -> None:
    assert client.run(b"exit 3", timeout_s=1.7e308).result.status == 3  # type: ignore[union-attr]


def test_variables_off_the_list_do_not_reach_the_command(client: Client) -> None:
    wanted = variables(LD_PRELOAD="/tmp/evil.so", PATH="/tmp/evil", HOME="/root", LC_ALL="C.UTF-8", TZ="UTC", IFS="x")
    lines = client.run(b"env", environment=wanted).stdout.decode().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert values["LC_ALL"] == "C.UTF-8" and values["TZ"] == "UTC"
    assert "LD_PRELOAD" not in values and "IFS" not in values
    assert values["PATH"] != "/tmp/evil" and values["HOME"] != "/root"


@pytest.mark.parametrize("lease", [1, 12345, (1 << 64) - 1])
@pytest.mark.parametrize("start", [0, 1, 2, (1 << 64) - 1])
def test_a_lease_that_nobody_gave_is_no_lease(client: Client, lease: int, start: int) -> None:
    assert client.run(b"exit 3", lease=lease, start=start).result.status == 3  # type: ignore[union-attr]


def test_leases_are_of_one_connection(server: Server, client: Client) -> None:
    answer = client.wait_for_slot()
    assert isinstance(answer, Quote) and answer.offer.lease
    with Client(server.host, server.port) as other:
        assert other.introduce().run(b"exit 3", lease=answer.offer.lease).result.status == 3  # type: ignore[union-attr]
    assert client.run(b"exit 4", lease=answer.offer.lease).result.status == 4  # type: ignore[union-attr]


# --- outputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        b"ln -s /etc/passwd out",
        b"ln -s ../../../../../outside/precious out",
        b"ln -s /etc etc",
        b"ln -s . out",
        b"mkfifo out",
        b"mkdir -p out/out",
        b"ln -s /dev/zero out",
    ],
)
def test_links_and_pipes_are_not_returned(client: Client, command: bytes) -> None:
    answer = client.run(command)
    assert answer.result is not None and answer.result.status == 0, answer
    assert answer.outputs == {}


@pytest.mark.parametrize(
    ("command", "produces"),
    [
        (b"ln -s /etc/passwd out", b"out"),
        (b"ln -s /etc out", b"out/passwd"),
        (b"mkdir a; ln -s /etc a/out", b"a/out/passwd"),
        (b"mkfifo out", b"out"),
        (b"mkdir out", b"out"),
        (b"true", b"out"),
    ],
)
def test_a_declared_output_that_leads_elsewhere_is_missing(client: Client, command: bytes, produces: bytes) -> None:
    answer = client.run(command, produces=(produces,))
    assert answer.result is not None and answer.result.outcome == "missing_output"
    assert answer.outputs == {}
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_an_input_replaced_by_a_link_changes_nothing_outside(client: Client, place: Path) -> None:
    precious = os.fsencode(place / "outside" / "precious")
    answer = client.run(b"rm in; ln -s " + precious + b" in", {b"in": b"x"})
    assert answer.outputs == {}


def test_a_command_that_removes_its_own_directory(client: Client) -> None:
    answer = client.run(b'rm -rf "$PWD" "$TMPDIR"; exit 0')
    assert answer.error is None, answer
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


DEEP = b"""
p=$(printf 'd%.0s' $(seq 100)); p=$p/$p/$p/$p/$p; p=$p/$p/$p/$p; i=0
while [ $i -lt 60 ]; do mkdir -p $p && cd -P $p || exit 7; i=$((i+1)); done
: > file
"""


def test_a_tree_deeper_than_a_path_may_be(client: Client) -> None:
    """It can't be returned; the connection and the server go on, and all of it is removed."""
    answer = client.run(DEEP)
    assert answer.result is not None and answer.result.outcome == "unfit_output", answer
    assert len(answer.result.detail) < 400 and answer.outputs == {}
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [b"a\\nb", b"\\033[2J", b"\\177"])
def test_an_output_whose_name_can_not_cross_the_wire_is_told(client: Client, name: bytes) -> None:
    answer = client.run(b"touch \"$(printf 'x" + name + b"y')\"; touch good; echo said")
    assert answer.error is None, answer
    assert answer.result is not None and answer.result.outcome == "unfit_output", answer
    detail = answer.result.detail
    assert detail.isprintable() and "'x" in detail and "control byte" in detail
    assert (answer.stdout, answer.outputs) == (b"said\n", {})
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_a_command_that_fills_the_pipes_and_leaves_daemons(server: Server, client: Client) -> None:
    answer = client.run(b"setsid sleep 1000 & head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3")
    assert (len(answer.stdout), len(answer.stderr)) == (3_000_000, 3_000_000)
    assert server.sandboxes() == [] or wait_until(lambda: server.sandboxes() == [])


# --- a client that leaves -------------------------------------------------------------------------------


def leave_at_once(client: Client, gate: Gate) -> None:
    pass


def leave_within_hello(client: Client, gate: Gate) -> None:
    client.send_bytes(encode(hello())[:20])


def leave_when_ready(client: Client, gate: Gate) -> None:
    client.introduce()


def leave_with_a_quote(client: Client, gate: Gate) -> None:
    client.introduce().ask()


def leave_before_the_quote(client: Client, gate: Gate) -> None:
    client.introduce().send(A_QUOTE)


def leave_with_a_lease(client: Client, gate: Gate) -> None:
    client.introduce().wait_for_slot()


def leave_before_the_lease(client: Client, gate: Gate) -> None:
    client.introduce().send(A_WAIT)


def leave_within_execute(client: Client, gate: Gate) -> None:
    client.introduce().send_bytes(encode(execute(gate.command, an_input(b"a", b"x" * 50)))[:-5])


def leave_when_asked_for_files(client: Client, gate: Gate) -> None:
    supplying(client.introduce(), os.urandom(10))


def leave_within_a_file(client: Client, gate: Gate) -> None:
    content = os.urandom(1 << 20)
    supplying(client.introduce(), content)
    client.send_bytes(encode(File(0), content)[:500_000])


def leave_between_files(client: Client, gate: Gate) -> None:
    content = os.urandom(10)
    supplying(client.introduce(), content, os.urandom(10))
    client.send(File(0), content)


def leave_while_it_runs(client: Client, gate: Gate) -> None:
    client.introduce().send(execute(b"setsid sleep 1000 & " + gate.command))
    gate.wait_reached()


def leave_while_it_is_sent(client: Client, gate: Gate) -> None:
    client.introduce().send(execute(b"head -c 50000000 /dev/zero"))
    assert isinstance(client.read(), Result)


def leave_before_the_acknowledgement(client: Client, gate: Gate) -> None:
    client.introduce().send(execute(b"echo x > out"))
    while not isinstance(client.read(), Delivered):
        pass


LEAVING = [
    leave_at_once,
    leave_within_hello,
    leave_when_ready,
    leave_with_a_quote,
    leave_before_the_quote,
    leave_with_a_lease,
    leave_before_the_lease,
    leave_within_execute,
    leave_when_asked_for_files,
    leave_within_a_file,
    leave_between_files,
    leave_while_it_runs,
    leave_while_it_is_sent,
    leave_before_the_acknowledgement,
]


@pytest.mark.parametrize("how", ["closes", "resets", "ends its side"])
@pytest.mark.parametrize("leave", LEAVING)
def test_a_client_that_leaves_takes_its_command_with_it(
    server: Server, place: Path, tmp_path: Path, leave: Callable[[Client, Gate], None], how: str
) -> None:
    with Client(server.host, server.port) as client:
        leave(client, Gate(tmp_path))
        match how:
            case "resets":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            case "closes":
                client.close()
            case "ends its side":
                client.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(AssertionError):  # cut within a message
                    client.wait_closed()
        wait_until(lambda: server.sandboxes() == [], "an empty sandbox")
        wait_until(lambda: not commands_of(server), "no command left")
        with Client(server.host, server.port) as asking:
            asking.introduce()
            wait_until(lambda: asking.ask().offer.curve.free_in_s == (0.0,) * SLOTS, "every slot free")  # type: ignore[union-attr]


def commands_of(server: Server) -> list[int]:
    """Processes in an action's directory, but for executors, which stay there."""
    return [pid for pid in processes_in(server.scratch) if b"worker-" in environment(pid)]


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


# --- many -----------------------------------------------------------------------------------------------


def test_two_hundred_idle_connections_are_no_reason_not_to_quote(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Client(server.host, server.port)) for _ in range(100)]
        ready = [stack.enter_context(Client(server.host, server.port)).introduce() for _ in range(100)]
        assert len(silent) == 100
        for client in ready:
            assert isinstance(client.ask(), Quote | Decline)
        with Client(server.host, server.port) as late:
            assert late.introduce().run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_quotes_are_answered_while_every_slot_is_taken(server: Server, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        gates = stack.enter_context(every_slot_taken(server, tmp_path))
        asking = stack.enter_context(Client(server.host, server.port)).introduce()
        quotes = [asking.ask() for _ in range(20)]
        assert all(isinstance(quote, Quote) for quote in quotes)
        terms = {term.name for term in quotes[-1].offer.terms}  # type: ignore[union-attr]
        assert "wait" in terms
        waiting = stack.enter_context(Client(server.host, server.port)).introduce()
        waiting.send(execute(b"exit 3"))
        waiting.wait_phase("queued")
        gates[0].open()
        answer = waiting.finish()
        assert answer.result is not None and answer.result.status == 3 and answer.result.queued_s > 0


def test_a_storm_of_connections_that_say_nothing(server: Server) -> None:
    for _ in range(300):
        socket.create_connection((server.host, server.port)).close()
