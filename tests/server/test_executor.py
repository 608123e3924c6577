"""Executors: commands one after another, nothing of any of them left, and a death is told as the farm's, not theirs."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from msgspec import structs
from server_vocabulary import Gate, is_alive, other_process, processes_in, variables, wait_until

from rakefarm import process
from rakefarm.server.executors import Executor, ExecutorLost, Executors
from rakefarm.server.isolation.confinement import Confinement
from rakefarm.server.isolation.probe import try_level
from rakefarm.server.job import INLINE_BYTES, Ended, Job

MIB = 1 << 20
PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def own_processes_work(tmp_path_factory: pytest.TempPathFactory) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner's watchdog is a thread
        return try_level("process", Confinement(), str(tmp_path_factory.mktemp("probe"))).own_processes


@pytest.fixture(params=[True, False], ids=["namespace", "subreaper"])
def confinement(request: pytest.FixtureRequest, own_processes_work: bool) -> Confinement:
    """With PID namespaces, where the kernel allows them, and without."""
    if request.param and not own_processes_work:
        pytest.skip("the kernel allows no PID namespaces here")
    return Confinement(level="process", own_processes=request.param)


def make_executors(confinement: Confinement, place: Path) -> Executors:
    place.joinpath("executors").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Executors([], confinement, str(place / "executors"), 4)


@pytest.fixture
def executors(confinement: Confinement, tmp_path: Path) -> Iterator[Executors]:
    made = make_executors(confinement, tmp_path)
    yield made
    made.end_all()
    assert os.listdir(tmp_path / "executors") == []
    wait_until(lambda: not is_alive(made.nursery_pid))
    wait_until(lambda: not processes_in(tmp_path), "all processes gone")


def job(tmp_path: Path, command: str | bytes, timeout_s: float = 0.0, **environment: str) -> Job:
    """A job whose processes carry the test's directory in their environment."""
    tmp_path.joinpath("box").mkdir(exist_ok=True)
    return Job(
        command=command.encode() if isinstance(command, str) else command,
        directory=os.fsencode(tmp_path / "box"),
        environment={
            variable.name: variable.value for variable in variables(PATH=PATH, MARK=str(tmp_path), **environment)
        },
        timeout_s=timeout_s,
    )


def commands_in(place: Path, executors: Executors | None = None) -> list[int]:
    """Processes with the mark of `place`, but for the executors, which stay in the last command's directory."""
    own = {executor.pid for executor in executors._all} if executors else set()
    return [pid for pid in processes_in(place) if pid not in own]


def run(executor: Executor, wanted: Job) -> Ended:
    executor.start(wanted)
    ended, files = executor.finish()
    for file in files:
        os.close(file)
    return ended


# --- what a command did ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome", "status"),
    [
        ("true", "exited", 0),
        ("exit 3", "exited", 3),
        ("kill -SEGV $$", "signalled", signal.SIGSEGV),
        ("kill -KILL $$", "signalled", signal.SIGKILL),
        ("no-such-program", "exited", 127),
    ],
)
def test_endings(executors: Executors, tmp_path: Path, command: str, outcome: str, status: int) -> None:
    ended = run(executors.take(), job(tmp_path, command))
    assert (ended.outcome, ended.status) == (outcome, status)


def test_it_runs_in_its_directory_with_its_variables(executors: Executors, tmp_path: Path) -> None:
    ended = run(executors.take(), job(tmp_path, "pwd; echo $X; echo err >&2", X="y z"))
    assert ended.stdout == f"{tmp_path}/box\ny z\n".encode()
    assert ended.stderr == b"err\n"
    assert (ended.stdout_bytes, ended.stderr_bytes) == (len(ended.stdout), 4)


PLACED = "B=$PWD;echo \"$B\";cd './below'&&exec '{}' {}"


def placed(tmp_path: Path, program: str, words: str) -> Job:
    """A command that goes to a directory, as those of compiler calls do."""
    (tmp_path / "box" / "below").mkdir(parents=True, exist_ok=True)
    return job(tmp_path, PLACED.format(program, words), PWD=f"{tmp_path}/box")


