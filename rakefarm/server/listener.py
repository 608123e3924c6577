"""The listener: accepts, hands over, samples the load, owns the pool. It never reads from a client.

Signal handlers only queue a number; the loop acts. SIGTERM drains (no new work, what runs comes to its end),
SIGINT or a second SIGTERM ends now, SIGHUP reads the configuration again and replaces the workers by and by.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from msgspec import structs

from rakefarm.codes import Code, coded
from rakefarm.config import ConfigError, ServerSettings
from rakefarm.engine.access import check_engine, parse_properties
from rakefarm.exitcodes import ExitStatus
from rakefarm.hosts import UNIX
from rakefarm.jobserver import NoJobServer, Tokens, open_auth
from rakefarm.logs import logger
from rakefarm.market.bids import DEFAULT
from rakefarm.market.needs import parse_licenses
from rakefarm.market.speed import FASTEST, SLOWEST
from rakefarm.security.aside import run_aside
from rakefarm.security.network import is_loopback
from rakefarm.server import audit, door, service_manager
from rakefarm.server.entrance import StartError, open_socket, prepare, unix_path, warn
from rakefarm.server.furnishing import WayIn
from rakefarm.server.grants import Grants
from rakefarm.server.isolation.choice import CannotConfine, ServerConfinement
from rakefarm.server.pool import Pool, WorkersCannotStart
from rakefarm.server.sandbox import SandboxError, ServerDirectory, choose_root
from rakefarm.server.scoreboard import Scoreboard

ACCEPT_BURST = 64
PERIOD_S = 0.1
"""How often the load is sampled."""
BOOT_S = 30.0


class Listener:
    """One server's first process."""

    def __init__(
        self,
        settings: ServerSettings,
        reload: Callable[[], ServerSettings],
        watch_stdin: bool,
        shared_slots: str,
        job_servers: Sequence[str],
    ) -> None:
        self._reload = reload
        self._watch_stdin = watch_stdin
        try:
            tokens = Tokens([open_auth(auth) for auth in job_servers])
        except NoJobServer as error:
            raise StartError(f"--job-server: {error}") from error
        try:
            self._entrance = prepare(settings, os.environ)
            audit.check(settings.audit_log)
            if settings.engine.url:
                run_aside(lambda: check_engine(settings.engine, settings.insecure))
                parse_properties(settings.engine.properties)
            self._directory = ServerDirectory(choose_root(settings.sandbox_directory, os.environ.get("TMPDIR", "")))
        except (ConfigError, SandboxError) as error:
            raise StartError(str(error)) from error
        self._unix_path = unix_path(settings.address, self._directory.path)
        try:
            self._socket = open_socket(settings.address, settings.port, self._directory.path)
            if self._entrance.authentication == "loopback" and not is_loopback(self._socket.getsockname()[0]):
                raise StartError(f"{settings.address} has become an address of the network, and there is no key")
        except StartError:
            self._directory.remove()
            raise
        self._settings = settings
        self._board = door.Board()
        self._door = door.Door(
            self._board,
            settings.unproven,
            settings.unproven_per_address,
            settings.proof_s,
            settings.penalty_s,
        )
        licenses = parse_licenses(settings.licenses)
        try:
            self._grants = Grants(self._directory.path, settings.slots, licenses, shared_slots, tokens)
        except OSError as error:
            self._close_socket()
            self._directory.remove()
            raise StartError(f"--shared-slots {shared_slots}: {error.strerror}") from error
        speed = settings.emulate.speed or load_speed(settings.cache_directory)
        self._scoreboard = Scoreboard(2 * settings.processes, settings.slots, speed)  # the pool says why twice
        try:
            self._confinement = ServerConfinement(settings, self._directory.path)
        except CannotConfine as error:
            self._close_socket()
            self._directory.remove()
            raise StartError(str(error)) from error
        self._signals, self._wakeup = socket.socketpair()
        self._signals.setblocking(False)
        self._wakeup.setblocking(False)
        self._pool = Pool(
            settings,
            self._grants,
            self._scoreboard,
            self._directory,
            self._confinement.of_worker,
            WayIn(self._entrance, self._board),
            self._close_in_worker,
        )
        self._accept_again = 0.0

    def _close_in_worker(self) -> None:
        self._confinement.close()
        signal.set_wakeup_fd(-1)
        for sock in (self._socket, self._signals, self._wakeup):
            sock.close()
        self._door.close()
        if self._watch_stdin:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)

    def run(self) -> int:
        """Serve until told to stop; answers the exit status. Raises StartError."""
        os.set_blocking(self._wakeup.fileno(), False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            return self._serve()
        except WorkersCannotStart as error:
            raise StartError(str(error)) from error
        finally:
            self._close_socket()
            self._pool.end()
            self._grants.tokens.recover()
            self._confinement.close()
            if not self._settings.emulate.cores:
                save_speed(self._settings.cache_directory, self._scoreboard.speed)
            self._directory.remove()

    def _close_socket(self) -> None:
        self._socket.close()
        if self._unix_path:
            with contextlib.suppress(OSError):
                os.unlink(self._unix_path)

    def _serve(self) -> int:
        warn(self._entrance, self._settings.uids)
        self._pool.start()
        # psutil is imported only now, so that the workers don't carry it.
        from rakefarm.server.load import Sampler

        sampler = Sampler(self._settings.emulate)
        period_s = self._settings.emulate.sample_s or PERIOD_S
        next_sample = time.monotonic() + min(period_s, PERIOD_S)  # a sample tells of the time before it
        sampled = False
        deadline = time.monotonic() + BOOT_S
        announced = False
        drain_until: float | None = None
        while True:
            now = time.monotonic()
            if now >= next_sample:
                running = self._scoreboard.commitments().running if self._settings.emulate.cores else 0
                self._scoreboard.publish_load(sampler.sample(running), now)
                self._door.look(now)
                next_sample, sampled = now + period_s, True
            for number in self._wait(next_sample, accepting=announced and drain_until is None):
                if number == signal.SIGHUP:
                    self._read_again()
                elif number == signal.SIGTERM and drain_until is None:
                    drain_until = self._drain()
                else:
                    return ExitStatus.INTERRUPTED if number == signal.SIGINT else ExitStatus.OK
            self._pool.attend()
            if not announced and sampled and self._pool.ready:
                self._announce()
                announced = True
            if not announced and now > deadline:
                raise StartError(f"the workers were not ready within {BOOT_S:.0f} s")
            if drain_until is not None and (self._pool.empty or now > drain_until):
                return ExitStatus.OK

    def _wait(self, until: float, accepting: bool) -> list[int]:
        """Sleep until something happens; accept what is there; answers the signals that came."""
        readers: list[socket.socket | int] = [self._signals, *self._pool.channels()]
        now = time.monotonic()
        if accepting and now >= self._accept_again and self._pool.can_take:
            readers.append(self._socket)
        if self._watch_stdin:
            readers.append(0)
        due = [until, *([vacancy] if (vacancy := self._pool.next_vacancy) is not None else [])]
        poller = select.poll()
        for reader in readers:
            poller.register(reader, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(max(0.0, min(due) - now) * 1000)}
        if self._socket.fileno() in ready:
            self._accept()
        if self._watch_stdin and 0 in ready and not os.read(0, 4096):
            return [signal.SIGINT]  # whoever started us for itself is gone
        return list(self._signals.recv(256)) if self._signals.fileno() in ready else []

    def _accept(self) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.warning("can't accept for now: %s", error.strerror)
                    self._accept_again = time.monotonic() + PERIOD_S
                    return
                continue  # the client went away between its connect and our accept
            ticket: int | None = door.NO_TICKET
            if self._entrance.proves:
                ticket = self._door.admit(connection, address[0])
                if ticket is None:
                    connection.close()
                    continue
            assert ticket is not None
            if not self._pool.hand_over(connection, ticket):
                logger.warning("a connection was closed: no worker can take it")
                self._door.give_up(ticket)

    def _announce(self) -> None:
        if self._unix_path:
            where = UNIX + self._unix_path
        else:
            address, port, *_ = self._socket.getsockname()
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        emulated = f" emulated-cores={self._settings.emulate.cores}" if self._settings.emulate.cores else ""
        joined = f" engine={self._settings.engine.url}" if self._settings.engine.url else ""
        bid = f" bid={self._settings.bid}" if self._settings.bid != DEFAULT else ""
        print(
            f"listening on {where} slots={self._settings.slots} {self._confinement}"
            f" authentication={self._entrance.authentication} encryption={'tls' if self._entrance.proves else 'none'}"
            f" speed={self._scoreboard.speed:.2f}{emulated}{bid}{joined}",
            flush=True,
        )
        service_manager.notify(f"READY=1\nSTATUS=listening on {where}")

    def _drain(self) -> float:
        service_manager.notify("STOPPING=1\nSTATUS=draining")
        logger.info("draining: no new work; what runs comes to its end (again to end now)")
        self._scoreboard.drain()
        self._grants.slots.wake_waiters()  # who only waits for a slot is told at once
        self._close_socket()
        self._pool.retire_all()
        return time.monotonic() + self._pool.settings.drain_s

    def _read_again(self) -> None:
        try:
            fresh = self._reload()
            self._entrance.check()
            audit.check(fresh.audit_log)
            settings = structs.replace(
                fresh,
                slots=self._settings.slots,
                workers=self._settings.workers,
                engine=self._settings.engine,
                licenses=self._settings.licenses,
            )
        except ConfigError as error:
            logger.error("the configuration stays as it was: %s", error)
            return
        logger.info("configuration read again; workers are replaced as they fall idle")
        self._scoreboard.restore_bid()
        self._pool.retire_all(settings)


def load_speed(directory: str) -> float:
    """The speed that the last server here had learned, or 1."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(directory, "speed"), encoding="ascii") as file:
            speed = float(file.read(32))
        if SLOWEST <= speed <= FASTEST:
            return speed
    return 1.0


def save_speed(directory: str, speed: float) -> None:
    """Keep the learned speed for the next server here; where that can't be done, it learns anew."""
    with contextlib.suppress(OSError):
        beside = os.path.join(directory, f"speed-{os.getpid()}")
        with open(beside, "w", encoding="ascii") as file:
            file.write(f"{speed:.4f}\n")
        os.replace(beside, os.path.join(directory, "speed"))


def serve(
    settings: ServerSettings,
    reload: Callable[[], ServerSettings],
    watch_stdin: bool = False,
    shared_slots: str = "",
    job_servers: Sequence[str] = (),
) -> int:
    """Run a server until it is told to stop; answers its exit status.

    `settings` have slots, workers and cache_directory filled in. With `watch_stdin` the end of standard input ends
    the server, so that one started by a client never outlives it. `shared_slots` is the fifo of slots that others have,
    too; a command runs only with a token of one of the `job_servers` (as in MAKEFLAGS), if there are any.
    """
    try:
        return int(Listener(settings, reload, watch_stdin, shared_slots, job_servers).run())
    except StartError as error:
        with contextlib.suppress(OSError):
            print(f"rakeserver: error: {coded(str(error), Code.SERVER_START)}", file=sys.stderr, flush=True)
        return int(ExitStatus.USAGE)
