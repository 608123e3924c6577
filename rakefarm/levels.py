"""The levels of isolation, from none to most, and the protections that they are made of. Both ends know them."""

LEVELS = {
    "none": "nothing but a directory: a command can do whatever its user can",
    "process": "no new privileges, limits, nothing left running, the server's memory closed; as root a uid a worker",
    "landlock": "and files only in its own directory (Landlock), no sockets and no dangerous system calls (seccomp)",
    "namespaces": "and a file system, processes, network and IPC of its own, with the system's programs read-only",
}
"""Each level includes those before it."""

PROTECTIONS = {
    "privileges": "set-user-id programs give a command nothing",
    "strays": "what a command leaves running is ended, also when it has left its session",
    "secrets": "memory and environment of the server's processes are closed to commands",
    "processes": "processes that are not the action's can't be signalled",
    "files": "files outside the action's directory can't be written, and only the system's programs be read",
    "syscalls": "sockets, tracing, kernel keys, BPF, io_uring, mounting and new namespaces are refused",
    "network": "no address can be reached, also not on this machine",
    "own-root": "what lies outside, and other processes, can't even be seen",
    "own-uid": "commands have another user than the server, and each worker's another than the other workers'",
    "box-size": "the kernel keeps an action's directory below its limit; else a look twice a second does",
}
"""What may be in force or missing, by the words in which a server tells it."""


def rank(level: str) -> int:
    """Where a level stands, from 0; a word that is no level counts as none."""
    return list(LEVELS).index(level) if level in LEVELS else 0


HIGHEST_UID = (1 << 32) - 2


def parse_uids(text: str) -> tuple[int, int]:
    """`FIRST-LAST`, the uids that commands of a server of root's may have, both included. Raises ValueError."""
    first, dash, last = text.strip().partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= HIGHEST_UID):
        raise ValueError(text)
    return int(first), int(last)
