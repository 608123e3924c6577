"""What the fixtures of engines are called, for the tests that have them; and the project that is compiled."""

from collections.abc import Callable
from pathlib import Path

from parts import BuildGrid
from server_vocabulary import Server

MakeEngine = Callable[..., BuildGrid]
"""Of the fixture `make_engine`."""
StartWorkers = Callable[[BuildGrid, int], list[Server]]
"""Of the fixture `start_workers`."""


def lua_sources(lua: Path) -> list[str]:
    """The names of the interpreter's C files: 33 in Lua 5.4."""
    return sorted({each.name for each in lua.glob("*.c")} - {"luac.c", "onelua.c", "ltests.c"})
