"""Imports point one way: the table of docs/architecture.md, held against every module's source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rakefarm"
MODULES = sorted(PACKAGE.rglob("*.py"))

IO = {
    "asyncio", "ctypes", "fcntl", "logging", "mmap", "multiprocessing", "os", "pathlib", "psutil", "random", "rich", "select",
    "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
PURE = ("wire", "market")
"""No I/O, no clock, no randomness of their own: bytes and data in, data out."""
SHARED_DATA = {"rakefarm.market.curve", "rakefarm.market.curve.Curve"}
SIMULATION = {
    f"lab/{name}.py"
    for name in (
        "attempt", "clairvoyant", "client", "draw", "foreign", "host", "launches", "memory", "network", "recorded_build",
        "recorded_choices", "remodel", "replay", "scenario", "timeline", "world",
    )
}  # fmt: skip
OWNERS = {
    "psutil": {"server/load.py"},
    "rich": {"client/live.py", "client/frame.py", "client/tables.py", "client/top_screen.py", "lab/progress.py"},
    "subprocess": {"process.py", "embedded.py"},
    "grpc": {"engine/quiet_grpc.py"},
    "multiprocessing": set(),
    "asyncio": set(),
}
"""Who may import what others must not."""
SPEAKERS = {
    f"{name}.py"
    for name in (
        "engine/access", "engine/blobs", "engine/channel", "engine/execution", "server/join/bot", "server/join/ending",
    )
}  # fmt: skip
"""Who speaks gRPC."""
STRANGERS = {
    "server": ("client", "cc", "launch"),
    "client": ("server", "cc", "launch"),
    "cc": ("server", "launch"),
    "engine": ("server", "client", "cc", "launch"),
    "launch": ("server",),
}
"""Parts that don't know each other; `cc` is a client of another kind, and knows `client`; `launch` knows both."""


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def imports_of(module: Path) -> set[str]:
    """Every module that is named in an import statement, wherever it stands, but for those of type checking alone."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    checked = [
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
    ]
    found = set()
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(module)}: relative imports hide where an arrow points"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(imported: set[str], part: str) -> set[str]:
    return {name for name in imported if name == f"rakefarm.{part}" or name.startswith(f"rakefarm.{part}.")}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_point_one_way(module: Path) -> None:
    name, imported = name_of(module), imports_of(module)
    part = name.split("/")[0]
    top = {one.split(".")[0] for one in imported}
    if part in PURE:
        assert not top & IO, "this part is pure"
        rest = {one for one in imported if one.startswith("rakefarm.")} - ours(imported, part)
        assert rest <= SHARED_DATA, "a pure part knows of others only their data"
    for stranger in STRANGERS.get(part, ()):
        assert not ours(imported, stranger), "server and client don't know each other"
    if part not in ("cli.py", "commands", "lab"):
        assert not ours(imported, "lab"), "the lab knows the farm, not the other way round"
    if name in SIMULATION:
        assert not top & IO - {"random"}, "a simulation has a clock of its own, and chance by its seed"
    if part not in ("cli.py", "commands"):
        assert not ours(imported, "commands"), "only the command line imports its subcommands"
    if name != "cli.py" and not name.endswith("__main__.py"):
        assert not ours(imported, "cli"), "only the entry points import the command line"
    if "/" not in name and name not in ("cli.py", "__main__.py"):
        known = {each for part in STRANGERS for each in ours(imported, part)}
        assert not known, "shared modules know neither side"
    assert name in SPEAKERS or not ours(imported, "engine.quiet_grpc"), f"only {SPEAKERS} may speak gRPC"
    for owned, owners in OWNERS.items():
        assert owned not in top or name in owners, f"only {owners or 'nobody'} may import {owned}"


def test_there_are_no_import_cycles() -> None:
    """Also through imports inside functions, which only hide a cycle until it is walked."""
    graph = {}
    names = {
        "rakefarm." + name_of(module).removesuffix(".py").removesuffix("/__init__").replace("/", "."): module
        for module in MODULES
    }
    for name, module in names.items():
        graph[name] = {imported for imported in imports_of(module) if imported in names and imported != name}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for imported in sorted(graph[name]):
                # A package's own name stands for its __init__, which names what it exports.
                if not name.startswith(imported + "."):
                    visit(imported, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_modules_stay_readable() -> None:
    long = {name_of(module): lines for module in MODULES if (lines := len(module.read_text().splitlines())) > 400}
    assert not long, "what is the second idea in each?"
