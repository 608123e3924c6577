"""The market with real servers: every policy builds, one licence is held by one, what lies or is silent is left out,
who is killed gives back, and nobody starves."""

import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from farm_vocabulary import Built, Event, Project, wait_until_idle
from liar_vocabulary import CURVE, OFFER, Liar, Say, say
from msgspec import structs
from server_vocabulary import Client as Speaker
from server_vocabulary import Server, StartServer, a_task, file_for_commands, wait_until

from rakefarm.market.calibration import herd_of
from rakefarm.market.policies import POLICIES
from rakefarm.market.runs import read_runs
from rakefarm.transport import Transport
from rakefarm.wire import codec
from rakefarm.wire.messages import Decline, Need, Offer, Quote, QuoteRequest, Wait


def small_project(project: Project) -> Project:
    """Six actions and then one that needs two of them."""
    project.write("in", "x\n")
    project.rakefile(
        "first:",
        *[line for number in range(6) for line in (f"remote-cat in > out{number}", "> requires in")],
        "second:",
        *["remote-cat out0 out5 > all", "> requires out0 out5"],
    )
    return project


def check_built(project: Project, built: Built) -> None:
    assert built.status == 0, built.stderr
    assert project.read("all") == b"x\nx\n"
    assert project.made() >= {f"out{number}" for number in range(6)}


def lines_about(built: Built, text: str) -> list[str]:
    return [line for line in built.stderr.decode().splitlines() if text in line]


# --- policies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_builds(project: Project, farm: tuple[Server, ...], policy: str) -> None:
    check_built(project, small_project(project).build("--policy", policy, hosts=farm[:2]))


RAISES = """
class Own:
    def __init__(self, view):
        self.events = 0
    def handle(self, event):
        self.events += 1
        if self.events == {at}:
            raise ValueError("out of ideas")
        return []
"""


@pytest.mark.parametrize("at", [1, 2])
def test_a_policy_that_raises_is_told_of_once_and_the_build_is_right(
    project: Project, farm: tuple[Server, ...], tmp_path: Path, at: int
) -> None:
    (tmp_path / "own.py").write_text(RAISES.format(at=at) if at == 1 else ASKS_AND_RAISES)
    built = small_project(project).build("--policy", f"{tmp_path}/own.py:Own", hosts=farm[:2])
    check_built(project, built)
    assert len(lines_about(built, "out of ideas")) == 1, built.stderr


ASKS_AND_RAISES = """
from rakefarm.market.each import EachPolicy, lowest
from rakefarm.market.policy import Finished

class Own(EachPolicy):
    def __init__(self, view):
        super().__init__(view, lowest)
    def handle(self, event):
        if isinstance(event, Finished):
            raise ValueError("out of ideas")
        return super().handle(event)
"""


def test_a_policy_that_is_slow_is_told_of_once_and_the_build_is_right(
    project: Project, farm: tuple[Server, ...], tmp_path: Path
) -> None:
    text = ASKS_AND_RAISES.replace(
        'if isinstance(event, Finished):\n            raise ValueError("out of ideas")', "sum(range(400_000))"
    )
    (tmp_path / "own.py").write_text(text)
    project.rakefile("a:", *[f"remote-echo {number} > out{number}" for number in range(20)])
    built = project.build("--policy", f"{tmp_path}/own.py:Own", hosts=farm[:2])
    assert built.status == 0 and project.made() == {f"out{number}" for number in range(20)}
    assert len(lines_about(built, "millisecond")) == 1, built.stderr


def test_a_policy_that_is_not_there_is_an_error(project: Project, farm: tuple[Server, ...]) -> None:
    built = small_project(project).build("--policy", "cheapest", hosts=farm[:1])
    assert built.status != 0 and built.says("cheapest") and len(built.stderr.splitlines()) == 1
    assert project.made() == {"in"}


# --- a licence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["plan", "lowest"])
def test_two_actions_that_need_the_one_licence_never_overlap(
    tmp_path: Path, start_server: StartServer, policy: str
) -> None:
    place = tmp_path / "licensed"
    (place / "config" / "rakefarm").mkdir(parents=True)
    (place / "config" / "rakefarm" / "server.toml").write_text('licenses = ["acme"]\n')
    server = start_server("--slots", "4", scratch=place)
    held = tmp_path / "held"
    # A directory can be made by one only.
    command = f"remote-mkdir {held} && sleep 0.15 && rmdir {held} && touch out"
    projects = [Project(tmp_path / name) for name in ("one", "other")]
    for project in projects:
        lines = [line for number in range(4) for line in (f"{command}{number}", "> needs license=acme")]
        project.rakefile("a:", *lines, "remote-touch free")
    clients = [project.start("--policy", policy, hosts=[server]) for project in projects]
    for project, client in zip(projects, clients, strict=True):
        built = client.end()
        assert built.status == 0, built.stderr
        assert project.made() == {"out0", "out1", "out2", "out3", "free"}
        project.check_nothing_is_left()


# --- hosts that lie ---------------------------------------------------------------------------------------


def say_twice(transport: Transport, offer: Offer) -> None:
    data = codec.encode(Quote(offer))
    transport.socket.sendall(data + data)