def test_a_command_that_goes_to_a_directory_is_what_the_shell_makes_of_it(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    ended = run(executor, placed(tmp_path, "/usr/bin/env", "'A=1 2' \"C=$B\" '/usr/bin/env'"))
    where, *variables = ended.stdout.decode().splitlines()
    assert where == f"{tmp_path}/box"
    assert {f"PWD={where}/below", f"OLDPWD={where}", "A=1 2", f"C={where}"} <= {*variables}
    ended = run(executor, placed(tmp_path, "/bin/sh", "'-c' 'pwd; exit 7'"))
    assert (ended.status, ended.stdout.decode().splitlines()[1:]) == (7, [f"{where}/below"])


def test_it_needs_no_shell(confinement: Confinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SHELL", "/no/such/shell")
    executors = make_executors(confinement, tmp_path)
    try:
        executor = executors.take()
        assert run(executor, placed(tmp_path, "/bin/pwd", "")).stdout.decode() == f"{tmp_path}/box\n" + (
            f"{tmp_path}/box/below\n"
        )
        assert run(executor, job(tmp_path, "pwd; pwd")).outcome == "could_not_start"
    finally:
        executors.end_all()


@pytest.mark.parametrize(("program", "status"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_one_that_can_not_be_executed_is_told_as_the_shell_does(
    executors: Executors, tmp_path: Path, program: str, status: int
) -> None:
    executor = executors.take()
    ended = run(executor, placed(tmp_path, program, "x"))
    assert (ended.status, ended.stdout) == (status, f"{tmp_path}/box\n".encode())
    assert program.encode() in ended.stderr
    os.rmdir(tmp_path / "box" / "below")
    gone = job(tmp_path, PLACED.format("/bin/true", ""), PWD=f"{tmp_path}/box")
    ended = run(executor, gone)
    assert ended.status and b"below" in ended.stderr
    assert run(executor, job(tmp_path, "true")).status == 0


def test_a_time_limit_ends_all_of_it(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    ended = run(executor, job(tmp_path, "setsid sleep 1000 & sleep 1000", timeout_s=0.3))
    assert ended.outcome == "timed_out"
    assert commands_in(tmp_path, executors) == []


@pytest.mark.parametrize("command", [b"echo a\0b", b"echo " + b"'x'" * 50_000])
def test_what_could_not_be_started_is_told_and_the_next_runs(
    executors: Executors, tmp_path: Path, command: bytes
) -> None:
    executor = executors.take()
    ended = run(executor, job(tmp_path, command))
    assert ended.outcome == "unfit_command" and ended.detail
    assert run(executor, job(tmp_path, "true")).outcome == "exited"


def test_a_directory_that_is_not_there_is_told_and_the_next_runs(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    missing = job(tmp_path / "a", "true") if (tmp_path / "a").mkdir() is None else None
    assert missing is not None
    os.rmdir(missing.directory)
    assert run(executor, missing).outcome == "could_not_start"
    assert run(executor, job(tmp_path, "true")).outcome == "exited"


@pytest.mark.parametrize("size", [INLINE_BYTES, INLINE_BYTES + 1, 2 * MIB])
def test_long_output_is_handed_over_as_a_file(executors: Executors, tmp_path: Path, size: int) -> None:
    executor = executors.take()
    executor.start(job(tmp_path, f"yes 0123456789 | head -c {size}; head -c {size} /dev/zero >&2"))
    ended, files = executor.finish()
    assert (ended.stdout_bytes, ended.stderr_bytes) == (size, size)
    expected = [(b"0123456789\n" * (size // 11 + 1))[:size], bytes(size)]
    if size <= INLINE_BYTES:
        assert [ended.stdout, ended.stderr] == expected and not files
    else:
        assert [ended.stdout, ended.stderr] == [b"", b""]
        assert [os.pread(file, size + 1, 0) for file in files] == expected
    for file in files:
        os.close(file)


def test_one_long_stream_is_not_taken_for_the_other(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    executor.start(job(tmp_path, "echo out; head -c 1048577 /dev/zero >&2"))
    ended, files = executor.finish()
    assert ended.stdout == b"out\n" and ended.stderr == b"" and ended.stderr_bytes == MIB + 1
    assert [os.fstat(file).st_size for file in files] == [MIB + 1]
    os.close(files[0])


# --- nothing is left ------------------------------------------------------------------------------------

DAEMONS = {
    "child": "sleep 1000 &",
    "session": "setsid sleep 1000 &",
    "double fork": "(setsid sh -c 'sleep 1000 & sleep 1000 &' &);",
    "holds the pipes": "setsid sh -c 'exec sleep 1000' <&- &",
    "let go of the pipes": "setsid sleep 1000 >/dev/null 2>&1 </dev/null &",
    "ignores signals": "setsid sh -c 'trap \"\" TERM INT HUP; sleep 1000; sleep 1000' &",
    "multiplies": "setsid sh -c 'for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; sleep 1000' &",
    "empty environment": 'cd "$MARK/box"; env -i setsid /bin/sleep 1000 &',
}


def test_a_command_is_stopped_on_our_word(executors: Executors, tmp_path: Path) -> None:
    executor, gate = executors.take(), Gate(tmp_path)
    executor.start(job(tmp_path, b"echo begun; " + gate.command))
    gate.wait_reached()
    executor.stop()
    ended, _ = executor.finish()
    assert (ended.outcome, ended.stdout) == ("stopped", b"begun\n")
    assert run(executor, job(tmp_path, "exit 5")).status == 5, "the executor lives"


def test_output_is_cut_where_it_is_too_much_and_the_command_never_knows(executors: Executors, tmp_path: Path) -> None:
    limited = structs.replace(job(tmp_path, "yes | head -c 3000000; echo good >&2"), stdout_most=1000)
    ended = run(executors.take(), limited)
    assert (ended.outcome, ended.status, ended.stderr) == ("exited", 0, b"good\n")
    assert ended.stdout == b"y\n" * 500 + b"\n[rakefarm: cut here: 2999000 more bytes were written]\n"


def test_few_idle_executors_are_kept(executors: Executors) -> None:
    taken = [executors.take() for _ in range(6)]
    for executor in taken:
        executors.give_back(executor)
    assert [executor.alive for executor in taken[:4]] == [True] * 4
    assert len(executors._all) == 4


@pytest.mark.parametrize("daemon", DAEMONS.values(), ids=DAEMONS)
def test_a_daemon_is_dead_before_the_answer_comes(executors: Executors, tmp_path: Path, daemon: str) -> None:
    executor = executors.take()
    # The daemon has certainly been started when the command ends.
    ended = run(executor, job(tmp_path, f"{daemon} sleep 0.1; exit 4"))
    assert (ended.outcome, ended.status) == ("exited", 4)
    assert commands_in(tmp_path, executors) == []
    assert run(executor, job(tmp_path, "exit 5")).status == 5, "the executor lives"


def test_who_does_not_wait_for_a_long_command_gets_its_end_later(executors: Executors, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    executor = executors.take()
    executor.start(job(tmp_path, gate.command))
    assert executor.finish_soon() is None
    gate.open()
    ended, _ = executor.finish()
    assert (ended.outcome, ended.status) == ("exited", 0)
    executors.give_back(executor)


def test_an_executor_is_used_again_and_leaks_nothing(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    run(executor, job(tmp_path, "true"))
    files = len(os.listdir(f"/proc/{executor.pid}/fd"))
    for number in range(100):
        assert run(executor, job(tmp_path, f"exit {number}")).status == number
    run(executor, job(tmp_path, "head -c 2097152 /dev/zero"))
    wait_until(lambda: len(os.listdir(f"/proc/{executor.pid}/fd")) == files, "all files closed again")
    executors.give_back(executor)
    assert executors.take() is executor


def test_commands_can_not_see_the_files_of_the_worker(executors: Executors, tmp_path: Path) -> None:
    ended = run(executors.take(), job(tmp_path, "ls /proc/self/fd | wc -l; ls -l /proc/self/fd >&2"))
    assert ended.stdout.strip() == b"4", ended.stderr


def test_commands_are_in_a_namespace_where_that_works(
    executors: Executors, tmp_path: Path, confinement: Confinement
) -> None:
    ended = run(executors.take(), job(tmp_path, f"kill -0 1 && echo $$; kill -0 {os.getpid()}"))
    if confinement.own_processes:
        assert int(ended.stdout) < 100, "numbers begin anew"
    assert (ended.status != 0) == confinement.own_processes, "we can't be seen"


def test_a_command_can_not_end_its_executor_in_a_namespace(
    executors: Executors, tmp_path: Path, confinement: Confinement
) -> None:
    """Process 1 of a namespace takes no signal from within."""
    if not confinement.own_processes:
        pytest.skip("without a namespace a command of the same user can, which is then ExecutorLost")
    ended = run(executors.take(), job(tmp_path, "kill -KILL 1; kill -TERM $PPID; exit 6"))
    assert (ended.outcome, ended.status) == ("exited", 6)


# --- ends -----------------------------------------------------------------------------------------------


def test_a_killed_executor_is_lost_and_its_command_ends(executors: Executors, tmp_path: Path) -> None:
    executor, gate = executors.take(), Gate(tmp_path)
    executor.start(job(tmp_path, b"setsid sleep 1000 & " + gate.command))
    gate.wait_reached()
    os.kill(executor.pid, signal.SIGKILL)
    with pytest.raises(ExecutorLost):
        executor.finish()
    executors.drop(executor)
    wait_until(lambda: not commands_in(tmp_path, executors), "the command's end")
    assert run(executors.take(), job(tmp_path, "exit 7")).status == 7, "another takes its place"


def test_dropping_an_executor_ends_its_command(executors: Executors, tmp_path: Path) -> None:
    """The worker does so when its client is gone."""
    executor, gate = executors.take(), Gate(tmp_path)
    executor.start(job(tmp_path, b"setsid sleep 1000 & " + gate.command))
    gate.wait_reached()
    executors.drop(executor)
    wait_until(lambda: not commands_in(tmp_path, executors), "the command's end")


def test_dropping_one_executor_leaves_the_others_alone(executors: Executors, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = executors.take(), executors.take()
    first, second = Gate(tmp_path / "one"), Gate(tmp_path / "other")
    one.start(job(tmp_path / "one", b"setsid sleep 1000 & " + first.command))
    other.start(job(tmp_path / "other", second.command + b"; exit 8"))
    first.wait_reached()
    second.wait_reached()
    executors.drop(one)
    wait_until(lambda: not commands_in(tmp_path / "one", executors))
    second.open()
    assert other.finish()[0].status == 8


def test_an_idle_executor_that_died_is_not_handed_out(executors: Executors, tmp_path: Path) -> None:
    executor = executors.take()
    run(executor, job(tmp_path, "true"))
    executors.give_back(executor)
    os.kill(executor.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(executor.pid))
    assert run(executors.take(), job(tmp_path, "exit 9")).status == 9


def test_without_a_nursery_no_executor_can_be_had(confinement: Confinement, tmp_path: Path) -> None:
    executors = make_executors(confinement, tmp_path)
    os.kill(executors.nursery_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(executors.nursery_pid))
    with pytest.raises(ExecutorLost):
        executors.take()
    executors.end_all()


def test_a_workers_death_ends_everything(confinement: Confinement, tmp_path: Path) -> None:
    gates = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        gates.append(Gate(tmp_path / str(number)))

    kept = []

    def be_a_worker() -> None:
        executors = make_executors(confinement, tmp_path)
        kept.append(executors)  # or its sockets would be closed with the function
        for number, gate in enumerate(gates):
            executors.take().start(job(tmp_path / str(number), b"setsid sleep 1000 & " + gate.command))
        executors.give_back(executors.take())

    with other_process(be_a_worker) as worker:
        for gate in gates:
            gate.wait_reached()
        family = psutil.Process(worker).children(recursive=True)
        assert len(family) >= 4
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        wait_until(lambda: not any(is_alive(process.pid) for process in family), "all of the worker's family gone")
    assert processes_in(tmp_path) == []


def test_ending_all_of_them_waits_for_the_end(confinement: Confinement, tmp_path: Path) -> None:
    executors, gate = make_executors(confinement, tmp_path), Gate(tmp_path)
    executors.take().start(job(tmp_path, b"setsid sleep 1000 & " + gate.command))
    gate.wait_reached()
    executors.end_all()
    assert processes_in(tmp_path) == []
    assert not is_alive(executors.nursery_pid)


def test_threads_use_executors_side_by_side(executors: Executors, tmp_path: Path) -> None:
    failures: list[object] = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()

    def run_some(number: int) -> None:
        for status in range(15):
            executor = executors.take()
            ended = run(executor, job(tmp_path / str(number), f"echo {number}; exit {status}"))
            executors.give_back(executor)
            if (ended.stdout, ended.status) != (b"%d\n" % number, status):
                failures.append(ended)

    threads = [threading.Thread(target=run_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(executors._all) <= 4
