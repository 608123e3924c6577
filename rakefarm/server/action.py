"""One EXECUTE from its request to its ACK: stage, wait for a slot, run, deliver, tidy."""

import itertools
import os
import select
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rakefarm.logs import logger
from rakefarm.server.desk import Desk, licenses_of
from rakefarm.server.executors import Executor, ExecutorLost
from rakefarm.server.grants import Grant, Lease
from rakefarm.server.job import Ended, Job
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.staging import Staging, StagingFailed, check_manifest
from rakefarm.server.turn import check_client, take_now, wait_for_grant
from rakefarm.server.workplace import Workplace
from rakefarm.snapshot import Made, MissingOutput, UnfitOutput, current_tick, find_declared, find_new
from rakefarm.transport import Transport
from rakefarm.wire.errors import Malformed
from rakefarm.wire.messages import (
    Ack,
    Decline,
    Delivered,
    Execute,
    File,
    Message,
    NeedFiles,
    Output,
    Progress,
    Result,
    Stderr,
    Stdout,
    Supplied,
)
from rakefarm.wire.paths import show
from rakefarm.wire.status import StoreUse

BEAT_S = 2.0
"""How often PROGRESS says that we live; a client that misses three in a row counts us as lost."""
SUPPLY_S = 60.0
"""A client that sends nothing for this long while it is its turn to send files is gone."""
PASSED_VARIABLES = (b"LANG", b"LANGUAGE", b"TZ", b"SOURCE_DATE_EPOCH")
READ_BYTES = 256 << 10


class Talk(Protocol):
    """What an action needs of the conversation it is part of."""

    transport: Transport
    peer: str
    workplace: Workplace
    desk: Desk

    def take_lease(self, number: int) -> Lease | None:
        """The lease of this number if it still holds, from now on the caller's to use or give back."""

    def give_back(self, lease: Lease) -> None:
        """Nothing comes of a lease."""

    @property
    def user(self) -> int:
        """The number of the user whose work it is."""

    def expect(self, *kinds: type[Message]) -> Message:
        """The client's next message, of one of these kinds."""

    def enter(self, slot: int, label: str) -> None:
        """Say whose the slot is, for people."""


