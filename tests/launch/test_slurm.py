"""What is made of what salloc, srun and squeue print: lines as Slurm 22.05 prints them."""

import pytest

from rakefarm.launch.launcher import Options
from rakefarm.launch.node import LaunchFailed
from rakefarm.launch.slurm import HOPELESS, Slurm, parse_reason, parse_tasks
from rakefarm.launch.streams import Ended, Line


def slurm(count: int = 3, words: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> Slurm:
    return Slurm(count, False, words, Options(), "/opt/rakeserver", environ or {}, lambda text: None)


def hear(launch: Slurm, *lines: str) -> Slurm:
    for line in lines:
        launch.hear(Line(0, line, error=True))
    return launch


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-2", [0, 1, 2]),
        ("0,2-3", [0, 2, 3]),
        ("", []),
        ("1-", []),
        ("-1", []),
        ("x", []),
        ("9999999", []),
    ],
)
def test_task_lists(text: str, numbers: list[int]) -> None:
    assert parse_tasks(text) == numbers


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Resources\n", "Resources"),
        ("(Priority)\n", "Priority"),
        ("None\n", ""),
        ("", ""),
        ("slurm_load_jobs error: Invalid job id specified", ""),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]\n", "ReqNodeNotAvail"),
    ],
)
def test_reasons_of_pending_jobs(text: str, reason: str) -> None:
    assert parse_reason(text) == reason
    assert "Resources" not in HOPELESS and "Priority" not in HOPELESS


def test_whole_nodes_are_asked_for_unless_the_user_says_otherwise() -> None:
    words = slurm(4, ("-s", "-c", "8", "--nodes=9")).command()
    allocation, step = words[: words.index("srun")], words[words.index("srun") :]
    assert allocation[0] == "salloc" and allocation.index("--exclusive") < allocation.index("-s")
    assert allocation.index("--nodes=9") < allocation.index("--nodes=4"), "how many is ours to say"
    assert step[-3:-1] == ["/bin/sh", "-c"] and "--nodes=4" in step and "-c 8" not in step


def test_inside_an_allocation_it_is_a_step_of_that() -> None:
    launch = slurm(2, ("--exact",), {"SLURM_JOB_ID": "12"})
    assert launch.command()[:3] == ["srun", "--overlap", "--exact"] and "salloc" not in launch.command()


def test_each_line_goes_to_its_node() -> None:
    launch = slurm(12)
    launch.hear(Line(0, "03: node lab-4.example.org"))
    launch.hear(Line(0, "11: listening on 192.0.2.7:6238 slots=2 x authentication=key encryption=tls y"))
    launch.hear(Line(0, "12: node stranger"))
    launch.hear(Line(0, "node nobody"))
    launch.hear(Line(0, "4: node -oProxyCommand=x"))
    names = [node.name for node in launch.nodes]
    assert names[3] == "lab-4.example.org" and names[4] == "node 5 of 12" and "nobody" not in names
    assert [node.host is not None for node in launch.nodes].index(True) == 11


def test_tasks_that_ended_are_known() -> None:
    launch = hear(
        slurm(),
        "salloc: Granted job allocation 9",
        "srun: error: n[1,3]: tasks 0,2: Exited with exit code 2",
        "srun: error: n9: task 77: Killed",
    )
    assert [node.ended for node in launch.nodes] == ["Exited with exit code 2", "", "Exited with exit code 2"]
    assert launch.nodes_since is not None


def test_what_a_task_says_is_not_taken_for_sruns_own_words() -> None:
    launch = hear(slurm(), "0: srun: error: n2: task 1: Killed", "1: salloc: Granted job allocation 9")
    assert [node.ended for node in launch.nodes] == ["", "", ""] and launch.nodes_since is None


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            ("salloc: error: Job submit/allocate failed: Invalid account or account/partition combination specified",),
            "Slurm gives no nodes: Invalid account or account/partition combination specified",
        ),
        ((), "Slurm gives no nodes: salloc ended with status 1"),
        (
            (
                "salloc: Granted job allocation 9",
                "0: node n1",
                "salloc: Job allocation 9 has been revoked.",
                "0: slurmstepd-n1: error: *** STEP 9.0 ON n1 CANCELLED AT 2026-11-25T10:57:22 DUE TO TIME LIMIT ***",
            ),
            "Slurm's job 9 is over: it was ended due to time limit",
        ),
        (
            (
                "salloc: Granted job allocation 9",
                "0: node n1",
                "slurmstepd: error: *** STEP 9.0 ON n1 CANCELLED AT 2026-11-25T10:57:22 ***",
                "srun: error: n1: task 0: Terminated",
            ),
            "Slurm's job 9 is over: it was cancelled",
        ),
        (
            ("salloc: Granted job allocation 9", "1: sh: 1: no", "srun: error: n2: task 1: Exited with exit code 127"),
            "node 2 of 3: Exited with exit code 127: sh: 1: no",
        ),
    ],
)
def test_why_it_is_over(lines: tuple[str, ...], text: str) -> None:
    launch = hear(slurm(), *lines)
    with pytest.raises(LaunchFailed) as failure:
        launch.hear(Ended(0, 1))
    assert str(failure.value) == text
