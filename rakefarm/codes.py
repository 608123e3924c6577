"""The code of each error that a person may meet: what it is about, and what to try next.

docs/errors.md has a section for each, under the same title. A number is never used again for another error.
"""

from enum import Enum


class Code(Enum):
    """An error's number, its title, and the next thing to try (`{host}` and `{name}` are filled in)."""

    COMMAND_LINE = "RF001", "the command line", "see --help of the command"
    CONFIGURATION = (
        "RF002",
        "the configuration",
        "mend the setting that is named; rakefarm config --show-origin lists them",
    )
    RAKEFILE = "RF003", "the Rakefile", "mend the line that is named; the language is in docs/rakefile.md"
    OTHER_RAKEFILE = "RF004", "a Rakefile of Ruby's rake", "run it with rake, or name a Rakefile of ours with -f FILE"
    NOT_SHOWN = "RF005", "an output of ours that can't be written", "see that the file or stream takes what is written"
    SERVER_START = "RF006", "a server that can't start", "mend what is named, and start it again"
    LAUNCH = (
        "RF008",
        "a farm that can't be launched",
        "see the nodes by hand: sinfo; srun -N 1 rakeserver --version; ssh NODE rakeserver --version",
    )
    INTERNAL = "RF070", "a fault of rakefarm", "report it, with the file that is named"

    NAME = "RF101", "a name that doesn't resolve", "check the spelling: getent hosts {name}; or write the address"
    ROUTE = "RF102", "no route to the host", "check the network here: ip route get {name}"
    REFUSED = "RF103", "connection refused", "start it there: rakeserver; or see what port it says it listens on"
    WRONG_PORT = "RF104", "the wrong port", "name the port at which it answers"
    NOT_RAKEFARM = "RF105", "another program at the port", "name rakeserver's port, which it prints when it starts"
    NO_ANSWER = "RF106", "no answer to a connection", "see that the machine is on, and that no firewall drops the port"
    SILENT = "RF107", "a server that accepts and never answers", "look at its log, and start rakeserver there anew"
    NO_KEY = (
        "RF108",
        "no key here",
        "get the farm's key from who has it (rakefarm key add-host), or name it: --key-file",
    )
    WRONG_KEY = (
        "RF109",
        "a key that is not accepted",
        "put ours there: rakefarm key add-host {name}; then SIGHUP the server",
    )
    KEY_NOT_ASKED = (
        "RF110",
        "a server that asks for no key",
        "give it the key: rakefarm key add-host {name}; start it anew",
    )
    NOT_PROVED = "RF111", "a server that has not proved our key", "don't use it; ask who runs {name}"
    VERSION = "RF112", "another version of the protocol", "install the same release of rakefarm on both ends"
    UNPROVEN = "RF113", "a host on the network, and no key", "rakefarm key add-host {name} makes one and puts it there"
    PROTOCOL = "RF114", "an answer against the protocol", "install the same release on both ends; else report it"
    LOST = "RF115", "a connection that was lost", "look at the server's log"
    SSH = "RF116", "ssh that fails", "try it by itself: ssh {name} true"
    SOCKET = "RF117", "a socket that can't be used", "start rakeserver -i with this path, as this user"

    NO_COMPILER = "RF120", "no compiler there", "install it there, or set path in the server's server.toml"
    OTHER_COMPILER = "RF121", "another compiler there", "install the same version and target here and there"
    COMPILE_FAILED = "RF122", "a compilation that fails there", "try the same compiler on {name} by hand"
    DISK = "RF123", "a full disk", "make room there; cache_size in server.toml caps the content store"
    MEMORY = "RF124", "too little memory there", "see what uses it; memory_floor in server.toml is the least"
    CLOCK = "RF125", "a clock that is off", "set it there: timedatectl set-ntp true"
    DECLINES = "RF126", "a server that takes nothing now", "wait, or see its log"
    ISOLATION = "RF128", "less isolation than is required", "rakeserver --selftest there says what is missing"
    OTHER_RELEASE = "RF127", "a server that tells no status", "install the same release of rakefarm there"

    ENGINE = "RF130", "an engine that can't be used", "see that it runs, and that its URL is right; docs/engine.md"
    ENGINE_ACCESS = "RF131", "an engine that does not let us in", "get a token that is good from who runs the engine"

    ACTION_FAILED = "RF201", "an action that failed", "run its command here by hand"
    MISSING_REQUIRES = "RF202", "a file that is not required", "add the requires line that is printed"
    NOT_RUN = "RF203", "an action that no host runs", "rakefarm doctor says what is wrong with each host"
    MISSING_INPUT = "RF204", "a required file that is not there", "make it in an earlier set, or mend the requires line"
    TIME_LIMIT = "RF205", "a time limit that was up", "raise the action's timeout, or make it smaller"
    KILLED = "RF206", "a command killed by a signal", "see whether memory ran out there: rakefarm top"
    OUTPUT = "RF207", "an output that can't be had", "mend the produces line, or see that the file can be written here"

    @property
    def number(self) -> str:
        """RF and three digits."""
        return self.value[0]

    @property
    def title(self) -> str:
        """What it is about."""
        return self.value[1]

    def fix(self, host: str = "", name: str = "") -> str:
        """The next thing to try, for a host and its bare name."""
        template: str = self.value[2]
        return template.replace("{host}", host).replace("{name}", name or host)


ADVICE = "; "
"""What a reason says to do follows this."""


def brief(reason: str) -> str:
    """A reason without its advice, for where that has been given already; its code stays."""
    text, _, advice = reason.partition(ADVICE)
    _, bracket, number = advice.rpartition(" [RF")
    return f"{text}{bracket}{number}" if bracket else text


def coded(text: str, code: Code) -> str:
    """A message with its code at the end."""
    return f"{text} [{code.number}]"
