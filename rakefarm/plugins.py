"""Finds what a user may replace: by its name, from an entry point of another package, or in a file of one's own."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from rakefarm.config import ConfigError

Found = TypeVar("Found")


def find_plugin(
    what: str, name: str, known: Mapping[str, Found], group: str, checked: Callable[[object, str], Found]
) -> Found:
    """The `what` (a word for messages) that is called `name`: one of `known`, an entry point of `group`, or the NAME in
    a file, for `FILE.py:NAME`. What isn't known goes through `checked`, with what to call it in a message.

    Raises ConfigError, whose text is one line.
    """
    if name in known:
        return known[name]
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return checked(_from_file(what, path, attribute), f"{path}:{attribute}")
    from importlib.metadata import entry_points

    found = entry_points(group=group)
    for point in found:
        if point.name == name:
            try:
                return checked(point.load(), name)
            except ConfigError:
                raise
            except (Exception, SystemExit) as error:
                raise ConfigError(f"{what} {name!r} can't be loaded: {error}") from error
    names = ", ".join([*known, *sorted(point.name for point in found)])
    raise ConfigError(f"{what} {name!r}: there are {names}, or FILE.py:NAME")


def _from_file(what: str, path: str, attribute: str) -> object:
    import importlib.util

    where = os.path.abspath(path)
    spec = importlib.util.spec_from_file_location(f"rakefarm_{what}", where)
    if spec is None or spec.loader is None or not os.path.isfile(where):
        raise ConfigError(f"{what} {path}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass, for one, looks for the names of its own file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} {path}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{what} {path}: has no {attribute!r}")
    found: object = getattr(module, attribute)
    return found
