"""Which level of isolation holds on this machine, tried for real: an executor is built, runs a program, and has a
command reach for a file that it must not see. What merely should work is not believed.
"""

import os
import secrets

from msgspec import structs

from rakefarm.levels import LEVELS, rank
from rakefarm.logs import logger
from rakefarm.server.executors import ExecutorLost, Executors
from rakefarm.server.isolation.confinement import LANDLOCK, NAMESPACES, PROCESS, Confinement
from rakefarm.server.job import Ended, Job
from rakefarm.server.sandbox import ActionDirectory


class LevelFails(Exception):
    """A level does not hold here; the text says why."""


def choose_confinement(wanted: str, base: Confinement, directory: str) -> Confinement:
    """`base` at the level `wanted`, or with "auto" at the highest that holds. Raises LevelFails."""
    if wanted != "auto":
        return try_level(wanted, base, directory)
    for level in reversed(LEVELS):
        try:
            return try_level(level, base, directory)
        except LevelFails as failure:
            logger.info("isolation %s does not hold here: %s", level, failure)
            if level == "none":
                raise
    raise AssertionError("the last level returns or raises")


def try_level(level: str, base: Confinement, directory: str) -> Confinement:
    """`base` at this level, with what else the kernel allows at it. Raises LevelFails."""
    own_processes = [True] if rank(level) >= NAMESPACES else [True, False] if rank(level) >= PROCESS else [False]
    for last, own in enumerate(own_processes, 1 - len(own_processes)):
        box_bytes = base.box_bytes if rank(level) >= NAMESPACES else 0
        confinement = structs.replace(base, level=level, own_processes=own, box_bytes=box_bytes)
        try:
            _probe(confinement, directory)
        except LevelFails:
            if not last:
                raise
        else:
            return confinement
    raise AssertionError("the last attempt returns or raises")


def _probe(confinement: Confinement, directory: str) -> None:
    place = os.path.join(directory, f"probe-{confinement.level}")
    canary, secret = os.path.join(directory, "canary"), secrets.token_hex(16)
    os.mkdir(place, 0o711)
    with open(canary, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(secret)
    executors = Executors([], confinement, place, 0)
    try:
        ended = _run(executors, b"/bin/true", b"")
        if (ended.outcome, ended.status) != ("exited", 0):
            how = ended.detail or ended.stderr.decode("utf-8", "replace").strip() or f"{ended.outcome} {ended.status}"
            raise LevelFails(f"a program can't be run in it: {how[:200]}")
        seen = _run(executors, b"cat box-file " + os.fsencode(canary), b"own")
        if not seen.stdout.startswith(b"own"):
            raise LevelFails("a command can't read its own files in it")
        if confinement.rank >= LANDLOCK and secret.encode() in seen.stdout:
            raise LevelFails("a command could read a file outside its directory all the same")
    except ExecutorLost as lost:
        raise LevelFails(str(lost).removeprefix("no executor can be started: ")) from lost
    except OSError as error:
        raise LevelFails(f"{error.strerror or error}") from error
    finally:
        executors.end_all()
        os.unlink(canary)
        os.rmdir(place)


def _run(executors: Executors, command: bytes, content: bytes) -> Ended:
    """Run a command beside a file of this content."""
    executor = executors.take()
    uid = executors.confinement.uid
    directory = ActionDirectory(executor.home, uid)
    with open(directory.locate(b"box-file"), "wb") as file:
        directory.own(file.fileno())
        file.write(content)
    directory.hand_over()
    environment = {b"PATH": b"/usr/local/bin:/usr/bin:/bin"}
    executor.start(Job(command, executor.inside + b"/box", environment, 10.0))
    ended, files = executor.finish()
    for descriptor in files:
        os.close(descriptor)
    executors.drop(executor)
    return ended
