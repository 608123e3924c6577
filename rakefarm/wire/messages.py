"""Every message of the protocol: its number, its fields, and what each field means.

A field's Python type decides its encoding (see `codec`): `int` is an unsigned 64-bit number, `float` a finite
IEEE 754 binary64, `str` strict UTF-8, `bytes` a byte string (paths and commands, which need not be UTF-8),
`tuple[X, ...]` a list. Times are seconds, sizes bytes. A message in STREAMED is followed by one more payload,
its body, which is read and written in pieces and never held in memory.
"""

from enum import IntEnum

from msgspec import Struct

from rakefarm.market.curve import Curve
from rakefarm.wire.status import Occupant, Space, StoreUse

PROTOCOL_NAME = "rakefarm"
PROTOCOL_VERSIONS = (1,)
"""The versions that this code speaks, in order of preference."""


class MessageType(IntEnum):
    """The first eight bytes of a message, big-endian. Numbers are never used again."""

    HELLO = 1
    WELCOME = 2
    CHALLENGE = 3
    PROOF = 4
    QUOTE_REQUEST = 10
    QUOTE = 11
    DECLINE = 12
    WAIT = 13
    STATUS = 14
    STATUS_REPLY = 15
    EXECUTE = 20
    NEED = 21
    FILE = 22
    SUPPLIED = 23
    PROGRESS = 30
    RESULT = 31
    STDOUT = 32
    STDERR = 33
    OUTPUT = 34
    DELIVERED = 35
    ACK = 36
    ERROR = 99


class Need(Struct, frozen=True):
    """A resource an action needs: `mem=2G` is key "mem", value "2G"; a bare key has an empty value."""

    key: str
    value: str


class Task(Struct, frozen=True):
    """What an action is to the market. `kind` is compile, link or other; `input_bytes` the size of all its inputs.

    `work_s` and `memory_bytes` are what the client expects from experience, 0 when it has none: the reference seconds
    of work (its time alone on a core of speed 1), and the peak memory.
    """

    kind: str
    needs: tuple[Need, ...]
    input_bytes: int
    work_s: float
    memory_bytes: int


class Term(Struct, frozen=True):
    """One named part of a price, as `bid.price` made it."""

    name: str
    value: float


class Offer(Struct, frozen=True):
    """A price and, unless `lease` is 0, the place that is held for it.

    `price` decides the auction (a pure number); `seconds` predicts the action's time here. Both are above zero, or both
    0: the result is there already.
    `lease` names the place on this connection; it is held for `valid_s` seconds. `curve` is what the price was read
    from, so that the client can predict further actions here.
    """

    price: float
    seconds: float
    terms: tuple[Term, ...]
    lease: int
    valid_s: float
    curve: Curve


class Input(Struct, frozen=True):
    """One input file. `path` is where it goes, relative; `alias` a second name for it, or empty.

    `mode` carries the permission bits (0o777 at most), `mtime_ns` nanoseconds since 1970, `sha256` 32 bytes.
    """

    path: bytes
    alias: bytes
    mode: int
    mtime_ns: int
    size: int
    sha256: bytes


class Variable(Struct, frozen=True):
    """An environment variable for the command; the server takes only names on its allow-list."""

    name: bytes
    value: bytes


class Hello(Struct, frozen=True):
    """client: who I am and which versions I speak. The first message; `protocol` is "rakefarm"."""

    protocol: str
    versions: tuple[int, ...]
    capabilities: tuple[str, ...]
    nonce: bytes
    client: str
    software: str


class Challenge(Struct, frozen=True):
    """server: prove that you hold a key of mine, to this nonce and to yours. Nothing else is told before that."""

    nonce: bytes


class Proof(Struct, frozen=True):
    """client: the proof that I hold the key of that name (see `rakefarm.security.proof`)."""

    key: str
    proof: bytes


class Welcome(Struct, frozen=True):
    """server: the version that we speak, and what this server is. `slots` bounds commands at one time.

    `proof` is the server's own, empty when it asked for none. `authentication` is one of `AUTHENTICATIONS`.
    `isolation` is one of `rakefarm.levels.LEVELS`, `missing` those of its PROTECTIONS that are not in force.
    """

    version: int
    capabilities: tuple[str, ...]
    proof: bytes
    authentication: str
    server: str
    software: str
    slots: int
    cores: int
    isolation: str
    missing: tuple[str, ...]


AUTHENTICATIONS = {
    "key": "both ends have proved that they hold the same key",
    "certificate": "both ends have a certificate of one authority",
    "user": "the kernel of this machine says that both ends are the same user's",
    "loopback": "nobody has proved anything; only this machine's users can connect",
    "insecure": "nobody has proved anything, and anybody on the network can connect",
}
"""How a server knows who its clients are."""


class QuoteRequest(Struct, frozen=True):
    """client: what would this cost? `request` is empty, or the digest of the EXECUTE that would follow (see
    `rakefarm.wire.request`): a server that has kept its result asks 0 for it."""

    task: Task
    request: bytes = b""


class Quote(Struct, frozen=True):
    """server: an offer, with its place held."""

    offer: Offer


class Decline(Struct, frozen=True):
    """server: I can't or won't run this now. `reason` is one word for programs, `text` a line for people.

    `curves` holds a fresh curve when asking again may help, or nothing.
    """

    reason: str
    text: str
    curves: tuple[Curve, ...] = ()


