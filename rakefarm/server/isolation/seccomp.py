"""A filter of system calls: what no command of a farm needs, and what the other parts of the isolation leave open.

    sockets of every kind, io_uring (which opens sockets by itself), ptrace and the memory of others, keys, BPF, perf,
    userfaultfd, mounts, new namespaces, other roots, handles to files without a path, modules, clocks, and reboot

What stays is a pair of connected Unix sockets, which lead nowhere; but no pair of datagram sockets, which may send
elsewhere. It denies by name and allows the rest, since a compiler may use anything. The filter is classic BPF, put
together here; see seccomp(2), and linux/filter.h for the instructions. A call of a foreign architecture (32-bit code,
x32) is refused whole, because its numbers mean something else: 32-bit programs don't run in here.
"""

import ctypes
import errno
import struct

from rakefarm.server.isolation import kernel

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_BIT = 0x40000000

_DENIED = {
    # name: (x86_64, aarch64), from the kernel's tables
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
}
_IOPERM, _IOPL = 173, 172  # x86_64 only
_SOCKETPAIR = (53, 199)
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 1, 5
_SOCKET_TYPE = 0xF
_CLONE = (56, 220)
_CLONE3 = 435
_IOCTL = (16, 29)
_NEW_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWCGROUP
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # put words into a terminal's input

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_ANY_BIT, _JUMP_NOT_BELOW = 0x15, 0x45, 0x35
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # struct seccomp_data
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000
_SET_MODE_FILTER = 1


class NoTable(OSError):
    """The numbers of this architecture's system calls are not known here."""


def denied_numbers(architecture: str) -> list[int]:
    """The numbers that are refused whatever their arguments. Raises NoTable."""
    if architecture not in AUDIT_ARCHITECTURES:
        raise NoTable(errno.ENOSYS, f"seccomp: there is no table of system calls for {architecture}")
    column = list(AUDIT_ARCHITECTURES).index(architecture)
    numbers = {numbers[column] for numbers in _DENIED.values()}
    return sorted(numbers | ({_IOPERM, _IOPL} if architecture == "x86_64" else set()))


def assemble(architecture: str) -> bytes:
    """The filter's instructions, 8 bytes each. Raises NoTable."""
    denied = denied_numbers(architecture)
    column = list(AUDIT_ARCHITECTURES).index(architecture)
    program: list[tuple[int, int, int, int]] = []

    def load(offset: int) -> None:
        program.append((_LOAD, 0, 0, offset))

    def when(jump: int, value: int, answer: int) -> None:
        """If the comparison holds, the answer is this."""
        program.append((jump, 0, 1, value))
        program.append((_RETURN, 0, 0, answer))

    def refuse_argument(number: int, argument: int, jump: int, values: list[int]) -> None:
        """Refuse call `number` when the comparison holds for the low half of its argument, with any of the values."""
        program.append((_JUMP_EQUAL, 0, 2 * len(values) + 2, number))
        load(_ARGUMENT + 8 * argument)
        for value in values:
            when(jump, value, _REFUSE | errno.EPERM)
        program.append((_RETURN, 0, 0, _ALLOW))

    def allow_connected_pairs(number: int) -> None:
        """Of call `number`, socketpair, only what can't reach anybody else."""
        program.append((_JUMP_EQUAL, 0, 8, number))
        load(_ARGUMENT)
        program.append((_JUMP_EQUAL, 0, 5, _AF_UNIX))
        load(_ARGUMENT + 8)
        program.append((_AND, 0, 0, _SOCKET_TYPE))
        program.append((_JUMP_EQUAL, 1, 0, _SOCK_STREAM))
        program.append((_JUMP_EQUAL, 0, 1, _SOCK_SEQPACKET))
        program.append((_RETURN, 0, 0, _ALLOW))
        program.append((_RETURN, 0, 0, _REFUSE | errno.EPERM))

    load(_ARCHITECTURE)
    program.append((_JUMP_EQUAL, 1, 0, AUDIT_ARCHITECTURES[architecture]))
    program.append((_RETURN, 0, 0, _REFUSE | errno.ENOSYS))
    load(_NUMBER)
    if architecture == "x86_64":
        when(_JUMP_NOT_BELOW, X32_BIT, _REFUSE | errno.ENOSYS)
    for number in denied:
        when(_JUMP_EQUAL, number, _REFUSE | errno.EPERM)
    # Its flags lie in memory, where a filter can't look; without it the C library uses clone.
    when(_JUMP_EQUAL, _CLONE3, _REFUSE | errno.ENOSYS)
    allow_connected_pairs(_SOCKETPAIR[column])
    refuse_argument(_CLONE[column], 0, _JUMP_ANY_BIT, [_NEW_NAMESPACES])
    refuse_argument(_IOCTL[column], 1, _JUMP_EQUAL, [_TIOCSTI, _TIOCLINUX])
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join([struct.pack("=HBBI", *instruction) for instruction in program])


def restrict() -> None:
    """Hold this process and all its children to the filter from now on; it must have no new privileges.

    Raises NoTable, or OSError where the kernel has no filters.
    """
    program = assemble(kernel.ARCHITECTURE)
    instructions = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)))
    kernel.syscall("seccomp", kernel.SYS_SECCOMP[kernel.ARCHITECTURE], _SET_MODE_FILTER, 0, ctypes.addressof(header))
