"""A Rakefile: bytes to frozen data, or errors with line and column.

The grammar, for people, is docs/rakefile.md. In short, by a line's first column:

    PORT = number          settings; they hold for the whole file, wherever they stand
    HOSTS = host ...
    name:                  opens an action set
        action             a command for the shell; `remote-` in front sends it to the farm
            requires ...   deeper lines belong to the action above: requires, produces, needs, timeout, repeatable

Reading goes on after an error, so that one run shows several. A nameless set stands in for a header that
couldn't be read, so that the actions below it are no further errors.
"""

import re

from msgspec import Struct, field

from rakefarm.client.rakefile_details import check_bare, parse_size, read_names, read_needs, read_timeout
from rakefarm.client.rakefile_lines import (
    BLANKS,
    LineError,
    first_word,
    indent_of,
    numbered_lines,
    without_comment,
    without_shell_comment,
)
from rakefarm.client.rakefile_model import Action, ActionSet, Diagnostic, Rakefile, RakefileError, locate
from rakefarm.codes import Code
from rakefarm.hosts import (
    MAX_PORT,
    Host,
    HostSyntaxError,
    parse_host,
    parse_number,
    quoted,
    with_default_port,
)

__all__ = [
    "DEFAULT_PORT",
    "Action",
    "ActionSet",
    "Diagnostic",
    "Rakefile",
    "RakefileError",
    "locate",
    "parse_rakefile",
    "parse_size",
    "read_rakefile",
]

DEFAULT_PORT = 6238
MAX_FILE_BYTES = 64 * 2**20  # a 10,000-action file has about 1 MiB; this only stops an endless device
MAX_ERRORS = 20

_SETTING = re.compile(r"([^\s=:]+)[ \t\r\f\v]*=[ \t\r\f\v]*")
# task :test => [:a] do, file "a.o" => "a.c" do |t|, namespace :b do, require "rake/clean", Rake::TestTask.new
_RUBY = re.compile(
    rb"""^[ \t]*(?:(?:multi)?task|file|namespace|directory|rule|desc)[ \t(]+[:"'][^\n]*$"""
    rb"""|^[ \t]*require(?:_relative)?[ \t(]+["']|^[ \t]*(?:Rake|Bundler|RSpec)::\w|^end[ \t]*$""",
    re.MULTILINE,
)
_HOST_WORD = re.compile(r"[^ \t\r\f\v,]+")
_REQUIRES = frozenset({"requires", "require", "required"})


def read_rakefile(path: str) -> Rakefile:
    """The Rakefile at `path`. The one function here that does I/O. Raises RakefileError."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        reason = "no such file; name a Rakefile, or change to the directory that has one"
    except IsADirectoryError:
        reason = "is a directory, not a Rakefile"
    except PermissionError:
        reason = "may not be read by this user"
    except OSError as error:
        reason = f"can't be read: {error.strerror or error}"
    except ValueError:  # open() itself refuses a NUL in a path
        reason = "is not a possible path"
    else:
        if len(text) <= MAX_FILE_BYTES:
            return parse_rakefile(text, path)
        reason = f"is larger than {MAX_FILE_BYTES >> 20} MiB, so hardly a Rakefile"
    raise RakefileError(path, (Diagnostic(0, 0, reason),))


def parse_rakefile(text: bytes, path: str = "Rakefile") -> Rakefile:
    """The meaning of a Rakefile's bytes; `path` only names it in errors. Raises RakefileError only."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RakefileError(path, (Diagnostic(1, 1, "the file is UTF-16; save it as UTF-8"),))
    parser = _Parser()
    errors: list[Diagnostic] = []
    for number, line in numbered_lines(text):
        try:
            parser.take_line(number, line)
        except LineError as error:
            errors.append(Diagnostic(number, error.column, error.text))
            if len(errors) == MAX_ERRORS:
                break
    if errors and _RUBY.search(text):
        reason = (
            "this is a Rakefile of Ruby's rake, another program: run it with rake, or name one of ours with -f FILE"
        )
        raise RakefileError(path, (Diagnostic(0, 0, reason),), code=Code.OTHER_RAKEFILE)
    if errors:
        raise RakefileError(path, tuple(errors), tuple(parser.warnings))
    hosts = parser.hosts_with_ports()
    sets = tuple(draft.freeze() for draft in parser.sets)
    return Rakefile(path, parser.port, hosts, sets, tuple(sorted(parser.warnings, key=lambda each: each.line)))


