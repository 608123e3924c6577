"""Slurm as a launcher: salloc for the nodes, and in it srun, which starts a server on each of them.

    rakefarm ══ standard input: the key, then open ══► salloc ─ srun ══► slurmstepd ══► rakeserver, on each node
             ◄══ standard output and error, each line with its task's number ═══════════

srun copies its standard input to every task. When we end, however that is, the input ends, and with it the servers, the
step and the allocation. Inside an allocation (salloc, sbatch) srun alone starts a step there, beside what else runs.

What salloc and srun report of servers that were asked to stop (137, say) is nobody's fault, and nobody reads it.
"""

import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from rakefarm import process
from rakefarm.client.board import safe_text
from rakefarm.launch.launcher import Options
from rakefarm.launch.node import LaunchFailed, Node, server_script
from rakefarm.launch.streams import Ended, Line, Streams

FREE_S = 15.0
"""For how long a job may be pending when nobody wants to wait: what is free is given out by the scheduler's next round,
which comes at once, and at the latest when another is over (sched_min_interval and the backfill's in slurm.conf(5))."""
ASK_S = 2.0
ASK_TIMEOUT_S = 10.0
HOPELESS = {
    "PartitionNodeLimit": "the partition allows fewer nodes to a job",
    "PartitionConfig": "the partition has fewer such nodes",
    "PartitionTimeLimit": "the partition allows a job less time",
    "BadConstraints": "no nodes are like that",
    "AccountNotAllowed": "the partition is not for this account",
    "QOSNotAllowed": "the partition is not for this quality of service",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the quality of service is not valid",
    "QOSMaxNodePerJobLimit": "the quality of service allows fewer nodes to a job",
    "AssocMaxNodePerJobLimit": "the account allows fewer nodes to a job",
}
"""Reasons (squeue(1), JOB REASON CODES) that no waiting changes, unless an administrator does."""

_LABELLED = re.compile(r" *(\d+): (.*)")
_JOB = re.compile(r"salloc: (?:Pending|Granted) job allocation (\d+)")
_COMPLAINT = re.compile(r"(?:salloc|srun): (?:error|fatal): (?:Job submit/allocate failed: )?(.*)")
_TASKS_ENDED = re.compile(r"srun: error: \S+: tasks? ([\d,-]{1,4096}): (.*)")
_STEP_ENDED = re.compile(r"slurmstepd.*\*\*\* (?:STEP|JOB) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO (.*?))? \*\*\*")
_REASON = re.compile(r"[A-Za-z_]\w*")


