"""Finds an award policy: by its name, from an entry point of another package, or in a file of the user's own."""

import os
import sys
from collections.abc import Callable

from rakefarm.config import ConfigError
from rakefarm.market.policies import POLICIES
from rakefarm.market.policy import Policy, View

ENTRY_POINTS = "rakefarm.awards"


def find_policy(name: str) -> Callable[[View], Policy]:
    """What makes the policy called `name`, `package's name` or `FILE.py:NAME`. Raises ConfigError."""
    if name in POLICIES:
        return POLICIES[name]
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(path, attribute)
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS)
    for point in found:
        if point.name == name:
            try:
                return _checked(point.load(), name)
            except Exception as error:
                raise ConfigError(f"policy {name!r} can't be loaded: {error}") from error
    known = ", ".join([*POLICIES, *sorted(point.name for point in found)])
    raise ConfigError(f"policy {name!r}: there are {known}, or FILE.py:NAME")


def _from_file(path: str, attribute: str) -> Callable[[View], Policy]:
    import importlib.util

    where = os.path.abspath(path)
    spec = importlib.util.spec_from_file_location("rakefarm_policy", where)
    if spec is None or spec.loader is None or not os.path.isfile(where):
        raise ConfigError(f"policy {path}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass, for one, looks for the names of its own file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"policy {path}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"policy {path}: has no {attribute!r}")
    return _checked(getattr(module, attribute), f"{path}:{attribute}")


def _checked(make: object, name: str) -> Callable[[View], Policy]:
    if not callable(make):
        raise ConfigError(f"policy {name}: is not a class or a function that takes a view")
    return make
