"""`rakefarm compdb`: the compilations of a Rakefile as clangd, clang-tidy and others read them (compile_commands.json,
the JSON compilation database of Clang)."""

import itertools
import os
import shlex
from collections.abc import Iterator

from rakefarm.client.dependencies import SOURCES
from rakefarm.client.rakefile_model import Action, Rakefile
from rakefarm.market.kind import OTHER, kind_of


def entries(rakefile: Rakefile, directory: str) -> Iterator[dict[str, object]]:
    """One for each source of each compilation, local ones, too; commands that only a shell understands are left out."""
    for action_set in rakefile.sets:
        for action in action_set.actions:
            yield from _entries_of(action, directory)


def _entries_of(action: Action, directory: str) -> Iterator[dict[str, object]]:
    if kind_of(action.command) == OTHER:
        return
    try:
        words = shlex.split(action.command)
    except ValueError:
        return
    by_base = {os.path.basename(name): name for name in action.requires}
    # A required src/a.c may be named a.c where the command runs; here it is src/a.c.
    words = [by_base[word] if word in by_base and not os.path.exists(word) else word for word in words]
    output = next((following for word, following in itertools.pairwise(words) if word == "-o"), None)
    for word in words[1:]:
        if word.endswith(SOURCES) and word != output:
            entry: dict[str, object] = {"directory": directory, "arguments": words, "file": word}
            yield {**entry, "output": output} if output is not None else entry