class Action:
    """A command that a client wants run here."""

    def __init__(self, request: Execute, conversation: Talk) -> None:
        self._request = request
        self._talk = conversation
        self._transport = conversation.transport
        self._work = conversation.workplace
        self._received = time.monotonic()
        self._beat_at = self._received + BEAT_S
        self._phase = "queued"
        self._grant: Grant | None = None
        self.outcome, self.status = "lost", 0
        """How it ended, for the audit log: as in RESULT, or declined (empty: before anything was begun), or lost."""

    def run(self) -> None:
        """The whole of it. Raises Lost, a protocol error, or UnsafePath; nothing of the action is left then."""
        check_manifest(self._request.manifest, self._request.produces)
        try:
            declined = self._commit()
            if declined is not None:
                self.outcome = ""
                self._transport.send(declined)
                return
            try:
                directory = self._work.sandbox.make(next(_numbers))
            except OSError as error:
                self._decline("disk", f"the server can't make a sandbox: {error.strerror}")
                return
            try:
                delivered = self._run_in(directory)
            finally:
                # Before the acknowledgement, which travels with the client's next request and may be long in coming.
                directory.remove()
        finally:
            self._release()
        if delivered:
            self._talk.expect(Ack)

    def _run_in(self, directory: ActionDirectory) -> bool:
        """True when the result was delivered, False when we declined."""
        staging = Staging(self._request.manifest, directory, self._work.store)
        try:
            self._supply(staging)
            staging.place_later(self._beat)
            staging.make_ways(self._request.produces)
            started, ended, files = self._run_command(directory)
        except (StagingFailed, ExecutorLost) as failure:
            reason = failure.reason if isinstance(failure, StagingFailed) else "executor"
            logger.warning("%s: could not run %r: %s", self._talk.peer, self._request.label, failure)
            self._decline(reason, str(failure))
            return False
        try:
            if ended.outcome == "could_not_start":
                self._decline("executor", f"the command could not be started: {ended.detail}")
                return False
            self._deliver(directory, staging, started, ended, files)
            return True
        finally:
            for descriptor in files:
                os.close(descriptor)

    def _decline(self, reason: str, text: str) -> None:
        """We, and not the command, failed: the client is told, and the price remembers it for a while."""
        self.outcome = f"declined: {reason}"
        if reason != "input_lost":
            self._work.board.scoreboard.add_fault(self._work.settings.price.fault_half_life_s)
        self._transport.send(Decline(reason, text))

    # --- its place ------------------------------------------------------------------------------------

    def _commit(self) -> Decline | None:
        """Take the slot that was leased, or one that is free when the command must start now. Why it can't be taken
        at all, or None: it has its place, or waits for one once its inputs are there."""
        request, desk = self._request, self._talk.desk
        licenses = licenses_of(request.task)
        lease = self._talk.take_lease(request.lease) if request.lease else None
        if lease is not None and sorted(licenses) != sorted(name for name, _ in lease.grant.licenses):
            self._talk.give_back(lease)  # it holds licences for another action
            lease = None
        promised = lease is not None and lease.covers(request.task) and not self._work.board.scoreboard.draining
        refusal = None if promised else desk.refusal(request.task)
        if refusal is not None:
            if lease is not None:
                self._talk.give_back(lease)
            return Decline(refusal.reason, refusal.text)
        if lease is not None:
            self._begin(lease.grant, leased=True)
        elif request.start:
            grant = take_now(self._work, licenses, self._talk.user)
            if grant is None:
                return self._full(licenses)
            self._begin(grant, leased=False)
        return None

    def _full(self, licenses: Sequence[str]) -> Decline:
        """It can't start now; the curve tells when it could."""
        curves = (self._talk.desk.curve(self._request.task),)
        lacking = self._work.grants.lacking(licenses)
        if lacking:
            return Decline("license_in_use", f"other actions hold every license={lacking} of this server", curves)
        return Decline("full", "no slot is free, or others wait for it", curves)

    def _begin(self, grant: Grant, leased: bool) -> None:
        self._grant = grant
        run_s, self._share = self._talk.desk.expect(self._request.task)
        self._work.board.begin(grant.slot, run_s, leased)
        self._talk.enter(grant.slot, self._request.label)

    def _release(self) -> None:
        grant, self._grant = self._grant, None
        if grant is not None:
            self._work.board.end(grant.slot)
            self._work.board.let_go(grant.slot)
            self._work.grants.give_back(grant)

    # --- inputs ---------------------------------------------------------------------------------------

    def _supply(self, staging: Staging) -> None:
        missing = staging.place_known()
        self._count_inputs(missing)
        if not missing:
            return
        self._transport.send(NeedFiles(tuple(missing)))
        self._transport.set_timeout(SUPPLY_S)
        outstanding = iter(missing)
        while isinstance(message := self._talk.expect(File, Supplied), File):
            if message.index != next(outstanding, None):
                raise Malformed(f"FILE {message.index} was not asked for, or out of order")
            staging.receive(message.index, self._transport.connection.incoming_body, self._transport.receive_body)
        left = next(outstanding, None)
        if left is not None:
            raise Malformed(f"SUPPLIED, but FILE {left} is missing")
        self._transport.set_timeout(self._work.settings.idle_s)
        self._beat_at = time.monotonic() + BEAT_S

    def _count_inputs(self, missing: Sequence[int]) -> None:
        manifest = self._request.manifest
        if manifest:
            missed_bytes = sum([manifest[index].size for index in missing])
            hit_bytes = sum([entry.size for entry in manifest]) - missed_bytes
            self._work.board.count_inputs(StoreUse(len(manifest) - len(missing), len(missing), hit_bytes, missed_bytes))

    def _beat(self) -> None:
        """Say that we live, when it is time. Also notices a client that is gone."""
        if time.monotonic() >= self._beat_at:
            self._transport.send(Progress(self._phase, time.monotonic() - self._received, 0.0, 0))
            self._beat_at = time.monotonic() + BEAT_S

    # --- the command ----------------------------------------------------------------------------------

    def _run_command(self, directory: ActionDirectory) -> tuple[int, Ended, list[int]]:
        """Run it in its slot; answers the file system's time at its start, how it ended, and its long outputs."""
        task, desk = self._request.task, self._talk.desk
        if self._grant is None:
            licenses, user = licenses_of(task), self._talk.user
            self._begin(wait_for_grant(self._work, self._transport, licenses, user, self._beat), leased=True)
        self._queued_s = time.monotonic() - self._received
        self._phase = "running"
        executor = self._work.executors.take()
        try:
            started = current_tick()
            executor.start(self._job(directory))
            self._watch(executor)
            ended, files = executor.finish()
        except BaseException:
            self._work.executors.drop(executor)
            raise
        self._work.executors.give_back(executor)
        share = (self._share + desk.share(task)) / 2
        board = self._work.board.scoreboard
        self._work_s = ended.elapsed_s * board.speed * share
        if ended.outcome == "exited" and not ended.status and task.work_s > 0.0:
            board.learn(task.work_s, ended.elapsed_s, share)
        self._release()
        return started, ended, files

    def _job(self, directory: ActionDirectory) -> Job:
        settings = self._work.settings
        allowed = {*PASSED_VARIABLES, *(os.fsencode(name) for name in settings.environment)}
        variables = {
            variable.name: variable.value
            for variable in self._request.environment
            if variable.name in allowed or variable.name.startswith(b"LC_")
        }
        variables[b"PATH"] = os.fsencode(settings.path)
        variables[b"PWD"] = directory.box  # a shell sets it, and compilers record it
        variables[b"HOME"] = variables[b"TMPDIR"] = directory.tmp
        if settings.shared:
            variables[b"RAKEFARM_SHARED"] = os.fsencode(settings.shared)
        return Job(
            command=self._request.command,
            directory=directory.box,
            spill_directory=directory.tmp,
            environment=variables,
            timeout_s=self._request.timeout_s,
        )

    def _watch(self, executor: Executor) -> None:
        """Until the executor has an answer: report progress, and stop the command when the client is gone."""
        poller = select.poll()
        poller.register(executor.socket, select.POLLIN)
        poller.register(self._transport.socket, select.POLLIN | select.POLLRDHUP)
        while True:
            ready = poller.poll(max(0.0, self._beat_at - time.monotonic()) * 1000)
            if any(descriptor == executor.socket.fileno() for descriptor, _ in ready):
                return
            check_client(self._transport, ready)
            if time.monotonic() >= self._beat_at:
                self._report_usage(executor)

    def _report_usage(self, executor: Executor) -> None:
        # psutil is heavy, and most commands end before their first beat.
        from rakefarm.server.load import tree_usage

        cpu_s, memory_bytes = tree_usage(executor.pid)
        elapsed = time.monotonic() - self._received
        self._transport.send(Progress("running", elapsed, cpu_s, memory_bytes))
        self._beat_at = time.monotonic() + BEAT_S

    # --- the answer -----------------------------------------------------------------------------------

    def _deliver(
        self, directory: ActionDirectory, staging: Staging, started: int, ended: Ended, files: list[int]
    ) -> None:
        outcome, status, detail = ended.outcome, ended.status, ended.detail
        if outcome == "unfit_command":
            detail = f"the command could not be started: {detail}"
        made: list[Made] = []
        if outcome == "exited" and status == 0:
            try:
                made = self._collect(directory, staging, started)
            except UnfitOutput as unfit:
                outcome, detail = "unfit_output", str(unfit)
            except MissingOutput as missing:
                outcome, detail = "missing_output", f"the declared output {show(missing.path)} was not made"
        self.outcome, self.status = outcome, status
        gather = self._transport.gather
        gather(
            Result(
                outcome=outcome,
                status=status,
                elapsed_s=ended.elapsed_s,
                queued_s=self._queued_s,
                cpu_s=ended.cpu_s,
                peak_memory_bytes=ended.peak_memory_bytes,
                work_s=self._work_s,
                detail=detail,
            )
        )
        handed = iter(files)
        for message, size, data in (
            (Stdout(), ended.stdout_bytes, ended.stdout),
            (Stderr(), ended.stderr_bytes, ended.stderr),
        ):
            if size:
                pieces = iter([data]) if len(data) == size else _read_pieces(next(handed))
                self._transport.gather_pieces(message, size, pieces)
        for file in made:
            directory.expect(file.path)
            self._send_output(file)
        draining = self._work.board.scoreboard.draining  # nobody should plan with us any more
        self._transport.send(Delivered(() if draining else (self._talk.desk.curve(self._request.task),)))
        logger.debug(
            "%s: %r: %s %d after %.2f s", self._talk.peer, self._request.label, outcome, status, ended.elapsed_s
        )
        for file in made:
            self._work.store.add(file.sha256, file.source, file.size)

    def _collect(self, directory: ActionDirectory, staging: Staging, started: int) -> list[Made]:
        if self._request.declared:
            return find_declared(directory.box, self._request.produces, self._beat)
        return find_new(directory.box, staging.staged, staging.aliases, started, self._beat)

    def _send_output(self, file: Made) -> None:
        descriptor = os.open(file.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._transport.gather_file(Output(file.path, file.mode, file.sha256), descriptor, file.size)
        finally:
            os.close(descriptor)


def _read_pieces(descriptor: int) -> Iterator[bytes]:
    position = 0
    while data := os.pread(descriptor, READ_BYTES, position):
        yield data
        position += len(data)


_numbers = itertools.count(1)  # its next() is one step, so threads need no lock