class Wait(Struct, frozen=True):
    """client: tell me when a slot is free for this. Clients that wait are served in turn."""

    task: Task


class Status(Struct, frozen=True):
    """client: how are you? Only for servers that announce `status`."""


class StatusReply(Struct, frozen=True):
    """server: how I am now. `price` is what a compilation of no experience costs, 0 when it would be declined, with
    `declined` saying why. `clock_s` are seconds since 1970 by this machine's clock. `occupants` have the slots."""

    clock_s: float
    uptime_s: float
    price: float
    declined: str
    curve: Curve
    memory: Space
    sandbox: Space
    cache: Space
    store: StoreUse
    occupants: tuple[Occupant, ...]


class Execute(Struct, frozen=True):
    """client: run this command. The manifest names its inputs by content.

    `lease` is the offer's (0: none). `start` is 1 when the command is to start now or be declined with a fresh curve, 0
    when it may wait for a slot. `declared` is 1 when `produces` is the exact list of outputs, else 0.
    `timeout_s` 0 means no limit. `label` names the action in the server's log. `repeatable` is 1 when the result of an
    earlier run of the same will do, else 0.
    """

    lease: int
    start: int
    task: Task
    command: bytes
    manifest: tuple[Input, ...]
    declared: int
    produces: tuple[bytes, ...]
    timeout_s: float
    environment: tuple[Variable, ...]
    label: str
    repeatable: int


class NeedFiles(Struct, frozen=True):
    """server: I lack these inputs; `indexes` count from 0 in the manifest, ascending."""

    indexes: tuple[int, ...]


class File(Struct, frozen=True):
    """client: the input `index`; its body follows and must have the manifest's size and digest."""

    index: int


class Supplied(Struct, frozen=True):
    """client: that was the last file."""


class Progress(Struct, frozen=True):
    """server: still alive. `phase` is waiting, queued or running; CPU and memory are the whole process tree's."""

    phase: str
    elapsed_s: float
    cpu_s: float
    memory_bytes: int


class Result(Struct, frozen=True):
    """server: the command has ended. `outcome` is one of `OUTCOMES`.

    `status` is the exit status (exited), the signal's number (signalled), else 0. `elapsed_s` is the
    command's own time, `queued_s` its wait for a slot. `work_s` is the work it did, in reference seconds: its time, by
    the speed of this host and the share of a core that it had. `detail` is a line for people. `kept` is 1 when all of
    this is of an earlier run, else 0.
    """

    outcome: str
    status: int
    elapsed_s: float
    queued_s: float
    cpu_s: float
    peak_memory_bytes: int
    work_s: float
    detail: str
    kept: int


OUTCOMES = {
    "exited": "the command ended by itself",
    "signalled": "a signal ended the command",
    "timed_out": "the action's own time limit ended the command",
    "over_limit": "the command took more than this server allows, of what `detail` names",
    "missing_output": "the command ended well but did not make a declared output",
    "unfit_output": "the command ended well but made a file that can not be returned, which `detail` names",
    "unfit_command": "the command could not be started, and could not be anywhere: it is too long, say",
}


class Stdout(Struct, frozen=True):
    """server: standard output, byte for byte, as the body. Absent when empty."""


class Stderr(Struct, frozen=True):
    """server: standard error, as STDOUT."""


class Output(Struct, frozen=True):
    """server: one file that the command made or changed; the body is its content."""

    path: bytes
    mode: int
    sha256: bytes


class Delivered(Struct, frozen=True):
    """server: that was everything. `curves` holds a fresh curve, for actions like this one."""

    curves: tuple[Curve, ...] = ()


class Ack(Struct, frozen=True):
    """client: everything arrived whole; the server may forget the action."""


class Error(Struct, frozen=True):
    """whoever speaks: I give up, and close. `code` is one word for programs, `text` a line for people."""

    code: str
    text: str


Message = (
    Hello
    | Welcome
    | Challenge
    | Proof
    | QuoteRequest
    | Quote
    | Decline
    | Wait
    | Status
    | StatusReply
    | Execute
    | NeedFiles
    | File
    | Supplied
    | Progress
    | Result
    | Stdout
    | Stderr
    | Output
    | Delivered
    | Ack
    | Error
)

CLASSES: dict[MessageType, type[Message]] = {
    MessageType.HELLO: Hello,
    MessageType.WELCOME: Welcome,
    MessageType.CHALLENGE: Challenge,
    MessageType.PROOF: Proof,
    MessageType.QUOTE_REQUEST: QuoteRequest,
    MessageType.QUOTE: Quote,
    MessageType.DECLINE: Decline,
    MessageType.WAIT: Wait,
    MessageType.STATUS: Status,
    MessageType.STATUS_REPLY: StatusReply,
    MessageType.EXECUTE: Execute,
    MessageType.NEED: NeedFiles,
    MessageType.FILE: File,
    MessageType.SUPPLIED: Supplied,
    MessageType.PROGRESS: Progress,
    MessageType.RESULT: Result,
    MessageType.STDOUT: Stdout,
    MessageType.STDERR: Stderr,
    MessageType.OUTPUT: Output,
    MessageType.DELIVERED: Delivered,
    MessageType.ACK: Ack,
    MessageType.ERROR: Error,
}

TYPES: dict[type[Message], MessageType] = {cls: number for number, cls in CLASSES.items()}

STREAMED = frozenset({MessageType.FILE, MessageType.STDOUT, MessageType.STDERR, MessageType.OUTPUT})
