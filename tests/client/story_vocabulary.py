"""A build in events, for the tests of whatever is made of them: two hosts, a loss, a refusal, a fall back, a failure."""

from collections.abc import Iterable

from rakefarm.events import (
    ActionFinished,
    ActionOutput,
    ActionPhase,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    Consumer,
    Event,
    HostLeftOut,
    HostReady,
    Notice,
    QuoteReceived,
    SetStarted,
    Stream,
)

RUN = "0123456789abcdef"
LAB1, LAB2 = "lab1:6238", "[::1]:6238"
HOSTILE = "cc -c '</script><script>alert(1)</script>' \"&quot;\" \x1b[2J \udcff ü.c"


class StoppedClock:
    """The time of events, moved by hand; stands for the module `time` in `rakefarm.events`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(1_800_000_000e9 + self.now_s * 1e9)


def story_of_a_build() -> Iterable[tuple[float, Event]]:
    """Each event, and the seconds since the build began."""
    yield (
        0.0,
        BuildStarted(
            rakefile="Rakefile", actions=4, sets=2, hosts=(LAB1, LAB2), policy="plan", cores=2, software="rakefarm 0"
        ),
    )
    yield 0.1, HostReady(host=LAB1, slots=2, server_version="0.1.0", isolation="process", authentication="none")
    yield 0.1, HostReady(host=LAB2, slots=1, server_version="0.1.0", isolation="process")
    yield 0.2, SetStarted(index=0, set_name="compile", actions=3)
    for action, command in ((1, "cc -c a.c"), (2, "cc -c b.c"), (3, HOSTILE)):
        yield 0.2, ActionQueued(action=action, set_name="compile", line=10 + action, command=command, remote=True)
    yield 0.3, QuoteReceived(action=1, host=LAB1, price=1.25, seconds=1.0, terms={"base": 1.0, "memory": 0.25})
    yield 0.3, QuoteReceived(action=1, host=LAB2, price=1.5, seconds=1.5, terms={"base": 1.5})
    yield (
        0.4,
        ActionPlaced(action=1, host=LAB1, price=1.25, seconds=1.0, quoted_as=1, runner_up=LAB2, runner_up_price=1.5),
    )
    yield 0.4, ActionPhase(action=1, host=LAB1, phase="sending")
    yield 0.5, ActionPhase(action=1, host=LAB1, phase="running", bytes_sent=100)
    yield 0.5, ActionPlaced(action=2, host=LAB2, price=1.5, seconds=1.5, quoted_as=1)
    yield 0.6, ActionPlaced(action=2, host=LAB1, price=1.75, seconds=1.6, quoted_as=1)  # the other was full
    yield 0.6, ActionPhase(action=2, host=LAB1, phase="queued")
    yield 0.8, ActionPlaced(action=3, host=LAB2, price=1.5, seconds=1.5, quoted_as=1)
    yield 0.9, ActionRetried(action=3, host=LAB2, reason="lost: connection reset")
    yield 0.9, HostLeftOut(host=LAB2, reason="connection reset")
    yield 1.0, ActionPhase(action=2, host=LAB1, phase="running")
    yield 1.4, ActionPhase(action=1, host=LAB1, phase="receiving")
    yield (
        1.5,
        ActionFinished(
            action=1,
            host=LAB1,
            outcome="succeeded",
            elapsed_s=1.1,
            ran_s=0.9,
            cpu_s=0.8,
            bytes_sent=120,
            bytes_saved=80,
            outputs=("out/a.o",),
        ),
    )
    yield 1.6, ActionPlaced(action=3, host="local", price=None, attempt=2)
    yield 1.6, ActionPhase(action=3, host="local", phase="running")
    yield 2.0, ActionOutput(action=3, stderr=b"\x1b[31mno such </pre><b>file\xff\x1b[m\n")
    yield (
        2.0,
        ActionFinished(
            action=3, host="local", outcome="failed", detail="exit status 1", exit_status=1, elapsed_s=0.4, ran_s=0.4
        ),
    )
    yield (
        2.6,
        ActionFinished(
            action=2, host=LAB1, outcome="succeeded", elapsed_s=2.0, ran_s=1.6, cpu_s=1.5, outputs=("out/b.o", "b.d")
        ),
    )
    yield 2.7, Notice(level="warning", text="odd")
    yield 2.8, BuildFinished(exit_status=1, succeeded=2, failed=1, not_started=1, elapsed_s=2.8)


def tell(clock: StoppedClock, consumers: list[Consumer], run_id: str = RUN, until: int | None = None) -> list[Event]:
    """Have the build, or its first events, happen; answers the events."""
    told: list[Event] = []
    stream = Stream(run_id, [told.append, *consumers])
    begin_s = clock.now_s
    for after_s, event in list(story_of_a_build())[:until]:
        clock.now_s = begin_s + after_s
        stream.emit(event)
    return told
