"""STATUS: the server's clock, spaces and load; who has its slots; what its store has saved."""

import time
from collections.abc import Callable

from server_vocabulary import Client, Gate, Server, an_input, execute, wait_until

from rakefarm.server.roster import NAME_BYTES, Roster, short
from rakefarm.wire.messages import Ack, Delivered, File, NeedFiles, Status, StatusReply, Supplied
from rakefarm.wire.status import StoreUse

Connect = Callable[[Server], Client]


def ask(client: Client) -> StatusReply:
    client.send(Status())
    reply = client.read()
    assert isinstance(reply, StatusReply), reply
    return reply


def test_an_idle_server_tells_of_itself(server: Server, connect: Connect) -> None:
    client = connect(server)
    assert client.welcome and "status" in client.welcome.capabilities
    reply = ask(client)
    assert abs(reply.clock_s - time.time()) < 5.0
    assert 0 < reply.uptime_s < 60 and reply.price > 0 and not reply.declined
    assert reply.curve.slots == 2 and not reply.occupants
    for space in (reply.memory, reply.sandbox, reply.cache):
        assert 0 < space.free_bytes <= space.total_bytes
    assert reply.store == StoreUse(0, 0, 0, 0)
    assert ask(client).uptime_s >= reply.uptime_s, "it may be asked again"


def test_who_has_a_slot_is_told_and_forgotten(server: Server, connect: Connect, gate: Gate) -> None:
    worker, watcher = connect(server), connect(server)
    worker.send(execute(gate.command, label="compile line 7"))
    (occupant,) = wait_until(lambda: ask(watcher).occupants, "an occupant")
    assert (occupant.client, occupant.user, occupant.label) == ("test", "test", "compile line 7")
    assert ask(watcher).curve.running == 1
    gate.open()
    wait_until(lambda: not ask(watcher).occupants, "no occupant")


def test_what_the_store_had_is_counted(server: Server, connect: Connect) -> None:
    client = connect(server)
    for had in (0, 1):
        client.send(execute(b"true", an_input(b"in", b"12345")))
        message = client.read()
        if isinstance(message, NeedFiles):
            client.send(File(0), b"12345")
            client.send(Supplied())
        while not isinstance(message, Delivered):
            message = client.read()
        client.send(Ack())
        assert ask(client).store == StoreUse(had, 1, 5 * had, 5)


def test_a_roster_cuts_names_and_forgets_the_dead() -> None:
    roster = Roster(workers=2, slots=3)
    roster.enter(2, 1, short("ü" * 99), b"client", b"")
    roster.enter(0, 0, b"ann", b"", b"")
    assert [(one.slot, one.user) for one in roster.occupants()] == [(0, "ann"), (2, "ü" * (NAME_BYTES // 2))]
    roster.clear_worker(1)
    assert [one.slot for one in roster.occupants()] == [0]
    roster.leave(0)
    assert roster.occupants() == ()
