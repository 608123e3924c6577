"""One build: from a parsed Rakefile and settings to an exit status."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rakefarm import __version__
from rakefarm.client.dispatch import Dispatcher, FarmClosed, Interrupted, Placer
from rakefarm.client.experience import Experiences
from rakefarm.client.farm import Farm
from rakefarm.client.jobs import expect
from rakefarm.client.perform import Performer
from rakefarm.client.places import Places
from rakefarm.client.plan import Outcome, Plan
from rakefarm.client.rakefile_model import Rakefile, locate
from rakefarm.config import ClientSettings
from rakefarm.embedded import EmbeddedServer, WaitReady
from rakefarm.events import BuildFinished, BuildStarted, Consumer, Notice, Stream
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import LOCAL, Host
from rakefarm.market.policy import Policy, View

GC_ALLOCATIONS = 20_000
"""How many objects more than before the collector looks through the young ones."""


class UsedEngine(Protocol):
    """What performs the remote actions of a build instead of hosts."""

    name: str

    def open(self) -> None:
        """See whether it is there, and tell of it. Raises FarmClosed."""

    def place(self, dispatcher: Dispatcher, performer: Performer) -> Placer:
        """What the dispatcher hands its remote actions to."""


MakeEngine = Callable[[Stream], UsedEngine]


def build(
    rakefile: Rakefile,
    hosts: Sequence[Host],
    settings: ClientSettings,
    environ: Mapping[str, str],
    consumers: list[Consumer],
    *,
    keep_going: bool,
    embedded: EmbeddedServer,
    make_policy: Callable[[View], Policy],
    engine: MakeEngine | None = None,
) -> int:
    """Run the whole of `rakefile` on `hosts`, or on this machine alone when there are none and one is needed; or have
    an `engine` run what is remote.

    Answers the exit status, or raises what a consumer raised. SIGINT and SIGTERM stop every command, here and on the
    servers, within two seconds.
    """
    # What is loaded by now stays. What a build makes is short-lived and free of cycles, or lives as long as the build.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, *gc.get_threshold()[1:])
    own = threading.current_thread() is threading.main_thread()
    stream = Stream(os.urandom(8).hex(), consumers, _interrupt_main if own else None)
    plan = Plan(rakefile, keep_going)
    started = time.monotonic()
    needs_farm = any(action.remote for action_set in rakefile.sets for action in action_set.actions)
    alone = needs_farm and not hosts and engine is None
    some = (hosts or [Host(LOCAL)]) if needs_farm and engine is None else []
    places = Places(environ, settings.local_slots, lambda text: stream.emit(Notice(level="warning", text=text)))
    interrupted = messages = 0
    closed = False
    with _signals_raise():
        try:
            with local_server(some, places, embedded) as local:
                farm = Farm(some, settings, environ, stream, local)
                used = engine(stream) if engine and needs_farm else None
                messages = _run(plan, rakefile, farm, settings, environ, stream, make_policy, places, alone, used)
        except Interrupted as interruption:
            interrupted = interruption.number
        except FarmClosed as error:
            closed = True
            stream.emit(Notice(level="error", text=str(error)))
        finally:
            places.release_all()
    if stream.failure is not None:
        raise stream.failure
    status = _status(plan, interrupted, closed)
    if interrupted:
        name = signal.Signals(interrupted).name
        stream.emit(Notice(level="error", text=f"stopped by {name}; every command that was running has been killed"))
    stream.emit(
        BuildFinished(
            exit_status=status,
            succeeded=plan.count(Outcome.SUCCEEDED),
            failed=plan.count(Outcome.FAILED) + plan.count(Outcome.NOT_RUN),
            not_started=plan.not_started,
            stopped=plan.stopped,
            elapsed_s=time.monotonic() - started,
            interrupted=bool(interrupted),
            messages=messages,
        )
    )
    return status


@contextmanager
def local_server(hosts: Sequence[Host], places: Places, embedded: EmbeddedServer) -> Iterator[WaitReady | None]:
    """The server of this machine, when it is one of the hosts."""
    if not any(host.is_local for host in hosts):
        yield None
        return
    with embedded(places.shares) as wait_ready:
        yield wait_ready


def _run(
    plan: Plan,
    rakefile: Rakefile,
    farm: Farm,
    settings: ClientSettings,
    environ: Mapping[str, str],
    stream: Stream,
    make_policy: Callable[[View], Policy],
    places: Places,
    alone: bool,
    engine: UsedEngine | None,
) -> int:
    """Answers how many messages of the protocol it took."""
    experiences = Experiences(environ)
    expectations = expect(plan, experiences.history)
    stream.emit(
        BuildStarted(
            rakefile=rakefile.path,
            actions=plan.total,
            sets=len(plan.sets),
            hosts=(engine.name,) if engine else tuple(member.name for member in farm.members),
            embedded=alone,
            policy=settings.policy,
            expected_s=expectations.total_s,
            cores=len(os.sched_getaffinity(0)),
            software=_software(),
        )
    )
    for warning in rakefile.warnings:
        stream.emit(Notice(level="warning", text=locate(rakefile.path, warning)))
    if alone:
        stream.emit(
            Notice(level="info", text="no host is named anywhere: an embedded farm runs on this machine's cores")
        )
    try:
        if engine is not None:
            engine.open()
        farm.start()
        Dispatcher(
            plan,
            farm,
            settings,
            environ,
            stream,
            make_policy,
            experiences,
            expectations,
            places,
            engine.place if engine else None,
        ).run()
    finally:
        farm.close()
        if farm.members:
            experiences.save()
    return farm.messages


def _software() -> str:
    """What builds, for whoever reads of it later. `platform` would tell the same and take longer to import."""
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    return f"rakefarm {__version__}, Python {python}, {system.sysname} {system.release} {system.machine}"


def _status(plan: Plan, interrupted: int, closed: bool) -> ExitStatus:
    if interrupted:
        return ExitStatus(128 + interrupted)
    if plan.count(Outcome.FAILED):
        return ExitStatus.ACTION_FAILED
    if closed or plan.count(Outcome.NOT_RUN):
        return ExitStatus.FARM_FAILED
    return ExitStatus.OK


_FAILED = signal.SIGUSR1
"""What a thread sends the main thread when it met what must end the build: it ends a wait of whatever kind."""
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, _FAILED)


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, _FAILED)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """While this lasts, SIGINT and SIGTERM raise Interrupted in the main thread, once; a second one is ignored while
    the first is being obeyed, which takes two seconds at most, and any from then on: a process builds once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    obeying = False

    def handle(number: int, _: object) -> None:
        nonlocal obeying
        if not obeying:
            obeying = True
            raise Interrupted(number)

    for number in _STOPPING:
        signal.signal(number, handle)
    try:
        yield
    finally:
        # The build is over, one way or the other, and its status stands: a Ctrl-C while we say so must not turn it
        # into a death by signal on the last line.
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)
