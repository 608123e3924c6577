"""One node of a launched farm: what was said there, and what that means. Pure text work."""

import re
import shlex
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from rakefarm.client.board import safe_text
from rakefarm.codes import Code
from rakefarm.hosts import Host, HostSyntaxError, parse_host, parse_number

LAST_WORDS = 50
"""Lines of a node that are kept, to say why its server has not started."""
LONGEST_REASON = 300
MAX_SLOTS = 4096
_ANNOUNCED = re.compile(r"listening on (\S+) slots=(\d+) .*\bauthentication=key encryption=tls\b.*")
_NAME = re.compile(r"node (\w[\w.-]{0,252})")
_COMPLAINT = re.compile(r"rakeserver: error: (.*)")
_CODE = re.compile(r" \[(RF\d{3})\]$")


class LaunchFailed(Exception):
    """The farm could not be brought up, or is lost; one line says why and where."""

    def __init__(self, text: str, code: Code = Code.LAUNCH) -> None:
        super().__init__(text)
        self.code = code


class Node(Struct):
    """A node, by the name that a person knows it by. `host` is where its server listens, None before it has said so;
    `ended` is how it ended, empty while it runs. `through`: it is only reached through ssh, by this destination."""

    name: str
    through: str = ""
    host: Host | None = None
    slots: int = 0
    ended: str = ""
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WORDS))

    def hear(self, text: str, error: bool) -> None:
        """A line that was said there. What a login script says is not taken for our server's."""
        if error:
            if text.strip():
                self.last_words.append(safe_text(text))
        elif match := _NAME.fullmatch(text):
            self.name = match[1]
        elif (match := _ANNOUNCED.fullmatch(text)) and self.host is None:
            slots = parse_number(match[2], MAX_SLOTS)
            try:
                host = parse_host(match[1])
            except HostSyntaxError:
                return
            if slots is not None and host.way == "tcp" and host.port is not None:
                self.host = replace(host, name=self.through, way="ssh") if self.through else host
                self.slots = slots

    def failure(self) -> LaunchFailed:
        """Why its server is not there: what that complained of, or else the last that was said."""
        complaints = [match[1] for line in self.last_words if (match := _COMPLAINT.fullmatch(line))]
        reason = (complaints or [*self.last_words] or [""])[-1]
        if not complaints and self.ended:
            reason = f"{self.ended}: {reason}" if reason else self.ended
        return failed(f"{self.name}: {reason or 'its server says nothing'}")


def failed(text: str) -> LaunchFailed:
    """With the code that stands at the end of the text, if one does, for a code of its own."""
    code = Code.LAUNCH
    if match := _CODE.search(text):
        code = next((known for known in Code if known.number == match[1]), code)
        text = text[: match.start()]
    return LaunchFailed(text[:LONGEST_REASON], code)


def server_script(program: str, ours: str, way: str, options: Sequence[str], tell_name: bool) -> str:
    """What a node's shell is to do: become the server. `program` is the user's own word for it; without one, the one
    of our own installation is taken if it is there, as on a shared file system, or else that on the PATH there. One
    line: a csh takes no more in quotes."""
    words = shlex.join(["--launched", way, *options])
    if program:
        start = f"exec {shlex.quote(program)} {words}"
    else:
        there = shlex.quote(ours)
        missing = f"rakeserver: error: there is no {ours} here, and no rakeserver on the PATH; name it with --program"
        start = (
            f"if [ -x {there} ]; then exec {there} {words}; fi; "
            f"if command -v rakeserver >/dev/null; then exec rakeserver {words}; fi; "
            f"echo {shlex.quote(missing)} >&2; exit 127"
        )
    return f'echo "node ${{SLURMD_NODENAME:-?}}"; {start}' if tell_name else start
