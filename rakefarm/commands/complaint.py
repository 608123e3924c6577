"""How a command says in one line that it can't go on."""

from typing import TYPE_CHECKING

from rakefarm import standard
from rakefarm.codes import Code, coded
from rakefarm.commands.parser import speaker
from rakefarm.exitcodes import ExitStatus

if TYPE_CHECKING:
    from rakefarm.client.plain import ViewError


def complain(
    text: str, status: ExitStatus = ExitStatus.USAGE, code: Code = Code.CONFIGURATION, program: str = "rakefarm"
) -> int:
    """Answers the exit status."""
    standard.say(f"{speaker(program)}: error: {coded(text, code)}")
    return int(status)


def not_shown(error: "ViewError") -> int:
    """A build could not be shown; answers the exit status."""
    from rakefarm.client.plain import OutputClosedError

    if isinstance(error, OutputClosedError):  # nobody would see a word of it
        return int(error.status)
    return complain(str(error), error.status, Code.NOT_SHOWN)
