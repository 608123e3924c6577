"""The bots of one server, and what they say of its machine."""

import os
import threading

from rakefarm.engine.access import check_engine, parse_properties
from rakefarm.engine.api import bots_pb2
from rakefarm.engine.blobs import Blobs
from rakefarm.engine.channel import Channel
from rakefarm.engine.properties import COMPILER, Identities, merge, of_machine
from rakefarm.logs import logger
from rakefarm.server.desk import Desk
from rakefarm.server.join.bot import Bot, Station
from rakefarm.server.join.lease import Colleagues
from rakefarm.server.join.memory import Messages
from rakefarm.server.join.offer import Offer
from rakefarm.server.workplace import Workplace

MANY_PROPERTIES = 10
"""BuildGrid keeps every subset of a bot's properties: beyond some ten of them it takes long."""
MANY_PROBLEMS = 20
"""An engine that words its refusal anew each time is not told of for ever."""


def make_bots(work: Workplace, desk: Desk) -> list[Bot]:
    """One a slot. Raises ConfigError."""
    settings = work.settings
    address, access = check_engine(settings.engine, settings.insecure)
    channel = Channel(address, access, settings.engine.patience_s)
    properties = _properties(work)
    machine = bots_pb2.Worker()
    device = machine.devices.add(handle=work.name)
    for key, value in properties:
        device.properties.add(key=key, value=value)
    told = ", ".join([f"{key}={value}" for key, value in properties])
    news = _News(f"joined {address.name} with {settings.slots} bots: {told}")
    shared = Colleagues(work, desk, address.name, Blobs(channel), Messages())
    station = Station(channel, shared, machine, Offer(desk), news.say)
    prefix = _name(work)
    return [Bot(number, f"{prefix}-{number}", station) for number in range(settings.slots)]


def _properties(work: Workplace) -> tuple[tuple[str, str], ...]:
    engine = work.settings.engine
    compilers: tuple[tuple[str, str], ...] = ()
    if engine.compiler:
        found = Identities({"PATH": work.settings.path}).all()
        compilers = tuple([(COMPILER, identity) for identity in found])
    properties = merge(of_machine(), compilers, parse_properties(engine.properties))
    if len(properties) > MANY_PROPERTIES:
        logger.warning("%d properties are many: an engine may be slow to take them in", len(properties))
    return properties


def _name(work: Workplace) -> str:
    """The same after a restart, so that the engine knows at once that what was under way is lost; two servers of one
    machine differ in their ports."""
    port = work.settings.port
    if port and "/" not in work.settings.address:
        return f"{work.name}-{port}"
    return f"{work.name}-{os.path.basename(os.path.dirname(os.fsdecode(work.sandbox.path)))}"


class _News:
    """What is new between us and the engine, once for all bots, and once until we have joined again."""

    def __init__(self, joined: str) -> None:
        self._joined = joined
        self._lock = threading.Lock()
        self._is_joined = False
        self._said: set[str] = set()

    def say(self, problem: str) -> None:
        """Log it, unless it has been; empty when a bot has joined."""
        with self._lock:
            if problem:
                new = problem not in self._said and len(self._said) < MANY_PROBLEMS
                self._said |= {problem} if new else set()
            else:
                new = not self._is_joined or bool(self._said)
                self._said.clear()
            self._is_joined = not problem
        if new and problem:
            logger.warning("%s", problem)
        elif new:
            logger.info("%s", self._joined)