class _ActionDraft(Struct):
    """An action while the lines below it may still add to it."""

    command: str
    remote: bool
    line: int
    requires: list[str] = field(default_factory=list)
    produces: list[str] | None = None
    needs: list[tuple[str, str]] = field(default_factory=list)
    timeout_s: float | None = None
    repeatable: bool = False

    def freeze(self) -> Action:
        return Action(
            self.command,
            self.remote,
            self.line,
            tuple(self.requires),
            None if self.produces is None else tuple(self.produces),
            tuple(self.needs),
            self.timeout_s,
            self.repeatable,
        )


class _SetDraft(Struct):
    name: str
    line: int
    base_width: int = 0  # the indent of the first action; 0 before there is one
    actions: list[_ActionDraft] = field(default_factory=list)

    def freeze(self) -> ActionSet:
        return ActionSet(self.name, self.line, tuple(action.freeze() for action in self.actions))

    def is_deep(self, width: int) -> bool:
        """Whether a line of this indent belongs to an action: at least base + max(2, base / 2)."""
        return self.base_width > 0 and 2 * width >= 2 * self.base_width + max(4, self.base_width)


class _Parser:
    """Takes the lines in order. `take_line` raises LineError, after which the next line may be taken."""

    def __init__(self) -> None:
        self.port = DEFAULT_PORT
        self.hosts: list[tuple[Host, int, int]] = []  # with the line and column of each
        self.sets: list[_SetDraft] = []
        self.warnings: list[Diagnostic] = []
        self._names: dict[str, int] = {}  # every set name, and the line where it stood first
        self._line = 0

    def take_line(self, number: int, line: str) -> None:
        self._line = number
        line = line.rstrip(BLANKS)
        indent, width = indent_of(line)
        if indent == len(line) or line[indent] == "#":
            return
        if "\0" in line:
            raise LineError(line.index("\0") + 1, "a NUL byte; a Rakefile is a text file")
        if indent == 0:
            self._take_unindented(without_comment(line))
        elif not self.sets:
            self._open_nameless_set(width)
            wanted = "PORT, HOSTS and headers begin in column 1"
            raise LineError(indent + 1, f"an indented line before any 'name:' header; {wanted}")
        else:
            self._take_indented(line, indent, width)

    def hosts_with_ports(self) -> tuple[Host, ...]:
        """The hosts with the default port applied, each (name, port) once and where it stood first.

        The same host with other slots is one host: the later slots hold, with a warning.
        """
        known: dict[tuple[str, int | None], Host] = {}
        for written, line, column in self.hosts:
            host = with_default_port(written, self.port)
            identity = (host.name, host.port)
            earlier = known.setdefault(identity, host)
            if host.slots not in (None, earlier.slots):
                text = f"{host.address} was named before with other slots; these hold"
                self.warnings.append(Diagnostic(line, column, text))
                known[identity] = host
        return tuple(known.values())

    def _warn(self, column: int, text: str) -> None:
        self.warnings.append(Diagnostic(self._line, column, text))

    def _take_unindented(self, line: str) -> None:
        setting = _SETTING.match(line)
        if setting and setting[1] == "PORT":
            self._take_port(line, setting.end())
        elif setting and setting[1] in ("HOSTS", "HOST"):
            self._take_hosts(line, setting.end())
        elif line.endswith(":"):
            self._take_header(line)
        elif setting:
            self._warn(1, f"unknown setting {quoted(setting[1])} is ignored; known are PORT and HOSTS")
        else:
            self._open_nameless_set()
            raise _unreadable(line)

    def _take_port(self, line: str, offset: int) -> None:
        value = line[offset:]
        port = parse_number(value, MAX_PORT)
        if port is None:
            raise LineError(offset + 1, f"PORT wants one number from 1 to {MAX_PORT}, not {quoted(value)}")
        self.port = port

    def _take_hosts(self, line: str, offset: int) -> None:
        for match in _HOST_WORD.finditer(line, offset):
            column = match.start() + 1
            try:
                self.hosts.append((parse_host(match[0]), self._line, column))
            except HostSyntaxError as error:
                raise LineError(column, str(error)) from None

    def _take_header(self, line: str) -> None:
        name = line[:-1].strip(BLANKS)
        if not name:
            self._open_nameless_set()
            raise LineError(1, "a header without a name; write one before the colon, like 'actionset1:'")
        first = self._names.setdefault(name, self._line)
        if first != self._line:
            self._warn(1, f"action set {quoted(name)} has the name of the one at line {first}; both run")
        self.sets.append(_SetDraft(name, self._line))

    def _open_nameless_set(self, base_width: int = 0) -> None:
        """After an error only, so that it's never part of a result."""
        self.sets.append(_SetDraft("", self._line, base_width))

    def _take_indented(self, line: str, indent: int, width: int) -> None:
        current = self.sets[-1]
        deep = current.is_deep(width)
        if deep or first_word(line[indent:]) in _REQUIRES:
            self._take_detail(current, without_comment(line), indent, deep)
        else:
            current.base_width = current.base_width or width  # also when the action is an error
            current.actions.append(self._read_action(line[indent:], indent + 1))

    def _take_detail(self, current: _SetDraft, line: str, indent: int, deep: bool) -> None:
        """A line for the action above; only `requires` may stand as far left as an action."""
        keyword = first_word(line[indent:])
        if not current.actions:
            if current.base_width == 0:
                wanted = "it goes below the action it is for"
                raise LineError(indent + 1, f"a {keyword} line before any action; {wanted}")
            return  # the action above was an error already
        action = current.actions[-1]
        offset = indent + len(keyword)
        match keyword:
            case "requires" | "require" | "required":
                action.requires += read_names(line, offset)
            case "produces" if deep:
                action.produces = (action.produces or []) + read_names(line, offset)
            case "needs" if deep:
                action.needs += read_needs(line, offset)
            case "timeout" if deep:
                if action.timeout_s is not None:
                    self._warn(indent + 1, "a second timeout for the same action; this one holds")
                action.timeout_s = read_timeout(line, offset)
            case "repeatable" if deep:
                check_bare(line, offset, "repeatable")
                action.repeatable = True
            case _:
                self._warn(
                    indent + 1,
                    "indented like 'requires' but without that word: taken as names that the action requires "
                    "(indent it less if it is an action)",
                )
                action.requires += read_names(line, indent)

    def _read_action(self, text: str, column: int) -> _ActionDraft:
        command = without_shell_comment(text)
        remote = False
        if command.startswith("remote-"):
            command, remote = command[len("remote-") :].lstrip(BLANKS), True
        elif first_word(command) == "remote":
            command, remote = command[len("remote") :].lstrip(BLANKS), True
            if command:
                self._warn(column, "'remote' and a blank: taken as 'remote-' in front of the command")
        if not command:
            wanted = "write it right behind, like remote-cc -c a.c"
            raise LineError(column, f"'remote-' without a command; {wanted}")
        program = first_word(command)
        if program in ("produces", "needs", "repeatable") and not remote:
            self._warn(column, f"an action that runs {program!r}; indent it deeper if it describes the one above")
        return _ActionDraft(command, remote, self._line)


def _unreadable(line: str) -> LineError:
    name, colon, rest = line.partition(":")
    if name and colon:
        column = len(line) - len(rest.lstrip(BLANKS)) + 1
        return LineError(column, "text after the colon of a header; actions go on the lines below, indented")
    begin = quoted(first_word(line))
    return LineError(1, f"{begin} begins neither 'KEY = value' nor 'name:'; an action must be indented")
