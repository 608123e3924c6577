"""What a build came to: counts, bytes, promises, time saved, and the warning that nothing ran remotely."""

import math

import pytest

from rakefarm.client.summary import Summary
from rakefarm.events import (
    ActionFinished,
    ActionPlaced,
    ActionQueued,
    ActionRetried,
    BuildFinished,
    BuildStarted,
    CopyEnded,
    HostLeftOut,
    QuoteReceived,
    SetStarted,
)

HOSTS = ("lab1:6238", "lab2:6238")


def started(hosts=HOSTS, cores=2, embedded=False, expected_s=1.0):
    return BuildStarted(
        rakefile="R", actions=4, sets=1, hosts=hosts, cores=cores, embedded=embedded, expected_s=expected_s
    )


def queued(action, remote=True):
    return ActionQueued(action=action, set_name="all", line=action, command="cc", remote=remote)


def placed(action, host="lab1:6238", attempt=1, time_s=0.0, seconds=2.0):
    return ActionPlaced(action=action, host=host, price=1.0, attempt=attempt, time_s=time_s, seconds=seconds)


def finished(action, host="lab1:6238", outcome="succeeded", time_s=1.0, **values):
    return ActionFinished(action=action, host=host, outcome=outcome, time_s=time_s, **values)


def ended(elapsed_s=1.0, interrupted=False):
    return BuildFinished(
        exit_status=0, succeeded=1, failed=0, not_started=0, elapsed_s=elapsed_s, interrupted=interrupted
    )


def summary_of(*events):
    summary = Summary()
    for event in events:
        summary.apply(event)
    return summary


def lines(*events, elapsed_s=1.0):
    return list(summary_of(*events).lines(ended(elapsed_s)))


def test_counts_and_bytes():
    told = lines(
        started(cores=0),
        *[queued(action) for action in (1, 2, 3)],
        queued(4, remote=False),
        placed(1),
        placed(1, "lab2:6238"),  # lab1 was full
        finished(1, "lab2:6238", bytes_sent=2048, bytes_received=1024, bytes_saved=4096),
        placed(2),
        ActionRetried(action=2, host="lab1:6238", reason="lost: reset"),
        placed(2, "lab2:6238", attempt=2),
        finished(2, "lab2:6238", outcome="failed", bytes_saved=1024),
        finished(3, "local"),
        finished(4, "local"),
    )
    assert told[:2] == [
        "2 remote, 1 fell back to this machine, 1 local; 1 retried, 1 refused by a full host",
        "2.0 KiB sent, 1.0 KiB back, 5.0 KiB not sent since the hosts had it",
    ]


def test_promises_are_held_against_what_came_of_them():
    events = [started(cores=0), *[queued(action) for action in range(3)]]
    for action, took in enumerate((1.0, 4.0, 2.0)):
        events += [placed(action, seconds=2.0), finished(action, time_s=took)]
    assert lines(*events)[-1] == "times promised were 50% off (median of 3), right on the whole"
    assert lines(started(cores=0), queued(1), placed(1), finished(1, outcome="failed"))[1:] == ["0 B sent, 0 B back"]


def test_a_first_build_is_not_blamed_for_its_guesses():
    events = [started(cores=0, expected_s=None), queued(1), placed(1, seconds=2.0), finished(1, time_s=0.1)]
    assert lines(*events)[-1] == "times promised were guesses, since no earlier build tells of most of these commands"


def test_time_saved_is_the_best_that_this_machine_could_do_set_by_set():
    events = [
        started(),
        *[queued(action) for action in range(5)],
        *[finished(action, cpu_s=3.0, ran_s=4.0) for action in range(4)],  # 12 s on 2 cores
        SetStarted(index=1, set_name="link", actions=1),
        finished(4, cpu_s=5.0, ran_s=5.0),  # one after the other: 5 s whatever there are cores
    ]
    assert summary_of(*events).alone_s == pytest.approx(11.0)
    assert lines(*events, elapsed_s=4.0)[-1].startswith("about 7.0 s saved: this machine alone would need 11.0 s")
    assert lines(*events, elapsed_s=12.0)[-1].startswith("no time saved: this machine alone would need 11.0 s")
    assert summary_of(started(embedded=True), *events[1:]).alone_s is None


