"""Why a compiler call runs on this machine: a closed set, each with one line for a person."""

from enum import Enum


class Reason(Enum):
    """What keeps a call from the farm. The name is what statistics count, the value what `-v` says."""

    NOT_A_COMPILE = "it compiles nothing to an object (it links, preprocesses, prints or only checks)"
    NO_SOURCE = "it names no source file"
    SEVERAL_SOURCES = "it names more than one source file"
    STANDARD_INPUT = "it reads the source from standard input"
    STANDARD_OUTPUT = "it writes its result to standard output or to a device"
    LANGUAGE = "only C and C++ sources are sent"
    PRECOMPILED_HEADER = "it makes or uses a precompiled header, which holds addresses of this machine"
    PROFILE = "profiles and coverage notes name directories of this machine"
    LINK_TIME = "objects for link-time optimization differ from one compilation to the next"
    THIS_PROCESSOR = "-march=native and the like mean this processor"
    SAVES_TEMPORARIES = "it keeps intermediate files or dumps"
    PLUGIN = "it loads a plugin, a specification or other programs"
    UNKNOWN_OPTION = "an option is not known to be safe elsewhere"
    FRAGILE_OPTION = "an option would record names of the server's directories"
    RESPONSE_FILE = "a response file can't be read as the compiler would"
    TOO_LONG = "the command is too long to be sent"
    ENVIRONMENT = "an environment variable changes what the compiler reads or writes"
    UNKNOWN_COMPILER = "the compiler does not answer as gcc and clang do"
    NO_COMPILER = "the compiler is not on the PATH"
    COMPUTED_INCLUDE = "an #include is computed from a macro"
    EMBEDDED_FILE = "it reads or seeks a file in a way that can't be foreseen (.incbin, #embed, __has_include(MACRO))"
    TIME_OF_DAY = "the source uses __DATE__ or __TIME__, and SOURCE_DATE_EPOCH is not set"
    FILE_TIMES = "the times of files may matter to the result, and an engine's inputs have none"
    SYMBOLIC_LINK = "a path climbs out of a symbolic link"
    UNREADABLE = "an input can't be read"
    ODD_NAME = "a path can't be sent"
    DIRECTORY = "it runs in a directory of the system"
    CONFIGURATION = "a setting can't be used"
    NO_HOST = "no host of the farm is named"
    NO_SERVER = "no server of the farm could run it"
    FAILED_THERE = "it failed on the farm, so it is done again here, where its messages count"
    LEAKED_PATH = "what came back names a directory of the server"
    CANCELLED = "nobody waits for the result any more"
    SWITCHED_OFF = "RAKEFARM_CC=off"
    FAULT = "a fault of rakefarm"


class Local(Exception):
    """The call is for this machine, and why; `detail` names the option or the file."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}{': ' if detail else ''}{detail}")
        self.reason = reason
        self.detail = detail
