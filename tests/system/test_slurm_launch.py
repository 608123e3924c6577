"""`rakefarm up --slurm` and `rakefarm run --slurm`, on four emulated nodes of a real Slurm (see `slurm_vocabulary`)."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_vocabulary import User, holds_no_token
from server_vocabulary import is_alive, wait_until
from slurm_vocabulary import Cluster, Unavailable, cluster

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """Four idle nodes."""
    place = Path(tempfile.mkdtemp(prefix="rakefarm-slurm-"))
    place.chmod(0o755)
    try:
        with cluster(place) as made:
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        shutil.rmtree(place)


@pytest.fixture
def user(slurm: Cluster) -> Iterator[User]:
    """A user of these nodes, who leaves nothing behind: no job, process, key or directory."""
    made = User(slurm.home / f"user-{len(list(slurm.home.iterdir()))}", slurm.environ)
    yield made
    for name in slurm.run("squeue", "-h", "-o", "%i").split():
        slurm.run("scancel", name)
    slurm.wait_clear()


def left(user: User) -> list[str]:
    """What is in the directory for temporary files."""
    return sorted(path.name for path in (user.home / "tmp").iterdir())


def test_four_hosts_that_are_all_used_and_gone_after_sigterm(slurm: Cluster, user: User) -> None:
    up = user.start("up", "--slurm", "-N", "4")
    hosts, key_file = up.wait_up()
    assert len(set(hosts)) == 4 and all(host.startswith(f"{slurm.address}:") for host in hosts)
    assert key_file.stat().st_mode & 0o777 == 0o600 and key_file.parent.stat().st_mode & 0o777 == 0o700
    assert holds_no_token(slurm.processes(), key_file), "the key is never an argument or a variable"
    assert user.build_everywhere(hosts, key_file) == set(hosts)
    assert up.end() == 0
    assert up.err.count("\n") == 1, up.err
    slurm.wait_clear()
    assert left(user) == []


def test_servers_that_srun_reports_as_killed_end_it_with_status_0(slurm: Cluster, user: User) -> None:
    program = user.program(user.home / "killed", after="kill -9 $$")
    up = user.start("up", "--slurm", "-N", "2", "--program", program)
    up.wait_up()
    assert up.end() == 0 and up.err.count("\n") == 1, up.err
    assert left(user) == []


def test_too_many_nodes_are_one_line(slurm: Cluster, user: User) -> None:
    for more in ((), ("--wait",)):
        up = user.run("up", "--slurm", "-N", "9", *more)
        assert "Slurm can't give 9 nodes: the partition has fewer such nodes" in up.one_line()
        assert up.process.returncode == 3 and not slurm.jobs()


def test_slurms_own_refusal_is_one_line(slurm: Cluster, user: User) -> None:
    up = user.run("up", "--slurm", "-N", "2", "--", "--partition=nosuch")
    assert "Slurm gives no nodes: Invalid partition name specified [RF008]" in up.one_line()
    assert up.process.returncode == 3


def test_an_interrupt_while_it_waits_leaves_no_job(slurm: Cluster, user: User) -> None:
    words = [slurm.programs["salloc"], "-K", "-N", "3", "--exclusive", "-J", "other", "sleep", "60"]
    with subprocess.Popen(words, env=slurm.environ, stderr=subprocess.DEVNULL):
        wait_until(lambda: slurm.jobs() == ["other"])
        up = user.start("up", "--slurm", "-N", "2", "--wait")
        up.wait_for("waits for 2 nodes")
        assert up.end(signal.SIGINT) == 130
        assert up.err.count("\n") == 1 and up.out == "" and left(user) == []
        wait_until(lambda: slurm.jobs() == ["other"], "the waiting job to be gone")
        slurm.run("scancel", "--name=other")


def test_nodes_that_become_free_are_waited_for(slurm: Cluster, user: User) -> None:
    words = [slurm.programs["salloc"], "-K", "-N", "3", "--exclusive", "-J", "other", "sleep", "60"]
    with subprocess.Popen(words, env=slurm.environ, stderr=subprocess.DEVNULL):
        wait_until(lambda: slurm.jobs() == ["other"])
        up = user.start("up", "--slurm", "-N", "2", "--wait")
        up.wait_for("waits for 2 nodes")
        slurm.run("scancel", "--name=other")
        assert len(up.wait_up()[0]) == 2
        assert up.end() == 0


@pytest.mark.slow
def test_busy_nodes_are_one_line_for_who_does_not_wait(slurm: Cluster, user: User) -> None:
    words = [slurm.programs["salloc"], "-K", "-N", "3", "--exclusive", "-J", "other", "sleep", "60"]
    with subprocess.Popen(words, env=slurm.environ, stderr=subprocess.DEVNULL):
        wait_until(lambda: slurm.jobs() == ["other"])
        up = user.run("up", "--slurm", "-N", "2")
        assert "2 nodes are not free now (Resources); with --wait they are waited for" in up.one_line()
        assert up.process.returncode == 3
        slurm.run("scancel", "--name=other")


def test_a_server_that_never_answers_is_one_line_and_ends_the_others(slurm: Cluster, user: User) -> None:
    program = user.program(user.home / "silent", before='[ "$SLURMD_NODENAME" != n3 ] || exec sleep 600')
    up = user.run("up", "--slurm", "-N", "4", "--program", program, "--start-timeout", "8")
    assert up.one_line() == "rakefarm: error: n3: no server is ready there after 8 s [RF008]"
    assert up.process.returncode == 3
    slurm.wait_clear()


def test_a_server_that_cannot_start_is_its_own_line_and_ends_the_others(slurm: Cluster, user: User) -> None:
    program = user.program(user.home / "unfit", before='[ "$SLURMD_NODENAME" != n2 ] || set -- "$@" -i 192.0.2.250')
    up = user.run("up", "--slurm", "-N", "4", "--program", program)
    assert "n2: can't listen on 192.0.2.250:0" in up.one_line() and up.one_line().endswith(" [RF006]")
    up = user.run("up", "--slurm", "-N", "2", "--program", "/nonexistent/rakeserver")
    assert "/nonexistent/rakeserver: not found [RF008]" in up.one_line()
    assert up.process.returncode == 3
    slurm.wait_clear()


def test_scancel_from_outside_is_one_line(slurm: Cluster, user: User) -> None:
    up = user.start("up", "--slurm", "-N", "4")
    up.wait_up()
    slurm.run("scancel", "--name=rakefarm")
    assert up.process.wait(60) == 3
    assert "is over: it was cancelled [RF008]" in up.err.splitlines()[-1] and up.err.count("\n") == 2, up.err
    slurm.wait_clear()
    assert left(user) == []


def test_a_lost_server_is_told_and_the_others_stay(slurm: Cluster, user: User) -> None:
    program = user.program(user.home / "marked", before='echo $$ > "$HOME/$SLURMD_NODENAME"')
    up = user.start("up", "--slurm", "-N", "3", "--program", program)
    hosts, key_file = up.wait_up()
    subprocess.run(["kill", "-9", (user.home / "n2").read_text().strip()], check=True)
    up.wait_for("warning: lost the server on n2: ")
    assert "; 2 left" in up.err
    assert user.build_everywhere([hosts[0], hosts[2]], key_file) == {hosts[0], hosts[2]}
    assert up.end() == 0


def test_when_we_are_killed_the_servers_and_the_job_end_by_themselves(slurm: Cluster, user: User) -> None:
    up = user.start("up", "--slurm", "-N", "4")
    up.wait_up()
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    slurm.wait_clear()


def test_make_runs_on_the_farm_and_its_status_is_ours(slurm: Cluster, user: User) -> None:
    project = user.project()
    (user.home / "bin").mkdir()
    (user.home / "bin" / "rakefarm").write_text(f'#!/bin/sh\nexec {sys.executable} -m rakefarm "$@"\n')
    (user.home / "bin" / "rakefarm").chmod(0o755)
    user.environ["PATH"] = f"{user.home / 'bin'}:{user.environ['PATH']}"
    run = user.run("run", "--slurm", "-N", "4", "sh", "-c", "make -j8 && rakefarm cc --statistics", where=project)
    assert run.process.returncode == 0 and len(list(project.glob("*.o"))) == 12, run.err
    assert "12 compiled on the farm" in run.out, run.out
    assert user.run("run", "--slurm", "-N", "4", "make", "-j", "fail", where=project).process.returncode == 2
    assert user.run("run", "--slurm", "-N", "1", "sh", "-c", "exit 37").process.returncode == 37
    assert user.run("run", "--slurm", "-N", "1", "sh", "-c", "kill -9 $$").process.returncode == 137
    slurm.wait_clear()
    assert left(user) == []


def test_inside_an_allocation_its_own_nodes_are_used(slurm: Cluster, user: User) -> None:
    inside = (slurm.programs["salloc"], "-Q", "-N", "2", "-J", "outer")
    run = user.run("run", "--slurm", "-N", "2", "sh", "-c", 'squeue -h -o %j; echo "$RAKEFARM_HOSTS"', prefix=inside)
    names, hosts = run.out.split()
    assert (run.process.returncode, names, hosts.count(",")) == (0, "outer", 1), run.err
    run = user.run("up", "--slurm", "-N", "4", prefix=inside)
    assert "Slurm gives no nodes: Only allocated 2 nodes asked for 4 [RF008]" in run.one_line()


def test_sigterm_goes_to_the_command_and_then_the_farm_ends(slurm: Cluster, user: User) -> None:
    run = user.start("run", "--slurm", "-N", "2", "sh", "-c", "echo $$ > pid; exec sleep 600")
    wait_until((run.place / "pid").exists)
    pid = int(wait_until(lambda: (run.place / "pid").read_text().strip()))
    assert run.end() == 143 and not is_alive(pid)
    slurm.wait_clear()
