"""Actions that a Rakefile declares repeatable: a host that has run one before answers with what came of it."""

from farm_vocabulary import Project
from server_vocabulary import Server, StartServer, wait_until

LINES = (
    "one:",
    "remote-date +%s%N | tee when; cat in",
    "> requires in",
    "> repeatable",
    "remote-date +%s%N | tee always",
)


def details(project: Project, server: Server) -> set[object]:
    """How the actions of a build have ended."""
    built = project.build("--json", hosts=[server])
    assert built.status == 0, built.stderr
    return {event["detail"] for event in built.events() if event["event"] == "action_finished"}


def test_a_repeatable_action_is_not_run_again(project: Project, start_server: StartServer) -> None:
    server = start_server("--slots", "2")
    project.write("in", b"content\n")
    project.rakefile(*LINES)
    assert details(project, server) == {"exit status 0"}
    always = project.read("always")
    wait_until(lambda: "exit status 0, of an earlier run" in details(project, server))
    assert project.read("always") != always
    when = project.read("when")
    details(project, server)
    assert project.read("when") == when
    project.write("in", b"another\n")
    assert details(project, server) == {"exit status 0"}
    assert project.read("when") != when