def say_late(transport: Transport, offer: Offer) -> None:
    """Just after the client has stopped waiting."""
    threading.Timer(QUOTE_S + 0.2, lambda: transport.socket.sendall(codec.encode(Quote(offer)))).start()


def say_nan(transport: Transport, offer: Offer) -> None:
    """What our own encoder refuses to send."""
    price = struct.pack(">d", offer.price)
    transport.socket.sendall(codec.encode(Quote(offer)).replace(price, struct.pack(">d", math.nan), 1))


def say_rubbish(transport: Transport, offer: Offer) -> None:
    transport.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\nprice: 1\n" * 10)


@pytest.fixture
def lie() -> Iterator[Callable[..., Liar]]:
    liars: list[Liar] = []

    def start(offer: Offer | None, say: Say = say) -> Liar:
        liars.append(Liar(offer, say))
        return liars[-1]

    yield start
    for liar in liars:
        liar.close()


QUOTE_S = 0.5
"""How long the client waits for a quote here."""
LIES = {
    "free": structs.replace(OFFER, price=0.0),
    "negative": structs.replace(OFFER, price=-1.0),
    "huge": structs.replace(OFFER, price=1e300),
    "no time": structs.replace(OFFER, seconds=-3.0),
    "no speed": structs.replace(OFFER, curve=structs.replace(CURVE, speed=0.0)),
    "no slots": structs.replace(OFFER, curve=structs.replace(CURVE, slots=0, free_in_s=())),
    "past": structs.replace(OFFER, curve=structs.replace(CURVE, free_in_s=(-5.0,))),
    "busier than none": structs.replace(OFFER, curve=structs.replace(CURVE, busy=-4.0)),
    "never": None,
}
WAYS: dict[str, Say] = {"twice": say_twice, "late": say_late, "not a number": say_nan, "rubbish": say_rubbish}


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, policy) for name in LIES for policy in ("plan", "lowest")),
        *((name, "plan") for name in WAYS),
        ("not a number", "lowest"),
    ],
)
def test_a_host_that_lies_or_is_silent_is_left_out_with_one_warning(
    project: Project, farm: tuple[Server, ...], lie: Callable[..., Liar], name: str, policy: str
) -> None:
    liar = lie(LIES[name]) if name in LIES else lie(OFFER, WAYS[name])
    small_project(project)
    if name in ("never", "late"):  # long enough to notice
        project.write("Rakefile", project.read("Rakefile") + b"\tremote-sleep 1.2\n")
    settings = project.scratch / "config" / "rakefarm" / "client.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"quote_s = {QUOTE_S}\n")
    built = project.build("--policy", policy, hosts=[liar.address, farm[0]])
    check_built(project, built)
    warned = [line for line in lines_about(built, liar.address) if "warning" in line]
    assert len(warned) == 1, built.stderr
    assert liar.executes == 0
    assert liar.asked < 20, "it is not asked again and again"


# --- who leaves gives back --------------------------------------------------------------------------------


def free_slots(server: Server) -> int:
    with Speaker(server.host, server.port) as speaker:
        speaker.introduce()
        speaker.send(QuoteRequest(a_task()))
        answer = speaker.read()
    assert isinstance(answer, Quote), answer
    return answer.offer.curve.free_slots


