"""The exit statuses of every rakefarm command, in one place so that documents and code agree.

They say *who* is at fault: the build (1), its description (2), the farm (3) or rakefarm itself (70,
EX_SOFTWARE of sysexits.h). Interrupted commands end with 128 + the signal's number, as a shell reports.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit status of `rakefarm build`, `rakeserver` and their other names."""

    OK = 0  # every action succeeded
    ACTION_FAILED = 1  # an action ran and failed
    USAGE = 2  # the command line, the Rakefile or the configuration is wrong
    FARM_FAILED = 3  # no server could run an action, and the fallback is off or used up
    INTERNAL = 70  # a fault of rakefarm: traceback in a log file
    HUNG_UP = 129  # SIGHUP, or the terminal that we write to is gone
    INTERRUPTED = 130  # SIGINT
    OUTPUT_CLOSED = 141  # SIGPIPE: whoever read our output is gone
    TERMINATED = 143  # SIGTERM
