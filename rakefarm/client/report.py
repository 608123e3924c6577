"""How an action ended, from what a server or this machine says of its command, and the events that tell it."""

import contextlib
import os
import signal
from collections.abc import Iterator

from msgspec import Struct, field

from rakefarm import process
from rakefarm.capture import Capture
from rakefarm.client.local import LocalResult
from rakefarm.client.outputs import OutputError
from rakefarm.client.plan import Outcome, PlannedAction
from rakefarm.codes import Code
from rakefarm.events import ActionFinished, ActionOutput, Event
from rakefarm.wire.messages import Result


class Report(Struct):
    """How an action ended, on its way to its ActionFinished. Times in seconds, sizes in bytes."""

    outcome: Outcome
    host: str = ""
    detail: str = ""
    code: Code | None = None
    exit_status: int | None = None
    ran_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_saved: int = 0
    outputs: tuple[str, ...] = ()
    stdout: Capture = field(default_factory=Capture)
    stderr: Capture = field(default_factory=Capture)

    def close(self) -> None:
        """Let go of what the command wrote."""
        self.stdout.close()
        self.stderr.close()

    def judge(self, result: Result) -> None:
        """Take over what a server's RESULT says."""
        if not result.kept:
            self.ran_s = result.elapsed_s
            self.cpu_s, self.peak_memory_bytes = result.cpu_s, result.peak_memory_bytes
        match result.outcome:
            case "exited":
                self.exit_status = result.status
                self.detail = f"exit status {result.status}" + (", of an earlier run" if result.kept else "")
                if result.status:
                    self.fail(Code.ACTION_FAILED, self.detail)
            case "signalled":
                self.fail(Code.KILLED, killed_by(result.status))
            case "timed_out":
                self.fail(Code.TIME_LIMIT, "its time limit was up")
            case "missing_output" | "unfit_output":
                self.fail(Code.OUTPUT, result.detail)
            case _:
                self.fail(Code.ACTION_FAILED, result.detail)

    def fail(self, code: Code, detail: str) -> None:
        """It has failed, for this reason."""
        self.outcome, self.code, self.detail = Outcome.FAILED, code, detail


def report_local(result: LocalResult, host: str) -> Report:
    """The report of a command that ran here."""
    completed = result.completed
    report = Report(
        Outcome.FAILED,
        host=host,
        ran_s=completed.elapsed_s,
        cpu_s=completed.cpu_s,
        peak_memory_bytes=completed.peak_memory_bytes,
        stdout=completed.stdout,
        stderr=completed.stderr,
    )
    match completed.ending:
        case process.Exited(0) if not result.problem:
            report.outcome, report.exit_status = Outcome.SUCCEEDED, 0
        case process.Exited(0):
            report.fail(Code.OUTPUT, result.problem)
        case process.Exited(status):
            report.exit_status = status
            report.fail(Code.ACTION_FAILED, f"exit status {status}")
        case process.Signalled(number):
            report.fail(Code.KILLED, killed_by(number))
        case process.TimedOut():
            report.fail(Code.TIME_LIMIT, "its time limit was up")
        case process.Cancelled():
            report.detail = "interrupted"
        case process.CouldNotStart(text):
            report.fail(Code.ACTION_FAILED, f"the shell could not be started: {text}")
    return report


def report_error(error: Exception, host: str) -> Report:
    """The report of an action that something of ours has failed, and no command: what it made at the host has no place
    here, or it never went there. The error is an InputError, OutputError or OSError."""
    if isinstance(error, OutputError):
        return Report(Outcome.FAILED, host=host, detail=str(error), code=Code.OUTPUT)
    if isinstance(error, OSError):
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return Report(Outcome.FAILED, detail=f"here: {error.strerror or error}{where}", code=Code.OUTPUT)
    return Report(Outcome.FAILED, detail=str(error), code=Code.MISSING_INPUT)


def closing_events(planned: PlannedAction, report: Report, elapsed_s: float) -> Iterator[Event]:
    """What the action wrote, then its end; made one at a time, since all together may be large."""
    for data in report.stdout.pieces():
        yield ActionOutput(action=planned.number, stdout=data)
    for data in report.stderr.pieces():
        yield ActionOutput(action=planned.number, stderr=data)
    yield ActionFinished(
        action=planned.number,
        host=report.host,
        outcome=report.outcome.value,
        detail=report.detail,
        error=report.code.number if report.code else "",
        exit_status=report.exit_status,
        elapsed_s=elapsed_s,
        ran_s=min(max(report.ran_s, 0.0), elapsed_s),  # a server may say anything
        cpu_s=report.cpu_s,
        peak_memory_bytes=report.peak_memory_bytes,
        bytes_sent=report.bytes_sent,
        bytes_received=report.bytes_received,
        bytes_saved=report.bytes_saved,
        outputs=report.outputs,
    )


def killed_by(number: int) -> str:
    """A signal for a person: "killed by signal 9 (SIGKILL)"."""
    name = ""
    with contextlib.suppress(ValueError):
        name = f" ({signal.Signals(number).name})"
    return f"killed by signal {number}{name}"
