"""What a lease asks for, read and checked: the command's words, its place, what it is to make, what it needs."""

import os
import shlex
from collections.abc import Mapping

from msgspec import Struct

from rakefarm.engine.api import remote_execution_pb2 as api
from rakefarm.engine.blobs import Blobs
from rakefarm.engine.content import Content, read_digest
from rakefarm.engine.errors import EngineRefuses, EngineUnbelievable
from rakefarm.engine.properties import to_needs
from rakefarm.server.join.memory import Messages
from rakefarm.server.programs import choose_program
from rakefarm.wire.errors import UnsafePath
from rakefarm.wire.messages import Need
from rakefarm.wire.paths import check_path

COMMAND_BYTES = 4 << 20
LABEL_CHARACTERS = 120


class NotHere(EngineRefuses):
    """What this server takes from nobody: trying again, here or elsewhere, is not up to us."""


class Order(Struct, frozen=True):
    """One action. `command` is text for a shell, which is only started where it takes one; `directory` and the paths in
    `wanted` are relative to the box and to it, and may be empty; `timeout_s` is 0 for none."""

    command: bytes
    directory: bytes
    wanted: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    needs: tuple[Need, ...]
    root: Content
    timeout_s: float

    @property
    def label(self) -> str:
        """For people."""
        return os.fsdecode(self.command)[:LABEL_CHARACTERS]

    def place(self, path: bytes) -> bytes:
        """A wanted path, relative to the box."""
        return b"/".join([part for part in (self.directory, path) if part])


def read_order(action: api.Action, blobs: Blobs, messages: Messages, programs: Mapping[str, str]) -> Order:
    """Raises EngineError (Missing and NotHere among them), UnsafePath, or DecodeError for what is no Command."""
    place = read_digest(action.command_digest)
    if place.size > COMMAND_BYTES:
        raise EngineUnbelievable(f"a command of {place.size} bytes")
    command = api.Command.FromString(messages.read([place], blobs)[place])
    names = command.output_paths or [*command.output_files, *command.output_directories]
    platform = action.platform if action.HasField("platform") else command.platform
    needs = to_needs((each.name, each.value) for each in platform.properties)
    return Order(
        command=_shell_words(command, programs),
        directory=_path(command.working_directory, "working directory"),
        wanted=tuple(dict.fromkeys([_path(name, "output path") for name in names])),
        environment=_environment(command),
        needs=tuple([Need(*pair) for pair in needs]),
        root=read_digest(action.input_root_digest),
        timeout_s=max(0.0, action.timeout.seconds + action.timeout.nanos / 1e9),
    )


def _shell_words(command: api.Command, programs: Mapping[str, str]) -> bytes:
    words = list(command.arguments)
    if not words or any("\0" in word for word in words):
        raise EngineUnbelievable("a command without a word, or with a NUL")
    through_shell = len(words) == 3 and words[:2] == ["/bin/sh", "-c"]
    text = (words[2] if through_shell else shlex.join(words)).encode()
    if not programs:
        return text
    chosen = choose_program(text, programs)
    if chosen is None:
        listed = ", ".join(sorted(programs))
        raise NotHere(f"this server only runs, without a shell: {listed}", "FAILED_PRECONDITION")
    return chosen


def _environment(command: api.Command) -> dict[bytes, bytes]:
    wanted = {each.name.encode(): each.value.encode() for each in command.environment_variables}
    if any(not name or b"=" in name or b"\0" in name + value for name, value in wanted.items()):
        raise EngineUnbelievable("a variable that no process can have")
    return wanted


def _path(text: str, what: str) -> bytes:
    """A checked relative path; empty for the directory itself."""
    if text.startswith("/"):
        raise UnsafePath(f"the {what} {text[:100]!r} is absolute")
    path = text.rstrip("/").encode()
    if path in (b"", b"."):
        return b""
    check_path(path)
    return path
