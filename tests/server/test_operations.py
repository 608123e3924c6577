"""Starting, ending and outliving: what an operator, a signal or a crash may do to a server."""

import contextlib
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from server_vocabulary import (
    A_QUOTE,
    A_WAIT,
    Client,
    Connect,
    Gate,
    Server,
    StartServer,
    an_input,
    execute,
    is_alive,
    processes_in,
    run_server_command,
    wait_until,
)

from rakefarm.wire.messages import Decline, Quote

# --- what it says when it can't start -------------------------------------------------------------------


def check_refusal(scratch: Path, *options: str, says: str, env: dict[str, str] | None = None) -> None:
    """It ends with status 2 and one line that holds `says`, and leaves nothing."""
    status, out, err = run_server_command(scratch, *options, env=env)
    assert (status, out) == (2, ""), err
    assert err.count("\n") == 1 and err.startswith("rakeserver: "), err
    assert says in err
    assert not list((scratch / "tmp").iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "x"], "port 'x'"),
        (["--port", "65536"], "65535"),
        (["--port", "-1"], "65535"),
        (["--port", "9" * 5000], "65535"),
        (["99999"], "65535"),
        (["localhost", "1", "2"], "unexpected argument"),
        (["--slots", "0"], "slots"),
        (["--slots", "many"], "slots"),
        (["--workers", "0"], "workers"),
        (["--cache-size", "big"], "--cache-size big"),
        (["--shared", "/no/such/directory"], "/no/such/directory"),
        (["--address", "no.such.host.invalid", "-p", "0"], "no.such.host.invalid"),
        (["--address", "a..b", "-p", "0"], "a..b"),
        (["--address", "x" * 70, "-p", "0"], "can't listen"),
        (["--address", "192.0.2.1", "-p", "0"], "192.0.2.1"),
        (["--config", "missing.toml"], "missing.toml"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: list[str], says: str) -> None:
    check_refusal(tmp_path, *options, says=says)


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    status, out, err = run_server_command(tmp_path, "--frobnicate")
    assert (status, out) == (2, "")
    assert "--frobnicate" in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slots =", "not TOML"),
        ("\xff", "not TOML"),
        ("slot = 1", "'slot'"),
        ("slots = 'many'", "slots"),
        ("slots = -1", "slots"),
        ("slots = 1000000", "4096"),
        ("workers = 1000000", "8192"),
        ("port = 99999", "65535"),
        ("lease_s = 'long'", "lease_s"),
        ("lease_s = inf", "lease_s"),
        ("[price]\nbase = 1", "base"),
        ("[price.base]\ncompile = -1", "base"),
        ("[price.base]\ncompile = inf", "base"),
    ],
)
def test_a_configuration_that_makes_no_sense(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "server.toml"
    config.write_bytes(text.encode("latin-1"))
    check_refusal(tmp_path, "--config", str(config), says=says)


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        check_refusal(tmp_path, "--port", port, says=f"127.0.0.1:{port}")


@pytest.mark.parametrize("what", ["file", "missing"])
def test_a_scratch_place_that_can_not_be_written(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    check_refusal(tmp_path, "--port", "0", says="TMPDIR", env={"TMPDIR": str(tmp_path / what)})


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, out, err = run_server_command(tmp_path, "--port", "0", env={"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert (status, out) == (2, "")
    assert str(tmp_path / "file") in err and "Traceback" not in err
    assert not list((tmp_path / "tmp").iterdir())


def test_it_says_where_it_listens_and_with_what(start_server: StartServer, connect: Connect) -> None:
    server = start_server("--slots", "3")
    assert server.line.startswith(f"listening on 127.0.0.1:{server.port} slots=3 isolation=process missing=")
    assert server.line.endswith(" authentication=loopback encryption=none speed=1.00\n")
    welcome = connect(server).welcome
    assert welcome is not None and welcome.slots == 3
    assert f"isolation={welcome.isolation} " in server.line


def test_it_listens_where_it_is_told(start_server: StartServer, connect: Connect) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = start_server("--address", "::1")
    assert server.address.startswith("[::1]:")
    assert connect(server).run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_two_servers_share_cache_and_scratch_place(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    first, second = connect(start_server(env=env)), connect(start_server(env=env))
    assert first.run(b"cat in", {b"in": b"shared"}).needed == (0,)
    assert second.run(b"cat in", {b"in": b"shared"}).needed == ()


def test_the_cache_survives_a_restart(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    server = start_server(env=env)
    assert connect(server).run(b"cat in > out", {b"in": b"kept"}).needed == (0,)
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    client = connect(start_server(env=env))
    assert client.run(b"cat in", {b"in": b"kept"}).needed == ()
    assert client.run(b"cat in other", {b"in": b"kept", b"other": b"kept"}).stdout == b"keptkept"


def test_a_relative_scratch_place_works_for_every_command(
    start_server: StartServer, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = connect(start_server(env={"TMPDIR": "scratch"}, scratch=tmp_path))
    for number in range(3):
        assert client.run(b"exit %d" % number).result.status == number  # type: ignore[union-attr]


# --- ending ---------------------------------------------------------------------------------------------


def start_at_gate(client: Client, gate: Gate, then: bytes = b"exit 0") -> None:
    """Have a command wait at the gate, with a daemon beside it."""
    client.send(execute(b"setsid sleep 1000 & " + gate.command + b"; " + then))
    gate.wait_reached()


def is_refused(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        Client(server.host, server.port).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it came while the socket was closed
        return False
    return False


def test_sigterm_lets_what_runs_come_to_its_end(server: Server, connect: Connect, gate: Gate) -> None:
    busy, idle, silent = connect(server), connect(server), Client(server.host, server.port)
    start_at_gate(busy, gate, b"echo said; echo made > out; exit 0")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: is_refused(server), "no new connections")
    assert idle.wait_closed() is None
    assert silent.wait_closed() is None
    silent.close()
    assert server.process.poll() is None
    gate.open()
    answer = busy.finish()
    assert answer.result is not None and answer.result.status == 0
    assert answer.stdout == b"said\n" and answer.outputs == {b"out": b"made\n"}
    assert answer.delivered is not None and answer.delivered.curves == (), "no new work"
    assert server.wait() == 0


def test_while_draining_quotes_and_commands_are_declined(server: Server, connect: Connect, gate: Gate) -> None:
    """Whoever had a connection at work may still ask, until the server has found it idle."""
    busy = connect(server)
    start_at_gate(busy, gate)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("draining")
    gate.open()
    assert busy.finish().delivered is not None
    for request in (A_QUOTE, A_WAIT, execute()):
        with contextlib.suppress(AssertionError):
            busy.send(request)
            answer = busy.read()
            assert answer is None or (isinstance(answer, Decline) and answer.reason == "draining")
    assert server.wait() == 0


def test_who_waits_when_the_server_drains_is_declined(start_server: StartServer, connect: Connect, gate: Gate) -> None:
    server = start_server("--slots", "1")
    busy, waiting, queued = connect(server), connect(server), connect(server)
    start_at_gate(busy, gate, b"exit 3")
    waiting.send(A_WAIT)
    waiting.wait_phase("waiting")
    queued.send(execute(b"exit 4"))
    queued.wait_phase("queued")
    server.process.send_signal(signal.SIGTERM)
    answer = waiting.finish_waiting()
    assert isinstance(answer, Decline) and answer.reason == "draining", "while no slot is free"
    gate.open()
    assert busy.finish().result.status == 3  # type: ignore[union-attr]
    assert queued.finish().result.status == 4, "it had been taken"  # type: ignore[union-attr]
    assert server.wait() == 0


def test_sigterm_ends_an_idle_server_at_once(server: Server, connect: Connect) -> None:
    connect(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("signals", "status"),
    [((signal.SIGINT,), 130), ((signal.SIGTERM, signal.SIGTERM), 0), ((signal.SIGTERM, signal.SIGINT), 130)],
)
def test_sigint_or_a_second_signal_ends_at_once(
    server: Server, connect: Connect, gate: Gate, signals: tuple[int, ...], status: int
) -> None:
    busy = connect(server)
    start_at_gate(busy, gate)
    server.note_family()
    for number in signals:
        server.process.send_signal(number)
        if number == signal.SIGTERM:
            server.wait_for_log("draining")
    assert server.wait() == status
    assert busy.wait_closed() is None
    assert processes_in(server.scratch) == []
    assert server.directories() == []


def test_the_drain_has_its_limit(start_server: StartServer, connect: Connect, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("drain_s = 0.3", encoding="utf-8")
    server = start_server("--config", str(tmp_path / "server.toml"))
    start_at_gate(connect(server), gate)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert processes_in(server.scratch) == []


def test_the_end_of_standard_input_ends_it(server: Server, connect: Connect, gate: Gate) -> None:
    start_at_gate(connect(server), gate)
    assert server.process.stdin
    server.process.stdin.close()
    assert server.wait() == 130
    assert processes_in(server.scratch) == []
    assert server.directories() == []


def test_signals_to_the_whole_group_are_the_listeners_business(
    start_server: StartServer, connect: Connect, gate: Gate
) -> None:
    """A terminal's Ctrl-C and hang-up reach the workers, too."""
    server = start_server("--slots", "1")
    busy = connect(server)
    start_at_gate(busy, gate, b"exit 3")
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    gate.open()
    assert busy.finish().result.status == 3  # type: ignore[union-attr]


# --- reloading ------------------------------------------------------------------------------------------


def test_sighup_replaces_the_workers_and_loses_no_connection(
    start_server: StartServer, connect: Connect, gate: Gate
) -> None:
    server = start_server("--slots", "2")
    before = server.worker_pids()
    busy = connect(server)
    start_at_gate(busy, gate, b"exit 3")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("configuration read again")
    for _ in range(30):  # while workers end and others begin
        with Client(server.host, server.port) as client:
            client.introduce()
    wait_until(lambda: len(set(server.worker_pids()) & set(before)) == 1, "all but the busy one replaced")
    gate.open()
    assert busy.finish().result.status == 3  # type: ignore[union-attr]
    wait_until(lambda: not set(server.worker_pids()) & set(before), "all replaced")
    wait_until(lambda: len(server.worker_pids()) == len(before), "as many as before")
    assert connect(server).run(b"exit 4").result.status == 4  # type: ignore[union-attr]


def test_sighup_with_every_worker_busy_does_not_shut_the_door(
    start_server: StartServer, connect: Connect, gate: Gate
) -> None:
    server = start_server("--slots", "1", "--workers", "1")
    busy = connect(server)
    start_at_gate(busy, gate, b"exit 3")
    for _ in range(3):
        said = len(server.log())
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("configuration read again", said)
        assert isinstance(connect(server).ask(), Quote)
    waiting = connect(server)
    waiting.send(execute(b"exit 4"))
    gate.open()
    assert busy.finish().result.status == 3  # type: ignore[union-attr]
    assert waiting.finish().result.status == 4  # type: ignore[union-attr]


def test_sighup_reads_the_configuration_again(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[price.base]\ncompile = 1", encoding="utf-8")
    server = start_server("--config", str(config))
    assert base_price(connect(server)) == pytest.approx(1.0)
    config.write_text("[price.base]\ncompile = 7", encoding="utf-8")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("configuration read again")
    assert base_price(connect(server)) == pytest.approx(7.0)


def base_price(client: Client) -> float:
    """What a predicted second of compiling costs, surcharges left out."""
    quote = client.ask()
    assert isinstance(quote, Quote)
    return next(term.value for term in quote.offer.terms if term.name == "run") / quote.offer.seconds


def test_a_configuration_that_became_bad_stays_as_it_was(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[price.base]\ncompile = 1", encoding="utf-8")
    server = start_server("--config", str(config))
    workers = server.worker_pids()
    config.write_text("bad =", encoding="utf-8")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("stays as it was")
    assert base_price(connect(server)) == pytest.approx(1.0)
    assert server.worker_pids() == workers


# --- what is killed -------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(server: Server, connect: Connect) -> None:
    before = server.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(server.worker_pids()) == len(before) and before[0] not in server.worker_pids())
    server.wait_for_log("died: killed by signal 9")
    for _ in range(len(before)):
        assert connect(server).run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def test_workers_that_die_young_are_not_replaced_in_a_storm(server: Server) -> None:
    """The pause doubles: a worker killed as soon as it is there is not there twenty times a second."""
    deaths = 0
    for _ in range(4):
        victim = wait_until(lambda: server.worker_pids()[-1:])[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: victim not in server.worker_pids())
        deaths += 1
    wait_until(lambda: len(server.worker_pids()) == 4, "all workers back")
    assert server.log().count("died: killed") == deaths


def test_a_worker_killed_in_mid_command_leaves_nothing(start_server: StartServer, connect: Connect, gate: Gate) -> None:
    server = start_server("--slots", "1", "--workers", "1")
    (worker,) = server.worker_pids()
    busy = connect(server)
    start_at_gate(busy, gate)
    family = psutil.Process(worker).children(recursive=True)
    assert family
    os.kill(worker, signal.SIGKILL)
    assert busy.wait_closed() is None, "its client sees the end at once"
    wait_until(lambda: not any(is_alive(process.pid) for process in family), "its commands gone")
    wait_until(lambda: server.worker_pids() not in ([], [worker]), "another worker")
    again = wait_until_connected(server)
    with again:
        answer = again.run(b"exit 3")
        assert answer.result is not None and answer.result.status == 3, "the slot is free again"
        (curve,) = answer.delivered.curves  # type: ignore[union-attr]
        assert (curve.running, curve.waiting, curve.free_in_s) == (0, 0, (0.0,))
    wait_until(lambda: server.sandboxes() == [])


def wait_until_connected(server: Server) -> Client:
    """A client that has introduced itself, however often that takes."""
    return wait_until(lambda: try_connect(server), "a connection")  # type: ignore[return-value]


def try_connect(server: Server) -> Client | None:
    client = Client(server.host, server.port)
    try:
        return client.introduce()
    except AssertionError:
        client.close()
        return None


def test_a_killed_executor_is_the_farms_fault_and_not_the_commands(
    server: Server, connect: Connect, gate: Gate
) -> None:
    client = connect(server)
    start_at_gate(client, gate)
    (executor,) = [process.pid for process in server.tree() if runs_gate(process)]
    os.kill(executor, signal.SIGKILL)
    answer = client.finish()
    assert answer.result is None and answer.declined is not None and answer.declined.reason == "executor"
    assert client.run(b"exit 3").result.status == 3  # type: ignore[union-attr]


def runs_gate(process: psutil.Process) -> bool:
    """Whether a process is the parent of the command. A child that its shell has forked and that is not another program
    yet looks like the shell."""
    with contextlib.suppress(psutil.NoSuchProcess):
        at_gate = [each for each in process.children() if "-reached" in " ".join(each.cmdline())]
        return bool(at_gate) and "-reached" not in " ".join(process.cmdline())
    return False


def test_a_killed_listener_takes_everything_with_it(
    start_server: StartServer, connect: Connect, gate: Gate, tmp_path: Path
) -> None:
    env = {"TMPDIR": str(tmp_path / "tmp")}
    server = start_server("--slots", "2", env=env)
    busy = connect(server)
    start_at_gate(busy, gate)
    supplying = connect(server)
    supplying.send(execute(b"true", an_input(b"a", os.urandom(10))))
    supplying.read()
    server.note_family()
    family = server.tree()
    assert len(family) > 8, "listener, workers, nurseries, an executor, commands"
    server.process.kill()
    server.wait()
    assert busy.wait_closed() is None
    wait_until(lambda: not any(is_alive(process.pid) for process in family), "all of them gone")
    wait_until(lambda: not processes_in(tmp_path / "tmp"), "their commands gone")
    (left,) = (tmp_path / "tmp").glob("rakefarm-*/server-*")
    following = start_server(env=env)
    assert not left.exists(), "the next server sweeps what it left"
    assert connect(following).run(b"exit 3").result.status == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("who", ["listener", "worker", "nursery", "executor"])
def test_whoever_is_killed_no_command_lives_on(
    start_server: StartServer, connect: Connect, gate: Gate, who: str
) -> None:
    server = start_server("--slots", "1", "--workers", "1")
    start_at_gate(connect(server), gate)
    server.note_family()
    (worker,) = server.worker_pids()
    nursery = next(child for child in psutil.Process(worker).children())
    executor = next(child for child in nursery.children())
    victim = {
        "listener": server.process.pid,
        "worker": worker,
        "nursery": nursery.pid,
        "executor": executor.pid,
    }[who]
    commands = executor.children(recursive=True)
    assert len(commands) >= 2
    os.kill(victim, signal.SIGKILL)
    if who == "nursery":
        gate.open()  # its executor may live on, and ends with its command
    wait_until(lambda: not any(is_alive(process.pid) for process in commands), "no command left")


@pytest.mark.parametrize("idle", [True, False])
def test_a_worker_that_can_have_no_executors_any_more_is_replaced(
    start_server: StartServer, connect: Connect, gate: Gate, idle: bool
) -> None:
    server = start_server("--slots", "1", "--workers", "1")
    if idle:
        assert connect(server).run(b"exit 3").result.status == 3  # type: ignore[union-attr]
    else:
        start_at_gate(connect(server), gate)
    (worker,) = server.worker_pids()
    for nursery in psutil.Process(worker).children():
        os.kill(nursery.pid, signal.SIGKILL)
    wait_until(lambda: server.worker_pids() not in ([], [worker]), "another worker")
    wait_until(lambda: not is_alive(worker), "the first one gone")
    assert connect(server).run(b"exit 4").result.status == 4  # type: ignore[union-attr]
    assert "the process that starts executors is dead" in server.log()
    assert "Traceback" not in server.log()


# --- the owner's view -----------------------------------------------------------------------------------


def test_the_load_is_sampled_by_the_listener_alone(server: Server, connect: Connect) -> None:
    """A fresh worker that sampled for itself would call a busy machine idle."""
    quotes = [connect(server).ask() for _ in range(8)]
    assert all(isinstance(quote, Quote) for quote in quotes)
    assert all("stale" not in {term.name for term in quote.offer.terms} for quote in quotes)  # type: ignore[union-attr]


def test_a_stopped_listener_makes_quotes_dear(server: Server, connect: Connect) -> None:
    client = connect(server)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:

        def is_stale() -> bool:
            quote = client.ask()
            assert isinstance(quote, Quote)
            return "stale" in {term.name for term in quote.offer.terms}

        wait_until(is_stale, "a quote that owns up to its age")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_until(lambda: not is_stale(), "a fresh sample")


@pytest.mark.parametrize("spread", [4, 8])
def test_connections_are_spread_over_the_workers(start_server: StartServer, connect: Connect, spread: int) -> None:
    server = start_server("--slots", "2", "--workers", "4")
    for _ in range(spread):
        connect(server)
    counts = [connections(pid) for pid in server.worker_pids()]
    assert sum(counts) == spread and max(counts) - min(counts) <= 1


def connections(pid: int) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(pid).net_connections("tcp"))


def test_a_connection_is_open_in_one_process_only(server: Server, connect: Connect) -> None:
    client = connect(server)
    port = client.socket.getsockname()[1]
    holders = []
    for process in server.tree():
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            if any(each.raddr and each.raddr.port == port for each in process.net_connections("tcp")):
                holders.append(process.pid)
    assert len(holders) == 1 and holders[0] in server.worker_pids()
