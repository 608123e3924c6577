"""Why a call's result was not among the earlier ones: the nearest of them, and what is different."""

import os
from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from rakefarm.cc.resultkeys import Parts

SHOWN = 8
"""So many differences are listed; there may be hundreds."""


HIT = "HIT"
"""What a hit is counted under, beside the names of causes."""
SERVED = "SERVED"
"""… and a miss whose result a server had kept."""


class Cause(Enum):
    """The name is what statistics count, the value what a person reads."""

    NEW = "no earlier call compiled this source"
    COMPILER = "the compiler is another one"
    ARGUMENTS = "the arguments are others"
    VARIABLES = "environment variables are different"
    DIRECTORY = "it was compiled in another directory"
    SEARCH_PATH = "other directories are searched for headers"
    INPUTS = "inputs have changed"
    MISSING = "files that were read are not there any more"
    APPEARED = "files are there now that were looked for in vain"
    EVICTED = "the result was not kept, or is kept no longer"


class Miss(Struct, frozen=True):
    """The cause, and what exactly: a word, a variable, a path each."""

    cause: Cause
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cause.value}{': ' if self.details else ''}{', '.join(self.details)}"


def compare_parts(now: Parts, earlier: Sequence[Parts]) -> Miss:
    """How this call differs from the nearest of the earlier ones of its source."""
    if not earlier:
        return Miss(Cause.NEW)
    return min([_differences(now, one) for one in earlier], key=len)[0]


def _differences(now: Parts, then: Parts) -> list[Miss]:
    """The most telling one first."""
    found = []
    if now.compiler != then.compiler:
        changed = [path for path, _ in set(now.compiler) - set(then.compiler)] or [path for path, _ in then.compiler]
        found.append(Miss(Cause.COMPILER, _named(sorted(changed))))
    if now.words != then.words:
        more = [f"+ {os.fsdecode(word)}" for word in now.words if word not in then.words]
        less = [f"- {os.fsdecode(word)}" for word in then.words if word not in now.words]
        found.append(Miss(Cause.ARGUMENTS, tuple([*more, *less][:SHOWN]) or ("their order, or how often",)))
    if now.variables != then.variables:
        names = {name for name, _ in set(now.variables) ^ set(then.variables)}
        found.append(Miss(Cause.VARIABLES, _named(sorted(names))))
    if now.directory != then.directory:
        found.append(Miss(Cause.DIRECTORY, _named([then.directory])))
    if now.search != then.search:
        places = {place for chain in now.search for place in chain} ^ {p for chain in then.search for p in chain}
        found.append(Miss(Cause.SEARCH_PATH, _named(sorted(places))))
    return found or [Miss(Cause.EVICTED)]


def changed(cause: Cause, paths: Sequence[bytes]) -> Miss:
    """The same call as before, over files that are others now."""
    return Miss(cause, _named(paths))


def _named(names: Sequence[bytes]) -> tuple[str, ...]:
    shown = tuple([os.fsdecode(name) for name in names[:SHOWN]])
    return (*shown, f"and {len(names) - SHOWN} more") if len(names) > SHOWN else shown
