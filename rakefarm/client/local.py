"""Actions that run here: in the working directory, or staged in a directory of their own as a remote one would be."""

import contextlib
import os
from collections.abc import Callable, Mapping

from msgspec import Struct

from rakefarm import process
from rakefarm.client.inputs import Manifest, declared_paths, staged_path
from rakefarm.client.outputs import Incoming, OutputError
from rakefarm.client.rakefile_model import Action
from rakefarm.digest import no_beat
from rakefarm.snapshot import (
    Made,
    MissingOutput,
    Staged,
    UnfitOutput,
    current_tick,
    find_declared,
    find_new,
    open_made,
    stamp_of,
)
from rakefarm.wire.messages import Output
from rakefarm.wire.paths import show


class LocalResult(Struct, frozen=True):
    """A local action's end; `problem` is set when it ended well but its outputs are not as they must be."""

    completed: process.Completed
    problem: str = ""


def needs_staging(action: Action) -> bool:
    """Whether a required file under another directory is named bare in the command, and isn't there: only staging can
    make that command work."""
    nested = [name for name in action.requires if b"/" in staged_path(os.fsencode(name))]
    if not nested:
        return False
    import shlex

    try:
        words = set(shlex.split(action.command))
    except ValueError:
        words = set(action.command.split())
    return any(os.path.basename(name) in words and not os.path.lexists(os.path.basename(name)) for name in nested)


Runner = Callable[..., process.Completed]
"""`process.run`, or one that does more."""


def run_here(action: Action, environ: Mapping[bytes, bytes], cancel: int, run: Runner = process.run) -> LocalResult:
    """Run in the working directory. Raises OSError when pipes can't be had."""
    completed = run(os.fsencode(action.command), environ, cancel=cancel, timeout_s=action.timeout_s)
    if completed.ending == process.Exited(0):
        for name in action.produces or ():
            if not os.path.isfile(name):
                return LocalResult(completed, f"the declared output {name} was not made")
    return LocalResult(completed)


def run_staged(
    action: Action,
    manifest: Manifest,
    environ: Mapping[bytes, bytes],
    cancel: int,
    incoming: Incoming,
    run: Runner = process.run,
) -> LocalResult:
    """Run in a fresh directory with copies of the inputs; the outputs are in `incoming`. Raises OSError."""
    import shutil
    import tempfile

    box = os.fsencode(tempfile.mkdtemp(prefix="rakefarm-"))
    try:
        staged: dict[bytes, Staged] = {}
        for entry, source in zip(manifest.entries, manifest.sources, strict=True):
            target = box + b"/" + entry.path
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
            if entry.alias:
                os.link(target, box + b"/" + entry.alias)
            staged[entry.path] = Staged(entry.sha256, stamp_of(os.lstat(target)))
        for path in declared_paths(action.produces or ()):
            with contextlib.suppress(FileExistsError, NotADirectoryError):  # as a server does it
                os.makedirs(os.path.dirname(box + b"/" + path), exist_ok=True)
        aliases = {entry.alias: entry.path for entry in manifest.entries if entry.alias}
        started = current_tick()
        command = os.fsencode(action.command)
        completed = run(command, environ, directory=box, cancel=cancel, timeout_s=action.timeout_s)
        if completed.ending != process.Exited(0):
            return LocalResult(completed)
        try:
            if action.produces is None:
                made = find_new(box, staged, aliases, started, no_beat)
            else:
                made = find_declared(box, declared_paths(action.produces), no_beat)
            for file in made:
                _take(file, incoming)
        except MissingOutput as missing:
            return LocalResult(completed, f"the declared output {show(missing.path)} was not made")
        except (UnfitOutput, OutputError) as error:
            return LocalResult(completed, str(error))
        return LocalResult(completed)
    finally:
        shutil.rmtree(box, ignore_errors=True)


def _take(file: Made, incoming: Incoming) -> None:
    with open(open_made(file), "rb") as source:

        def pump(sink: Callable[[bytes], object]) -> None:
            while data := source.read(1 << 18):
                sink(data)

        incoming.receive(Output(file.path, file.mode, file.sha256), pump)
