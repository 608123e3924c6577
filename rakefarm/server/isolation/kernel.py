"""System calls that Python has no name for. Each raises OSError, which names the call, when the kernel refuses it."""

import ctypes
import os
import platform

ARCHITECTURE = platform.machine()

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36

CLONE_NEWNS = 0x00020000  # linux/sched.h
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x00000080

MS_NOSUID = 2  # sys/mount.h
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1  # linux/mount.h
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4

# Calls that are younger than 2019 have one number on every architecture but alpha.
SYS_MOUNT_SETATTR = 442
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "armv7l": 218, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: int) -> int:
    """Any call, by number."""
    return _check(_libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments]), what)


def prctl(option: int, value: int) -> None:
    """Operations on this process: see prctl(2)."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str | bytes, target: str | bytes, kind: str, flags: int, options: str = "") -> None:
    """Mount, bind, or change how something is mounted: see mount(2)."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {os.fsdecode(target)}")


def set_mount_attributes(path: str | bytes, attributes: int, recursively: bool) -> None:
    """Add restrictions to a mount, and to those below it."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    where = ctypes.create_string_buffer(os.fsencode(path))
    syscall(
        "mount_setattr",
        SYS_MOUNT_SETATTR,
        -100,  # AT_FDCWD
        ctypes.addressof(where),
        AT_RECURSIVE if recursively else 0,
        ctypes.addressof(wanted),
        ctypes.sizeof(wanted),
    )


def enter_root() -> None:
    """Make the current directory, which is a mount, the root of everything, and forget the old root."""
    number = SYS_PIVOT_ROOT.get(ARCHITECTURE)
    if number is None:
        raise OSError(f"pivot_root: its number is not known for {ARCHITECTURE}")
    here = ctypes.create_string_buffer(b".")
    # Both the same: the old root then lies on top of the new one, and is taken off: see pivot_root(2), Notes.
    syscall("pivot_root", number, ctypes.addressof(here), ctypes.addressof(here))
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for good."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
