"""The result cache of `rakefarm cc` with real compilers: nothing is compiled twice, and nothing stale comes back."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from calls_vocabulary import SLOW, SLOWLY, Calls, Files
from server_vocabulary import Server, wait_until

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs gcc")
WARNED = ("gcc", "-g", "-Wall", "-Iinc", "-MD", "-c", "src/a.c", "-o", "a.o")


@pytest.fixture
def cached(calls: Calls) -> Calls:
    calls.result_cache_size = "50M"
    calls.write("inc/h.h", "static int unused;\n")
    calls.write("src/a.c", '#include "h.h"\n#include <stdio.h>\nint main(void) { return 0; }\n')
    return calls


def made(calls: Calls) -> Files:
    found = {name: content for name, content in calls.files().items() if name.endswith((".o", ".d"))}
    for name in found:
        (calls.path / name).unlink()
    return found


def cache(calls: Calls, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "rakefarm", "cache", *words],
        cwd=calls.path,
        env=calls.environment(),
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode()


def test_what_comes_out_of_the_cache_is_what_was_made(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = list(farm)
    here = (*cached.call(*WARNED, env={"RAKEFARM_CC": "off"}), made(cached))
    there = (*cached.call(*WARNED), made(cached))
    cached.hosts = []
    again = (*cached.call(*WARNED), made(cached))
    assert here == there == again
    assert b"unused" in again[2]
    counts = cached.statistics()
    assert (counts["compiled"], counts["taken"], counts["run"]) == (1, 1, 0)
    # The mode is the caller's own, and so is what the cache says about it.
    status, _, err = cached.call("-v", *WARNED)
    assert (status, err.splitlines()[0]) == (0, b"rakefarm cc: out of the result cache")


def test_a_change_is_compiled_and_the_reason_told(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = [farm[0]]
    cached.call(*WARNED)
    cached.write("inc/h.h", "static int other;\n")
    assert b"other" in cached.call(*WARNED)[2]
    cached.write("src/h.h", "")
    assert b"unused" not in cached.call(*WARNED)[2]
    cached.call(*WARNED)
    told = cache(cached, "explain", *WARNED)
    assert told.startswith("its result is in the cache\n")
    assert f"files are there now that were looked for in vain: {cached.path}/src/h.h" in told
    assert "  + -O3" in cache(cached, "explain", *WARNED, "-O3")
    told = json.loads(cache(cached, "stats", "--json"))
    assert told["hits"] == 1
    assert {cause: count for cause, count in told["misses"].items() if count} == {"new": 1, "inputs": 1, "appeared": 1}
    assert 0 < told["size_bytes"] < told["cap_bytes"] == 50 << 20
    assert cache(cached, "clear").startswith("removed ")
    assert "not in the cache: no earlier call" in cache(cached, "explain", *WARNED)
    assert b"not in the result cache" in cached.call("-v", *WARNED)[2]


def test_without_a_farm_what_is_compiled_here_is_kept(cached: Calls) -> None:
    first = (*cached.call(*WARNED), made(cached))
    assert first[0] == 0

    def hit() -> bool:
        # Inputs that have just been written could be written again within the same time, and nothing is kept.
        assert (*cached.call(*WARNED), made(cached)) == first
        return cached.statistics().get("taken", 0) > 0

    wait_until(hit)
    cached.write("bad.c", "int x\n")
    status, _, err = cached.call("gcc", "-c", "bad.c")
    assert (status, b"error" in err, (cached.path / "bad.o").exists()) == (1, True, False)


def test_what_changes_while_it_is_compiled_is_not_kept(cached: Calls) -> None:
    cached.write("h.h", "#define N 1\n")
    cached.write("a.cc", '#include "h.h"\nint n = N;\n' + SLOW)
    words = ("g++", *SLOWLY, "-c", "a.cc", "-o", "a.o")
    wait_until(lambda: cached.call("-v", *words)[2].startswith(b"rakefarm cc: out of"))  # all of it is settled
    cached.write("a.cc", '#include "h.h"\nint n = N; // again\n' + SLOW)
    call = cached.start(*words)

    def compiler() -> bool:
        return any("cc1plus" in (each.info["name"] or "") and str(cached.path) in str(each.info["cwd"])
                   for each in psutil.process_iter(["name", "cwd"]))  # fmt: skip

    wait_until(compiler, "it compiles")
    cached.write("h.h", "#define N 2\n")
    assert call.wait(60) == 0
    call.communicate()
    for text in ("#define N 1\n", "#define N 2\n"):
        cached.write("h.h", text)
        cached.call(*words)
        expected = subprocess.run(["g++", *SLOWLY, "-c", "a.cc", "-o", "here.o"], cwd=cached.path, check=True)
        assert expected.returncode == 0
        assert (cached.path / "a.o").read_bytes() == (cached.path / "here.o").read_bytes()


def test_a_killed_call_is_killed_here_too(cached: Calls) -> None:
    cached.write("a.cc", SLOW.replace("700000", "70000000"))
    call = cached.start("g++", *SLOWLY, "-c", "a.cc")

    def compilers() -> list[psutil.Process]:
        return [each for each in psutil.process_iter(["name", "cwd"])
                if "cc1plus" in (each.info["name"] or "") and str(cached.path) in str(each.info["cwd"])]  # fmt: skip

    wait_until(compilers, "it compiles")
    call.kill()
    call.communicate()
    wait_until(lambda: not compilers(), "the compiler has ended", 2.0)


def test_a_killed_helper_and_a_damaged_cache_cost_a_compile(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = [farm[0]]
    first = (*cached.call(*WARNED), made(cached))
    _, told, _ = cached.call("--statistics")
    os.kill(int(told.split(b"process ")[1].split()[0]), signal.SIGKILL)
    assert (*cached.call(*WARNED), made(cached)) == first
    assert cached.statistics()["taken"] == 1
    for path in Path(cached.scratch, "cache/rakefarm/results").glob("??/*"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
    assert (*cached.call(*WARNED), made(cached)) == first
    counts = cached.statistics()
    assert (counts["compiled"] + counts["served"], counts["taken"]) == (1, 1)


def test_many_at_once_share_the_results(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = list(farm)
    for number in range(6):
        cached.write(f"{number}.c", f"int x{number} = {number};\n")
    words = [("gcc", "-c", f"{number % 6}.c", "-o", f"o{number}.o") for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda each: cached.call(*each), words)) == [(0, b"", b"")] * 24
    files = made(cached)
    assert all(files[f"o{number}.o"] == files[f"o{number % 6}.o"] for number in range(24))
    assert cached.statistics()["taken"] >= 10


def test_a_cache_that_cannot_be_is_done_without(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = [farm[0]]
    (cached.scratch / "open").mkdir()
    (cached.scratch / "open").chmod(0o777)
    for place in ("/proc/none", str(cached.scratch / "open")):
        for _ in range(2):
            assert cached.call(*WARNED, env={"RAKEFARM_RESULT_CACHE": place})[0] == 0
    assert cached.statistics()["compiled"] == 4
    assert not list((cached.scratch / "open").iterdir())


def test_a_server_has_results_for_another_user_and_another_day(cached: Calls, farm: tuple[Server, ...]) -> None:
    cached.hosts = [farm[0]]
    first = (*cached.call(*WARNED), made(cached))
    cache(cached, "clear")

    def served() -> bool:
        assert (*cached.call(*WARNED), made(cached)) == first
        cache(cached, "clear")
        return cached.statistics()["served"] > 0

    wait_until(served)
    for path in cached.path.rglob("*.[ch]"):
        os.utime(path, (5, 5))  # a fresh checkout
    assert b"out of its results" in cached.call("-v", *WARNED)[2]
    counts = cached.statistics()
    cached.write("inc/h.h", "static int other;\n")
    assert b"other" in cached.call(*WARNED)[2]
    assert cached.statistics() == {
        **counts,
        "compiled": counts["compiled"] + 1,
        farm[0].address: counts["compiled"] + 1,
    }


def test_the_host_that_has_a_result_is_found_and_wins(cached: Calls, farm: tuple[Server, ...]) -> None:
    """Whichever of them it is, and whatever else would have been cheaper."""
    for number in range(6):
        cached.write(f"{number}.c", f"int y{number} = {number};\n")

    def served() -> int:
        """How many of the calls a server had the result of."""
        cache(cached, "clear")
        said = [cached.call("-v", "gcc", "-c", f"{number}.c")[2] for number in range(6)]
        return sum([b"out of its results" in each for each in said])

    cached.hosts = [farm[0]]
    served()
    wait_until(lambda: served() == 6, "all are kept there")
    cached.hosts = list(farm)
    assert served() == 6
    before = cached.statistics()
    cached.hosts = [farm[1]]
    assert served() == 0, "the other one had none of them"
    assert cached.statistics()["served"] == before["served"]