def test_who_is_killed_while_it_holds_a_slot_gives_it_back_within_a_second(
    tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server("--slots", "1")
    first, second = Project(tmp_path / "first"), Project(tmp_path / "second")
    first.rakefile("a:", "remote-sleep 600")
    second.rakefile("a:", "remote-touch out")
    holding = first.start(hosts=[server])
    holding.wait_for("action_phase", phase="running")
    waiting = second.start(hosts=[server])
    waiting.wait_for("quote_received")
    assert free_slots(server) == 0
    holding.process.kill()
    killed = time.monotonic()
    assert waiting.end().status == 0
    assert time.monotonic() - killed < 1.0 + 1.0, "a second, and the rest of the build"
    holding.process.communicate()
    wait_until(lambda: free_slots(server) == 1, "the slot free again", 1.0)


def test_who_is_killed_while_it_waits_leaves_the_queue(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server("--slots", "1")
    go = tmp_path / "go"
    first, second, third = (Project(tmp_path / name) for name in ("first", "second", "third"))
    first.rakefile("a:", f"remote-until [ -e {go} ]; do sleep 0.02; done; touch out")
    for project in (second, third):
        project.rakefile("a:", "remote-touch out")
    holding = first.start(hosts=[server])
    holding.wait_for("action_phase", phase="running")
    doomed = second.start(hosts=[server])
    doomed.wait_for("quote_received")
    wait_until(lambda: waiting_at(server) == 1, "one in the queue")
    doomed.process.kill()
    doomed.process.communicate()
    wait_until(lambda: waiting_at(server) == 0, "nobody in the queue", 1.0)
    patient = third.start(hosts=[server])
    patient.wait_for("quote_received")
    go.touch()
    assert holding.end().status == patient.end().status == 0


def waiting_at(server: Server) -> int:
    with Speaker(server.host, server.port) as speaker:
        speaker.introduce()
        speaker.send(QuoteRequest(a_task()))
        answer = speaker.read()
    assert isinstance(answer, Quote), answer
    return answer.offer.curve.waiting


def test_a_held_slot_that_is_never_used_is_free_when_its_holder_leaves(start_server: StartServer) -> None:
    server = start_server("--slots", "1")
    with Speaker(server.host, server.port) as holder:
        holder.introduce()
        holder.send(Wait(a_task()))
        answer = holder.read()
        assert isinstance(answer, Quote) and answer.offer.lease
        assert free_slots(server) == 0
    wait_until(lambda: free_slots(server) == 1, "the slot free again", 1.0)


# --- many at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["plan", "lowest"])
def test_six_clients_at_once_and_none_starves(tmp_path: Path, start_server: StartServer, policy: str) -> None:
    server = start_server("--slots", "2")
    projects = [Project(tmp_path / f"client{number}") for number in range(6)]
    order = file_for_commands(tmp_path / "order")
    for number, project in enumerate(projects):
        commands = [f"remote-echo {number} >> {order}; sleep 0.05; touch out{index}" for index in range(10)]
        project.rakefile("a:", *commands)
    clients = [project.start("--policy", policy, hosts=[server]) for project in projects]
    for project, client in zip(projects, clients, strict=True):
        built = client.end()
        assert built.status == 0, built.stderr
        assert project.made() == {f"out{index}" for index in range(10)}
        project.check_nothing_is_left()
    begun = order.read_text().split()
    assert sorted(begun) == sorted(str(number) for number in range(6) for _ in range(10))
    if policy == "plan":  # all have had some when the first has had all; they don't start at quite the same time
        all_had = min(begun.index(str(number), 0) for number in range(6))
        assert all_had < len(begun)
        last_first = max(begun.index(str(number)) for number in range(6))
        assert last_first < 45, begun
    wait_until_idle(server)


@pytest.mark.slow
def test_sixteen_clients_that_start_together(tmp_path: Path, start_server: StartServer) -> None:
    """No herd, no starvation, nothing lost."""
    settings = tmp_path / "server.toml"
    settings.write_text("slots = 3\nlease_s = 5.0\n[emulate]\ncores = 3\nspeed = 1.0\n")
    servers = [start_server("--config", str(settings)) for _ in range(4)]
    projects = [Project(tmp_path / f"client{number}") for number in range(16)]
    order, go = file_for_commands(tmp_path / "order"), tmp_path / "go"
    for number, project in enumerate(projects):
        commands = [f"remote-echo {number}.{index} >> {order}; sleep 0.3" for index in range(12)]
        project.rakefile(
            "ready:", f"touch {tmp_path}/ready{number}; until [ -e {go} ]; do sleep 0.02; done", "go:", *commands
        )
    clients = [project.start(hosts=servers, env={"USER": f"user{number}"}) for number, project in enumerate(projects)]
    wait_until(lambda: len(list(tmp_path.glob("ready*"))) == 16, "all of them ready")
    go.touch()
    took: list[float] = []
    records: list[Event] = []
    for client in clients:
        built = client.end()
        assert built.status == 0, built.stderr
        events = client.events()
        (set_out,) = [event["time_s"] for event in events if event["event"] == "set_started" and event["index"] == 1]
        took.append(events[-1]["time_s"] - set_out)  # type: ignore[operator]
        records += events
    done = order.read_text().split()
    assert sorted(done) == sorted(f"{number}.{index}" for number in range(16) for index in range(12))
    # Sixteen clients on a few cores hear late of an end; the leases are long for the same reason.
    herd = herd_of(list(read_runs(records)[0].values()), settle_s=0.1)
    assert len(done) <= herd.awards <= 1.02 * len(done) and (herd.index or 0.0) <= 0.01, herd
    index = sum(took) ** 2 / (len(took) * sum(seconds**2 for seconds in took))
    assert index >= 0.95, took
    for server in servers:
        wait_until_idle(server)


# --- what prices depend on --------------------------------------------------------------------------------


def test_prices_differ_by_kind_and_by_resource(tmp_path: Path, start_server: StartServer) -> None:
    settings = tmp_path / "server.toml"
    settings.write_text('licenses = ["acme"]\n[price.base]\nlink = 3.0\n')
    server = start_server("--slots", "2", "--config", str(settings))
    with Speaker(server.host, server.port) as speaker:
        speaker.introduce()

        def ask(**task: object) -> Offer:
            answer = speaker.ask(QuoteRequest(a_task(work_s=1.0, **task)))
            assert isinstance(answer, Quote), answer
            return answer.offer

        plain, link = ask(kind="compile"), ask(kind="link")
        licensed = ask(kind="compile", needs=(Need("license", "acme"),))
        terms = {term.name: term.value for term in licensed.terms}
        assert link.price > 2 * plain.price and licensed.price > 1.2 * plain.price
        assert terms["license"] > 0 and "license" not in {term.name for term in plain.terms}
        declined = speaker.ask(QuoteRequest(a_task(needs=(Need("license", "other"),))))
        assert isinstance(declined, Decline) and declined.reason == "license"
