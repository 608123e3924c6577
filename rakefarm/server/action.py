"""One EXECUTE from its request to its ACK: stage, wait for a slot, run, deliver, tidy."""

import os
import select
import time
from collections.abc import Sequence
from typing import Protocol

from rakefarm.logs import logger
from rakefarm.market.curve import Curve
from rakefarm.server.delivery import conclude, keep_outputs, write_answer
from rakefarm.server.desk import Desk, Sight, job_of, licenses_of
from rakefarm.server.executors import Executor, ExecutorLost
from rakefarm.server.grants import Grant, Lease
from rakefarm.server.holding import Holding
from rakefarm.server.job import Ended, Job
from rakefarm.server.likeness import Differs
from rakefarm.server.limits import Watch, check_outputs, end_of, refuse_inputs, usage_below
from rakefarm.server.programs import choose_program
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.staging import Staging, StagingFailed, check_manifest
from rakefarm.server.turn import check_client, try_take, wait_for_grant
from rakefarm.server.workplace import Workplace
from rakefarm.snapshot import Made, current_tick, find_declared, find_new
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
    Progress,
    Result,
    Supplied,
)
from rakefarm.wire.status import StoreUse

BEAT_S = 2.0
"""How often PROGRESS says that we live; a client that misses three in a row counts us as lost."""
SUPPLY_S = 60.0
"""A client that sends nothing for this long while it is its turn to send files is gone."""
FRESH_S = 0.02
"""A look at the scoreboard this long ago still serves."""


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

    def __init__(self, request: Execute, conversation: Talk, key: bytes | None = None) -> None:
        """`key` is what its result is to be kept under, if it is to be."""
        self._request = request
        self._key = key
        self._job = job_of(request.task)
        self._talk = conversation
        self._transport = conversation.transport
        self._work = conversation.workplace
        self._received = time.monotonic()
        self._beat_at = self._received + BEAT_S
        self._phase = "queued"
        self._held = Holding(self._work)
        self._exceeded = ""
        self._command = request.command
        self.outcome, self.status = "lost", 0
        """How it ended, for the audit log: as in RESULT, or declined (empty: before anything was begun), or lost."""

    def run(self) -> None:
        """The whole of it. Raises Lost, a protocol error, or UnsafePath; nothing of the action is left then."""
        request = self._request
        if request.manifest or request.produces:
            check_manifest(request.manifest, request.produces)
        try:
            declined = self._refuse() or self._commit()
            if declined is not None:
                self.outcome = ""
                self._transport.send(declined)
                return
            try:
                directory = self._held.make_directory()
            except ExecutorLost as error:
                self._decline("executor", str(error))
                return
            except OSError as error:
                self._decline("disk", f"the server can't make a sandbox: {error.strerror}")
                return
            try:
                delivered = self._run_in(directory)
            finally:
                # Before the acknowledgement, which travels with the client's next request and may be long in coming.
                self._held.tidy()
        finally:
            self._held.release()
        if delivered:
            self._talk.expect(Ack)

    def _run_in(self, directory: ActionDirectory) -> bool:
        """True when the result was delivered, False when we declined."""
        staging = Staging(self._request.manifest, directory, self._work.store)
        try:
            self._supply(staging)
            staging.place_later(self._beat)
            self._work.likeness.compare(self._request, directory.box, self._beat)
            staging.make_ways(self._request.produces)
            started, ended, files = self._run_command(directory)
        except Differs as difference:
            self._transport.send(Decline("same", str(difference)))
            return False
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
        licenses, seen = licenses_of(request.task), self._talk.desk.look()
        lease = self._talk.take_lease(request.lease) if request.lease else None
        if lease is not None and sorted(licenses) != sorted(name for name, _ in lease.grant.licenses):
            self._talk.give_back(lease)  # it holds licences for another action
            lease = None
        promised = lease is not None and lease.covers(request.task) and not self._work.board.scoreboard.draining
        refusal = None if promised else desk.refusal(self._job, seen)
        if refusal is not None:
            if lease is not None:
                self._talk.give_back(lease)
            return Decline(refusal.reason, refusal.text)
        if lease is not None:
            self._begin(lease.grant, seen, leased=True)
        elif request.start:
            grant = None if seen.promised.waiting else try_take(self._work, licenses, self._talk.user)
            if grant is None:
                return self._full(licenses)
            self._begin(grant, seen, leased=False)
        return None

    def _refuse(self) -> Decline | None:
        """Why this server never takes this action, whatever is free, or None."""
        text = refuse_inputs(self._request.manifest, self._work.limits)
        if text:
            return Decline("inputs", text)
        programs = self._work.settings.programs
        if programs:
            command = choose_program(self._request.command, programs)
            if command is None:
                listed = ", ".join(sorted(programs))
                return Decline("program", f"this server only runs, without a shell: {listed}")
            self._command = command
        return None

    def _full(self, licenses: Sequence[str]) -> Decline:
        """It can't start now; the curve tells when it could."""
        desk = self._talk.desk
        curves = (desk.curve(self._job, desk.look()),)
        lacking = self._work.grants.lacking(licenses)
        if lacking:
            return Decline("license_in_use", f"other actions hold every license={lacking} of this server", curves)
        return Decline("full", "no slot is free, or others wait for it", curves)

    def _begin(self, grant: Grant, seen: Sight, leased: bool) -> None:
        self._held.grant = grant
        run_s, self._share = self._talk.desk.expect(self._job, seen)
        self._held.occupy(run_s, leased)
        self._talk.enter(grant.slot, self._request.label)

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
        if self._held.grant is None:
            licenses, user = licenses_of(task), self._talk.user
            grant = wait_for_grant(self._work, self._transport, licenses, user, self._beat)
            self._begin(grant, desk.look(), leased=True)
        self._queued_s = time.monotonic() - self._received
        self._phase = "running"
        executor = self._held.executor
        directory.hand_over()
        started = current_tick()
        self._held.at_work = True
        executor.start(self._make_job(executor))
        ended, files = executor.finish_soon() or self._watch(executor, directory)
        self._held.at_work = False
        if ended.outcome != "stopped" and self._exceeded:
            self._held.at_work, self._exceeded = True, ""  # our word came too late, and waits to be read
        directory.take_back()
        self._held.release()
        self._seen = desk.look()
        share = (self._share + desk.share(self._job, self._seen)) / 2
        board = self._work.board.scoreboard
        self._work_s = ended.elapsed_s * board.speed * share
        if task.work_s > 0.0 and ended.outcome == "exited" and not ended.status:
            board.learn(task.work_s, ended.elapsed_s, share)
        return started, ended, files

    def _make_job(self, executor: Executor) -> Job:
        request, work, limits = self._request, self._work, self._work.limits
        times = [seconds for seconds in (request.timeout_s, limits.time_s) if seconds]
        return Job(
            command=self._command,
            directory=executor.inside + b"/box",
            environment={
                **work.environment(request.environment),
                b"PWD": executor.inside + b"/box",  # a shell sets it, and compilers record it
                b"HOME": executor.inside + b"/tmp",
                b"TMPDIR": executor.inside + b"/tmp",
            },
            timeout_s=min(times, default=0.0),
            stdout_most=limits.stdout_size,
            stderr_most=limits.stderr_size,
        )

    def _watch(self, executor: Executor, directory: ActionDirectory) -> tuple[Ended, list[int]]:
        """Until the executor has its answer: report progress, stop the command when the client is gone, or when it
        takes too much."""
        poller = select.poll()
        poller.register(executor.socket, select.POLLIN)
        poller.register(self._transport.socket, select.POLLIN | select.POLLRDHUP)
        box_is_limited = executor.home_descriptor is not None
        watch = Watch(self._work.limits, executor.pid, (directory.box, directory.tmp), box_is_limited)
        while True:
            until = min(self._beat_at, watch.due) if not self._exceeded else self._beat_at
            ready = poller.poll(max(0.0, until - time.monotonic()) * 1000)
            if any(descriptor == executor.socket.fileno() for descriptor, _ in ready):
                return executor.finish()
            check_client(self._transport, ready)
            now = time.monotonic()
            if now >= self._beat_at:
                self._report_usage(executor)
            if now >= watch.due and not self._exceeded:
                self._exceeded = watch.look()
                if self._exceeded:
                    executor.stop()

    def _report_usage(self, executor: Executor) -> None:
        usage = usage_below(executor.pid)
        elapsed = time.monotonic() - self._received
        self._transport.send(Progress("running", elapsed, usage.cpu_s, usage.memory_bytes))
        self._beat_at = time.monotonic() + BEAT_S

    # --- the answer -----------------------------------------------------------------------------------

    def _deliver(
        self, directory: ActionDirectory, staging: Staging, started: int, ended: Ended, files: list[int]
    ) -> None:
        exceeded = self._exceeded or end_of(ended, self._work.limits, self._request.timeout_s)
        end = conclude(ended, exceeded, lambda: self._collect(directory, staging, started))
        self.outcome, self.status = end.outcome, end.status
        result = Result(
            outcome=end.outcome,
            status=end.status,
            elapsed_s=ended.elapsed_s,
            queued_s=self._queued_s,
            cpu_s=ended.cpu_s,
            peak_memory_bytes=ended.peak_memory_bytes,
            work_s=self._work_s,
            detail=end.detail,
            kept=0,
        )
        for file in end.made:
            directory.expect(file.path)
        write_answer(self._transport, result, ended, files, end.made)
        draining = self._work.board.scoreboard.draining  # nobody should plan with us any more
        self._transport.send(Delivered(() if draining else (self._curve(),)))
        logger.debug(
            "%s: %r: %s %d after %.2f s", self._talk.peer, self._request.label, end.outcome, end.status, ended.elapsed_s
        )
        keep_outputs(self._work.store, end.made)
        if self._key is not None:
            self._work.results.keep(self._key, self._request, result, ended, end.made)

    def _curve(self) -> Curve:
        desk, seen = self._talk.desk, self._seen
        if time.monotonic() - seen.at > FRESH_S:
            seen = desk.look()
        return desk.curve(self._job, seen)

    def _collect(self, directory: ActionDirectory, staging: Staging, started: int) -> list[Made]:
        limits, uid = self._work.limits, self._work.executors.confinement.uid
        owner = uid or os.geteuid()

        def admit(files: int, size: int) -> None:
            check_outputs(files, size, limits)

        if self._request.declared:
            return find_declared(directory.box, self._request.produces, self._beat, admit, owner)
        return find_new(directory.box, staging.staged, staging.aliases, started, self._beat, admit, owner)
