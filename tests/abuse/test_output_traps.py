"""Files that a command leaves for us to stumble over: nothing from outside comes back, nothing is read that is too much."""

import os

import pytest
from server_vocabulary import Client, Server, open_server, open_to_commands

MIB = 1 << 20
LIMITS = """
[limits]
file_size = "64M"
outputs = 20
output_size = "16M"
inputs = 3
input_size = "1M"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    place = tmp_path_factory.mktemp("traps")
    (place / "server.toml").write_text(LIMITS)
    outside = place / "tmp" / "outside"  # the same file system, so that a hard link can be made
    outside.mkdir(parents=True)
    open_to_commands(outside)
    (outside / "secret").write_text("needle")
    (outside / "secret").chmod(0o666)
    running = open_server(place, "--slots", "1", "--config", str(place / "server.toml"))
    yield running
    (outside / "secret").unlink()
    outside.rmdir()
    running.end()


@pytest.fixture
def client(server: Server):  # type: ignore[no-untyped-def]
    with Client(server.host, server.port) as client:
        yield client.introduce()


@pytest.mark.parametrize("produces", [(), (b"out",), (b"sub/out",)], ids=["any", "declared", "below"])
def test_a_hard_link_to_what_lies_outside_is_not_returned(
    server: Server, client: Client, produces: tuple[bytes, ...]
) -> None:
    secret = os.fsencode(server.scratch / "outside" / "secret")
    target = produces[0] if produces else b"out"
    changes = {"produces": produces} if produces else {}
    answer = client.run(b"mkdir -p sub; ln " + secret + b" " + target, **changes)
    assert answer.result is not None and answer.result.outcome == "unfit_output", answer
    assert "hard link" in answer.result.detail or "another user" in answer.result.detail
    assert answer.outputs == {}


def test_hard_links_among_outputs_are_files(client: Client) -> None:
    answer = client.run(b"echo x > a; mkdir sub; ln a sub/b")
    assert answer.outputs == {b"a": b"x\n", b"sub/b": b"x\n"}
    answer = client.run(b"echo x > a; ln a b", produces=(b"b",))
    assert answer.outputs == {b"b": b"x\n"}


@pytest.mark.parametrize(
    "command",
    [
        b"ln -s /proc/self/environ out; ln -s /proc/1/root out2; ln -s /proc/self/fd/0 out3",
        b"ln -s /proc/self/cwd sub",
        b"mkdir sub; rmdir sub; ln -s .. sub",
        b"mkfifo pipe; ln -s pipe link",
        b"ln -s a b; ln -s b a",
        b"ln -s $(pwd)/../../../../outside/secret out",
    ],
)
def test_links_and_special_files_stay(client: Client, command: bytes) -> None:
    answer = client.run(command)
    assert answer.result is not None and (answer.result.outcome, answer.result.status) == ("exited", 0)
    assert answer.outputs == {}


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (b"truncate -s 1T out", "file_size"),
        (b"truncate -s 40M out", "output_size"),
        (b"for i in 1 2 3; do truncate -s 8M out$i; done", "output_size"),
        (b"for i in $(seq 21); do : > out$i; done", "outputs"),
        (b"mkdir out; truncate -s 40M out/deep", "output_size"),
    ],
)
def test_too_much_is_told_with_its_limit_and_never_read(client: Client, command: bytes, key: str) -> None:
    answer = client.run(command)
    assert answer.result is not None and answer.result.outcome == "over_limit", answer
    assert f"limits.{key} of its server.toml" in answer.result.detail
    assert answer.outputs == {}


def test_too_many_or_too_large_inputs_are_declined(client: Client) -> None:
    answer = client.run(b"true", {b"a": b"", b"b": b"", b"c": b"", b"d": b""})
    assert (
        answer.declined is not None and answer.declined.reason == "inputs" and "limits.inputs" in answer.declined.text
    )
    answer = client.run(b"true", {b"a": bytes(2 * MIB)})
    assert answer.declined is not None and answer.declined.reason == "inputs" and "input_size" in answer.declined.text
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_what_an_earlier_action_left_leads_the_next_nowhere(server: Server, client: Client) -> None:
    secret = server.scratch / "outside" / "secret"
    for leave in (b"ln -s %b in", b"rm -rf ../box; ln -s %b/.. ../box", b"mkdir -p d; ln -s %b/.. d/e"):
        client.run(leave % os.fsencode(secret))
        client.run(b"true", {b"in": b"changed", b"d/e/secret": b"changed"})
        assert secret.read_text() == "needle"


def test_a_directory_that_can_not_be_read_is(client: Client) -> None:
    answer = client.run(b"mkdir a; echo x > a/b; chmod 0 a/b a")
    assert list(answer.outputs) == [b"a/b"], answer
