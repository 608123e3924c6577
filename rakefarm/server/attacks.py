"""The attacks that `rakeserver --selftest` and the tests of abuse make: what a command tries, how one sees that it got
there, and from which level on it must not.

`./attack` is the program of `attack.c`; all else is what any machine with a C compiler has.
"""

import os
from collections.abc import Callable

from msgspec import Struct

NEVER = "none"
"""Of an attack that no level lets succeed."""


class Scene(Struct, frozen=True):
    """What there is to attack. `outside` is a directory that everybody may use, with `needle` in its file `secret`;
    `canary` stands in the environment of the server; `stranger` is a process of the user whom commands run as."""

    outside: str
    needle: str
    canary: str
    mark: str
    tcp_port: int
    udp_port: int
    abstract: str
    pathname: str
    stranger: int
    boxes: tuple[str, ...]
    heard: Callable[[], bool]
    stranger_lives: Callable[[], bool]
    daemon_lives: Callable[[], bool]

    @property
    def canary_backwards(self) -> str:
        """What is looked for in memory, written so that it is not found where it is only being looked for."""
        return self.canary[::-1]

    @property
    def secret(self) -> str:
        """The file that is none of a command's business."""
        return f"{self.outside}/home/.ssh/id"


class Answer(Struct, frozen=True):
    """What a client was told of a command: `outcome` is RESULT's, or "declined"."""

    outcome: str
    status: int
    stdout: bytes
    stderr: bytes
    detail: str


Got = Callable[[Scene, Answer], bool]


class Attack(Struct, frozen=True):
    """One attack: its name, what it tries, the command, whether it got there, from which level on it must not, and the
    time limit that its action has (seconds, 0: none)."""

    name: str
    tries: str
    command: str
    succeeded: Got
    stopped_from: str
    timeout_s: float = 0.0


def _shows_needle(scene: Scene, answer: Answer) -> bool:
    return scene.needle.encode() in answer.stdout + answer.stderr


def _ended_well(scene: Scene, answer: Answer) -> bool:
    return (answer.outcome, answer.status) == ("exited", 0)


def _heard(scene: Scene, answer: Answer) -> bool:
    return scene.heard()


def _made(name: str) -> Got:
    def made(scene: Scene, answer: Answer) -> bool:
        path = name.format(outside=scene.outside, mark=scene.mark)
        found = os.path.exists(path)
        if found:
            os.unlink(path)
        return found

    return made


_SOURCE = "echo 'int x;' > a.c; "
_FAKE_ASSEMBLER = _SOURCE + "printf '#!/bin/sh\\ncat {secret}\\n' > as; chmod +x as; "
_LIBRARY = (
    "echo '#include <stdlib.h>' > p.c; "
    "echo '__attribute__((constructor)) static void f(void) "
    '{{ unsetenv("LD_PRELOAD"); if (system("cat {secret}")) exit(1); }}\' >> p.c; '
    "cc -shared -fPIC -o p.so p.c; " + _SOURCE
)

