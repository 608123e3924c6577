"""`rakefarm cc` when things go wrong around it: hosts out of reach, files that change, many calls, many users."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calls_vocabulary import Calls
from farm_vocabulary import open_server_under
from fault_vocabulary import Cable, networks_work
from server_vocabulary import Server, wait_until

from rakefarm.cc import attempts, engine
from rakefarm.cc.cancel import Cancel
from rakefarm.cc.dialogue import Request
from rakefarm.cc.farms import Farms
from rakefarm.cc.filecache import FileCache
from rakefarm.cc.here import Here
from rakefarm.cc.reasons import Local
from rakefarm.cc.scratch import Scratch
from rakefarm.cc.settings import CallSettings, ResultCaches

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
OTHER_UID = 64321


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Two machines."""
    made = Cable()
    yield made
    made.close()


def insecurely(calls: Calls) -> None:
    """Have calls talk to hosts on the network without a key."""
    config = calls.scratch / "config" / "rakefarm"
    config.mkdir(parents=True)
    (config / "client.toml").write_text("insecure = true\n")


@pytest.mark.skipif(not networks_work(), reason="this machine lets nobody make networks")
@pytest.mark.parametrize("known", [True, False], ids=["that had answered before", "that never answered"])
def test_a_host_that_drops_packets_costs_half_a_second_once(
    calls: Calls, cable: Cable, tmp_path: Path, known: bool
) -> None:
    far = open_server_under(cable.there, tmp_path, "--address", cable.address, "--insecure")
    insecurely(calls)
    calls.prefix = tuple(cable.here)
    variables = {"RAKEFARM_HOSTS": far.address, "XDG_CONFIG_HOME": str(calls.scratch / "config")}
    calls.write("a.c", "int x;\n")
    expected = {}
    try:
        if known:
            assert calls.call("gcc", "-c", "a.c", env=variables) == (0, b"", b"")
            expected = {far.address: 1}
        began = time.monotonic()
        assert calls.call("gcc", "-E", "a.c", env=variables)[0] == 0
        usual_s = time.monotonic() - began
        cable.cut()
        for most_s in (0.5, 0.1):
            began = time.monotonic()
            status, _, err = calls.call("-v", "gcc", "-c", "a.c", env=variables)
            assert (status, b"no server" in err) == (0, True)
            assert time.monotonic() - began < most_s + usual_s + 0.7  # what is asked for, on a machine that is busy
    finally:
        calls.prefix = ()
        cable.mend()
        far.end()
    counts = calls.statistics()
    assert {host: count for host, count in counts.items() if host == far.address} == expected
    assert counts["no_server"] == 2


def test_a_header_that_changes_while_it_is_sent_is_not_mixed_up(
    calls: Calls, farm: tuple[Server, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest was taken and its directives read; then it is another: the call is done here, and the next one sends
    the new one."""
    calls.hosts = [farm[0]]
    calls.write("a.c", '#include "h.h"\nint x = X;\n')
    calls.write("h.h", f"#define X 1  // {time.time_ns()}, which no store has\n")
    execute = attempts.remote.execute

    def change_first(*arguments: Any) -> Any:
        calls.write("h.h", (calls.path / "h.h").read_text().replace("X 1", "X 2"))
        return execute(*arguments)

    with tempfile.TemporaryDirectory() as scratch:
        environ, files, settings = calls.environment(), FileCache(), CallSettings()
        farms, here = Farms(environ, settings), Here(threading.BoundedSemaphore(1))
        ours = engine.Engine(Scratch(scratch), farms, ResultCaches(settings, files), files, here)
        words = (b"gcc", b"-c", b"a.c", b"-o", b"there.o")
        request = Request(0o022, False, os.fsencode(calls.path), words, calls.environment())
        monkeypatch.chdir("/")
        with monkeypatch.context() as patch, pytest.raises(Local):
            patch.setattr(attempts.remote, "execute", change_first)
            ours.compile(request, Cancel())
        assert not (calls.path / "there.o").exists()
        assert ours.compile(request, Cancel()).host == farm[0].address
        farms.close()
    assert calls.call("gcc", "-c", "a.c", "-o", "here.o", env={"RAKEFARM_CC": "off"})[0] == 0
    assert (calls.path / "here.o").read_bytes() == (calls.path / "there.o").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_two_users_at_once_have_a_helper_each(calls: Calls, farm: tuple[Server, ...]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="rfcc-"))
    other = Calls(scratch / "project", scratch)
    reading = "--inh-caps=+dac_override", "--ambient-caps=+dac_override"  # this checkout may be root's alone
    other.prefix = ("setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups", *reading)
    try:
        other.path.mkdir()
        for each in (calls, other):
            each.hosts = list(farm)
            for number in range(4):
                each.write(f"{number}.c", f"int x{number};\n")
        for path in (scratch, *scratch.rglob("*")):
            os.chown(path, OTHER_UID, OTHER_UID)
        if other.call("gcc", "--version")[0]:
            pytest.skip("nobody can be another user here")
        ended: list[tuple[int, bytes, bytes]] = []

        def compile_all(each: Calls) -> None:
            ended.extend(each.call("gcc", "-c", f"{number}.c") for number in range(4))

        threads = [threading.Thread(target=compile_all, args=(each,)) for each in (calls, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ended == [(0, b"", b"")] * 8
        assert (calls.statistics()["compiled"], other.statistics()["compiled"]) == (4, 4)
        assert {path.stat().st_uid for path in scratch.glob("project/*.o")} == {OTHER_UID}
        into = {"RAKEFARM_CC_DIRECTORY": str(scratch / "run")}
        assert calls.call("gcc", "-c", "0.c", env=into)[0] in (0, 102)  # root is no friend of another's helper
        assert other.statistics()["compiled"] == 4
    finally:
        other.call("--stop")
        wait_until(lambda: not (scratch / "run/socket").exists(), "the helper is gone")
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_two_hundred_at_a_time(calls: Calls, farm: tuple[Server, ...]) -> None:
    calls.hosts = list(farm)
    for number in range(400):
        calls.write(f"f{number}.c", f"int x{number};\n")
    calls.write("Makefile", "all: $(patsubst %.c,%.o,$(wildcard *.c))\n")
    words = [sys.executable, "-m", "rakefarm", "run", "make", "-s", "-j200"]
    ended = subprocess.run(words, cwd=calls.path, env=calls.environment(), capture_output=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(list(calls.path.glob("*.o"))) == 400
    counts = calls.statistics()
    assert (counts["compiled"], counts["run"]) == (400, 0), counts