def parse_tasks(text: str) -> list[int]:
    """Task numbers as srun lists them: `0`, `0-2`, `0,2-3`. What is no such list names nobody."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 6 or len(last) > 6:
            return []
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def parse_reason(text: str) -> str:
    """Why a job is pending, out of what `squeue -h -o %r` prints; empty when it gives none, or none yet."""
    word = text.strip().strip("()").partition(",")[0]
    return word if _REASON.fullmatch(word) and word != "None" else ""


class Slurm:
    """A launch by Slurm."""

    def __init__(
        self,
        count: int,
        wait: bool,
        words: Sequence[str],
        options: Options,
        ours: str,
        environ: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self.nodes = [Node(f"node {number} of {count}") for number in range(1, count + 1)]
        self._wait = wait
        self._words = words
        self._options = options
        self.start_s = options.start_s
        self._ours = ours
        self._environ = environ
        self._tell = tell
        self._inside = environ.get("SLURM_JOB_ID", "")
        self._job = ""
        self._began = self._ask_at = time.monotonic()
        self._granted: float | None = None
        self._begun = False
        self._reason = ""
        self._complaint = ""
        self._cut_off = ""

    def command(self) -> list[str]:
        """The words that launch: whole nodes, unless the user's own options, which come later, say otherwise."""
        count = str(len(self.nodes))
        script = server_script(self._options.program, self._ours, "slurm", ("-p", str(self._options.port)), True)
        step = ["srun", *(("--overlap", *self._words) if self._inside else ())]
        step += [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--label", "--input=all"]
        # One server less is a farm yet; and a server may use every core that the job has on its node.
        step += ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--cpu-bind=none", "/bin/sh", "-c", script]
        if self._inside:
            return step
        allocation = ["salloc", "--job-name=rakefarm", "--no-kill", "--exclusive", *self._words]
        return [*allocation, f"--nodes={count}", "--ntasks-per-node=1", *step]

    def start(self, streams: Streams, key_line: bytes) -> None:
        words = self.command()
        try:
            streams.start(words, self._environ, key_line)
        except OSError as error:
            raise LaunchFailed(
                f"{words[0]} can't be executed: {error.strerror}; --slurm needs Slurm's commands"
            ) from error
        self._began = time.monotonic()
        self._ask_at = self._began + ASK_S
        if self._inside:
            self._granted = self._began

    def hear(self, told: Line | Ended) -> None:
        if isinstance(told, Ended):
            raise self._explain_end(told.status)
        text = told.text
        if match := _LABELLED.fullmatch(text):
            self._begun = True
            if cut := _STEP_ENDED.fullmatch(match[2]):
                self._note_cut_off(cut[1])
            elif (number := int(match[1][-6:])) < len(self.nodes):
                self.nodes[number].hear(match[2], told.error)
        elif told.error:
            self._hear_slurm(text)

    def _hear_slurm(self, text: str) -> None:
        if match := _JOB.fullmatch(text):
            self._job = match[1]
            if "Granted" in text:
                self._granted = time.monotonic()
        elif match := _STEP_ENDED.fullmatch(text):
            self._note_cut_off(match[1])
        elif match := _TASKS_ENDED.fullmatch(text):
            for number in parse_tasks(match[1]):
                if number < len(self.nodes):
                    self.nodes[number].ended = safe_text(match[2])
        elif text.startswith("salloc: Job allocation") and text.endswith("has been revoked."):
            self._cut_off = self._cut_off or "it was cancelled"
        elif match := _COMPLAINT.fullmatch(text):
            self._complaint = safe_text(match[1])

    def _note_cut_off(self, why: str | None) -> None:
        reason = f"it was ended due to {why.lower()}" if why else "it was cancelled"
        if why or not self._cut_off:
            self._cut_off = safe_text(reason)

    def _explain_end(self, status: int) -> LaunchFailed:
        job = f"Slurm's job {self._job or self._inside}"
        if self._cut_off:
            return LaunchFailed(f"{job} is over: {self._cut_off}")
        if self._granted is None or not self._begun:
            return LaunchFailed(
                f"Slurm gives no nodes: {self._complaint or f'{self.command()[0]} ended with status {status}'}"
            )
        for node in self.nodes:
            if node.ended:
                return node.failure()
        return LaunchFailed(f"{job} is over: {self._complaint or f'srun ended with status {status}'}")

    def attend(self, now: float) -> None:
        if self._granted is not None or now < self._ask_at:
            return
        self._ask_at = now + ASK_S
        reason = self._ask_reason()
        if reason in HOPELESS:
            raise LaunchFailed(f"Slurm can't give {self._wanted}: {HOPELESS[reason]} ({reason})")
        if not self._wait and now > self._began + FREE_S:
            why = f" ({reason})" if reason else ""
            raise LaunchFailed(f"{self._wanted} are not free now{why}; with --wait they are waited for")
        if self._wait and reason and reason != self._reason:
            self._tell(f"job {self._job} waits for {self._wanted} ({reason})")
            self._reason = reason

    @property
    def _wanted(self) -> str:
        return f"{len(self.nodes)} node{'s' if len(self.nodes) > 1 else ''}"

    def _ask_reason(self) -> str:
        return parse_reason(self._run(f"squeue -h -o %r -j {self._job}")) if self._job else ""

    def _run(self, command: str) -> str:
        """What one of Slurm's small commands prints; nothing when it fails."""
        variables = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in self._environ.items()}
        completed = process.run(command.encode(), variables, timeout_s=ASK_TIMEOUT_S)
        text = b"".join(completed.stdout.pieces()).decode("utf-8", "replace")
        completed.close()
        return text if completed.ending == process.Exited(0) else ""

    @property
    def nodes_since(self) -> float | None:
        return self._granted

    def force(self, streams: Streams) -> None:
        if self._job:  # salloc would give the nodes back itself, but for the case that it can't any more
            self._run(f"scancel {self._job}")
        streams.signal(signal.SIGTERM)