ATTACKS = (
    # --- files
    Attack("read a secret", "read a key in ~/.ssh", "cat {secret}", _shows_needle, "landlock"),
    Attack(
        "write to home",
        "plant a key in ~/.ssh",
        "echo planted > {outside}/home/.ssh/authorized_keys",
        _made("{outside}/home/.ssh/authorized_keys"),
        "landlock",
    ),
    Attack("write to /tmp", "leave a file in /tmp", "echo planted > /tmp/{mark}", _made("/tmp/{mark}"), "landlock"),
    Attack(
        "another box",
        "read the files of another action that runs now",
        "cat {boxes} /proc/[0-9]*/cwd/private /proc/[0-9]*/root/action/box/private",
        _shows_needle,
        "landlock",
    ),
    # --- a lone compiler
    Attack(
        ".incbin",
        "have the assembler read the secret",
        "echo '.incbin \"{secret}\"' > a.s; cc -c a.s; cat a.o",
        _shows_needle,
        "landlock",
    ),
    Attack("-o elsewhere", "write outside", _SOURCE + "cc -c a.c -o {outside}/o", _made("{outside}/o"), "landlock"),
    Attack(
        "-wrapper",
        "have another program run",
        _SOURCE + "printf '#!/bin/sh\\ncat {secret}\\n' > w; chmod +x w; cc -wrapper ./w -c a.c",
        _shows_needle,
        "landlock",
    ),
    Attack("-B./", "have an assembler of its own run", _FAKE_ASSEMBLER + "cc -B./ -c a.c", _shows_needle, "landlock"),
    Attack("@file", "read the secret as options", _SOURCE + "cc @{secret} -c a.c", _shows_needle, "landlock"),
    Attack(
        "COMPILER_PATH",
        "the same by a variable",
        _FAKE_ASSEMBLER + "COMPILER_PATH=. cc -c a.c",
        _shows_needle,
        "landlock",
    ),
    Attack(
        "DEPENDENCIES_OUTPUT",
        "write outside by a variable",
        _SOURCE + "DEPENDENCIES_OUTPUT={outside}/d cc -c a.c",
        _made("{outside}/d"),
        "landlock",
    ),
    Attack("LD_PRELOAD", "run code in a program", _LIBRARY + "LD_PRELOAD=./p.so cat a.c", _shows_needle, "landlock"),
    Attack("a plugin", "run code in the compiler", _LIBRARY + "cc -fplugin=./p.so -c a.c", _shows_needle, "landlock"),
    # --- the network
    Attack("TCP", "connect to a service on this machine", "./attack tcp {tcp_port}", _heard, "landlock"),
    Attack("UDP", "send to a service on this machine", "./attack udp {udp_port}", _heard, "landlock"),
    Attack("an abstract socket", "talk to a service", "./attack abstract {abstract}", _heard, "landlock"),
    Attack("a pathname socket", "talk to a service", "./attack pathname {pathname}", _heard, "landlock"),
    Attack("a pair of sockets", "make one of a pair send elsewhere", "./attack pair {abstract}", _heard, "landlock"),
    # --- processes
    Attack(
        "kill a stranger",
        "end another process of the same user",
        "./attack kill {stranger}",
        lambda scene, answer: not scene.stranger_lives(),
        "process",
    ),
    Attack(
        "kill its executor",
        "end the process that runs it",
        "kill -KILL $PPID; sleep 1",
        lambda scene, answer: answer.outcome == "declined",
        "process",
    ),
    Attack("trace its executor", "take over the process that runs it", "./attack ptrace $PPID", _ended_well, "process"),
    Attack("environment", "read the server's variables", "./attack environ {canary_backwards}", _ended_well, "process"),
    Attack("memory by /proc", "read the server's memory", "./attack mem {canary_backwards}", _ended_well, "process"),
    Attack("memory by a call", "read the server's memory", "./attack vm {canary_backwards}", _ended_well, "process"),
    Attack("open files", "find files of the server's open", "./attack descriptors", _ended_well, NEVER),
    Attack(
        "a daemon",
        "outlive the action: a new session, a double fork, signals ignored",
        "./attack daemon {mark}; sleep 0.2",
        lambda scene, answer: scene.daemon_lives(),
        "process",
    ),
    # --- limits, which a selftest's server has low
    Attack("a fork bomb", "start 300 processes where 200 are allowed", "./attack bomb 300", _ended_well, "process"),
    Attack("memory", "take 1 GiB where 256 MiB are allowed", "./attack memory 1024; sleep 3", _ended_well, "process"),
    Attack("a huge file", "write 128 MiB where 32 MiB are allowed", "./attack fill f 128", _ended_well, "process"),
    Attack(
        "a full disk",
        "write 200 MiB where 64 MiB are allowed",
        "for n in 1 2 3 4 5 6 7 8 9 10; do ./attack fill f$n 20 || exit 1; sleep 0.3; done",
        _ended_well,
        "process",
    ),
    Attack(
        "many files",
        "make 20,000 files where 5,000 are allowed",
        "./attack many 20000 && sleep 3 && rm file-*",
        _ended_well,
        "process",
    ),
    Attack(
        "endless output",
        "print 8 MiB where 1 MiB is kept",
        "yes | head -c 8388608",
        lambda scene, answer: len(answer.stdout) > 2 << 20,
        "process",
    ),
    Attack(
        "ignoring signals",
        "outlast its action's time limit",
        "trap '' TERM INT HUP; sleep 600 & sleep 600; sleep 600",
        lambda scene, answer: answer.outcome != "timed_out",
        NEVER,
        timeout_s=1.0,
    ),
    # --- the kernel
    Attack("a user namespace", "get capabilities of its own", "./attack userns", _ended_well, "landlock"),
    Attack("io_uring", "go around the filter of system calls", "./attack uring", _ended_well, "landlock"),
    Attack("kernel keys", "leave a key with the kernel", "./attack key", _ended_well, "landlock"),
)


def command_of(attack: Attack, scene: Scene) -> str:
    """The attack's shell text, for this scene."""
    values = {name: getattr(scene, name) for name in scene.__struct_fields__}
    return attack.command.format(
        **{**values, "canary_backwards": scene.canary_backwards, "secret": scene.secret, "boxes": " ".join(scene.boxes)}
    )