def test_a_server_that_lies_about_time_breaks_nothing():
    events = [queued(action) for action in range(2)] + [finished(a, cpu_s=1e308, ran_s=1.0) for a in range(2)]
    assert math.isfinite(summary_of(started(), *events).alone_s)
    assert len(lines(started(), *events, finished(3, cpu_s=-1e308))) == 3


REFUSED = HostLeftOut(host="lab1:6238", reason="refused")


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([started(), queued(1), REFUSED, finished(1, "local")], "lab1:6238 left out: refused"),
        ([started(), queued(1), finished(1, "", outcome="failed", detail="missing required file x")], "missing req"),
        (
            [started(), queued(1), QuoteReceived(action=1, host="lab2:6238", price=None, reason="tool: no"), REFUSED],
            "lab2:6238 declined: tool: no",
        ),
        (
            [started(), queued(1), placed(1), ActionRetried(action=1, host="lab1:6238", reason="lost\x1b[m")],
            "lost\\x1b",
        ),
        ([started(), queued(1)], "the build ended before"),
        (  # one trouble with one host, told in one way
            [
                *[started(), queued(1), placed(1)],
                ActionRetried(action=1, host="lab1:6238", reason="executor: the executor was killed"),
                HostLeftOut(host="lab1:6238", reason="the server closed the connection; look at its log [RF115]"),
                finished(1, "", outcome="not_run", detail="no server can run it: lab1:6238: the server closed it"),
            ],
            "lab1:6238 left out: the server closed the connection [RF115]",
        ),
    ],
)
def test_nothing_ran_remotely_and_the_first_reason(events, reason):
    told = summary_of(*events).nothing_ran_remotely
    assert told.startswith("nothing ran remotely although 2 hosts were named: ") and reason in told


@pytest.mark.parametrize(
    "events",
    [
        [started(), queued(1, remote=False), finished(1, "local")],  # nothing was for the farm
        [started(), queued(1), REFUSED, placed(1), finished(1)],
        [started(), queued(1), placed(1)],  # interrupted while it ran
        [started(embedded=True), queued(1), finished(1, "", outcome="not_run")],
        [started(hosts=()), queued(1)],
    ],
)
def test_it_says_so_only_when_it_is_true(events):
    assert summary_of(*events).nothing_ran_remotely == ""


def test_what_this_machine_has_won_is_no_local_action():
    summary = summary_of(
        *[started(("local",)), queued(1), queued(2, remote=False)],
        *[placed(1, "local"), ActionPlaced(action=2, host="local", price=None)],
        *[finished(1, "local"), finished(2, "local")],
    )
    assert (summary.remote, summary.won_here, summary.local, summary.fell_back) == (0, 1, 1, 0)
    assert next(iter(summary.lines(ended()))) == "1 won by this machine, 1 local"
    assert summary.nothing_ran_remotely == ""  # no other host was named
    embedded = [started(("local",), embedded=True), queued(1), placed(1, "local"), finished(1, "local")]
    assert lines(*embedded)[0] == "1 on this machine's own farm"
    events = [started(("local", "lab1:6238")), queued(1), placed(1, "local"), finished(1, "local")]
    assert summary_of(*events).nothing_ran_remotely.endswith("a host was named: this machine had the lowest price")


def test_a_copy_is_no_refusal_and_the_first_keeps_its_promise():
    backup = ActionPlaced(action=1, host="lab2:6238", price=1.0, attempt=2, time_s=5.0, seconds=2.0, backup=True)
    events = [started(cores=0), queued(1), placed(1, seconds=6.0), backup]
    ending = [CopyEnded(action=1, host="lab2:6238", reason="superseded", time_s=6.0), finished(1, time_s=6.0)]
    told = lines(*events, *ending)
    assert told[0] == "1 remote; 1 copied to another host"
    assert told[-1] == "times promised were 0% off (median of 1), right on the whole"
