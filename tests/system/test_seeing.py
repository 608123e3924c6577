"""What is seen of real builds: trace, report, `why` and the summary agree with the events; also when a build is stopped."""

import json
import os
import signal
import subprocess
import sys

import pytest
from farm_vocabulary import Project, small_disks_work
from server_vocabulary import Server, StartServer

WHY = (sys.executable, "-m", "rakefarm", "why")


def slices(project: Project, kind: str) -> list[dict[str, object]]:
    trace = json.loads((project.scratch / "trace.json").read_text())
    return [each for each in trace["traceEvents"] if each["ph"] == "X" and each["cat"] == kind]


def options_of(project: Project) -> list[str]:
    return [f"--trace={project.scratch / 'trace.json'}", f"--report={project.scratch / 'report.html'}"]


def test_trace_report_why_and_summary_of_a_build(project: Project, farm: tuple[Server, ...]) -> None:
    project.rakefile(
        "make:", *[f"remote-sh -c 'echo {n} > out{n}'\n\t\trequires" for n in range(6)], "look:", "cat out0"
    )
    client = project.start("--progress", "plain", *options_of(project), hosts=farm)
    built = client.end()
    assert built.status == 0 and built.says("6 remote, 1 local") and built.says("times promised were")
    events = client.events()
    begin_s = float(str(events[0]["time_s"]))
    placed = [(event["action"], event["time_s"]) for event in events if event["event"] == "action_placed"]
    drawn = slices(project, "action")
    assert sorted((each["args"]["action"], each["ts"]) for each in drawn) == sorted(  # type: ignore[index]
        (action, round((float(str(time_s)) - begin_s) * 1e6)) for action, time_s in placed
    )
    finished = {event["action"]: float(str(event["time_s"])) for event in events if event["event"] == "action_finished"}
    for each in drawn:
        if each["args"]["end"] == "succeeded":  # type: ignore[index]
            end_us = round((finished[each["args"]["action"]] - begin_s) * 1e6)  # type: ignore[index]
            assert abs(each["ts"] + each["dur"] - end_us) <= 1  # type: ignore[operator]
    assert "succeeded: 7 actions" in (project.scratch / "report.html").read_text()

    told = subprocess.run(
        [*WHY, "--json", "out3"], env=project.environment(), capture_output=True, text=True, check=True, timeout=60
    )
    (action,) = json.loads(told.stdout)["actions"]
    assert action["outputs"] == ["out3"] and action["quotes"] and action["placements"][-1]["end"] == "succeeded"
    assert action["placements"][-1]["runner_up"] in {server.address for server in farm}


def test_a_build_that_is_stopped_leaves_both_whole(project: Project, farm: tuple[Server, ...]) -> None:
    project.rakefile("wait:", "remote-sleep 60", ">requires")
    client = project.start(*options_of(project), hosts=farm[:1])
    client.wait_for("action_phase", phase="running")
    client.process.send_signal(signal.SIGINT)
    built = client.end()
    assert built.status == 130 and not built.says("nothing ran remotely")
    (stopped,) = slices(project, "action")
    assert stopped["args"]["end"] == "stopped" and stopped["dur"] > 0  # type: ignore[index,operator]
    assert "interrupted: 0 actions, 1 stopped" in (project.scratch / "report.html").read_text()


def test_a_build_that_is_killed_leaves_neither(project: Project, farm: tuple[Server, ...]) -> None:
    project.rakefile("wait:", "remote-sleep 60", ">requires")
    client = project.start(*options_of(project), hosts=farm[:1])
    client.wait_for("action_phase", phase="running")
    client.process.kill()
    client.process.communicate()
    assert not list(project.scratch.glob("*.json")) and not list(project.scratch.glob("*.html"))
    assert not list(project.scratch.glob(".rakefarm-*"))


@pytest.mark.skipif(not small_disks_work(), reason="no mount namespaces here")
def test_what_ran_remotely_did_so_though_its_output_found_no_place(project: Project, farm: tuple[Server, ...]) -> None:
    project.rakefile("make:", "remote-echo > made", ">requires")
    unshare = ["unshare", "-m"] if not os.geteuid() else ["unshare", "-Urm"]
    script = 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"'
    built = project.build(hosts=farm[:1], prefix=[*unshare, "sh", "-c", script, "sh"])
    assert built.status == 1 and built.says("can't write") and built.says("[RF207]")
    assert built.says("1 remote") and not built.says("nothing ran remotely"), built.stderr
    assert built.says("failed: set 'make', line 2: echo > made") and built.says(f" on {farm[0].address} [RF207]")


def test_a_server_that_shuts_down_is_said_to(project: Project, start_server: StartServer) -> None:
    mark = project.scratch / "mark"
    wait = f"remote-while [ ! -e {mark} ]; do sleep 0.02; done"
    project.rakefile("make:", wait, ">requires", f"{wait} # 2", ">requires")
    server = start_server("--slots", "1")
    client = project.start(hosts=[server])
    client.wait_for("action_phase", phase="running")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("draining")
    mark.touch()
    built = client.end()
    assert built.status == 3
    assert built.says(f"{server.address} left out: it is shutting down, and takes no more; start"), built.stderr
    assert built.says(f"no server can run it: {server.address}: it is shutting down, and takes no more [RF126]")
    assert not built.says("refused") and not built.says("closed")


def test_nothing_ran_remotely_is_said_whatever_is_shown(project: Project) -> None:
    project.rakefile("make:", "remote-true", ">requires")
    built = project.build("--progress", "none", "--color", "always", "--fallback", "local", hosts=["127.0.0.1:1"])
    assert built.status == 0
    said = b"\x1b[1mnothing ran remotely although a host was named: 127.0.0.1:1 left out: connection refused"
    assert said in built.stderr
