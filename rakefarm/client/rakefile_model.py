"""What a Rakefile says, as frozen data, and the one error for a Rakefile that says nothing.

`rakefile` makes these; planning and dispatch only need this module.
"""

from msgspec import Struct

from rakefarm.codes import Code
from rakefarm.hosts import Host


class Diagnostic(Struct, frozen=True):
    """A place in the file, line and column from 1, and what is to be said about it.

    Line 0 is the file as a whole.
    """

    line: int
    column: int
    text: str


class Action(Struct, frozen=True):
    """One command. Text holds undecodable bytes as lone surrogates: `os.fsencode` gives the bytes back."""

    command: str
    """For `/bin/sh -c`, without `remote-`, never empty."""
    remote: bool
    line: int
    requires: tuple[str, ...] = ()
    """Names and glob patterns as written, quoting removed; neither normalised nor checked for existence."""
    produces: tuple[str, ...] | None = None
    """Exactly the outputs that come back; None when not declared, then whatever is new or changed does."""
    needs: tuple[tuple[str, str], ...] = ()
    """Resources in file order, '' for a value that was not given; `mem` and `cpu` values are checked."""
    timeout_s: float | None = None
    """Seconds, finite and above 0; None for no limit."""
    repeatable: bool = False
    """It may run twice at one time: it changes nothing but its own outputs, and either run's will do."""


class ActionSet(Struct, frozen=True):
    """Actions that may run at the same time; the name is a label and may repeat."""

    name: str
    line: int
    actions: tuple[Action, ...]


class Rakefile(Struct, frozen=True):
    """A whole file. Every host has a port, and no (name, port) stands twice in `hosts`."""

    path: str
    port: int
    hosts: tuple[Host, ...]
    sets: tuple[ActionSet, ...]
    warnings: tuple[Diagnostic, ...]


class RakefileError(Exception):
    """The file can't be read or understood. `str()` is the first error: `path:line:column: text`.

    `errors` holds them in file order, at most 20, and is never empty; `warnings` is what else was noticed. An error of
    the file as a whole has line 0, and its `str()` is `path: text`.
    """

    def __init__(
        self,
        path: str,
        errors: tuple[Diagnostic, ...],
        warnings: tuple[Diagnostic, ...] = (),
        code: Code = Code.RAKEFILE,
    ) -> None:
        assert errors
        super().__init__(path, errors)
        self.path = path
        self.code = code
        self.errors = errors
        self.warnings = warnings

    @property
    def line(self) -> int:
        """The line of the first error."""
        return self.errors[0].line

    @property
    def column(self) -> int:
        """The column of the first error."""
        return self.errors[0].column

    @property
    def text(self) -> str:
        """What the first error says, without its place."""
        return self.errors[0].text

    def __str__(self) -> str:
        return locate(self.path, self.errors[0])


def locate(path: str, diagnostic: Diagnostic) -> str:
    """One line for a person: `path:line:column: text`, or `path: text` about the file as a whole."""
    if not diagnostic.line:
        return f"{path}: {diagnostic.text}"
    return f"{path}:{diagnostic.line}:{diagnostic.column}: {diagnostic.text}"
