"""Namespaces: processes, mounts, network, IPC and host name of an executor's own, and the root that it then has.

What a command sees as `/`, all of it read-only but for the last:

    /usr and the links to it, /lib*, the linker's cache, /etc/alternatives      the system's programs
    what `shared` names, and the directories of `path`                          at the same paths
    /etc/passwd, /etc/group                                                     with just this user
    /dev/null zero full random urandom, /proc of its own
    /action/box, /action/tmp (also called /tmp, /var/tmp and /dev/shm)          the action

An ordinary user gets there through a user namespace, in which the executor is what it was outside, and has
capabilities only until the root stands.
"""

import contextlib
import os
from collections.abc import Sequence

from rakefarm.server.isolation import kernel

HOME = "/action"
"""Where an executor's directory is in its root."""
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
)
"""The system's programs, and what starting them takes."""
DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {
    "/tmp": f"{HOME}/tmp",
    "/var/tmp": f"{HOME}/tmp",
    "/dev/shm": f"{HOME}/tmp",
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
_PROCESSES = kernel.CLONE_NEWPID
_EVERYTHING = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def leave(everything: bool) -> None:
    """Have our next child be the first process of a PID namespace; with `everything`, enter the others ourselves.

    Whoever isn't root enters a user namespace as well, in which its own uid is the only one. Raises OSError.
    """
    flags = _EVERYTHING if everything else _PROCESSES
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        kernel.unshare(flags)
        return
    kernel.unshare(flags | kernel.CLONE_NEWUSER)
    # What an undumpable process has in /proc is root's. By now nobody can trace us who could not trace root here: it
    # would take capabilities in our namespace.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
        ("oom_score_adj", "500"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def build_root(place: str, visible: Sequence[str], user: int, box_bytes: int, box_files: int) -> None:
    """Build the root on top of the directory `place`, which becomes /action, and enter it. Raises OSError.

    With `box_bytes` /action is a file system in memory instead, of that size and for so many files. `user` is who
    commands will be.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    home = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    quiet = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", place, "tmpfs", quiet, "mode=0755,size=1m")
    os.umask(0o022)
    for path in dict.fromkeys((*SYSTEM, *visible)):
        _show(path, place)
    os.makedirs(place + "/dev", exist_ok=True)
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{place}/dev/{name}", read_only=False)
    os.makedirs(place + "/proc", exist_ok=True)
    kernel.mount("proc", place + "/proc", "proc", quiet | kernel.MS_NOEXEC)
    os.mkdir(place + HOME)
    if box_bytes:
        options = f"mode=0711,size={box_bytes},nr_inodes={box_files}"
        kernel.mount("tmpfs", place + HOME, "tmpfs", quiet, options)
    else:
        kernel.mount(f"/proc/self/fd/{home}", place + HOME, "", kernel.MS_BIND)
        kernel.set_mount_attributes(place + HOME, kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV, recursively=False)
    os.close(home)
    _write_names(place, user)
    for link, target in LINKS.items():
        os.makedirs(os.path.dirname(place + link), exist_ok=True)
        with contextlib.suppress(FileExistsError):  # something below it is shared
            os.symlink(target, place + link)
    kernel.set_mount_attributes(place, kernel.MOUNT_ATTR_RDONLY, recursively=False)
    os.chdir(place)
    kernel.enter_root()


def _show(path: str, root: str) -> None:
    """Have `path` in the new root: a link as a link, all else read-only. What is not there outside isn't inside."""
    if os.path.lexists(root + path):
        return  # below something that is there already
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    if os.path.islink(path):
        target = os.readlink(path)
        os.symlink(target, root + path)
        real = os.path.realpath(path)
        if not real.startswith(("/usr/", "/lib")) and os.path.exists(real):
            _show(real, root)
    elif os.path.exists(path):
        _bind(path, root + path, read_only=True)


def _bind(source: str, target: str, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    if read_only:
        attributes = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
        kernel.set_mount_attributes(target, attributes, recursively=True)


def _write_names(root: str, user: int) -> None:
    """A user and a group, since programs ask who they are."""
    os.makedirs(root + "/etc", exist_ok=True)
    for name, line in (
        ("passwd", f"rakefarm:x:{user}:{user}::{HOME}/tmp:/bin/sh\n"),
        ("group", f"rakefarm:x:{user}:\n"),
    ):
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            file.write(line)
